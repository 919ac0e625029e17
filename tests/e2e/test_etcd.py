"""The etcd source with a real etcd: what it says while services come and go, and members with them."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.etcd import Etcd, cluster

from sidecar.config.settings import HealthSettings, RegistrationSettings, RegistrySettings, TlsSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources import etcd_gateway, etcd_watch
from sidecar.registry.sources.etcd import EtcdSource
from sidecar.registry.sources.source import Surroundings, Wanted

pytestmark = pytest.mark.server("etcd")

ONE, TWO = {"host": "10.0.0.1", "port": 8080}, {"host": "10.0.0.2", "port": 8080}
AT_ONE, AT_TWO = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)
BOUND = 20.0  # seconds for what takes milliseconds


async def _resolve(host: str, port: int) -> list[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port)


def source_of(*members: Etcd, environ: dict[str, str] | None = None, **settings: Any) -> EtcdSource:
    hosts = tuple(member.address for member in members)
    return EtcdSource(
        RegistrySettings("etcd", "etcd", hosts, **settings),
        Surroundings(FakeClock(), environ or {}, _resolve),
    )


class Told:
    """What a stream says, waited for with a bound."""

    def __init__(self, stream: AsyncIterator[Snapshot | None]) -> None:
        self.stream = stream
        self.latest: dict[str, tuple[Endpoint, ...]] = {}

    async def next(self) -> tuple[str, tuple[Endpoint, ...]]:
        """The next snapshot."""
        async with asyncio.timeout(BOUND):
            while True:
                said = await anext(self.stream)
                if said is not None:
                    self.latest[said.upstream] = said.endpoints
                    return said.upstream, said.endpoints

    async def until(self, upstream: str, *endpoints: Endpoint) -> None:
        """Until `upstream` consists of these."""
        async with asyncio.timeout(BOUND):
            while self.latest.get(upstream) != endpoints:
                await self.next()

    async def sign(self) -> None:
        """Until a sign of life."""
        async with asyncio.timeout(BOUND):
            while await anext(self.stream) is not None:
                pass

    async def failure(self) -> str:
        """How it ends, and nothing said before that."""
        async with asyncio.timeout(2 * BOUND):
            try:
                while True:
                    assert await anext(self.stream) is None
            except SourceError as error:
                return str(error)


@asynccontextmanager
async def watching(source: EtcdSource, *services: str) -> AsyncIterator[Told]:
    stream = source.watch([Wanted(name, name) for name in services])
    try:
        yield Told(stream)
    finally:
        await stream.aclose()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the member every half second, that are given up after two."""
    monkeypatch.setattr(etcd_watch, "LOOK_EVERY", 0.5)
    monkeypatch.setattr("sidecar.registry.sources.etcd.LOOK_EVERY", 0.5)
    monkeypatch.setattr(etcd_gateway, "ANSWER_TIMEOUT", 2.0)


# Services that come and go


async def test_services_are_listed_and_then_watched(etcd: Etcd) -> None:
    etcd.put("/services/api/1", ONE)
    etcd.put("/services/api-other/1", TWO)  # nobody asked for it, although its name begins so
    async with watching(source_of(etcd), "api", "none") as told:
        assert await told.next() == ("api", (AT_ONE,))
        assert await told.next() == ("none", ())
        etcd.put("/services/api-other/2", ONE)
        etcd.put("/services/api/2", TWO)
        assert await told.next() == ("api", (AT_ONE, AT_TWO))
        etcd.put("/services/api/2", TWO | {"weight": 7, "zone": "a"})
        assert await told.next() == ("api", (AT_ONE, Endpoint("10.0.0.2", 8080, 7, "a")))
        etcd.delete("/services/api/1")
        assert await told.next() == ("api", (Endpoint("10.0.0.2", 8080, 7, "a"),))
        etcd.delete("/services/api/2")
        assert await told.next() == ("api", ())
        etcd.put("/services/none/1", "10.0.0.1:8080")
        assert await told.next() == ("none", (AT_ONE,))


