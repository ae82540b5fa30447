"""An optimizer step is the mean over its pairs, however many of them meet in a micro-batch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefero.training.step import BackwardAndStep, WholeStep
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import saved_model, text, tiny_model, tiny_tokenizer

BETA = 0.3
PAIRS = 7


def rows() -> list[dict[str, str]]:
    """A pair that is as long as all others together, and has a micro-batch of its own."""
    numbers = random.Random(5)

    def row(tokens: int) -> dict[str, str]:
        parts = {"prompt": text(numbers, tokens, tokens)}
        return parts | {side: " " + text(numbers, tokens, tokens) for side in ("chosen", "rejected")}

    return [row(20), *(row(3) for _ in range(PAIRS - 1))]


def by_hand(row: dict[str, str], policy: Any, reference: Any) -> Tensor:
    """The loss of one pair, with every response in a forward of its own."""
    tokenizer = tiny_tokenizer()

    def logp(model: Any, side: str) -> Tensor:
        context = tokenizer(row["prompt"])["input_ids"]
        response = [*tokenizer(row[side])["input_ids"], tokenizer.eos_token_id]
        table = model(torch.tensor([context + response])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        return table.gather(-1, torch.tensor(response)[:, None]).sum()

    ratios = [logp(policy, side) - logp(reference, side).detach() for side in ("chosen", "rejected")]
    return -torch.nn.functional.logsigmoid(BETA * (ratios[0] - ratios[1]))


def gradient(loss: Tensor, model: torch.nn.Module) -> Tensor:
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, list(model.parameters()))])


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([weight.detach().clone().flatten() for weight in model.parameters()])


def mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


@pytest.mark.parametrize("rule", [BackwardAndStep, WholeStep])
def test_a_step_is_the_mean_over_its_pairs(
    trainer: Callable[..., PreferenceTrainer], tmp_path: Path, rule: type
) -> None:
    """Gradient, logged loss and held-out loss. The mean over micro-batches of their means is none of them."""
    data = rows()
    policy, reference = (tiny_model(seed, dtype=torch.float64) for seed in (0, 1))
    each = [by_hand(row, policy, reference) for row in data]
    slopes, losses = [gradient(loss, policy) for loss in each], [loss.detach() for loss in each]

    run = trainer(
        policy,
        data,
        {"method": "dpo", "beta": BETA},
        eval_dataset=data,
        reference=saved_model(tmp_path / "reference", seed=1, dtype=torch.float64),
        examples_per_step=PAIRS,
        learning_rate=1.0,  # so that a step of plain gradient descent is the gradient
    )
    run.update = rule(run.objective, run.scorer, run._ranks)
    (step,) = run.plan.steps(0)
    micro_batches = [[draw.index for draw in dealt] for dealt in run.plan.deal(step, 0)]
    assert len(set(map(len, micro_batches))) > 1, "micro-batches have to have unequal numbers of pairs"

    assert run.evaluate()["eval_loss"] == pytest.approx(float(mean(losses)), rel=1e-6)
    before = weights(run.model)
    run.train()
    found = before - weights(run.model)
    lines = (Path(run.args.output_dir) / "metrics.jsonl").read_text().splitlines()
    logged = next(line["loss"] for line in map(json.loads, lines) if "loss" in line)
    size = float(mean(slopes).abs().max())
    assert float((found - mean(slopes)).abs().max()) < 1e-6 * size
    assert logged == pytest.approx(float(mean(losses)), rel=1e-6)

    def mean_of_means(values: Sequence[Tensor]) -> Tensor:
        return mean([mean([values[at] for at in members]) for members in micro_batches])

    assert float((mean_of_means(slopes) - mean(slopes)).abs().max()) > 0.1 * size, "this could not fail"
    assert float((mean_of_means(losses) - mean(losses)).abs()) > 0.01, "this could not fail"
