"""`sidecar.workers` above 1: several processes behind the same ports, and the one that looks after them.

Reading order:

    supervisor  the process that was started: sockets, admin and metrics servers, restart, reload, drain
    process     its side of one worker: starting it, talking to it, noticing its end
    worker      the other side: an App on inherited sockets that does what it is told
    standing    what holds of endpoints beyond the life of a worker
    backoff     how long to wait before a dead worker is started again
    channel     messages between the two: JSON objects with their length before them, over a socket pair
    wire        settings and moves of breakers as JSON values
    values      what a worker has counted, as one tree of numbers; sums of such trees, and a cluster that shows one
    readings    as much of it as the history is made of
"""
