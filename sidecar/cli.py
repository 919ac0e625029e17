"""The command line: what each command does, and what it needs imported (`options` has what it takes).

Exit codes: 0 fine, 1 the thing asked about is not fine, 2 usage or configuration error. Errors are one line
each on stderr. Commands import what they need when they run: `sidecar url` must not pay for an event loop.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from sidecar.errors import ConfigurationError, NoEndpointsError, SidecarError, UnreadableError
from sidecar.options import USAGE, command_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sidecar.config.load import FileCheck
    from sidecar.config.settings import Settings
    from sidecar.handover import Taken
    from sidecar.registry import ServiceRegistry
    from sidecar.reload import Changes

__all__ = ["run"]

FINE = 0
NOT_FINE = 1


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    if arguments[:1] == ["worker"]:
        return _worker(arguments[1:])
    options = command_line().parse_args(arguments)
    if options.command in ("run", "demo"):
        import signal

        signal.signal(signal.SIGTERM, _end_early)
    command = {
        "run": _run,
        "check": _check,
        "url": _url,
        "health": _health,
        "status": _status,
        "top": _top,
        "explain": _explain,
        "trip": _act,
        "reset": _act,
        "drain": _act,
        "enable": _act,
        "reload": _reload,
        "export": _export,
        "wait": _wait,
        "quit": _quit,
        "demo": _demo,
    }[options.command]
    try:
        if "admin" in options:
            options.admin = _admin_address(options)
        code = command(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        for finding in error.findings:
            print(f"sidecar: {finding}", file=sys.stderr)
    except SidecarError as error:
        print(f"sidecar: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        # Before the command had taken the signal over, or in one that needs no such care. But who waits to begin is not
        # to begin.
        return NOT_FINE if options.command == "wait" else FINE
    except BrokenPipeError:  # the reader of our output has seen enough
        _discard_output()
        return FINE
    except OSError as error:
        _discard_output()
        print(f"sidecar: cannot write the answer: {(error.strerror or str(error)).lower()}", file=sys.stderr)
    else:
        return code
    return USAGE


def _discard_output() -> None:
    """Let the interpreter's last flush find a place for what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_early(_number: int, _frame: object) -> NoReturn:
    """SIGTERM before there is anything to drain. The kernel would ignore it if this is a container's process 1."""
    sys.exit(FINE)


def _settings(
    options: argparse.Namespace,
    file: str | None = None,
    *,
    again: bool = False,
    files: FileCheck | None = None,
) -> Settings:
    from sidecar.config.load import load_settings
    from sidecar.config.settings import DeploymentMode

    return load_settings(
        options.config if file is None else file,
        environ=os.environ,
        mode=DeploymentMode(options.mode) if options.mode else None,
        bind=getattr(options, "bind", ()),
        expose=getattr(options, "expose", False),
        register=getattr(options, "register", ()),
        again=again,
        files=files,
    )


def _run(options: argparse.Namespace) -> int:
    import signal

    # Until there is a log to open anew: it would end the process, and the log of then is a new one anyway.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    # Before the file is read: what is written from then on is a change.
    changes = None if options.config is None else _changes(options.config)
    settings = _settings(options)
    if changes is None:
        changes = _changes(settings.origin)
        if changes is not None:  # the mode has named the file
            settings = _settings(options, settings.origin)

    from sidecar.app import App, run_loop
    from sidecar.observe.logs import configure

    configure(settings.log_level, options.log_format, sys.stderr)

    taken = None
    if options.takeover:
        taken = _take_over(settings)

    file = settings.origin if changes else None

    def load() -> Settings:
        # Also where the mode has named the file: that it is missing for a moment is not to mean the built-ins.
        return _settings(options, file, again=True)

    async def serve() -> int:
        if settings.sidecar.workers == 1:
            await App(settings, load=load, changes=changes, taken=taken).run()
        else:
            from sidecar.workers.supervisor import Supervisor

            await Supervisor(settings, load, options.log_format, changes=changes, taken=taken).run()
        return FINE

    code = run_loop(serve())
    # The loop has given the signals back; what is left of the process is its end, and nobody's to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return code


def _take_over(settings: Settings) -> Taken | None:
    """What the sidecar that runs hands over; before there is a loop, as there is nothing to serve meanwhile."""
    import logging

    from sidecar.handover import take

    where = settings.sidecar
    taken = take(str(where.admin), where.workers)
    if taken is None:
        logging.getLogger("sidecar").info(
            "there is no sidecar to take over from at %s; starting as usual", where.admin
        )
    return taken


def _changes(file: str) -> Changes | None:
    """The changes of `file` from now on; None where there are none to tell, as of a pipe, or of the built-ins."""
    from sidecar.reload import changes_of

    try:
        return changes_of(file)
    except (OSError, ValueError):
        return None


def _worker(arguments: Sequence[str]) -> int:
    """What `run` starts when there are several workers. No command of the parser's: it is for nobody else."""
    from sidecar.workers.process import ignore_signals

    ignore_signals()

    from sidecar.app import run_loop
    from sidecar.workers.worker import inherited, work

    number = arguments[0] if len(arguments) == 1 else ""
    try:
        end = inherited(int(number) if number.isascii() and number.isdigit() else -1)
        return run_loop(work(end))
    except SidecarError as error:
        print(f"sidecar: {error}", file=sys.stderr)
    return USAGE


