"""``prefero sweep`` from the outside, on a tiny Llama."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefero.cli.sweep import parse_over
from prefero.errors import PreferoError
from prefero.report.folder import Comparison
from prefero.report.sweeps import Sweep


@pytest.mark.parametrize(
    ("argument", "over"),
    [
        ("objective.beta=0.05,0.1, 0.5", ("objective.beta", [0.05, 0.1, 0.5])),
        ("objective.beta=[0.05, 0.1]", ("objective.beta", [0.05, 0.1])),
        ("training.learning_rate=1e-6,5e-6", ("training.learning_rate", [1e-6, 5e-6])),
        ("m.targets=[q_proj],[q_proj, v_proj]", ("m.targets", [["q_proj"], ["q_proj", "v_proj"]])),
        ("model.lora=true,{r: 2}", ("model.lora", [True, {"r": 2}])),
        ("objective.method=dpo,ipo", ("objective.method", ["dpo", "ipo"])),
        ("data.train=../a.jsonl,../b.jsonl", ("data.train", ["../a.jsonl", "../b.jsonl"])),
        ("training.max_grad_norm=null,1", ("training.max_grad_norm", [None, 1])),
        ("objective.beta=0.1..0.5", ("objective.beta", "0.1..0.5")),
        ("objective.beta=0.1 .. 0.5", ("objective.beta", "0.1 .. 0.5")),
        ("x=log:1e-7..1e-5", ("x", "log:1e-7..1e-5")),
        ("training.epochs=1,2", ("training.num_train_epochs", [1, 2])),
        ("training.epochs=1..3", ("training.num_train_epochs", "1..3")),
    ],
)
def test_values_are_separated_by_commas_or_a_list_or_a_range(argument, over):
    assert parse_over(argument) == over


@pytest.mark.parametrize(
    "argument", ["objective.beta", "=1,2", "objective.beta=", "objective.beta=[1,2", "a=1,{"]
)
def test_what_is_no_values_is_refused(argument):
    with pytest.raises(PreferoError):
        parse_over(argument)


@pytest.fixture
def short(ingredients, quick) -> list[str]:
    files = ["--model", str(ingredients / "model"), "--data", str(ingredients / "pairs.jsonl")]
    return [*files, "--eval-data", "0.25", *quick, "training.max_steps=2", "samples=0"]


@pytest.fixture
def swept(prefero, short):
    varied = ("--over", "objective.beta=0.1,0.5", "--over", "training.weight_decay=0,0.1")
    return prefero("sweep", *short, *varied, "--output", "swept", "--metric", "loss")


def test_a_sweep_shows_its_runs_the_best_first_and_says_what_that_is_worth(swept, tmp_path):
    assert swept.returncode == 0, swept.stderr
    header, *rows = swept.stdout.splitlines()
    assert header.split() == ["beta", "weight_decay", "loss", "steps", "time"]
    record = json.loads((tmp_path / "swept" / "comparison.json").read_text())
    losses = {row["method"]: row["loss"] for row in record["evaluation"]["rows"]}
    order = sorted(losses, key=losses.__getitem__)
    assert ["beta-{}_weight_decay-{}".format(*row.split()) for row in rows[:4]] == order
    assert f"best    swept/{order[0]}" in swept.stdout
    assert "The best of 4 runs was chosen by its loss, which therefore flatters it" in swept.stdout
    page = (tmp_path / "swept" / "report.html").read_text()
    assert "Sweep over objective.beta, training.weight_decay" in page and "Four runs on the same data" in page
    for key in ("objective.beta", "training.weight_decay"):
        assert f"Loss against {key}" in page and f'<th scope="col">{key}</th>' in page
    assert "flatters it" in page


def test_a_sweep_as_json_and_again(prefero, short, swept, tmp_path):
    assert swept.returncode == 0, swept.stderr
    varied = ("--over", "objective.beta=0.1,0.5", "--over", "training.weight_decay=0,0.1")
    again = prefero("sweep", *short, *varied, "--output", "swept")
    assert again.returncode == 2 and "training.resume_from_checkpoint=auto" in again.stderr
    kept = prefero(
        "sweep", *short, *varied, "--output", "swept", "training.resume_from_checkpoint=auto", "--json"
    )
    assert kept.returncode == 0 and kept.stderr.count("is finished and kept") == 4
    outcome = json.loads(kept.stdout)
    assert outcome["sweep"]["metric"] == "accuracy" and outcome["sweep"]["over"]["objective.beta"] == [
        0.1,
        0.5,
    ]
    best = outcome["sweep"]["runs"][0]
    assert best["run"] == outcome["sweep"]["best"] and set(best["values"]) == set(outcome["sweep"]["over"])
    assert best["accuracy"] == max(run["accuracy"] for run in outcome["sweep"]["runs"])
    assert len(outcome["runs"]) == 4 and all(run["finished"] for run in outcome["runs"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to vary, such as --over objective.beta=0.05,0.1,0.5"),
        (["--over", "objective.beta=0.1..0.5"], "--trials 20"),
        (["--over", "objective.beta=1,2", "--over", "objective.beta=3,4"], "varied twice"),
        (["--over", "objective.beta=1,-2"], "beta--2: "),
        (["--over", "objective.beta=1,2", "--metric", "margin"], "one of accuracy, loss"),
        (
            ["--over", "objective.beta=1,2", "objective.beta=3"],
            "objective.beta is set, and objective.beta is",
        ),
        (
            ["--over", "objective=dpo,ipo", "objective.beta=3"],
            "objective.beta is set, and objective is varied",
        ),
        (["--over", "objective.method=dpo,ipo", "--method", "dpo"], "objective.method is set"),
        (["--over", "objective.beta=1,2", "--beta", "3"], "objective.beta, an argument of the method"),
        (["--over", "objective.beta=1,2", "data.eval=null"], "data.eval=0.1"),
    ],
)
def test_a_mistake_is_one_message_before_any_training(prefero, short, tmp_path, arguments, message):
    done = prefero("sweep", *short, "--output", "run", *arguments)
    assert done.returncode == 2 and done.stdout == "" and message in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_axis_that_is_logarithmic_says_so():
    def chart(learning_rates):
        rows = [{"method": str(one), "loss": 1 / n} for n, one in enumerate(learning_rates, 1)]
        values = {str(one): {"training.learning_rate": one} for one in learning_rates}
        record = {"sweep": {"over": {"training.learning_rate": [*learning_rates]}, "values": values}}
        record |= {"evaluation": {"rows": rows}}
        record["sweep"]["metric"] = "loss"
        swept = Sweep.of(Comparison(Path(), tuple(values), (), tuple(rows), record))
        return str(swept.figures({})[0].chart)

    assert "training.learning_rate, logarithmic" in chart([1e-6, 1e-4])
    assert "logarithmic" not in chart([1e-6, 2e-6])


def test_a_report_of_a_sweep_that_is_not_finished(prefero, short, swept, tmp_path):
    """Trials, a run that failed, and one that has not begun."""
    file = tmp_path / "swept" / "comparison.json"
    record = json.loads(file.read_text())
    failed, missing = record["runs"][0], "beta-2"
    record["runs"].append(missing)
    record["sweep"]["values"][missing] = {"objective.beta": 2.0, "training.weight_decay": 0}
    record["evaluation"]["rows"][0] = {"method": failed, "failed": "stopped at step 1"}
    file.write_text(json.dumps(record))
    done = prefero("report", "swept")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "swept" / "report.html").read_text()
    assert (
        f"was not finite: {failed}" in page and f"Not started: {missing}" in page and "not finished" in page
    )
