"""Jobs in processes of their own, forked from one that has imported everything once, and killed if asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a job ended: the exit status of its first process (negative for a signal), and all that its
    processes wrote."""

    status: int
    seconds: float
    text: str


class Forks:
    """Jobs of a module that calls :func:`serve`. Logs are written to ``folder``."""

    def __init__(self, module: str, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        name: str,
        job: Any,
        *,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        kill_after: float | None = None,
        victim: int = 0,
    ) -> Ended:
        """Run a job. ``kill_after`` are seconds after which the process ``victim`` is killed."""
        log = self.folder / f"{name}.log"
        log.write_text("")
        asked = {
            "job": job,
            "processes": processes,
            "environment": dict(environment or {}),
            "kill_after": kill_after,
            "victim": victim,
            "log": str(log),
        }
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        answer = json.loads(self.server.stdout.readline())
        return Ended(answer["status"], answer["seconds"], log.read_text(errors="replace"))

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=30)


def serve(work: Callable[[Any], object]) -> None:
    """Fork for every job that stands on a line of stdin, and write how it ended to stdout."""
    for line in sys.stdin:
        asked = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began = time.monotonic()
        running = {_fork(work, asked, rank, port): rank for rank in range(asked["processes"])}
        status: dict[int, int] = {}
        until = None if asked["kill_after"] is None else began + asked["kill_after"]
        while running:
            pid, code = os.waitpid(-1, 0 if until is None else os.WNOHANG)
            if pid == 0 and until is not None:
                if time.monotonic() >= until:
                    victim = next((pid for pid, rank in running.items() if rank == asked["victim"]), None)
                    if victim is not None:
                        os.kill(victim, signal.SIGKILL)
                    until = None
                else:
                    time.sleep(0.001)
                continue
            status[running.pop(pid)] = os.waitstatus_to_exitcode(code)
            if code:
                for other in running:  # waits for the one that died
                    os.kill(other, signal.SIGKILL)
        print(json.dumps({"status": status[0], "seconds": time.monotonic() - began}), flush=True)


def _fork(work: Callable[[Any], object], asked: Mapping[str, Any], rank: int, port: int) -> int:
    if pid := os.fork():
        return pid
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ |= asked["environment"]
    if asked["processes"] > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(asked["processes"]),
            "LOCAL_WORLD_SIZE": str(asked["processes"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    code: Any = 1
    try:
        work(asked["job"])
        code = 0
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}")
        code = 130
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)
