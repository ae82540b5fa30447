"""How much of the machine a program in the sandbox may use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from prefero.errors import PreferoError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run: seconds and bytes, over all its processes together unless said otherwise."""

    wall: float = 10.0
    """Seconds from start to end."""
    cpu: float = 10.0
    """Seconds of processor time."""
    memory: int = 256 * MIB
    """Bytes of memory, what lies in the folder included."""
    processes: int = 32
    """Processes and threads at the same time."""
    file: int = 16 * MIB
    """Bytes of the largest file."""
    folder: int = 64 * MIB
    """Bytes of all files; without bubblewrap there is only the limit of each file."""
    output: int = MIB
    """Bytes of standard output and error."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value <= 0:
                raise PreferoError(f"Limits({field.name}={value}): expected a finite number above 0")
