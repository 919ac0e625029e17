"""What the process says about itself to machines: metrics at scrape time, and its log.

Reading order: `metrics` (a scrape), `families` (the integers of `model` as Prometheus reads them), `readings` and
`history` (the same integers as figures of the last ten minutes), `logs` (text for a person, JSON lines for a
collector).
"""
