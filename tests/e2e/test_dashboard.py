"""The dashboard in a real browser: what it shows of a real sidecar, and what is done with it."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.sync_api import Browser, Page, expect
from support.background import Background
from support.browser import chromium, visit
from support.dashboard import EventStub, endpoint_view, upstream_view
from support.endpoints import Conversation, ScriptedEndpoint, ok
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration

pytestmark = pytest.mark.server("chromium")

PACE = 0.005  # seconds between two requests: an upstream of three has failed five times in a row within 0.1 s
SHOWN_WITHIN = 2.0  # seconds from an outage to the page that shows it
STALL_SHOWN_WITHIN = 3.0  # that is seen when nothing has ended from one state to the next
OPEN = {"state": "open"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the whole file."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def background() -> Iterator[Background]:
    """Where stubs live."""
    with Background() as background:
        yield background


class Traffic:
    """A client that asks all the time, until the end of `with`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        with HttpClient(self.port) as client:
            while not self._ended.wait(PACE):
                client.request()
                self.answers += 1


class Live:
    """A sidecar before three endpoints, with traffic."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.endpoints = [stack.enter_context(ScriptedEndpoint()) for _ in range(3)]
        port = free_port()
        text = configuration(
            port, [one.port for one in self.endpoints], policy="circuit_breaker: {open_for: 30}"
        )
        self.sidecar = stack.enter_context(Sidecar(directory, text))
        self.traffic = stack.enter_context(Traffic(port))

    def row(self, page: Page, number: int) -> Any:
        """The table's row of one endpoint."""
        return page.get_by_role("row").filter(has_text=self.endpoints[number].address)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """See `Live`."""
    with ExitStack() as stack:
        yield Live(stack, tmp_path)


def card(page: Page, name: str) -> Any:
    """What belongs to one upstream."""
    return page.get_by_role("article", name=name, exact=True)


def names(page: Page) -> list[str]:
    """Of the upstreams, from top to bottom."""
    return page.locator(".upstream .name").all_text_contents()


def press_until(page: Page, key: str, name: str) -> None:
    """Press it until the element of that accessible name has the focus."""
    for _ in range(40):
        page.keyboard.press(key)
        if focused(page) == name:
            return
    raise AssertionError(f"{key} never reaches {name!r}, but {focused(page)!r}")


def focused(page: Page) -> str:
    name: str = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()")
    return name


# A real sidecar


def test_an_outage_is_shown_within_two_seconds(browser: Browser, live: Live) -> None:
    with visit(browser, live.sidecar.admin) as page:
        api = card(page, "api")
        expect(api.get_by_text("well", exact=True)).to_be_visible()
        expect(api.get_by_role("table")).to_be_hidden()  # of what is well only a line is shown
        begun = time.monotonic()
        live.endpoints[1].refuse()
        live.endpoints[1].hang_up()
        row = live.row(page, 1)
        expect(row.get_by_text("out: breaker open")).to_be_visible(timeout=SHOWN_WITHIN * 1000)
        shown = time.monotonic() - begun
        expect(api.get_by_text("degraded", exact=True)).to_be_visible()
        expect(api.get_by_text("1 of 3 endpoints out")).to_be_visible()
        expect(row.locator("summary")).to_have_text(re.compile(r"5 failures in a row \(connect refused\)$"))
        expect(row.get_by_text("next probe in")).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("api is degraded, 1 of 3 endpoints out.")
        expect(page).to_have_title("1 unwell · sidecar")
    assert shown < SHOWN_WITHIN


