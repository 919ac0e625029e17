"""The README's pictures of the dashboard: `.venv/bin/python benchmarks/pictures.py [--minutes 10]`.

Runs `sidecar demo` until its history is long enough and its endpoint is ill, and takes dashboard-light.png,
dashboard-dark.png and dashboard-phone.png beside this file. Needs Debian's chromium, and playwright of `.[test]`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
# Name, width and height in CSS pixels, colour scheme.
PICTURES = (("light", 1200, 560, "light"), ("dark", 1200, 560, "dark"), ("phone", 360, 740, "light"))
SCALE = 1.5  # device pixels for each: sharp enough on today's screens, and half the bytes of 2
MOST_BYTES = 200_000  # of a picture: a clone is not to grow by pictures
ILL = 30_000  # milliseconds: the demo's endpoint is ill once in 20 s


def main(arguments: Sequence[str]) -> int:
    """Take the pictures; the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks/pictures.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of history in the pictures, 10 at most")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    command = [sys.executable, "-m", "sidecar", "demo", "--seconds", str(int(seconds + 300))]
    with (
        tempfile.TemporaryFile("w+") as output,  # not a pipe, which would have to be read all the time
        subprocess.Popen(command, stdout=output, cwd=HERE.parent) as demo,
    ):
        try:
            take(dashboard_of(demo, output), seconds)
        finally:
            demo.terminate()
    for name, *_ in PICTURES:
        size = target(name).stat().st_size
        print(f"{target(name).name}: {size // 1000} kB")
        if size > MOST_BYTES:
            print(f"more than {MOST_BYTES // 1000} kB: make it smaller", file=sys.stderr)
            return 1
    return 0


def dashboard_of(demo: subprocess.Popen[bytes], output: TextIO) -> str:
    """The URL that the demo prints."""
    while demo.poll() is None:
        output.seek(0)
        if found := re.search(r"dashboard +(http://\S+)\n", output.read()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit("the demo ended without a dashboard; what `sidecar demo` says tells why")


def take(url: str, seconds: float) -> None:
    """The pictures, after so many seconds."""
    print(f"{url}: waiting {seconds:.0f} s for its history", flush=True)
    time.sleep(seconds)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            for picture in PICTURES:
                photograph(browser, url, *picture)
        finally:
            browser.close()


def photograph(browser: Browser, url: str, name: str, width: int, height: int, scheme: str) -> None:
    """One picture, of a breaker that is open and waits for its next probe."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        device_scale_factor=SCALE,
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(url)
    page.get_by_text("next probe in").wait_for(timeout=ILL)
    page.screenshot(path=target(name))
    page.close()


def target(name: str) -> Path:
    """Where that picture goes."""
    return HERE / f"dashboard-{name}.png"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
