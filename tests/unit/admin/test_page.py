"""The dashboard's files as a browser gets them."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.admin import page as page_module
from sidecar.admin.page import add_page
from sidecar.model import Outcome

FILES = Path(page_module.__file__).with_name("page")
ASSETS = sorted(path.name for path in FILES.iterdir() if path.name != "index.html")
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Asks an application that has the page."""
    app = web.Application()
    add_page(app, "the index\n")
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER["Accept"], True),
        ("TEXT/HTML", True),
        ("application/json, text/html ; q=0.5", True),
        ("text/html;q=0, */*", False),
        ("text/html;q=0.000", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        (None, False),
    ],
)
async def test_a_browser_gets_the_page_and_others_the_index(
    client: Client, accept: str | None, html: bool
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    skipped = ["Accept"] if accept is None else []  # else aiohttp's client sends */*
    async with client.get("/", headers=headers, skip_auto_headers=skipped) as answer:
        text = await answer.text()
        assert answer.status == 200
        assert answer.content_type == ("text/html" if html else "text/plain")
        assert answer.headers["Vary"] == "Accept"
    assert (text == "the index\n") is not html
    assert ("<!doctype html>" in text) is html


@pytest.mark.parametrize("path", ["/", *(f"/assets/{name}" for name in ASSETS)])
async def test_nothing_else_may_be_loaded_and_nobody_may_frame_it(client: Client, path: str) -> None:
    async with client.get(path, headers=BROWSER) as answer:
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert policy == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ]


@pytest.mark.parametrize("name", ASSETS)
async def test_an_asset_is_what_its_file_is(client: Client, name: str) -> None:
    expected = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[Path(name).suffix]
    async with client.get(f"/assets/{name}") as answer:
        assert (answer.status, answer.content_type, answer.charset) == (200, expected, "utf-8")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert await answer.read() == (FILES / name).read_bytes()
        tag = answer.headers["ETag"]
    async with client.get(f"/assets/{name}", headers={"If-None-Match": tag}) as again:
        assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
    async with client.get(f"/assets/{name}", headers={"If-None-Match": '"other"'}) as changed:
        assert changed.status == 200


@pytest.mark.parametrize(
    "path", ["/assets/", "/assets/index.html", "/assets/..%2fpage.py", "/assets/none.js"]
)
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    async with client.get(path, headers=BROWSER) as answer:
        assert answer.status == 404


def test_every_file_that_one_names_is_there() -> None:
    named = set(re.findall(r'(?:src|href)="assets/([^"]+)"', (FILES / "index.html").read_text()))
    for script in FILES.glob("*.js"):
        named.update(re.findall(r'from "\./([^"]+)"', script.read_text()))
    assert named == set(ASSETS)


def test_text_never_becomes_mark_up() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\.style\b|https?://"
    )
    for script in FILES.glob("*.js"):
        text = script.read_text().replace("http://www.w3.org/2000/svg", "")  # a namespace, not an address
        assert not forbidden.findall(text), script.name
    assert not re.search(r"\s(?:style|on[a-z]+)=", (FILES / "index.html").read_text())


def test_the_page_and_the_breaker_blame_endpoints_for_the_same() -> None:
    listed = re.search(r"const FAILURES = \[(.*?)\]", (FILES / "endpoints.js").read_text(), re.DOTALL)
    assert listed is not None
    assert re.findall(r'"(\w+)"', listed[1]) == [outcome.label for outcome in Outcome if outcome.is_failure]
