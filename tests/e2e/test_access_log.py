"""The access log of a real sidecar: a line for each request, rotated under load, shared by workers, read by nobody."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.access_log import lines_of
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import HttpClient
from support.load import Load
from support.ports import free_port
from support.proxy import Sidecar, clean_environment, command, configuration
from support.servers import Nginx, answers
from support.waiting import wait_until

OOPS = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
GONE = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"


def requests_of(running: Sidecar) -> int:
    """How many /metrics knows of."""
    found = running.metrics()
    return int(sum(value for name, value in found.items() if name.startswith("sidecar_requests_total{")))


@pytest.mark.server("nginx")
def test_files_that_are_rotated_under_load_have_each_request_once(tmp_path: Path, nginx: Nginx) -> None:
    listen, log = free_port(), tmp_path / "access.log"
    settings = configuration(listen, nginx.ports, sidecar=f"access_log: {log}")
    rotated: list[Path] = []
    with Sidecar(tmp_path, settings) as running:
        with Load(listen, 8) as load:
            for number in range(5):
                load.wait_for_more(300)
                rotated.append(log.rename(tmp_path / f"access.log.{number}"))
                running.send(signal.SIGUSR1)
                wait_until(log.exists, "the new file")
            load.wait_for_more(300)
            load.end()
        counted = requests_of(running)
        written = 'sidecar_access_log_lines_total{result="written"}'
        wait_until(lambda: running.metrics()[written] == counted, "the last lines")
    assert counted == load.answered
    assert all(lines_of(name) for name in [*rotated, log])
    assert len(lines_of(*rotated, log)) == counted


def test_what_went_wrong_alone_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    listen, log = free_port(), tmp_path / "access.log"
    with ScriptedEndpoint(respond(ok(), OOPS, GONE)) as endpoint:
        sidecar = "access_log: {file: access.log, errors_only: true}"  # in the configuration's folder
        with Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar=sidecar)):
            with HttpClient(listen) as client:
                statuses = [client.request("GET", f"/{number}").status for number in range(3)]
            assert statuses == [200, 500, 404]
            (line,) = wait_until(lambda: lines_of(log), "the line")  # which is not kept until the end
    assert (line["path"], line["status"], line["endpoint"]) == ("/1", 500, f"127.0.0.1:{endpoint.port}")


def test_a_reload_begins_it_moves_it_and_ends_it_for_connections_that_are_open(tmp_path: Path) -> None:
    listen = free_port()
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with ScriptedEndpoint(respond(ok())) as endpoint:
        without = configuration(listen, [endpoint.port])
        with Sidecar(tmp_path, without) as running, HttpClient(listen) as client:
            for number, wanted in enumerate(["", f"access_log: {first}", f"access_log: {second}", ""]):
                text = configuration(listen, [endpoint.port], sidecar=wanted)
                text = text.replace("ADMIN", str(running.admin)).replace("METRICS", str(running.metrics_port))
                running.path.write_text(text)
                assert running.reload().status == 200
                assert client.request("GET", f"/{number}").status == 200
            assert [line["path"] for line in wait_until(lambda: lines_of(second), "the line")] == ["/2"]
    assert [line["path"] for line in lines_of(first)] == ["/1"]
    assert len(lines_of(second)) == 1


@pytest.mark.server("nginx")
def test_workers_share_a_file_and_its_rotation(tmp_path: Path, nginx: Nginx) -> None:
    listen, log = free_port(), tmp_path / "access.log"
    settings = configuration(listen, nginx.ports, sidecar=f"workers: 2, access_log: {log}")
    old = tmp_path / "access.log.1"
    with Sidecar(tmp_path, settings) as running, Load(listen, 16) as load:
        load.wait_for_more(1000)
        log.rename(old)
        running.send(signal.SIGUSR1)
        wait_until(log.exists, "the new file")
        load.wait_for_more(1000)
        load.end()
    assert len(lines_of(old, log)) == load.answered
    assert lines_of(old)


@pytest.mark.server("nginx")
def test_lines_of_workers_do_not_mix_in_a_pipe(tmp_path: Path, nginx: Nginx) -> None:
    listen, pipe, read = free_port(), tmp_path / "pipe", tmp_path / "read"
    os.mkfifo(pipe)
    with read.open("wb") as out:
        reader = subprocess.Popen(["/bin/cat", pipe], stdout=out)
    settings = configuration(listen, nginx.ports, sidecar=f"workers: 2, access_log: {pipe}")
    try:
        with Sidecar(tmp_path, settings), Load(listen, 16, target="/" + "x" * 700) as load:
            load.wait_for_more(2000)
            load.end()
        assert reader.wait(5.0) == 0  # nobody has it open any more
    finally:
        reader.kill()
        reader.wait()
    assert len(lines_of(read)) == load.answered


@pytest.mark.server("nginx")
def test_standard_output_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    tmp_path: Path, nginx: Nginx
) -> None:
    listen, metrics, config = free_port(), free_port(), tmp_path / "sidecar.yml"
    text = configuration(listen, nginx.ports, sidecar="access_log: {file: stdout, buffer: 64KiB}")
    config.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(metrics)))
    errors = tmp_path / "stderr"
    with errors.open("wb") as err:
        running = subprocess.Popen(
            command("run", "--config", config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            env=clean_environment(),
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(listen), "the listener", 20.0)
        with Load(listen, 4, target="/" + "x" * 700, requests=200) as load:
            load.wait_for(lambda load: load.answered == 800, "answers to all")
        began = time.monotonic()
        running.terminate()
        assert running.wait(10.0) == 0
        # A quiet process has 0.5 s to see that nothing comes, and the log a second.
        assert time.monotonic() - began < 4.0
        assert running.stdout is not None
        came = running.stdout.read()
    finally:
        running.kill()
        running.communicate()
    assert 50 < len(came.splitlines()) < 150  # as many as a pipe takes
    assert all(json.loads(line)["status"] == 200 for line in came.splitlines())
    said = errors.read_text()
    assert "standard output takes no lines" in said
    assert "Traceback" not in said


def test_a_file_that_cannot_be_opened_ends_the_start_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yml"
    text = configuration(free_port(), [1], sidecar=f"access_log: {tmp_path}")
    config.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    done = subprocess.run(
        command("run", "--config", config),
        check=False,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=30,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "access_log" in line]
    assert "Is a directory; name a file that this user may write to" in line
    assert "Traceback" not in done.stderr
