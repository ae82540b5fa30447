"""Tasks measured by several processes at once, each of which keeps to the seeds whose data it has made."""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from prefero.errors import PreferoError
from prefero_lab.papers.measure import KEPT, Bench, Task
from prefero_lab.papers.results import Measured

Result = Measured | Exception
Begun = Callable[[Task], None]
"""Told of each task that is begun."""


def measured(tasks: Sequence[Task], jobs: int, begun: Begun) -> Iterator[tuple[Task, Result]]:
    """Every task with its result, or with the error that it ended in, as they come."""
    if jobs == 1:
        return _here(tasks, begun)
    return _elsewhere(tasks, min(jobs, len(tasks)), begun)


def _here(tasks: Sequence[Task], begun: Begun) -> Iterator[tuple[Task, Result]]:
    bench = Bench()
    for task in tasks:
        begun(task)
        try:
            result: Result = bench(task)
        except Exception as error:
            result = error
        yield task, result


def _elsewhere(tasks: Sequence[Task], jobs: int, begun: Begun) -> Iterator[tuple[Task, Result]]:
    waiting, workers = list(tasks), [_Worker() for _ in range(jobs)]
    try:
        for worker in workers:
            worker.begin(_next(waiting, worker, workers), begun)
        while busy := {worker.connection: worker for worker in workers if worker.task}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                task, result = worker.finished()
                if waiting:
                    if not worker.process.is_alive():
                        workers[workers.index(worker)] = worker = _Worker()
                    worker.begin(_next(waiting, worker, workers), begun)
                yield task, result
    finally:
        for worker in workers:
            worker.end()


def _next(waiting: list[Task], worker: _Worker, workers: Sequence[_Worker]) -> Task:
    """Taken from what is waiting: a task whose start and data the worker has made; else one for which nobody
    has; else the first."""
    others = {one for each in workers for one in each.made}
    own = (task for task in waiting if task.made_from in worker.made)
    new = (task for task in waiting if task.made_from not in others)
    chosen = next(own, None) or next(new, None) or waiting[0]
    waiting.remove(chosen)
    return chosen


class _Worker:
    """A process with a bench, and what this one knows of it."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.made: deque[str] = deque(maxlen=KEPT)

    def begin(self, task: Task, begun: Begun) -> None:
        begun(task)
        self.task = task
        if task.made_from not in self.made:
            self.made.append(task.made_from)
        self.connection.send(task)

    def finished(self) -> tuple[Task, Result]:
        task, self.task = self.task, None
        assert task is not None
        try:
            return task, self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            return task, PreferoError(f"the process that measured it ended with {code}: too little memory?")

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """The process: tasks come in, results go out, until nobody is at the other end. Ctrl-C is for the one
    that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    bench = Bench()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            result: Result = bench(task)
        except Exception as error:  # as one that any process can read
            known = isinstance(error, PreferoError)
            result = PreferoError(str(error) if known else f"{type(error).__name__}: {error}")
            result.add_note(traceback.format_exc())
        connection.send(result)
