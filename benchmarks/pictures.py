"""The README's pictures of the dashboard: `.venv/bin/python benchmarks/pictures.py [--minutes 10]`.

Runs `sidecar demo` until its history is long enough and its endpoint is ill, and takes dashboard-light.png,
dashboard-dark.png and dashboard-phone.png beside this file, and of `sidecar top` what it draws, into the README. Needs
Debian's chromium, and playwright of `.[test]`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
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
README = HERE.parent / "README.md"
COLUMNS, LINES = 120, 12  # of the terminal: the trend of the rate has room then
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.")
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
            url = dashboard_of(demo, output)
            take(url, seconds)
            draw(top_of(url.removeprefix("http://").rstrip("/")))
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


def top_of(admin: str) -> str:
    """What `sidecar top` shows of the upstream that is ill, looked into; it is typed to as by hand."""
    pid, terminal = pty.fork()
    if pid == 0:  # the child, on the new terminal
        os.environ.update(NO_COLOR="1", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "sidecar", "top", "--admin", admin])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    drawn, typed = "", False
    until = time.monotonic() + ILL / 1000
    try:
        while time.monotonic() < until:
            if select.select([terminal], [], [], 0.5)[0]:
                drawn += os.read(terminal, 65536).decode(errors="replace")
            elif "degraded" in last_picture(drawn):  # it rests: the picture is whole
                if typed:
                    break
                os.write(terminal, b"\r")
                typed = True
    finally:
        os.write(terminal, b"q")
        os.waitpid(pid, 0)
        os.close(terminal)
    return last_picture(drawn)


def last_picture(drawn: str) -> str:
    """The lines of the last time that the cursor went home."""
    text = CONTROL.sub("", drawn.rpartition("\x1b[H")[2]).replace("\r", "")
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def draw(picture: str) -> None:
    """Put it in the place of the one in the README."""
    before, fence, rest = README.read_text().partition("\n```\nsidecar ")
    if not fence:
        raise SystemExit("README.md has no picture of sidecar top to replace")
    after = rest.partition("\n```")[2]
    README.write_text(f"{before}\n```\n{picture}\n```{after}")


def target(name: str) -> Path:
    """Where that picture goes."""
    return HERE / f"dashboard-{name}.png"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
