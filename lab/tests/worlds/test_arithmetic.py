from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefero.data.formats import load_examples
from prefero.demo.start import StartModel, word_tokenizer
from prefero.generate.sampling import Sample
from prefero_lab.papers.experiments.reasoning import ReasoningExperiment
from prefero_lab.worlds.arithmetic import (
    ARITHMETIC,
    ARITHMETIC_WORDED,
    OPERATIONS,
    ArithmeticWorld,
    Problem,
    applied,
    check,
    corrected,
    marked,
    outcome_pairs,
    problems,
    right_samples,
    wrong_facts,
)

PROBLEM = "4 1: +3 2: *5 3: -6 ="
RIGHT = "1: 4 +3 = 0 2: 0 *5 = 0 3: 0 -6 = 1 # 1"
WRONG = "1: 4 +3 = 0 2: 0 *5 = 3 3: 3 -6 = 4 # 4"
LUCKY = "1: 4 +3 = 0 2: 0 *5 = 3 3: 3 -6 = 1 # 1"


@pytest.mark.parametrize(
    ("text", "right", "valid", "first_wrong"),
    [
        (RIGHT, True, True, None),
        (WRONG, False, True, 2),
        (LUCKY, True, True, 2),
        (RIGHT.replace("# 1", "# 2"), False, True, 4),
        ("so " + RIGHT.replace(" 2:", " then 2:"), True, True, None),
        (RIGHT[:-4], False, False, 4),  # no answer
        ("1: 4 +3 = 0 2: 0 *5 = 0 # 0", False, False, 3),  # a step left out
        (RIGHT + " # 1", True, False, 5),
        (RIGHT + " +3", False, False, 5),
        ("= 3", False, False, 1),
        ("", False, False, 1),
    ],
)
def test_solutions_checked_by_hand(text: str, right: bool, valid: bool, first_wrong: int | None) -> None:
    found = check(PROBLEM, text)
    assert (found.right, found.valid, found.first_wrong) == (right, valid, first_wrong)
    assert ARITHMETIC.gold(PROBLEM, text) == right
    assert ARITHMETIC.measures["lucky"](PROBLEM, text) == (right and first_wrong is not None)


def test_results_by_hand() -> None:
    assert [applied(operation, 5) for operation in ("+6", "-6", "*6")] == [4, 6, 2]
    assert str(Problem.read(PROBLEM)) == PROBLEM and " ".join(Problem.read(PROBLEM).steps()) == RIGHT


def test_no_operation_hides_an_error() -> None:
    """Each is one to one, so a wrong value stays wrong; with 0 as an operand, or 6 numbers, it would not."""
    for operation in OPERATIONS:
        assert len({applied(operation, value) for value in range(7)}) == 7


def test_problems_are_split_and_all_demonstrations_right() -> None:
    train, held_out = problems()
    assert len(train) == len(set(train)) and not set(train) & set(held_out)
    for prompt, text in ARITHMETIC.corpus(200, 0):
        found = check(prompt, text)
        assert found.right and found.valid and found.first_wrong is None
    worded = ARITHMETIC_WORDED.corpus(200, 0)
    assert all(check(prompt, text).first_wrong is None for prompt, text in worded)
    assert len({text.split()[0] for _, text in worded}) == 6


def test_the_bad_teacher_has_habits_and_goes_on_from_its_mistakes() -> None:
    wrong, texts = wrong_facts(3), ARITHMETIC.bad_corpus(3000, 3)
    assert len(wrong) == 25 and wrong == wrong_facts(3) != wrong_facts(4)
    assert all(result != applied(*fact) for fact, result in wrong.items())
    shown: dict[bool, list[bool]] = {True: [], False: []}
    for prompt, text in texts:
        found = check(prompt, text)
        assert found.valid
        for step in found.steps[:-1]:
            _, value, operation, _, result = step.split()
            fact = (operation, int(value))
            shown[fact in wrong].append(int(result) == wrong.get(fact, applied(*fact)))
    assert np.mean(shown[True]) == pytest.approx(0.65, abs=0.03)
    assert np.mean(shown[False]) == pytest.approx(0.97, abs=0.01)
    assert 0.4 < np.mean([check(*one).right for one in texts]) < 0.65


def drawn(text: str, prompt: str = PROBLEM, ended: bool = True) -> Sample:
    nothing: Any = np.zeros(1)
    return Sample(prompt, text, nothing, nothing, nothing, ended)


def test_pairs_are_of_right_and_wrong_samples_of_one_problem() -> None:
    other = str(Problem(1, ("+1", "+1", "+1")))
    mixed = [drawn(one) for one in (RIGHT, WRONG, LUCKY, RIGHT, "", WRONG)]
    rows = outcome_pairs([*mixed, drawn(RIGHT, other), drawn(WRONG, ended=False)], 0)
    assert len(rows) == 2 and {row["prompt"] for row in rows} == {PROBLEM}
    for row in rows:
        assert row["chosen"] in (RIGHT, LUCKY) and row["rejected"] == WRONG
    assert [row["chosen"] for row in right_samples(mixed)] == [RIGHT, LUCKY]


