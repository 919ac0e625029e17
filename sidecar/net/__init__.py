"""The sockets of the data path. Pure Python takes those of the event loop; the compiled build has its own:

    network    what listens and connects, and the loop to run it on
    receiver   what a connection's bytes are given to; writing: how others are written
    names      from the addresses of a name to a connected socket
    tls        a transport over another one
    unix       how unix domain sockets are written; unix_sockets: bound and connected to
    proxy_header  the PROXY protocol's header: who the client of a connection is

and of the compiled build alone:

    reactor    the epoll set: what is ready is served, what has ended is told later; the pipes for large bodies
    transport  one TCP connection: reads, writes, the end
    loop       asyncio's loop, waiting in the reactor's set
    kernel     the system calls, as C declares them

Nothing here knows of HTTP, of endpoints or of the proxy.
"""
