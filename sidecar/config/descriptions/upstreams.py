"""What the keys of upstreams mean."""

from __future__ import annotations

from typing import Final

from sidecar.config.descriptions.about import About

__all__ = ["UPSTREAMS"]

UPSTREAMS: Final = {
    "Service": About(
        "services",
        "Upstreams of one address each. A well-known service (`redis`, `backend`, `frontend`, "
        "`ai-stack`, `npu-worker`) may leave everything to its built-in values. Beside the keys below it "
        "has those of [every upstream](#every-upstream).",
        {
            "host": "Where it is. | the well-known service's, or whatever a registry says",
            "port": (
                "Its port, there and on localhost unless `sidecar.ports` says otherwise. | the well-known service's"
            ),
            "scheme": (
                "What is spoken: `http` is proxied request by request, the others connection by connection. | "
                "`http`"
            ),
            "health_endpoint": (
                "The path that `sidecar health` and the Python API ask for, and checks without a `path`. | "
                "`/health`, or the well-known service's"
            ),
        },
        "services:\n"
        "  redis: {host: redis-01.example, port: 6379, scheme: redis}\n"
        "  orders: {host: orders.example, port: 8001, timeout: 60}\n",
    ),
    "LoadBalancer": About(
        "load_balancers",
        "Upstreams of several addresses. Beside the keys below they have those of [every "
        "upstream](#every-upstream).",
        {
            "hosts": "Where it is; not needed where a registry knows.",
            "scheme": "What is spoken, as of a service. | `http`",
            "strategy": (
                "Which endpoint is next: in turn by weight, the less busy of two, by chance, the quicker of two, "
                "or the same one for the same `hash_on`. | `round_robin`"
            ),
            "hash_on": "What `ring_hash` goes by, which needs it. | `client` for redis and tcp",
            "host": "The same as `host_header`.",
        },
        "load_balancers:\n"
        "  api:\n"
        "    hosts: ['api-01.example:8001', {host: api-02.example, port: 8001, weight: 2}]\n"
        "    strategy: least_request\n",
    ),
    "Host": About(
        "hosts",
        "One address of a load balancer: `host:port`, or a mapping.",
        {
            "host": "Its host; needed.",
            "port": "Its port; needed.",
            "weight": "Its share among the others.",
            "zone": "Where it is, for `sidecar.zone`.",
        },
        "load_balancers: {api: {hosts: [{host: 10.0.0.1, port: 80, weight: 3, zone: eu-a}, "
        "'10.0.0.2:80']}}\n",
    ),
    "Defaults": About(
        "defaults",
        "What all upstreams have that say nothing else: the keys of [every upstream](#every-upstream), "
        "but for bearer tokens. Sections are merged key by key, but for `rate_limit`; what means nothing "
        "for redis and tcp is for http alone.",
        {
            "host": "The same as `host_header`.",
        },
        "defaults: {timeout: 10, retries: 2, circuit_breaker: {open_for: 5}}\n",
    ),
    "Policy": About(
        "Every upstream",
        "These keys stand under a service, a load balancer, or `defaults`; the upstream's own win.",
        {
            "tls": "How its endpoints are spoken to, where the scheme is `https`, `rediss` or `tls`.",
            "proxy_protocol": (
                "Version of the PROXY header that connections to endpoints begin with, to name the client: `v1` or "
                "`v2`. Each serves one request then. | off"
            ),
            "mirror": "Who gets copies of a share of its requests. | nobody",
            "timeout": "How long nothing may move: from the request's end to the response's head, and between pieces.",
            "connect_timeout": "How long an endpoint may take to accept a connection.",
            "idle_timeout": (
                "How long an unused connection to an endpoint is kept; of redis and tcp how long a session may "
                "be silent. Not 0 for http. | `3` for http, else `0` (off)"
            ),
            "continue_timeout": "How long `Expect: 100-continue` waits for the endpoint's word.",
            "tunnel_idle_timeout": "How long a connection that has switched protocols may be silent.",
            "retries": (
                "How many attempts there may be after the first; a refused connect moves on to an endpoint not "
                "tried yet without spending one, unless all are down."
            ),
            "circuit_breaker": "When an endpoint is left alone, and for how long.",
            "circuit_breaker_threshold": "The same as `circuit_breaker.consecutive_failures`.",
            "circuit_breaker_timeout": (
                "How long a breaker is open, every time: `open_for` without doubling and chance."
            ),
            "limits": "How much there may be of anything.",
            "host_header": "What endpoints get as Host: their own address, what the application sent, or this.",
            "deadline_header": "The header in which a request says how many milliseconds it may take.",
            "per_try_timeout": (
                "How long one attempt may take, from the request's end to the response's head; then it is tried "
                "elsewhere, and what may not be is 504. Less than `timeout`."
            ),
            "retry_on": "What is tried again, of idempotent requests whose body is still there (64 KiB).",
            "hedge_after": (
                "After how long without an answer another endpoint is asked too, once, as one of `retries`; the "
                "first answer counts that is no failure. For idempotent requests; less than `timeout`."
            ),
            "retry_backoff": (
                "How long an endpoint that has failed is left alone before the same request asks it again."
            ),
            "retry_budget": "How many requests may be tried again, of all.",
            "outlier": "How many endpoints may be out of rotation.",
            "health_check": "Whether and how endpoints are asked if they are well. | none",
            "close_on_unhealthy": (
                "Sessions and tunnels end when their endpoint leaves the rotation, but for a drain alone."
            ),
            "slow_start": (
                "How long a new or recovered endpoint takes to get its whole share; not with `ring_hash`, whose "
                "keys would move twice."
            ),
            "headers": "Header fields that are set, added or removed.",
            "bearer_token_env": (
                "Where the token is that requests carry as `Authorization: Bearer`, whatever the application "
                "sent; not under `defaults`. | none"
            ),
            "bearer_token_file": (
                "The same of a file, beside the configuration; it is read again when it changes, within 5 s. | none"
            ),
            "rate_limit": "How many requests, or sessions, there may be in a time. | none",
            "source": "Which registries say where it is. | every one of `external_registry`, then the file",
        },
        "services:\n"
        "  orders:\n"
        "    host: orders.example\n"
        "    port: 8001\n"
        "    timeout: 5\n"
        "    retry_on: [connect, reset, '503']\n"
        "    health_check: /health\n",
    ),
    "Breaker": About(
        "circuit_breaker",
        "Each endpoint has a breaker, which opens by itself and lets one probe through when its time is "
        "over.",
        {
            "consecutive_failures": "How many failures in a row open it.",
            "open_for": (
                "How long it is open the first time; twice as long each time in a row, with half of that as chance."
            ),
            "max_open_for": "How long it is open at most.",
            "failure_rate": "It opens as well when more than this share of attempts has failed; 0 looks at none.",
            "window": "Of how long back attempts are counted for that.",
            "min_requests": "Of how many attempts at least.",
            "failure_statuses": "Which statuses are the endpoint's failure, beside broken connections and time-outs.",
            "observe_only": "Breakers move and are counted, and keep nobody away.",
        },
        "defaults: {circuit_breaker: {consecutive_failures: 3, open_for: 2s, failure_statuses: [5xx]}}\n",
    ),
    "Limits": About(
        "limits",
        "What would be too much is refused at once with 503 `overflow`, or closed. Bounds are those of "
        "each worker.",
        {
            "connections": "Connections to all endpoints together.",
            "connections_per_endpoint": "Connections to each, which is passed over while it has as many.",
            "pending": "How many may wait for a connection.",
            "pending_timeout": "How long they may wait, at most `timeout`.",
            "in_flight": "Requests, sessions and tunnels at once, those that wait included.",
            "request_head": "How long a request's line and headers may be.",
            "response_head": "The same of a response.",
        },
        "defaults: {limits: {connections: 200, pending: 50, in_flight: 400}}\n",
    ),
    "HeaderEdits": About(
        "request and response",
        "The rules of one direction. Names match in any case; `set` and `remove` come before `add`.\n"
        "\n"
        "Fields of the connection and of framing (`Connection`, `Content-Length`, `Transfer-Encoding`, "
        "`Upgrade`, `TE`, `Trailer`, `Expect` and the like), `Host` (see `host_header`) and "
        "`x-sidecar-*` are the proxy's. Values are shown in `/v1/config`: a secret is none. Interim "
        "responses, 101, trailers and the proxy's own errors are not edited.",
        {
            "set": (
                "Fields that are there once, with this value: in the place of the first of that name, or at the "
                "end."
            ),
            "add": "Fields at the end, beside those that are there; several of one name as a list.",
            "remove": "Fields that go.",
        },
        "services:\n"
        "  web:\n"
        "    host: web.example\n"
        "    port: 80\n"
        "    headers:\n"
        "      request:\n"
        "        set: {X-Source: orders}\n"
        "        add: {X-Tag: [a, b]}\n"
        "        remove: [Cookie]\n",
    ),
    "Headers": About(
        "headers",
        "What is changed in messages of an http upstream. What an upstream says of a header replaces "
        "what `defaults` say of it; other rules of `defaults` stay. Rules come before an endpoint is "
        "chosen, so that `hash_on` sees what they make of it.",
        {
            "request": "Of what goes to endpoints, the first time and at every retry.",
            "response": "Of what comes back.",
        },
        "defaults: {headers: {response: {remove: [Server, X-Powered-By]}}}\n",
    ),
    "RateLimit": About(
        "rate_limit",
        "A token bucket. Requests beyond it are answered 429 `rate_limited` with Retry-After, sessions "
        "are closed; no endpoint hears of them, and no breaker. A limit replaces that of `defaults` as a "
        "whole. With `sidecar.workers` each has its share (requests and burst divided by their number, a "
        "burst of at least 1): connections are dealt out by a hash, and no worker knows what another has "
        "admitted, so that few connections may get less than the whole.",
        {
            "requests": "How many there may be in the time of `per`; needed. 0 is no limit.",
            "per": "That time.",
            "burst": "How many there may be at once after a time of rest. | as many as `requests`",
        },
        "services: {search: {host: search.example, port: 80, rate_limit: {requests: 100, per: 1s, burst: "
        "200}}}\n",
    ),
    "Outlier": About(
        "outlier",
        "Beyond these bounds the few that are left are not felled by the load of all.",
        {
            "max_ejected": "Which share of the endpoints may be out of rotation; one always may, but with 0%.",
            "min_available": "How many must be left.",
            "panic": "Whether all are used beyond that, or requests fail when none is left.",
        },
        "defaults: {outlier: {max_ejected: 30%, min_available: 2}}\n",
    ),
    "RetryBackoff": About(
        "retry_backoff",
        "Another endpoint is asked at once; only the same one is waited for, by chance up to these times.",
        {
            "base": "How long the first time at most; twice as long each time.",
            "max": "How long at most.",
        },
        "defaults: {retry_backoff: {base: 50ms, max: 1s}}\n",
    ),
    "RetryBudget": About(
        "retry_budget",
        "Beyond it the answer is 503 `retry_budget`, or the response as it came. It is that of each worker.",
        {
            "ratio": "Which share of the requests of the last 10 s may be tried again.",
            "min": "How many a second may be whatever their number.",
        },
        "defaults: {retry_budget: {ratio: 10%, min: 1}}\n",
    ),
    "HealthCheck": About(
        "health_check",
        "A path, `true`, `false`, or a mapping. An endpoint that fails its checks leaves the rotation.",
        {
            "type": "What is asked. | by the scheme: `http`, `redis`, else `tcp`",
            "path": (
                "What an http check asks for, with Host as requests have it; no redirection is followed. | the "
                "`health_endpoint`, else `/health`"
            ),
            "interval": "How long between two checks of an endpoint, ±20 % by chance; at least `100ms`.",
            "timeout": "How long one may take.",
            "rise": "How many good ones in a row bring it back.",
            "fall": "How many bad ones in a row take it out; a first bad one counts at once.",
            "expect_status": "Which statuses are fine.",
            "expect_body": (
                "Text that the body holds in its first 64 KiB, or an expression in its first 4 KiB: "
                '`/"up"\\s*:\\s*true/` is quick, `/.*up.*/` is refused. | anything'
            ),
            "expect_json": (
                "Fields of a JSON answer by their way (`database.up`), and the value or values that each may "
                "have. | anything"
            ),
            "username": "Whom a redis check logs in as.",
            "password_env": "Where a redis check's password is.",
            "password_file": (
                "The same of a regular file, or a link to one; a relative name is one of the folder that the "
                "sidecar runs in."
            ),
            "role": "What a redis endpoint has to be. | either",
        },
        "services:\n"
        "  cache: {host: cache.example, port: 6379, scheme: redis,\n"
        "    health_check: {password_env: CACHE_PASSWORD, role: master}}\n"
        "  web: {host: web.example, port: 80, health_check: {path: /up, expect_json: {status: [ok, "
        "healthy]}}}\n",
    ),
    "SourceChoice": About(
        "source",
        "The name of a registry, a list of them, or a mapping.",
        {
            "use": "Which ones, the first that knows any endpoint; `static` is the file itself. | all, then `static`",
            "merge": "Endpoints of all of them together.",
            "service": "What they call it. | the upstream's name",
            "port": "Which port of several. | the only one, or the upstream's own",
            "tags": "Tags that instances must have, of consul.",
            "datacenter": "Another datacenter, of consul.",
            "namespace": "Another namespace, of kubernetes.",
        },
        "external_registry: {type: consul, host: 127.0.0.1}\n"
        "load_balancers: {workers: {source: {use: consul, service: ai-worker, tags: [blue]}}}\n"
        "sidecar: {ports: {8080: workers}}\n",
    ),
}
