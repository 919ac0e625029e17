"""What one instance of Consul's answers means: its address, port, weight and zone, or why it is left out."""

from typing import Any

import pytest

from sidecar.model import Endpoint
from sidecar.registry.sources.consul_answers import Instances
from sidecar.registry.sources.source import Wanted

WANTED = Wanted("web", "web")
SERVICE = {"ID": "web-1", "Address": "10.0.0.1", "Port": 80}
NODE = {"Node": "n1", "Address": "10.9.9.9"}


def entry(service: dict[str, Any] | None = None, node: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"Service": SERVICE | (service or {}), "Node": NODE | (node or {}), "Checks": []}


def read(entries: list[Any], wanted: Wanted) -> tuple[tuple[Endpoint, ...], dict[str, str]]:
    instances = Instances(wanted)
    for entry in entries:
        instances.take(entry)
    assert instances.count == len(entries)
    return instances.endpoints(), instances.left_out


def one(service: dict[str, Any], wanted: Wanted = WANTED, node: dict[str, Any] | None = None) -> Endpoint:
    (endpoint,), left_out = read([entry(service, node)], wanted)
    assert left_out == {}
    return endpoint


def why_not(answer: Any, wanted: Wanted = WANTED) -> tuple[str, str]:
    endpoints, left_out = read([answer], wanted)
    assert endpoints == ()
    ((name, why),) = left_out.items()
    return name, why


def test_an_instance_is_where_its_service_says_else_where_its_node_is() -> None:
    assert one({}) == Endpoint("10.0.0.1", 80)
    assert one({"Address": ""}) == Endpoint("10.9.9.9", 80)
    assert one({"Address": "fd00::1"}).address == "[fd00::1]:80"
    assert one({"Address": "web-1.node.consul"}).host == "web-1.node.consul"


@pytest.mark.parametrize(
    ("service", "weight"),
    [
        ({}, 1),
        ({"Weights": {"Passing": 7, "Warning": 1}}, 7),
        ({"Weights": {"Passing": 7}, "Meta": {"weight": "3"}}, 3),
        ({"Weights": {"Passing": 7}, "Meta": {"weight": "heavy"}}, 7),
        ({"Weights": {"Passing": 65535}}, 256),
        ({"Meta": {"weight": "0"}}, 1),
        ({"Meta": {"weight": "9" * 5000}}, 1),
        ({"Meta": {"weight": "999999"}}, 256),
        ({"Meta": {"weight": 3}, "Weights": None}, 1),
        ({"Weights": {"Passing": True}}, 1),
        ({"Weights": {"Passing": -4}}, 1),
    ],
)
def test_a_weight_is_of_the_metadata_else_consuls_and_between_1_and_256(
    service: dict[str, Any], weight: int
) -> None:
    assert one(service).weight == weight


@pytest.mark.parametrize(
    ("service", "node", "zone"),
    [
        ({}, {}, ""),
        ({"Meta": {"zone": "a"}}, {"Meta": {"zone": "b"}}, "a"),
        ({"Locality": {"Zone": "c"}}, {"Meta": {"zone": "b"}}, "b"),
        ({"Locality": {"Region": "r", "Zone": "c"}}, {"Locality": {"Zone": "d"}}, "c"),
        ({"Locality": None}, {"Locality": {"Zone": "d"}}, "d"),
        ({"Meta": {"zone": "not a zone"}}, {}, ""),
        ({"Meta": {"zone": "x" * 64}}, {"Meta": {"zone": "b"}}, "b"),
    ],
)
def test_a_zone_is_the_services_else_the_nodes_and_a_word(
    service: dict[str, Any], node: dict[str, Any], zone: str
) -> None:
    assert one(service, node=node).zone == zone


def test_a_port_is_the_instances_own_the_upstreams_where_it_has_none_or_the_one_that_was_asked_for() -> None:
    assert one({"Port": 0}, Wanted("web", "web", default_port=8080)).port == 8080
    assert one({"Port": 81}, Wanted("web", "web", default_port=8080)).port == 81
    assert one({"Port": 81}, Wanted("web", "web", port="9090", default_port=8080)).port == 9090


@pytest.mark.parametrize("spelling", [("Address", "Port"), ("address", "port")])
def test_a_ports_name_is_that_of_a_tagged_address(spelling: tuple[str, str]) -> None:
    address, port = spelling
    tagged = {"lan": {address: "10.0.0.7", port: 8000}, "metrics": {address: "", port: 9102}}
    assert one({"TaggedAddresses": tagged}, Wanted("web", "web", port="lan")) == Endpoint("10.0.0.7", 8000)
    assert one({"TaggedAddresses": tagged}, Wanted("web", "web", port="metrics")) == Endpoint(
        "10.0.0.1", 9102
    )


@pytest.mark.parametrize(
    ("service", "wanted", "why"),
    [
        ({"Port": 0}, WANTED, "it has no port, and `port` names none"),
        ({"Port": True}, WANTED, "it has no port, and `port` names none"),
        ({"Port": "80"}, WANTED, "it has no port, and `port` names none"),
        ({"Port": 65536}, WANTED, "its port 65536 is none between 1 and 65535"),
        ({"Port": -1}, WANTED, "its port -1 is none between 1 and 65535"),
        ({}, Wanted("web", "web", port="123456789"), "its port 123456 is none between 1 and 65535"),
        (
            {},
            Wanted("web", "web", port="grpc"),
            "none of its TaggedAddresses is called `grpc` and has a port",
        ),
        (
            {"TaggedAddresses": {"grpc": {"Address": "10.0.0.7"}}},
            Wanted("web", "web", port="grpc"),
            "none of its",
        ),
        ({"Address": "http://10.0.0.1"}, WANTED, "its address 'http://10.0.0.1' is no host"),
        ({"Address": "a b"}, WANTED, "its address 'a b' is no host"),
        ({"Address": "", "ID": "web-1"}, WANTED, "neither the service nor its node has an address"),
    ],
)
def test_an_instance_that_cannot_be_reached_is_left_out(
    service: dict[str, Any], wanted: Wanted, why: str
) -> None:
    name, said = why_not(entry(service, {"Address": ""} if service.get("Address") == "" else {}), wanted)
    assert name == "`web-1` of node `n1`"
    assert said.startswith(why)


@pytest.mark.parametrize(
    "answer", [None, 7, "web", [], {}, {"Service": None}, {"Service": [1], "Node": "n1"}]
)
def test_what_is_no_instance_is_called_by_its_place(answer: Any) -> None:
    assert why_not(answer) == ("number 1", "it has no Service")


def test_one_that_cannot_be_used_takes_nobody_with_it() -> None:
    endpoints, left_out = read([entry({"Port": 0}), entry({"ID": "web-2"}), "x"], WANTED)
    assert endpoints == (Endpoint("10.0.0.1", 80),)
    assert list(left_out) == ["`web-1` of node `n1`", "number 3"]


def test_the_same_place_is_one_endpoint_and_the_order_of_the_answer_means_nothing() -> None:
    answer = [entry({"Address": f"10.0.0.{last}"}) for last in (3, 1, 2, 1)]
    endpoints, _ = read(answer, WANTED)
    assert [endpoint.host for endpoint in endpoints] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert read(answer[::-1], WANTED)[0] == endpoints
