"""The differential test for longer: `python tests/property/fuzz.py [--minutes 10] [--seed N]`.

Inputs are made as in `test_differential`, or are mutations of the corpus, and come in their thousands instead
of hundreds. What fails is made as short as it gets, printed, and written to `corpus/` under the name of
what it contradicts; from then on the test command replays it. The exit code is 1 when anything failed.
"""

import argparse
import hashlib
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.dialects import Kind
from support.messages import RandomDice, mutated, stream
from test_differential import CORPUS, KINDS, check_accepted, check_split, check_what_goes_on

Check = Callable[[bytes, Kind], None]

# What differs between two inputs that fail in one way.
DETAIL = re.compile(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"|\d+")
FINDINGS = 20  # of one run; more of them are mostly the same ones


def split_anywhere(wire: bytes, kind: Kind) -> None:
    """`check_split` with cuts that follow from the bytes, so that what failed fails again."""
    chance = random.Random(wire)
    check_split(wire, kind, [chance.randint(0, len(wire)) for _ in range(4)])


CHECKS: dict[str, Check] = {
    "accepted": check_accepted,
    "sent-on": check_what_goes_on,
    "split": split_anywhere,
}


def failure(check: Check, wire: bytes, kind: Kind) -> str:
    """Why the property does not hold for `wire`; empty when it does."""
    try:
        check(wire, kind)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        return f"{type(problem).__name__}: {problem}".partition("\n")[0]
    return ""


def shortened(check: Check, wire: bytes, kind: Kind) -> bytes:
    """`wire` without any piece that the failure does not need."""
    size = len(wire) // 2
    while size:
        at = 0
        while at < len(wire):
            less = wire[:at] + wire[at + size :]
            if failure(check, less, kind):
                wire = less
            else:
                at += size
        size //= 2
    return wire


class Fuzzer:
    """One run. seen: what was found, by check and kind of message and the text without its details."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._dice = RandomDice(self._random)
        self._kept = {
            kind: [path.read_bytes() for path in sorted((CORPUS / folder).glob("*"))]
            for folder, kinds in KINDS.items()
            for kind in kinds
        }
        self.executions = 0
        self.seen: set[tuple[str, str]] = set()

    def step(self) -> None:
        """One input, through every check."""
        kind = self._dice.pick(
            (Kind.REQUESTS, Kind.RESPONSES, Kind.REQUESTS, Kind.RESPONSES, Kind.HEAD_RESPONSES)
        )
        wire = self._input(kind)
        for name, check in CHECKS.items():
            self.executions += 1
            if failure(check, wire, kind):
                self._report(name, check, shortened(check, wire, kind), kind)

    def _input(self, kind: Kind) -> bytes:
        dice = self._dice
        how = dice.number(0, 9)
        kept = [wire for wire in self._kept[kind] if len(wire) < 2000]
        if how == 0:
            return self._random.randbytes(dice.number(0, 60))
        if how <= 4 and kept:
            wire = dice.pick(kept)
            if how == 4:
                wire = dice.pick((wire + dice.pick(kept), stream(dice, kind) + wire))
        else:
            wire = stream(dice, kind)
        return mutated(dice, wire, dice.pick((0, 1, 1, 2, 2, 3, 5)))

    def _report(self, name: str, check: Check, wire: bytes, kind: Kind) -> None:
        why = failure(check, wire, kind)
        key = (f"{name} {kind.name}", DETAIL.sub("...", why)[:90])
        if key in self.seen:
            return
        self.seen.add(key)
        folder = "requests" if kind is Kind.REQUESTS else "responses"
        path = CORPUS / folder / f"found-{name}-{hashlib.sha256(wire).hexdigest()[:8]}"
        path.write_bytes(wire)
        print(f"{key[0]}: {wire!r}\n  {why[:600]}\n  kept as {path}", flush=True)


def main() -> int:
    """Run until the time is up or enough was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--seed", type=int, default=None, help="the same inputs again; a new one each time if not given"
    )
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    fuzzer = Fuzzer(seed)
    inputs = 0
    end = time.monotonic() + options.minutes * 60
    while time.monotonic() < end and len(fuzzer.seen) < FINDINGS:
        fuzzer.step()
        inputs += 1
    print(f"seed {seed}: {inputs} inputs, {fuzzer.executions} checks, {len(fuzzer.seen)} findings")
    return 1 if fuzzer.seen else 0


if __name__ == "__main__":
    sys.exit(main())