def test_an_outage_in_which_nobody_answers_is_shown_before_time_outs_are_over(
    browser: Browser, tmp_path: Path
) -> None:
    hung = threading.Event()

    def answer_at_first(conversation: Conversation) -> None:
        while conversation.read_request() and not hung.is_set():
            conversation.send(ok())
        conversation.wait_for_end_of_test()

    with ExitStack() as stack:
        endpoint = stack.enter_context(ScriptedEndpoint(answer_at_first))
        port = free_port()
        policy = "timeout: 4, circuit_breaker: {consecutive_failures: 1}"
        sidecar = stack.enter_context(Sidecar(tmp_path, configuration(port, [endpoint.port], policy=policy)))
        page = stack.enter_context(visit(browser, sidecar.admin))
        stack.enter_context(Traffic(port))
        api = card(page, "api")
        expect(api.locator('[data-part="rate"]')).to_have_text(re.compile(r"^[4-9]\d|\d\d\d"))
        hung.set()
        waiting = api.get_by_text(re.compile(r"^1 under way, none has ended for \d\ss$"))
        expect(waiting).to_be_visible(timeout=STALL_SHOWN_WITHIN * 1000)
        expect(api.get_by_text("degraded", exact=True)).to_be_visible()
        expect(page).to_have_title("1 unwell · sidecar")
        expect(api.get_by_text("breaker open")).to_be_visible()  # once its time-out has spoken
        expect(waiting).to_be_hidden()


def test_figures_of_the_last_seconds_are_shown(browser: Browser, live: Live) -> None:
    with visit(browser, live.sidecar.admin) as page:
        api = card(page, "api")
        figures = [api.locator(f'[data-part="{part}"]') for part in ("rate", "errors", "p50", "p99")]
        for figure, pattern in zip(figures, (r"^\d+(\.\d)?/s$", r"^0\s%$", r"\sms$", r"\sm?s$"), strict=True):
            expect(figure).to_have_text(re.compile(pattern))
        expect(api.get_by_role("img", name="Requests of the last ten minutes")).to_be_visible()
        expect(api.get_by_role("img", name="Latency of the last ten minutes")).to_be_visible()
        expect(page.locator("#about")).to_have_text(
            re.compile(r"^\d\S+, (compiled|pure Python) · mode \w+( \w+)?$")
        )


def test_an_endpoint_is_drained_by_keyboard(browser: Browser, live: Live) -> None:
    first = live.endpoints[0]
    drain, enable = (f"{verb} {first.address} of api" for verb in ("Drain", "Enable"))
    with visit(browser, live.sidecar.admin) as page:
        expect(card(page, "api")).to_be_visible()
        press_until(page, "Tab", "api")
        page.keyboard.press("Enter")
        press_until(page, "Tab", drain)
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name=f"{drain}?")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_text("what is under way finishes")).to_be_visible()
        expect(dialog.locator(".warning")).to_be_hidden()  # two others are in rotation
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert focused(page) == drain
        page.keyboard.press("Enter")
        assert focused(page) == "Cancel"
        page.keyboard.press("Tab")
        assert focused(page) == "Drain"
        page.keyboard.press("Enter")
        expect(live.row(page, 0).get_by_text("drained", exact=True)).to_be_visible()
        expect(page.locator("#notice-text")).to_have_text(f"{first.address} of api: drained")
        assert focused(page) == enable  # the same button, with what makes sense now
        count, answers = len(first.requests), live.traffic.answers
        live.endpoints[1].wait_for(lambda _: live.traffic.answers > answers + 30, "requests to the others")
        assert len(first.requests) == count
        page.keyboard.press("Enter")
        press_until(page, "Tab", "Enable")
        page.keyboard.press("Enter")
        expect(live.row(page, 0).get_by_text("in rotation", exact=True)).to_be_visible()
        first.wait_for(lambda endpoint: len(endpoint.requests) > count, "requests again")


def test_a_refused_action_says_why(browser: Browser, live: Live) -> None:
    with visit(browser, live.sidecar.admin, answers=(404,)) as page:
        page.get_by_role("button", name="api", exact=True).click()
        page.route("**/v1/upstreams/**", lambda route: route.continue_(url=f"{route.request.url}1"))
        page.get_by_role("button", name=f"Trip {live.endpoints[0].address} of api").click()
        page.get_by_role("dialog").get_by_role("button", name="Trip").click()
        alert = page.get_by_role("alert")
        expect(alert).to_have_text(
            re.compile(rf"^Trip {live.endpoints[0].address} of api failed: api has no endpoint")
        )


