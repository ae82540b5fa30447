"""World rewarded: single responses, each with its standardised reward."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prefero.demo.start import start_model
from prefero_lab.worlds.rewarded import REWARDED, EncoderDecoderRecipe, single_responses, write

PAIRS = [
    {"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}", "chosen_score": 1.0 + n, "rejected_score": -n}
    for n in range(20)
]


def test_rewards_are_standardised_and_labels_say_which_are_above_the_mean() -> None:
    rows = single_responses(PAIRS, seed=0)
    scores = [row["score"] for row in rows]
    assert sum(scores) == pytest.approx(0, abs=1e-9)
    assert sum(score * score for score in scores) / len(scores) == pytest.approx(1)
    assert all(row["label"] == (row["score"] > 0) for row in rows)
    assert {(row["prompt"], row["completion"]) for row in rows} == {
        (pair["prompt"], pair[role]) for pair in PAIRS for role in ("chosen", "rejected")
    }
    assert rows == single_responses(PAIRS, seed=0) != single_responses(PAIRS, seed=1)


def test_its_files_are_a_model_and_rows(tmp_path: Path) -> None:
    recipe = EncoderDecoderRecipe(hidden=16, intermediate=16, layers=1, examples=50, steps=2)
    start = start_model(
        "rewarded",
        REWARDED.words,
        lambda count: REWARDED.corpus(count, 0),
        recipe,
        seed=0,
        cache=tmp_path / "cache",
    )
    assert type(start.model).__name__ == "T5ForConditionalGeneration"
    # it cannot write reviews yet, and comes to an end by chance
    longer = replace(REWARDED, gold=lambda prompt, text: float(len(text)), max_new_tokens=200)
    write(longer, start, tmp_path / "world", prompts=30, seed=0)
    rows = [json.loads(line) for line in (tmp_path / "world" / "train.jsonl").read_text().splitlines()]
    assert rows and all({"prompt", "completion", "score", "label"} == set(row) for row in rows)
    assert (tmp_path / "world" / "model" / "config.json").is_file()
    assert (tmp_path / "world" / "held_out.jsonl").is_file()
