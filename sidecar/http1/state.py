"""Both directions of one exchange as one table: how far the request has come, how far its answer.

state      the request                          the response           then
---------  -----------------------------------  ---------------------  ---------------------------------------
IDLE       none, or the last one is whole       none, or whole too     the connection takes the next request
EXPECTING  head; the client waits for 100       none yet               100, body after all, or a final answer
SENDING    head, and its body is coming         none yet               may be sent again elsewhere
SENT       whole                                none yet               may be sent again elsewhere
EARLY      head, and its body is coming         head, body coming      both go on, each at its own pace
ANSWERING  whole                                head, body coming
DRAINING   head, the rest of its body is coming whole                  the connection takes the next request once
                                                                       the rest has come, if it is short
CUT        its end is not awaited               whole                  the connection closes: what comes next
                                                                       could not be told from the body
SWITCHED   whole                                101                    HTTP has ended, a tunnel has begun
BROKEN     whatever had come                    cut short, or none     the connection closes

h11 keeps a table for each side and joins the two by rules; a proxy's two sides move together, so here they are
one state, and what the rules would say is what the table has no entry for: an answer before a request, a second
final response, a switch of protocols while the request's body is under way. Such an event is a mistake of this
program, not of a peer (those are `ProtocolError`s, found before), and raises `IllegalEventError`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NEXT", "Event", "IllegalEventError", "State", "follow"]


class State:
    """Plain integers: an Enum's hash is a Python call, and this is looked up for every request."""

    IDLE: Final = 0
    EXPECTING: Final = 1
    SENDING: Final = 2
    EARLY: Final = 3  # up to here the request's body is under way
    SENT: Final = 4
    ANSWERING: Final = 5
    DRAINING: Final = 6
    CUT: Final = 7
    SWITCHED: Final = 8
    BROKEN: Final = 9


class Event:
    """What can happen. Responses of the proxy's own count as the endpoint's do."""

    REQUEST_HEAD: Final = 0  # a body follows it
    REQUEST_EXPECT: Final = 1  # a body follows once the client has been told to go on (RFC 9110 10.1.1)
    REQUEST_WHOLE: Final = 2  # a head with all of its body, or without one
    REQUEST_DATA: Final = 3
    REQUEST_END: Final = 4
    CONTINUE: Final = 5  # 100
    INTERIM: Final = 6  # any other 1xx but 101
    RESPONSE_HEAD: Final = 7
    RESPONSE_WHOLE: Final = 8
    RESPONSE_DATA: Final = 9
    RESPONSE_END: Final = 10
    SWITCH: Final = 11  # 101
    GIVE_UP: Final = 12  # the rest of a request that has been answered is too long, or does not come
    BREAK: Final = 13  # the client has gone, or a response that had begun cannot be completed


_S = State
_E = Event
_TABLE: Final[dict[int, dict[int, int]]] = {
    _S.IDLE: {
        _E.REQUEST_HEAD: _S.SENDING,
        _E.REQUEST_EXPECT: _S.EXPECTING,
        _E.REQUEST_WHOLE: _S.SENT,
    },
    _S.EXPECTING: {
        _E.REQUEST_DATA: _S.SENDING,  # it did not wait; nobody has to
        _E.REQUEST_END: _S.SENT,
        _E.CONTINUE: _S.SENDING,
        _E.INTERIM: _S.EXPECTING,
        _E.RESPONSE_HEAD: _S.EARLY,
        _E.RESPONSE_WHOLE: _S.CUT,  # it may send the body all the same, or the next request
        _E.BREAK: _S.BROKEN,
    },
    _S.SENDING: {
        _E.REQUEST_DATA: _S.SENDING,
        _E.REQUEST_END: _S.SENT,
        _E.CONTINUE: _S.SENDING,
        _E.INTERIM: _S.SENDING,
        _E.RESPONSE_HEAD: _S.EARLY,
        _E.RESPONSE_WHOLE: _S.DRAINING,
        _E.BREAK: _S.BROKEN,
    },
    _S.SENT: {
        _E.CONTINUE: _S.SENT,
        _E.INTERIM: _S.SENT,
        _E.RESPONSE_HEAD: _S.ANSWERING,
        _E.RESPONSE_WHOLE: _S.IDLE,
        _E.SWITCH: _S.SWITCHED,
        _E.BREAK: _S.BROKEN,
    },
    _S.EARLY: {
        _E.REQUEST_DATA: _S.EARLY,
        _E.REQUEST_END: _S.ANSWERING,
        _E.RESPONSE_DATA: _S.EARLY,
        _E.RESPONSE_END: _S.DRAINING,
        _E.BREAK: _S.BROKEN,
    },
    _S.ANSWERING: {
        _E.RESPONSE_DATA: _S.ANSWERING,
        _E.RESPONSE_END: _S.IDLE,
        _E.BREAK: _S.BROKEN,
    },
    _S.DRAINING: {
        _E.REQUEST_DATA: _S.DRAINING,
        _E.REQUEST_END: _S.IDLE,
        _E.GIVE_UP: _S.CUT,
    },
    _S.CUT: {},
    _S.SWITCHED: {},
    _S.BROKEN: {},
}


class IllegalEventError(Exception):
    """An event in a state that has no place for it: a mistake of this program. It names both."""


# NEXT[state][event] is the next state; an event that has no place there is no key.
NEXT: Final = tuple(_TABLE[number] for name, number in vars(State).items() if name.isupper())

_EVENTS = 1 + max(number for name, number in vars(Event).items() if name.isupper())
_ILLEGAL = 255
# The same, flat: what `follow` reads costs neither an object nor a hash.
_FLAT = bytes(row.get(event, _ILLEGAL) for row in NEXT for event in range(_EVENTS))


def follow(state: int, event: int) -> int:
    """The state after `event` in `state`. Raises IllegalEventError, which names both, where there is none."""
    after: int = _FLAT[state * _EVENTS + event]
    if after == _ILLEGAL:
        raise _illegal(state, event)
    return after


def _illegal(state: int, event: int) -> IllegalEventError:
    states = {number: name for name, number in vars(State).items() if name.isupper()}
    events = {number: name for name, number in vars(Event).items() if name.isupper()}
    return IllegalEventError(f"{events[event]} in state {states[state]}")