def test_an_action_without_an_answer_is_told_of(browser: Browser, live: Live) -> None:
    with visit(browser, live.sidecar.admin) as page:
        page.get_by_role("button", name="api", exact=True).click()
        page.evaluate(
            "() => { const all = AbortSignal; all.timeout = () => all.abort(new DOMException('', 'TimeoutError')); }"
        )
        page.get_by_role("button", name=f"Trip {live.endpoints[0].address} of api").click()
        page.get_by_role("dialog").get_by_role("button", name="Trip").click()
        expect(page.get_by_role("alert")).to_have_text(
            re.compile("failed: no answer in time; it may be done")
        )


# A stub, for what a sidecar does not do when a test wants it


def stubbed(background: Background, *upstreams: dict[str, Any], **other: Any) -> EventStub:
    return background.enter(EventStub(*upstreams, **other))


def test_a_token_is_asked_for_and_kept_in_the_tab_only(browser: Browser, background: Background) -> None:
    stub = stubbed(background, upstream_view("api", endpoint_view("10.0.0.1:80")), token="open sesame")
    with visit(browser, stub.port, answers=(401,)) as page:
        dialog = page.get_by_role("dialog", name="This sidecar asks for a token")
        expect(dialog).to_be_visible()
        assert page.evaluate("document.activeElement.id") == "token-value"
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Enter token").click()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text(
            "The token was refused. Is it the one of this sidecar?"
        )
        page.get_by_label("Token", exact=True).fill("open sesame")
        page.keyboard.press("Enter")
        expect(card(page, "api")).to_be_visible()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        stored = "[sessionStorage.getItem('sidecar-token'), localStorage.length, document.cookie]"
        assert page.evaluate(stored) == ["open sesame", 0, ""]
        page.reload()
        expect(card(page, "api")).to_be_visible()


def test_a_lost_connection_is_said_and_made_again(browser: Browser, background: Background) -> None:
    stub = stubbed(background, upstream_view("api", endpoint_view("10.0.0.1:80")))
    with visit(browser, stub.port, answers=(503,)) as page:
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        stub.refusing = True
        background.call(stub.hang_up)
        lost = page.get_by_text(re.compile(r"^Connection lost, data from \d+\ss ago$"))
        expect(lost).to_be_visible()
        expect(page.get_by_role("status")).to_have_text(
            re.compile(r"^Connection lost, data from \d+\ss ago\.$")
        )
        expect(page.locator("body.stale")).to_be_visible()
        expect(page.locator("#connection")).to_have_attribute("title", "too many pages")
        stub.refusing = False
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        expect(page.locator("body.stale")).to_have_count(0)
        expect(page.get_by_role("status")).to_have_text("Connected again.")


def test_what_is_not_told_any_more_is_not_called_live(browser: Browser, background: Background) -> None:
    stub = stubbed(background, upstream_view("api", endpoint_view("10.0.0.1:80")))
    with visit(browser, stub.port) as page:
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.evaluate("(now) => { performance.now = () => now + 4000; }", page.evaluate("performance.now()"))
        expect(page.get_by_text(re.compile(r"^Waiting, data from \d+\ss ago$"))).to_be_visible()
        background.call(stub.tell)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_the_worst_come_first_or_those_of_the_configuration(browser: Browser, background: Background) -> None:
    stub = stubbed(
        background,
        upstream_view("alpha", endpoint_view("10.0.0.1:80")),
        upstream_view("beta", endpoint_view("10.0.0.2:80"), endpoint_view("10.0.0.3:80", breaker=OPEN)),
        upstream_view("gamma"),
    )
    with visit(browser, stub.port) as page:
        expect(card(page, "gamma").get_by_text("down", exact=True)).to_be_visible()
        assert names(page) == ["gamma", "beta", "alpha"]
        worst_first = page.get_by_role("button", name="Worst first")
        worst_first.click()
        expect(worst_first).to_have_attribute("aria-pressed", "false")
        expect(page.locator(".upstream .name")).to_have_text(["alpha", "beta", "gamma"])
        page.get_by_label("Filter by name").fill("ALP")
        expect(page.locator(".upstream .name")).to_have_text(["alpha"])
        page.get_by_label("Filter by name").fill("none")
        expect(page.get_by_text("No upstream has such a name.")).to_be_visible()


