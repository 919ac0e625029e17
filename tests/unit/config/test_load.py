"""From files and environments to settings: the seed's snippets, what ships, precedence, ports, loops."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config import (
    Address,
    BreakerSettings,
    EndpointSettings,
    LimitSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    load_settings,
)
from sidecar.errors import ConfigurationError, UnknownUpstreamError

Load = Callable[..., Settings]
DEPLOYMENT = Path(__file__).parents[3] / "config" / "deployment"

SEED_LOCAL = """\
deployment:
  mode: local
  domain: localhost

services:
  redis:
    host: localhost
    port: 6379
    scheme: redis
  backend:
    host: localhost
    port: 8001
    scheme: http
"""
SEED_DISTRIBUTED = """\
deployment:
  mode: distributed
  domain: autobot.prod

services:
  redis:
    host: redis-01.autobot.prod
    port: 6379
    scheme: redis
    timeout: 10
    retries: 5

  ai-stack:
    host: ai-worker-01.autobot.prod
    port: 8080
    timeout: 60
    retries: 3

load_balancers:
  api:
    hosts:
      - api-01.autobot.prod:8001
      - api-02.autobot.prod:8001
    strategy: round_robin
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(text: str, environ: dict[str, str] | None = None, bind: tuple[str, ...] = ()) -> Settings:
        file = tmp_path / "file.yml"
        file.write_text(text)
        return load_settings(file, environ=environ or {}, container=False, bind=bind, expose=bool(bind))

    return _load


