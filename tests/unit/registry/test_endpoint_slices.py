"""From EndpointSlices to endpoints: which of them, at which port, in which zone, and what is left out and said."""

from typing import Any

import pytest

from sidecar.model import Endpoint
from sidecar.registry.sources.endpoint_slices import SliceSet, endpoints_of
from sidecar.registry.sources.slice_objects import Slice, read_slice, slice_name
from sidecar.registry.sources.source import MAX_ENDPOINTS, Wanted

API = Wanted("api", "api")
HTTP = {"name": "http", "port": 8080, "protocol": "TCP"}
METRICS = {"name": "metrics", "port": 9090, "protocol": "TCP"}
READY = {"ready": True, "serving": True, "terminating": False}
DRAINING = {"ready": False, "serving": True, "terminating": True}
DOWN = {"ready": False, "serving": False, "terminating": False}


def endpoint(address: str, conditions: Any = READY, **more: Any) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions, **more}


def slice_of(
    *endpoints: Any, ports: Any = (HTTP,), name: str = "api-1", service: str = "api", family: str = "IPv4"
) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "ports": None if ports is None else list(ports),
        "endpoints": list(endpoints),
    }


def read(*items: dict[str, Any]) -> list[Slice]:
    """Slices of which everything can be used."""
    found = []
    for item in items:
        one, problems = read_slice(item)
        assert one is not None
        assert problems == []
        found.append(one)
    return found


def used(*items: dict[str, Any], wanted: Wanted = API) -> list[Endpoint]:
    """Endpoints of slices of which nothing is left out."""
    endpoints, problems = endpoints_of(read(*items), wanted)
    assert problems == []
    return list(endpoints)


def addresses(*items: dict[str, Any], wanted: Wanted = API) -> list[str]:
    return [one.address for one in used(*items, wanted=wanted)]


# Which endpoints


def test_a_service_without_slices_has_no_endpoints() -> None:
    assert endpoints_of([], API) == ((), [])


def test_ready_endpoints_are_used() -> None:
    found = used(slice_of(endpoint("10.0.0.2", zone="a"), endpoint("10.0.0.1"), endpoint("10.0.0.3", DOWN)))
    assert found == [Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080, 1, "a")]


@pytest.mark.parametrize("conditions", [None, {}, {"ready": None}, {"serving": None, "ready": True}])
def test_unknown_counts_as_ready(conditions: Any) -> None:
    assert addresses(slice_of(endpoint("10.0.0.1", conditions), endpoint("10.0.0.2", DOWN))) == [
        "10.0.0.1:8080"
    ]


def test_an_endpoint_that_terminates_is_not_used_while_one_is_ready() -> None:
    assert addresses(slice_of(endpoint("10.0.0.1", DRAINING), endpoint("10.0.0.2"))) == ["10.0.0.2:8080"]


def test_without_a_ready_endpoint_those_that_terminate_and_serve_are_used() -> None:
    gone = {"ready": False, "serving": False, "terminating": True}
    # Serving and not terminating, yet not ready: no rule of kube-proxy's uses it.
    odd = {"ready": False, "serving": True, "terminating": False}
    items = [endpoint("10.0.0.1", DRAINING), endpoint("10.0.0.2", gone), endpoint("10.0.0.3", odd)]
    assert addresses(slice_of(*items)) == ["10.0.0.1:8080"]


def test_readiness_is_looked_for_in_all_slices_before_a_terminating_endpoint_is_used() -> None:
    draining, ready = slice_of(endpoint("10.0.0.1", DRAINING)), slice_of(endpoint("10.0.0.2"), name="api-2")
    assert addresses(draining, ready) == addresses(ready, draining) == ["10.0.0.2:8080"]


def test_an_endpoint_that_terminates_and_does_not_say_whether_it_serves_goes_by_ready() -> None:
    assert addresses(slice_of(endpoint("10.0.0.1", {"ready": False, "terminating": True}))) == []


