"""The options of `sidecar export`, where the mode comes from, and what is refused."""

import os
from pathlib import Path

import pytest
import yaml
from support.exports import Export

from sidecar.cli import run
from sidecar.errors import ExportError
from sidecar.export.command import KINDS, Wishes, export, surroundings

GOOD = "services: {api: {host: api.shop.svc, port: 8001}}\n"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No deployment around it, an empty working directory."""
    for name in os.environ:
        if name.startswith(("AUTOBOT_", "KUBERNETES_", "API_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("good.yml").write_text(GOOD)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_printed(kind: str, capsys: Captured) -> None:
    config = [] if kind == "prometheus-rules" else ["--config", "good.yml"]
    assert run(["export", kind, *config]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert list(yaml.safe_load_all(captured.out))


@pytest.mark.parametrize("kind", ["kubernetes", "compose"])
def test_check_accepts_the_file_that_is_in_it(kind: str, capsys: Captured) -> None:
    assert run(["export", kind, "--config", "good.yml"]) == 0
    (document, *_) = yaml.safe_load_all(capsys.readouterr().out)
    if kind == "kubernetes":
        Path("inside.yml").write_text(document["data"]["sidecar.yml"])
    else:
        (volume,) = document["services"]["sidecar"]["volumes"]
        Path("inside.yml").write_bytes(Path(volume["source"]).read_bytes())
    assert run(["check", "--config", "inside.yml", "--mode", "kubernetes"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["istio", "--image", "a:1"], "--image means nothing for istio; leave it out"),
        (
            ["compose", "--application-image", "a"],
            "--application-image means nothing for compose; leave it out",
        ),
        (["istio", "--pod-monitor"], "--pod-monitor means nothing for istio; leave it out"),
        (
            ["prometheus-rules", "--config", "good.yml"],
            "--config means nothing for prometheus-rules; leave it out",
        ),
        (["prometheus-rules", "--mode", "local"], "--mode means nothing for prometheus-rules; leave it out"),
        (
            ["kubernetes", "--name", "Shop"],
            "--name 'Shop' is no such name; write lower-case letters, digits and `-`, 55 at most",
        ),
        (["kubernetes", "--name", ""], "--name '' is no such name; "),
        (["istio", "--namespace", "a.b"], "--namespace 'a.b' is no such name; "),
        (["kubernetes", "--image", "a b"], "--image 'a b' is no such name; write for example "),
        (["compose", "--service", "a/b"], "--service 'a/b' is no such name; "),
        (
            ["prometheus-rules", "--label", "a"],
            "--label 'a' is no label; write KEY=VALUE, such as release=prometheus",
        ),
        (
            ["kubernetes", "--config", "/dev/null"],
            "/dev/null: cannot be put into a ConfigMap: is no regular file; ",
        ),
        (
            ["istio", "--config", "mesh.yml"],
            "mesh.yml: kubernetes.service_mesh is of type linkerd; export linkerd, or ",
        ),
        (["linkerd", "--config", "none.yml"], "none.yml: cannot be read: "),
    ],
)
def test_what_is_refused_is_one_line(arguments: list[str], said: str, capsys: Captured) -> None:
    Path("mesh.yml").write_text(f"{GOOD}kubernetes: {{service_mesh: {{type: linkerd}}}}\n")
    assert run(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"sidecar: {said}")


def test_an_unknown_kind(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["export", "nomad"])
    assert ended.value.code == 2
    assert "kubernetes" in capsys.readouterr().err


def test_the_mode_is_that_of_where_it_will_run(capsys: Captured) -> None:
    assert run(["export", "kubernetes"]) == 0
    (config, *_) = yaml.safe_load_all(capsys.readouterr().out)
    assert "mode: kubernetes" in config["data"]["sidecar.yml"]
    assert run(["export", "compose"]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    environment = document["services"]["sidecar"]["environment"]
    assert environment == {"AUTOBOT_DEPLOYMENT_MODE": "docker_local"}
    assert run(["export", "kubernetes", "--mode", "distributed"]) == 0
    (config, *_) = yaml.safe_load_all(capsys.readouterr().out)
    assert "mode: distributed" in config["data"]["sidecar.yml"]


def test_a_pods_own_address_is_not_taken_over() -> None:
    there = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "A": "b"}
    assert surroundings("compose", there) == ({"A": "b"}, True)
    assert surroundings("istio", there)[0]["KUBERNETES_SERVICE_HOST"] != "10.0.0.1"


def test_what_the_environment_says_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("API_PORT", "9000")
    for kind in ("kubernetes", "compose"):
        assert run(["export", kind, "--config", "good.yml"]) == 0
        assert "Not in here: what API_PORT said where this was made" in capsys.readouterr().out.replace(
            "\n# ", " "
        )


def test_only_what_is_asked_for_is_checked(exported: Export) -> None:
    with pytest.raises(ExportError, match="--plain means nothing for compose"):
        exported("compose", GOOD, plain=True)
    with pytest.raises(ExportError, match="--plain means nothing for istio"):
        export("istio", Wishes(plain=True), lambda _: pytest.fail("it was loaded"))
