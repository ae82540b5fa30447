"""Tabular policies in the trainer: the same command, report and checkpoints, and the theory's optima."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.errors import PreferoError
from prefero.models.loading import ModelSource, kind_of
from prefero.models.tabular.kind import Tabular
from prefero.models.tabular.policy import TabularPolicy
from prefero.objectives import from_config, methods
from prefero.objectives.needs import dry_run
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from prefero_lab.worlds.bandit import Bandit, total_variation, write

BANDIT = Bandit.bradley_terry(3, 4)

Make = Callable[..., PreferenceTrainer]


@pytest.fixture
def trainer(tmp_path: Path) -> Make:
    """Makes a trainer whose steps are the gradient's, of all rows at once."""
    count = 0

    def make(model: Any, rows: Any, objective: Any, **settings: Any) -> PreferenceTrainer:
        nonlocal count
        count += 1
        defaults: dict[str, Any] = {
            "output_dir": str(tmp_path / f"run-{count}"),
            "use_cpu": True,
            "disable_tqdm": True,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
            "learning_rate": 1.0,
            "examples_per_step": len(rows),
            "save_strategy": "no",
        }
        return PreferenceTrainer(model, rows, objective=objective, **{**defaults, **settings})

    return make


def test_a_model_tells_that_it_is_a_table(tmp_path: Path) -> None:
    BANDIT.policy().save_pretrained(tmp_path)
    for model in (BANDIT.policy(), ModelSource(str(tmp_path))):
        assert isinstance(kind_of("auto", model), Tabular)


def test_a_step_of_dpo_is_the_gradient_by_hand(trainer: Make) -> None:
    rows = [{"prompt": "question 1", "chosen": "answer 2", "rejected": "answer 4"}]
    policy = BANDIT.policy()
    trainer(policy, rows, {"method": "dpo", "beta": 0.5}, max_steps=1).train()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 1], expected[0, 3] = 0.25, -0.25  # β σ(0), and what normalises them cancels
    torch.testing.assert_close(policy.theta.detach(), expected)


@pytest.mark.parametrize(
    ("config", "optimum"),
    [
        ({"method": "dpo", "beta": 0.5}, BANDIT.optimum(0.5)),
        ({"method": "ipo", "tau": 0.5, "tokens": "sum"}, BANDIT.identity_optimum(0.5)),
        ({"method": "ipo", "tau": 0.5, "tokens": "mean"}, BANDIT.identity_optimum(0.5)),
    ],
)
def test_the_trainer_reaches_the_optimum_in_expectation(
    trainer: Make, config: dict[str, Any], optimum: torch.Tensor
) -> None:
    policy, rows = BANDIT.policy(), BANDIT.expected_pairs()
    assert total_variation(BANDIT.reference, optimum) > 0.1
    settings = {"optim": "adamw_torch", "learning_rate": 0.1, "lr_scheduler_type": "cosine"}
    trainer(policy, rows, {**config, "weight": "given"}, max_steps=200, **settings).train()
    assert total_variation(policy.probabilities().detach(), optimum) < 1e-3


def test_rows_in_micro_batches_make_the_same_step(trainer: Make) -> None:
    rows = BANDIT.expected_pairs()
    ends = []
    for budget in (None, 16):
        policy = BANDIT.policy()
        trainer(
            policy, rows, {"method": "dpo", "weight": "given"}, max_steps=3, tokens_per_row=budget
        ).train()
        ends.append(policy.theta.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-12)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(trainer: Make, tmp_path: Path) -> None:
    rows, settings = BANDIT.sampled_pairs(40, 0), {"examples_per_step": 8, "num_train_epochs": 2}
    settings |= {"optim": "adamw_torch", "learning_rate": 0.05, "output_dir": str(tmp_path / "run")}
    settings |= {"save_strategy": "steps", "save_steps": 4, "save_total_limit": None}
    whole, resumed = BANDIT.policy(), BANDIT.policy()
    trainer(whole, rows, "dpo", **settings).train()
    trainer(resumed, rows, "dpo", **settings).train(tmp_path / "run" / "checkpoint-4")
    assert torch.equal(resumed.theta, whole.theta)


def test_a_reference_that_moves_and_one_from_a_folder(trainer: Make, tmp_path: Path) -> None:
    rows = BANDIT.sampled_pairs(20, 0)
    elsewhere = BANDIT.policy()
    with torch.no_grad():
        elsewhere.theta[:, 0] = 2.0
    elsewhere.save_pretrained(tmp_path / "other")
    ends = []
    for reference in ("auto", str(tmp_path / "other")):
        policy = BANDIT.policy()
        trainer(policy, rows, "dpo", max_steps=2, reference=reference).train()
        ends.append(policy.theta.detach())
    assert not torch.equal(*ends)
    Bandit.bradley_terry(1, 2).policy().save_pretrained(tmp_path / "small")
    with pytest.raises(PreferoError, match="does not have the policy's table"):
        trainer(BANDIT.policy(), rows, "dpo", reference=str(tmp_path / "small"))


def test_a_recipe_trains_a_table_and_leaves_a_run_folder(tmp_path: Path) -> None:
    write(BANDIT, tmp_path, pairs=30, seed=0)
    recipe = {
        "model": {"name": str(tmp_path / "model"), "dtype": "auto"},
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "held_out.jsonl")},
        "objective": {"method": "dpo", "weight": "given"},
        "training": {
            "learning_rate": 0.05,
            "max_steps": 4,
            "examples_per_step": 36,
            "arguments": {"use_cpu": True, "disable_tqdm": True},
        },
        "output": str(tmp_path / "run"),
    }
    folder = train(recipe)
    trained = TabularPolicy.from_pretrained(folder / "model", dtype="auto")
    assert total_variation(trained.probabilities(), BANDIT.reference) > 0.01
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any({"loss", "entropy", "top_k_mass", "rewards/margins"} <= set(line) for line in logged)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert samples and all(one["before"].startswith("answer") for one in samples)
    assert json.loads((folder / "evaluation.json").read_text())["rows"]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    from tests.training.tiny import tiny_model, tiny_tokenizer

    with pytest.raises(PreferoError, match="is no tabular policy"):
        kind_of("tabular", tiny_model())
    with pytest.raises(PreferoError, match="takes no tokenizer"):
        kind_of("tabular", BANDIT.policy(), tiny_tokenizer())
    with pytest.raises(PreferoError, match="has no options"):
        kind_of("tabular", BANDIT.policy(), None, {"steps": 3})


def test_signals_that_only_other_models_have_are_refused_by_name() -> None:
    kind = kind_of("auto", BANDIT.policy())
    refused = []
    for key, one in methods().items():
        if one.states is not None:
            continue  # of a denoiser: the method is refused for that
        try:
            kind.check(dry_run(from_config(key)))
        except PreferoError as error:
            assert "a tabular policy has no signal" in str(error)
            refused.append(key)
    assert 0 < len(refused) < 20
