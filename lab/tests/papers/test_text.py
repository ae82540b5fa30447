"""The experiment on text worlds, from start model to numbers, through the real trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from prefero_lab.papers import reproduce
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.results import fingerprint
from prefero_lab.papers.text import Made, TextExperiment
from prefero_lab.papers.verdicts import FAILS, HOLDS
from prefero_lab.worlds.noisy import Flips, Groups, Ties
from tests.demo.small import WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(TextExperiment):
    """A start model that has learnt to stop, not to write: fast, and enough to see what goes where."""

    text_world = WRITING


def small() -> Small:
    return Small(pairs=64, epochs=1.0, examples_per_step=8, prompts=16)


def test_numbers_are_one_a_prompt_and_the_same_again():
    experiment = small()
    made, again = experiment.make(100), experiment.make(100)
    assert made.rows == again.rows
    before = {name: weight.clone() for name, weight in made.start.model.state_dict().items()}
    settings = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-2}
    first, second = (experiment.train(made, settings, 100) for _ in range(2))
    numbers = experiment.measure(made, first.model, 100)
    assert numbers == experiment.measure(again, second.model, 100)
    start = experiment.measure(made, experiment.start(made), 100)
    assert all(torch.equal(before[name], weight) for name, weight in made.start.model.state_dict().items())
    assert (
        {"gold_reward", "win_rate", "kl", "length", "valid", "chosen_log_ratio", "rejected_log_ratio"}
        == set(numbers)
        == set(start)
    )
    assert {len(values) for name, values in numbers.items() if name != "kl"} == {16}
    assert set(start["chosen_log_ratio"]) == {0.0} != set(numbers["chosen_log_ratio"])
    assert numbers["kl"][0] > 1e-4 > start["kl"][0] >= 0
    assert first.curves.keys() >= {"loss", "rewards/accuracies", "rewards/margins"}
    assert [step for step, _ in first.curves["loss"]] == list(range(1, 1 + -(-len(made.rows) // 8)))


def test_arms_share_the_scores_of_the_reference(tmp_path, monkeypatch):
    """The second method finds them all on disk: nothing is scored twice."""
    from prefero.reference.cache import CachedLogps

    experiment, filled = small(), []
    made = experiment.make(100)
    fill = CachedLogps.fill
    monkeypatch.setattr(CachedLogps, "fill", lambda self, *a, **k: filled.append(1) or fill(self, *a, **k))
    for method in ("dpo", "ipo"):
        experiment.train(made, {"objective": {"method": method}, "learning_rate": 1e-3}, 100)
    assert filled == [1]


@dataclass(frozen=True)
class Flipped(TextExperiment):
    """With ``sign`` −1 the rejected response is taken for the chosen one: the objective's sign, flipped."""

    sign: int = 1

    def make(self, seed: int) -> Made:
        made = super().make(seed)
        if self.sign < 0:
            rows = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in made.rows]
            made = Made(made.start, rows, made.held_out)
        return made


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "verdict"), [(1, HOLDS), (-1, FAILS)])
def test_with_the_sign_flipped_the_verdict_turns(tmp_path: Path, sign: int, verdict: str) -> None:
    claim = Claim(
        statement="DPO raises the gold reward.",
        experiment=Flipped(sign=sign),
        arms=(START, Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 5e-4})),
        expected=(Expectation("dpo", "start", "gold_reward"),),
        refuted_by="no gain",
        seconds=60,
    )
    paper = Paper("p053", "t", "2023", "nothing", (claim,), key="flipped", area="nowhere")
    assert reproduce(paper, output=tmp_path).verdict == verdict


def test_labels_and_tastes_are_part_of_what_numbers_depend_on():
    """By kind as well as by number: the same number in another kind of labels is another experiment."""
    experiments = [
        TextExperiment(),
        TextExperiment(taste="brief"),
        TextExperiment(labels=(Flips(0.5),)),
        TextExperiment(labels=(Ties(0.5),)),
        TextExperiment(labels=(Flips(0.5), Ties(0.5))),
        TextExperiment(labels=(Groups(("brief", None), (0.8, 0.2)),)),
    ]
    assert len({fingerprint(one, START, 100) for one in experiments}) == len(experiments)


def test_labels_are_given_one_after_the_other():
    experiment = Small(pairs=64, prompts=2, labels=(Ties(0.3), Flips(1.0)))
    clean, rows = (one.make(0).rows for one in (Small(pairs=64, prompts=2), experiment))
    assert {row["tie"] for row in rows} <= {True, False} and all(row["flipped"] for row in rows)
    for row, old in zip(rows, clean, strict=True):
        assert row["tie"] or (row["chosen"], row["rejected"]) == (old["rejected"], old["chosen"])
