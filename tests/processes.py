"""Worker processes for tests: they end without the interpreter's teardown.

A finalizing interpreter ends the C++ threads that still wait for its lock (a communicator dropping a Python
object, for example), and C++ then aborts a process whose work was done. A worker that has returned has
nothing left to do, so it leaves at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp


def _work_and_leave(rank: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    work(rank, *arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_workers(work: Callable[..., None], *arguments: Any, processes: int = 2) -> None:
    """Calls `work(rank, *arguments)` in each of `processes` fresh processes; raises if one of them raised."""
    mp.spawn(_work_and_leave, (work, arguments), nprocs=processes)
