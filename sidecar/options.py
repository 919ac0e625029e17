"""What each command takes: its options, and what of them is usable.

Nothing heavy is loaded here: `sidecar url` and `sidecar wait` are asked often, and are to answer at once.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, NoReturn

from sidecar.version import __version__, build_name

__all__ = ["USAGE", "command_line"]

USAGE = 2  # the exit code of whoever asked in a wrong way

_MODES = ("local", "docker_local", "distributed", "kubernetes")


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line. Only to print help does it load shutil and ask for the terminal's width."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=partial(argparse.HelpFormatter, width=80), **options)

    def format_help(self) -> str:
        """The help, as wide as the terminal."""
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands; `command` of what it gives says which one."""
    parser = _Parser(
        prog="sidecar",
        description="Applications call localhost; the sidecar balances, breaks and reports.",
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__} ({build_name()})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    configured = _Parser(add_help=False)
    configured.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration; without it config/deployment/MODE.yml if there is one, else built-in defaults",
    )
    configured.add_argument(
        "--mode", choices=_MODES, help="the deployment mode, over the file's and the environment's"
    )

    command = commands.add_parser("run", parents=[configured], help="run the sidecar until a signal ends it")
    command.add_argument(
        "--bind",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="listen on this address instead of sidecar.bind's; may be given several times",
    )
    command.add_argument(
        "--expose", action="store_true", help="let --bind and sidecar.bind name addresses beyond loopback"
    )
    _add_register(command)
    command.add_argument(
        "--takeover",
        action="store_true",
        help="take the sockets over from the sidecar that runs with the same sidecar.admin, which then ends",
    )
    command.add_argument(
        "--log-format",
        choices=("auto", "text", "json"),
        default="auto",
        help="auto is text on a terminal and JSON lines elsewhere",
    )

    command = commands.add_parser(
        "check", parents=[configured], help="check a configuration and list every finding"
    )
    _add_register(command)

    command = commands.add_parser("url", parents=[configured], help="print the URL of a service")
    command.add_argument("name", metavar="NAME")
    command.add_argument("path", metavar="PATH", nargs="?", default="")

    command = commands.add_parser(
        "health",
        parents=[configured],
        help="ask services whether they are well, and how long they take to answer",
    )
    command.add_argument("name", metavar="NAME", nargs="?", help="only this one")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")

    running = _Parser(add_help=False)
    running.add_argument(
        "--admin", metavar="HOST:PORT", default="127.0.0.1:9901", help="its sidecar.admin address"
    )
    running.add_argument(
        "--admin-token-file",
        metavar="FILE",
        help="where its token is, if it asks for one; else SIDECAR_ADMIN_TOKEN holds it",
    )

    command = commands.add_parser(
        "status", parents=[running], help="show a running sidecar's upstreams and endpoints"
    )
    command.add_argument(
        "--json", action="store_true", help="print the JSON of /upstreams instead of a table"
    )
    command.add_argument("--watch", action="store_true", help="refresh every second until Ctrl-C")
    command.add_argument("--endpoints", action="store_true", help="list the endpoints that are well, too")
    command.add_argument(
        "--ready",
        action="store_true",
        help="only whether it takes work, as /ready at its metrics address says",
    )
    command.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default="127.0.0.1:9902",
        help="its sidecar.metrics address, for --ready",
    )

    command = commands.add_parser(
        "top", parents=[running], help="watch a running sidecar: sort, filter, look into upstreams"
    )
    command.add_argument(
        "--interval", type=_seconds, metavar="N", default=1.0, help="seconds between two looks, 1 by default"
    )
    command.add_argument(
        "--count", type=_count, metavar="N", help="print N tables instead, one each interval"
    )
    command.add_argument("--once", dest="count", action="store_const", const=1, help="the same as --count 1")

    command = commands.add_parser(
        "explain", parents=[running], help="say why the next request of an upstream goes where it goes"
    )
    command.add_argument("name", metavar="NAME", help="the upstream")
    command.add_argument("--json", action="store_true", help="print the JSON of /explain/NAME")

    for name, what in (
        ("trip", "take an endpoint out of rotation until it is reset, as its breaker would"),
        ("reset", "put an endpoint back into rotation, whatever opened its breaker"),
        ("drain", "send nothing new to an endpoint until it is enabled; what is under way finishes"),
        ("enable", "send to a drained endpoint again"),
    ):
        command = commands.add_parser(name, parents=[running], help=what)
        command.add_argument("name", metavar="NAME", help="the upstream")
        command.add_argument("endpoint", metavar="HOST:PORT", nargs="?", help="the endpoint; without it all")

    commands.add_parser(
        "reload", parents=[running], help="have a running sidecar read its configuration again"
    )

    commands.add_parser(
        "quit",
        parents=[running],
        help="have a running sidecar finish what is in flight and end, as a Job's last act",
    )

    command = commands.add_parser(
        "wait", help="block until a running sidecar takes work: a container's startupProbe"
    )
    command.add_argument(
        "--timeout", type=_seconds, metavar="N", default=60.0, help="give up after N seconds, 60 by default"
    )
    command.add_argument(
        "--metrics", metavar="HOST:PORT", default="127.0.0.1:9902", help="its sidecar.metrics address"
    )

    command = commands.add_parser(
        "export",
        parents=[configured],
        help="print manifests of a configuration, or rules for those who watch or mesh",
    )
    _add_export(command)

    command = commands.add_parser(
        "demo", help="see it at work: embedded upstreams, traffic, a failing endpoint"
    )
    command.add_argument("--seconds", type=_seconds, metavar="N", help="end after N seconds; else at Ctrl-C")
    return parser


def _add_register(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--register",
        metavar="NAME=PORT",
        type=_registration,
        action="append",
        default=[],
        help="announce what listens on PORT here as NAME, beside the file's register; may be given several times",
    )


def _add_export(command: argparse.ArgumentParser) -> None:
    kinds = ("kubernetes", "compose", "istio", "linkerd", "prometheus-rules")
    command.add_argument("kind", choices=kinds, help="what is printed, as YAML")
    command.add_argument("--name", help="of what is made; kubernetes, prometheus-rules")
    command.add_argument("--namespace", help="where it is, or Services that name none; not compose")
    command.add_argument("--image", help="of the sidecar; kubernetes, compose")
    command.add_argument("--application-image", metavar="IMAGE", help="kubernetes")
    command.add_argument("--service", metavar="NAME", help="whose calls the sidecar takes; compose")
    command.add_argument("--pod-monitor", action="store_true", help="for the Prometheus Operator; kubernetes")
    command.add_argument(
        "--label",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="of the rules; may be given several times",
    )
    command.add_argument(
        "--plain", action="store_true", help="a file for Prometheus itself; prometheus-rules"
    )


def _registration(text: str) -> tuple[str, int]:
    from sidecar.config.addresses import parse_port
    from sidecar.config.rules import Unusable, UpstreamName

    name, equals, port = text.partition("=")
    try:
        if equals:
            return UpstreamName().accept(name), parse_port(port)
    except Unusable as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    except ValueError:
        said = f"{text!r} has no port between 1 and 65535; write for example api=8080"
        raise argparse.ArgumentTypeError(said) from None
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT; write for example api=8080")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tables")
    return int(text)
