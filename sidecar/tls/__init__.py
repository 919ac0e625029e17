"""Certificates and what is made of them: contexts, who is trusted, renewal, and why a handshake has failed."""
