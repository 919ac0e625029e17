"""Kubernetes and Compose manifests: the API's schemas take them, and the sidecar takes the file that is in them."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.exports import Export, exporter
from support.schemas import check_custom

from sidecar.config.load import load_settings
from sidecar.config.settings import DeploymentMode, Settings
from sidecar.errors import ExportError
from sidecar.export.command import Wishes, export
from sidecar.export.kubernetes import MAX_TEXT, named_files
from sidecar.host_limits import HostLimits, host_notes

PLAIN = """\
# what a reader has written
services:
  api: {host: api-service.shop.svc.cluster.local, port: 8001}   # and here
sidecar:
  metrics: 0.0.0.0:9902
  drain_timeout: 20.5
"""
REGISTRY = """\
external_registry: {type: kubernetes}
services:
  orders: {port: 8001}
  far: {port: 8002, source: {use: kubernetes, namespace: ml}}
  also: {port: 8003, source: {use: kubernetes, service: also.dl}}
sidecar: {metrics: 0.0.0.0:9902}
"""
CONFIG = Path(__file__).resolve().parents[3] / "config"
VERSIONS = ("1.29", "1.33")  # native sidecars are on by default from the first on


def by_kind(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The documents, which the API takes; of a kind that there are several of the last."""
    for document in documents:
        if document["kind"] == "PodMonitor":
            check_custom(document)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    return {document["kind"]: document for document in documents}


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = by_kind(documents)["Deployment"]["spec"]["template"]["spec"]
    return found


def again(text: str, directory: Path, mode: DeploymentMode = DeploymentMode.KUBERNETES) -> Settings:
    file = directory / "again.yml"
    file.write_text(text)
    return load_settings(file, environ={}, mode=mode, container=True)


# Kubernetes


def test_a_pod(exported: Export) -> None:
    _, documents = exported("kubernetes", PLAIN)
    assert [document["kind"] for document in documents] == ["ConfigMap", "Deployment"]
    pod = pod_of(documents)
    (sidecar,) = pod["initContainers"]
    assert pod["containers"] == [{"name": "application", "image": "registry.example/application:1"}]
    assert pod["terminationGracePeriodSeconds"] == 31
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert "securityContext" not in pod
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["args"] == ["run", "--config", "/etc/sidecar/sidecar.yml"]
    assert sidecar["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert sidecar["startupProbe"]["exec"] == {"command": ["sidecar", "wait", "--timeout", "1"]}
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "metrics"}
    assert sidecar["livenessProbe"]["httpGet"] == {"path": "/live", "port": "metrics"}
    assert sidecar["ports"] == [{"name": "metrics", "containerPort": 9902}]
    assert "lifecycle" not in sidecar
    assert [mount["name"] for mount in sidecar["volumeMounts"]] == ["configuration"]


@pytest.mark.parametrize("text", [PLAIN, REGISTRY])
def test_the_file_in_the_config_map_says_the_same(exported: Export, tmp_path: Path, text: str) -> None:
    _, documents = exported("kubernetes", text)
    inside = by_kind(documents)["ConfigMap"]["data"]["sidecar.yml"]
    assert inside == text
    before, after = again(text, tmp_path), again(inside, tmp_path)
    assert after == before


def test_a_byte_order_mark_stays_outside(exported: Export) -> None:
    _, documents = exported("kubernetes", "\ufeff" + PLAIN)
    assert by_kind(documents)["ConfigMap"]["data"]["sidecar.yml"] == PLAIN


@pytest.mark.parametrize("mode", [DeploymentMode.KUBERNETES, DeploymentMode.DOCKER_LOCAL])
def test_without_a_file_it_names_the_mode(tmp_path: Path, mode: DeploymentMode) -> None:
    _, documents = exporter(tmp_path, mode)("kubernetes")
    inside = by_kind(documents)["ConfigMap"]["data"]["sidecar.yml"]
    found = again(inside, tmp_path, mode)
    alone = load_settings(environ={}, mode=mode, container=True, directory=tmp_path)
    assert found.upstreams == alone.upstreams
    assert (found.mode, found.domain) == (alone.mode, alone.domain)


