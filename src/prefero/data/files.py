"""Data files, row by row: JSON lines, JSON, CSV and Parquet, also compressed with gzip.

A row that cannot be read carries its problem, so that the caller may leave it out; a file that cannot be read
raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefero.errors import PreferoError

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")

csv.field_size_limit(1 << 30)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, its fields, and what is wrong with it if it cannot be read.

    ``folder`` is what paths in it are relative to: that of its file.
    """

    origin: str
    fields: Mapping[str, Any]
    problem: str | None = None
    folder: Path | None = None


def ending(path: Path) -> str:
    """The known ending of ``path``, gzip's included; an error that lists the known ones if it has none."""
    name = path.name.lower()
    for known in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(known):
            return known
    raise PreferoError(
        f"{path}: unknown kind of file {''.join(path.suffixes) or '(no ending)'!r}. "
        f"Known endings: {', '.join(ENDINGS)}. Convert it, or rename it if its content is one of these."
    )


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a file.

    Raises:
        PreferoError: the file is empty, cut off, or not what its ending says.
    """
    kind = ending(path)
    if path.stat().st_size == 0:
        raise PreferoError(f"{path}: the file is empty (0 bytes). Expected one row of data at least.")
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv}
    rows = _parquet(path) if kind == ".parquet" else readers[kind.removesuffix(".gz")](path)
    count = 0
    for row in rows:
        count += 1
        yield replace(row, folder=path.parent)
    if count == 0:
        raise PreferoError(f"{path}: the file holds no rows.")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed; says after which line a compressed file breaks off."""
    number = 0
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        try:
            for line in file:
                number += 1
                yield line
        except EOFError as error:
            raise PreferoError(
                f"{path}: the gzip file breaks off after line {number}: it was not copied or written to its "
                "end. Fetch it again."
            ) from error
        except (OSError, zlib.error) as error:
            raise PreferoError(
                f"{path}: cannot be decompressed after line {number}: {error}. Fetch it again, or correct "
                "its ending if it is not a gzip file."
            ) from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    return (
        f"not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start}). "
        "Save the file as UTF-8 (iconv -f latin1 -t utf-8)"
    )


def _text(path: Path) -> str:
    lines = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise PreferoError(f"{path.name}, line {number}: {_not_utf8(error)}.") from error
    return "".join(lines)


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        origin = f"{path.name}, row {number}"
        try:
            fields = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield Row(origin, {}, f"{origin}: {_not_utf8(error)}")
        except json.JSONDecodeError as error:
            yield Row(
                origin, {}, f"{origin}: broken JSON: {error.msg} at column {error.colno}. Repair the line"
            )
        else:
            yield _mapping(origin, fields)


def _mapping(origin: str, fields: Any) -> Row:
    if isinstance(fields, dict):
        return Row(origin, fields)
    problem = f"{origin}: expected an object of named fields, found {type(fields).__name__}"
    return Row(origin, {}, problem)


def _json(path: Path) -> Iterator[Row]:
    """An array of objects, an object of equally long lists, an object with one list of objects, or JSON lines
    (perhaps one alone) under the wrong name."""
    text = _text(path)
    start = _skip_space(text, 0)
    if start == len(text):
        return
    if text[start] == "[":
        yield from _json_array(path, text, start + 1)
        return
    try:
        value, stop = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise PreferoError(f"{path.name}, row 1: broken JSON: {error.msg} at {place}.") from error
    if _skip_space(text, stop) < len(text):
        yield from _json_lines(path)
        return
    fields = value if isinstance(value, dict) else {}
    lists = {name: held for name, held in fields.items() if isinstance(held, list)}
    of_rows = [name for name, held in lists.items() if held and all(isinstance(row, dict) for row in held)]
    if lists and len(lists) == len(fields) and len({len(held) for held in lists.values()}) == 1:
        if len(fields) == 1 and of_rows:
            rows = lists[of_rows[0]]
        else:
            rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    elif len(of_rows) == 1:
        rows = lists[of_rows[0]]
    elif fields and not lists:
        rows = [fields]
    else:
        kind = f"an object with the fields {', '.join(fields)}" if fields else type(value).__name__
        raise PreferoError(
            f"{path}: expected a JSON array of rows, or an object whose fields are equally long lists; found "
            f"{kind}."
        )
    for number, row in enumerate(rows, start=1):
        yield _mapping(f"{path.name}, row {number}", row)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _json_array(path: Path, text: str, position: int) -> Iterator[Row]:
    """The elements of a JSON array one by one, so that a broken one can be named."""
    decoder = json.JSONDecoder()
    number = 0
    while True:
        position = _skip_space(text, position)
        if position < len(text) and text[position] == "]" and number == 0:
            return
        number += 1
        origin = f"{path.name}, row {number}"
        try:
            fields, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise PreferoError(f"{origin}: broken JSON: {error.msg} at {place}.") from error
        yield _mapping(origin, fields)
        position = _skip_space(text, position)
        closing = text[position : position + 1]
        if closing == "]":
            return
        if closing != ",":
            raise PreferoError(
                f"{origin}: broken JSON: expected a comma or the end of the array after this row, found "
                f"{repr(closing) if closing else 'the end of the file'}."
            )
        position += 1


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    number = 0
    try:
        for number, fields in enumerate(reader, start=1):
            origin = f"{path.name}, row {number} (line {reader.line_num})"
            if None in fields:
                extra = len(fields[None])
                yield Row(origin, {}, f"{origin}: {extra} more cells than the header has columns")
            else:
                yield Row(origin, fields)
    except csv.Error as error:
        raise PreferoError(f"{path.name}, row {number + 1}: broken CSV: {error}.") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}, row {number}", fields)
    except (pyarrow.ArrowException, OSError) as error:
        raise PreferoError(f"{path}: cannot be read as Parquet: {error}. Fetch it again.") from error
