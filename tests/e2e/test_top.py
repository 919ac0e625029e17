"""`sidecar top` on a real terminal, before a real sidecar: keys, signals, and a terminal that is given back."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.proxy import Sidecar, clean_environment, command, configuration
from support.screens import TerminalProcess
from support.waiting import wait_until

ENVIRON = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def top(admin: int, *arguments: str, columns: int = 100, lines: int = 24, **environ: str) -> TerminalProcess:
    return TerminalProcess(
        command("top", "--admin", f"127.0.0.1:{admin}", "--interval", "0.2", *arguments),
        clean_environment(**{**ENVIRON, **environ}),
        columns,
        lines,
    )


def two_endpoints() -> str:
    """A configuration with two endpoints that nobody asks."""
    return configuration(free_port(), [free_port(), free_port()])


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with Sidecar(tmp_path_factory.mktemp("top"), two_endpoints()) as running:
        yield running


def test_keys_work_and_q_gives_the_terminal_back(sidecar: Sidecar) -> None:
    with top(sidecar.admin) as shown:
        shown.shows("> api")
        shown.assert_taken()
        shown.type("\r")
        shown.shows("0 of 0 connections idle")
        shown.type("\x1b[B")
        shown.shows(">    127.0.0.1:")
        shown.type(" s")
        shown.shows("s sort: errors")
        shown.type("/zz")
        shown.shows("no upstream matches")
        shown.type("\x1b")
        shown.shows("> api")
        shown.type("q")
        assert shown.ended() == 0
        shown.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_give_the_terminal_back(sidecar: Sidecar, number: signal.Signals) -> None:
    with top(sidecar.admin) as shown:
        shown.shows("> api")
        shown.popen.send_signal(number)
        assert shown.ended() == 0
        shown.assert_given_back()


def test_ctrl_c_gives_the_terminal_back(sidecar: Sidecar) -> None:
    with top(sidecar.admin) as shown:
        shown.shows("> api")
        shown.type("\x03")
        assert shown.ended() == 0
        shown.assert_given_back()


def test_what_is_drained_elsewhere_shows(sidecar: Sidecar) -> None:
    admin = f"127.0.0.1:{sidecar.admin}"

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments, "--admin", admin),
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    with top(sidecar.admin) as shown:
        shown.shows("● well")
        assert run("drain", "api").stdout.count("is drained until `sidecar enable`") == 2
        shown.shows("◌ drained")
        status = run("status")
        assert (status.returncode, status.stdout.count("drained by hand; until `sidecar enable`")) == (1, 2)
        assert run("enable", "api").stdout.count("is enabled") == 2
        shown.shows("● well")
        assert run("status").returncode == 0
        unknown = run("drain", "nobody")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == "sidecar: no upstream is called 'nobody'; known are: api\n"
        elsewhere = run("enable", "api", "10.0.0.1:1")
        assert elsewhere.returncode == 1
        assert elsewhere.stderr.startswith("sidecar: api has no endpoint '10.0.0.1:1'; it has: 127.0.0.1:")
        shown.type("q")
        assert shown.ended() == 0


def test_a_sidecar_may_go_away_and_come_back(tmp_path: Path) -> None:
    text = two_endpoints()
    with Sidecar(tmp_path, text) as first:
        shown = top(first.admin)
    with shown:
        shown.shows("nothing answers at")
        with Sidecar(tmp_path, text, admin=first.admin):
            shown.shows("● well")
        picture = shown.shows("no answer for ")
        assert "> api" in picture
        with Sidecar(tmp_path, text, admin=first.admin):
            picture = shown.shows("sidecar 0.")
            assert re.search(r"sidecar 0\.\S+, (compiled|pure Python), mode \w+, up \d+ s", picture)
        shown.type("q")
        assert shown.ended() == 0
        shown.assert_given_back()


def test_a_sidecar_that_hangs_holds_up_no_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, top(silent.getsockname()[1]) as shown:
        shown.shows("asking the sidecar")
        connection = silent.accept()[0]
        with connection:
            shown.type("/typed")
            shown.shows("/typed_", seconds=1.5)  # the question takes 2 s
            shown.type("\rq")
            assert shown.ended(1.5) == 0
            shown.assert_given_back()


def test_it_follows_the_terminal_s_size(sidecar: Sidecar) -> None:
    with top(sidecar.admin, columns=120, lines=30) as shown:
        shown.shows("q quit")
        assert len(shown.screen.split("\n")) == 30
        assert "retries" in shown.screen
        shown.forget()
        shown.resize(50, 8)
        wait_until(
            lambda: [len(line) for line in shown.screen.split("\n")] == [50] * 8, "8 lines of 50 columns"
        )
        assert "> api" in shown.screen
        shown.type("q")
        assert shown.ended() == 0


def test_ctrl_z_stops_it_and_fg_goes_on(sidecar: Sidecar) -> None:
    line = " ".join(str(part) for part in command("top", "--admin", f"127.0.0.1:{sidecar.admin}"))
    environ = clean_environment(**ENVIRON, PS1="ready> ")
    with TerminalProcess(["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], environ) as shell:
        shell.shows("ready> ")
        shell.type(f"{line}\n")
        shell.shows("> api")
        shell.assert_taken()
        shell.type("\x1a")
        shell.shows("Stopped")
        shell.assert_given_back()
        shell.forget()
        shell.type("fg\n")
        shell.shows("> api")
        shell.assert_taken()
        shell.type("s")
        shell.shows("s sort: errors")
        shell.forget()
        shell.type("q")
        shell.shows("ready> ")
        shell.assert_given_back()
        shell.type("exit 3\n")
        assert shell.ended() == 3


def test_after_kill_stop_it_draws_all_of_it_again(sidecar: Sidecar) -> None:
    with top(sidecar.admin) as shown:
        shown.shows("> api")
        shown.popen.send_signal(signal.SIGSTOP)
        os.waitpid(shown.popen.pid, os.WUNTRACED)
        shown.forget()
        shown.popen.send_signal(signal.SIGCONT)
        shown.shows("> api")
        assert "\x1b[?1049h" in shown.fresh
        shown.type("q")
        assert shown.ended() == 0
        shown.assert_given_back()


def test_no_color_is_honoured(sidecar: Sidecar) -> None:
    with top(sidecar.admin, NO_COLOR="1") as shown:
        shown.shows("> api")
        shown.type("q")
        assert shown.ended() == 0
        assert "\x1b[32m" not in shown.output
        assert "\x1b[7m> api" in shown.output  # which row is selected stays visible


@pytest.mark.parametrize("count", [["--count", "2"], []])
def test_a_dumb_terminal_gets_tables(sidecar: Sidecar, count: list[str]) -> None:
    with top(sidecar.admin, *count, TERM="dumb") as shown:
        shown.shows("retries")
        if not count:
            shown.type("\x03")
        assert shown.ended() == 0
        assert "\x1b[?1049h" not in shown.output
        if count:
            assert shown.output.count("upstream ") == 2


def test_without_a_terminal_it_prints_so_many_tables(sidecar: Sidecar) -> None:
    done = subprocess.run(
        command("top", "--admin", f"127.0.0.1:{sidecar.admin}", "--interval", "0.1", "--count", "3"),
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("upstream ") == 3
    assert "\x1b" not in done.stdout


def test_what_is_no_address_is_a_usage_error_on_the_screen_that_was() -> None:
    with TerminalProcess(command("top", "--admin", "nowhere"), clean_environment(**ENVIRON)) as shown:
        assert shown.ended() == 2
        shown.assert_given_back()
        assert shown.output.endswith(
            "sidecar: 'nowhere' is no admin address; give --admin HOST:PORT, such as 127.0.0.1:9901\r\n"
        )