def test_names_and_images(exported: Export) -> None:
    _, documents = exported(
        "kubernetes",
        REGISTRY,
        name="shop",
        namespace="prod",
        image="r.example/sidecar:2",
        application_image="r.example/shop@sha256:1",
        pod_monitor=True,
    )
    assert {document["metadata"]["namespace"] for document in documents} == {"prod", "ml", "dl"}
    found = by_kind(documents)
    pod = pod_of(documents)
    assert pod["initContainers"][0]["image"] == "r.example/sidecar:2"
    assert pod["containers"][0]["image"] == "r.example/shop@sha256:1"
    assert found["ConfigMap"]["metadata"]["name"] == pod["volumes"][0]["configMap"]["name"] == "shop-sidecar"
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    monitor = found["PodMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == labels
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == pod["initContainers"][0]["ports"][0]["name"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "sidecar"}]


def test_a_registry_is_asked_with_no_more_than_it_takes(exported: Export) -> None:
    text, documents = exported("kubernetes", REGISTRY)
    kinds = [document["kind"] for document in documents]
    assert kinds == ["ConfigMap", "ServiceAccount", *["Role", "RoleBinding"] * 3, "Deployment"]
    roles = [document for document in documents if document["kind"] == "Role"]
    assert [role["metadata"].get("namespace") for role in roles] == [None, "ml", "dl"]
    for role in roles:
        assert role["rules"] == [
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
        ]
    found = by_kind(documents)
    pod = pod_of(documents)
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    (sidecar,) = pod["initContainers"]
    mount = {
        "name": "token",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    assert mount in sidecar["volumeMounts"]
    assert "volumeMounts" not in pod["containers"][0]
    shipped = yaml.safe_load((CONFIG / "kubernetes" / "deployment.yaml").read_text())
    (wanted,) = (
        one["projected"]["sources"]
        for one in shipped["spec"]["template"]["spec"]["volumes"]
        if one["name"] == "sidecar-token"
    )
    assert {"name": "token", "projected": {"sources": wanted}} in pod["volumes"]
    assert found["RoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": "application-sidecar", "namespace": "default"}
    ]
    assert "--namespace says another" in text


@pytest.mark.parametrize(
    "registry", ["{type: kubernetes, kubeconfig: k.yml}", "{type: consul, host: consul.example}"]
)
def test_another_cluster_or_registry_needs_no_account(exported: Export, registry: str) -> None:
    _, documents = exported("kubernetes", f"external_registry: {registry}\nservices: {{a: {{port: 1}}}}\n")
    assert [document["kind"] for document in documents] == ["ConfigMap", "Deployment"]
    assert "serviceAccountName" not in pod_of(documents)


def test_what_is_written_has_a_place(exported: Export) -> None:
    _, documents = exported("kubernetes", REGISTRY)
    pod = pod_of(documents)
    (sidecar,) = pod["initContainers"]
    assert sidecar["env"] == [{"name": "STATE_DIRECTORY", "value": "/var/lib/sidecar"}]
    assert {"name": "state", "mountPath": "/var/lib/sidecar"} in sidecar["volumeMounts"]
    assert {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]
    settings = load_settings(
        environ={"STATE_DIRECTORY": "/var/lib/sidecar"}, mode=DeploymentMode.KUBERNETES, container=True
    )
    assert settings.sidecar.last_good.file == "/var/lib/sidecar/last-good.json"


def test_metrics_that_only_the_pod_reaches(exported: Export) -> None:
    text, documents = exported(
        "kubernetes", "services: {a: {host: b, port: 1}}\nsidecar: {metrics: 127.0.0.1:9999}\n"
    )
    (sidecar,) = pod_of(documents)["initContainers"]
    place = ["--metrics", "127.0.0.1:9999"]
    assert sidecar["startupProbe"]["exec"]["command"] == ["sidecar", "wait", "--timeout", "1", *place]
    assert sidecar["readinessProbe"]["exec"]["command"] == ["sidecar", "status", "--ready", *place]
    assert "livenessProbe" not in sidecar
    assert "ports" not in sidecar
    assert "With `metrics: 0.0.0.0:9999` both ask it." in text.replace("\n# ", " ")
    with pytest.raises(ExportError, match=r"write for example `metrics: 0\.0\.0\.0:9902`"):
        exported("kubernetes", "services: {a: {host: b, port: 1}}\n", pod_monitor=True)


