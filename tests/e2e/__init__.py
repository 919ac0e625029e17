"""The whole sidecar as a process, between real clients and real or scripted servers.

A package, so that its files may be named as unit tests of other folders are.
"""
