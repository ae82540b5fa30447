"""Whole runs on real preference data with a real pre-trained model, through the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from examples import real_data
from examples.real_data import Outcome
from prefero.data import load_examples

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
RUNS = [(study, run) for study, of in real_data.STUDIES.items() for run in of.runs]


@pytest.fixture(scope="module")
def output() -> Path:
    return ROOT / "runs" / "real"


@pytest.fixture(scope="module")
def outcomes(data: Path, output: Path) -> Mapping[str, Outcome]:
    """All runs by name; whoever runs the tests finds tables and reports in ``output``."""
    return {one.run: one for one in real_data.measure(list(real_data.STUDIES), data, output)}


@pytest.mark.parametrize(("study", "run"), RUNS)
def test_a_run_is_finished_and_its_report_has_answers_of_both_models(
    outcomes: Mapping[str, Outcome], output: Path, study: str, run: str
) -> None:
    folder = output / study / run
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["finished"]
    assert record["method"]["key"] == outcomes[run].method
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    assert len(samples) == 4
    assert all(one["before"].strip() and one["after"].strip() for one in samples)
    assert any(one["before"] != one["after"] for one in samples)
    page = (folder / "report.html").read_text("utf-8")
    assert "<svg" in page
    assert "likeliest token each time" in page


@pytest.mark.parametrize("study", real_data.STUDIES)
def test_no_prompt_is_on_both_sides(outcomes: Mapping[str, Outcome], output: Path, study: str) -> None:
    prompts = [
        {str(example.prompt) for example in load_examples(output / study / file)}
        for file in ("train.jsonl", "held_out.jsonl")
    ]
    assert all(prompts)
    assert not prompts[0] & prompts[1]


@pytest.mark.parametrize("run", ["dpo-full", "dpo-lora"])
def test_pairs_of_people_are_ordered_better_than_by_chance(outcomes: Mapping[str, Outcome], run: str) -> None:
    """The implicit reward of chosen exceeds that of rejected in more than half of a thousand held-out pairs,
    with the 95 % interval; so says the run too, whose model was neither saved nor merged."""
    outcome = outcomes[run]
    assert outcome.examples >= 400
    assert outcome.reward.pairs >= 1000
    assert outcome.reward.interval.low > 0.5
    (row,) = json.loads((outcome.folder / "evaluation.json").read_text("utf-8"))["rows"]
    assert row["accuracy"] == pytest.approx(outcome.reward.accuracy, abs=0.02)


def test_simpo_orders_pairs_by_what_it_trains(outcomes: Mapping[str, Outcome]) -> None:
    """The log-probability per token, which is its reward: so says the run too."""
    outcome = outcomes["simpo"]
    assert outcome.trained.accuracy > outcome.start.accuracy
    (row,) = json.loads((outcome.folder / "evaluation.json").read_text("utf-8"))["rows"]
    assert row["accuracy"] == pytest.approx(outcome.trained.accuracy, abs=0.02)


def test_kto_is_measured_on_right_and_wrong_solutions(outcomes: Mapping[str, Outcome]) -> None:
    """One epoch of these few does not tell them apart: the table says so."""
    outcome = outcomes["kto"]
    assert outcome.reward.pairs >= 100
    assert outcome.reward.interval.low < outcome.reward.accuracy < outcome.reward.interval.high


@pytest.mark.parametrize(("study", "run"), RUNS)
def test_the_folder_answers_in_plain_transformers(
    outcomes: Mapping[str, Outcome], output: Path, study: str, run: str
) -> None:
    """Adapters too, which PEFT merges."""
    folder = output / study / run / "model"
    model, tokenizer = real_data.loaded(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    context = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**context, do_sample=False, max_new_tokens=16)[0]
    assert tokenizer.decode(tokens[context["input_ids"].shape[1] :], skip_special_tokens=True).strip()
