"""Rows of data from files, folders, ``datasets``, the Hugging Face hub or Python objects.

Files are JSON lines, JSON, CSV, TSV and Parquet, the text ones also compressed with gzip. A row that cannot
be read carries its problem, so that the caller may leave it out; a source that cannot be read raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

from prefero.bounded_json import (
    DECODER,
    IN_FILE,
    Repeated,
    fault_in,
    not_utf8,
    place_of,
    repeated_in,
    unreadable,
)
from prefero.errors import PreferoError, nearest, number_of
from prefero.hub import hub_access, without_hub

TEXT_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ENDINGS = (*(f"{kind}{packed}" for kind in TEXT_ENDINGS for packed in ("", ".gz")), ".parquet")

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")

PART = re.compile(r"(.+)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?(\..+)")
"""The name of one of several files that hold a split, as the hub has them, perhaps with a hash."""

SUBFOLDER = "data"
"""Where data sets of the hub have their files."""

OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
"""Marks at the beginning of a file that is no UTF-8, the longer ones first."""

csv.field_size_limit(1 << 30)


@dataclass(frozen=True, slots=True)
class Row:
    """A record of a source: its ``origin`` and its fields, or its ``problem`` if it cannot be read.

    Paths in the fields are relative to ``folder``, that of the file. ``joined`` are the origins of further
    records that have been made one with it. ``merged`` tells that the row comes from a table, which gives
    every object of a column the keys of all.
    """

    origin: str
    fields: Mapping[str, Any]
    problem: str | None = None
    folder: Path | None = None
    joined: tuple[str, ...] = ()
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one source, read as they are asked for; iterate again to read again."""

    name: str
    read: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:
        return self.read()


Source = str | Path | Iterable[Mapping[str, Any]] | Rows
"""A path, a name on the hub, rows, or mappings, of which a :class:`datasets.Dataset` is an iterable too; a
table of pandas counts as its rows."""


def load_rows(source: Source, *, split: str = "train", streaming: bool = False) -> Rows:
    """The rows of ``source``, each with its origin.

    ``source`` is a file (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, each also as ``.gz``, or ``.parquet``), a
    folder written by ``save_to_disk`` or holding ``{split}.jsonl`` and the like, itself or in ``data``, a
    ``datasets.Dataset`` or ``DatasetDict``, any iterable of mappings, or a name on the Hugging Face hub
    (``"owner/name"``, with a configuration ``"owner/name:config"``). ``split`` chooses among several; a
    single file ignores it. With ``streaming`` a data set of the hub is fetched as far as its rows are read,
    and not kept. :class:`Rows` are returned as they are.

    Raises:
        PreferoError: the source is missing, empty, cut off or not what its ending says. A single row that
            cannot be read does not raise here: it carries its ``problem``.
    """
    if isinstance(source, Rows):
        return source
    if hasattr(source, "iterrows") and hasattr(source, "to_dict"):
        return load_rows(source.to_dict("records"))
    if hasattr(source, "keys") and hasattr(source, "values"):
        return _of_dataset(_choose(source, split, "the data set"), f"data set, split {split!r}")
    if hasattr(source, "column_names"):
        return _of_dataset(source, "data set")
    if not isinstance(source, str | Path):
        rows = source if isinstance(source, list | tuple) else list(source)
        return Rows("rows", partial(_of_memory, "rows", rows))
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path, split)
    if path.exists():
        ending(path)
        return Rows(path.name, partial(read_file, path))
    looks_like_file = name.startswith(("/", ".", "~")) or name.lower().endswith(ENDINGS)
    if looks_like_file or not HUB_NAME.fullmatch(name):
        raise PreferoError(f"{name}: there is no such file{_neighbours(path)}.")
    return _of_hub(name, split, path, streaming)


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f", nor the folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    return nearest(path.name, names)


def _of_folder(path: Path, split: str) -> Rows:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        import datasets

        try:
            loaded = datasets.load_from_disk(str(path))
        except Exception as error:
            raise PreferoError(f"{path}: the data set saved here cannot be opened: {error}") from error
        chosen = _choose(loaded, split, str(path)) if isinstance(loaded, dict) else loaded
        return _of_dataset(chosen, path.name if chosen is loaded else f"{path.name}/{split}")
    folders = [folder for folder in (path, path / SUBFOLDER) if folder.is_dir()]
    files = sorted(
        entry for folder in folders for entry in folder.iterdir() if entry.name.lower().endswith(ENDINGS)
    )
    fitting = [file for file in files if file.name.split(".")[0] == split]
    shards = _shards(files, split)
    if shards and not fitting:
        return Rows(f"{path.name}/{split}", lambda: chain.from_iterable(map(read_file, shards)))
    if len(fitting) == 1:
        return Rows(fitting[0].name, partial(read_file, fitting[0]))
    found = ", ".join(str(file.relative_to(path)) for file in files) or "nothing of the kind"
    raise PreferoError(
        f"{path}: expected a folder written by datasets' save_to_disk, or one file named {split}.jsonl "
        f"(or .json, .csv, .tsv, .parquet, .gz) or all parts {split}-00000-of-… of one kind, here or in "
        f"{SUBFOLDER}; found {found}. Name the file itself, or another split."
    )