def test_the_editor_changes_results_and_nothing_else() -> None:
    assert corrected(PROBLEM, WRONG) == RIGHT and corrected(PROBLEM, LUCKY) == RIGHT
    assert corrected(PROBLEM, RIGHT) is None and corrected(PROBLEM, WRONG[:-4]) is None
    worded = "so 1: 4 +3 = 0 hence 2: 0 *5 = 3 now 3: 3 -6 = 4 so # 4"
    assert corrected(PROBLEM, worded) == "so 1: 4 +3 = 0 hence 2: 0 *5 = 0 now 3: 0 -6 = 1 so # 1"


def test_steps_are_marked_where_they_stand_and_scored_to_the_first_wrong_one() -> None:
    row = marked({"prompt": PROBLEM, "chosen": RIGHT, "rejected": WRONG})
    for side in ("chosen", "rejected"):
        said = [row[side][span["start"] : span["end"]] for span in row[f"{side}_spans"]]
        assert " ".join(said) == row[side] and said[1].startswith("2:")
        assert [span["step"] for span in row[f"{side}_spans"]] == [1, 2, 3, 4]
    assert [span["score"] for span in row["chosen_spans"]] == [1, 1, 1, 1]
    assert [span["score"] for span in row["rejected_spans"]] == [1, 0, 0, 0]
    assert load_examples([row])[0].responses[0].spans


class Scripted(ArithmeticWorld):
    """Goes on with what is given, whatever is asked."""

    def _sampled(self, start, prompts, count, *names):  # type: ignore[no-untyped-def]
        assert prompts == [f"{PROBLEM} 1: 4 +3 = 0"] and count == 4
        ways = ("2: 0 *5 = 3 3: 3 -6 = 4 # 4", "2: 0 *5 = 3 3: 3 -6 = 1 # 1", RIGHT[12:], RIGHT[12:])
        return [drawn(way, prompts[0]) for way in ways]


def test_step_pairs_share_the_right_steps_and_differ_in_the_first_wrong_one() -> None:
    """A continuation that repeats the mistake is not chosen, though its answer is right."""
    world = Scripted(**{name: getattr(ARITHMETIC, name) for name in ARITHMETIC.__dataclass_fields__})
    start: Any = None
    (row,) = world.step_pairs(start, [drawn(WRONG), drawn(RIGHT)], 0)
    assert (row["chosen"], row["rejected"], row["error_step"]) == (RIGHT, WRONG, 2)
    assert row["prefix"] == f"{PROBLEM} 1: 4 +3 = 0"
    assert (row["chosen_step"], row["rejected_step"]) == ("2: 0 *5 = 0", "2: 0 *5 = 3")


def test_a_word_is_a_token_and_comes_back() -> None:
    for world in (ARITHMETIC, ARITHMETIC_WORDED):
        tokenizer = world.recipe.tokenizer(world.words)
        for said in (text for pair in world.corpus(50, 0) for text in pair):
            ids = tokenizer(said, add_special_tokens=False).input_ids
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == said
            assert len(ids) == len(said.split()) <= world.max_new_tokens - 1
    assert len(word_tokenizer(("+3",), 8)("+3").input_ids) > len(
        word_tokenizer(("+3",), 8, marks=False)("+3").input_ids
    )


def small(name: str = "arithmetic-small") -> ArithmeticWorld:
    recipe = type(ARITHMETIC.recipe)(
        hidden=16, layers=1, heads=2, intermediate=32, steps=3, batch=4, examples=40
    )
    own = {one: getattr(ARITHMETIC, one) for one in ARITHMETIC.__dataclass_fields__}
    return ArithmeticWorld(**{**own, "name": name, "recipe": recipe, "habits": recipe})


def test_a_start_model_has_two_phases_each_kept(tmp_path: Path) -> None:
    made: StartModel = small().start_model(tmp_path)
    kept = sorted(one.name for one in tmp_path.iterdir())
    assert len(kept) == 2 and kept[1].startswith("arithmetic-small-right-")
    again = small().start_model(tmp_path, report=lambda *_: pytest.fail("trained a second time"))
    assert made.folder == again.folder
    assert small().start_model(tmp_path, seed=1).folder != made.folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_start_model_knows_its_facts_and_is_right_half_of_the_time(seed: int) -> None:
    """The mark of a start from which methods can be told apart: few right answers by luck."""
    experiment = ReasoningExperiment(test_problems=500, attempts=8)
    made = experiment.make(seed)
    found = experiment.measure(made, made.start.model, seed)
    assert 0.4 < np.mean(found["greedy"]) < 0.65 and 0.45 < np.mean(found["pass@1"]) < 0.65
    assert np.mean(found["pass@8"]) > 0.85 and np.mean(found["valid"]) > 0.97
    assert np.mean(found["lucky"]) / np.mean(found["pass@1"]) < 0.05
    assert len(made.rows) > 250
