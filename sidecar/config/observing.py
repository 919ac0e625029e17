"""What `sidecar.access_log` and `sidecar.tracing` come to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sidecar.config.settings import STDOUT, AccessLogSettings, TracingSettings
from sidecar.config.unset import UNSET, UnsetType, or_else

if TYPE_CHECKING:
    from sidecar.config.findings import Findings
    from sidecar.config.marks import Document
    from sidecar.config.schema import AccessLog, Tracing

__all__ = ["access_log_settings", "check_token", "secret_file", "tracing_settings"]

_NOWHERE: Final = "says how, and nothing says where"


def access_log_settings(
    spec: AccessLog | str | UnsetType, directory: str, document: Document, findings: Findings
) -> AccessLogSettings:
    """directory: of the configuration, which a relative name is of."""
    defaults = AccessLogSettings()
    if isinstance(spec, UnsetType):
        return defaults
    if isinstance(spec, str):
        return AccessLogSettings(_place(spec, directory))
    if isinstance(spec.file, UnsetType):
        problem = f"{_NOWHERE}; add `file: {STDOUT}`, or a path"
        _report_missing("file", ("sidecar", "access_log"), problem, document, findings)
        return defaults
    return AccessLogSettings(
        _place(spec.file, directory),
        or_else(spec.sample, defaults.sample),
        or_else(spec.errors_only, defaults.errors_only),
        or_else(spec.query, defaults.query),
        or_else(spec.buffer, defaults.buffer),
    )


def tracing_settings(
    spec: Tracing | str | UnsetType, directory: str, document: Document, findings: Findings
) -> TracingSettings:
    """directory: of the configuration, which a relative name is of."""
    defaults = TracingSettings()
    if isinstance(spec, UnsetType):
        return defaults
    if isinstance(spec, str):
        return TracingSettings(spec)
    if isinstance(spec.endpoint, UnsetType):
        problem = f"{_NOWHERE}; add `endpoint: http://127.0.0.1:4318`"
        _report_missing("endpoint", ("sidecar", "tracing"), problem, document, findings)
        return defaults
    check_token(spec.token_env, spec.token_file, ("sidecar", "tracing", "token_file"), document, findings)
    return TracingSettings(
        spec.endpoint,
        or_else(spec.sample, defaults.sample),
        or_else(spec.service, defaults.service),
        or_else(spec.queue, defaults.queue),
        or_else(spec.token_env, ""),
        secret_file(spec.token_file, directory),
    )


def _report_missing(
    key: str, path: tuple[str, ...], problem: str, document: Document, findings: Findings
) -> None:
    if not document.has((*path, key)):  # one that cannot be used has been reported
        document.report(findings, path, problem)


def check_token(
    variable: str | UnsetType,
    file: str | UnsetType,
    path: tuple[str, ...],
    document: Document,
    findings: Findings,
) -> None:
    """A token is in one place."""
    if variable is not UNSET and file is not UNSET:
        own = path[-1].removesuffix("_file")
        document.report(findings, path, f"{own}_env says where the token is as well; keep one of the two")


def secret_file(file: str | UnsetType, directory: str) -> str:
    """Where a file of the configuration's folder is; empty for none."""
    return "" if isinstance(file, UnsetType) else os.path.join(directory, file)


def _place(file: str, directory: str) -> str:
    return file if file == STDOUT else os.path.join(directory, file)
