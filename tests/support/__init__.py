"""What tests are made of: fakes for the sans-I/O cores, real servers and processes for the rest.

Reading order: `clock` and `transports` (unit tests: no loop, no sockets), `waiting`, `ports`, `processes`
(how anything real is started, waited for and ended), `servers`, `endpoints` and `http` (what stands behind
and before the proxy), `proxy` (the sidecar as a process), `load` (many clients at once), `faults`, `paced` and
`laboratory` (endpoints that fail as they are told, requests that come whatever becomes of those before, and both
around a sidecar), `rfc9112` and `lenient` (who judges bytes: by the letter, and as sloppy servers read them),
`messages` and `dialects` (bytes for fuzzing, and others who read them), `origins` and `clients` (servers and clients
that people use; their parts are in `programs`).
"""
