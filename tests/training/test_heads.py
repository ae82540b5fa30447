"""What an objective learns is trained, saved, loaded and resumed with the policy."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig

import prefero
from prefero.data.examples import Examples
from prefero.data.formats import load_examples
from prefero.data.packing import pack
from prefero.errors import PreferoError
from prefero.feedback.degrading import with_degraded_responses
from prefero.models.causal.scoring import Language
from prefero.objectives import Compare, PreferenceBatch, log_ratio, primary
from prefero.objectives.heads import Head, Projection
from prefero.objectives.quantities import Measured, per_response
from prefero.objectives.signals import STATE
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, text, tiny_model

Make = Callable[..., PreferenceTrainer]
HEAD_ALONE = {"method": "dph", "loss": "contrastive", "policy_weight": 0.0}


def weights(trainer: PreferenceTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def learned(trainer: PreferenceTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.objective.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    return max(float((after[name] - before[name]).abs().max()) for name in before)


def scored(count: int) -> list[dict[str, Any]]:
    """Single responses with a label and a score."""
    numbers = random.Random(1)
    return [
        {
            "prompt": text(numbers, 2, 6),
            "completion": " " + text(numbers, 1, 7),
            "label": numbers.random() < 0.5,
            "score": numbers.random(),
        }
        for _ in range(count)
    ]


def rewards(trainer: PreferenceTrainer, objective: Any) -> torch.Tensor:
    """What the objective's head gives the first training examples, by the policy as it is now."""
    forest = pack([trainer.train_dataset[index] for index in range(4)])
    with torch.no_grad():
        policy = Language.score(trainer.model.eval(), forest, frozenset({STATE}))[""]
        return per_response(primary(objective).reward, PreferenceBatch({"policy": policy}))


def test_the_head_is_left_beside_the_policy_and_loaded_again(trainer: Make, tmp_path: Path) -> None:
    run = trainer(objective={"method": "dph", "pool": "swiglu"}, objective_learning_rate=1.0)
    before = learned(run)
    run.train()
    assert moved(before, learned(run)) > 1e-3
    run.save_model(str(tmp_path / "model"))
    again = prefero.load_objective(tmp_path / "model")
    assert not again.training
    assert again.key == "dph" and again.arguments["pool"] == "swiglu"
    found, expected = rewards(run, again), rewards(run, run.objective)
    assert torch.equal(found, expected)
    assert float(expected.std()) > 0


def test_a_checkpoint_holds_the_objective_too(trainer: Make, tmp_path: Path) -> None:
    run = trainer(objective="dph", save_strategy="steps", save_steps=2, output_dir=str(tmp_path / "run"))
    run.train()
    again = prefero.load_objective(tmp_path / "run" / "checkpoint-4")
    assert torch.equal(rewards(run, again), rewards(run, run.objective))


def test_an_objective_of_ones_own_takes_its_weights_back(trainer: Make, tmp_path: Path) -> None:
    def own() -> Compare:
        return Compare(Head(Projection(), Measured(STATE)) + log_ratio().sum())

    run = trainer(objective=own())
    run.train()
    run.save_model(str(tmp_path / "model"))
    with pytest.raises(PreferoError, match="was not built by a method's name"):
        prefero.load_objective(tmp_path / "model")
    with pytest.raises(PreferoError, match="made of other parts"):
        prefero.load_objective(tmp_path / "model", prefero.method("dpo"))
    again = prefero.load_objective(tmp_path / "model", own()).state_dict()
    assert again.keys() == run.objective.state_dict().keys() and len(again) == 2
    for name, value in run.objective.state_dict().items():
        assert torch.equal(value, again[name])


def test_a_run_that_learns_nothing_beside_the_policy_leaves_no_objective(
    trainer: Make, tmp_path: Path
) -> None:
    run = trainer(objective="dpo", max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "model"))
    assert not list((tmp_path / "model").glob("objective*"))
    with pytest.raises(PreferoError, match="holds no objective"):
        prefero.load_objective(tmp_path / "model")


@pytest.mark.parametrize("detached", [False, True])
def test_the_heads_gradient_reaches_the_policy_unless_it_is_detached(trainer: Make, detached: bool) -> None:
    run = trainer(objective={**HEAD_ALONE, "detach_head": detached}, max_steps=2)
    before, head = weights(run), learned(run)
    run.train()
    assert moved(head, learned(run)) > 1e-4
    assert (moved(before, weights(run)) == 0) == detached


def test_the_head_has_a_learning_rate_of_its_own(trainer: Make) -> None:
    same, faster = (
        trainer(objective="dph", max_steps=1, objective_learning_rate=rate) for rate in (None, 1.0)
    )
    starts = learned(same), learned(faster)
    for run in (same, faster):
        run.train()
    for name, start in starts[0].items():
        assert torch.equal(start, starts[1][name]), "one seed, one head"
        step, longer = (learned(run)[name] - start for run in (same, faster))
        torch.testing.assert_close(longer, 10 * step, rtol=1e-3, atol=1e-6)
    assert moved(weights(same), weights(faster)) == 0


def test_the_heads_start_follows_the_seed_and_nothing_else(trainer: Make) -> None:
    first = learned(trainer(objective="dph", seed=3))
    torch.randn(5)
    same, other = learned(trainer(objective="dph", seed=3)), learned(trainer(objective="dph", seed=4))
    assert moved(first, same) == 0 < moved(first, other)