def test_the_focus_stays_while_others_change_and_move(browser: Browser, background: Background) -> None:
    views = [upstream_view(name, endpoint_view(f"10.0.0.{at}:80")) for at, name in enumerate("abcd")]
    stub = stubbed(background, *views)
    with visit(browser, stub.port) as page:
        toggle = page.get_by_role("button", name="b", exact=True)
        toggle.focus()
        page.evaluate("window.before = document.activeElement")
        ill = [upstream_view(name, endpoint_view("10.0.0.9:80", breaker=OPEN)) for name in "dc"]
        background.call(lambda: stub.tell(*ill, upstream_view("b", endpoint_view("10.0.0.1:80"))))
        expect(page.locator(".upstream .name")).to_have_text(["c", "d", "a", "b"])
        assert page.evaluate("window.before === document.activeElement")
        # All of it gets worse under the hands: what is open stays open, and the button stays.
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Trip 10.0.0.1:80 of b").focus()
        page.evaluate("window.before = document.activeElement")
        held = {"state": "open", "held": "hand"}
        background.call(lambda: stub.tell(upstream_view("b", endpoint_view("10.0.0.1:80", breaker=held))))
        expect(page.get_by_role("button", name="Reset 10.0.0.1:80 of b")).to_be_focused()
        assert page.evaluate("window.before === document.activeElement")


def test_only_what_has_changed_is_touched(browser: Browser, background: Background) -> None:
    views = [
        upstream_view(f"service-{number}", *(endpoint_view(f"10.0.{number}.{at}:80") for at in range(5)))
        for number in range(200)
    ]
    stub = stubbed(background, *views)
    with visit(browser, stub.port) as page:
        expect(page.locator(".upstream")).to_have_count(200)
        page.evaluate("""() => {
            window.touched = new Set();
            new MutationObserver((records) => {
                for (const { target } of records) {
                    const node = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
                    touched.add(node.closest(".upstream")?.querySelector(".name").textContent ?? "list");
                }
            }).observe(document.querySelector("#upstreams"), {
                subtree: true, childList: true, attributes: true, characterData: true,
            });
        }""")
        changed = upstream_view("service-7", endpoint_view("10.0.7.0:80"), endpoint_view("10.0.7.1:80"))
        background.call(lambda: stub.tell(changed))
        expect(card(page, "service-7").get_by_text("2 of 2")).to_be_visible()
        assert page.evaluate("[...touched]") == ["service-7"]


def test_of_a_thousand_endpoints_all_count_though_a_hundred_are_told(
    browser: Browser, background: Background
) -> None:
    told = [endpoint_view(f"10.0.0.{number}:80", breaker=OPEN) for number in range(100)]
    counts = {"endpoints_total": 1000, "endpoints_drained": 0, "endpoints_serving": 1}
    stub = stubbed(background, upstream_view("api", *told, **counts))
    with visit(browser, stub.port) as page:
        api = card(page, "api")
        expect(api.get_by_text("999 of 1000 endpoints out")).to_be_visible()
        expect(api.get_by_text("1 of 1000 in rotation")).to_be_visible()
        background.call(lambda: stub.tell(upstream_view("api", *told, **{**counts, "endpoints_serving": 0})))
        expect(api.get_by_text("down", exact=True)).to_be_visible()
        expect(api.get_by_text("1000 of 1000 endpoints out")).to_be_visible()
        expect(api.get_by_text("900 more, which are no worse")).to_be_visible()


