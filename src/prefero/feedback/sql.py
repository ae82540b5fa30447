"""Text-to-SQL: queries judged by what they return from a database.

Liu et al., 2025, arXiv 2502.11656, and their released code. SQLite only. Queries are a model's and are not
trusted: they run on a connection that may only read, under a limit of work.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Rows = list[tuple[object, ...]]

Equality = Literal["set", "multiset", "ordered"]

READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""What a query may do."""

SLICE = 1000
"""Instructions between two looks at how much has been done."""


def run_query(
    database: sqlite3.Connection, query: str, *, steps: int = 50_000_000, most_rows: int = 100_000
) -> Rows | None:
    """The rows of one reading statement; None if it fails, writes, or takes more than ``steps`` instructions
    of SQLite's virtual machine or ``most_rows`` rows."""
    with _reading_only(database, steps):
        try:
            rows = database.execute(query).fetchmany(most_rows + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError):
            return None
    return rows if len(rows) <= most_rows else None


@contextmanager
def _reading_only(database: sqlite3.Connection, steps: int) -> Iterator[None]:
    left = max(1, steps // SLICE)

    def out_of_work() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def allowed(action: int, *_: object) -> int:
        return sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY

    database.set_authorizer(allowed)
    database.set_progress_handler(out_of_work, SLICE)
    try:
        yield
    finally:
        database.set_progress_handler(None, 0)
        database.set_authorizer(None)


def same_rows(first: Rows | None, second: Rows | None, equality: Equality = "set") -> bool:
    """Whether two results are equal: as sets (neither order nor repetitions count: the paper), multisets or
    in order. A query that failed equals nothing. Names of columns do not count, their order does."""
    if first is None or second is None:
        return False
    if equality == "ordered":
        return first == second
    return set(first) == set(second) if equality == "set" else Counter(first) == Counter(second)


def bytecode(database: sqlite3.Connection, query: str) -> Rows | None:
    """What SQLite compiles the query to: equal for queries that differ in spelling only; None if it cannot.
    It depends on the version of SQLite."""
    return run_query(database, f"EXPLAIN {query}")


def majority(results: Sequence[Rows | None]) -> list[int]:
    """The places of the queries in the largest group with the same set of rows, the first group of equally
    large ones. Failures do not vote; if all failed, the first query alone."""
    groups: dict[frozenset[tuple[object, ...]], list[int]] = {}
    for place, rows in enumerate(results):
        if rows is not None:
            groups.setdefault(frozenset(rows), []).append(place)
    return max(groups.values(), key=len) if groups else [0]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The places of the queries that may be chosen and rejected."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def sql_candidates(
    database: sqlite3.Connection, gold: str, queries: Sequence[str], equality: Equality = "set"
) -> Candidates:
    """Chosen are the queries that return what ``gold`` does and compile to something else, so that they are
    no copy of it; rejected are those that return something else, or fail. None if ``gold`` itself fails."""
    right = run_query(database, gold)
    if right is None:
        return Candidates((), ())
    program = bytecode(database, gold)
    chosen, rejected = [], []
    for place, query in enumerate(queries):
        if not same_rows(run_query(database, query), right, equality):
            rejected.append(place)
        else:
            compiled = bytecode(database, query)
            if program is not None and compiled is not None and compiled != program:
                chosen.append(place)
    return Candidates(tuple(chosen), tuple(rejected))
