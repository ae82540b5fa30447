"""The process that runs queries on a copy of a database: a script for ``sandbox.Worker``.

The first message is JSON with the names of the databases and their sizes, a line feed, and the databases as
SQLite serialises them. Each later message is one JSON object: ``query``, ``steps``, ``most_rows``; the answer
is the rows, or null. Values are as in JSON, blobs are objects with the one key ``blob``.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
from typing import Any, BinaryIO

READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""What a query may do."""

SLICE = 1000
"""Instructions between two looks at how much has been done."""

LENGTHS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
}
"""Bytes of a value, of a query and of a pattern. One instruction takes time in proportion to them, or to
their product, and nothing looks at the clock meanwhile but whoever waits for the answer."""

FAILURES = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError)


def copy_of(message: bytes) -> sqlite3.Connection:
    """A connection to the databases in a message, which reads them and does nothing else."""
    head, _, content = message.partition(b"\n")
    database = sqlite3.connect(":memory:", isolation_level=None)
    start = 0
    for name, size in json.loads(head):
        if name != "main":
            quoted = name.replace('"', '""')
            database.execute(f"ATTACH ':memory:' AS \"{quoted}\"")
        if size:
            database.deserialize(content[start : start + size], name=name)
        start += size
    for limit, value in LENGTHS.items():
        database.setlimit(limit, value)
    database.set_authorizer(allowed)
    return database


def allowed(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY


def rows_of(
    database: sqlite3.Connection, query: str, steps: int, most_rows: int
) -> list[tuple[Any, ...]] | None:
    """The rows of one statement; None if it fails or takes too much."""
    left = max(1, steps // SLICE)

    def out_of_work() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    database.set_progress_handler(out_of_work, SLICE)
    try:
        rows = database.execute(query).fetchmany(most_rows + 1)
    except FAILURES:
        return None
    return rows if len(rows) <= most_rows else None


def blob(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"not a value of SQLite: {value!r}")
    return {"blob": base64.b64encode(value).decode()}


def answer(database: sqlite3.Connection, question: bytes) -> bytes:
    try:
        return json.dumps(rows_of(database, **json.loads(question)), default=blob).encode()
    except MemoryError:
        return b"null"


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer messages until there are none."""
    database = None
    while head := source.read(8):
        message = source.read(int.from_bytes(head, "big"))
        if database is None:
            database, reply = copy_of(message), b"ready"
        else:
            reply = answer(database, message)
        sink.write(len(reply).to_bytes(8, "big") + reply)
        sink.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