def _refused(load: Load, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(text, environ)
    return caught.value.findings


def test_the_seeds_local_file(load: Load) -> None:
    settings = load(SEED_LOCAL)
    assert [upstream.name for upstream in settings.upstreams] == ["redis", "backend"]
    assert settings.upstream("backend").health_endpoint == "/api/system/health"
    assert all("would proxy to itself" in (upstream.skipped or "") for upstream in settings.upstreams)
    assert settings.sidecar == SidecarSettings()


def test_the_seeds_distributed_file(load: Load) -> None:
    settings = load(SEED_DISTRIBUTED)
    redis, ai, api = settings.upstreams
    assert (redis.scheme, redis.per_request, redis.listen_port, redis.skipped) == ("redis", False, 6379, None)
    assert (redis.policy.timeout, redis.policy.retries, redis.policy.idle_timeout) == (10.0, 5, 0.0)
    assert (ai.scheme, ai.per_request, ai.listen_port, ai.health_endpoint) == ("http", True, 8080, "/health")
    assert (ai.policy.timeout, ai.policy.retries, ai.policy.idle_timeout) == (60.0, 3, 3.0)
    assert api.kind is UpstreamKind.LOAD_BALANCER
    assert api.listen_port == 8001
    assert [str(endpoint) for endpoint in api.endpoints] == [
        "api-01.autobot.prod:8001",
        "api-02.autobot.prod:8001",
    ]
    assert api.policy == PolicySettings()


def test_the_seeds_environment(load: Load) -> None:
    environ = {
        "REDIS_HOST": "redis-cluster.prod.com",
        "REDIS_PORT": "7000",
        "AI_STACK_HOST": "ai-farm-01.prod.com",
        "AI_STACK_PORT": "8090",
        "NPU_WORKER_HOST": "npu-cluster.prod.com",
        "REDIS_CIRCUIT_BREAKER_THRESHOLD": "7",
        "REDIS_CIRCUIT_BREAKER_TIMEOUT": "90",
        "AI_STACK_TIMEOUT": "1500ms",
        "AI_STACK_RETRIES": "0",
        "API_HOSTS": "127.0.0.1:9001, [::1]:9002,",
    }
    assert _refused(load, SEED_DISTRIBUTED, environ)[0].startswith("environment: API_HOSTS:")
    environ["API_HOSTS"] = "127.0.0.1:9001, [::1]:9002"
    settings = load(SEED_DISTRIBUTED, environ)
    redis, ai, api = settings.upstreams
    assert str(redis.endpoints[0]) == "redis-cluster.prod.com:7000"
    assert redis.policy.breaker == BreakerSettings(7, open_for=90.0, max_open_for=90.0, jitter=0.0)
    assert str(ai.endpoints[0]) == "ai-farm-01.prod.com:8090"
    assert (ai.policy.timeout, ai.policy.retries) == (1.5, 0)
    assert api.endpoints == (EndpointSettings("127.0.0.1", 9001), EndpointSettings("::1", 9002))
    # The application's ports stay those of the file.
    assert [upstream.listen_port for upstream in settings.upstreams] == [6379, 8080, 8001]
    assert settings.overrides == tuple(sorted(settings.overrides, key=list(settings.overrides).index))
    assert set(settings.overrides) == set(environ) - {"NPU_WORKER_HOST"}


@pytest.mark.parametrize("name", ["local", "docker-local", "distributed", "kubernetes"])
def test_the_files_that_ship(name: str) -> None:
    settings = load_settings(DEPLOYMENT / f"{name}.yml", environ={}, container=False)
    assert settings.mode.value == name.replace("-", "_")
    health = {u.name: u.health_endpoint for u in settings.upstreams if u.kind is UpstreamKind.SERVICE}
    assert health == {
        "redis": "/",
        "backend": "/api/system/health",
        "frontend": "/",
        "ai-stack": "/health",
        "npu-worker": "/health",
    }
    assert settings.notes == ()
    # What the file says of the services is what the mode has built in.
    built_in = load_settings(environ={}, mode=settings.mode, container=False, directory=DEPLOYMENT)
    for upstream in built_in.upstreams:
        assert settings.upstream(upstream.name).endpoints == upstream.endpoints


def test_what_the_shipped_files_are_about() -> None:
    local = load_settings(DEPLOYMENT / "local.yml", environ={}, container=False)
    assert all(upstream.skipped for upstream in local.upstreams)
    moved = load_settings(DEPLOYMENT / "local.yml", environ={"REDIS_HOST": "10.0.0.7"}, container=False)
    assert moved.upstream("redis").skipped is None
    distributed = load_settings(DEPLOYMENT / "distributed.yml", environ={}, container=False)
    assert distributed.upstream("backend").listen_port is None
    assert distributed.upstream("api").listen_port == 8001
    kubernetes = load_settings(DEPLOYMENT / "kubernetes.yml", environ={}, container=False)
    assert kubernetes.sidecar.metrics == Address("0.0.0.0", 9902)


def test_the_file_of_the_mode_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config" / "deployment"
    folder.mkdir(parents=True)
    (folder / "docker-local.yml").write_text("services:\n  db: {host: db, port: 5432, scheme: tcp}\n")
    environ = {"AUTOBOT_DEPLOYMENT_MODE": "docker_local"}
    found = load_settings(environ=environ, container=False, directory=tmp_path)
    assert found.origin == str(folder / "docker-local.yml")
    monkeypatch.chdir(tmp_path)
    found = load_settings(environ=environ, container=False)
    assert found.origin == "config/deployment/docker-local.yml"
    assert [upstream.name for upstream in found.upstreams] == ["db"]
    assert found.upstream("db").health_endpoint == "/"


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        (
            "missing.yml",
            "missing.yml: cannot be read: No such file or directory; name a file that is there and readable",
        ),
        (".", ".: cannot be read: Is a directory; name a file that is there and readable"),
    ],
)
def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, finding: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ={}, container=False)
    assert caught.value.findings == [finding]


def test_a_name_with_a_zero_byte() -> None:
    with pytest.raises(ConfigurationError, match="zero byte"):
        load_settings("a\0b", environ={}, container=False)


def test_an_empty_file_is_the_built_ins_and_said(load: Load) -> None:
    settings = load("# nothing yet\n", {"AUTOBOT_DISTRIBUTED": "1"})
    assert len(settings.upstreams) == 5
    (note,) = settings.notes
    assert note.endswith("file.yml is empty: the built-in services of mode distributed are used")


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_file_is_refused_by_who_runs_already(tmp_path: Path, text: str) -> None:
    """Whoever truncates it writes soon after, or finds the disk full: it is not to cost all that is served."""
    file = tmp_path / "file.yml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ={}, container=False, again=True)
    assert caught.value.findings == [
        f"{file}: is empty; write it whole, or start anew for the built-in services"
    ]


