"""What the process says about itself to machines: metrics at scrape time, and its log.

Reading order: `metrics` (a scrape), `families` (the integers of `model` as Prometheus reads them), `logs`
(text for a person, JSON lines for a collector). Of traces: `tracing` (whose request it is, and what goes on to
the endpoint), `spans` (what is told of it), `span_export` (the queue and its thread), `collector` (the HTTP side).
Beside them `request_ids`.
"""
