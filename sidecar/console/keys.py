"""What a terminal sends for the keys of `sidecar top`, as names.

Bytes come in any pieces: what is not whole yet waits for the rest. A lone escape byte is a key of its own once nothing
follows it, which only time tells; `pending` says that it waits for that, `flush` that the time is over.
"""

from __future__ import annotations

import codecs

__all__ = ["ESCAPE_WAIT", "Keys"]

# Seconds after which an escape byte was the key: what a terminal sends for another key comes in one piece, and
# vim and tmux are told to wait as long.
ESCAPE_WAIT = 0.05

_LONGEST = 16  # bytes of a sequence, more than any key sends; longer ones are dropped

# xterm's control sequences, in normal and in application mode (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html,
# "PC-Style Function Keys" and "VT220-Style Function Keys").
_SEQUENCES = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[H": "home",
    "OH": "home",
    "[1~": "home",
    "[7~": "home",
    "[F": "end",
    "OF": "end",
    "[4~": "end",
    "[8~": "end",
    "[5~": "page up",
    "[6~": "page down",
    "OM": "enter",
}
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw"}


class Keys:
    """Turns bytes into keys: a character stands for itself, others are `up`, `enter`, `escape` and so on."""

    __slots__ = ("_decoder", "_held")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # an escape sequence as far as it has come

    @property
    def pending(self) -> bool:
        """Whether a sequence has begun that is not whole."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole with `data`."""
        found: list[str] = []
        for character in self._decoder.decode(data):
            self._take(character, found)
        return found

    def flush(self) -> list[str]:
        """What has begun is all there is."""
        held, self._held = self._held, ""
        return ["escape"] if held == "\x1b" else []

    def _take(self, character: str, found: list[str]) -> None:
        if character == "\x1b":
            found += self.flush()
            self._held = character
        elif not self._held:
            key = _CONTROLS.get(character, character if character.isprintable() else "")
            if key:
                found.append(key)
        elif self._held == "\x1b" and character not in "[O":
            found.append("escape")
            self._held = ""
            self._take(character, found)
        else:
            self._held += character
            # The final byte of a control sequence is one of @ to ~ (ECMA-48 section 5.4), the first of all is not it.
            if len(self._held) > 2 and "@" <= character <= "~":
                key = _SEQUENCES.get(self._held[1:], "")
                self._held = ""
                if key:
                    found.append(key)
            elif len(self._held) > _LONGEST:
                self._held = ""