def test_who_runs_already_waits_for_no_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "file.yml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigurationError, match="cannot be read: is no regular file"):
        load_settings(pipe, environ={}, container=False, again=True)


def test_a_file_without_upstreams_keeps_the_built_ins(load: Load) -> None:
    settings = load("sidecar: {ports: {7000: redis}}\n")
    assert [upstream.listen_port for upstream in settings.upstreams] == [7000, None, None, None, None]
    assert settings.upstream("redis").skipped is None


def test_well_known_services_fill_what_they_leave_out(load: Load) -> None:
    settings = load(
        "deployment: {mode: distributed}\nservices:\n  redis:\n  ai-stack: {port: 9000, health_endpoint: /up}\n"
    )
    redis, ai = settings.upstreams
    assert (redis.scheme, str(redis.endpoints[0])) == ("redis", "redis-01.autobot.prod:6379")
    assert (str(ai.endpoints[0]), ai.health_endpoint) == ("ai-worker-01.autobot.prod:9000", "/up")


def test_variables_without_an_upstream_and_empty_ones_are_ignored(load: Load) -> None:
    settings = load(SEED_LOCAL, {"BACKUP_PORT": "nonsense", "REDIS_PORT": "", "BACKEND_HOST": "  "})
    assert settings.overrides == ()


def test_kubernetes_links_and_the_wrong_kind_of_variable_are_noted(load: Load) -> None:
    environ = {"REDIS_PORT": "tcp://10.0.0.1:6379", "API_HOST": "x", "REDIS_HOSTS": "y:1"}
    settings = load(SEED_DISTRIBUTED, environ)
    assert settings.upstream("redis").endpoints[0].port == 6379
    assert settings.notes == (
        "REDIS_HOSTS was ignored: redis is a service, its variable is REDIS_HOST",
        "REDIS_PORT is a Kubernetes service link, not a port number, and was ignored",
        "API_HOST was ignored: api is a load balancer, its variable is API_HOSTS",
    )


def test_more_hosts_than_the_limit(load: Load) -> None:
    hosts = ",".join(f"h{n}:80" for n in range(1001))
    assert _refused(load, SEED_DISTRIBUTED, {"API_HOSTS": hosts}) == [
        "environment: API_HOSTS: names 1001 hosts; 1000 is the most"
    ]
    (line,) = _refused(load, f"load_balancers:\n  api:\n    hosts: [{hosts}]\n")
    assert line.endswith("file.yml:3: load_balancers.api.hosts: has 1001 hosts; 1000 is the most")


@pytest.mark.parametrize("section", ["services", "load_balancers"])
def test_more_upstreams_than_the_limit(load: Load, section: str) -> None:
    entry = "{{host: h, port: {0}}}" if section == "services" else "{{hosts: ['h:{0}']}}"
    text = f"{section}:\n" + "".join(f"  s{n}: {entry.format(n)}\n" for n in range(1, 1002))
    (line,) = _refused(load, text)
    assert line.endswith(
        f"file.yml:1: {section}: the file names 1001 upstreams; 1000 is the most, use several sidecars"
    )


def test_environment_levels(load: Load) -> None:
    assert load(SEED_LOCAL).log_level == "INFO"
    settings = load(SEED_LOCAL, {"AUTOBOT_LOG_LEVEL": "debug", "AUTOBOT_SERVICE_REGISTRY_DEBUG": "true"})
    assert (settings.log_level, settings.registry_debug) == ("DEBUG", True)


POLICIES = """\
defaults:
  timeout: 5s
  connect_timeout: 250ms
  retries: 2
  idle_timeout: 2
  tunnel_idle_timeout: 1m
  host: preserve
  circuit_breaker: {consecutive_failures: 3, open_for: 2s}
  limits: {connections: 10, request_head: 8KiB, pending_timeout: 250ms, connections_per_endpoint: 4, in_flight: 50}
services:
  web:
    host: web
    port: 80
    timeout: 7
    continue_timeout: 0
    host_header: web.example:8080
    limits: {pending: 0, in_flight: 0}
  redis: {host: r, port: 6379, circuit_breaker_timeout: 30}
load_balancers:
  api: {hosts: ["a:81"], host: endpoint, circuit_breaker: {max_open_for: 4s}, idle_timeout: 1}
  db: {hosts: [{host: "::1", port: 5432, weight: 3}], scheme: tcp, idle_timeout: 1h}
"""


