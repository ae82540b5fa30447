"""Rows come out the same whatever they are kept in, and a damaged source says where it is damaged."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from prefero.data.files import load_rows
from prefero.errors import PreferoError

ROWS = [
    {"prompt": "Hi, how are you?", "chosen": 'fine, "thanks"', "rejected": "bad\nvery bad", "score": 1.5},
    {"prompt": "Grüße, 你好", "chosen": "hallo", "rejected": "nein", "score": 2.0},
]


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def as_csv(rows: list[dict[str, Any]]) -> str:
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


TEXTS = {
    "lines.jsonl": "\n".join(map(json.dumps, ROWS)),
    "lines.jsonl.gz": "\n".join(map(json.dumps, ROWS)) + "\n",
    "array.json": json.dumps(ROWS, indent=2),
    "array.json.gz": json.dumps(ROWS),
    "columns.json": json.dumps(as_columns(ROWS)),
    "nested.json": json.dumps({"version": "1", "data": ROWS}),
    "only.json": json.dumps({"data": ROWS}),
    "line.json": json.dumps(ROWS[0]),
    "lines.json": "\n".join(map(json.dumps, ROWS)),
}


def fields(source: Any, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in load_rows(source, **options)]


@pytest.mark.parametrize("name", TEXTS)
def test_json_in_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    expected = ROWS[:1] if name == "line.json" else ROWS
    assert fields(write(tmp_path / name, TEXTS[name])) == expected


def test_a_byte_order_mark_is_not_part_of_the_data(tmp_path: Path) -> None:
    for name in ("lines.jsonl", "array.json"):
        assert fields(write(tmp_path / name, b"\xef\xbb\xbf" + TEXTS[name].encode())) == ROWS


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_csv_keeps_commas_quotes_and_line_breaks(tmp_path: Path, name: str) -> None:
    expected = [{key: str(value) for key, value in row.items()} for row in ROWS]
    assert fields(write(tmp_path / name, as_csv(ROWS))) == expected


@pytest.mark.oldest
def test_parquet_and_datasets_give_the_same_rows(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    splits = datasets.DatasetDict({"train": dataset, "test": dataset.select([1])})
    splits.save_to_disk(tmp_path / "splits")
    assert fields(tmp_path / "rows.parquet") == ROWS
    assert fields(tmp_path / "saved") == ROWS
    assert fields(dataset) == ROWS
    assert fields(splits) == ROWS
    assert fields(splits, split="test") == fields(tmp_path / "splits", split="test") == ROWS[1:]
    assert fields(ROWS) == fields(iter(ROWS)) == ROWS


def test_a_folder_of_files_has_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", TEXTS["lines.jsonl"])
    write(tmp_path / "test.json.gz", json.dumps(ROWS[1:]))
    assert fields(tmp_path) == ROWS
    assert fields(tmp_path, split="test") == ROWS[1:]
    with pytest.raises(PreferoError, match=r"dev\.jsonl.*found test\.json\.gz, train\.jsonl"):
        load_rows(tmp_path, split="dev")


def test_origins_count_lines_from_one_and_blank_lines_too(tmp_path: Path) -> None:
    lines = [json.dumps(ROWS[0]), "", json.dumps(ROWS[1])]
    origins = [row.origin for row in load_rows(write(tmp_path / "train.jsonl", "\n".join(lines)))]
    assert origins == ["train.jsonl, row 1", "train.jsonl, row 3"]
    origins = [row.origin for row in load_rows(write(tmp_path / "a.csv", as_csv(ROWS)))]
    assert origins == ["a.csv, row 1 (line 3)", "a.csv, row 2 (line 4)"]


def test_rows_can_be_read_again(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "train.jsonl", TEXTS["lines.jsonl"]))
    assert list(rows) == list(rows)


def broken_gzip(text: str) -> bytes:
    whole = gzip.compress(text.encode(), compresslevel=0)
    return whole[: len(whole) // 2]


MANY = "\n".join(json.dumps(ROWS[0]) for _ in range(2000))

DAMAGED = {
    "empty.jsonl": (b"", r"empty\.jsonl: the file is empty.*Expected one row"),
    "blank.jsonl": (b"\n\n", r"blank\.jsonl: the file holds no rows"),
    "none.json": (b"[]", r"none\.json: the file holds no rows"),
    "header.csv": (b"prompt,chosen\n", r"header\.csv: the file holds no rows"),
    "cut.jsonl.gz": (broken_gzip(MANY), r"cut\.jsonl\.gz: the gzip file breaks off after line \d{3,}.*again"),
    "cut.json.gz": (broken_gzip(MANY), r"cut\.json\.gz: the gzip file breaks off after line"),
    "plain.jsonl.gz": (b'{"a": 1}\n', r"plain\.jsonl\.gz: cannot be decompressed.*ending"),
    "array.json": (b'[{"a": 1}, {"a": ]', r"array\.json, row 2: broken JSON: .* line 1, column 18"),
    "open.json": (b'[{"a": 1}', r"open\.json, row 1: broken JSON: .*the end of the file"),
    "object.json": (b'{"a": ', r"object\.json, row 1: broken JSON"),
    "scalar.json": (b'{"a": 1, "b": [1]}', r"scalar\.json: expected a JSON array of rows.*a, b"),
    "latin.json": ('[{"a":\n "gr\xfc\xdfe"}]'.encode("latin1"), r"latin\.json, line 2: not UTF-8.*iconv"),
    "latin.csv": ("a,b\nx,gr\xfc\xdfe\n".encode("latin1"), r"latin\.csv, line 2: not UTF-8"),
    "quote.csv": (b'a,b\n1,"2\n', r"quote\.csv, row 1: broken CSV"),
    "not.parquet": (b"PAR1 nothing of the kind", r"not\.parquet: cannot be read as Parquet"),
    "rows.xlsx": (b"PK", r"rows\.xlsx: unknown kind of file '\.xlsx'.*\.jsonl.*Convert"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_says_where(tmp_path: Path, name: str) -> None:
    data, message = DAMAGED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PreferoError, match=message):
        list(load_rows(tmp_path / name))


BAD_ROWS = {
    "train.jsonl": (b'{"a": 1}\n{"a": }\n{"a": 3}\n', r"train\.jsonl, row 2: broken JSON: .* column 7"),
    "bytes.jsonl": (b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}', r"bytes\.jsonl, row 2: not UTF-8 \(byte 0xff"),
    "list.jsonl": (b'{"a": 1}\n[2]\n{"a": 3}', r"list\.jsonl, row 2: expected an object.*found list"),
    "cells.csv": (b"a\n1\n2,2\n3\n", r"cells\.csv, row 2 \(line 3\): 1 more cell"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_damaged_row_is_named_and_the_others_stay(tmp_path: Path, name: str) -> None:
    import re

    data, message = BAD_ROWS[name]
    (tmp_path / name).write_bytes(data)
    rows = list(load_rows(tmp_path / name))
    assert [row.problem is None for row in rows] == [True, False, True]
    assert re.search(message, rows[1].problem or "")


def test_a_missing_source_offers_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", TEXTS["lines.jsonl"])
    with pytest.raises(PreferoError, match=r"trian\.jsonl: .*no such file; did you mean 'train\.jsonl'"):
        load_rows(tmp_path / "trian.jsonl")
    with pytest.raises(PreferoError, match="nor the folder"):
        load_rows(tmp_path / "nowhere" / "train.jsonl")
    with pytest.raises(PreferoError, match=r"no split 'tset'; did you mean 'test'.*train, test"):
        load_rows(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=None), split="tset")


def test_a_hub_name_without_the_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(PreferoError, match=r"'nobody/no-such-data'.*HF_HUB_OFFLINE turns the .*hub"):
        load_rows("nobody/no-such-data")


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    import time

    path = write(tmp_path / "many.jsonl.gz", (json.dumps(ROWS[0]) + "\n") * 100_000)
    began = time.perf_counter()
    assert sum(1 for _ in load_rows(path)) == 100_000
    assert time.perf_counter() - began < 10
