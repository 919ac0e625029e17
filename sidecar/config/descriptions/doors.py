"""What the keys of listeners, TLS, routers, mirrors and the service mesh mean."""

from __future__ import annotations

from typing import Final

from sidecar.config.descriptions.about import About

__all__ = ["DOORS"]

DOORS: Final = {
    "PortListener": About(
        "ports",
        "A port: the name of an upstream or a router, or a mapping.",
        {
            "to": "Whose it is; needed.",
            "accept_proxy": (
                "Connections begin with a PROXY header (version 1 or 2) that names the client; what begins "
                "otherwise is closed. | `false`"
            ),
            "tls": "What clients speak to it. | in the clear",
        },
        "services: {api: {host: api.example, port: 8080}}\n"
        "sidecar:\n"
        "  ports:\n"
        "    8443: {to: api, tls: {cert: local.pem, key: local.key}}\n",
    ),
    "SocketListener": About(
        "sockets",
        "A unix domain socket by its path, or `@name` for an abstract one: the name of an upstream, or a mapping.",
        {
            "to": "Whose it is; needed.",
            "accept_proxy": "As of a port. | `false`",
            "tls": "What clients speak to it; the same as at the port where both have it. | in the clear",
            "mode": 'Permissions of the file, `"0600"` to `"0777"`. | `"0660"`',
        },
        "services: {redis: {host: redis.example, port: 6379, scheme: redis}}\n"
        "sidecar:\n"
        "  sockets:\n"
        '    /run/sidecar/redis.sock: {to: redis, mode: "0600"}\n',
    ),
    "ServerTls": About(
        "tls of a port or a socket",
        "Files are looked at every 5 seconds, and the next connection goes by what is new.",
        {
            "cert": "The certificate with its chain, in PEM; needed.",
            "key": "Its private key, not encrypted; may be the same file. Needed.",
            "client_ca": "Authorities of clients, which must show a certificate then. | none is asked for",
            "min_version": "The least version of TLS. | `1.2`",
            "identity": "SPIFFE IDs or DNS names of which a client's certificate must have one. | any",
        },
    ),
    "ClientTls": About(
        "tls of an upstream",
        "How endpoints of the schemes `https`, `rediss` and `tls` are spoken to. Files are looked at every 5 seconds.",
        {
            "ca": "Authorities to trust, in place of the system's. | the system's",
            "cert": "What is shown to endpoints that ask for a certificate. | none",
            "key": "Its private key, not encrypted; may be the same file.",
            "server_name": (
                "What is asked for by SNI, and what the certificate has to be of. | `host` of a service, else the "
                "endpoint's"
            ),
            "verify": "`false` takes any certificate, which is said at each start.",
            "min_version": "The least version of TLS. | `1.2`",
            "alpn": "Protocols to offer. | `http/1.1` for https, else none",
            "identity": (
                "SPIFFE IDs or DNS names of which the certificate must have one, in place of the host's name. | none"
            ),
        },
        "services:\n"
        "  payments:\n"
        "    {host: payments.example, port: 8443, scheme: https, tls: {identity: ['spiffe://example.org/payments']}}\n",
    ),
    "Router": About(
        "routers",
        "Listeners whose requests are shared out among other upstreams. Each has a port, here or in `sidecar.ports`.",
        {
            "port": "Where it listens. | what `sidecar.ports` says",
            "routes": "Where requests go; the first that fits.",
            "limits": "Of what comes in; all else is up to the upstream that a request goes to.",
        },
        "services: {web: {host: web.example, port: 80}, canary: {host: canary.example, port: 80}}\n"
        "sidecar: {ports: {8001: web, 8002: canary}}\n"
        "routers:\n"
        "  front:\n"
        "    port: 8000\n"
        "    routes:\n"
        "      - {path: /beta/, to: canary}\n"
        "      - {to: {web: 95, canary: 5}}\n",
    ),
    "Route": About(
        "routes",
        "One of a router's; what it does not name may be anything. The path is compared as it came, so that a route "
        "keeps nobody out of anything.",
        {
            "host": "The Host of the request, without port; `*.example.org` is any name below that. | any",
            "path": "Whole segments that the path begins with. | `/`",
            "methods": "Which methods. | all",
            "headers": "Fields that the request must have, with these very values. | none",
            "to": "An upstream, or several with their shares; needed.",
        },
    ),
    "RouterLimits": About(
        "limits of a router",
        "",
        {"request_head": "Bytes of a request's head. | `64KiB`"},
    ),
    "Mirror": About(
        "mirror",
        "Copies of requests go to another upstream, and nobody waits for its answers. Requests whose body does not "
        "come whole with the head, or has more than 64 KiB, are not copied.",
        {
            "to": "Which upstream; needed.",
            "share": "Of how many requests.",
            "max_in_flight": "Copies at once; beyond it they are dropped, and counted. | `64`",
        },
        "services:\n"
        "  api: {host: api.example, port: 80, mirror: {to: next, share: 10%}}\n"
        "  next: {host: next.example, port: 80}\n"
        "sidecar: {ports: {8001: api, 8002: next}}\n",
    ),
    "ServiceMesh": About(
        "service_mesh",
        "What `sidecar export istio` and `linkerd` print in place of the upstreams' own policies. The sidecar itself "
        "goes by those.",
        {
            "enabled": "Whether it counts. | `false`",
            "type": "Which mesh. | `istio`",
            "traffic_policy": "What it does.",
        },
        "kubernetes:\n"
        "  service_mesh:\n"
        "    {enabled: true, type: istio, traffic_policy: {circuit_breaker: {consecutive_errors: 5}}}\n",
    ),
    "TrafficPolicy": About(
        "traffic_policy",
        "",
        {
            "load_balancer": "How it balances; linkerd has `peak_ewma` alone. | each upstream's own",
            "circuit_breaker": "When it leaves an endpoint alone.",
        },
    ),
    "MeshBreaker": About(
        "circuit_breaker of a mesh",
        "",
        {
            "consecutive_errors": "After so many failures in a row. | the upstream's own",
            "interval": "How often it looks.",
            "base_ejection_time": "For how long at first. | the upstream's own",
            "max_ejection_percent": "How many of a hundred endpoints at most. | the upstream's own",
        },
    ),
}
