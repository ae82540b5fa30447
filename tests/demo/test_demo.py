from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from prefero.demo import demonstration as demo
from prefero.demo.reviews import REVIEWS
from prefero.demo.start import StartRecipe
from prefero.errors import PreferoError

# Learns to end its texts, so that there are pairs; not to write reviews.
BRIEF = replace(
    REVIEWS, recipe=replace(StartRecipe(), hidden=32, heads=2, intermediate=64, steps=40, batch=16)
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.Demonstration, str, Path]:
    folder = tmp_path_factory.mktemp("demonstration")
    console = Console(file=StringIO(), width=140)
    made = demo.run(
        folder / "out", world=BRIEF, pairs=48, epochs=1, prompts=24, cache=folder / "cache", console=console
    )
    console.print(made.table())
    return made, console.file.getvalue(), folder  # type: ignore[attr-defined]


def test_it_leaves_a_comparison_folder(shown: tuple[demo.Demonstration, str, Path]) -> None:
    made, _, _ = shown
    record = json.loads((made.folder / "comparison.json").read_text())
    assert record["runs"] == ["dpo", "ipo", "simpo"]
    rows = record["evaluation"]["rows"]
    assert [row["method"] for row in rows] == ["start", "dpo", "ipo", "simpo"]
    for row in rows:
        assert (
            {"gold_reward", "win_rate", "kl", "length", "valid", "gain"} <= set(row["interval"]) <= set(row)
        )
    for name in record["runs"]:
        run = made.folder / name
        assert {"run.json", "metrics.jsonl", "samples.jsonl", "evaluation.json", "model"} <= {
            *os.listdir(run)
        }
        assert json.loads((run / "run.json").read_text())["finished"]
        sample = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
        assert set(sample) == {"prompt", "before", "after", "scores"}
    assert json.loads(json.dumps(made.as_dict()))["evaluation"]["rows"] == rows


def test_methods_share_one_cache_of_reference_scores(shown: tuple[demo.Demonstration, str, Path]) -> None:
    """The first fills it, and the second finds nothing lacking."""
    shards = list((shown[0].folder / "references").glob("*.safetensors"))
    assert len(shards) == 1


def test_it_says_what_came_of_each_method(shown: tuple[demo.Demonstration, str, Path]) -> None:
    made, text, _ = shown
    for word in ("start", "dpo", "ipo", "simpo", "win rate", "KL", "seed 0", str(made.report.name)):
        assert word in text
    assert "24 held-out prompts" in text


def test_the_report_has_the_numbers(shown: tuple[demo.Demonstration, str, Path]) -> None:
    page = shown[0].report.read_text()
    assert "Gold reward" in page and "simpo" in page


def test_an_earlier_demonstration_is_replaced(
    shown: tuple[demo.Demonstration, str, Path], tmp_path: Path
) -> None:
    made, _, folder = shown
    output = shutil.copytree(made.folder, tmp_path / "out")
    again = demo.run(
        output, world=BRIEF, methods=("dpo",), pairs=48, epochs=1, prompts=24, cache=folder / "cache"
    )
    assert not (output / "simpo" / "run.json").exists()
    assert [row["method"] for row in again.rows] == ["start", "dpo"]
    timeless = [{**row, "seconds": None} for row in again.rows]
    assert timeless == [{**row, "seconds": None} for row in made.rows[:2]]


def test_another_seed_may_follow(shown: tuple[demo.Demonstration, str, Path], tmp_path: Path) -> None:
    made, _, folder = shown
    output = shutil.copytree(made.folder, tmp_path / "out")
    other = demo.run(
        output, seed=1, world=BRIEF, methods=("dpo",), pairs=48, epochs=1, prompts=24, cache=folder
    )
    assert other.rows[0]["gold_reward"] != made.rows[0]["gold_reward"]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(PreferoError, match="something other than an earlier demonstration"):
        demo.run(tmp_path)
    with pytest.raises(PreferoError, match="is a file"):
        demo.run(tmp_path / "thesis.tex")


def test_an_unknown_method_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="simpo"):
        demo.run(tmp_path / "out", methods=("simppo",))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_method_beats_the_start_model(tmp_path: Path) -> None:
    made = demo.run(tmp_path / "out", cache=tmp_path / "cache")
    start, *rows = made.rows
    assert start["valid"] > 0.8
    for row in rows:
        assert row["interval"]["win_rate"][0] > 0.5
        assert row["interval"]["gain"][0] > 0
        assert 0.1 < row["kl"] < 5
        assert row["valid"] > 0.75
