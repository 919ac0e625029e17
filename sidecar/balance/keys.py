"""From what is hashed to the key that `ring_hash` goes by: the same for every process that picks."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["key_of"]


def key_of(value: bytes) -> int:
    """The key of `value`, 0 to 2**64 - 1."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "big")
