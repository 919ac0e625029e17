"""What the process says about itself to machines: metrics at scrape time, its log, and each request.

Reading order: `metrics` (a scrape), `families`, `endpoint_families` and `process_families` (the integers of `model` as
Prometheus reads them), `exposition` (how they are written), `negotiation` (which format), `logs` (text for a person,
JSON lines for a collector); then what is told of requests one by one: `recorder` (who is told), `access_log` (what a
line says), `log_file` (the thread that writes it).
"""
