"""Difficulties of prompts: fitted from several models, kept in a file, and win rates without them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefero.errors import PreferoError
from prefero.evaluate import fit_difficulties, read_all_judgements, read_difficulties, summaries, summary
from prefero.evaluate.difficulties import Comparisons, Difficulties, difficulties_by_others, prompt_hash
from prefero.evaluate.judgements import Judgement, judgement_files

PROMPTS = 150


def world(
    strengths: Sequence[float], *, seed: int = 0, prompts: int = PROMPTS
) -> tuple[dict[str, list[Judgement]], np.ndarray]:
    """Judgements that follow the model of the fit, with a judge who likes long responses, and the
    difficulties."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 1.5, prompts)
    models = {}
    for number, strength in enumerate(strengths):
        gap = rng.normal(-200, 300, prompts)
        logits = strength - 1.2 * np.tanh(gap / gap.std(ddof=1)) + hardness
        chance = 1 / (1 + np.exp(-logits))
        models[f"model {number}"] = [
            Judgement(f"model {number}", f"prompt {i}", float(chance[i]), 1000.0, 1000.0 + float(gap[i]))
            for i in range(prompts)
        ]
    return models, hardness


def test_difficulties_are_found_again_and_scaled_as_they_were() -> None:
    models, hardness = world([-2, -1, 0, 0.5, 1])
    fitted = fit_difficulties(models)
    assert fitted.models == tuple(models)
    found = np.array([fitted.logits[prompt_hash(f"prompt {i}")] for i in range(PROMPTS)])
    assert np.corrcoef(found, hardness)[0, 1] > 0.99
    assert found.mean() == pytest.approx(0, abs=1e-3)
    assert 0.75 < np.polyfit(hardness, found, 1)[0] < 1  # the ridge, which the scale of each model undoes


def test_the_fit_is_at_its_optimum() -> None:
    """The gradient of the cross entropy with its ridge, worked out apart from the fit."""
    models, _ = world([-1, 0.3, 2], prompts=20)
    comparisons = Comparisons.of(models)
    _, solution = comparisons.fit()

    def loss(at: np.ndarray) -> float:
        logits = (
            at[:3][comparisons.model]
            + at[3:6][comparisons.model] * comparisons.length
            + at[6:][comparisons.prompt]
        )
        chance = 1 / (1 + np.exp(-logits))
        target = comparisons.preference
        entropy = -(target * np.log(chance) + (1 - target) * np.log1p(-chance)).sum()
        return float(entropy + 0.05 * (at[6:] ** 2).sum() + 0.0005 * (at[:6] ** 2).sum())

    for place in range(len(solution)):
        step = np.zeros_like(solution)
        step[place] = 1e-5
        assert abs(loss(solution + step) - loss(solution - step)) / 2e-5 < 1e-3


def test_a_model_is_left_out_of_the_fit_for_itself() -> None:
    models, _ = world([-1, 0, 1])
    others = difficulties_by_others(models)
    for name in models:
        alone = fit_difficulties({other: judged for other, judged in models.items() if other != name})
        assert others[name].models == alone.models
        for key, value in alone.logits.items():
            assert others[name].logits[key] == pytest.approx(value, abs=1e-3)
    # and what it was judged does not change them
    changed = [replace(each, preference=1 - each.preference) for each in models["model 0"]]
    again = difficulties_by_others({**models, "model 0": changed})
    for key, value in others["model 0"].logits.items():
        assert again["model 0"].logits[key] == pytest.approx(value, abs=1e-3)


def test_with_difficulties_the_rate_is_that_at_equal_lengths() -> None:
    """Without them the length term takes up what belongs to the prompts."""
    models, hardness = world([-2.5, -2, -1, 0, 0.5, 1], prompts=400)
    rng = np.random.default_rng(1)
    # the judged model is long on hard prompts
    gap = 250 * hardness + rng.normal(0, 100, 400)
    chance = 1 / (1 + np.exp(-(-1 - 0.5 * np.tanh(gap / gap.std(ddof=1)) + hardness)))
    judged = [
        Judgement("judged", f"prompt {i}", float(chance[i]), 1000.0, 1000.0 + float(gap[i]))
        for i in range(400)
    ]
    truth = float((1 / (1 + np.exp(-(-1 + hardness)))).mean())
    rows, _ = summaries([*judged, *(each for own in models.values() for each in own)])
    assert rows[0]["length_controlled_win_rate"] == pytest.approx(truth, abs=0.01)
    assert rows[0]["difficulties"] == {"source": "fitted", "models": 6, "missing": 0}
    (alone,), (note,) = summaries(judged)
    assert abs(alone["length_controlled_win_rate"] - truth) > 0.03
    assert alone["difficulties"] == {"source": "absent"}
    assert note.startswith("the length-controlled win rate of judged is without difficulties of prompts")
    assert "--difficulties FILE" in note


