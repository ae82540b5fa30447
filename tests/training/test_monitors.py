"""Each monitor fires on the course it is for, says the number, and stays silent on a healthy run."""

import json
import math
import random
import subprocess
import sys

import pytest

from prefero.training.monitors import MONITORS, Finding, Monitors


def run_of(count, **courses):
    """A run of ``count`` logs, ten steps apart; each course is a function of the share of the run done."""
    for index in range(count):
        share = index / (count - 1)
        yield {"step": 10 * (index + 1), **{name: course(share) for name, course in courses.items()}}


def fired(lines) -> dict[str, Finding]:
    monitors = Monitors()
    return {finding.monitor: finding for line in lines for finding in monitors.observe(line)}


def noisy(course, spread, seed=0):
    generator = random.Random(seed)
    return lambda share: course(share) + generator.gauss(0, spread)


HEALTHY = {
    "epoch": lambda share: share,
    "loss": noisy(lambda share: 0.69 - 0.2 * share, 0.02),
    "grad_norm": noisy(lambda share: 5.0, 1.0, 1),
    "rewards/accuracies": noisy(lambda share: 0.5 + 0.2 * share, 0.04, 2),
    "rewards/margins": noisy(lambda share: share, 0.05, 3),
    "logps/chosen": noisy(lambda share: -100 + share, 1.0, 4),
    "lengths/chosen": noisy(lambda share: 80, 4.0, 5),
    "lengths/rejected": noisy(lambda share: 75, 4.0, 6),
    "entropy": noisy(lambda share: 1.5 - 0.1 * share, 0.05, 7),
    "top_k_mass": noisy(lambda share: 0.9, 0.01, 8),
    "log_ratios/chosen": lambda share: share,
    "log_ratios/rejected": lambda share: -4 * share,
}


def test_a_healthy_run_fires_nothing():
    assert fired(run_of(60, **HEALTHY)) == {}


def test_displacement_is_measured_per_token():
    course = {"logps/chosen": lambda share: -100 - 40 * share, "lengths/chosen": lambda share: 80}
    finding = fired(run_of(30, **course))["displacement"]
    assert finding.value == pytest.approx(0.1, abs=0.05)
    assert "dpop" in finding.remedies and "nats per token" in finding.message


def test_displacement_needs_more_than_the_noise_of_the_batches():
    lengths = noisy(lambda share: 80, 20, 1)
    course = {"logps/chosen": noisy(lambda share: -100, 25), "lengths/chosen": lengths}
    assert "displacement" not in fired(run_of(40, **course))


def test_displacement_prefers_the_held_out_pairs():
    rising = {"logps/chosen": lambda share: -100 + share, "lengths/chosen": lambda share: 80}
    held_out = {"eval/logps/chosen": lambda share: -100 - 20 * share, "eval/lengths/chosen": lambda share: 80}
    finding = fired(run_of(20, **rising, **held_out))["displacement"]
    assert "held-out" in finding.message


@pytest.mark.parametrize("group", ["chosen", "desirable", "best"])
def test_displacement_is_measured_against_the_reference_where_one_is_scored(group):
    course = {f"log_ratios/{group}": lambda share: -40 * share, f"lengths/{group}": lambda share: 80}
    finding = fired(run_of(30, **course))["displacement"]
    assert 0.1 < finding.value < 0.15 and group in finding.message


def test_a_rising_likelihood_is_no_displacement():
    course = {"logps/chosen": lambda share: -100 + 40 * share, "lengths/chosen": lambda share: 80}
    assert fired(run_of(30, **course)) == {}


def test_entropy_that_rises_and_then_falls_is_reported():
    up_then_down = noisy(lambda share: 1 + share if share < 0.4 else 1.4 - 1.5 * (share - 0.4), 0.02)
    assert "entropy_collapse" in fired(run_of(40, entropy=up_then_down))
    assert fired(run_of(40, entropy=lambda share: 1 + share)) == {}


def test_top_k_mass_that_leaks_is_reported():
    leaking = fired(run_of(30, **{"top_k_mass": lambda share: 0.9 - 0.2 * share}))
    assert leaking["mass_collapse"].value > 0.1
    assert fired(run_of(30, **{"top_k_mass": lambda share: 0.7 + 0.2 * share})) == {}


def test_margins_that_follow_length_are_reported_but_a_common_trend_is_not():
    gap = noisy(lambda share: 5, 3)
    lengths = [gap(0) for _ in range(60)]
    follows = [
        {"step": i, "rewards/margins": 0.1 * d, "lengths/chosen": 70 + d, "lengths/rejected": 70}
        for i, d in enumerate(lengths, 1)
    ]
    assert "longer" in fired(follows)["length_reliance"].message
    trend = {
        "rewards/margins": noisy(lambda share: 10 * share, 0.1, 1),
        "lengths/chosen": noisy(lambda share: 70 + 30 * share, 1, 2),
        "lengths/rejected": lambda share: 70,
    }
    assert fired(run_of(60, **trend)) == {}


def test_train_accuracy_counts_as_overfit_only_on_pairs_seen_before():
    course = {
        "rewards/accuracies": lambda share: 1.0,
        "eval/rewards/accuracies": lambda share: 0.7 - 0.05 * share,
    }
    second_pass = fired(run_of(30, epoch=lambda share: 2 * share, **course))
    assert second_pass["overfit"].value > 0.3
    assert fired(run_of(30, epoch=lambda share: share, **course)) == {}


def test_saturation_is_reported_where_nothing_is_held_out():
    course = {"epoch": lambda share: 3 * share, "rewards/accuracies": lambda share: 1.0}
    assert "saturated" in fired(run_of(30, **course))


def test_held_out_loss_must_rise_twice():
    losses = [0.69, 0.5, 0.6, 0.49, 0.55, 0.6]
    lines = [{"step": i, "eval/loss": loss} for i, loss in enumerate(losses, 1)]
    assert "eval_loss_rise" not in fired(lines[:5])
    assert fired(lines)["eval_loss_rise"].value == pytest.approx(0.6 / 0.49 - 1)


FAR = {"log_ratios/rejected": lambda share: -160 * share, "lengths/rejected": lambda share: 80}


def test_distance_from_the_reference():
    finding = fired(run_of(20, **FAR))["far_from_reference"]
    assert finding.value > 1 and "rejected" in finding.message and "less likely" in finding.message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_reported_at_once(value):
    finding = fired([{"step": 1, "loss": 0.7}, {"step": 2, "loss": value}])["not_finite"]
    assert finding.step == 2 and "learning rate" in finding.advice


def test_every_monitor_fires_at_most_once_and_offers_only_methods_that_exist():
    monitors = Monitors(methods={"ipo"})
    lines = run_of(40, epoch=lambda share: 3 * share, **{"rewards/accuracies": lambda share: 1.0})
    findings = [finding for line in lines for finding in monitors.observe(line)]
    assert [finding.monitor for finding in findings] == ["saturated"]
    assert findings[0].remedies == ("ipo",)


def test_every_monitor_states_what_it_measures_and_what_helps():
    for monitor in MONITORS:
        assert monitor.title and monitor.measures and monitor.advice and monitor.reads
        assert monitor.paper or monitor.name == "not_finite"
    assert len({monitor.name for monitor in MONITORS}) == len(MONITORS)


def test_findings_are_json():
    finding = fired(run_of(20, **FAR))["far_from_reference"]
    assert json.loads(json.dumps(finding.as_dict()))["monitor"] == "far_from_reference"


def test_monitors_need_no_torch():
    code = "import sys, prefero.training.monitors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
