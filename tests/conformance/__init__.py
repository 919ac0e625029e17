"""Raw bytes against the letter of the RFCs: what the proxy lets through is read by many readers, strict and sloppy.

Reading order: `forms` (the bytes), `bench` (one case in memory, and what is asked of it), then the tests.
"""
