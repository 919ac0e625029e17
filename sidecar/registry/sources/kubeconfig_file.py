"""A kubeconfig: its contexts, clusters and users by name. https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.config.document import MAX_BYTES, read_document
from sidecar.config.findings import Findings, escaped, key_text, meant, shown
from sidecar.errors import SourceError

if TYPE_CHECKING:
    from sidecar.config.findings import KeyPath

__all__ = ["KubeconfigFile"]

_SINGULAR = {"contexts": "context", "clusters": "cluster", "users": "user"}
# What would have to be done to be the user that is meant; done without, it would be another one.
_UNSUPPORTED = {
    "exec": "a program that gives credentials is not run; write a token to a file and name it under `token_file`",
    "auth-provider": "is not supported (kubectl has dropped it too); name a `token_file`",
    "username": "passwords are not supported (Kubernetes has dropped them); name a `token_file`",
    "as": "acting as somebody else is not supported; use a context whose user has the right to",
}


class KubeconfigFile:
    """One file, read as the configuration is: bounded, and with the lines of its keys.

    Paths lead to keys, and those that lead nowhere to nothing; every method raises SourceError for what cannot be used,
    in one line with the file, the line and the key.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        findings = Findings()
        document = read_document(name, _content(name), findings)
        if findings or document is None:
            raise SourceError(findings.lines()[0])
        if not isinstance(document.data, dict):
            raise SourceError(f"{escaped(name)}: is no kubeconfig: it has no keys")
        self._document = document

    def context(self, wanted: str) -> KeyPath:
        """The path of a context, by default the current one."""
        name = wanted or self.text(("current-context",))
        if not name:
            raise self.error(("current-context",), "is not set; name one under `context`")
        return self.entry("contexts", name, ("current-context",) if not wanted else ())

    def entry(self, section: str, name: str, reason: KeyPath) -> KeyPath:
        """The path of what a section has under a name. reason: where that name is asked for."""
        items = self._value((section,))
        known = []
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise self.error((section, index), "has no name")
            known.append(item["name"])
            if item["name"] == name:
                return (section, index, _SINGULAR[section])
        raise self.error(reason, f"{section} has no {shown(name)}{meant(name, known)}")

    def text(self, path: KeyPath) -> str:
        """What is written there; empty for nothing."""
        value = self._value(path)
        if value is None:
            return ""
        if isinstance(value, dict | list):
            raise self.error(path, "is no text")
        return self._document.written(path)

    def flag(self, path: KeyPath) -> bool:
        """Whether it is true."""
        value = self._value(path)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.error(path, f"{shown(value)} is neither true nor false")

    def path(self, path: KeyPath) -> str:
        """A file, which is looked for beside the kubeconfig where its path is relative; empty for none."""
        text = self.text(path)
        return str(Path(self._name).parent / text) if text else ""

    def data(self, path: KeyPath) -> bytes:
        """What is there in base64."""
        text = self.text(path)
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise self.error(path, "is no base64") from None

    def refuse_unsupported(self, user: KeyPath) -> None:
        """Raise for credentials of a kind that is not supported."""
        found = self._value(user)
        for key, problem in _UNSUPPORTED.items():
            if isinstance(found, dict) and found.get(key) not in (None, "", {}):
                raise self.error((*user, key), problem)

    def where(self, path: KeyPath) -> str:
        """The file, the line and the key, as a message begins."""
        line = self._document.line(path)
        return f"{escaped(self._name)}{f':{line}' if line else ''}{f': {key_text(path)}' if path else ''}"

    def error(self, path: KeyPath, problem: str) -> SourceError:
        """What is wrong there."""
        return SourceError(f"{self.where(path)}: {problem}")

    def _value(self, path: KeyPath) -> Any:
        value: Any = self._document.data
        for part in path:
            if isinstance(part, int):
                value = value[part] if isinstance(value, list) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return value


def _content(name: str) -> bytes:
    file = Path(name)
    try:
        if file.exists() and not file.is_file():  # a pipe would hold up the process
            raise SourceError(f"{escaped(name)} (kubeconfig) is no regular file")
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        said = (getattr(error, "strerror", None) or str(error)).lower()
        raise SourceError(f"{escaped(name)} (kubeconfig): {said}; check `kubeconfig` or KUBECONFIG") from None