def _shards(files: Iterable[Path], split: str) -> list[Path]:
    """The parts of a split that is written in several files, ``train-00000-of-00002.parquet``, in order; none
    where some are missing or there are two kinds."""
    named = [(file, PART.fullmatch(file.name)) for file in files]
    parts = [(file, found) for file, found in named if found and found[1] == split]
    whole = len({found.group(3, 4) for _, found in parts}) == 1 and len(parts) == int(parts[0][1][3])
    numbers = {int(found[2]) for _, found in parts}
    return [file for file, _ in parts] if whole and numbers == set(range(len(parts))) else []


def _choose(splits: Any, split: str, where: str) -> Any:
    if split in splits:
        return splits[split]
    names = ", ".join(map(str, splits))
    raise PreferoError(
        f"{where} has no split {split!r}{nearest(split, map(str, splits))}. Its splits: {names}."
    )


def _of_hub(name: str, split: str, path: Path, streaming: bool) -> Rows:
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        with hub_access(name):
            loaded = datasets.load_dataset(
                repository, configuration or None, split=split, streaming=streaming
            )
    except Exception as error:
        if streaming:
            return _of_hub(name, split, path, False)  # without a connection there may be a copy in the cache
        if away := without_hub(name, "data"):
            hint = (
                nearest(path.name, [entry.name for entry in path.parent.iterdir()])
                if path.parent.is_dir()
                else ""
            )
            raise PreferoError(f"no data can be loaded from {name!r}{hint}: {away}") from error
        raise PreferoError(
            f"{name!r} is neither a file here{_neighbours(path)} nor could it be loaded from the Hugging "
            f"Face hub (split {split!r}): {_first_line(error)}. Check the name and the connection, or "
            "download the data set and name its file."
        ) from error
    return _of_dataset(loaded, f"{name}, split {split!r}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _of_dataset(dataset: Any, name: str) -> Rows:
    """The rows of a ``datasets.Dataset``, with images as they are stored: decoded they would fill the
    memory."""
    import datasets

    for column, feature in (getattr(dataset, "features", None) or {}).items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image) and inner.decode:
            kept = datasets.Image(mode=inner.mode, decode=False)
            dataset = dataset.cast_column(column, kept if inner is feature else type(feature)(kept))
    return Rows(name, partial(_of_table, name, dataset))


def _of_table(name: str, dataset: Any) -> Iterator[Row]:
    """The rows of a data set, with the names of its classes in place of their numbers."""
    classes = _classes(getattr(dataset, "features", None) or {})
    for row in _of_memory(name, _uninterrupted(name, dataset)):
        yield replace(row, fields=_named_classes(row.fields, classes), merged=True)


def _uninterrupted(name: str, dataset: Iterable[Any]) -> Iterator[Any]:
    """The records of a data set. Raises :class:`PreferoError` where the next one cannot be fetched or
    decoded."""
    count, records = 0, iter(dataset)
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # of the connection, the file's kind, or a script of the data set
            raise PreferoError(
                f"{name}, row {count + 1}: the data set cannot be read further: {_first_line(error)}. Try "
                "again, or download its files and name them."
            ) from error
        count += 1
        yield record


