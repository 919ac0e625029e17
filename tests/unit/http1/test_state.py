"""The table of an exchange: what may follow what, and that nothing else may."""

import pytest

from sidecar.http1.state import NEXT, Event, IllegalEventError, State, follow

STATES = {name: number for name, number in vars(State).items() if name.isupper()}
EVENTS = {name: number for name, number in vars(Event).items() if name.isupper()}
OVER = ("IDLE", "CUT", "SWITCHED", "BROKEN")


def after(*events: int, state: int = State.IDLE) -> int:
    """The state that these events lead to."""
    for event in events:
        state = follow(state, event)
    return state


def test_states_and_events_count_from_zero() -> None:
    assert sorted(STATES.values()) == list(range(len(NEXT)))
    assert sorted(EVENTS.values()) == list(range(len(EVENTS)))


def test_a_whole_request_and_a_whole_response_are_two_events() -> None:
    assert after(Event.REQUEST_WHOLE, Event.RESPONSE_WHOLE) == State.IDLE


def test_bodies_stream_both_ways() -> None:
    assert after(Event.REQUEST_HEAD, Event.REQUEST_DATA, Event.REQUEST_END) == State.SENT
    assert after(Event.RESPONSE_HEAD, Event.RESPONSE_DATA, Event.RESPONSE_END, state=State.SENT) == State.IDLE


def test_an_answer_that_ends_before_the_request_closes_the_connection() -> None:
    assert after(Event.REQUEST_HEAD, Event.RESPONSE_WHOLE, Event.GIVE_UP) == State.CUT
    assert after(Event.REQUEST_EXPECT, Event.RESPONSE_WHOLE) == State.CUT
    early = after(Event.REQUEST_HEAD, Event.RESPONSE_HEAD, Event.REQUEST_DATA, Event.RESPONSE_DATA)
    assert early == State.EARLY
    assert after(Event.RESPONSE_END, Event.GIVE_UP, state=early) == State.CUT
    assert after(Event.REQUEST_END, Event.RESPONSE_END, state=early) == State.IDLE


def test_a_short_rest_may_still_come() -> None:
    draining = after(Event.REQUEST_HEAD, Event.RESPONSE_WHOLE)
    assert draining == State.DRAINING
    assert after(Event.REQUEST_DATA, Event.REQUEST_END, state=draining) == State.IDLE


def test_a_client_that_waits_is_told_to_go_on_or_goes_on_by_itself() -> None:
    waiting = after(Event.REQUEST_EXPECT, Event.INTERIM)
    assert waiting == State.EXPECTING
    assert after(Event.CONTINUE, state=waiting) == State.SENDING
    assert after(Event.REQUEST_DATA, Event.CONTINUE, state=waiting) == State.SENDING
    assert after(Event.REQUEST_END, Event.CONTINUE, state=waiting) == State.SENT


def test_protocols_are_switched_only_when_the_request_is_whole() -> None:
    assert after(Event.REQUEST_WHOLE, Event.INTERIM, Event.SWITCH) == State.SWITCHED
    for state in set(STATES.values()) - {State.SENT}:
        with pytest.raises(IllegalEventError):
            after(Event.SWITCH, state=state)


@pytest.mark.parametrize("name", STATES)
def test_every_exchange_that_goes_on_can_break_and_none_that_is_over(name: str) -> None:
    row = NEXT[STATES[name]]
    if name == "DRAINING":
        assert row[Event.GIVE_UP] == State.CUT, "all has been answered, nothing can be broken"
    elif name in OVER:
        assert Event.BREAK not in row
    else:
        assert row[Event.BREAK] == State.BROKEN


@pytest.mark.parametrize("name", ["CUT", "SWITCHED", "BROKEN"])
def test_nothing_follows_the_end_of_a_connection(name: str) -> None:
    assert not NEXT[STATES[name]]


def test_a_second_answer_and_a_second_request_are_mistakes() -> None:
    """Each pair that the table leaves out names both when it happens."""
    with pytest.raises(IllegalEventError, match="RESPONSE_WHOLE in state IDLE"):
        after(Event.REQUEST_WHOLE, Event.RESPONSE_WHOLE, Event.RESPONSE_WHOLE)
    with pytest.raises(IllegalEventError, match="REQUEST_WHOLE in state SENT"):
        after(Event.REQUEST_WHOLE, Event.REQUEST_WHOLE)
    with pytest.raises(IllegalEventError, match="INTERIM in state ANSWERING"):
        after(Event.REQUEST_WHOLE, Event.RESPONSE_HEAD, Event.INTERIM)
    for state, row in enumerate(NEXT):
        for event in set(EVENTS.values()) - row.keys():
            with pytest.raises(IllegalEventError):
                after(event, state=state)


# The table once more, as a picture: state, event > state. Nobody changes one without looking at the other.
PICTURE = """
IDLE REQUEST_HEAD>SENDING REQUEST_EXPECT>EXPECTING REQUEST_WHOLE>SENT
EXPECTING REQUEST_DATA>SENDING REQUEST_END>SENT CONTINUE>SENDING INTERIM>EXPECTING RESPONSE_HEAD>EARLY
EXPECTING RESPONSE_WHOLE>CUT BREAK>BROKEN
SENDING REQUEST_DATA>SENDING REQUEST_END>SENT CONTINUE>SENDING INTERIM>SENDING RESPONSE_HEAD>EARLY
SENDING RESPONSE_WHOLE>DRAINING BREAK>BROKEN
EARLY REQUEST_DATA>EARLY REQUEST_END>ANSWERING RESPONSE_DATA>EARLY RESPONSE_END>DRAINING BREAK>BROKEN
SENT CONTINUE>SENT INTERIM>SENT RESPONSE_HEAD>ANSWERING RESPONSE_WHOLE>IDLE SWITCH>SWITCHED BREAK>BROKEN
ANSWERING RESPONSE_DATA>ANSWERING RESPONSE_END>IDLE BREAK>BROKEN
DRAINING REQUEST_DATA>DRAINING REQUEST_END>IDLE GIVE_UP>CUT
"""


def test_the_table_is_what_it_is_said_to_be() -> None:
    told = set()
    for line in PICTURE.split("\n")[1:-1]:
        state, *moves = line.split()
        told |= {
            (STATES[state], EVENTS[event], STATES[to]) for event, _, to in (m.partition(">") for m in moves)
        }
    assert told == {(state, event, to) for state, row in enumerate(NEXT) for event, to in row.items()}


def test_every_state_can_be_reached_and_leads_to_an_end() -> None:
    reached, new = {State.IDLE}, {State.IDLE}
    while new:
        new = {after for state in new for after in NEXT[state].values()} - reached
        reached |= new
    assert reached == set(STATES.values())
    for state in reached:
        ends, new = {state}, {state}
        while new:
            new = {after for one in new for after in NEXT[one].values()} - ends
            ends |= new
        assert ends & {STATES[name] for name in OVER}
