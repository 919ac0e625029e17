"""The sockets of the data path. Pure Python takes those of the event loop; the compiled build has its own:

    network    what listens and connects, and the loop to run it on: asked for by either build
    receiver   what a connection's bytes are given to
    reactor    the epoll set: what is ready is served, what has ended is told later     (compiled only, as all below)
    transport  one TCP connection: reads, writes, the end
    accept     a listening socket
    connect    a connection being opened
    loop       asyncio's loop, waiting in the reactor's set
    pipes      the pipes through which large bodies pass by this process
    kernel     the system calls, as C declares them

Nothing here knows of HTTP, of endpoints or of the proxy.
"""
