"""A request's own deadline, whatever connections and endpoints do meanwhile.

It ends in time and never early; what each attempt was told is what was left; and of all that the time has cut short
nothing is anybody's failure.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, ok, request

from sidecar.model import Outcome
from sidecar.proxy.sweep import INTERVAL

TIMEOUT = 30.0
EVENTS = ("accept", "refuse", "reset", "answer", "half an answer", "nothing")

thorough = settings(max_examples=300, deadline=None, derandomize=True)


class Run:
    """One request with so many milliseconds, in a proxy where it may have to wait behind another.

    cut: where its head comes in two pieces, one 30 ms after the other; 0 is in one.
    """

    def __init__(self, milliseconds: int, busy: bool, cut: int) -> None:
        self.proxy = Proxy(
            3,
            deadline_header=b"x-ms",
            timeout=TIMEOUT,
            connect_timeout=1.0,
            max_connections_per_endpoint=1 if busy else 0,
            max_connections=1 if busy else 8,
            pending_timeout=TIMEOUT,
            retries=20,
            breaker_threshold=1000,
            retry_min=100,
        )
        self.blame = 0  # failures that were played
        if busy:
            self.proxy.client(request("GET /other"))
            self.proxy.accept()
        asked = request("GET /mine", f"X-Ms: {milliseconds}")
        self.due = self.proxy.clock.now + milliseconds / 1000.0
        self.client = self.proxy.client(asked[:cut])
        if cut:
            self.proxy.clock.advance(0.03)
        self.client.feed(asked[cut:])
        self.seen: set[int] = set()

    def play(self, event: str) -> None:
        """Something happens to the connection that matters, if there is one."""
        proxy = self.proxy
        busy = proxy.busy
        if event == "accept" and proxy.connecting:
            proxy.accept()
        elif event == "refuse" and proxy.connecting:
            proxy.refuse()
            self.blame += 1
        elif busy and event in ("reset", "answer", "half an answer"):
            transport = busy[-1]
            if event == "reset":
                self.blame += transport.protocol.served == 0 or transport.protocol.heard
                transport.lose(ConnectionResetError())
            elif transport.protocol.reader is None:
                transport.feed(ok(b"abcd") if event == "answer" else ok(b"abcd")[:-2])
        self.look()

    def look(self) -> None:
        """What was sent last told the time that was left."""
        for transport in self.proxy.upstreams:
            for write in transport.writes:
                if b"GET /mine" in write and id(write) not in self.seen:
                    self.seen.add(id(write))
                    (told,) = (int(line[6:]) for line in write.split(b"\r\n") if line.startswith(b"X-Ms: "))
                    assert told == max(1, int((self.due - self.proxy.clock.now) * 1000.0))

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.client.closing or _complete(self.client)


def _complete(client: MemoryTransport) -> bool:
    head, _, body = client.data.partition(b"\r\n\r\n")
    length = next((line[16:] for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), b"-1")
    return len(body) == int(length)


@thorough
@given(
    st.integers(1, 4000),
    st.booleans(),
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from([0.0, 0.03, 0.1, 0.4, 0.95]), st.sampled_from(EVENTS)), max_size=12),
)
def test_it_ends_in_time_and_blames_nobody(
    milliseconds: int, busy: bool, cut: int, steps: list[tuple[float, str]]
) -> None:
    run = Run(milliseconds, busy, cut)
    proxy = run.proxy
    for seconds, event in [*steps, *[(INTERVAL, "nothing")] * 50]:
        before = run.over
        proxy.clock.advance(seconds)
        run.play(event)
        proxy.context.sweep.run()
        run.look()
        now = proxy.clock.now
        if b" 504 " in run.client.data and not before:
            told = b"own header" in run.client.data
            assert (now >= run.due) if told else (b"connect_timeout" in run.client.data)
        assert run.over or now < run.due, "the sweep has come by"
    assert run.over
    stats = proxy.cluster.stats
    counted = {outcome: sum(state.attempts[outcome] for state in proxy.states) for outcome in Outcome}
    assert counted[Outcome.REQUEST_TIMEOUT] == 0
    assert counted[Outcome.CONNECT_REFUSED] + counted[Outcome.RESET] == run.blame
    assert stats.deadlines_exceeded <= 1
    proxy.finish()
