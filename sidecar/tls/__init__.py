"""Certificates and what is made of them: contexts, who is trusted, renewal, and why a handshake has failed.

Reading order: `contexts` (files to SSLContexts) with `validity` (until when a certificate is valid), `names` (who an
endpoint or a client has to be), `why` (what a failed handshake means), `failures` (how often it is told), `renewed`,
`client` and `server` (what the data path holds of one upstream and one listener), `certificates` (those of all, from
one configuration to the next).

The data path knows these by `proxy.secure` alone. Files are read in threads, never on the event loop.
"""
