"""Broken configurations, one file for each kind of finding.

A file begins with comments: `# env: NAME=VALUE` sets a variable, `# expect: LINE: text` is a finding on a
line of the file, `# expect: environment: text` one of the environment. All findings, exactly and in order.
"""

from pathlib import Path

import pytest

from sidecar.config import load_settings
from sidecar.errors import ConfigurationError

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.yml"))


def _comments(text: str, kind: str) -> list[str]:
    start = f"# {kind}: "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_findings(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    text = file.read_text()
    environ = dict(line.split("=", 1) for line in _comments(text, "env"))
    expected = [f"{file.name}:{line}" if line[0].isdigit() else line for line in _comments(text, "expect")]

    with pytest.raises(ConfigurationError) as caught:
        load_settings(file.name, environ=environ, container=False)

    assert caught.value.findings == expected
    assert expected, "a corpus file says what is expected"


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 100


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_secrets_of_the_environment_are_not_repeated(file: Path) -> None:
    text = file.read_text()
    told = "\n".join(_comments(text, "expect"))
    for variable in _comments(text, "env"):
        name, value = variable.split("=", 1)
        if len(value) > 40 or "@" in value or "TOKEN" in name:
            assert value[:8] not in told