def test_policies_are_merged_key_by_key(load: Load) -> None:
    web, redis, api, db = (upstream.policy for upstream in load(POLICIES).upstreams)
    limits = LimitSettings(10, 4, 1024, 0.25, 50, request_head=8192, response_head=65536)
    doubling = BreakerSettings(3, open_for=2.0, max_open_for=60.0, jitter=0.5)
    assert web == PolicySettings(
        timeout=7.0,
        connect_timeout=0.25,
        idle_timeout=2.0,
        continue_timeout=0.0,
        tunnel_idle_timeout=60.0,
        retries=2,
        host_header="web.example:8080",
        breaker=doubling,
        limits=LimitSettings(10, 4, 0, 0.25, 0, request_head=8192),
    )
    assert redis.breaker == BreakerSettings(3, open_for=30.0, max_open_for=30.0, jitter=0.0)
    assert (redis.idle_timeout, redis.limits) == (0.0, limits)
    assert (api.idle_timeout, api.host_header) == (1.0, "endpoint")
    assert api.breaker == BreakerSettings(3, open_for=2.0, max_open_for=4.0, jitter=0.5)
    assert (db.idle_timeout, db.breaker) == (3600.0, doubling)
    assert load(POLICIES).upstream("db").endpoints == (EndpointSettings("::1", 5432, 3),)


def test_a_long_open_time_raises_the_longest(load: Load) -> None:
    text = "services:\n  web: {host: w, port: 80, circuit_breaker: {open_for: 2m}}\n"
    breaker = load(text).upstream("web").policy.breaker
    assert (breaker.open_for, breaker.max_open_for) == (120.0, 120.0)


def test_a_long_form_over_a_short_one_doubles_again(load: Load) -> None:
    text = (
        "defaults: {circuit_breaker_timeout: 60, circuit_breaker_threshold: 9}\n"
        "services:\n  web: {host: w, port: 80, circuit_breaker: {open_for: 2}}\n"
        "  api: {host: a, port: 81, circuit_breaker: {consecutive_failures: 4}}\n"
    )
    web, api = (upstream.policy.breaker for upstream in load(text).upstreams)
    assert web == BreakerSettings(9, open_for=2.0, max_open_for=60.0, jitter=0.5)
    assert api == BreakerSettings(4, open_for=60.0, max_open_for=60.0, jitter=0.0)


