"""A confined process that answers many small questions, where starting one for each would cost more."""

from __future__ import annotations

import inspect
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from types import ModuleType
from typing import IO

from prefero.errors import PreferoError
from prefero.sandbox.confinement import FOLDER, Accept, confined, environment, protection
from prefero.sandbox.limits import Limits

LENGTH = 8
"""Bytes that tell the length of a message, the largest first."""

UNLIMITED = 1e9
"""Seconds of processor time in a worker's life."""

START = 30.0
"""Seconds in which a worker has to be ready."""


class Worker:
    """A process that runs the source of ``module`` under limits of its own.

    The module uses the standard library alone and, run as a script, reads messages from standard input and
    writes an answer to each to standard output, both after their length in 8 bytes. The first message is
    ``setup``; its answer says that the process is ready. A worker that was late, died or said too much is
    ended, and the next question starts another. ``Limits.wall`` holds for each question; processor time is
    not limited.
    """

    def __init__(
        self, module: ModuleType, setup: bytes, limits: Limits, *, accept: Accept = "limits"
    ) -> None:
        self.protection = protection(accept)
        self._source = inspect.getsource(module)
        self._setup = setup
        self._limits = replace(limits, cpu=UNLIMITED)
        self._lock = threading.Lock()
        self._starter: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: bytes) -> bytes | None:
        """The answer; None if the worker is late, dies or says more than ``Limits.output``."""
        with self._lock:
            start = time.monotonic()
            answer = self._answer(question)
            # The kernel ends a worker with the thread that started it, which may have been another one.
            borrowed = self._starter is not threading.current_thread()
            if answer is None and borrowed and time.monotonic() - start < self._limits.wall:
                answer = self._answer(question)
            return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _answer(self, question: bytes) -> bytes | None:
        answer = None
        try:
            answer = _exchange(self._running(), question, self._limits.wall, self._limits.output)
        finally:
            if (
                answer is None
            ):  # whatever it says later, interrupted or late, is no answer to the next question
                self._end()
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._starter = threading.current_thread()
        command = [sys.executable, "-I", "-S", "-c", self._source]
        self._process = process = subprocess.Popen(
            confined(command, self._limits, self.protection),
            env=environment(FOLDER),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, process, os.getpid())
        if _exchange(process, self._setup, START, self._limits.output) is None:
            process.kill()
            reason = process.communicate()[1].decode(errors="replace").strip()
            self._end()
            last = reason.splitlines()[-1] if reason else "it says nothing"
            raise PreferoError(f"a worker of the sandbox does not start: {last} ({self.protection})")
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._finalizer()
            self._process = None


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:  # a fork of the library's process leaves it alone
        process.kill()
        process.communicate()


def _exchange(process: subprocess.Popen[bytes], message: bytes, seconds: float, most: int) -> bytes | None:
    """Send a message and read the answer; None if it does not come whole and in time."""
    assert process.stdin and process.stdout
    deadline = time.monotonic() + seconds
    try:
        process.stdin.write(len(message).to_bytes(LENGTH, "big") + message)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    head = _read(process.stdout, LENGTH, deadline)
    length = int.from_bytes(head, "big") if head else most + 1
    return _read(process.stdout, length, deadline) if length <= most else None


def _read(stream: IO[bytes], length: int, deadline: float) -> bytes | None:
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(found) < length:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return None
            piece = os.read(stream.fileno(), length - len(found))
            if not piece:
                return None
            found += piece
    return bytes(found)
