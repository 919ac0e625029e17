"""`sidecar demo` as a new user starts it: a process of its own, before its output goes anywhere else."""

import re
import signal
import subprocess

import pytest
from support.proxy import clean_environment, command


def _start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("demo", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    )


def _finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    try:
        return process.communicate(timeout=20)
    finally:
        process.kill()


def test_three_endpoints_answer_and_nothing_fails() -> None:
    process = _start("--seconds", "3")
    output, errors = _finish(process)
    assert (process.returncode, errors) == (0, "")
    for url in (
        r"curl http://localhost:\d+/$",
        r"nc localhost \d+$",
        r"dashboard +http://127\.0\.0\.1:\d+/$",
        r"http://127\.0\.0\.1:\d+/metrics$",
    ):
        assert re.search(url, output, re.MULTILINE), url
    total = re.search(r"^3\.\d s: (\d+) requests, 0 failed$", output, re.MULTILINE)
    assert total, output
    assert int(total[1]) >= 20  # a machine with no time to spare makes some of the sixty
    answers = [int(count) for count in re.findall(r"api-[123] (\d+) \(\d+%\)", output)]
    assert len(answers) == 3
    assert sum(answers) == int(total[1])
    assert max(answers) - min(answers) <= 1  # round robin
    assert re.search(r"^[1-9]\d* lines echoed over TCP, 0 failed$", output, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(number: signal.Signals) -> None:
    process = _start()
    assert process.stdout is not None
    for line in process.stdout:
        if " requests, " in line:  # a second has passed
            process.send_signal(number)
            break
    output, errors = _finish(process)
    assert (process.returncode, errors) == (0, "")
    assert "breaker moves: none" in output