def test_what_is_published_although_not_ready_is_ready() -> None:
    """A Service with publishNotReadyAddresses has `ready` true for all, also for what terminates."""
    published = {"ready": True, "serving": False, "terminating": True}
    assert addresses(slice_of(endpoint("10.0.0.1", published))) == ["10.0.0.1:8080"]


def test_slices_of_one_service_are_joined() -> None:
    one, two = slice_of(endpoint("10.0.0.2")), slice_of(endpoint("10.0.0.1"), name="api-2")
    assert addresses(one, two) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_an_address_in_two_slices_counts_once_and_the_ready_one_is_believed() -> None:
    ready, down = slice_of(endpoint("10.0.0.1")), slice_of(endpoint("10.0.0.1", DOWN), name="api-2")
    assert addresses(ready, down) == addresses(down, ready) == ["10.0.0.1:8080"]


def test_an_address_that_drains_in_one_slice_and_is_down_in_another_drains() -> None:
    drains, down = (
        slice_of(endpoint("10.0.0.1", DRAINING)),
        slice_of(endpoint("10.0.0.1", DOWN), name="api-2"),
    )
    assert addresses(drains, down) == addresses(down, drains) == ["10.0.0.1:8080"]


def test_of_two_that_are_ready_the_newer_is_believed() -> None:
    old, new = (
        slice_of(endpoint("10.0.0.1", zone="old")),
        slice_of(endpoint("10.0.0.1", zone="new"), name="b"),
    )
    assert [one.zone for one in used(old, new)] == ["new"]
    assert [one.zone for one in used(new, old)] == ["old"]


def test_an_endpoint_has_one_address_of_several() -> None:
    """They are all the same pod."""
    assert addresses(slice_of({"addresses": ["10.0.0.1", "10.0.0.9"]})) == ["10.0.0.1:8080"]


def test_ipv6_has_one_spelling() -> None:
    long, short = endpoint("FD00:0:0::1"), endpoint("fd00::1")
    assert addresses(slice_of(long, short, family="IPv6")) == ["[fd00::1]:8080"]


def test_names_are_endpoints_too() -> None:
    assert addresses(slice_of(endpoint("DB.example"), family="FQDN")) == ["db.example:8080"]


def test_a_pod_with_an_address_of_each_family_counts_once() -> None:
    pods = [{"kind": "Pod", "name": "api-x", "uid": uid} for uid in ("1", "2")]
    four = slice_of(endpoint("10.0.0.1", targetRef=pods[0]))
    six = slice_of(
        endpoint("fd00::1", targetRef=pods[0]),
        endpoint("fd00::2", targetRef=pods[1]),
        endpoint("fd00::3"),
        name="api-6",
        family="IPv6",
    )
    assert addresses(four, six) == ["10.0.0.1:8080", "[fd00::2]:8080", "[fd00::3]:8080"]
    unnamed = slice_of(endpoint("10.0.0.3"), name="api-4")  # whose pod it is nobody says
    assert "[fd00::3]:8080" in addresses(unnamed, six)


def test_endpoints_are_in_the_order_of_their_addresses_whatever_that_of_the_slices() -> None:
    one, two = slice_of(endpoint("10.0.0.3"), endpoint("10.0.0.1")), slice_of(endpoint("10.0.0.2"), name="b")
    assert used(one, two) == used(two, one)


def test_more_endpoints_than_an_upstream_may_have_are_left_out_and_said() -> None:
    many = [endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(MAX_ENDPOINTS + 2)]
    slices = read(slice_of(*many[:4000]), slice_of(*many[4000:], name="api-2"))
    endpoints, problems = endpoints_of(slices, API)
    assert len(endpoints) == MAX_ENDPOINTS
    assert problems == ["upstream `api`: service `api`: all but the first 5000 endpoints are left out"]


# Which port


