"""Whatever the file says, it gives settings or findings."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config import Settings, load_settings
from sidecar.config.record import fields
from sidecar.config.schema import (
    Defaults,
    HeaderEdits,
    Headers,
    LoadBalancer,
    RateLimit,
    Root,
    Service,
    Sidecar,
)
from sidecar.config.schema import HealthCheck as Check
from sidecar.errors import ConfigurationError

WORDS = sorted(
    {
        key
        for kind in (Root, Service, LoadBalancer, Defaults, Check, Headers, HeaderEdits, RateLimit, Sidecar)
        for key in fields(kind)
    }
)
VALUES = (
    "redis",
    "localhost",
    "a:80",
    "::1",
    "127.0.0.1:9901",
    "http",
    "5s",
    "1:30",
    "round_robin",
    "local",
    "",
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(VALUES),
    st.dates(),
)
keys = st.one_of(st.sampled_from(WORDS), st.integers(0, 70000), st.text(max_size=8), st.booleans(), st.none())
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=25,
)
upstreams = st.dictionaries(
    st.sampled_from(("a", "b", "redis", "a-b", "a_b")), st.dictionaries(keys, trees, max_size=5)
)
shaped = st.fixed_dictionaries(
    {},
    optional={
        "services": upstreams,
        "load_balancers": upstreams,
        "defaults": trees,
        "sidecar": st.dictionaries(keys, trees),
    },
)
quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "any.yml"


def _load(file: Path, environ: dict[str, str]) -> Settings | list[str]:
    try:
        return load_settings(file, environ=environ, container=False)
    except ConfigurationError as error:
        return error.findings


def _check(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    loaded = _load(file, {})
    if isinstance(loaded, Settings):
        assert all(upstream.endpoints for upstream in loaded.upstreams)
    else:
        assert loaded
        assert all(line.isprintable() for line in loaded)


@quick
@given(shaped)
def test_anything_of_the_right_shape(file: Path, tree: object) -> None:
    _check(file, yaml.safe_dump(tree, allow_unicode=True).encode())


@quick
@given(trees)
def test_any_tree(file: Path, tree: object) -> None:
    _check(file, yaml.safe_dump(tree).encode())


@quick
@given(st.one_of(st.text(), st.text(alphabet="ab:-?&*![]{}<>|'\"%@#~,=0 \n\t")))
def test_any_text(file: Path, text: str) -> None:
    _check(file, text.encode("utf-8", "surrogatepass"))


@quick
@given(st.binary())
def test_any_bytes(file: Path, content: bytes) -> None:
    _check(file, content)


@quick
@given(
    st.dictionaries(
        st.sampled_from(
            (
                "REDIS_HOST",
                "REDIS_PORT",
                "REDIS_TIMEOUT",
                "REDIS_RETRIES",
                "AUTOBOT_DOMAIN",
                "AUTOBOT_LOG_LEVEL",
                "AUTOBOT_DISTRIBUTED",
                "AUTOBOT_DEPLOYMENT_MODE",
            )
        ),
        st.one_of(st.text(), st.sampled_from(VALUES)),
    )
)
def test_any_environment(file: Path, environ: dict[str, str]) -> None:
    file.write_text("services: {redis: {}}\n")
    loaded = _load(file, environ)
    if not isinstance(loaded, Settings):
        assert all(line.startswith("environment: ") and line.isprintable() for line in loaded)
