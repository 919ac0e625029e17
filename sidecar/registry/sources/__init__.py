"""Where snapshots come from, one small class for each kind of registry.

`source` says what all have in common, `http` what those share that are asked over HTTP: consul, etcd and kubernetes,
`entries` what an endpoint has to be that somebody has written down, and `lists` what a file of them is. `dns` asks with
what is in `registry/dns/`. `catalogue` makes them. Nobody here waits after a failure before asking again, remembers
what was said before, or decides what an error means: that is `registry.supervisor`'s, the same for all.
"""