def with_ports(*ports: Any, port: str = "", default_port: int = 0) -> tuple[list[int], list[str]]:
    wanted = Wanted("api", "api", port, default_port)
    endpoints, problems = endpoints_of(read(slice_of(endpoint("10.0.0.1"), ports=ports)), wanted)
    return [one.port for one in endpoints], problems


def test_the_only_port_is_taken_whatever_the_default() -> None:
    assert with_ports({"name": "", "port": 7000}, default_port=80) == ([7000], [])
    assert with_ports({"name": None, "port": 7000, "protocol": None}) == ([7000], [])


def test_a_port_is_chosen_by_name() -> None:
    assert with_ports(HTTP, METRICS, port="metrics") == ([9090], [])


def test_a_name_that_no_port_has_leaves_all_out_and_says_which_there_are() -> None:
    assert with_ports(HTTP, METRICS, port="grpc") == (
        [],
        ["upstream `api`: service `api` has no port called `grpc`: it has `http` 8080, `metrics` 9090"],
    )


def test_a_port_is_chosen_by_number() -> None:
    assert with_ports(HTTP, METRICS, port="9090", default_port=8080) == ([9090], [])


def test_a_number_that_no_port_has_leaves_all_out_and_says_which_there_are() -> None:
    assert with_ports({"port": 8080}, port="80") == (
        [],
        ["upstream `api`: service `api` has no port 80: it has 8080"],
    )


def test_of_several_ports_the_default_one_is_preferred_then_http() -> None:
    assert with_ports(HTTP, METRICS, default_port=9090) == ([9090], [])
    assert with_ports(METRICS, HTTP, default_port=80) == ([8080], [])
    assert with_ports(METRICS, HTTP) == ([8080], [])


def test_several_ports_and_none_chosen_leaves_all_out_and_names_them() -> None:
    grpc = {"name": "grpc", "port": 50051}
    assert with_ports(METRICS, grpc, default_port=80) == (
        [],
        [
            (
                "upstream `api`: service `api` has several ports and is left out: `metrics` 9090, `grpc` 50051;"
                " name one under `port`"
            )
        ],
    )


def test_what_two_slices_lack_is_said_once() -> None:
    slices = read(slice_of(endpoint("10.0.0.1")), slice_of(endpoint("10.0.0.2"), name="api-2"))
    assert len(endpoints_of(slices, Wanted("api", "api", "grpc"))[1]) == 1


def test_a_message_names_a_few_of_many_ports() -> None:
    _, problems = with_ports(*({"name": f"p{n}", "port": 1000 + n} for n in range(100)))
    assert "`p9` 1009 and others; name" in problems[0]
    assert "p10`" not in problems[0]


def test_several_names_of_one_number_are_one_port() -> None:
    assert with_ports(HTTP, {"name": "grpc", "port": 8080}) == ([8080], [])


def test_other_protocols_than_tcp_are_skipped() -> None:
    udp = {"name": "dns", "port": 53, "protocol": "UDP"}
    assert with_ports(udp, {"name": "dns-tcp", "port": 53}) == ([53], [])
    assert with_ports(udp, METRICS) == ([9090], [])
    assert with_ports(udp, METRICS, port="dns")[0] == []
    assert with_ports(udp) == ([], ["upstream `api`: service `api` has no TCP port and is left out"])


def test_a_port_without_a_number_is_any_and_the_configuration_says_which() -> None:
    anything = {"name": "any", "port": None}
    assert with_ports(anything, default_port=8000) == ([8000], [])
    assert with_ports(anything, port="any", default_port=8000) == ([8000], [])
    assert with_ports(anything, port="9000", default_port=8000) == ([9000], [])
    assert with_ports(anything) == (
        [],
        [
            "upstream `api`: service `api` leaves its port open and is left out; name a number under `port`",
        ],
    )
    assert with_ports(anything, METRICS, port="metrics") == ([9090], [])


