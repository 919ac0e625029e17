"""The description of the admin API: valid, complete, and true of what a running sidecar answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.clock import FakeClock

from sidecar.admin.api import admin_app, paths
from sidecar.admin.explain import explain_view, next_of
from sidecar.admin.live import LiveView
from sidecar.admin.openapi import calls, description
from sidecar.admin.views import upstreams_view
from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import (
    CheckResult,
    CloseReason,
    Endpoint,
    Limit,
    Outcome,
    Snapshot,
    UpstreamPolicy,
    WorkerCounts,
)
from sidecar.model.registry import FeedStatus, Registered, RegistrationStatus

ALL = set(calls())


def _all_calls() -> web.Application:
    """An application in which everything is served that may be, by whatever handler."""

    async def reload() -> tuple[int, dict[str, Any]]:
        raise AssertionError

    async def other(_request: web.Request) -> web.Response:
        raise AssertionError

    events = SimpleNamespace(stream=other, history=other)
    return admin_app(dict, list, dict, reload=reload, events=events, upstream=dict, config=dict, finish=dict)  # type: ignore[arg-type,call-overload] # nobody asks


def validator(name: str) -> Draft202012Validator:
    """Of a shape that the description has under that name."""
    document = description(ALL, token=False)
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **document})


def test_it_is_valid() -> None:
    for token in (False, True):
        document = json.loads(json.dumps(description(ALL, token=token)))
        OpenAPIV31SpecValidator(document).validate()
        assert ("security" in document) is token
        for shape in document["components"]["schemas"].values():
            Draft202012Validator.check_schema(shape)


def test_every_route_is_described_and_nothing_else_is() -> None:
    assert paths(_all_calls()) == ALL


def test_every_name_in_it_is_there_and_is_used() -> None:
    document = description(ALL, token=True)
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text
    operations = [call["operationId"] for path in document["paths"].values() for call in path.values()]
    assert len(operations) == len(set(operations)) == len(ALL)


def test_every_object_is_closed() -> None:
    """So that the tests see a value that is shown and not described."""

    def look(shape: Any) -> None:
        if isinstance(shape, dict):
            if "properties" in shape and shape.get("type") in ("object", ["object", "null"]):
                assert shape["additionalProperties"] is False, shape
            for inner in shape.values():
                look(inner)
        elif isinstance(shape, list):
            for inner in shape:
                look(inner)

    look(description(ALL, token=True)["components"])


def test_what_changes_something_needs_the_field_and_says_so() -> None:
    """But for the end, which Jobs ask for by a plain POST."""
    for (method, path), call in calls().items():
        fields = [one["name"] for one in call.get("parameters", ()) if one["in"] == "header"]
        asked_for = method == "POST" and path != "/quitquitquit"
        assert fields == (["X-Sidecar-Control"] if asked_for else [])
        assert "403" in call["responses"]


def test_examples_are_what_they_are_examples_of() -> None:
    seen = 0
    document = description(ALL, token=False)
    for call in calls().values():
        for response in call["responses"].values():
            for media in response["content"].values():
                if "example" in media:
                    Draft202012Validator({**media["schema"], "components": document["components"]}).validate(
                        media["example"]
                    )
                    seen += 1
    assert seen == 5, "two calls, as many without a version, and the end"


@pytest_asyncio.fixture
async def clusters() -> AsyncIterator[dict[str, Cluster]]:
    """Every kind of upstream, on which everything has happened that is counted."""
    clock = FakeClock()
    found = {
        "api": Cluster("api", "http", UpstreamPolicy(deadline_header=b"x-timeout", checked=True), clock),
        "redis": Cluster("redis", "redis", UpstreamPolicy(zone="a", max_in_flight=5), clock),
    }
    for cluster in found.values():
        endpoints = tuple(Endpoint(f"10.0.0.{number}", 80, 1, "a") for number in range(1, 5))
        cluster.apply(Snapshot(cluster.name, endpoints, "static"))
        stats = cluster.stats
        for reason in Reason:
            stats.count_request(0, 503, reason, 0.1)
        for kind in CloseReason:
            stats.sessions[kind] += 1
        for limit in Limit:
            stats.overflows[limit] += 1
        states = list(cluster.endpoints.values())
        for outcome in Outcome:
            states[0].attempts[outcome] += 1
            for _ in range(5):
                cluster.report(states[1], outcome, clock.monotonic(), states[1].breaker.permit)
        now = clock.monotonic()
        cluster.trip([states[2]], now)
        cluster.drain([states[3]], now)
        states[0].last_check = CheckResult(now, None, 0.5, "no password", 2)
    yield found
    await asyncio.sleep(0)


async def test_what_is_shown_is_as_described(clusters: dict[str, Cluster]) -> None:
    clock = FakeClock()
    feeds = [
        FeedStatus("etcd", None, None, True, False, "refused"),
        FeedStatus("dns", 2, 1.0, False, True, ""),
    ]
    statuses = tuple(
        RegistrationStatus("web", "etcd", address, state, "", 1.0, address != "")
        for address, state in (
            ("", "unwell"),
            ("a:1", "announced"),
            ("a:1", "failing"),
            ("a:1", "withdrawn"),
        )
    )
    workers = WorkerCounts(2)
    for counts, said, registered in (
        (None, None, None),
        (workers, lambda _name: feeds, Registered(statuses)),
    ):
        view = upstreams_view(
            clusters,
            clock,
            mode="local",
            compiled=True,
            started_at=0.0,
            draining=False,
            workers=counts,
            feeds=said,
            registered=registered,
        )
        validator("Upstreams").validate(view)
    assert view["upstreams"][0]["endpoints"][1]["breaker"]["journal"]
    assert {"workers", "registrations"} < view.keys()


@pytest.mark.parametrize("many", [False, True])
async def test_what_is_told_each_second_is_as_described(clusters: dict[str, Cluster], many: bool) -> None:
    clock = FakeClock()
    if many:
        endpoints = tuple(Endpoint("10.0.0.1", 1000 + number, 1, "") for number in range(120))
        clusters["api"].apply(Snapshot("api", endpoints, "static"))
    feeds = [
        FeedStatus("etcd", None, None, True, False, "refused"),
        FeedStatus("dns", 2, 1.0, False, True, ""),
    ]
    statuses = (RegistrationStatus("web", "etcd", "", "unwell", "", 1.0, registered=False),)
    view = LiveView(
        clusters,
        clock,  # type: ignore[arg-type] # as a test has it
        draining=lambda: True,
        recent=lambda _: None,
        feeds=lambda _: feeds,
        registered=lambda: Registered(statuses),
        workers=WorkerCounts(2),
    )
    await view.look()
    told = [json.loads(text) for text in view.since(0)]
    state = {**json.loads(view.head), "points": 3, "upstreams": told}  # the history is its own
    validator("State").validate(state)
    assert ("endpoints_total" in state["upstreams"][0]) is many
    assert state["upstreams"][0]["registries"]
    assert not validator("Upstream").is_valid(state["upstreams"][0]), "they are not the same"


async def test_what_is_explained_is_as_described(clusters: dict[str, Cluster]) -> None:
    clock = FakeClock()
    for cluster in clusters.values():
        picks = [next_of(cluster, 0.0), {"worker": 1, **next_of(cluster, 0.0)}]
        validator("Explanation").validate(explain_view(cluster, clock, picks, (10, 2)))


def test_the_agreed_shapes_of_what_has_been_going_on() -> None:
    recent = {"seconds": 5.0, "requests": 1.5, "errors": None, "p50": None, "p99": 0.25}
    recent |= {"sessions": 0.0, "bytes_sent": 0.0, "bytes_received": 0.0}
    validator("Recent").validate(recent)
    validator("Recent").validate(None)
    points = [None] * 119 + [0.5]
    series = dict.fromkeys(("requests", "errors", "p50", "p99"), points)
    history = {"at": "2026-01-01T00:00:00Z", "interval": 5, "length": 120, "points": 3}
    history["upstreams"] = {"api": series}
    validator("History").validate(history)
    assert not validator("History").is_valid({**history, "length": 60})


def test_another_value_is_noticed() -> None:
    """The other tests could not fail if these were no errors."""
    assert not validator("Error").is_valid({"error": "", "status": 400, "more": 1})
    assert not validator("Error").is_valid({"error": ""})