def _classes(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the classes of each column that holds such numbers."""
    import datasets

    return {
        name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)
    }


def _named_classes(fields: Mapping[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields with the names of classes; a negative number means that there is none."""
    named = {
        name: names[number] if isinstance(number, int) and 0 <= number < len(names) else None
        for name, names in classes.items()
        if not isinstance(number := fields.get(name), str)
    }
    return {name: named.get(name, value) for name, value in fields.items()}


def _of_memory(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    count = 0
    for count, fields in enumerate(rows, start=1):
        origin = f"{name}, row {count}"
        if isinstance(fields, Mapping):
            listed = {name: _listed(value) for name, value in fields.items()}
            merged = any(listed[name] is not value for name, value in fields.items())
            yield _whole(Row(origin, listed, merged=merged))
        else:
            kind = type(fields).__name__
            yield Row(origin, {}, f"{origin}: expected a mapping of fields, found {kind}")
    if count == 0:
        raise PreferoError(f"{name} holds no rows.")


def _listed(value: Any) -> Any:
    """The value, and a list for an array of objects, as which pandas has lists."""
    return _as_lists(value) if str(getattr(value, "dtype", "")) == "object" else value


def _as_lists(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value


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
    """The rows of a file. Raises :class:`PreferoError` if it is empty, cut off, or not what its ending
    says."""
    kind = ending(path)
    if path.stat().st_size == 0:
        raise PreferoError(f"{path}: the file is empty (0 bytes). Expected one row of data at least.")
    readers = {".json": _json, ".csv": _csv, ".tsv": _csv}
    rows = _parquet(path) if kind == ".parquet" else readers.get(kind.removesuffix(".gz"), _json_lines)(path)
    empty = True
    for row in rows:
        empty = False
        if isinstance(row.fields, dict):
            yield _whole(replace(row, folder=path.parent))
        else:
            kind = type(row.fields).__name__
            yield Row(row.origin, {}, f"{row.origin}: expected an object of named fields, found {kind}")
    if empty:
        raise PreferoError(f"{path}: the file holds no rows.")


def _whole(row: Row) -> Row:
    """The row, or its problem where its values are nothing that can be read and written again: a text that
    is no Unicode, a field that an object has twice, values nested too deeply."""
    if (fault := fault_in(row.fields)) is None:
        return row
    _, told, remedy = fault
    return replace(row, fields={}, problem=f"{row.origin}: {told}{place_of(fault)}. {remedy}")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed; says after which line a compressed file breaks off."""
    number = 0
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        try:
            for line in file:
                number += 1
                if number == 1:
                    _refuse_other_encoding(path, line)
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


def _refuse_other_encoding(path: Path, first_line: bytes) -> None:
    """Raise :class:`PreferoError` for a file that is UTF-16 or UTF-32, by its mark, or by the zero bytes
    that every second character of Latin script has there."""
    found = next((name for mark, name in OTHER_ENCODINGS.items() if first_line.startswith(mark)), None)
    if found is None and b"\x00" in first_line[:2]:
        found = "UTF-16"
    if found is not None:
        raise PreferoError(
            f"{path}: the file is {found}, not UTF-8. Save it as UTF-8 (iconv -f {found} -t UTF-8)."
        )


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"{not_utf8(error)}. Save the file as UTF-8 (iconv -f latin1 -t utf-8)"


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
        if not line.removeprefix(BOM_UTF8 if number == 1 else b"").strip():
            continue
        origin = f"{path.name}, row {number}"
        try:
            fields = DECODER.decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield Row(origin, {}, f"{origin}: {_not_utf8(error)}")
        except (ValueError, RecursionError) as error:
            if number == 1 and line.strip() == b"[":
                raise PreferoError(
                    f"{path}: the file is one JSON array, where one row per line is expected. Rename the "
                    "file to .json."
                ) from error
            yield Row(origin, {}, f"{origin}: {unreadable(error)}. Repair the line")
        else:
            if number == 1 and isinstance(fields, list) and fields and isinstance(fields[0], dict):
                raise PreferoError(
                    f"{path}: the first line is a JSON array, where one row per line is expected. Rename the "
                    "file to .json."
                )
            yield Row(origin, fields)


def _json(path: Path) -> Iterator[Row]:
    """An array of objects, an object of equally long lists, one with a list of objects, or JSON lines. Rows,
    or the cells of a column, may be numbered, as pandas has them."""
    text = _text(path)
    start = _skip_space(text, 0)
    if start == len(text):
        return
    if text[start] == "[":
        yield from _json_array(path, text, start + 1)
        return
    try:
        value, stop = DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise PreferoError(f"{path.name}, row 1: {unreadable(error, IN_FILE)}. Repair the file.") from error
    if _skip_space(text, stop) < len(text):
        yield from _json_lines(path)
        return
    columns = list(value.values()) if isinstance(value, dict) else []
    for held in (value, *columns):
        if isinstance(held, Repeated):
            raise PreferoError(
                f"{path.name}: the field {held.name!r} stands twice in one object. Leave one of the two out."
            )
    fields = _unnumbered(value) if isinstance(value, dict) else {}
    lists = {name: held for name, held in fields.items() if isinstance(held, list)}
    of_rows = [name for name, held in lists.items() if held and all(isinstance(row, dict) for row in held)]
    if lists and len(lists) == len(fields) and len({len(held) for held in lists.values()}) == 1:
        if len(fields) == 1 and of_rows:
            rows = lists[of_rows[0]]
        else:
            rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    elif len(of_rows) == 1 or "rows" in of_rows:
        rows = lists["rows" if "rows" in of_rows else of_rows[0]]
    elif fields and not lists:
        rows = [fields]
    else:
        kind = f"an object with the fields {', '.join(fields)}" if fields else type(value).__name__
        raise PreferoError(
            f"{path}: expected a JSON array of rows, or an object whose fields are equally long lists; found "
            f"{kind}."
        )
    for number, row in enumerate(rows, start=1):
        yield Row(f"{path.name}, row {number}", _unwrapped(row))


def _unnumbered(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with lists in place of objects that number their items; one list of rows if they are such an
    object themselves."""
    if _is_numbered(fields):
        return {"rows": list(fields.values())}
    return {n: list(held.values()) if _is_numbered(held) else held for n, held in fields.items()}


def _is_numbered(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(str.isdecimal, value))


def _unwrapped(row: Any) -> Any:
    """The row inside an object that the hub's viewer wraps it in, with its number; any other row as it is."""
    wrapped = isinstance(row, dict) and "row_idx" in row and isinstance(row.get("row"), dict)
    return row["row"] if wrapped else row


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _json_array(path: Path, text: str, position: int) -> Iterator[Row]:
    """The elements of a JSON array one by one, so that a broken one can be named."""
    number = 0
    while True:
        position = _skip_space(text, position)
        if position < len(text) and text[position] == "]" and number == 0:
            return
        number += 1
        origin = f"{path.name}, row {number}"
        try:
            fields, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise PreferoError(f"{origin}: {unreadable(error, IN_FILE)}. Repair the file.") from error
        yield Row(origin, fields)
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


def _delimiter(path: Path, text: str) -> str:
    """The mark between cells: a tab in TSV, in CSV the one that the header has."""
    if ending(path).startswith(".tsv"):
        return "\t"
    header = text.partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _csv(path: Path) -> Iterator[Row]:
    text = _text(path)
    mark = _delimiter(path, text)
    absent = object()
    reader = csv.DictReader(
        io.StringIO(text, newline=""), restval=cast(str, absent), delimiter=mark, strict=True
    )
    number = 0
    try:
        _refuse_repeated(path, list(reader.fieldnames or ()))
        for number, fields in enumerate(reader, start=1):
            origin = f"{path.name}, row {number} (line {reader.line_num})"
            missing = sum(value is absent for value in fields.values())
            if None in fields or missing:
                count = number_of(missing or len(fields[None]), "fewer cell" if missing else "more cell")
                remedy = "Write every cell, empty ones too" if missing else f"Quote texts with {mark!r}"
                yield Row(origin, {}, f"{origin}: {count} than the header has columns. {remedy}")
            else:
                yield Row(origin, fields)
    except csv.Error as error:
        raise PreferoError(f"{path.name}, row {number + 1}: broken CSV: {error}.") from error


def _refuse_repeated(path: Path, names: list[str]) -> None:
    """Raise :class:`PreferoError` for columns of one name."""
    if twice := repeated_in(names):
        raise PreferoError(
            f"{path.name}: more than one column has the name {', '.join(map(repr, twice))}: it stands twice. "
            "Name every column differently."
        )


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            number = 0
            schema = file.schema_arrow
            _refuse_repeated(path, schema.names)
            classes = _classes_of_schema(path, schema)
            for batch in file.iter_batches(batch_size=1024):
                for fields in _records(batch):
                    number += 1
                    origin = f"{path.name}, row {number}"
                    if isinstance(fields, str):
                        yield Row(origin, {}, f"{origin}: {fields}")
                    else:
                        yield Row(origin, _named_classes(fields, classes), merged=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise PreferoError(
            f"{path}: cannot be read as Parquet: {_first_line(error)}. Fetch it again."
        ) from error


def _classes_of_schema(path: Path, schema: Any) -> dict[str, list[str]]:
    """The names of the classes of each column, which ``datasets`` keeps beside the schema."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    try:
        return _classes(datasets.Features.from_arrow_schema(schema))
    except Exception as error:  # of any kind: it is text that anybody may have written
        raise PreferoError(
            f"{path}: the description of its columns ('huggingface' in its metadata) cannot be read: "
            f"{_first_line(error)}. Write the file again."
        ) from error


def _records(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The records of a batch as Python has them, and in place of one that Python cannot hold, the reason."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):  # texts that are no UTF-8, dates that Python does not know
        pass
    for place in range(len(batch)):
        record: dict[str, Any] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                record[name] = column[place].as_py()
            except UnicodeDecodeError as error:
                yield f"the field {name} holds a text that is {_not_utf8(error)}"
                break
            except (ValueError, OverflowError) as error:
                yield f"the field {name} cannot be read: {_first_line(error)}"
                break
        else:
            yield record
