"""Long runs, looked at on the way, and rules that pick a checkpoint."""

from __future__ import annotations

import pytest

from prefero_lab.papers.experiments.over_optimisation import Checkpoint, OverOptimisation, Run, fit, picked
from tests.demo.small import WRITING


class Small(OverOptimisation):
    text_world = WRITING


def test_checkpoints_come_on_the_way_and_the_run_goes_on_from_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    experiment = Small(pairs=32, prompts=8, betas=(0.1,), steps=8, every=4, examples_per_step=8)
    made = experiment.make(0)
    (run,) = made.runs
    assert [one.step for one in run.checkpoints] == [4, 8]
    assert 0 == made.before.margin < run.checkpoints[0].margin < run.checkpoints[1].margin
    assert made.before.kl < run.checkpoints[0].kl < run.checkpoints[1].kl
    assert experiment.make(0).runs == made.runs
    last = experiment.measure(made, experiment.train(made, {"pick": "last"}, 0).model, 0)
    assert len(last["gold_reward"]) == 4 and last["step"] == [8.0]
    assert experiment.measure(made, 1, 0)["turns"] == [0.0]


def run(**flags: int) -> Run:
    """Gold is best in the middle for prompts that rules see; likelihood falls and margins grow."""
    seen = (0.1, 0.5, 0.2)
    return Run(
        [
            Checkpoint(10 * n, [seen[n - 1], 9.0, seen[n - 1], 9.0], 1.0, 0.0, -float(n), float(n))
            for n in (1, 2, 3)
        ],
        flags,
    )


@pytest.mark.parametrize(
    ("rule", "step"), [("best", 20), ("likelihood", 10), ("margin", 30), ("last", 30), ("flag", 30)]
)
def test_rules_pick_by_what_they_say(rule, step):
    assert picked(run(), rule).step == step


@pytest.mark.parametrize(
    ("flags", "step"),
    [({"mass_collapse": 25}, 20), ({"mass_collapse": 25, "entropy_collapse": 12}, 10),
     ({"entropy_collapse": 4}, 10), ({"displacement": 4}, 30)],
)  # fmt: skip
def test_a_flag_stops_at_the_checkpoint_before_it(flags, step):
    assert run(**flags).flagged.step == step


def test_choosing_and_judging_prompts_are_others():
    assert run().checkpoints[0].choosing == pytest.approx(0.1)
    assert set(run().checkpoints[0].judging) == {9.0}


def test_a_parabola_predicts_a_turn_and_a_line_does_not():
    x = [-3.0, -2.5, -2.0, -1.5, -1.0]
    turned = [-((one + 2) ** 2) for one in x]
    assert fit(2, x, turned)["fit_error"][0] < 1e-9 < 0.3 < fit(1, x, turned)["fit_error"][0]
    assert fit(2, x, turned)["turns"] == [1.0] and fit(1, x, turned)["turns"] == [0.0]
    assert fit(2, x, [-one for one in turned])["turns"] == [0.0]
