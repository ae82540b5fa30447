"""Text-to-SQL: queries judged by what they return from a database.

Liu et al., 2025, arXiv 2502.11656, and their released code. SQLite only. Queries are a model's and are not
trusted: they run in a process of the sandbox, on a copy of the database that they may only read, under limits
of work, time, memory and length. The caller's connection is copied and not touched otherwise.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from prefero.errors import PreferoError
from prefero.feedback import sql_worker
from prefero.sandbox import Limits, Worker

Rows = list[tuple[object, ...]]

Equality = Literal["set", "multiset", "ordered"]

MEMORY = 256 * 2**20
"""Bytes of memory for queries, beside three times the database."""

ANSWER = 16 * 2**20
"""Bytes of the largest result, written as JSON."""

VERSIONS = slice(18, 20)
"""Where a database says that it has a write-ahead log, which its copy in memory has not."""


def run_query(
    database: sqlite3.Connection,
    query: str,
    *,
    steps: int = 50_000_000,
    most_rows: int = 100_000,
    seconds: float = 5.0,
) -> Rows | None:
    """The rows of one reading statement; None if it fails, writes, takes more than ``steps`` instructions of
    SQLite's virtual machine, ``most_rows`` rows, ``seconds`` on the clock or 256 MiB, returns more than 16
    MiB written as JSON, or makes a value of more than a million bytes.

    It sees the connection's databases, attached ones included, as they are at this moment, with uncommitted
    changes of the connection. Functions and collations that the connection defines in Python are not there.
    Raises ``PreferoError`` if the connection has temporary tables, which cannot be copied.
    """
    return _answer(_copied(database), query, steps=steps, most_rows=most_rows, seconds=seconds)


def _answer(
    databases: bytes, query: str, *, steps: int = 50_000_000, most_rows: int = 100_000, seconds: float = 5.0
) -> Rows | None:
    question = json.dumps({"query": query, "steps": steps, "most_rows": most_rows})
    memory = MEMORY + 3 * len(databases)
    answer = _worker(databases, Limits(wall=seconds, memory=memory, output=ANSWER), os.getpid()).ask(
        question.encode()
    )
    rows = json.loads(answer) if answer else None
    return None if rows is None else [tuple(map(_value, row)) for row in rows]


def _value(value: object) -> object:
    return base64.b64decode(value["blob"]) if isinstance(value, dict) else value


@lru_cache(maxsize=1)
def _worker(databases: bytes, limits: Limits, process: int) -> Worker:
    """The worker for the last databases, which is kept for the next query; a fork of this process has its
    own."""
    return Worker(sql_worker, databases, limits)


def _copied(database: sqlite3.Connection) -> bytes:
    """A connection's databases as the worker takes them."""
    contents = {name: _content(database, name) for name in _names(database)}
    sizes = json.dumps([(name, len(content)) for name, content in contents.items()])
    return b"".join((sizes.encode(), b"\n", *contents.values()))


def _names(database: sqlite3.Connection) -> list[str]:
    """The databases of a connection; the main one alone if its authorizer does not tell."""
    try:
        names = [row[1] for row in database.execute("PRAGMA database_list").fetchall()]
        temporary = "temp" in names and database.execute("SELECT * FROM temp.sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        return ["main"]
    if temporary:
        raise PreferoError(
            f"the connection has a temporary table, {temporary[1]!r}, which queries that are judged would "
            "not see: make it a table of the database"
        )
    return [name for name in names if name != "temp"]


def _content(database: sqlite3.Connection, name: str) -> bytes:
    try:
        content = database.serialize(name=name)
    except sqlite3.Error:  # it is empty, or an authorizer forbids to ask for its size
        if database.in_transaction:
            raise PreferoError(
                f"the database {name!r} cannot be copied within a transaction: commit first"
            ) from None
        with closing(sqlite3.connect(":memory:")) as copy:
            database.backup(copy, name=name)
            pages = copy.execute("PRAGMA page_count").fetchone()[0]
            content = copy.serialize() if pages else b""
    return b"\1\1".join((content[: VERSIONS.start], content[VERSIONS.stop :])) if content else content


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
    databases = _copied(database)
    right = _answer(databases, gold)
    if right is None:
        return Candidates((), ())
    program = _answer(databases, f"EXPLAIN {gold}")
    chosen, rejected = [], []
    for place, query in enumerate(queries):
        if not same_rows(_answer(databases, query), right, equality):
            rejected.append(place)
        else:
            compiled = _answer(databases, f"EXPLAIN {query}")
            if program is not None and compiled is not None and compiled != program:
                chosen.append(place)
    return Candidates(tuple(chosen), tuple(rejected))
