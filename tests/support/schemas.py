"""What Istio, Linkerd, the Gateway API and the Prometheus Operator take, as far as `sidecar export` says anything.

Closed: a field of another name or kind is a fault. Names, kinds and bounds are those of
https://istio.io/latest/docs/reference/config/networking/destination-rule/ and .../virtual-service/,
https://gateway-api.sigs.k8s.io/reference/spec/ and https://prometheus-operator.dev/docs/api-reference/api/.
"""

from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["check_custom"]

TEXT = {"type": "string", "minLength": 1}
TIME = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,3})?s$"}
COUNT = {"type": "integer", "minimum": 0}
SOME = {"type": "integer", "minimum": 1}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
FLAG = {"type": "boolean"}


def closed(needed: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    """An object with these keys, and no others."""
    needed = needed or {}
    return {
        "type": "object",
        "properties": {**needed, **others},
        "required": list(needed),
        "additionalProperties": False,
    }


def several(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


BALANCER = closed(
    simple={"enum": ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"]},
    warmup=closed({"duration": TIME}),
    consistentHash=closed(
        httpHeaderName=TEXT, httpCookie=closed({"name": TEXT}, path=TEXT, ttl=TIME), useSourceIp=FLAG
    )
    | {"minProperties": 1, "maxProperties": 1},
)
POOL = closed(
    {"tcp": closed({"maxConnections": SOME, "connectTimeout": TIME}, idleTimeout=TIME)},
    http=closed({"idleTimeout": TIME}, http1MaxPendingRequests=SOME, http2MaxRequests=SOME),
)
OUTLIERS = closed(
    {"baseEjectionTime": TIME, "consecutive5xxErrors": COUNT},
    maxEjectionPercent={"type": "integer", "minimum": 0, "maximum": 100},
    consecutiveGatewayErrors=COUNT,
    interval=TIME,
)
TLS = closed(
    {"mode": {"enum": ["SIMPLE", "MUTUAL"]}},
    clientCertificate=TEXT,
    privateKey=TEXT,
    caCertificates=TEXT,
    sni=TEXT,
    subjectAltNames=several(TEXT),
    insecureSkipVerify=FLAG,
)
BUDGET = closed({"percent": {"type": "number", "minimum": 0, "maximum": 100}, "minRetryConcurrency": COUNT})
OF_A_PORT = {"loadBalancer": BALANCER, "connectionPool": POOL, "outlierDetection": OUTLIERS, "tls": TLS}
RETRIES = closed({"attempts": COUNT}, perTryTimeout=TIME, retryOn=TEXT, backoff=TIME)
MATCH = closed(method=closed({"regex": TEXT}), port=PORT) | {"minProperties": 1}
FIELDS = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
EDITS = closed(set=FIELDS, add=FIELDS, remove=several(TEXT)) | {"minProperties": 1}
DESTINATION = closed({"host": TEXT}, port=closed({"number": PORT}))
ROUTE = closed(
    {
        "name": TEXT,
        "route": several(closed({"destination": DESTINATION})),
        "timeout": TIME,
        "retries": RETRIES,
    },
    match=several(MATCH),
    headers=closed(request=EDITS, response=EDITS) | {"minProperties": 1},
    rewrite=closed({"authority": TEXT}),
    mirror=DESTINATION,
    mirrorPercentage=closed({"value": {"type": "number", "minimum": 0, "maximum": 100}}),
)
HTTP_MATCH = closed(
    {"path": closed({"type": {"const": "PathPrefix"}, "value": {"const": "/"}})},
    method={"enum": ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]},
)
PARENT = closed({"group": {"const": ""}, "kind": {"const": "Service"}, "name": TEXT, "port": PORT})
RULE = closed(
    {"expr": TEXT},
    record=TEXT,
    alert=TEXT,
    labels={"type": "object", "additionalProperties": TEXT},
    annotations={"type": "object", "additionalProperties": TEXT},
    **{"for": TEXT},
)
SPECS = {
    ("networking.istio.io/v1", "DestinationRule"): closed(
        {
            "host": TEXT,
            "trafficPolicy": closed(
                retryBudget=BUDGET,
                proxyProtocol=closed({"version": {"enum": ["V1", "V2"]}}),
                portLevelSettings=several(closed({"port": closed({"number": PORT})}, **OF_A_PORT)),
                **OF_A_PORT,
            ),
        }
    ),
    ("networking.istio.io/v1", "VirtualService"): closed({"hosts": several(TEXT), "http": several(ROUTE)}),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): closed(
        {
            "parentRefs": several(PARENT),
            "rules": several(
                closed(
                    {
                        "matches": several(HTTP_MATCH),
                        "backendRefs": several(closed({"name": TEXT, "port": PORT})),
                    }
                )
            ),
        }
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        {"groups": several(closed({"name": TEXT, "rules": several(RULE)}, interval=TEXT))}
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): closed(
        {
            "selector": closed({"matchLabels": {"type": "object", "additionalProperties": TEXT}}),
            "podMetricsEndpoints": several(
                closed(
                    {"port": TEXT, "path": TEXT},
                    relabelings=several(closed({"targetLabel": TEXT, "replacement": TEXT})),
                )
            ),
        }
    ),
}
METADATA = closed(
    {"name": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}},
    namespace=TEXT,
    labels={"type": "object", "additionalProperties": {"type": "string"}},
    annotations={"type": "object", "additionalProperties": {"type": "string"}},
)


def check_custom(document: dict[str, Any]) -> None:
    """Raises jsonschema's ValidationError, or KeyError for a kind that nobody here knows."""
    place = (document["apiVersion"], document["kind"])
    whole = closed(
        {
            "apiVersion": {"const": place[0]},
            "kind": {"const": place[1]},
            "metadata": METADATA,
            "spec": SPECS[place],
        }
    )
    Draft202012Validator(whole).validate(document)
