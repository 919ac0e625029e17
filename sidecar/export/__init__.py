"""What `sidecar export` writes: the configuration as other programs have it."""
