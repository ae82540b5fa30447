"""An optimizer step is the same whatever the rows, the layout and where the reference comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.objectives.registry import method
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer

Make = Callable[..., PreferenceTrainer]
Weights = Mapping[str, torch.Tensor]


def trained(trainer: PreferenceTrainer) -> Weights:
    trainer.train()
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def losses(trainer: PreferenceTrainer, name: str = "loss") -> list[float]:
    file = Path(trainer.args.output_dir) / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def assert_same(first: Weights, second: Weights, tolerance: float = 1e-6) -> None:
    for name, value in first.items():
        assert float((second[name] - value).detach().abs().max()) <= tolerance, name


def double() -> torch.nn.Module:
    return tiny_model(dtype=torch.float64)


def moved(weights: Weights) -> float:
    start = dict(tiny_model().named_parameters())
    return max(float((weights[name] - start[name].detach()).abs().max()) for name in start)


def dpo_by_hand(beta: float, steps: int, per_step: int, rate: float, order: list[list[int]]) -> Any:
    """DPO with every response in a forward of its own, and plain SGD."""
    policy, reference, tokenizer = tiny_model(), tiny_model(), tiny_tokenizer()
    data, found = pairs(24), []

    def logp(model: Any, prompt: str, response: str) -> torch.Tensor:
        context, answer = tokenizer(prompt)["input_ids"], [*tokenizer(response)["input_ids"], 0]
        ids = torch.tensor([context + answer])
        table = model(ids).logits[0].log_softmax(-1)
        return sum(table[len(context) - 1 + i, token] for i, token in enumerate(answer))

    for step in order[:steps]:
        loss = torch.zeros(())
        for index in step:
            row = data[index]
            margin = sum(
                sign
                * (
                    logp(policy, row["prompt"], row[side])
                    - logp(reference, row["prompt"], row[side]).detach()
                )
                for side, sign in (("chosen", 1), ("rejected", -1))
            )
            loss = loss - torch.nn.functional.logsigmoid(beta * margin) / per_step
        policy.zero_grad()
        loss.backward()
        found.append(loss.item())
        with torch.no_grad():
            for weight in policy.parameters():
                weight -= rate * weight.grad
    return dict(policy.named_parameters()), found


@pytest.mark.oldest
def test_steps_are_those_of_dpo_by_hand(trainer: Make) -> None:
    made = trainer(objective="dpo")
    order = made.plan.steps(0)
    weights = trained(made)
    expected, expected_losses = dpo_by_hand(0.1, 4, 6, 0.1, order)
    assert moved(weights) > 0.02
    assert_same(expected, weights, 2e-6)
    assert losses(made) == pytest.approx(expected_losses, abs=2e-6)


@pytest.mark.oldest
@pytest.mark.parametrize("objective", ["dpo", "simpo", {"method": "dpo", "plus": {"nll": 0.5}}, "ipo"])
def test_rows_and_layouts_change_nothing(trainer: Make, objective: Any) -> None:
    settings = [
        {"tokens_per_row": 10_000},
        {"tokens_per_row": 30},
        {"tokens_per_row": 64, "layout": "dense"},
        {"tokens_per_row": 100, "layout": "padded"},
    ]
    runs = [trainer(double(), objective=objective, reference="frozen", **one) for one in settings]
    assert runs[0].plan.micro_batches == 1 < runs[1].plan.micro_batches
    weights = [trained(run) for run in runs]
    assert moved(weights[0]) > 0.01
    for run, other in zip(runs[1:], weights[1:], strict=True):
        # Norms are computed in single precision whatever the weights are.
        assert_same(weights[0], other, 1e-4 * moved(weights[0]))
        assert losses(run) == pytest.approx(losses(runs[0]), rel=1e-6, abs=1e-6)  # logged in single
        for name in ("rewards/margins", "logps/chosen", "lengths/rejected", "entropy"):
            assert losses(run, name) == pytest.approx(losses(runs[0], name), abs=2e-5)


@pytest.mark.parametrize("objective", ["dr_dpo", "beta_dpo", "kto", "rpo_relative"])
def test_whole_step_is_one_big_batch(trainer: Make, objective: str) -> None:
    arguments: dict[str, Any] = {"beta": 1.0} if objective in ("dr_dpo", "kto") else {}  # large log-ratios
    data = labelled() if objective == "kto" else embedded() if objective == "rpo_relative" else None
    whole, rows = (
        trainer(
            double(),
            data,
            method(objective, **arguments),
            tokens_per_row=tokens,
            num_train_epochs=2,
            reference="frozen",
        )
        for tokens in (10_000, 40)
    )
    assert whole.plan.micro_batches == 1 < rows.plan.micro_batches
    assert type(rows.update).__name__ == "WholeStep"
    weights = trained(whole), trained(rows)
    assert moved(weights[0]) > 0.005
    assert_same(*weights, 1e-11)
    assert losses(whole) == pytest.approx(losses(rows), abs=1e-6)
    for name, value in whole.objective.state_dict().items():
        torch.testing.assert_close(rows.objective.state_dict()[name], value, atol=1e-10, rtol=1e-10)


def labelled() -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(12)
        for side in ("chosen", "rejected")
    ]


def embedded() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    return [{**row, "prompt_embedding": torch.randn(4, generator=generator).tolist()} for row in pairs(24)]


def test_naive_accumulation_of_a_whole_step_objective_would_differ(trainer: Make) -> None:
    """The test above could not fail if log-ratios were small."""
    from prefero.training.step import BackwardAndStep

    whole, rows = (trainer(objective=method("dr_dpo", beta=1.0), tokens_per_row=t) for t in (10_000, 40))
    rows.update = BackwardAndStep(rows.objective, rows.scorer, rows._ranks)
    assert max(abs(a - b) for a, b in zip(losses_of(whole), losses_of(rows), strict=True)) > 1e-3


def losses_of(run: PreferenceTrainer) -> list[float]:
    run.train()
    return losses(run)


def test_dropout_is_the_same_in_both_passes_of_a_whole_step(trainer: Make) -> None:
    model = tiny_model()
    model.config.attention_dropout = 0.3
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    run = trainer(model, objective="dr_dpo", tokens_per_row=40, dropout=True, max_steps=1)
    first, second = [], []
    scorer = run.scorer.__call__

    def spy(policy: Any, row: Any, **options: Any) -> Any:
        batch = scorer(policy, row, **options)
        (second if torch.is_grad_enabled() else first).append(batch.models["policy"].logps.detach())
        return batch

    run.update.scorer = spy
    run.train()
    assert len(first) == len(second) == run.plan.micro_batches
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["frozen", "auto"])
def test_cached_and_live_references_give_the_same_run(trainer: Make, kind: str) -> None:
    live, other = trainer(reference="frozen"), trainer(reference=kind)
    assert bool(other.references.cached) == (kind == "auto")
    assert_same(trained(live), trained(other), 2e-6)
    assert losses(live) == pytest.approx(losses(other), abs=2e-6)


def test_two_model_signals_have_a_live_reference(trainer: Make) -> None:
    rows, whole = (trainer(double(), objective="tdpo2", tokens_per_row=tokens) for tokens in (40, 10_000))
    assert type(rows.references.providers["reference"]).__name__ == "Frozen"
    assert_same(trained(rows), trained(whole), 1e-11)


@pytest.mark.oldest
def test_the_last_smaller_step_is_averaged_over_its_own_pairs(trainer: Make) -> None:
    run = trainer(data=pairs(8), examples_per_step=6, tokens_per_row=30)
    assert run.plan.steps_per_epoch == 2
    run.train()
    order = run.plan.steps(0)
    assert [len(step) for step in order] == [6, 2]
    assert losses(run)[0] == pytest.approx(0.6931472, abs=1e-6)
    assert losses(run, "rewards/accuracies")[0] == 0.0


def test_evaluation_is_independent_of_rows(trainer: Make) -> None:
    for objective in ("dpo", "dr_dpo"):
        runs = [
            trainer(objective=method(objective, beta=1.0), eval_dataset=pairs(11, 5), tokens_per_row=tokens)
            for tokens in (30, 10_000)
        ]
        weights = torch.randn(16, generator=torch.Generator().manual_seed(1)) * 0.1
        found = []
        for run in runs:
            run._prepare_references()
            with torch.no_grad():
                run.model.model.norm.weight += weights
            found.append(run.evaluate())
        for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies", "eval_entropy"):
            assert found[0][name] == pytest.approx(found[1][name], abs=1e-5)
        each = runs[0].evaluate_examples()
        assert each.examples == 11
        assert each.values["rewards/margins"].mean() == pytest.approx(
            found[0]["eval_rewards/margins"], abs=1e-5
        )