def test_models_that_tie_everywhere_tell_nothing() -> None:
    """AlpacaEval's own annotations of the baseline against itself."""
    models, _ = world([-1, 0])
    itself = [
        replace(each, model="itself", preference=0.5, length=1.0, baseline_length=1.0)
        for each in models["model 0"]
    ]
    with_it = fit_difficulties({**models, "itself": itself})
    assert with_it == fit_difficulties(models)
    row = next(row for row in summaries([*itself, *models["model 0"]])[0] if row["method"] == "itself")
    assert row["length_controlled_win_rate"] == row["win_rate"] == 0.5
    with pytest.raises(PreferoError, match="no judgements to fit difficulties from"):
        fit_difficulties({"itself": itself})


def test_a_prompt_that_all_win_has_a_finite_difficulty() -> None:
    models = {
        name: [Judgement(name, f"prompt {i}", float(i > 4), 10.0 + i % 3, 12.0) for i in range(12)]
        for name in ("a", "b")
    }
    fitted = fit_difficulties(models)
    assert all(np.isfinite(value) for value in fitted.logits.values())
    assert fitted.logits[prompt_hash("prompt 11")] > fitted.logits[prompt_hash("prompt 0")]


def test_a_file_keeps_them(tmp_path: Path) -> None:
    models, _ = world([-1, 0, 1])
    models = {
        name: [replace(each, judge="j", against="b") for each in judged] for name, judged in models.items()
    }
    fitted = fit_difficulties(models)
    fitted.write(tmp_path / "difficulties.json")
    assert read_difficulties(tmp_path / "difficulties.json") == fitted
    content = json.loads((tmp_path / "difficulties.json").read_text())
    assert (content["models"], content["judge"], content["baseline"]) == (list(models), "j", "b")
    assert hashlib.sha256(b"prompt 3").hexdigest() in content["difficulties"]
    rows, notes = summaries(models["model 0"], difficulties=fitted)
    assert rows[0]["difficulties"] == {"source": "known", "models": 3, "missing": 0}
    assert notes[0] == "difficulties of prompts are those fitted from 3 models, which is rough"
    assert notes[1].startswith("model 0: the difficulties were fitted from these judgements too")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "broken JSON"),
        ("[]", "difficulties.json"),
        ('{"models": ["a"], "difficulties": {"x": "hard"}}', "difficulties"),
        ('{"models": ["a"], "difficulties": {"x": NaN}}', "difficulties"),
        ('{"models": ["a"], "difficulties": {}, "other": 1}', "other"),
        ('{"models": ["a"], "difficulties": {"x": 1e31}}', "less than or equal to 1000000000"),
        ('{"models": ["a"], "difficulties": {"x": "0.3"}}', "valid number"),
        ('{"models": ["a"], "difficulties": {"x": true}}', "valid number"),
        ('{"models": [], "difficulties": {"x": 1}}', "at least 1 item"),
        ('{"models": ["a"], "difficulties": {"x": 1, "x": 2}}', "'x' stands twice"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "difficulties.json"
    file.write_text(content)
    with pytest.raises(PreferoError, match=message):
        read_difficulties(file)


def test_difficulties_of_other_judges_baselines_and_prompts_are_refused() -> None:
    models, _ = world([-1, 0])
    own = [replace(each, judge="gpt", against="base") for each in models["model 0"]]
    fitted = fit_difficulties(models)
    for given, what in (
        (replace(fitted, judge="claude"), "the judge 'claude', and these are judgements with 'gpt'"),
        (replace(fitted, baseline="other"), "the baseline 'other'"),
        (Difficulties({"0": 1.0}, ("a",)), "of none of the prompts that model 0 was judged on"),
    ):
        with pytest.raises(PreferoError, match=what):
            summaries(own, difficulties=given)
    known = [replace(each, difficulty=0.1) for each in own]
    with pytest.raises(PreferoError, match="have difficulties of their own"):
        summaries(known, difficulties=fitted)
    with pytest.raises(PreferoError, match="1 of 150 judgements of model 0 have no difficulty"):
        summaries([*known[1:], own[0]])
    with pytest.raises(PreferoError, match="of 2 judges: claude, gpt"):
        summaries([own[0], replace(own[1], judge="claude")])
    with pytest.raises(PreferoError, match="of 2 baselines: base, other"):
        summaries([own[0], replace(own[1], against="other")])


def test_prompts_without_a_difficulty_count_as_average_and_are_counted() -> None:
    models, _ = world([-1, 0, 1])
    more = [*models["model 0"], replace(models["model 0"][0], prompt="another", preference=1.0)]
    rows, notes = summaries([*more, *models["model 1"]])
    assert rows[0]["difficulties"] == {"source": "fitted", "models": 1, "missing": 1}
    assert "model 0: 1 of its prompts have no difficulty, and count as of average difficulty" in notes
    expected = [*(fit_difficulties({"model 1": models["model 1"]}).of(models["model 0"])), 0.0]
    by_hand = summary(more, None, [float(each or 0) for each in expected])
    assert rows[0]["length_controlled_win_rate"] == pytest.approx(
        by_hand["length_controlled_win_rate"], abs=1e-4
    )


def test_several_responses_to_a_prompt_are_one_prompt_of_all_intervals() -> None:
    """The same judgements twice tell nothing more."""
    models, _ = world([-1, 0, 1], prompts=40)
    rng = np.random.default_rng(0)
    scored = [replace(each, score=float(rng.normal())) for each in models["model 0"]]
    hardness = [float(rng.normal()) for _ in scored]
    once, twice = summary(scored, None, hardness), summary([*scored, *scored], None, hardness * 2)
    for name in ("win_rate", "score", "characters"):
        assert twice["interval"][name] == pytest.approx(once["interval"][name])
    low, high = once["interval"]["length_controlled_win_rate"]
    again = twice["interval"]["length_controlled_win_rate"]
    assert again[1] - again[0] == pytest.approx(high - low, rel=0.2)
    more = [replace(each, prompt=f"{each.prompt}!") for each in scored[:5]]
    rows, _ = summaries([*scored, *more, *more, *models["model 1"]])
    assert rows[0]["difficulties"]["missing"] == 5  # prompts, not judgements


def test_models_on_other_prompts_are_said_and_count_for_no_difficulty() -> None:
    models, _ = world([-1, 0, 1, 2], prompts=40)
    apart = [replace(each, prompt=f"other {i}") for i, each in enumerate(models["model 1"])]
    judged = [*models["model 0"], *apart, *models["model 2"], *models["model 3"][:5]]
    rows, notes = summaries(judged)
    assert rows[0]["difficulties"] == {"source": "fitted", "models": 2, "missing": 0}
    assert (
        "the models were judged on different prompts (model 0 on 40, model 1 on 40, model 2 on 40 and 1 "
        "more; 0 are shared by all): each win rate is over its model's own prompts"
    ) in notes
    assert "no length-controlled win rate of model 3: it takes 10 prompts, and there are 5" in notes
    assert not any("different prompts" in note for note in summaries(models["model 0"])[1])


def test_judgements_that_do_not_say_their_judge_are_counted() -> None:
    models, _ = world([-1, 0], prompts=20)
    named = [replace(each, judge="gpt", length=None) for each in models["model 0"]]
    _, notes = summaries([*named, *models["model 1"]])
    assert "20 of 40 judgements do not say their judge: it is taken to be gpt" in notes
    assert "no length-controlled win rate of model 0: 20 of its 20 judgements tell no lengths" in notes


def test_an_interval_without_width_is_said() -> None:
    won = [Judgement("m", f"prompt {i}", 1.0, 10.0 + i % 3, 12.0) for i in range(12)]
    (row,), notes = summaries(won)
    assert row["interval"]["length_controlled_win_rate"] == pytest.approx([1, 1], abs=1e-3)
    assert any("is the same on every resample" in note for note in notes)
    mixed = [replace(each, preference=float(i % 2)) for i, each in enumerate(won)]
    (row,), notes = summaries(mixed)
    assert row["interval"]["length_controlled_win_rate"] == [0.5, 0.5]
    assert any(note.startswith("the length-controlled win rate of m is the same on every") for note in notes)


@pytest.mark.parametrize("wrong", [{"length": -1}, {"length": 1e300, "baseline_length": 3}])
def test_lengths_that_are_none_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    row = {"preference": 1, "length": 3, "baseline_length": 4} | wrong
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", **row}) + "\n" for i in range(20)))
    with pytest.raises(
        PreferoError, match=r"row 1, field 'length': found (-1|1e\+300)\. Expected a number of"
    ):
        read_all_judgements([file])
    with pytest.raises(PreferoError, match=r"difficulty, number 1, is 1e\+40; at most 1e\+09 is read"):
        summary([Judgement("m", f"p{i}", i % 2, i, 3) for i in range(12)], None, [1e40] * 12)


def test_conversations_are_told_apart_however_their_keys_stand() -> None:
    first = ({"role": "user", "content": "a"},)
    assert prompt_hash(first) == prompt_hash(({"content": "a", "role": "user"},)) != prompt_hash("a")


def annotations(model: str, **more: Any) -> list[dict[str, Any]]:
    rows = [
        {
            "instruction": f"task {i}", "output_1": "x" * (20 + i % 7), "output_2": "x" * (25 + i % 5),
            "generator_1": "base", "generator_2": model, "annotator": "gpt",
            "preference": [1.0, 2.0, 1.4, 0.0][(i + len(model)) % 4],
        }
        for i in range(24)
    ]  # fmt: skip
    return [{**row, **more} for row in rows]


def test_folders_and_files_of_several_models(tmp_path: Path) -> None:
    for name in ("a", "bb"):
        (tmp_path / name / "gpt").mkdir(parents=True)
        (tmp_path / name / "gpt" / "annotations.json").write_text(json.dumps(annotations(name)))
    files = judgement_files(tmp_path)
    assert [file.parent.parent.name for file in files] == ["a", "bb"]
    judged = read_all_judgements(files)
    assert {each.model for each in judged} == {"a", "bb"}
    assert {(each.judge, each.against) for each in judged} == {("gpt", "base")}
    with pytest.raises(PreferoError, match="both have judgements of 'a'"):
        read_all_judgements([files[0], files[0]])
    for name in ("run.json", "config.json"):
        (tmp_path / name).write_text("{}")
        assert judgement_files(tmp_path) == []  # a run and a model are judges
        (tmp_path / name).unlink()
