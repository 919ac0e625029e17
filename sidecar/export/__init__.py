"""`sidecar export`: what a configuration comes to in the words of others.

Reading order: `documents` (YAML with comments), `values` (how others spell durations), `services` (which Services of
Kubernetes an upstream is), then what is exported: `istio` with `istio_routes`, `linkerd`, `kubernetes` with `pod`,
`compose`, `prometheus`; last `command`, which the command line calls. Nothing of it is loaded by a running sidecar.
"""
