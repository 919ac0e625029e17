"""What the keys of the process, its registries and the file as a whole mean."""

from __future__ import annotations

from typing import Final

from sidecar.config.descriptions.about import About

__all__ = ["PROCESS"]

PROCESS: Final = {
    "Root": About(
        "The file",
        "A YAML mapping. Without `services` and `load_balancers` the built-in services of the mode are used.",
        {
            "deployment": "Where the services run.",
            "services": "Upstreams of one address each.",
            "load_balancers": "Upstreams of several addresses.",
            "defaults": "What all upstreams have that say nothing else.",
            "sidecar": "The process itself.",
            "external_registry": "Who else knows where endpoints are; one, or a list.",
            "register": "Local services that are announced in a registry while they are well.",
            "routers": "Listeners that share their requests out among upstreams.",
            "kubernetes": "What the deployment guide has for a service mesh.",
        },
    ),
    "Deployment": About(
        "deployment",
        "Decides which built-in addresses the well-known services have.",
        {
            "mode": "The mode; `AUTOBOT_DEPLOYMENT_MODE` and `--mode` win over it. | detected",
            "domain": "What the built-in host names end in. | the mode's",
        },
        "deployment: {mode: distributed, domain: autobot.prod}\n",
    ),
    "Kubernetes": About(
        "kubernetes",
        "",
        {
            "service_mesh": "Policies of a service mesh.",
        },
    ),
    "Sidecar": About(
        "sidecar",
        "The process itself. What needs a restart is said so.",
        {
            "bind": "Where upstreams listen.",
            "expose": "Addresses of `bind` beyond loopbacks are meant.",
            "sockets": "Unix domain sockets that upstreams listen on. | none",
            "ports": "Which upstream listens on which port. | each on its own",
            "admin": "Where the admin API and the dashboard are; needs a restart.",
            "metrics": "Where `/metrics`, `/live` and `/ready` are; needs a restart.",
            "head_timeout": "How long a request's head may take to come.",
            "idle_timeout": "How long an application's idle connection is kept.",
            "drain_timeout": "How long exchanges may take to finish at the end.",
            "min_body_rate": "How many bytes a second an upload must bring; 0 asks for none.",
            "max_clients": "Connections from applications at once, over all listeners, of each worker.",
            "workers": "How many processes share the ports; needs a restart.",
            "zone": "Where this sidecar runs: endpoints of the same zone come first. | `AUTOBOT_ZONE`, else none",
            "last_good": (
                "Where what registries have said outlives a restart; a file, or a mapping. Needs a restart. | in "
                "systemd's state directory, else nowhere"
            ),
            "registry_wait": "How long readiness waits for registries; needs a restart.",
            "watch": "The configuration is read again when its file changes.",
            "admin_token_env": "Where the admin API's token is. | none: it is for this machine alone",
            "admin_token_file": "The same of a file.",
            "admin_read_only": "The admin API shows, and does nothing.",
            "metrics_detail": "How much of endpoints the metrics tell.",
            "access_log": "Where each request and session is written down; `stdout`, a file, or a mapping. | nowhere",
            "tracing": "Where spans go; a collector's URL, or a mapping. | nowhere",
            "request_id": "A request without `x-request-id` gets one.",
        },
        "services: {api: {host: api.example, port: 8001}}\n"
        "sidecar: {ports: {9000: api}, workers: 2, drain_timeout: 20s, access_log: stdout}\n",
    ),
    "LastGood": About(
        "last_good",
        "What registries have said, for a start while they are down.",
        {
            "file": "The file; its folder has to be there.",
            "max_age": "How old it may be to be used.",
        },
        "sidecar: {last_good: {file: /var/lib/sidecar/last-good.json, max_age: 12h}}\n",
    ),
    "AccessLog": About(
        "access_log",
        "One line of JSON for each request, and each session, at its end.",
        {
            "file": "`stdout`, or a file; needed.",
            "sample": "Which share of what went well is written; what went wrong always is.",
            "errors_only": "Nothing else is.",
            "query": "Targets are written with what follows the `?`, where secrets tend to be.",
            "buffer": "How much may wait to be written; beyond it lines are dropped, and counted.",
        },
        "sidecar: {access_log: {file: /var/log/sidecar.jsonl, sample: 10%}}\n",
    ),
    "Tracing": About(
        "tracing",
        "Spans by OTLP over HTTP; needs `pip install 'sidecar-proxy[otel]'`.",
        {
            "endpoint": "The collector's base URL; needed.",
            "sample": "Which share of the requests is traced whose caller does not say.",
            "service": "What the spans call this service.",
            "queue": "How many spans may wait; beyond it they are dropped, and counted.",
            "token_env": "Where a bearer token for the collector is. | none",
            "token_file": "The same of a file.",
        },
        "sidecar: {tracing: {endpoint: 'http://127.0.0.1:4318', sample: 5%, service: orders}}\n",
    ),
    "ExternalRegistry": About(
        "external_registry",
        "A registry that says where endpoints are. A registry that is down changes nothing. Which keys a "
        "type has, beside those of all: consul `host`, `tls`, `token_env` or `token_file`, `datacenter`; "
        "etcd `host`, `tls`, `username`, `password_env` or `password_file`, `prefix`; kubernetes `host`, "
        "`tls`, `token_env` or `token_file`, `namespace`, `kubeconfig`, `context`; dns `host`; file `path`.",
        {
            "type": "What it is; needed.",
            "name": "What `source` calls it. | its type",
            "host": "Where it is; the next one when one fails. | kubernetes: the pod's; dns: the system's",
            "on_empty": "What an empty answer means. | `keep` for dns, else `drop`",
            "stale_after": "After how long without a word it counts as stale.",
            "tls": "Whether it is spoken to over TLS, and how.",
            "token_env": "Where its token is. | none",
            "token_file": "The same of a file, which may change.",
            "username": "Who asks, of etcd.",
            "password_env": "Where the password is. | none",
            "password_file": "The same of a file.",
            "datacenter": "Consul's datacenter. | the agent's own",
            "prefix": "What etcd's keys begin with. | `/services`",
            "namespace": "Kubernetes' namespace. | the pod's, or the context's",
            "kubeconfig": "The file that says how to reach Kubernetes. | in a pod none is needed",
            "context": "Which of its contexts. | the current one",
            "path": "The file of a `file` registry.",
        },
        "external_registry: {type: consul, host: 'consul.example:8500', token_env: CONSUL_TOKEN}\n"
        "services: {orders: {port: 8001}}\n",
    ),
    "Tls": About(
        "tls of a registry",
        "`true`, or a mapping.",
        {
            "ca": "A file of certificates to trust. | the system's",
            "cert": "The certificate to show. | none",
            "key": "Its key.",
            "server_name": "What the certificate has to be of. | the host",
            "verify": "Whether the certificate is looked at.",
        },
        "external_registry: {type: etcd, host: etcd.example, tls: {ca: ca.pem, cert: me.pem, key: "
        "me.key}}\n"
        "services: {orders: {port: 8001}}\n",
    ),
    "Registration": About(
        "register",
        "A local service that others are told of while it is well.",
        {
            "name": "As which service; needed.",
            "port": "Its port; needed.",
            "registry": "The name of a consul or etcd registry. | the only one",
            "host": "Where others reach it. | found",
            "id": "Which one of the service's it is. | made of name, host and port",
            "health_check": "How it is asked whether it is well. | by a connection",
            "check_host": "Where it is asked.",
            "weight": "Its share among the others.",
            "zone": "Where it is. | `sidecar.zone`",
            "tags": "Tags, of consul. | none",
            "ttl": "After how long it is forgotten when nothing more is said; at least `3s`.",
        },
        "external_registry: {type: consul, host: 127.0.0.1}\n"
        "register: {name: orders, port: 8001, health_check: /health}\n",
    ),
}