def test_a_service_without_ports_has_the_configured_one() -> None:
    assert with_ports(default_port=8000) == ([8000], [])
    assert with_ports(port="9000", default_port=8000) == ([9000], [])
    assert with_ports()[1] == [
        "upstream `api`: service `api` defines no port and is left out; name one under `port`"
    ]
    assert "has no port called `http`: it defines none" in with_ports(port="http", default_port=8000)[1][0]


@pytest.mark.parametrize("ports", [None, ()])
def test_pods_that_lack_a_port_of_their_service_are_not_used(ports: Any) -> None:
    lacking = slice_of(endpoint("10.0.0.9"), ports=ports, name="api-2")
    wanted = Wanted("api", "api", default_port=8080)
    assert addresses(slice_of(endpoint("10.0.0.1")), lacking, wanted=wanted) == ["10.0.0.1:8080"]


def test_a_port_called_the_same_may_have_another_number_in_another_slice() -> None:
    """`targetPort: http` is looked up in each pod."""
    old = slice_of(endpoint("10.0.0.1"))
    new = slice_of(endpoint("10.0.0.2"), ports=[{"name": "http", "port": 8081}], name="api-2")
    assert addresses(old, new, wanted=Wanted("api", "api", "http")) == ["10.0.0.1:8080", "10.0.0.2:8081"]
    assert addresses(old, new) == ["10.0.0.1:8080", "10.0.0.2:8081"]


def test_a_slice_without_endpoints_gives_no_cause_for_a_warning() -> None:
    assert used(slice_of(ports=None), slice_of(ports=[METRICS, {"name": "grpc", "port": 1}], name="b")) == []


# Zones


def zones(*endpoints: Any) -> list[str]:
    return [one.zone for one in used(slice_of(*endpoints))]


def hints(*names: str) -> dict[str, Any]:
    return {"forZones": [{"name": name} for name in names]}


def test_an_endpoint_counts_as_being_in_the_zone_that_it_is_to_serve() -> None:
    assert zones(
        endpoint("10.0.0.1", zone="a", hints=hints("b")), endpoint("10.0.0.2", zone="a", hints=hints("a"))
    ) == ["b", "a"]


def test_an_endpoint_that_serves_several_zones_is_where_it_is() -> None:
    assert zones(endpoint("10.0.0.1", zone="a", hints=hints("b", "c"))) == ["a"]


def test_hints_are_not_followed_until_every_endpoint_has_some() -> None:
    assert zones(endpoint("10.0.0.1", zone="a", hints=hints("b")), endpoint("10.0.0.2", zone="c")) == [
        "a",
        "c",
    ]
    assert zones(endpoint("10.0.0.1", zone="a", hints=hints("b")), endpoint("10.0.0.2", DOWN, zone="c")) == [
        "b"
    ]


@pytest.mark.parametrize("zone", [None, "", "no zone", "z" * 64, 7, ["a"], "a\n"])
def test_a_zone_that_is_none_is_no_zone(zone: Any) -> None:
    assert zones(endpoint("10.0.0.1", zone=zone)) == [""]
    assert zones(endpoint("10.0.0.1", zone="a", hints={"forZones": [{"name": zone}]})) == ["a"]


# What cannot be used


