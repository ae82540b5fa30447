"""Extrapolation between rounds of one run: accelerated preference optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import TrainerCallback

from prefero.errors import PreferoError
from prefero.reference.providers import ReferenceSpec
from prefero.training.config import TrainConfig
from prefero.training.run import arguments
from prefero.training.trainer import PreferenceTrainer
from tests.training.processes import Trainings
from tests.training.test_resume import assert_close
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer

Weights = dict[str, Tensor]


class Iterates(TrainerCallback):
    """Copies the policy before the first step, and before every other step that follows a round."""

    def __init__(self, every: int) -> None:
        self.every, self.before, self.after = every, [], []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.before.append(copied(model))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """The optimizer has stepped, and no callback has seen the end of the step."""
        if (state.global_step + 1) % self.every == 0:
            self.before.append(copied(model))

    def on_save(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        if state.global_step % self.every == 0:
            self.after.append(copied(model))


def copied(model: Any) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def trainer(folder: Path, **options: Any) -> PreferenceTrainer:
    settings: dict[str, Any] = {
        "learning_rate": 1e-2,
        "max_steps": 6,
        "examples_per_step": 6,
        "tokens_per_row": 64,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": None,
        "max_length": 32,
    }
    return PreferenceTrainer(
        tiny_model(),
        pairs(18),
        processing_class=tiny_tokenizer(),
        output_dir=str(folder),
        disable_tqdm=True,
        report_to="none",
        **{**settings, **options},
    )


def assert_same(first: Weights, second: Weights) -> None:
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def losses(of: PreferenceTrainer) -> list[float]:
    return [entry["loss"] for entry in of.state.log_history if "loss" in entry]


def test_no_momentum_is_the_plain_run(tmp_path: Path) -> None:
    plain, still = trainer(tmp_path / "plain"), trainer(tmp_path / "still", extrapolation=0.0)
    plain.train(), still.train()
    assert_same(copied(plain.model), copied(still.model))
    assert losses(plain) == losses(still)


def test_two_rounds_extrapolate_between_iterates_before_extrapolation(tmp_path: Path) -> None:
    alpha, seen = 0.3, Iterates(3)
    one = trainer(tmp_path, extrapolation=alpha, callbacks=[seen])
    one.train()
    start, first, second = seen.before
    after_first, after_second = seen.after
    for name in start:
        expected = first[name] + alpha * (first[name] - start[name])
        torch.testing.assert_close(after_first[name], expected, atol=1e-7, rtol=1e-6)
        expected = second[name] + alpha * (second[name] - first[name])
        torch.testing.assert_close(after_second[name], expected, atol=1e-7, rtol=1e-6)
    assert_same(after_second, copied(one.model))
    head = "lm_head.weight"
    wrong = second[head] + alpha * (second[head] - after_first[head])
    assert float((wrong - after_second[head]).abs().max()) > 1e-3, "against the iterate after extrapolation"


def test_a_round_is_an_epoch_unless_told(tmp_path: Path) -> None:
    def ends(name: str, **options: Any) -> Weights:
        one = trainer(tmp_path / name, extrapolation=0.5, **options)
        one.train()
        return copied(one.model)

    assert_same(ends("epoch"), ends("told", extrapolation_every=3))
    assert not torch.equal(
        ends("two", extrapolation_every=2)["lm_head.weight"], ends("again")["lm_head.weight"]
    )


def test_the_reference_moves_to_the_extrapolated_policy(tmp_path: Path) -> None:
    moving = ReferenceSpec("moving", alpha=1.0, every=3)
    one = trainer(tmp_path, extrapolation=0.5, reference=moving, max_steps=3)
    one.train()
    assert_same(copied(one.references.moving["reference"].model), copied(one.model))
    longer = trainer(tmp_path / "longer", extrapolation=0.5, reference=moving)
    longer.train()
    assert losses(longer)[3] == pytest.approx(0.6931472, abs=1e-6), "the next round starts from its reference"


def test_momentum_with_another_reference_is_said_to_be_another_method(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The paper's loss measures each round against where it began, the extrapolated policy."""
    references: dict[str, Any] = {
        "frozen": ReferenceSpec("frozen"),
        "soft": ReferenceSpec("moving", alpha=0.5, every=3),
        "early": ReferenceSpec("moving", alpha=1.0, every=2),
        "its own": ReferenceSpec("moving", alpha=1.0, every=3),
    }
    for name, reference in references.items():
        caplog.clear()
        trainer(tmp_path / name, extrapolation=0.5, reference=reference)
        assert ("not accelerated preference optimization" in caplog.text) == (name != "its own"), name
    caplog.clear()
    trainer(tmp_path / "none", extrapolation=0.5, objective="simpo")
    assert "accelerated" not in caplog.text, "it reads no reference"


def test_a_resumed_run_is_the_uninterrupted_one_across_rounds(tmp_path: Path) -> None:
    def make(**options: Any) -> PreferenceTrainer:
        moving = ReferenceSpec("moving", alpha=1.0, every=2)
        settings = {"extrapolation": 0.4, "extrapolation_every": 2}
        return trainer(tmp_path, reference=moving, **settings | options)

    whole = make()
    whole.train()
    for checkpoint in (1, 2, 3):  # amid the first round, at its end, amid the second
        resumed = make()
        resumed.train(str(tmp_path / f"checkpoint-{checkpoint}"))
        assert_same(copied(resumed.model), copied(whole.model))
    for other in (
        {"extrapolation": 0.5},
        {"extrapolation_every": 3},
        {"extrapolation": None, "extrapolation_every": None},
    ):
        with pytest.raises(PreferoError, match=r"extrapolation(_every)? was .*, and is "):
            make(**other).train(str(tmp_path / "checkpoint-2"))


def test_what_cannot_be_extrapolated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="leave peft_config out"):
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
        trainer(tmp_path, extrapolation=0.3, peft_config=lora)
    with pytest.raises(PreferoError, match=r"models\.slow\.every=0"):
        trainer(tmp_path, extrapolation=0.3, objective="ofs_dpo")
    for options in ({"extrapolation": 1.0}, {"extrapolation": -0.1}, {"extrapolation_every": 3}):
        with pytest.raises(PreferoError, match="extrapolation"):
            trainer(tmp_path, **options)


def test_a_recipe_says_it(tmp_path: Path) -> None:
    recipe = {"model": "m", "data": "d", "output": str(tmp_path)}
    settings = {"extrapolation": 0.3, "extrapolation_every": 20}
    args = arguments(TrainConfig.parse({**recipe, "training": settings}))
    assert (args.extrapolation, args.extrapolation_every) == (0.3, 20)
    with pytest.raises(PreferoError, match=r"training\.extrapolation is 1"):
        TrainConfig.parse({**recipe, "training": {"extrapolation": 1}})


def test_sharded_weights_are_extrapolated_too(run: Trainings, tmp_path: Path) -> None:
    options: dict[str, Any] = {"extrapolation": 0.4, "extrapolation_every": 3}
    run(tmp_path / "one", **options)
    run(tmp_path / "two", processes=2, parallel="fsdp", **options)
    assert_close(tmp_path / "one", tmp_path / "two")
    run(tmp_path / "killed", processes=2, parallel="fsdp", **options, kill=8, expect=-9)
    run(tmp_path / "killed", processes=2, parallel="fsdp", **options, resume=True)
    assert_close(tmp_path / "one", tmp_path / "killed")