def test_who_is_used_though_its_breaker_is_open(browser: Browser, background: Background) -> None:
    used = endpoint_view("10.0.0.1:80", breaker=OPEN, in_rotation=True)
    tripped = endpoint_view("10.0.0.2:80", breaker={**OPEN, "held": "hand"})
    stub = stubbed(background, upstream_view("api", used, tripped, panic=True))
    with visit(browser, stub.port) as page:
        api = card(page, "api")
        expect(api.get_by_text("too few are well, 1 of 2 endpoints out")).to_be_visible()
        expect(api.get_by_text("breaker open, used all the same: panic", exact=True)).to_be_visible()
        expect(api.get_by_text("tripped by hand", exact=True)).to_be_visible()
        unused = endpoint_view("10.0.0.1:80", breaker=OPEN)  # `panic: fail`
        background.call(lambda: stub.tell(upstream_view("api", unused, tripped, panic=True)))
        expect(api.get_by_text("down", exact=True)).to_be_visible()
        expect(api.get_by_text("out: breaker open", exact=True)).to_be_visible()
        background.call(lambda: stub.tell(upstream_view("api", used)))
        expect(api.get_by_text("1 of 1 endpoint used though its breaker is open")).to_be_visible()
        expect(
            api.get_by_text("breaker open, used all the same: its breaker only observes", exact=True)
        ).to_be_visible()


def test_a_router_says_where_requests_go_and_is_not_down(browser: Browser, background: Background) -> None:
    routes = [
        {
            "host": "api.example",
            "path": "/v1",
            "methods": ["GET", "POST"],
            "headers": ["x-team"],
            "to": [{"upstream": "api", "weight": 1, "requests": 7}],
        },
        {
            "host": "",
            "path": "/",
            "methods": [],
            "headers": [],
            "to": [
                {"upstream": "web", "weight": 95, "requests": 3},
                {"upstream": "canary", "weight": 5, "requests": 0},
            ],
        },
    ]
    stub = stubbed(background, upstream_view("front", routes=routes))
    with visit(browser, stub.port) as page:
        front = card(page, "front")
        expect(front.get_by_text("well", exact=True)).to_be_visible()
        expect(
            front.get_by_text("GET or POST api.example/v1 with x-team → api; / → web 95, canary 5")
        ).to_be_visible()


def test_the_title_tells_where_no_frame_is_drawn(browser: Browser, background: Background) -> None:
    stub = stubbed(background, upstream_view("api", endpoint_view("10.0.0.1:80")))
    with visit(browser, stub.port) as page:
        expect(card(page, "api")).to_be_visible()
        page.evaluate("window.requestAnimationFrame = () => 0")  # as in a tab in the background
        background.call(lambda: stub.tell(upstream_view("api", endpoint_view("10.0.0.1:80", breaker=OPEN))))
        expect(page).to_have_title("1 unwell · sidecar")
        expect(card(page, "api").get_by_text("well", exact=True)).to_be_visible()


def modelled(page: Page, script: str, *arguments: Any) -> Any:
    """What `script` finds out with the page's model, in JavaScript."""
    text = f'async ([view, ...rest]) => {{ const {{ Model }} = await import("/assets/model.js"); {script} }}'
    return page.evaluate(text, [upstream_view("api", endpoint_view("10.0.0.1:80")), *arguments])


def test_history_goes_on_as_the_sidecar_has_it_whatever_its_clock_does(
    browser: Browser, background: Background
) -> None:
    script = """
        const model = new Model();
        const series = { requests: [1, 2, 3, 4], errors: [0, 0, 0, 0], p50: [1, 1, 1, 1], p99: [1, 1, 1, 1] };
        const upstreams = { api: series };
        model.takeHistory({ at: "2026-01-01T10:00:00Z", interval: 5, length: 4, points: 7, upstreams });
        return [["10:00:01", 7], ["09:00:05", 8], ["13:00:10", 8], ["13:00:20", 10]].map(([at, points], second) => {
            model.takeState({ at: `2026-01-01T${at}Z`, points, order: ["api"], upstreams: [view] }, 1000 * second);
            return [...model.history.upstreams.api.requests];
        });"""
    with visit(browser, stubbed(background).port) as page:
        found = modelled(page, script)
    assert found == [[1, 2, 3, 4], [2, 3, 4, 100], [2, 3, 4, 100], [4, 100, None, 100]]


