"""Queries that attack their judge, and the caller's connection, which stays as it was."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefero.errors import PreferoError
from prefero.feedback.sql import _worker, bytecode, run_query, sql_candidates


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:")
    found.executescript("CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'x'),(3,'y');")
    yield found
    found.close()


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT printf('%.*c', 900000000, 'x')",
        "SELECT length(printf('%.*c', 2000000000, 'x')) FROM t",
        "SELECT hex(zeroblob(400000000))",
        "SELECT randomblob(900000000)",
        "SELECT replace(hex(zeroblob(499999)), '00', printf('%999d', 1))",
        f"{NUMBERS} SELECT group_concat(printf('%9999d', i)) FROM n",
        f"{NUMBERS} SELECT zeroblob(900000) FROM n LIMIT 90000",
        f"{NUMBERS} SELECT count(*) FROM n a, n b",
        f"{NUMBERS} SELECT i FROM n ORDER BY -i",
        f"SELECT {'(' * 5000}1{')' * 5000}",
        f"SELECT '{'x' * 200_000}'",
        "SELECT load_extension('/tmp/x.so')",
        "ATTACH '/etc/passwd' AS other",
        "VACUUM INTO '/tmp/stolen.db'",
        "SELECT 1\0",
        "SELECT '\ud800'",
    ],
)
def test_no_query_takes_more_than_its_time(database: sqlite3.Connection, query: str) -> None:
    start = time.monotonic()
    assert run_query(database, query, seconds=1.0) is None
    assert time.monotonic() - start < 8
    assert run_query(database, "SELECT a FROM t") == [(1,), (2,), (3,)]


def test_values_come_back_as_they_are(database: sqlite3.Connection) -> None:
    query = "SELECT NULL, 9223372036854775807, 0.1, 9e999, 'ä''\"', x'00ff', '', x''"
    assert run_query(database, query) == [(None, 2**63 - 1, 0.1, float("inf"), "ä'\"", b"\x00\xff", "", b"")]


def test_the_connection_stays_as_it_was(database: sqlite3.Connection) -> None:
    asked = []

    def authorizer(action: int, *_: object) -> int:
        asked.append(action)
        reading = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        return sqlite3.SQLITE_OK if reading else sqlite3.SQLITE_DENY

    ticks = []
    database.row_factory = sqlite3.Row
    database.set_authorizer(authorizer)
    database.set_progress_handler(lambda: ticks.append(1), 1)
    assert run_query(database, "SELECT max(a) FROM t") == [(3,)]
    asked.clear()
    ticks.clear()
    assert next(database.execute("SELECT a FROM t"))["a"] == 1
    assert asked and ticks
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        database.execute("DELETE FROM t")


def test_queries_see_the_database_of_this_moment(database: sqlite3.Connection) -> None:
    assert run_query(database, "SELECT count(*) FROM t") == [(3,)]
    database.execute("INSERT INTO t VALUES (4, 'z')")  # not committed
    assert database.in_transaction
    assert run_query(database, "SELECT count(*) FROM t") == [(4,)]
    database.rollback()
    assert run_query(database, "SELECT count(*) FROM t") == [(3,)]
    database.execute("CREATE TABLE u(c)")
    assert run_query(database, "SELECT * FROM u") == []


def test_databases_of_every_kind(tmp_path: Path, database: sqlite3.Connection) -> None:
    empty = sqlite3.connect(":memory:")
    assert run_query(empty, "SELECT 1") == [(1,)]
    log = sqlite3.connect(tmp_path / "log.db")
    log.execute("PRAGMA journal_mode=WAL")
    log.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (5);")
    assert run_query(log, "SELECT a FROM t") == [(5,)]
    log.execute(f'ATTACH \'{tmp_path / "other.db"}\' AS "the ""other"""')
    log.execute('CREATE TABLE "the ""other""".u(b)')
    assert run_query(log, 'SELECT a, (SELECT count(*) FROM "the ""other""".u) FROM t') == [(5, 0)]
    reading = sqlite3.connect(f"file:{tmp_path / 'log.db'}?mode=ro", uri=True)
    assert run_query(reading, "SELECT a FROM t") == [(5,)]
    database.execute("CREATE TEMP TABLE notes(n)")
    with pytest.raises(PreferoError, match="temporary table, 'notes'"):
        run_query(database, "SELECT 1")
    for connection in (empty, log, reading):
        connection.close()


def test_a_worker_is_kept_from_query_to_query(database: sqlite3.Connection) -> None:
    _worker.cache_clear()
    for number in range(50):
        assert run_query(database, f"SELECT {number}") == [(number,)]
    assert _worker.cache_info().misses == 1
    sql_candidates(database, "SELECT a FROM t", ["SELECT b FROM t", "SELECT a FROM t WHERE 1"])
    assert bytecode(database, "SELECT a FROM t") == bytecode(database, "select  a from t")
    assert _worker.cache_info().misses == 1


def test_threads_share_a_worker(tmp_path: Path, database: sqlite3.Connection) -> None:
    """One that was started by a thread that has ended is replaced without losing a query."""
    file = tmp_path / "shared.db"
    with sqlite3.connect(file) as shared:
        shared.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (7);")
    shared.close()
    wrong = []

    def judge(number: int) -> None:
        own = sqlite3.connect(file)
        for _ in range(20):
            if run_query(own, f"SELECT a + {number} FROM t") != [(7 + number,)]:
                wrong.append(number)
        own.close()

    for _ in range(2):
        threads = [threading.Thread(target=judge, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
