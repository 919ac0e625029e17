"""What the process says about itself to machines: metrics at scrape time, its log, and records of requests one by one.

Metrics, in reading order: `metrics` (a scrape), `families`, `endpoint_families` and `process_families` (the integers of
`model` as Prometheus reads them), `exposition` (how they are written), `negotiation` (which format).
Records: `recorder` (who is told), `access_log` (what a line says), `log_file` (the thread that writes it); of traces
`tracing` (whose request it is, and what goes on to the endpoint), `spans` (what is told of it), `span_export` (the
queue and its thread), `collector` (the HTTP side); and `request_ids`.
`readings` and `history` are the same integers as figures of the last ten minutes.
`logs` is the log: text for a person, JSON lines for a collector.
"""
