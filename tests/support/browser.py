"""Debian's Chromium without a window, driven by playwright, and what went wrong on its pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from support.processes import find_program

__all__ = ["chromium", "visit"]

# No sandbox: tests may run as root. The rest keeps it from asking anybody outside.
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
# Chromium reports an answer that is an error there, whatever the page makes of it.
ANSWER = "Failed to load resource: the server responded with a status of "


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, and playwright's driver beside it, both gone at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, port: int, *, answers: tuple[int, ...] = (), **context: Any) -> Iterator[Page]:
    """The page at `/` of a port. Fails if anything has been complained about, violations of its policy among it.

    answers: statuses that the page is to meet. context: of playwright's `new_context`.
    """
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        expected = any(message.text.startswith(f"{ANSWER}{status} ") for status in answers)
        if message.type in ("error", "warning") and not expected:
            complaints.append(message.text)

    with browser.new_context(**context) as opened:
        opened.set_default_timeout(10_000)
        page = opened.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
    assert not complaints
