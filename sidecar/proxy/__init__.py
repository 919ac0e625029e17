"""The data path. Read it in the order a request flows:

    listener    a localhost port, or a unix socket, and what is made of a connection to it
    proxied     a connection that begins with a PROXY header
    downstream  the application's connection: request heads, pipelining, keep-alive, lingering close
    router      which upstream's exchange it is to have, where a listener is shared
    attempt     how it gets to an endpoint: picking, connecting, sending, trying again
    exchange    one request and its response, and its one end
    deadline    the same where the client says how long it may take
    hedge       the same where a second endpoint is asked when the first one is slow
    upstream    the endpoint's connection: response heads and bodies
    relay       back-pressure between the two
    respond     the answers that the proxy gives itself
    session     two connections joined: after 101, and for redis and tcp
    tcp         how a connection to a redis or tcp port gets its endpoint

and beside them `context` (what all connections share), `dial` (opening a connection), `secure` (TLS as the data path
knows it), `handshake` and `entrance` (its beginning with an endpoint and with a client), `follow` (what open
connections are told of another configuration), `hash_key` (what ring_hash goes by), `hedge_timer` (when to ask a second
endpoint), `mirror` (copies of requests), `resolve` (names) and `sweep` (deadlines). Everything but `dial` and
`resolve` is a callback on a protocol object: no task, future, timer or closure per request (but for one timer of all
hedges of an upstream, and a wait before an endpoint is asked again).
"""

from __future__ import annotations

from sidecar.proxy.context import ProxyContext
from sidecar.proxy.listener import Listener

__all__ = ["Listener", "ProxyContext"]
