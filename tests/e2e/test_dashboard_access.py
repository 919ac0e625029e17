"""Whoever reads the dashboard, with whatever: its structure, names, contrast and width, as Chromium computes them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from support.background import Background
from support.browser import chromium, visit
from support.dashboard import EventStub, endpoint_view, upstream_view

pytestmark = pytest.mark.server("chromium")

LONG = "a_service_with_a_name_of_64_characters_without_a_place_to_break_it"
OPENED = {
    "at": "2026-01-01T10:00:00.000Z",
    "to": "open",
    "cause": "failure_rate",
    "failures": 2,
    "evidence": "request_timeout",
    "open_for": 30.0,
    "window": {"good": 3, "bad": 17},
}

# Of each text that is to be seen: what it says, its colour, what it stands on, and its size; colours as [r, g, b, a].
TEXTS = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const read = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const ground = (node) => {
        for (let one = node; one; one = one.parentElement) {
            const colour = read(getComputedStyle(one).backgroundColor);
            if (colour[3] === 1) return colour;
            if (one.tagName === "DIALOG") break;
        }
        return [255, 0, 255, 1];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const parent = walker.currentNode.parentElement;
        const text = walker.currentNode.data.trim();
        if (!text || !parent.checkVisibility() || parent.closest(".unseen, noscript, title, .skip")) continue;
        const style = getComputedStyle(parent);
        found.push([text, read(style.color), ground(parent), parseFloat(style.fontSize), Number(style.fontWeight)]);
    }
    return found;
}"""

# What can be operated and has no name; ids that are there twice; references to ids that are not; headings that skip
# a level; pictures without a text; header cells without a scope; targets below 24 pixels (WCAG 2.2, 2.5.8).
FAULTS = """() => {
    const faults = [];
    const seen = (node) => node.checkVisibility() && !node.closest("template");
    const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
    const textOf = (id) => document.getElementById(id)?.textContent ?? "";
    const name = (node) => (
        node.ariaLabel
        || (node.getAttribute("aria-labelledby") ?? "").split(" ").map(textOf).join(" ")
        || [...(node.labels ?? [])].map((label) => label.textContent).join(" ")
        || node.textContent
    ).trim();
    for (const node of all("a, button, input, summary, dialog, section, article, table, [role=group], [role=img]")) {
        if (!name(node)) faults.push(`no name: ${node.outerHTML}`);
    }
    const ids = new Set();
    for (const { id, outerHTML } of document.querySelectorAll("[id]")) {
        if (ids.has(id)) faults.push(`twice: ${outerHTML}`);
        ids.add(id);
    }
    for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
        for (const node of document.querySelectorAll(`[${attribute}]`)) {
            for (const id of node.getAttribute(attribute).split(" ")) {
                if (!ids.has(id)) faults.push(`${attribute} of nothing: ${id}`);
            }
        }
    }
    let level = 0;
    for (const heading of all("main h2, main h3, h1")) {
        const own = Number(heading.tagName[1]);
        if (own > level + 1) faults.push(`a level is skipped: ${heading.textContent}`);
        level = own;
    }
    for (const node of all("th")) if (!node.scope) faults.push(`no scope: ${node.textContent}`);
    for (const node of all("button, input")) {
        const { width, height } = node.getBoundingClientRect();
        if ((width < 24 || height < 24) && !node.matches(".toggle")) faults.push(`small: ${node.outerHTML}`);
    }
    for (const line of all(".line")) if (line.getBoundingClientRect().height < 24) faults.push("a small line");
    if (!document.documentElement.lang || !document.title) faults.push("no language, or no title");
    return faults;
}"""

# What reaches beyond the right edge, but for what is there for readers that do not see.
BEYOND = """() => [...document.body.querySelectorAll("*")]
    .filter((node) => node.checkVisibility() && !node.closest(".unseen, thead, .shapes, .skip"))
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
    .map((node) => node.outerHTML.slice(0, 200))"""

