"""What the documents show works: configurations are read without a finding, and links lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from sidecar.config.load import load_settings
from sidecar.config.record import fields
from sidecar.config.schema import Root

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = (
    "README.md",
    "benchmarks/README.md",
    "config/DEPLOYING.md",
    "config/GUIDE.md",
    "config/README.md",
    "sidecar/ARCHITECTURE.md",
    "sidecar/admin/README.md",
    "sidecar/observe/README.md",
)


def configurations() -> list[object]:
    """YAML blocks whose keys are a configuration's; others are for other programs."""
    found = []
    for document in DOCUMENTS:
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", text_of(document), re.DOTALL)):
            if set(yaml.safe_load(block)) <= set(fields(Root)):
                found.append(pytest.param(block, id=f"{document}-{number}"))
    return found


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def anchors(document: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", configurations())
def test_a_configuration_is_read_without_a_finding(block: str, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yml"
    file.write_text(block)
    load_settings(file, environ={}, container=False)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text_of(document))
    broken = []
    for target in (one or other for one, other in targets):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        file = (ROOT / document).parent / path if path else ROOT / document
        there = file.exists()
        if not there or (anchor and anchor not in anchors(str(file.resolve().relative_to(ROOT)))):
            broken.append(target)
    assert not broken


def test_there_are_configurations() -> None:
    assert len(configurations()) > 20