@pytest.mark.parametrize("item", [None, 7, [], {}, {"metadata": {}}, {"metadata": {"name": ["x"]}}])
def test_an_object_without_a_name_is_left_out(item: Any) -> None:
    assert read_slice(item) == (None, ["an EndpointSlice without a name is left out"])
    assert slice_name(item) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"addressType": "IPX"}, "its addressType `IPX` is none of IPv4, IPv6, FQDN"),
        ({"addressType": None}, "its addressType `None` is none of IPv4, IPv6, FQDN"),
        ({"metadata": {"name": "api-1"}}, "it has no label kubernetes.io/service-name"),
        ({"metadata": {"name": "api-1", "labels": []}}, "it has no label kubernetes.io/service-name"),
        ({"metadata": {"name": "api-1", "labels": [1]}}, "its metadata.labels is no object"),
        ({"ports": {}}, "its ports is no list"),
        ({"endpoints": "10.0.0.1"}, "its endpoints is no list"),
    ],
)
def test_a_malformed_slice_is_left_out(change: dict[str, Any], said: str) -> None:
    assert read_slice(slice_of(endpoint("10.0.0.1")) | change) == (
        None,
        [f"an EndpointSlice is left out: EndpointSlice `api-1`: {said}"],
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (7, "its description is no object"),
        ({}, "it has no address"),
        ({"addresses": []}, "it has no address"),
        ({"addresses": "10.0.0.9"}, "its addresses is no list"),
        ({"addresses": [9]}, "its address `9` is no IPv4 address"),
        ({"addresses": ["fd00::1"]}, "its address `fd00::1` is no IPv4 address"),
        ({"addresses": ["10.0.0.1\nX: y"]}, "its address `10.0.0.1\\nX: y` is no IPv4 address"),
        (endpoint("10.0.0.9", {"ready": "yes"}), "its condition ready is neither true nor false"),
        (endpoint("10.0.0.9", [1]), "its conditions is no object"),
        (endpoint("10.0.0.9", hints=[1]), "its hints is no object"),
        (endpoint("10.0.0.9", hints={"forZones": ["a"]}), "its hint is no object"),
    ],
)
def test_a_malformed_endpoint_takes_nothing_else_with_it(bad: Any, said: str) -> None:
    one, problems = read_slice(slice_of(bad, endpoint("10.0.0.1")))
    assert one is not None
    assert [each.host for each in one.endpoints] == ["10.0.0.1"]
    assert problems == [f"EndpointSlice `api-1`: an endpoint is left out: {said}"]


@pytest.mark.parametrize(
    ("family", "address"),
    [("FQDN", "10.0.0.1"), ("FQDN", "a b"), ("FQDN", "http://x"), ("IPv6", "10.0.0.1"), ("IPv6", "[::1]")],
)
def test_an_address_of_another_kind_is_left_out(family: str, address: str) -> None:
    one, problems = read_slice(slice_of(endpoint(address), family=family))
    assert one is not None
    assert one.endpoints == ()
    assert problems == [
        f"EndpointSlice `api-1`: an endpoint is left out: its address `{address}` is no {family} address"
    ]


@pytest.mark.parametrize("number", [0, 65536, -1, "80", True, 8.5, [80]])
def test_a_malformed_port_takes_nothing_else_with_it(number: Any) -> None:
    one, problems = read_slice(slice_of(ports=[{"name": "x", "port": number}, HTTP]))
    assert one is not None
    assert [each.number for each in one.ports] == [8080]
    assert problems == [
        f"EndpointSlice `api-1`: a port is left out: its number `{number}` is none from 1 to 65535"
    ]


def test_a_port_without_a_text_for_its_name_is_left_out() -> None:
    assert read_slice(slice_of(ports=[{"name": 7, "port": 80}]))[1] == [
        "EndpointSlice `api-1`: a port is left out: its name is no text"
    ]


# A set of slices


def test_a_set_says_which_services_a_change_is_of() -> None:
    slices = SliceSet()
    one, two, moved = read(slice_of(), slice_of(name="api-2"), slice_of(service="web"))
    slices.replace([one])
    assert slices.put(two) == {"api"}
    assert slices.of("api") == [one, two]
    assert slices.put(moved) == {"api", "web"}
    assert (slices.of("api"), slices.of("web"), len(slices)) == ([two], [moved], 2)
    assert slices.remove("api-2") == {"api"}
    assert slices.remove("api-2") == set()
    slices.replace([one])
    assert (slices.of("api"), slices.of("web")) == ([one], [])


def test_a_set_has_what_was_heard_of_last_behind() -> None:
    slices = SliceSet()
    one, two = read(slice_of(), slice_of(name="api-2"))
    slices.replace([one, two])
    slices.put(one)
    assert slices.of("api") == [two, one]