# Texts that reach into the next column, and ports that are broken in two.
CROWDED = """() => [...document.querySelectorAll(".endpoints td.number, .endpoints .port")]
    .filter((node) => node.checkVisibility())
    .filter((node) => node.scrollWidth > node.clientWidth && node.clientWidth || node.getClientRects().length > 1)
    .map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the whole file."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def stub() -> Iterator[EventStub]:
    """A sidecar that shows each state that there is."""
    broken = {"state": "open", "failures": 6, "retry_at": "2099-01-01T00:00:00.000Z", "journal": [OPENED]}
    half = {"state": "half_open", "probing": True, "journal": [OPENED]}
    errors = {"errors": 0.75, "requests": 12345.6, "p50": 1.5, "p99": 9.0, "sessions": 0.0}
    failing = {**errors, "bytes_sent": 1e9, "bytes_received": 0.0}
    failed = {"ok": False, "error": "no answer within 2 s"}
    feed = {"source": "consul", "endpoints": 2, "stale": True, "saved": False, "error": "connection refused"}
    with Background() as background:
        yield background.enter(
            EventStub(
                upstream_view("well", endpoint_view("10.0.0.1:80")),
                upstream_view(
                    "down", endpoint_view("10.0.0.1:80", breaker={"state": "open", "held": "hand"})
                ),
                upstream_view(
                    LONG,
                    endpoint_view(
                        "[2001:db8:1234:5678:9abc:def0:1234:5678]:8080", breaker=broken, zone="eu-central"
                    ),
                    endpoint_view(
                        "10.0.0.2:80", breaker=half, attempts={"success": 7, "reset": 3}, check=failed
                    ),
                    endpoint_view("10.0.0.3:80", check={"ok": True, "error": None}),
                    registries=[{**feed, "heard_at": "2026-01-01T10:00:00.000Z"}],
                ),
                upstream_view("failing", endpoint_view("10.0.0.1:80"), recent=failing),
                upstream_view(
                    "drained", endpoint_view("10.0.0.1:80", drained=True), endpoint_view("10.0.0.2:80")
                ),
                upstream_view("leaving", endpoint_view("10.0.0.1:80"), leaving=True),
                upstream_view("redis", endpoint_view("10.0.0.1:80"), scheme="redis", recent=None),
            )
        )


def opened(page: Page) -> None:
    """Everything is there, and one journal open."""
    expect(page.locator(".upstream")).to_have_count(7)
    expect(page.locator("table")).to_have_count(4)  # of what is not well
    page.get_by_role("article", name=LONG).locator("summary").first.click()


def contrast(colour: list[float], ground: list[float]) -> float:
    """The ratio of WCAG 2.2 (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio), 1 to 21."""
    lighter, darker = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: list[float]) -> float:
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def faint(page: Page) -> list[str]:
    """Texts with too little contrast: below 4.5, or 3 where they are large (WCAG 2.2, 1.4.3)."""
    texts = page.evaluate(TEXTS)
    assert len(texts) > 50
    found = []
    for text, colour, ground, size, weight in texts:
        large = size >= 24 or (size >= 18.66 and weight >= 700)
        ratio = contrast(colour, ground)
        if ratio < (3 if large else 4.5) or colour[3] < 1:
            found.append(f"{text!r}: {ratio:.2f}, {colour} on {ground}")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, stub: EventStub, scheme: Any) -> None:
    with visit(browser, stub.port, answers=(503,), color_scheme=scheme) as page:
        opened(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(246, 247, 248)") is (scheme == "light")
        assert not faint(page)
        page.get_by_role("button", name="Drain all endpoints of failing").click()
        expect(page.get_by_text("Nobody is left in rotation then.")).to_be_visible()
        assert not faint(page)  # the dialog's own among them
        page.route("**/v1/upstreams/**", lambda route: route.fulfill(status=503))
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        expect(page.locator("#notice-text")).to_have_text("Drain failing failed: the sidecar answers 503")
        assert not faint(page)


@pytest.mark.parametrize("width", [360, 1280])
def test_controls_have_names_and_ids_are_unique(browser: Browser, stub: EventStub, width: int) -> None:
    with visit(browser, stub.port, viewport={"width": width, "height": 800}) as page:
        opened(page)
        assert page.evaluate(FAULTS) == []
        page.get_by_role("button", name="Drain all endpoints of failing").click()
        assert page.evaluate(FAULTS) == []


@pytest.mark.parametrize("width", [320, 360, 900, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, stub: EventStub, width: int) -> None:
    with visit(browser, stub.port, viewport={"width": width, "height": 740}) as page:
        opened(page)
        assert page.evaluate(BEYOND) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CROWDED) == []
        facts = page.get_by_role("article", name=LONG).locator(".facts")
        sentence = facts.locator("div").filter(has_text="connection refused")
        widths = [one.evaluate("(node) => node.getBoundingClientRect().width") for one in (sentence, facts)]
        assert widths[0] == widths[1]
        columns = page.locator(".columns")
        expect(columns).to_be_visible() if width >= 1100 else expect(columns).to_be_hidden()
        page.get_by_role("button", name="Drain all endpoints of failing").click()
        assert page.evaluate(BEYOND) == []


def test_a_screen_reader_finds_its_way(browser: Browser, stub: EventStub) -> None:
    with visit(browser, stub.port) as page:
        opened(page)
        expect(page.locator("body")).to_match_aria_snapshot("""
            - link "Skip to the upstreams"
            - banner:
              - heading "sidecar" [level=1]
            - main:
              - region "Upstreams":
                - heading "Upstreams" [level=2]
                - list "How many are how"
                - searchbox "Filter by name"
                - button "Worst first" [pressed]
                - list "Upstreams"
            - contentinfo
            - status
            - alert
        """)
        expect(page.get_by_role("article", name=LONG)).to_match_aria_snapshot("""
            - article:
              - heading [level=3]:
                - button [expanded]
              - paragraph:
                - strong: degraded
                - text: 2 of 3 endpoints out, consul is stale
              - term: Requests
              - definition: 100/s
              - term: Errors
              - definition: 0 %
              - img /Requests of the last ten minutes/
              - img /Latency of the last ten minutes/
              - paragraph: 1 of 3 in rotation
              - group /All endpoints of/:
                - button /Drain all endpoints of/
              - table /Endpoints of/:
                - caption
                - rowgroup:
                  - row:
                    - columnheader "Endpoint"
                    - columnheader "State"
                    - columnheader "Breaker and its evidence"
                - rowgroup:
                  - row:
                    - rowheader
                    - 'cell "out: breaker open"'
                  - row:
                    - rowheader "10.0.0.2:80"
                    - cell "half open"
                    - cell "probe under way"
                  - row:
                    - rowheader "10.0.0.3:80"
                    - cell "in rotation"
                    - cell
                    - cell "passes"
                    - cell "0"
                    - cell "0 / 0"
                    - cell "0"
                    - cell "0"
                    - cell:
                      - button /Drain 10.0.0.3:80 of/
                      - button /Trip 10.0.0.3:80 of/
        """)


def test_states_differ_without_colour(browser: Browser, stub: EventStub) -> None:
    with visit(browser, stub.port, forced_colors="active") as page:
        opened(page)
        shapes = {}
        for row in page.locator(".upstream").all():
            word = row.locator('[data-part="verdict"]').first.text_content()
            shapes[word] = row.locator(".toggle use").nth(1).get_attribute("href")
        assert len(shapes) == len(set(shapes.values())) == 6
        for shape in set(shapes.values()):
            assert page.locator(f"symbol{shape}").count() == 1
        well = page.locator(".toggle .shape:not(.chevron)").last
        with_mark = well.screenshot()
        page.evaluate('document.querySelectorAll(".mark").forEach((mark) => mark.remove())')
        assert well.screenshot() != with_mark


def test_the_whole_page_can_be_reached_and_left_by_keyboard(browser: Browser, stub: EventStub) -> None:
    with visit(browser, stub.port) as page:
        opened(page)
        page.keyboard.press("Tab")
        order = []
        for _ in range(200):
            page.keyboard.press("Tab")
            focus = page.evaluate("""() => {
                const node = document.activeElement;
                if (node === document.body) return null;
                const outlined = [getComputedStyle(node), getComputedStyle(node, "::after")];
                return [
                    [...document.querySelectorAll("*")].indexOf(node),
                    outlined.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
                ];
            }""")
            if focus is None:
                break
            order.append(focus)
        places = [place for place, _ in order]
        assert len(places) > 20
        assert all(outlined for _, outlined in order)
        assert places[: places.index(max(places)) + 1] == sorted(set(places))  # as they stand in the document


def test_who_wants_no_motion_gets_none(browser: Browser, stub: EventStub) -> None:
    moving = """document.getAnimations().length + [...document.querySelectorAll("*")]
        .filter((node) => getComputedStyle(node).transitionDuration !== "0s").length"""
    with visit(browser, stub.port, reduced_motion="reduce") as page:
        opened(page)
        assert page.evaluate(moving) == 0
    with visit(browser, stub.port, reduced_motion="no-preference") as page:
        opened(page)
        assert page.evaluate(moving) > 0


def test_only_changes_of_state_are_announced(browser: Browser, stub: EventStub) -> None:
    with visit(browser, stub.port) as page:
        opened(page)
        live = page.locator("[aria-live], [role=status], [role=alert]")
        assert {node.get_attribute("id") for node in live.all()} == {"announcer", "alerter", "token-error"}
        expect(page.get_by_role("status")).to_have_text("")
        page.evaluate("""() => {
            window.said = [];
            const node = document.querySelector("#announcer");
            new MutationObserver(() => said.push(node.textContent)).observe(node, { childList: true });
        }""")
        busy = upstream_view("well", endpoint_view("10.0.0.1:80", in_flight=3))
        ill = upstream_view("well", endpoint_view("10.0.0.1:80", breaker={"state": "half_open"}))
        for view in (busy, busy, ill):
            stub.post(view)
        expect(page.get_by_role("status")).to_have_text(re.compile("^well is "))
        assert page.evaluate("said") == ["well is down, 1 of 1 endpoint out."]
