"""A run says how it came out: held-out pairs with an interval, and samples of before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefero.evaluate.intervals import wilson
from prefero.training.metrics import Evaluated, held_out_row
from prefero.training.run import train
from prefero.training.study import compare
from tests.training.tiny import pairs, saved_model


def test_accuracy_counts_pairs_that_are_there_and_ties_half() -> None:
    margins = np.array([0.5, -0.1, 0.0, 2.0, 9.0])
    there = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    row = held_out_row("dpo", Evaluated(0.7, {"rewards/margins": margins}, {"rewards/margins": there}, 5))
    interval = wilson(0.625, 4)
    assert row["accuracy"] == 0.625
    assert row["interval"]["accuracy"] == [interval.low, interval.high]


def test_without_pairs_there_is_no_accuracy() -> None:
    assert held_out_row("kto", Evaluated(0.4, {}, {}, 3)) == {"method": "kto", "loss": 0.4, "interval": {}}


def recipe(tmp_path: Path, samples: int, **training: Any) -> dict[str, Any]:
    for name, seed, count in (("train", 0, 12), ("held_out", 1, 8)):
        rows = "".join(json.dumps(row) + "\n" for row in pairs(count, seed))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    return {
        "model": str(saved_model(tmp_path / "model")),
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "held_out.jsonl")},
        "training": {
            "examples_per_step": 6,
            "learning_rate": 0.05,
            "save_steps": None,
            "use_cpu": True,
            "disable_tqdm": True,
            **training,
        },
        "samples": samples,
        "output": str(tmp_path / "out"),
    }


def test_a_run_shows_greedy_answers_to_the_same_prompts_before_and_after(tmp_path: Path) -> None:
    out = train(recipe(tmp_path, samples=3))
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in pairs(8, 1)[:3]]
    assert any(line["before"] != line["after"] for line in lines)
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    answers = []
    for moment, folder in (("before", tmp_path / "model"), ("after", out / "model")):
        model = AutoModelForCausalLM.from_pretrained(folder)
        for line in lines:
            prompt = tokenizer(line["prompt"], return_tensors="pt")
            tokens = model.generate(**prompt, do_sample=False, max_new_tokens=4)[0]
            answer = tokenizer.decode(tokens[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
            assert line[moment].strip().startswith(answer.strip())
            answers.append(answer)
    assert any(answers)
    [row] = json.loads((out / "evaluation.json").read_text())["rows"]
    assert row["method"] == "dpo"
    card = ModelCard.load(out / "model" / "README.md")
    assert card.data.base_model == str(tmp_path / "model") and card.data.tags == ["prefero", "dpo"]
    assert "−log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])" in card.text
    assert "12 examples of `" in card.text and "| learning_rate | 0.05 |" in card.text
    assert f"| reward accuracy | {row['accuracy']:.1%}, with Wilson's" in card.text
    assert 0 <= row["interval"]["accuracy"][0] <= row["accuracy"] <= row["interval"]["accuracy"][1] <= 1


def test_samples_can_be_left_out_and_change_nothing(tmp_path: Path) -> None:
    with_samples = train(recipe(tmp_path, samples=3))
    without = train({**recipe(tmp_path, samples=0), "output": str(tmp_path / "without")})
    assert not (without / "samples.jsonl").exists()
    losses = [
        [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (with_samples, without)
    ]
    assert losses[0] == losses[1]


def test_a_comparison_has_a_row_a_method(tmp_path: Path) -> None:
    out = compare(recipe(tmp_path, samples=0), ["dpo", "simpo"])
    rows = json.loads((out / "comparison.json").read_text())["evaluation"]["rows"]
    assert [row["method"] for row in rows] == ["dpo", "simpo"]
    assert all("accuracy" in row for row in rows)