def test_only_what_should_have_ended_is_missed(browser: Browser, background: Background) -> None:
    script = """
        const verdicts = [];
        const [rate, inFlight, scheme] = rest;
        const model = new Model();
        const tell = (second, total) => {
            const api = { ...view, scheme, in_flight: inFlight, requests: { total, by_class: {}, by_reason: {} } };
            api.recent = { ...view.recent, requests: rate, sessions: 0 };
            const upstreams = total === null ? [] : [api];
            model.takeState({ at: "2026-01-01T10:00:00Z", points: 0, order: ["api"], upstreams }, 1000 * second);
            verdicts.push(model.verdicts.get("api").reason);
        };
        tell(0, 10);
        tell(1, 20);
        for (const second of [2, 11, 30, 61, 62]) tell(second, null);
        return verdicts;"""
    quiet = [f"4 under way, none has ended for {seconds}\N{NO-BREAK SPACE}s" for seconds in (1, 10, 29, 60)]
    with visit(browser, stubbed(background).port) as page:
        assert modelled(page, script, 30, 4, "http") == ["", "", *quiet, ""]
        assert modelled(page, script, 2, 4, "http") == ["", "", "", *quiet[1:], ""]
        for rate, in_flight, scheme in ((30, 0, "http"), (0, 4, "http"), (30, 4, "tcp")):
            assert modelled(page, script, rate, in_flight, scheme) == [""] * 7


def test_names_are_never_mark_up(browser: Browser, background: Background) -> None:
    name = '<img src=x onerror="alert(1)"> & <script>alert(2)</script>'
    stub = stubbed(background, upstream_view(name, endpoint_view("10.0.0.1:80", zone="<b>zone</b>")))
    with visit(browser, stub.port) as page:
        card(page, name).get_by_role("button").first.click()
        expect(page.get_by_text("zone <b>zone</b>")).to_be_visible()
        assert page.locator("main img, main script, main b b").count() == 0
        page.get_by_role("button", name=f"Trip 10.0.0.1:80 of {name}").click()
        page.get_by_role("dialog").get_by_role("button", name="Trip").click()
        expect(page.locator("#notice-text")).to_have_text(f"10.0.0.1:80 of {name}: tripped")
    assert stub.actions == [f"{name} trip 10.0.0.1:80"]


def test_the_last_in_rotation_is_warned_about(browser: Browser, background: Background) -> None:
    stub = stubbed(
        background,
        upstream_view("api", endpoint_view("10.0.0.1:80"), endpoint_view("10.0.0.2:80", drained=True)),
    )
    with visit(browser, stub.port) as page:
        page.get_by_role("button", name="Drain 10.0.0.1:80 of api").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("It is the last one in rotation.")).to_be_visible()
        expect(dialog.locator(".warning")).to_have_text(
            "It is the last one in rotation. Until one is back, requests are answered 503."
        )
        dialog.get_by_role("button", name="Cancel").click()
        held = {**OPEN, "held": "hand"}
        others = [endpoint_view("10.0.0.2:80", drained=True), endpoint_view("10.0.0.3:80", breaker=held)]
        open_one = endpoint_view("10.0.0.4:80", breaker=OPEN)
        background.call(
            lambda: stub.tell(upstream_view("api", endpoint_view("10.0.0.1:80"), *others, open_one))
        )
        expect(page.get_by_text("1 of 4 in rotation")).to_have_count(1)
        page.get_by_role("button", name="Drain 10.0.0.1:80 of api").click()
        panic = (
            "Until one is back, those whose breakers are open are used (panic), or requests are answered 503."
        )
        expect(dialog.get_by_text(panic)).to_be_visible()
        dialog.get_by_role("button", name="Cancel").click()
        background.call(lambda: stub.tell(upstream_view("api", endpoint_view("10.0.0.1:80"), others[0])))
        expect(page.get_by_text("1 of 2 in rotation")).to_have_count(1)
        page.get_by_role("button", name="Drain all endpoints of api").click()
        expect(dialog.get_by_role("heading")).to_have_text("Drain all 2 endpoints of api?")
        expect(dialog.get_by_text("Nobody is left in rotation then.")).to_be_visible()
        dialog.get_by_role("button", name="Drain").click()
        expect(page.locator("#notice-text")).to_have_text("2 endpoints of api: drained")
    assert stub.actions == ["api drain None"]