WHOLE_STEP: list[tuple[Any, Any]] = [
    ({"method": "gpm", "reduce": "soft_minimum"}, lambda: pairs(24)),
    ({"method": "oreo", "detach_value": False, "plus": {"kto": 0.5}}, lambda: scored(24)),
]


@pytest.mark.parametrize(("objective", "data"), WHOLE_STEP, ids=["states", "states of tokens"])
def test_a_whole_step_with_states_is_one_big_batch(trainer: Make, objective: Any, data: Any) -> None:
    whole, rows = (
        trainer(
            tiny_model(dtype=torch.float64),
            data(),
            objective,
            reference="frozen",
            learning_rate=0.02,
            tokens_per_row=tokens,
        )
        for tokens in (10_000, 40)
    )
    assert whole.plan.micro_batches == 1 < rows.plan.micro_batches
    assert type(rows.update).__name__ == "WholeStep"
    before, head = weights(whole), learned(whole)
    whole.train(), rows.train()
    assert moved(before, weights(whole)) > 1e-3
    # heads compute in single precision
    assert moved(weights(whole), weights(rows)) < 1e-5 * moved(before, weights(whole))
    assert moved(head, learned(whole)) > 1e-5
    assert moved(learned(whole), learned(rows)) < 1e-4 * moved(head, learned(whole))


@pytest.mark.parametrize("objective", ["sparsepo", "sparsepo_mapo"])
def test_masks_are_made_of_the_reference_and_rows_change_nothing(trainer: Make, objective: str) -> None:
    settings = [{"tokens_per_row": 10_000}, {"tokens_per_row": 40}, {"layout": "padded"}]
    runs = [trainer(objective=objective, learning_rate=0.02, **one) for one in settings]
    before = weights(runs[0])
    for run in runs:
        run.train()
    for run in runs[1:]:
        assert moved(weights(runs[0]), weights(run)) < 1e-3 * moved(before, weights(run))


def test_a_learning_rate_of_nothing_is_refused(trainer: Make) -> None:
    with pytest.raises(PreferoError, match="objective_learning_rate is 0"):
        trainer(objective="dph", objective_learning_rate=0.0)


def test_the_files_say_which_method(trainer: Make, tmp_path: Path) -> None:
    run = trainer(objective={"method": "dph", "smoothing": 0.2, "plus": {"nll": 0.1}}, max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "objective.json").read_text())
    assert config["method"] == "dph" and config["smoothing"] == 0.2 and config["plus"] == {"nll": 0.1}
    assert prefero.load_objective(tmp_path / "model").arguments["plus"] == {"nll": 0.1}


def test_a_whole_steps_gradient_of_the_head_comes_with_its_rows(trainer: Make) -> None:
    """Mixed precision scales a row's loss, and takes the scale out of every gradient afterwards: a gradient
    that came past the row's loss would be lost."""
    run = trainer(objective={"method": "gpm", "reduce": "soft_minimum"}, tokens_per_row=40)
    batches = list(run.get_train_dataloader())[: run.plan.micro_batches]
    slopes = {}
    for scale in (1.0, 1024.0):
        run.objective.zero_grad()
        run.update.begin(batches)
        for batch in batches:
            (run.update.share(run.model, batch, frozenset(), 0.0).loss * scale).backward()
        slopes[scale] = [weight.grad / scale for weight in run.objective.parameters()]
    for one, other in zip(slopes[1.0], slopes[1024.0], strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_a_loaded_objective_goes_on_where_it_was(trainer: Make, tmp_path: Path) -> None:
    first = trainer(objective="dph", max_steps=2)
    first.train()
    first.save_model(str(tmp_path / "model"))
    again = trainer(objective=prefero.load_objective(tmp_path / "model"))
    assert moved(learned(first), learned(again)) == 0
    with pytest.raises(PreferoError, match="states of 16 numbers meets states of 32"):
        trainer(wider_model(), objective=prefero.load_objective(tmp_path / "model"))


def wider_model() -> torch.nn.Module:
    model = tiny_model()
    model.config.hidden_size = 32
    return type(model)(model.config)


def test_heads_stay_in_single_precision_beside_a_policy_in_less(trainer: Make) -> None:
    run = trainer(
        tiny_model(dtype=torch.bfloat16), objective="oreo", data=scored(12), precision="bfloat16", max_steps=2
    )
    head = learned(run)
    run.train()
    assert {weight.dtype for weight in run.objective.parameters()} == {torch.float32}
    assert moved(head, learned(run)) > 0


def test_adapters_are_trained_beside_a_head_and_masks_read_the_model_without_them(
    trainer: Make, tmp_path: Path
) -> None:
    run = trainer(
        objective={"method": "sparsepo", "masks": "independent"},
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"),
        learning_rate=0.5,
        max_steps=3,
    )
    assert type(run.references.providers["reference"]).__name__ == "AdaptersOff"
    head = learned(run)
    run.train()
    assert moved(head, learned(run)) > 0
    run.save_model(str(tmp_path / "model"))
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    assert len(prefero.load_objective(tmp_path / "model").state_dict()) == len(head)


def test_degraded_responses_reach_the_head_that_has_to_tell_their_degree(trainer: Make) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {"prompt": row["prompt"], "chosen": row["chosen"] + " g", "rejected": row["rejected"]}
        for row in pairs(12)
    ]
    data = [with_degraded_responses(example, generator) for example in load_examples(rows)]
    run = trainer(objective="spo_self_supervised", data=Examples(data), max_steps=2)
    head = learned(run)
    run.train()
    assert moved(head, learned(run)) > 1e-4