@pytest.mark.parametrize(
    ("metrics", "asked"),
    [
        ("0.0.0.0:9902", None),
        ("127.0.0.1:9902", None),
        ("0.0.0.0:99", "127.0.0.1:99"),
        ("'[::]:9902'", "[::1]:9902"),
        ("'[::1]:9902'", "[::1]:9902"),
        ("10.0.0.7:9902", "10.0.0.7:9902"),
    ],
)
def test_probes_ask_where_metrics_are(exported: Export, metrics: str, asked: str | None) -> None:
    text = f"services: {{a: {{host: b, port: 1}}}}\nsidecar: {{metrics: {metrics}}}\n"
    (sidecar,) = pod_of(exported("kubernetes", text)[1])["initContainers"]
    more = [] if asked is None else ["--metrics", asked]
    assert sidecar["startupProbe"]["exec"]["command"] == ["sidecar", "wait", "--timeout", "1", *more]
    _, (compose,) = exported("compose", text)
    assert compose["services"]["sidecar"]["healthcheck"]["test"][-1] == (asked or "127.0.0.1:9902")


@pytest.mark.parametrize("kind", ["kubernetes", "compose"])
def test_metrics_at_any_port_cannot_be_asked(exported: Export, kind: str) -> None:
    text = "services: {a: {host: b, port: 1}}\nsidecar: {metrics: '127.0.0.1:0'}\n"
    with pytest.raises(ExportError, match=r"sidecar\.metrics has port 0, .*; name a port"):
        exported(kind, text)


def test_last_good_that_the_file_names_has_its_place(exported: Export) -> None:
    named = REGISTRY.replace("9902}", "9902, last_good: /var/lib/sidecar/last-good.json}")
    text, documents = exported("kubernetes", named)
    pod = pod_of(documents)
    (sidecar,) = pod["initContainers"]
    assert "env" not in sidecar
    assert {"name": "state", "mountPath": "/var/lib/sidecar"} in sidecar["volumeMounts"]
    assert {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]
    _, (compose,) = exported("compose", named)
    assert compose["volumes"] == {"sidecar-state": {}}
    assert "environment" not in compose["services"]["sidecar"]
    text, documents = exported("kubernetes", named.replace("/var/lib/sidecar", "/data"))
    (sidecar,) = pod_of(documents)["initContainers"]
    assert "state" not in {mount["name"] for mount in sidecar["volumeMounts"]}
    assert "may write to, for /data/last-good.json;" in text.replace("\n# ", " ")


@pytest.mark.parametrize("kind", ["kubernetes", "compose"])
def test_what_a_read_only_root_has_no_place_for_is_named(exported: Export, kind: str) -> None:
    text = """
services: {app: {host: "unix:/run/app/a.sock", port: 8000}, near: {host: "unix:@near", port: 8001}}
sidecar: {sockets: {/run/sidecar/app.sock: app, "@near2": near}, access_log: /var/log/a.jsonl}
"""
    said = exported(kind, text)[0].replace("\n# ", " ")
    assert "for /var/log/a.jsonl, /run/sidecar/app.sock and /run/app/a.sock; that of a socket in" in said
    assert "read-only: mount" not in exported(kind, PLAIN.replace("9902", "9902\n  access_log: stdout"))[0]


@pytest.mark.parametrize("kind", ["kubernetes", "compose"])
def test_a_mode_that_was_asked_for_is_asked_for_there(tmp_path: Path, kind: str) -> None:
    def command(document: dict[str, Any]) -> list[str]:
        if kind == "compose":
            return document["services"]["sidecar"]["command"]
        return document["spec"]["template"]["spec"]["initContainers"][0]["args"]

    file = tmp_path / "sidecar.yml"
    file.write_text(PLAIN)

    plain = ["run", "--config", "/etc/sidecar/sidecar.yml"]
    asked: tuple[tuple[DeploymentMode | None, dict[str, str], list[str]], ...] = (
        (DeploymentMode.DISTRIBUTED, {}, [*plain, "--mode", "distributed"]),
        (None, {"AUTOBOT_DEPLOYMENT_MODE": "local"}, [*plain, "--mode", "local"]),
        (None, {}, plain),
    )
    for mode, environ, words in asked:
        found = export(
            kind,
            Wishes(config=str(file)),
            lambda config, mode=mode, environ=environ: load_settings(
                config, environ=environ, mode=mode, container=True
            ),
        )
        *_, document = yaml.safe_load_all(found)
        assert command(document) == words
        assert ("The mode is local, as AUTOBOT_DEPLOYMENT_MODE" in found) == bool(environ)


