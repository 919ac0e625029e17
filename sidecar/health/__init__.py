"""Asking endpoints whether they are well: the second input of their breakers, beside what requests show.

Reading order: `connection` (one conversation with one endpoint), `http_probe` with `expectations`, `redis_probe`,
`tcp_probe` (what is said in it), `probes` (which of them, and what came of it), `checker` (when, of whom, how many
at once).

Nothing here is on the data path, and nothing is loaded where nobody asks for a check. The checks are made over plain
connections with this package's own reader of HTTP, so that they need no client library, and what the data path
would refuse from an endpoint is no healthy answer either.
"""
