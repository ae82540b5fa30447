"""What is logged of a batch: by role, label and rank, averaged over examples and ranks, copies left out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Compare
from prefero.objectives.configurations import from_config
from prefero.objectives.contrasts import Each, EveryPair
from prefero.objectives.quantities import Logp, log_ratio
from prefero.objectives.registry import method
from prefero.training.batches import MicroBatch
from prefero.training.metrics import MONITORED, StepLog, measure, term_names
from prefero.training.step import Share
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, text

Make = Callable[..., PreferenceTrainer]


def logps(values: list[list[float]], lengths: list[list[int]]) -> TokenLogps:
    """Every response has its sum spread evenly over its tokens."""
    count = torch.tensor(lengths)
    mask = torch.arange(int(count.max())) < count[..., None]
    return TokenLogps(torch.where(mask, (torch.tensor(values) / count.clamp(min=1))[..., None], 0), mask)


def log() -> StepLog:
    return StepLog(lambda sums: sums, torch.device("cpu"))


def add(to: StepLog, batch: PreferenceBatch, objective: Any, weight: float = 1.0) -> None:
    """As the trainer does, with inputs of which nothing is read but their length."""
    examples = torch.arange(len(batch.mask))
    inputs: Any = range(7)
    share = Share(torch.zeros(()), batch, [(torch.zeros(()), torch.ones(()))])
    to.add(MicroBatch(inputs, {}, {}, examples, weight), share, objective)


def means(batch: PreferenceBatch, objective: Any) -> dict[str, float]:
    steps = log()
    add(steps, batch, objective)
    drained = steps.drain()
    assert drained.pop("tokens_per_second") > 0 and drained.pop("examples_per_second") > 0
    return drained


def test_pairs_by_role() -> None:
    lengths = [[2, 3], [4, 1]]
    batch = PreferenceBatch(
        {
            "policy": logps([[-2.0, -6.0], [-8.0, -1.5]], lengths),
            "reference": logps([[-3.0, -5.0], [-7.0, -2.0]], lengths),
        }
    )
    found = means(batch, method("dpo", beta=0.5))
    expected = {
        "logps/chosen": -5.0,
        "logps/rejected": -3.75,
        "lengths/chosen": 3.0,
        "lengths/rejected": 2.0,
        "log_ratios/chosen": 0.0,
        "log_ratios/rejected": -0.25,
        "rewards/chosen": 0.0,
        "rewards/rejected": -0.125,
        "rewards/margins": 0.125,
        "rewards/accuracies": 0.5,
        "kl": -0.125,
    }
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_reward_is_what_the_objective_compares() -> None:
    batch = PreferenceBatch({"policy": logps([[-2.0, -6.0]], [[2, 3]])})
    found = means(batch, method("simpo", beta=2.0))
    assert found["rewards/chosen"] == pytest.approx(-2.0) and found["rewards/rejected"] == pytest.approx(-4.0)
    assert "log_ratios/chosen" not in found and "kl" not in found


def test_labelled_responses_by_label() -> None:
    lengths = [[2], [2], [2]]
    batch = PreferenceBatch(
        {
            "policy": logps([[-1.0], [-4.0], [-3.0]], lengths),
            "reference": logps([[-2.0], [-2.0], [-2.0]], lengths),
        },
        columns={"label": torch.tensor([[1.0], [-1.0], [1.0]])},
        roles=(),
    )
    found = means(batch, Compare(0.1 * log_ratio().sum(), Each(label="label")))
    assert found["logps/desirable"] == pytest.approx(-2.0) and found["logps/undesirable"] == pytest.approx(
        -4.0
    )
    assert found["log_ratios/desirable"] == pytest.approx(0.0)
    assert found["rewards/margins"] == pytest.approx(
        found["rewards/desirable"] - found["rewards/undesirable"]
    )


def test_lists_by_score_and_absent_responses() -> None:
    batch = PreferenceBatch(
        {"policy": logps([[-1.0, -2.0, -3.0], [-5.0, -4.0, 0.0]], [[1, 1, 1], [1, 1, 0]])},
        columns={"score": torch.tensor([[3.0, 2.0, 1.0], [2.0, 1.0, torch.nan]])},
        roles=(),
    )
    found = means(batch, Compare(Logp().sum(), EveryPair("score")))
    assert found["logps/best"] == pytest.approx(-3.0) and found["logps/worst"] == pytest.approx(-3.5)
    assert found["rewards/accuracies"] == pytest.approx(3 / 4)  # three pairs right, one wrong
    assert found["rewards/margins"] == pytest.approx(0.5)


def test_signals_are_averaged_over_tokens() -> None:
    policy = logps([[-2.0, -6.0]], [[1, 3]])
    entropy = torch.tensor([[[4.0, 9.0, 9.0], [1.0, 2.0, 3.0]]])
    batch = PreferenceBatch(
        {"policy": TokenLogps(policy.logps, policy.mask, {MONITORED["entropy"]: entropy})}
    )
    assert means(batch, method("simpo"))["entropy"] == pytest.approx(10 / 4)


def test_dummies_do_not_count() -> None:
    steps, objective = log(), method("simpo")
    for chosen, weight in ((-1.0, 1.0), (-5.0, 0.0)):
        add(steps, PreferenceBatch({"policy": logps([[chosen, -6.0]], [[1, 1]])}), objective, weight)
    assert (steps.examples, steps.tokens) == (1, 14), "what went through the network is counted all the same"
    assert steps.drain()["logps/chosen"] == -1.0
    assert set(steps.drain()) == {"tokens_per_second", "examples_per_second"}


def test_measures_of_one_batch_have_one_number_an_example() -> None:
    batch = PreferenceBatch({"policy": logps([[-2.0, -6.0], [-1.0, -3.0]], [[2, 3], [1, 1]])})
    found = measure(batch, method("simpo"))
    assert found["logps/chosen"].values.tolist() == [-2.0, -1.0]
    assert all(values.shape == weights.shape == (2,) for values, weights in found.values())


def test_terms_have_the_names_of_their_methods() -> None:
    batch = PreferenceBatch({name: logps([[-2.0, -6.0]], [[2, 3]]) for name in ("policy", "reference")})
    both = from_config({"method": "dpo", "plus": {"nll": 0.2}})
    assert term_names(both, batch) == ["terms/dpo", "terms/nll"]
    assert term_names(method("dpo"), batch) == ["terms/dpo"]
    assert term_names(0.5 * method("dpo") + 0.5 * method("dpo", beta=1.0), batch) == [
        "terms/dpo-1",
        "terms/dpo-2",
    ]


def logged(trainer: PreferenceTrainer) -> list[dict[str, Any]]:
    file = Path(trainer.args.output_dir) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("tokens", [30, 10_000])
def test_terms_add_up_to_the_loss(trainer: Make, tokens: int) -> None:
    run = trainer(objective={"method": "dpo", "plus": {"nll": 0.2}}, tokens_per_row=tokens)
    run.train()
    for line in logged(run):
        assert line["terms/dpo"] + line["terms/nll"] == pytest.approx(line["loss"], abs=1e-5)


def test_logs_are_means_since_the_last_one(trainer: Make) -> None:
    often, seldom = trainer(logging_steps=1), trainer(logging_steps=2)
    often.train(), seldom.train()
    each = logged(often)
    for number, line in enumerate(logged(seldom)):
        for name in ("loss", "logps/chosen", "rewards/margins"):
            pair = [each[2 * number + i][name] for i in range(2)]
            assert line[name] == pytest.approx(sum(pair) / 2, abs=1e-5)


def test_signals_are_asked_for_only_where_they_are_logged(trainer: Make) -> None:
    run = trainer(logging_steps=2, objective="simpo")
    asked = []
    share = run.update.share
    run.update.share = lambda policy, batch, extra, progress: (  # type: ignore[method-assign]
        asked.append(bool(extra)),
        share(policy, batch, extra, progress),
    )[1]
    run.train()
    count = run.plan.micro_batches
    assert asked == ([False] * count + [True] * count) * 2
    assert all("entropy" in line for line in logged(run))


def test_lists_and_scores_train(trainer: Make) -> None:
    generator = random.Random(0)
    rows = [
        {
            "prompt": text(generator, 2, 5),
            "completions": [" " + text(generator, 1, 5) for _ in range(2 + i % 3)],
            "scores": [float(j) for j in range(2 + i % 3)],
        }
        for i in range(12)
    ]
    runs = [
        trainer(data=rows, objective="dpo_plackett_luce", tokens_per_row=tokens, reference="frozen")
        for tokens in (60, 10_000)
    ]
    for run in runs:
        run.train()
    first, second = (logged(run) for run in runs)
    assert {"rewards/best", "rewards/worst", "rewards/accuracies"} <= set(first[0])
    for name in ("loss", "rewards/margins", "logps/best"):
        assert [line[name] for line in first] == pytest.approx([line[name] for line in second], abs=2e-5)


def test_bfloat16_is_an_option(trainer: Make) -> None:
    run, single = trainer(precision="bfloat16"), trainer()
    run.train(), single.train()
    losses = [[line["loss"] for line in logged(one)] for one in (run, single)]
    assert losses[0][0] == pytest.approx(0.6931, abs=2e-3)
    assert losses[0] == pytest.approx(losses[1], abs=5e-2) and losses[0] != losses[1]
    assert {str(weight.dtype) for weight in run.model.parameters()} == {"torch.float32"}
    stores = [one.references.cached["reference"].logps.store.fingerprint for one in (run, single)]
    assert stores[0] != stores[1], "scores of another precision are other scores"


def test_several_held_out_sets(trainer: Make) -> None:
    run = trainer(eval_dataset={"near": pairs(5, 1), "far": pairs(4, 2)}, eval_strategy="epoch")
    run.train()
    found = {name for line in logged(run) for name in line}
    assert {"eval/near_rewards/margins", "eval/far_loss"} <= found
