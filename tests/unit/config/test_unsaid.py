"""No finding repeats what may be a secret, whatever key it was written at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.findings import key_text, shown
from sidecar.config.load import load_settings
from sidecar.config.record import fields
from sidecar.config.schema import Named, Root, Section, Several, Short
from sidecar.errors import ConfigurationError

MARKER = "do-not-tell"
URLS = (f"http://user:{MARKER}@host:80/x", f"user:{MARKER}@host:80", f"redis://:{MARKER}@host")


def keys(kind: type[Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every key of the file; 0 for the first of a list, `api` for an upstream."""
    for name, annotation in fields(kind).items():
        rule = annotation.__metadata__[0]
        place = (*path, name)
        yield place
        if isinstance(rule, Section | Short):
            yield from keys(rule.kind, place)
        elif isinstance(rule, Named):
            yield from keys(rule.kind, (*place, "api"))
        elif isinstance(rule, Several) and isinstance(rule.item, Section):
            yield from keys(rule.item.kind, (*place, 0))


def document(path: tuple[str | int, ...], value: object) -> object:
    """A file's content with `value` at `path`."""
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return value


def findings(file: Path) -> list[str]:
    """What is wrong with it."""
    try:
        load_settings(file, environ={}, container=False)
    except ConfigurationError as error:
        return list(error.findings)
    return []


@pytest.mark.parametrize("section", [name for name, _ in fields(Root).items()])
def test_a_password_in_a_url_is_not_repeated(section: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    places = [path for path in keys(Root) if path[0] == section]
    refused = 0
    for path in places:
        for number, url in enumerate(URLS):
            # As itself, in a list, and as a key, in turn: three forms for each key would take long.
            value = (url, [url], {url: 1})[(number + len(path)) % 3]
            file.write_text(json.dumps(document(path, value)))
            found = findings(file)
            refused += bool(found)
            assert MARKER not in "\n".join(found)
    assert refused > len(places)


@pytest.mark.parametrize(
    "path", [path for path in keys(Root) if path[-1] in ("token", "password", "admin_token", "bearer_token")]
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(
    path: tuple[str | int, ...], tmp_path: Path
) -> None:
    file = tmp_path / "a.yml"
    for value in (MARKER, [MARKER], {MARKER: 1}):
        file.write_text(json.dumps(document(path, value)))
        with pytest.raises(ConfigurationError) as raised:
            load_settings(file, environ={}, container=False)
        assert MARKER not in "\n".join(raised.value.findings)


@pytest.mark.parametrize("name", ["REDIS_HOST", "REDIS_PORT", "AUTOBOT_ZONE", "AUTOBOT_DEPLOYMENT_MODE"])
def test_nor_is_one_of_a_variable(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text("services: {redis: {scheme: redis, host: a.example, port: 1}}")
    for url in URLS:
        with pytest.raises(ConfigurationError) as raised:
            load_settings(file, environ={name: url}, container=False)
        assert MARKER not in "\n".join(raised.value.findings)


def test_what_is_shown_instead() -> None:
    assert shown("http://me:secret@host:80/x") == "`http://…@host:80/x`"
    assert shown("me:secret@host:80") == "`…@host:80`"
    assert shown("redis://a@b:c/d@host") == "`redis://…@host`"
    assert shown("x" * 50 + "@host") == "`…@host`"
    assert key_text(("services", "me:secret@host")) == "services.…@host"