async def test_what_is_one_transaction_is_one_snapshot(etcd: Etcd) -> None:
    async with watching(source_of(etcd), "api") as told:
        assert await told.next() == ("api", ())
        puts = [
            {
                "request_put": {
                    "key": etcd_gateway.to_base64(f"/services/api/{number}"),
                    "value": etcd_gateway.to_base64(json.dumps(ONE | {"port": number})),
                }
            }
            for number in range(1, 101)
        ]
        etcd.call("/v3/kv/txn", {"success": puts})
        assert len((await told.next())[1]) == 100


async def test_the_prefix_is_the_configuration_s(etcd: Etcd) -> None:
    etcd.put("/services/api/1", ONE)
    etcd.put("/elsewhere/deep/api/1", TWO)
    async with watching(source_of(etcd, prefix="/elsewhere/deep"), "api") as told:
        assert await told.next() == ("api", (AT_TWO,))


async def test_a_lease_that_ends_takes_its_endpoints_with_it(etcd: Etcd) -> None:
    lease = etcd.grant(2)
    etcd.put("/services/api/1", ONE, lease)
    etcd.put("/services/api/2", TWO)
    async with watching(source_of(etcd), "api") as told:
        assert await told.next() == ("api", (AT_ONE, AT_TWO))
        assert await told.next() == ("api", (AT_TWO,))