def _check(options: argparse.Namespace) -> int:
    from sidecar.config.settings import Address
    from sidecar.tls.certificates import findings

    try:
        settings = _settings(options, files=findings)
    except UnreadableError:
        raise
    except ConfigurationError as error:
        for finding in error.findings:
            print(finding)
        print(f"{len(error.findings)} finding{'s' if len(error.findings) > 1 else ''}")
        return NOT_FINE
    for note in settings.notes:
        print(f"note: {note}")
    for note in _host_notes(settings):
        print(f"note: here {note}")
    for upstream in settings.upstreams:
        if upstream.skipped:
            print(f"note: {upstream.name} will not listen: {upstream.skipped}")
    for one in settings.registrations:
        from sidecar.health.probes import probe_of

        asked = f"{probe_of(one.check, 'endpoint').question} at {Address(one.check_host, one.port)}"
        print(f"note: {one.name} will be announced in {one.registry} while its check passes ({asked})")
    count = len(settings.upstreams)
    plural = "" if count == 1 else "s"
    print(f"{settings.origin}: fine: mode {settings.mode.value}, {count} upstream{plural}")
    return FINE


def _host_notes(settings: Settings) -> list[str]:
    """What this very machine, or container, is short of."""
    from sidecar.host_limits import descriptors_note, descriptors_wanted, host_notes, read_host_limits

    limits, wanted = read_host_limits(), descriptors_wanted(settings)
    few = [descriptors_note(wanted, limits.descriptors)] if 0 < limits.descriptors < wanted else []
    return [*few, *host_notes(settings, limits)]


def _registry(options: argparse.Namespace) -> ServiceRegistry:
    from sidecar.registry import ServiceRegistry

    environ = dict(os.environ)
    if options.mode:
        environ["AUTOBOT_DEPLOYMENT_MODE"] = options.mode
    # What the answer says is said once.
    return ServiceRegistry(config_file=options.config, environ=environ, quiet=True)


def _url(options: argparse.Namespace) -> int:
    with _registry(options) as registry:
        registry.wait_until_ready(name=options.name, fresh=True)
        try:
            print(registry.get_service_url(options.name, options.path))
        except NoEndpointsError as error:
            print(f"sidecar: {error.problem}", file=sys.stderr)
            return NOT_FINE
    return FINE


def _health(options: argparse.Namespace) -> int:
    with _registry(options) as registry:
        registry.wait_until_ready(name=options.name, fresh=True)

        from sidecar.console.health import show_health

        return show_health(registry, options.name, json=options.json)


def _admin_address(options: argparse.Namespace) -> str:
    """Where a running sidecar is to be asked, and its token. Raises `SecretError`."""
    from sidecar.console.asking import AdminAddress

    return AdminAddress.of(options.admin, options.admin_token_file, os.environ)


def _status(options: argparse.Namespace) -> int:
    if options.ready:
        from sidecar.console.ready import show_ready

        return show_ready(options.metrics)

    import gc

    from sidecar.console.status import show_status

    gc.enable()  # `--watch` may last for days

    return show_status(
        options.admin, json=options.json, watch=options.watch, every_endpoint=options.endpoints
    )


def _top(options: argparse.Namespace) -> int:
    import gc

    from sidecar.clock import Clock
    from sidecar.console.top import show_top

    gc.enable()  # it may last for days

    return show_top(options.admin, Clock(), interval=max(options.interval, 0.1), count=options.count)


def _explain(options: argparse.Namespace) -> int:
    from sidecar.console.explain import show_reasons

    return show_reasons(options.name, options.admin, json=options.json)


def _act(options: argparse.Namespace) -> int:
    from sidecar.console.control import act

    return act(options.command, options.name, options.endpoint, options.admin)


def _reload(options: argparse.Namespace) -> int:
    from sidecar.console.reload import reload

    return reload(options.admin)


def _export(options: argparse.Namespace) -> int:
    from sidecar.config.load import load_settings
    from sidecar.config.settings import DeploymentMode
    from sidecar.export.command import Wishes, export, surroundings

    said: dict[str, Any] = {
        name: value for name, value in vars(options).items() if name not in ("command", "kind")
    }
    wishes = Wishes(**{**said, "label": tuple(options.label)})
    environ, container = surroundings(options.kind, os.environ)

    def load(file: str | None) -> Settings:
        mode = DeploymentMode(options.mode) if options.mode else None
        return load_settings(file, environ=environ, mode=mode, container=container)

    sys.stdout.write(export(options.kind, wishes, load))
    return FINE


def _wait(options: argparse.Namespace) -> int:
    from sidecar.console.wait import wait_ready

    return wait_ready(options.metrics, options.timeout)


def _quit(options: argparse.Namespace) -> int:
    from sidecar.console.quit import ask_to_quit

    return ask_to_quit(options.admin)


def _demo(options: argparse.Namespace) -> int:
    from sidecar.app import App, run_loop
    from sidecar.demo import run_demo

    return run_loop(run_demo(App, seconds=options.seconds, output=sys.stdout))
