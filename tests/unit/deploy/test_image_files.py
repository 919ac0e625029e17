"""What the image is built of. tests/image.py builds it and runs it; that takes minutes, and this does not."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sidecar.version import __version__

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = ROOT / "config" / "image"


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of this name in the final stage, its lines joined."""
    joined = FINAL.replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def pinned(file: str) -> dict[str, str]:
    """The releases in one file of requirements, by name. Every one must have hashes, and nothing else is there."""
    found = {}
    text = (REQUIREMENTS / file).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        release, *hashes = line.split()
        assert hashes, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), line
        name, version = release.split("==")
        found[canonicalize_name(name)] = version
    return found


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_needs_no_shell() -> None:
    assert instructions("ENTRYPOINT") == ['["sidecar"]']
    assert instructions("CMD") == ['["run"]']
    (health,) = instructions("HEALTHCHECK")
    assert health.endswith('CMD ["sidecar", "status", "--ready"]')
    (run,) = instructions("RUN")
    assert re.fullmatch(r"--mount=\S+ \[.*\]", run)
    assert instructions("SHELL") == []


def test_the_user_is_a_number() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_version_is_the_packages() -> None:
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE


def test_labels_say_what_the_package_says() -> None:
    (label,) = instructions("LABEL")
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', label))
    assert labels["licenses"] == PROJECT["project"]["license"]
    assert PROJECT["project"]["description"].startswith(labels["description"])
    assert {labels[name] for name in ("version", "revision", "created", "source")} == {
        "${VERSION}",
        "${REVISION}",
        "${CREATED}",
        "${SOURCE}",
    }


def test_it_has_to_be_compiled_and_installs_nothing_without_a_hash() -> None:
    commands = DOCKERFILE.replace("\\\n", " ").replace("&&", "\n").splitlines()
    installs = [command for command in commands if "/pip " in command]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
    assert "RUN SIDECAR_EXT=require " in DOCKERFILE


@pytest.mark.parametrize(
    ("file", "extra"), [("requirements.txt", None), ("requirements-otel.txt", "otel")], ids=["plain", "otel"]
)
def test_every_dependency_is_pinned_within_its_range(file: str, extra: str | None) -> None:
    found = pinned(file)
    project = PROJECT["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), text
    assert not {"pip", "setuptools", "cython"} & set(found)


def test_what_builds_is_pinned_too() -> None:
    found = pinned("requirements-build.txt")
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), text


def test_otel_is_the_same_and_more() -> None:
    assert pinned("requirements.txt").items() <= pinned("requirements-otel.txt").items()


def test_the_build_is_sent_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert "*" in lines
    assert allowed == copied
