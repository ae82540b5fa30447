"""Every method trains a real model: from rows to optimizer steps, to a checkpoint, and on from there."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.objectives import Needs, dry_run, methods
from prefero.objectives.needs import model_names
from prefero.reference.providers import ReferenceSpec
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import text, tiny_model, tiny_tokenizer

KEYS = sorted(key for key, one in methods().items() if one.states is None)
"""All methods but those that only denoisers can serve."""

COLUMNS = {
    "tie": lambda numbers: numbers.random() < 0.3,
    "preference": lambda numbers: numbers.random(),
    "weight": lambda numbers: numbers.random(),
    "group": lambda numbers: numbers.randrange(2),
    "flip_rate": lambda numbers: 0.4 * numbers.random(),
    "desirability": lambda numbers: numbers.random(),
    "error_step": lambda numbers: 1,
    "prompt_embedding": lambda numbers: [numbers.gauss(0, 1) for _ in range(3)],
}
"""What a row has for a column of the example."""


def rows(needs: Needs, count: int = 8) -> list[dict[str, Any]]:
    """Rows as a file of this kind of feedback has them."""
    numbers = random.Random(0)
    return [row(needs, numbers) for _ in range(count)]


def row(needs: Needs, numbers: random.Random) -> dict[str, Any]:
    values = {name: make(numbers) for name, make in COLUMNS.items() if name in needs.columns}
    values["prompt"] = "v " + text(numbers, 2, 6)
    values |= {part.field: text(numbers, 2, 6) for view, part in OTHER_PROMPTS.items() if view in needs.views}
    measured = [name for name in needs.columns if SCHEMA[name].axes == "example response"]
    of_tokens = [name for name in needs.columns if SCHEMA[name].axes == "example response token"]
    marked = [name for name in of_tokens if not (SCHEMA[name].drawn or SCHEMA[name].derived)]
    if needs.roles:
        # a method of one role reads it out of pairs
        for role in sorted({*needs.roles, "chosen", "rejected"}):
            values[role] = " " + text(numbers, 3, 6)
            values |= {f"{role}_{name}": number(name, numbers) for name in measured}
            values |= {f"{role}_spans": spans(values[role], marked, numbers)} if marked else {}
        return values
    if "label" in needs.columns:
        values |= {"completion": " " + text(numbers, 2, 6), "label": numbers.random() < 0.5}
        return values | {name: number(name, numbers) for name in measured if name != "label"}
    values["responses"] = [" " + text(numbers, 3, 6) for _ in range(3)]
    values["ranks"] = numbers.sample(range(3), 3)
    values |= {"spans": [spans(one, marked, numbers) for one in values["responses"]]} if marked else {}
    return values | {name: [number(name, numbers) for _ in range(3)] for name in measured if name != "rank"}


def number(name: str, numbers: random.Random) -> float:
    """A value of a column of responses."""
    return numbers.randrange(2) if SCHEMA[name].dtype == "int" else numbers.random()


def spans(response: str, names: list[str], numbers: random.Random) -> list[dict[str, Any]]:
    """The halves of a response, marked."""
    middle = len(response) // 2
    parts = [(0, middle, 1), (middle, len(response), 2)]
    fields = [name.removeprefix("token_") for name in names]
    return [
        {
            "start": start,
            "end": end,
            **{f: part if f in ("segment", "step") else numbers.random() for f in fields},
        }
        for start, end, part in parts
    ]


def trainer(key: str, folder: Path, **options: Any) -> PreferenceTrainer:
    objective = methods()[key].build()
    needs = dry_run(objective)
    named = model_names(needs) - {"reference", *objective.trains}
    others = {name: ReferenceSpec("frozen") for name in named}
    return PreferenceTrainer(
        tiny_model(),
        rows(needs),
        objective=key,
        models=others,
        processing_class=tiny_tokenizer(),
        output_dir=str(folder),
        learning_rate=1e-2,
        examples_per_step=4,
        tokens_per_row=64,
        max_length=32,
        max_steps=3,
        save_steps=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        **options,
    )


@pytest.mark.parametrize("key", KEYS)
def test_a_method_trains_and_goes_on_from_its_checkpoint(key: str, tmp_path: Path) -> None:
    whole = trainer(key, tmp_path / "run")
    before = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    after = whole.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before), "the policy did not move"

    saved = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    assert set(saved) <= set(before)
    resumed = trainer(key, tmp_path / "run")
    resumed.train(str(tmp_path / "run" / "checkpoint-2"))
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, after[name]), name
    for name, value in resumed.objective.state_dict().items():
        assert torch.equal(value, whole.objective.state_dict()[name]), name


@pytest.mark.parametrize("key", ["xpo", "selm", "hypo", "gpo", "sppo", "dpo", "vpo"])
def test_rows_of_a_method_that_samples_while_it_trains_are_said_to_stay(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(key, tmp_path / "run")
    assert (f"{key} is a method of rounds" in caplog.text) == (key not in ("dpo", "vpo"))
