"""config/kubernetes/: held against the API's schemas, and what the files say of each other agrees."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sidecar.config.load import load_settings
from sidecar.config.settings import DeploymentMode, Settings
from sidecar.version import __version__

FOLDER = Path(__file__).resolve().parents[3] / "config" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTS = {
    f"{file.stem}/{document['kind']}": document
    for file in FILES
    for document in yaml.safe_load_all(file.read_text())
}
CUSTOM = ("kustomization/Kustomization", "podmonitor/PodMonitor")  # of no schema of the API
OLD = "before-1.29"
PODS = {
    name: one["spec"]["template"] for name, one in DOCUMENTS.items() if name.endswith(("/Deployment", "/Job"))
}
NATIVE = [name for name in PODS if OLD not in name]
ORDINARY = [name for name in PODS if OLD in name]
# The first with native sidecar containers on by default, one between, the newest that is known.
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The configuration that the ConfigMap holds, as a pod reads it."""
    (tmp_path / "sidecar.yml").write_text(DOCUMENTS["configmap/ConfigMap"]["data"]["sidecar.yml"])
    return load_settings(tmp_path / "sidecar.yml", environ=CLUSTER)


def containers(pod: Mapping[str, Any]) -> dict[str, Any]:
    """All containers of a pod's template, by name."""
    spec = pod["spec"]
    return {one["name"]: one for one in [*spec.get("initContainers", ()), *spec["containers"]]}


