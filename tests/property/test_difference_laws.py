"""Differences of configurations: put on the first they give the second, and they speak of nothing else."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.difference import Difference, as_far_as_possible, difference
from sidecar.config.settings import (
    Address,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    UpstreamSettings,
)

UPSTREAMS = st.builds(
    UpstreamSettings,
    name=st.sampled_from("abcd"),
    kind=st.just(UpstreamKind.SERVICE),
    scheme=st.sampled_from(["http", "tcp"]),
    endpoints=st.lists(
        st.builds(EndpointSettings, host=st.just("127.0.0.1"), port=st.integers(1, 3)), max_size=2
    ).map(tuple),
    strategy=st.sampled_from(["round_robin", "random"]),
    health_endpoint=st.just("/"),
    listen_port=st.sampled_from([None, 1, 2]),
    skipped=st.none(),
    policy=st.builds(PolicySettings, timeout=st.sampled_from([1.0, 2.0])),
    health=st.builds(HealthSettings, active=st.booleans()),
)
SETTINGS = st.builds(
    Settings,
    mode=st.just(DeploymentMode.LOCAL),
    domain=st.just(""),
    origin=st.just("test"),
    upstreams=st.lists(UPSTREAMS, max_size=4, unique_by=lambda upstream: upstream.name).map(tuple),
    sidecar=st.builds(
        SidecarSettings,
        idle_timeout=st.sampled_from([1.0, 2.0]),
        workers=st.integers(1, 2),
        admin=st.builds(Address, host=st.just("127.0.0.1"), port=st.integers(1, 2)),
    ),
    log_level=st.sampled_from(["INFO", "DEBUG"]),
    registry_debug=st.just(False),
    notes=st.just(()),
)


def named(settings: Settings) -> dict[str, UpstreamSettings]:
    return {upstream.name: upstream for upstream in settings.upstreams}


@given(SETTINGS)
def test_of_one_to_itself_there_is_none(one: Settings) -> None:
    assert difference(one, one) == Difference()


@given(SETTINGS, SETTINGS)
def test_put_on_the_first_it_gives_the_second(old: Settings, new: Settings) -> None:
    found = difference(old, new)
    upstreams = named(old)
    for upstream in found.removed:
        assert upstreams.pop(upstream.name) == upstream
    for change in found.changed:
        assert upstreams[change.before.name] == change.before
        after = change.before
        for part in {part.partition(".")[0] for part in change.parts}:
            after = replace(after, **{part: getattr(change.after, part)})
        upstreams[change.before.name] = after
    for upstream in found.added:
        assert upstream.name not in upstreams
        upstreams[upstream.name] = upstream
    assert upstreams == named(new)
    sidecar = old.sidecar
    for name in found.process:
        _head, _, part = name.partition(".")
        if part:
            sidecar = replace(
                sidecar, **{part.partition(".")[0]: getattr(new.sidecar, part.partition(".")[0])}
            )
    assert sidecar == new.sidecar
    assert ("log_level" in found.process) == (old.log_level != new.log_level)


@given(SETTINGS, SETTINGS)
def test_it_speaks_of_nothing_that_is_the_same(old: Settings, new: Settings) -> None:
    found = difference(old, new)
    same = {name for name, upstream in named(old).items() if named(new).get(name) == upstream}
    told = [upstream.name for upstream in (*found.added, *found.removed)]
    told += [change.after.name for change in found.changed]
    assert not same & set(told)
    assert len(told) == len(set(told))
    assert all(change.parts for change in found.changed)
    assert bool(found) == bool(found.lines)


@given(SETTINGS, SETTINGS)
def test_backwards_what_came_goes(old: Settings, new: Settings) -> None:
    there, back = difference(old, new), difference(new, old)
    assert (there.added, there.removed) == (back.removed, back.added)
    assert {change.parts for change in there.changed} == {change.parts for change in back.changed}
    assert (there.process, there.listeners) == (back.process, back.listeners)


@given(SETTINGS, SETTINGS)
def test_what_cannot_change_is_in_no_difference(old: Settings, new: Settings) -> None:
    possible, warnings = as_far_as_possible(old, new)
    process = difference(old, possible).process
    assert not any(name.startswith(("sidecar.admin", "sidecar.workers")) for name in process)
    assert len(warnings) == (old.sidecar.admin != new.sidecar.admin) + (
        old.sidecar.workers != new.sidecar.workers
    )
    assert possible.upstreams == new.upstreams