def test_who_may_only_read_sees_no_button(browser: Browser, background: Background) -> None:
    stub = stubbed(
        background, upstream_view("api", endpoint_view("10.0.0.1:80", breaker=OPEN)), control=False
    )
    with visit(browser, stub.port) as page:
        expect(card(page, "api").get_by_role("table")).to_be_visible()
        expect(page.locator("#about")).to_have_text(re.compile("read only$"))
        assert card(page, "api").get_by_role("button").count() == 1  # the one that opens it


def test_what_else_the_sidecar_says_of_itself(browser: Browser, background: Background) -> None:
    feed = {"source": "consul", "endpoints": 1, "stale": True, "saved": True, "error": "no route to it"}
    view = upstream_view(
        "api", endpoint_view("10.0.0.1:80"), panic=True, registries=[{**feed, "heard_at": None}]
    )
    stub = stubbed(background, view)
    with visit(browser, stub.port) as page:
        expect(card(page, "api").get_by_text("panic", exact=True)).to_be_visible()
        fact = "not heard of yet, 1 endpoint, stale: its last word is used, from the last good file, no route to it"
        expect(page.get_by_text(fact)).to_be_visible()
        workers = {"configured": 4, "running": 3, "leaving": 0, "silent": 1, "restarts": 1}
        registration = {
            "name": "web",
            "registry": "consul",
            "address": "10.0.0.9:8080",
            "state": "failing",
            "since": "2026-01-01T10:00:00.000Z",
            "registered": False,
            "error": "connection refused",
        }
        background.call(lambda: stub.tell(draining=True, workers=workers, registrations=[registration]))
        expect(page.get_by_text("This sidecar is draining")).to_be_visible()
        expect(page.locator("#about")).to_have_text(re.compile("3 of 4 workers, 1 silent, 1 restart$"))
        announced = page.get_by_role("region", name="Announced services").get_by_role("listitem")
        expect(announced).to_have_text(
            re.compile(r"web at 10.0.0.9:8080 in consul: failing since .*, connection refused$")
        )
        background.call(lambda: (stub.upstreams.clear(), stub.tell()))
        expect(page.get_by_text("No upstream is configured.")).to_be_visible()


def test_events_are_the_same_however_they_are_cut(browser: Browser, background: Background) -> None:
    stub = stubbed(background)
    text = ": hi\r\nevent: a\r\ndata: one\r\ndata:two\r\n\r\n\ndata\n\nid: 3\rdata: {}\r\rdata: unfinished\n"
    with visit(browser, stub.port) as page:
        found = page.evaluate(
            """async (text) => {
                const { EventParser } = await import("/assets/stream.js");
                const all = [];
                for (let cut = 0; cut <= text.length; cut += 1) {
                    const events = [];
                    const parser = new EventParser((event) => events.push([event.type, event.data]));
                    parser.feed(text.slice(0, cut));
                    parser.feed(text.slice(cut));
                    all.push(events);
                }
                return all;
            }""",
            text,
        )
    assert found == [[["a", "one\ntwo"], ["message", ""], ["message", "{}"]]] * (len(text) + 1)