@pytest.mark.parametrize(("workers", "memory"), [(1, ("64Mi", "256Mi")), (8, ("512Mi", "2048Mi"))])
def test_memory_is_enough_for_every_worker(
    exported: Export, tmp_path: Path, workers: int, memory: tuple[str, str]
) -> None:
    text = f"services: {{a: {{host: b, port: 1}}}}\nsidecar: {{workers: {workers}}}\n"
    (sidecar,) = pod_of(exported("kubernetes", text)[1])["initContainers"]
    resources = sidecar["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == memory
    settings = again(text, tmp_path)
    assert list(host_notes(settings, HostLimits(memory=int(memory[1].removesuffix("Mi")) << 20))) == []


@pytest.mark.parametrize(
    ("more", "lowest"),
    [("", "80"), ("sidecar: {metrics: 0.0.0.0:79}\n", "79"), ("sidecar: {admin: 127.0.0.1:7}\n", "7")],
)
def test_low_ports(exported: Export, more: str, lowest: str) -> None:
    text = "services: {a: {host: b, port: 80}, c: {host: d, port: 443}, e: {host: f, port: 1024}}\n"
    _, documents = exported("kubernetes", text + more)
    assert pod_of(documents)["securityContext"] == {
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": lowest}]
    }


def test_files_that_it_names_are_named(exported: Export, tmp_path: Path) -> None:
    text = """
external_registry: [{type: consul, host: c.example, token_file: /run/t, tls: {ca: ca.pem}}, {type: file, path: e.yml}]
services: {redis: {host: a, port: 1, scheme: redis, health_check: {password_file: p.txt}}}
sidecar: {admin_token_file: admin.token}
"""
    said, _ = exported("kubernetes", text)
    where = tmp_path / "sidecar.yml"
    named = ["ca.pem", "/run/t", "e.yml", "p.txt", "admin.token"]
    assert named_files(load_settings(where, environ={}, container=True)) == named
    assert f"names {', '.join(named[:-1])} and admin.token: mount" in said.replace("\n# ", " ")


def test_what_a_config_map_cannot_hold(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="larger than a ConfigMap may be"):
        exported("kubernetes", PLAIN + "# " + "x" * MAX_TEXT)


# Compose


def test_a_service_of_compose(exported: Export, tmp_path: Path) -> None:
    text, documents = exported("compose", PLAIN, service="backend", image="r.example/sidecar:2")
    (document,) = documents
    assert set(document) == {"services"}
    sidecar = document["services"]["sidecar"]
    assert sidecar == {
        "image": "r.example/sidecar:2",
        "network_mode": "service:backend",
        "depends_on": {"backend": {"condition": "service_started", "restart": True}},
        "restart": "unless-stopped",
        "user": "10001:10001",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "31s",
        "command": ["run", "--config", "/etc/sidecar/sidecar.yml"],
        "volumes": [
            {
                "type": "bind",
                "source": str(tmp_path / "sidecar.yml"),
                "target": "/etc/sidecar/sidecar.yml",
                "read_only": True,
            }
        ],
        "healthcheck": {
            "test": ["CMD", "sidecar", "status", "--ready", "--metrics", "127.0.0.1:9902"],
            "interval": "10s",
            "timeout": "5s",
            "start_period": "30s",
        },
    }
    assert "sidecar.metrics is open to the networks of `backend`." in text
    assert "`ports` and `networks` of `backend` to the sidecar" in text.replace("\n# ", " ")


def test_what_a_registry_says_is_kept_in_a_volume(exported: Export) -> None:
    text, (document,) = exported("compose", REGISTRY)
    assert document["volumes"] == {"sidecar-state": {}}
    sidecar = document["services"]["sidecar"]
    assert sidecar["environment"] == {"STATE_DIRECTORY": "/var/lib/sidecar"}
    assert sidecar["volumes"][-1] == {
        "type": "volume",
        "source": "sidecar-state",
        "target": "/var/lib/sidecar",
    }
    assert "writable for the user 10001" in text


def test_compose_without_a_file(tmp_path: Path) -> None:
    _, (document,) = exporter(tmp_path, DeploymentMode.DOCKER_LOCAL)("compose")
    sidecar = document["services"]["sidecar"]
    assert sidecar["environment"] == {"AUTOBOT_DEPLOYMENT_MODE": "docker_local"}
    assert "command" not in sidecar
    assert "volumes" not in sidecar


def test_a_relative_file_is_one_beside_the_compose_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.yml").write_text(PLAIN)
    found, (document,) = exporter(tmp_path)("compose", config="here.yml")
    assert document["services"]["sidecar"]["volumes"][0]["source"] == "./here.yml"
    assert yaml.safe_load(found) == document
