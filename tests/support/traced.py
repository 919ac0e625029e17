"""A sidecar that traces, before scripted endpoints."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from support.endpoints import Conversation, Script, ScriptedEndpoint, ok
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration

__all__ = ["CALLER", "SAMPLED", "TRACE", "Traced", "answering"]

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = [("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "a=1")]


def answering(status: str = "200 OK") -> Script:
    """Answer every request so."""

    def script(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.send(ok(b"").replace(b"200 OK", status.encode()))

    return script


class Traced:
    """The sidecar, an endpoint for each script, and a client. Used as a context manager.

    url: of the collector. policy: of the upstream; more: of `sidecar.tracing`; own: of `sidecar`.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        *scripts: Script,
        policy: str = "",
        more: str = "",
        own: str = "drain_timeout: 1s",
        environ: dict[str, str] | None = None,
    ) -> None:
        self.listen = free_port()
        self.endpoints = [ScriptedEndpoint(script) for script in scripts]
        self._settings = (policy, f'{own}, tracing: {{endpoint: "{url}", {more}}}')
        self._directory = directory
        self._environ = environ
        self._stack = ExitStack()
        self.sidecar: Sidecar
        self.client: HttpClient

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for endpoint in self.endpoints:
                stack.enter_context(endpoint)
            policy, own = self._settings
            ports = [endpoint.port for endpoint in self.endpoints]
            text = configuration(self.listen, ports, policy=policy, sidecar=own)
            self.sidecar = stack.enter_context(Sidecar(self._directory, text, environ=self._environ))
            self.client = stack.enter_context(HttpClient(self.listen))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type] # as they came

    def parents(self) -> dict[int, list[str]]:
        """The parent ids that each endpoint has seen, by port."""
        found = {}
        for endpoint in self.endpoints:
            contexts = [str(received.header("traceparent")).split("-") for received in endpoint.requests]
            assert all(context[1] == TRACE for context in contexts)
            found[endpoint.port] = [context[2] for context in contexts]
        return found
