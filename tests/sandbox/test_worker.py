"""Workers answer, are ended when they misbehave, and are replaced."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prefero.errors import PreferoError
from prefero.sandbox import Limits, Protection, Worker, supervisor
from tests.sandbox import echo
from tests.sandbox.means import ALL, means as means

every_means = pytest.mark.parametrize("means", ALL, indirect=True)

SMALL = Limits(wall=1.0, memory=100 * 2**20, output=65536)


def workers(ancestor: int) -> list[int]:
    """The processes below one that run the worker's source."""
    source = Path(echo.__file__).read_bytes()
    return [pid for pid in supervisor.processes(ancestor) if source in words(pid)]


def words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(map(words, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(words, pids))


@every_means
def test_what_goes_wrong_costs_one_question(means: Protection) -> None:
    worker = Worker(echo, b"40", SMALL)
    assert worker.ask(b"2") == b"42"
    for bad in (b"sleep", b"die", b"bomb", b"much", b"lie"):
        start = time.monotonic()
        assert worker.ask(bad) is None
        assert time.monotonic() - start < 4
        assert worker.ask(b"2") == b"42"
    worker.close()
    assert worker.ask(b"3") == b"43"
    worker.close()


@every_means
def test_a_worker_ends_when_nobody_has_it(means: Protection) -> None:
    worker = Worker(echo, b"1", SMALL)
    worker.ask(b"2")
    running = workers(os.getpid())
    assert running
    del worker
    gc.collect()
    assert gone(running)


def test_processor_time_is_not_summed_over_questions() -> None:
    worker = Worker(echo, b"0", Limits(cpu=0.01))
    for number in range(300):
        assert worker.ask(str(number).encode()) == str(number).encode()
    worker.close()


def test_a_worker_of_a_thread_that_ended_loses_no_question() -> None:
    worker = Worker(echo, b"0", SMALL)
    for number in range(20):
        thread = threading.Thread(target=worker.ask, args=(b"pid",))
        thread.start()
        thread.join()
        assert worker.ask(str(number).encode()) == str(number).encode()
        worker.close()


@every_means
def test_a_busy_worker_ends_with_its_caller(means: Protection) -> None:
    lacking = {"bubblewrap": [], "unshare": ["bwrap"], "none": ["bwrap", "unshare"]}[means.means]
    program = f"""
from prefero.sandbox import Limits, Worker, confinement
from tests.sandbox import echo
which = confinement.shutil.which
confinement.shutil.which = lambda name: None if name in {lacking} else which(name)
worker = Worker(echo, b"0", Limits(wall=60))
worker.ask(b"1")
print("ready", flush=True)
worker.ask(b"sleep")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            running = workers(process.pid)
            assert running
        finally:
            process.kill()
    assert gone(running)


def test_an_interrupted_question_leaves_no_answer_to_the_next() -> None:
    worker = Worker(echo, b"0", Limits(wall=30))
    assert worker.ask(b"1") == b"1"
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.ask(b"short sleep")
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert worker.ask(b"2") == b"2"
    worker.close()


def test_a_fork_leaves_the_worker_alone() -> None:
    worker = Worker(echo, b"0", SMALL)
    assert worker.ask(b"1") == b"1"
    child = os.fork()
    if child == 0:
        worker.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert worker.ask(b"2") == b"2"
    worker.close()


def test_a_worker_that_cannot_start_is_an_error() -> None:
    with pytest.raises(PreferoError, match=r"does not start: .*invalid literal"):
        Worker(echo, b"not a number", SMALL).ask(b"1")
