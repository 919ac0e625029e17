"""A data path in the hands of a test, with an access log that writes to a real file."""

import json
from pathlib import Path
from typing import Any, Self

from unit.proxy.harness import Proxy

from sidecar.config.settings import AccessLogSettings
from sidecar.model import RecordingCounts
from sidecar.observe.access_log import AccessLog
from sidecar.observe.recorder import ExchangeRecorder

__all__ = ["Logged", "lines_of"]


class Logged:
    """proxy: whose exchanges are written to `path`, as `settings` say. counts: of the lines."""

    def __init__(self, proxy: Proxy, path: Path, **settings: Any) -> None:
        self.proxy = proxy
        self.path = path
        self.counts = RecordingCounts()
        clock: Any = proxy.clock
        self.log = AccessLog(AccessLogSettings(str(path), **settings), clock, self.counts)
        self._closed = False

    async def __aenter__(self) -> Self:
        self.log.start()
        self.proxy.context.recorder = ExchangeRecorder(self.log, None, None)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self.log.close()
        if kind is None:
            self.proxy.finish()

    async def lines(self) -> list[dict[str, Any]]:
        """What has been written, once nothing more is."""
        await self.log.close()
        return lines_of(self.path)

    async def line(self) -> dict[str, Any]:
        """The one line."""
        (line,) = await self.lines()
        return line


def lines_of(*paths: Path) -> list[dict[str, Any]]:
    """What stands in these files; each line has to be a whole one."""
    found = []
    for path in paths:
        text = path.read_bytes()
        assert not text or text.endswith(b"\n"), f"{path} ends with {text[-50:]!r}"
        found += [json.loads(line) for line in text.splitlines()]
    return found
