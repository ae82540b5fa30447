"""The process between the library and a confined program: it watches the program, ends whatever is left of
it, and reports.

It is started as a script, with the standard library alone, and has one thread: the library's process may have
many, and may be killed, upon which this one ends the program. A request comes as a line of JSON on standard
input, the report leaves as JSON on standard output.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

INTERVAL = 0.05
"""Seconds between two looks at the program."""

PATIENCE = 10.0
"""Seconds in which killed processes have to be gone."""

INODE = 1024
"""Bytes of memory that an empty file of the folder takes."""

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Watch:
    """One program being watched."""

    limits: dict[str, float]
    folder: str
    started: float = field(default_factory=time.monotonic)
    output: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    cpu: float = 0.0
    memory: int = 0

    def verdict(self) -> str:
        """The limit that is passed by now, as a status; empty if none is."""
        alive = processes(os.getpid())
        self.cpu = max(self.cpu, sum(process.cpu for process in alive.values()))
        resident = sum(process.resident for process in alive.values()) + stored(alive, self.folder)
        if resident > self.limits["memory"]:  # shared pages were counted several times
            resident = sum(map(proportional, alive)) + stored(alive, self.folder)
        self.memory = max(self.memory, resident)
        if resident > self.limits["memory"]:
            return "memory"
        late = time.monotonic() - self.started > self.limits["wall"] or self.cpu > self.limits["cpu"]
        return "timeout" if late else ""

    def take(self, name: str, descriptor: int) -> bool:
        """Read what there is of an output; whether more may come."""
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        self.output[name] += piece
        return bool(piece)

    @property
    def says_too_much(self) -> bool:
        return sum(map(len, self.output.values())) > self.limits["output"]


@dataclass(frozen=True)
class Process:
    """Use of the machine: seconds with those of waited-for children, and bytes."""

    parent: int
    cpu: float
    resident: int


def processes(ancestor: int) -> dict[int, Process]:
    """All that descend from a process and live. Those whose parent ended belong to the next subreaper."""
    everything = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    words = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            cpu = sum(map(int, words[11:15])) / TICK
            everything[int(name)] = Process(int(words[1]), cpu, int(words[21]) * PAGE)
    found: dict[int, Process] = {}
    level = {ancestor}
    while level:
        level = {pid for pid, process in everything.items() if process.parent in level and pid not in found}
        found |= {pid: everything[pid] for pid in level}
    return found


def proportional(pid: int) -> int:
    """Bytes of memory in which each shared page is divided among those who share it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except OSError:
        return 0


def stored(alive: dict[int, Process], folder: str) -> int:
    """Bytes of memory in files: those of the folder, where it lies in memory, and those without a name."""
    total = 0
    seen = set()
    device = None
    for pid in reversed(alive) if folder else ():
        try:
            use = os.statvfs(f"/proc/{pid}/root{folder}")
            device = os.stat(f"/proc/{pid}/root{folder}").st_dev
        except OSError:  # a process that stands outside the namespaces, or has ended
            continue
        total += (use.f_blocks - use.f_bfree) * use.f_frsize + (use.f_files - use.f_ffree) * INODE
        break
    for pid in alive:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                file = os.stat(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            place = (file.st_dev, file.st_ino)
            if file.st_nlink == 0 and file.st_dev != device and place not in seen:
                seen.add(place)
                total += file.st_blocks * 512
    return total


def end_all() -> dict[int, tuple[int, float, int]]:
    """Kill and reap every descendant; of the reaped children the status, the seconds and the bytes."""
    reaped: dict[int, tuple[int, float, int]] = {}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for pid in processes(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            pid, status, use = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return reaped
        if pid:
            reaped[pid] = (status, use.ru_utime + use.ru_stime, use.ru_maxrss * 1024)
        else:
            time.sleep(0.001)
    raise SystemExit("processes of a program in the sandbox cannot be killed")


def supervise(request: dict[str, Any]) -> dict[str, Any]:
    """Run a request's command to its end or to a limit's."""
    watch = Watch(request["limits"], request["memory_folder"])
    child = subprocess.Popen(
        request["command"],
        cwd=request["folder"] or "/",
        env=request["environment"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        close_fds=False,
    )
    assert child.stdout and child.stderr
    outputs = {"stdout": child.stdout.fileno(), "stderr": child.stderr.fileno()}
    status = ""
    with selectors.DefaultSelector() as selector:
        selector.register(ended := os.pidfd_open(child.pid), selectors.EVENT_READ, "")
        for name, descriptor in outputs.items():
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ, name)
        while not status:
            ready = [key for key, _ in selector.select(INTERVAL)]
            for key in ready:
                if key.data and not watch.take(key.data, key.fd):
                    selector.unregister(key.fd)
            if watch.says_too_much:
                status = "output"
            elif any(key.fd == ended for key in ready):
                watch.verdict()  # too late to matter, but bubblewrap's processes have the seconds of all
                break
            else:
                status = watch.verdict()
    wall = time.monotonic() - watch.started
    reaped = end_all()
    for name, descriptor in outputs.items():
        while not watch.says_too_much and watch.take(name, descriptor):
            pass
    if watch.says_too_much:
        status = status or "output"
    return {
        "status": status,
        "code": os.waitstatus_to_exitcode(reaped[child.pid][0]),
        "cpu": max(watch.cpu, sum(cpu for _, cpu, _ in reaped.values())),
        "memory": max(watch.memory, *(memory for _, _, memory in reaped.values())),
        "wall": wall,
        **{
            name: base64.b64encode(text[: int(watch.limits["output"])]).decode()
            for name, text in watch.output.items()
        },
    }


def stop(*_: object) -> None:
    """Nobody waits for the report: the library's process has ended, or does not want it."""
    end_all()
    raise SystemExit(1)


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    system = ctypes.CDLL(None)
    signal.signal(signal.SIGTERM, stop)
    system.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    system.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != request["parent"]:
        raise SystemExit("the process that asked for the program has ended")
    with open("/proc/self/oom_score_adj", "w") as file:  # the first to go where memory ends all the same
        file.write("1000")
    try:
        report = supervise(request)
    finally:
        if request["folder"]:
            subprocess.run(["chmod", "-R", "u+rwX", "--", request["folder"]], capture_output=True)
            subprocess.run(["rm", "-rf", "--", request["folder"]], capture_output=True)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
