"""What the process says about itself to machines: metrics at scrape time, and its log.

Reading order: `metrics` (a scrape), `families`, `endpoint_families` and `process_families` (the integers of `model` as
Prometheus reads them), `exposition` (how they are written), `negotiation` (which format), `logs` (text for a person,
JSON lines for a collector).
"""