def test_the_sidecar_section(load: Load) -> None:
    text = (
        'sidecar:\n  bind: [127.0.0.2, "::1", 127.0.0.2]\n  admin: "[::1]:0"\n  metrics: 0.0.0.0:0\n'
        "  head_timeout: 1\n  idle_timeout: 2s\n  drain_timeout: 3000ms\n  max_clients: 7\n  workers: 4\n"
        "  min_body_rate: 1KiB\n"
    )
    assert load(text).sidecar == SidecarSettings(
        ("127.0.0.2", "::1"), Address("::1", 0), Address("0.0.0.0", 0), 1.0, 2.0, 3.0, 7, 1024, 4
    )
    assert load("sidecar: {bind: 127.0.0.3}\n").sidecar.bind == ("127.0.0.3",)
    assert load(text, bind=("10.0.0.1",)).sidecar.bind == ("10.0.0.1",)
    assert str(load(text).sidecar.admin) == "[::1]:0"
    with pytest.raises(ConfigurationError) as caught:
        load(text, bind=("eth0",))
    assert caught.value.findings == [
        'flags: bind: `eth0` is no IP address; write for example 127.0.0.1 or "::1"'
    ]


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "10.0.0.1", "fd00::1"])
def test_other_machines_are_let_in_by_name_only(tmp_path: Path, bind: str) -> None:
    file = tmp_path / "a.yml"
    text = "services: {api: {host: a.example, port: 80}}\nsidecar:\n"
    file.write_text(f"{text}  bind: '{bind}'\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ={}, container=False)
    (line,) = caught.value.findings
    assert line.startswith(f"{file}:3: sidecar.bind: `{bind}` lets in whoever reaches this machine")
    assert "add `expose: true` beside it" in line
    assert load_settings(file, environ={}, container=False, expose=True).sidecar.expose

    # Flags replace the file's addresses, and are the ones that count.
    assert load_settings(file, environ={}, container=False, bind=["127.0.0.1"]).sidecar.bind == ("127.0.0.1",)
    file.write_text(f"{text}  bind: '{bind}'\n  expose: true\n")
    assert load_settings(file, environ={}, container=False).sidecar.bind == (bind,)
    file.write_text(f"{text}  expose: false\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ={}, container=False, bind=[bind, "127.0.0.1"])
    (line,) = caught.value.findings
    assert line.startswith(f"flags: bind: `{bind}` lets in whoever")
    assert "add --expose" in line


@pytest.mark.parametrize(
    ("bind", "endpoint", "loops"),
    [
        ((), "localhost:80", True),
        ((), "127.0.0.1:80", True),
        ((), "[::1]:80", True),
        ((), "127.0.0.2:80", False),
        ((), "localhost:81", False),
        ((), "web.example:80", False),
        (("127.0.0.2",), "localhost:80", False),
        (("127.0.0.2",), "127.0.0.2:80", True),
        (("0.0.0.0",), "127.0.0.9:80", True),
        (("0.0.0.0",), "10.0.0.1:80", False),
        (("10.0.0.1",), "10.0.0.1:80", True),
        (("127.0.0.1",), "0.0.0.0:80", True),
    ],
)
def test_loops(load: Load, bind: tuple[str, ...], endpoint: str, loops: bool) -> None:
    text = "load_balancers:\n  web: {hosts: [far.example:80, other.example:80]}\n"
    web = load(text, {"WEB_HOSTS": f"far.example:80,{endpoint}"}, bind).upstream("web")
    assert web.listen_port == 80
    assert (web.skipped is not None) is loops


def test_ports_may_name_an_upstream_whose_section_is_broken(load: Load) -> None:
    lines = _refused(load, "services:\n  web: {host: w}\nsidecar:\n  ports: {80: web}\n")
    assert len(lines) == 1
    assert "has no port" in lines[0]


def test_differing_ports_with_one_named(load: Load) -> None:
    settings = load("load_balancers:\n  api: {hosts: ['a:80', 'b:81']}\nsidecar: {ports: {'8000': api}}\n")
    assert settings.upstream("api").listen_port == 8000


def test_clash_with_a_port_that_is_built_in(load: Load) -> None:
    (line,) = _refused(load, "sidecar: {metrics: '0.0.0.0:8001'}\n")
    assert (
        "services.backend.port: backend would listen on port 8001, where sidecar.metrics (0.0.0.0:8001) is"
        in line
    )


def test_own_servers_elsewhere_do_not_clash(load: Load) -> None:
    text = "services:\n  web: {host: w, port: 9901}\nsidecar: {bind: 127.0.0.2, admin: '127.0.0.1:9901'}\n"
    assert load(text).upstream("web").listen_port == 9901


def test_unknown_upstream(load: Load) -> None:
    with pytest.raises(UnknownUpstreamError) as caught:
        load(SEED_LOCAL).upstream("redsi")
    assert str(caught.value) == (
        "no service or load balancer is called `redsi`; did you mean `redis`?; known are: redis, backend"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "X-Timeout"),
        ("deadline_header: off", ""),
        ('deadline_header: "off"', ""),
        ("deadline_header: x-b", "x-b"),
    ],
)
def test_the_deadline_header_of_all_may_be_off_for_one(load: Load, text: str, expected: str) -> None:
    settings = load(f"""
defaults: {{deadline_header: X-Timeout}}
services:
  web: {{host: web.example, port: 80, {text}}}
  redis: {{host: redis.example, port: 6379, scheme: redis}}
""")
    assert settings.upstream("web").policy.deadline_header == expected


# Unix sockets, and what listeners are told