def references(node: object, key: str) -> Iterator[Any]:
    """Every value of `key`, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from references(value, key)
    elif isinstance(node, list):
        for one in node:
            yield from references(one, key)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in CUSTOM])
def test_the_api_takes_it(name: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], version, strict=True)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if OLD in name])
def test_what_is_for_older_clusters_is_taken_there(name: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], "1.25", strict=True)


def test_a_mistake_would_be_seen() -> None:
    wrong = yaml.safe_load((FOLDER / "pdb.yaml").read_text())
    wrong["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_sidecar_is_up_before_the_application(name: str) -> None:
    (sidecar,) = PODS[name]["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["exec"]["command"][:2] == ["sidecar", "wait"]
    # It answers before the kubelet gives up on the command.
    assert int(sidecar["startupProbe"]["exec"]["command"][-1]) < sidecar["startupProbe"]["timeoutSeconds"]
    assert "lifecycle" not in sidecar


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_sidecar_is_the_first_container_and_holds_up_the_next(name: str) -> None:
    spec = PODS[name]["spec"]
    sidecar = spec["containers"][0]
    assert "initContainers" not in spec
    assert sidecar["name"] == "sidecar"
    assert sidecar["lifecycle"]["postStart"]["exec"]["command"][:2] == ["sidecar", "wait"]
    assert "preStop" not in sidecar["lifecycle"]


@pytest.mark.parametrize("name", PODS)
def test_the_pod_is_restricted(name: str) -> None:
    """As `restricted` of the Pod Security Standards, and no write access but to volumes."""
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for container in containers(PODS[name]).values():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"requests", "limits"} == set(container["resources"])


@pytest.mark.parametrize("name", PODS)
def test_only_the_sidecar_has_the_token_and_volumes_are_there(name: str) -> None:
    spec = PODS[name]["spec"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in containers(PODS[name]).values():
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= volumes
        assert ("sidecar-token" in mounted) == (container["name"] == "sidecar")
    assert spec["serviceAccountName"] == DOCUMENTS["rbac/ServiceAccount"]["metadata"]["name"]
    (configured,) = (one["configMap"]["name"] for one in spec["volumes"] if one["name"] == "sidecar-config")
    assert configured == DOCUMENTS["configmap/ConfigMap"]["metadata"]["name"]


@pytest.mark.parametrize("name", PODS)
def test_the_sidecar_is_the_same_everywhere(name: str, settings: Settings) -> None:
    sidecar = containers(PODS[name])["sidecar"]
    assert sidecar["image"] == f"sidecar:{__version__}"
    (port,) = sidecar["ports"]
    assert port == {"name": "metrics", "containerPort": settings.sidecar.metrics.port}
    assert settings.sidecar.metrics.host == "0.0.0.0"
    assert sidecar["args"] == ["run", "--config", "/etc/sidecar/sidecar.yml"]
    for probe, path in (("readinessProbe", "/ready"), ("livenessProbe", "/live")):
        if probe in sidecar:
            assert sidecar[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] > settings.sidecar.drain_timeout
    mounts = {mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert settings.sidecar.last_good is not None
    assert str(Path(settings.sidecar.last_good.file).parent) in mounts


@pytest.mark.parametrize("name", [name for name in PODS if name.endswith("/Deployment")])
def test_the_sidecar_of_a_deployment_is_asked(name: str) -> None:
    assert {"readinessProbe", "livenessProbe"} <= set(containers(PODS[name])["sidecar"])


def test_the_older_variant_is_the_same_pod() -> None:
    for new in NATIVE:
        old = new.replace("/", f"-{OLD}/")
        first, second = PODS[new], PODS[old]
        assert first["metadata"] == second["metadata"]
        assert first["spec"]["volumes"] == second["spec"]["volumes"]
        assert set(containers(first)) == set(containers(second))
        assert DOCUMENTS[new]["metadata"]["name"] == DOCUMENTS[old]["metadata"]["name"]


def test_a_job_of_older_clusters_lets_the_sidecar_go() -> None:
    job = DOCUMENTS[f"job-{OLD}/Job"]
    script = containers(job["spec"]["template"])["migrate"]["command"][-1]
    assert "/quitquitquit' EXIT" in script
    assert job["spec"]["activeDeadlineSeconds"]


def test_the_configuration_follows_the_services_slices(settings: Settings) -> None:
    assert settings.mode is DeploymentMode.KUBERNETES
    assert [registry.kind for registry in settings.registries] == ["kubernetes"]
    application = containers(PODS["deployment/Deployment"])["backend"]
    told = {one["name"]: one["value"] for one in application["env"]}
    for upstream in settings.upstreams:
        assert upstream.skipped is None
        assert upstream.source.use == ("kubernetes", "static")
        assert upstream.endpoints[0].host.split(".")[0] == upstream.source.service
        assert told[f"{upstream.name.upper().replace('-', '_')}_HOST"] == "localhost"


def test_the_role_is_the_least() -> None:
    rules = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]
    assert DOCUMENTS["rbac/Role"]["rules"] == rules
    binding = DOCUMENTS["rbac/RoleBinding"]
    assert binding["roleRef"]["name"] == DOCUMENTS["rbac/Role"]["metadata"]["name"]
    (subject,) = binding["subjects"]
    account = DOCUMENTS["rbac/ServiceAccount"]["metadata"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_selectors_find_the_pods() -> None:
    labels = PODS["deployment/Deployment"]["metadata"]["labels"]
    chosen = [
        DOCUMENTS["deployment/Deployment"]["spec"]["selector"]["matchLabels"],
        DOCUMENTS["service/Service"]["spec"]["selector"],
        DOCUMENTS["networkpolicy/NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        DOCUMENTS["pdb/PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        DOCUMENTS["podmonitor/PodMonitor"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in chosen:
        assert selector.items() <= labels.items()
    scaled = DOCUMENTS["hpa/HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == DOCUMENTS["deployment/Deployment"]["metadata"]["name"]
    (metric,) = scaled["metrics"]
    assert metric["containerResource"]["container"] in containers(PODS["deployment/Deployment"])


def test_ports_are_there(settings: Settings) -> None:
    ports = {
        port["name"]: port["containerPort"]
        for container in containers(PODS["deployment/Deployment"]).values()
        for port in container["ports"]
    }
    policy = DOCUMENTS["networkpolicy/NetworkPolicy"]["spec"]
    (asked,) = (port["port"] for port in policy["ingress"][0]["ports"])
    assert asked in {port["name"] for port in containers(PODS["deployment/Deployment"])["backend"]["ports"]}
    # Those of an init container are known by name to some networks alone (Kubernetes' issue 125285).
    assert policy["ingress"][1]["ports"] == [{"protocol": "TCP", "port": ports["metrics"]}]
    assert DOCUMENTS["service/Service"]["spec"]["ports"][0]["targetPort"] in ports
    (scraped,) = DOCUMENTS["podmonitor/PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert scraped["port"] == "metrics"
    annotations = PODS["deployment/Deployment"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    # Sidecars go to pods, so that these are the pods' ports; DNS and the API server beside.
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert out == {endpoint.port for one in settings.upstreams for endpoint in one.endpoints} | {
        53,
        443,
        6443,
    }


def test_the_pod_monitor_makes_the_job_that_alerts_ask_for() -> None:
    (scraped,) = DOCUMENTS["podmonitor/PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "sidecar"} in scraped["relabelings"]


def test_all_is_in_one_namespace() -> None:
    namespace = DOCUMENTS["namespace/Namespace"]["metadata"]["name"]
    for name, document in DOCUMENTS.items():
        if name not in ("namespace/Namespace", "kustomization/Kustomization"):
            assert document["metadata"]["namespace"] == namespace, name


def test_the_kustomization_names_files_and_images_that_are_there() -> None:
    kustomization = DOCUMENTS["kustomization/Kustomization"]
    assert set(kustomization["resources"]) <= {file.name for file in FILES}
    images = {f"{one['name']}:{one['newTag']}" for one in kustomization["images"]}
    assert images == {image for pod in PODS.values() for image in references(pod, "image")}
