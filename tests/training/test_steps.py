"""An optimizer step is the same whatever the rows, the layout and where the reference comes from."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.objectives.registry import method
from prefero.training.step import Scorer
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, tiny_experts, tiny_model, tiny_tokenizer

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


def dpo_by_hand(
    beta: float, steps: int, per_step: int, rate: float, order: list[list[int]], policy: Any = None
) -> Any:
    """DPO with every response in a forward of its own, and plain SGD."""
    policy = tiny_model() if policy is None else policy
    reference, tokenizer = copy.deepcopy(policy), tiny_tokenizer()
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
            for weight in filter(lambda weight: weight.requires_grad, policy.parameters()):
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


def test_dropout_is_the_same_in_both_passes_of_a_whole_step(
    trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    model.config.attention_dropout = 0.3
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    run = trainer(model, objective="dr_dpo", tokens_per_row=40, dropout=True, max_steps=1)
    first, second = [], []
    scorer = Scorer.__call__

    def spy(*arguments: Any, **options: Any) -> Any:
        batch = scorer(*arguments, **options)
        (second if torch.is_grad_enabled() else first).append(batch.models["policy"].logps.detach())
        return batch

    monkeypatch.setattr(Scorer, "__call__", spy)
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
    assert losses(run, "rewards/accuracies")[0] == 0.5  # all rewards are 0


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


# Mixtures of experts

BALANCED = {"output_router_logits": True, "router_aux_loss_coef": 0.5}


def experts(**settings: Any) -> torch.nn.Module:
    model = tiny_experts(**{**BALANCED, **settings}).double()
    model.set_experts_implementation("eager")  # others have no double precision
    return model


def routers(weights: Weights) -> torch.Tensor:
    return torch.cat([weight.flatten() for name, weight in sorted(weights.items()) if "gate.weight" in name])


def test_the_balancing_loss_is_the_models_own_and_reaches_the_routers(trainer: Make) -> None:
    """One micro-batch of single responses, so that a plain forward with labels sees the same tokens."""
    data = pairs(6)
    runs = [
        trainer(experts(output_router_logits=asked), data, "nll", tokens_per_row=10_000)
        for asked in (True, False)
    ]
    start = routers({name: weight.detach() for name, weight in experts().named_parameters()})
    with_it, without = (routers(trained(run)) for run in runs)
    model, tokenizer = experts(), tiny_tokenizer()
    texts = [[*tokenizer(row["prompt"] + row["chosen"])["input_ids"], 0] for row in data]
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    plain = model(input_ids=ids, attention_mask=mask)
    (0.5 * plain.aux_loss).backward()
    gradient = torch.cat(
        [w.grad.flatten() for n, w in sorted(model.named_parameters()) if "gate.weight" in n]
    )
    assert gradient.norm() > 1e-3 and (without - start).norm() > 0
    torch.testing.assert_close(with_it - without, -0.1 * gradient, atol=1e-8, rtol=1e-5)
    assert losses(runs[0], "router_loss") == pytest.approx([plain.aux_loss.item()], rel=1e-5)
    assert losses(runs[0])[0] - losses(runs[1])[0] == pytest.approx(0.5 * plain.aux_loss.item(), rel=1e-5)
    assert not losses(runs[1], "router_loss")


def test_the_balancing_loss_of_a_step_is_the_mean_over_its_examples(trainer: Make) -> None:
    run = trainer(experts(), objective="dpo", tokens_per_row=30, max_steps=1, learning_rate=0.0)
    whole = trainer(experts(), objective="dpo", tokens_per_row=10_000, max_steps=1, learning_rate=0.0)
    assert run.plan.micro_batches > 1 == whole.plan.micro_batches
    trained(run), trained(whole)
    for one in (run, whole):
        expected = torch.log(torch.tensor(2.0)).item() + 0.5 * losses(one, "router_loss")[0]
        assert losses(one) == pytest.approx([expected], rel=1e-6)
    # the loss is no sum over tokens: it depends on the micro-batches, but not on their number
    assert losses(run, "router_loss") == pytest.approx(losses(whole, "router_loss"), rel=0.3)


def test_objectives_of_a_whole_step_get_it_too(trainer: Make) -> None:
    """At rate 0 before, the two rules have the same micro-batches and the same balancing loss."""
    moves = []
    for objective in ("dpo", "dr_dpo"):
        pair = [
            routers(
                trained(
                    trainer(
                        experts(output_router_logits=asked),
                        objective=method(objective),
                        tokens_per_row=40,
                        max_steps=1,
                        reference="frozen",
                    )
                )
            )
            for asked in (True, False)
        ]
        moves.append(pair[0] - pair[1])
    assert moves[0].norm() > 1e-4
    torch.testing.assert_close(*moves, atol=1e-9, rtol=1e-6)


def test_a_coefficient_that_is_not_asked_for_is_said_to_be_left_out(trainer: Make, caplog: Any) -> None:
    trainer(experts(output_router_logits=False))
    assert caplog.text.count("left out") == 1 and "output_router_logits" in caplog.text
