"""What breaks endpoints and asks at a steady rate is what the tests have: their folder is put on the path, last."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.faults import (
    DIE,
    FLAP,
    HANG,
    IDLE_CLOSE,
    REFUSE,
    RESET_AFTER_HEAD,
    RESET_BEFORE_HEAD,
    Fault,
    FaultyEndpoint,
    answering,
    last_before_silence,
    slowed,
)
from support.paced import PacedLoad, Result, failures, tally
from support.proxy import Sidecar as SidecarProcess
from support.proxy import configuration
from support.waiting import wait_until

__all__ = [
    "FAULTS",
    "Fault",
    "FaultyEndpoint",
    "PacedLoad",
    "Result",
    "SidecarProcess",
    "configuration",
    "failures",
    "last_before_silence",
    "tally",
    "wait_until",
]

# In the order of the tables.
FAULTS = (
    REFUSE,
    DIE,
    HANG,
    RESET_BEFORE_HEAD,
    RESET_AFTER_HEAD,
    answering(503),
    answering(503, 0.8),
    answering(500, 0.8),
    slowed(0.3),
    FLAP,
    IDLE_CLOSE,
)
