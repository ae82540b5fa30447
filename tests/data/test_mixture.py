"""Sources with weights: how often each example is taken; and rows that a function of the user makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prefero.data.examples import Examples
from prefero.data.formats import load_examples, row_function
from prefero.data.mixture import mixed
from prefero.errors import PreferoError
from prefero.training.config import TrainConfig


def source(name: str, count: int) -> Examples:
    rows = [{"prompt": f"{name}{n}", "chosen": "a", "rejected": "b"} for n in range(count)]
    return load_examples(rows)


def taken(examples: Examples) -> Counter[Any]:
    return Counter(example.prompt for example in examples)


def test_a_weight_is_how_often_an_example_is_taken() -> None:
    counts = taken(mixed([source("x", 4), source("y", 10)], [2, 0.5]))
    assert [counts[f"x{n}"] for n in range(4)] == [2, 2, 2, 2]
    assert sorted(counts[f"y{n}"] for n in range(10)) == [0] * 5 + [1] * 5
    more = taken(mixed([source("x", 4)], [1.5]))
    assert sorted(more.values()) == [1, 1, 2, 2]


def test_the_seed_decides_which() -> None:
    def halves(seed: int) -> Counter[Any]:
        return taken(mixed([source("x", 40)], [0.5], seed))

    assert halves(0) == halves(0) != halves(1)


def test_examples_keep_where_they_stand(tmp_path: Path) -> None:
    files = []
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n{"prompt": "q"}\n')
        files.append(load_examples(tmp_path / name, skip_bad_rows=True))
    both = mixed(files, [1, 1])
    assert [example.origin for example in both] == ["one.jsonl, row 1", "two.jsonl, row 1"]
    assert [message.split(",")[0] for message in both.skipped] == ["one.jsonl", "two.jsonl"]
    assert (both.name, both.format, both.skips_bad_rows) == ("one.jsonl + two.jsonl", "pairs", True)


def test_weights_that_take_nothing_are_refused() -> None:
    with pytest.raises(PreferoError, match="the weight is 0"):
        mixed([source("x", 1)], [0])
    with pytest.raises(PreferoError, match=r"rows: at the weight 0\.1 none of its"):
        mixed([source("x", 1)], [0.1])


def as_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": row["ask"], "chosen": row["texts"][0], "rejected": row["texts"][1]}


def test_a_function_makes_the_rows() -> None:
    rows = [{"ask": "p", "texts": ["a", "b"]}, {"ask": "q", "texts": ["c"]}]
    examples = load_examples(rows, map=as_pair, skip_bad_rows=True)
    assert [(example.prompt, example.origin) for example in examples] == [("p", "rows, row 1")]
    assert examples.skipped == ("rows, row 2: as_pair fails: IndexError: list index out of range",)
    with pytest.raises(PreferoError, match="row 1: <lambda> returns str, expected a row"):
        load_examples(rows, map=lambda row: "text")  # type: ignore[arg-type, return-value]


def test_a_function_is_named_with_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_rows.py").write_text("def swap(row):\n    return dict(reversed(row.items()))\n")
    assert row_function("my_own_rows:swap")({"a": 1, "b": 2}) == {"b": 2, "a": 1}
    for name, message in (
        ("swap", "expected module:function"),
        ("my_own_rows:swop", "cannot be imported"),
        ("no_such_rows:swap", "cannot be imported"),
        ("my_own_rows:__name__", "is a str and no function"),
    ):
        with pytest.raises(PreferoError, match=message):
            row_function(name)


def test_a_recipe_names_sources_and_columns() -> None:
    def parse(data: Any) -> Any:
        return TrainConfig.parse({"model": "m", "data": data, "output": "run"}).data

    read = parse(
        {"train": ["a.jsonl", {"data": "o/n", "weight": 2, "config": "en"}], "columns": "prompt=ask"}
    )
    assert [(source.data, source.weight) for source in read.train] == [("a.jsonl", 1.0), ("o/n", 2.0)]
    assert read.columns == {"prompt": "ask"}
    with pytest.raises(PreferoError, match=r"data\.train\[0\] has no key 'wieght'; did you mean 'weight'"):
        parse({"train": [{"data": "a.jsonl", "wieght": 2}]})