async def test_one_bad_entry_takes_no_other_with_it(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    etcd.put("/services/api/bad", "nonsense")
    etcd.put("/services/api/good", ONE)
    source = source_of(etcd)
    for _ in range(2):
        async with watching(source, "api") as told:
            assert await told.next() == ("api", (AT_ONE,))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "/services/api/bad is left out" in warnings[0]


async def test_five_hundred_services_take_two_connections(etcd: Etcd) -> None:
    names = [f"service-{number}" for number in range(500)]
    for begin in range(0, 500, 100):
        puts = [
            {
                "request_put": {
                    "key": etcd_gateway.to_base64(f"/services/{name}/1"),
                    "value": etcd_gateway.to_base64(json.dumps(ONE)),
                }
            }
            for name in names[begin : begin + 100]
        ]
        etcd.call("/v3/kv/txn", {"success": puts})
    async with watching(source_of(etcd), *names) as told:
        for name in names:
            assert await told.next() == (name, (AT_ONE,))
        for name in (names[0], names[250], names[499]):
            etcd.put(f"/services/{name}/2", TWO)
            await told.until(name, AT_ONE, AT_TWO)


# History that is forgotten


async def test_a_compacted_history_is_listed_again(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a listing and its watch, which then begins at a revision that is no more."""
    etcd.put("/services/api/1", ONE)
    listings = []
    listing = etcd_watch.list_services

    async def late(*arguments: Any) -> None:
        await listing(*arguments)
        listings.append(arguments)
        if len(listings) == 1:
            etcd.put("/services/api/2", TWO)
            etcd.delete("/services/api/1")
            etcd.put("/services/api/3", ONE | {"port": 1})
            etcd.compact()

    monkeypatch.setattr("sidecar.registry.sources.etcd.list_services", late)
    async with watching(source_of(etcd), "api") as told:
        assert await told.next() == ("api", (AT_ONE,))
        assert await told.next() == ("api", (AT_TWO, Endpoint("10.0.0.1", 1)))
        etcd.delete("/services/api/3")
        assert await told.next() == ("api", (AT_TWO,))
    assert len(listings) == 2


async def test_a_history_that_is_always_compacted_is_an_error(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = etcd_watch.list_services

    async def late(*arguments: Any) -> None:
        await listing(*arguments)
        etcd.put("/services/api/1", ONE)
        etcd.delete("/services/api/1")
        etcd.compact()

    monkeypatch.setattr("sidecar.registry.sources.etcd.list_services", late)
    async with watching(source_of(etcd), "api") as told:
        assert await told.next() == ("api", ())
        assert "is compacted faster than it can be followed" in await told.failure()


async def test_compaction_under_a_watch_and_between_two_changes_nothing(etcd: Etcd) -> None:
    source = source_of(etcd)
    async with watching(source, "api") as told:
        assert await told.next() == ("api", ())
        etcd.put("/services/api/1", ONE)
        assert await told.next() == ("api", (AT_ONE,))
        etcd.compact()
        etcd.put("/services/api/2", TWO)
        assert await told.next() == ("api", (AT_ONE, AT_TWO))
    etcd.delete("/services/api/1")
    etcd.compact()
    async with watching(source, "api") as told:
        assert await told.next() == ("api", (AT_TWO,))


# Members that fail


@pytest.mark.usefixtures("quick_looks")
async def test_a_killed_server_ends_the_stream_and_the_next_one_sees_what_has_changed(etcd: Etcd) -> None:
    source = source_of(etcd)
    etcd.put("/services/api/1", ONE)
    async with watching(source, "api") as told:
        assert await told.next() == ("api", (AT_ONE,))
        await told.sign()
        etcd.kill()
        assert f"http://{etcd.address}/v3/" in await told.failure()
    async with watching(source, "api") as told:
        assert "onnect" in await told.failure()
    etcd.start()
    etcd.delete("/services/api/1")
    etcd.put("/services/api/2", TWO)
    async with watching(source, "api") as told:
        assert await told.next() == ("api", (AT_TWO,))


@pytest.mark.usefixtures("quick_looks")
async def test_a_server_that_hangs_is_noticed(etcd: Etcd) -> None:
    async with watching(source_of(etcd), "api") as told:
        assert await told.next() == ("api", ())
        await told.sign()
        etcd.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(8):  # 0.6 s to the look, 2 s for its answer
                assert "/v3/kv/range: no answer" in await told.failure()
        finally:
            etcd.signal(signal.SIGCONT)


@pytest.mark.usefixtures("quick_looks")
async def test_the_next_member_takes_over_at_once(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as members:
        members[0].put("/services/api/1", ONE)
        async with watching(source_of(*members), "api") as told:
            assert await told.next() == ("api", (AT_ONE,))
            await told.sign()
            members[0].kill()
            members[1].wait_until_well()
            members[1].put("/services/api/2", TWO)
            assert await told.next() == ("api", (AT_ONE, AT_TWO))
            members[0].start()
            members[0].wait_until_well()
            members[2].delete("/services/api/1")
            assert await told.next() == ("api", (AT_TWO,))


@pytest.mark.usefixtures("quick_looks")
async def test_without_a_quorum_nothing_is_said(tmp_path: Path) -> None:
    with cluster(tmp_path, 2) as (first, second):
        second.put("/services/api/1", ONE)
        source = source_of(first, second)
        async with watching(source, "api") as told:
            assert await told.next() == ("api", (AT_ONE,))
            await told.sign()
            second.kill()
            said = await told.failure()  # and no snapshot before it
            assert f"http://{first.address}/v3/" in said
            assert f"http://{second.address}/v3/" in said
        async with watching(source, "api") as told:
            await told.failure()
        second.start()
        first.wait_until_well()
        second.delete("/services/api/1")
        async with watching(source, "api") as told:
            assert await told.next() == ("api", ())


@pytest.mark.usefixtures("quick_looks")
async def test_a_watch_that_does_not_tell_is_noticed(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy whose own connection has gone: lines that say something do not come through."""
    take = etcd_watch._Watch._take

    def deaf(watch: etcd_watch._Watch, line: bytes) -> tuple[Snapshot, ...]:
        return () if b'"events"' in line else take(watch, line)

    monkeypatch.setattr(etcd_watch._Watch, "_take", deaf)
    async with watching(source_of(etcd), "api", "other") as told:
        await told.until("other")
        etcd.put("/services/other/1", ONE)
        assert "does not tell what becomes of /services/other/" in await told.failure()


# Users


async def test_users_and_a_token_that_is_no_more(etcd: Etcd) -> None:
    environ = {"ETCD_PASSWORD": "correct"}
    source = source_of(etcd, environ=environ, username="sidecar", password_env="ETCD_PASSWORD")
    async with watching(source, "api") as told:  # before users are asked for
        assert await told.next() == ("api", ())
    etcd.add_users("correct")
    etcd.put("/services/api/1", ONE)
    async with watching(source, "api") as told:
        assert await told.next() == ("api", (AT_ONE,))
        etcd.put("/services/api/2", TWO)
        assert await told.next() == ("api", (AT_ONE, AT_TWO))
    service = registration()
    await source.announce(service)
    etcd.kill()  # with the tokens, which are in its memory
    etcd.start()
    await source.announce(service)
    etcd.log_in("correct")
    assert etcd.get("/services/api/here")
    await source.close()


@pytest.mark.usefixtures("quick_looks")
async def test_a_token_ends_under_a_watch(etcd: Etcd) -> None:
    etcd.add_users("correct")
    source = source_of(etcd, environ={"P": "correct"}, username="sidecar", password_env="P")
    async with watching(source, "api") as told:
        assert await told.next() == ("api", ())
        etcd.call("/v3/auth/user/add", {"name": "another", "password": "x"})  # ends all tokens
        await told.sign()
        await told.sign()
        etcd.log_in("correct")
        etcd.put("/services/api/1", ONE)
        assert await told.next() == ("api", (AT_ONE,))


@pytest.mark.parametrize(
    ("environ", "username", "words"),
    [
        ({"P": "wrong"}, "sidecar", "authentication failed"),
        ({}, "sidecar", "the variable P (password_env) is not set"),
        ({"P": "correct"}, "", "user name is empty"),
        ({"P": "correct"}, "guest", "permission denied"),
    ],
)
async def test_who_may_not_is_told_so(etcd: Etcd, environ: dict[str, str], username: str, words: str) -> None:
    etcd.add_users("correct")
    etcd.call("/v3/auth/user/add", {"name": "guest", "password": "correct"})
    source = source_of(etcd, environ=environ, username=username, password_env="P")
    async with watching(source, "api") as told:
        said = await told.failure()
    assert words in said
    assert not any(secret in said for secret in environ.values())


# TLS


def make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate of `name` that vouches for itself, and its key, for a day."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={name}"
    names = ["-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(
        [*command.split(), *names, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key


@pytest.mark.server("openssl")
async def test_over_tls_with_the_certificate_of_another_name(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "etcd.internal")
    good = TlsSettings(True, str(certificate), str(certificate), str(key), "etcd.internal")
    with Etcd(tmp_path / "etcd", certificate=(certificate, key)) as etcd:
        etcd.put("/services/api/1", ONE)
        source = source_of(etcd, tls=good)
        async with watching(source, "api") as told:
            assert await told.next() == ("api", (AT_ONE,))
            etcd.put("/services/api/2", TWO)
            assert await told.next() == ("api", (AT_ONE, AT_TWO))
        for tls, words in (
            (replace(good, server_name=""), "certificate"),
            (replace(good, server_name="other.internal"), "certificate"),
            (replace(good, ca=""), "certificate"),
            (replace(good, ca=str(tmp_path / "none")), "(tls.ca): no such file"),
            (TlsSettings(), f"http://{etcd.address}/v3/kv/range: "),
        ):
            async with watching(source_of(etcd, tls=tls), "api") as told:
                assert words in await told.failure()
        async with watching(source_of(etcd, tls=replace(good, cert="", key="")), "api") as told:
            await told.failure()


# Announcing


def registration(ttl: float = 10.0, **others: Any) -> RegistrationSettings:
    return RegistrationSettings("api", "etcd", "10.0.0.1", 8080, "here", HealthSettings(), ttl=ttl, **others)


@asynccontextmanager
async def announcing(etcd: Etcd) -> AsyncIterator[EtcdSource]:
    source = source_of(etcd)
    try:
        yield source
    finally:
        await source.close()


async def test_an_announced_service_is_there_until_it_is_withdrawn(etcd: Etcd) -> None:
    async with announcing(etcd) as source, watching(source, "api") as told:
        assert await told.next() == ("api", ())
        await source.announce(registration(weight=3, zone="b"))
        assert await told.next() == ("api", (Endpoint("10.0.0.1", 8080, 3, "b"),))
        (lease,) = etcd.leases()
        for _ in range(3):
            await source.announce(registration(weight=3, zone="b"))
        assert etcd.leases() == [lease]
        await source.announce(registration(weight=4, zone="b"))  # and three times nothing, before
        assert await told.next() == ("api", (Endpoint("10.0.0.1", 8080, 4, "b"),))
        await source.withdraw(registration())
        assert await told.next() == ("api", ())
        assert etcd.leases() == []
        await source.withdraw(registration())


async def test_an_announcement_outlives_its_ttl_while_it_is_renewed(etcd: Etcd) -> None:
    async with announcing(etcd) as source, watching(source, "api") as told:
        await source.announce(registration(ttl=2.0))
        await told.until("api", AT_ONE)
        for _ in range(6):  # four seconds: twice the ttl, that is what is tested
            await asyncio.sleep(0.67)
            await source.announce(registration(ttl=2.0))
            assert etcd.get("/services/api/here")
        await told.until("api")  # nobody renews it any more


def _lose_lease(etcd: Etcd) -> None:
    etcd.revoke(etcd.leases()[0])


def _lose_key(etcd: Etcd) -> None:
    etcd.delete("/services/api/here")


def _lose_value(etcd: Etcd) -> None:
    etcd.put("/services/api/here", "nonsense")


def _lose_hold(etcd: Etcd) -> None:
    etcd.put("/services/api/here", ONE | {"weight": 1})  # the same, under no lease


@pytest.mark.parametrize("lose", [_lose_lease, _lose_key, _lose_value, _lose_hold])
async def test_what_the_registry_has_lost_is_announced_again(
    etcd: Etcd, lose: Callable[[Etcd], None]
) -> None:
    async with announcing(etcd) as source:
        await source.announce(registration())
        lose(etcd)
        await source.announce(registration())
        assert json.loads(str(etcd.get("/services/api/here"))) == ONE | {"weight": 1}
        assert len(etcd.leases()) == 1
        await source.withdraw(registration())
        assert etcd.get("/services/api/here") is None


async def test_what_is_gone_already_is_withdrawn_in_peace(etcd: Etcd) -> None:
    async with announcing(etcd) as source:
        await source.announce(registration())
        _lose_lease(etcd)
        await source.withdraw(registration())
        assert etcd.leases() == []


async def test_what_an_earlier_process_has_left_is_withdrawn(etcd: Etcd) -> None:
    etcd.put("/services/api/here", ONE)
    async with announcing(etcd) as source:
        await source.withdraw(registration())
        assert etcd.get("/services/api/here") is None


async def test_another_ttl_is_another_lease(etcd: Etcd) -> None:
    async with announcing(etcd) as source:
        await source.announce(registration())
        await source.announce(replace(registration(), ttl=60.0))
        leases = {etcd.call("/v3/lease/timetolive", {"ID": lease})["grantedTTL"] for lease in etcd.leases()}
        assert "60" in leases


async def test_announcing_goes_on_with_the_member_that_is_left(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as members:
        source = source_of(*members)
        await source.announce(registration())
        members[0].kill()
        members[1].wait_until_well()
        await source.announce(registration())
        await source.withdraw(registration())
        assert members[1].get("/services/api/here") is None
        await source.close()