SOCKETS = """
services:
  redis: {host: "unix:/run/redis.sock", scheme: redis}
  app: {host: "unix:@app"}
load_balancers:
  api: {hosts: ["unix:/run/a.sock", "b.example:81", {host: "unix:/run/c.sock", weight: 2}]}
  many: {hosts: ["a.example:1", "b.example:2"]}
"""


def test_unix_endpoints_have_no_port(load: Load) -> None:
    text = SOCKETS + 'sidecar: {sockets: {"@app-too": app, /run/many.sock: many}}'
    settings = load(text)
    assert settings.upstream("redis").endpoints == (EndpointSettings("unix:/run/redis.sock", 0),)
    assert settings.upstream("redis").listen_port == 6379, "the port it is known by is the localhost port"
    assert [str(endpoint) for endpoint in settings.upstream("api").endpoints] == [
        "unix:/run/a.sock",
        "b.example:81",
        "unix:/run/c.sock",
    ]
    assert settings.upstream("api").listen_port == 81, "of those that have one"


def test_a_socket_is_a_place_to_listen_and_takes_no_port_away(load: Load) -> None:
    text = (
        SOCKETS
        + 'sidecar: {sockets: {"@app-too": app, /run/many.sock: many, /run/api.sock: {to: api, mode: 0600}}}'
    )
    settings = load(text)
    found = {
        upstream.name: (upstream.listen_port, upstream.listener.socket) for upstream in settings.upstreams
    }
    assert found == {
        "redis": (6379, ""),
        "app": (None, "@app-too"),
        "api": (81, "/run/api.sock"),
        "many": (None, "/run/many.sock"),
    }
    assert settings.upstream("api").listener.mode == 0o600
    assert settings.upstream("many").listener.mode == 0o660
    none = load(text.replace("sidecar: {", "sidecar: {ports: {}, "))
    assert {upstream.listen_port for upstream in none.upstreams} == {None}


def test_a_socket_that_its_port_would_loop_to_is_listened_on(load: Load) -> None:
    """The service is on this host: applications reach its port without the sidecar, and the socket through it."""
    redis = load(
        "services: {redis: {host: localhost, port: 6379}}\nsidecar: {sockets: {/run/r.sock: redis}}"
    ).upstream("redis")
    assert redis.skipped is not None
    assert redis.listener.socket == "/run/r.sock"


def test_ports_and_sockets_have_options_of_their_own(load: Load) -> None:
    text = """
services:
  web: {host: web.example, port: 80, proxy_protocol: v2}
  api: {host: api.example, port: 81, proxy_protocol: off}
defaults: {proxy_protocol: v1}
sidecar:
  ports: {8000: {to: web, accept_proxy: true, tls: {cert: s.pem, key: k.pem}}, 8001: api}
  sockets: {/run/web.sock: web, /run/api.sock: {to: api, accept_proxy: true}}
"""
    web, api = load(text).upstreams
    assert (web.listen_port, web.listener.socket) == (8000, "/run/web.sock")
    assert (web.listener.accept_proxy, web.listener.socket_accept_proxy) == (True, False)
    assert (web.listener.port_tls, web.listener.socket_tls) == (True, False)
    assert web.listener.tls.cert.endswith("s.pem")
    assert (api.listener.accept_proxy, api.listener.socket_accept_proxy) == (False, True)
    assert (web.policy.proxy_protocol, api.policy.proxy_protocol) == (2, 0)


def test_the_environment_names_sockets_too(load: Load) -> None:
    text = "services: {web: {host: web.example, port: 80}}\nload_balancers: {api: {hosts: ['a.example:81']}}"
    environ = {
        "WEB_HOST": "unix:/run/web.sock",
        "WEB_PORT": "82",
        "API_HOSTS": "unix:/run/a.sock, b.example:83",
    }
    web, api = load(text, environ=environ).upstreams
    assert (web.endpoints, web.listen_port) == ((EndpointSettings("unix:/run/web.sock", 0),), 80)
    assert [str(endpoint) for endpoint in api.endpoints] == ["unix:/run/a.sock", "b.example:83"]
    assert api.listen_port == 81
