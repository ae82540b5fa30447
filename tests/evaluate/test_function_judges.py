"""Judges that are functions: how they are called, and what is said of those that are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefero.errors import PreferoError
from prefero.evaluate.functions import ByFunction, ByLists
from prefero.evaluate.judges import judge_named
from prefero.evaluate.policies import Prompt, Sampling, evaluate
from prefero.evaluate.win_rate import BothOrders
from tests.training.tiny import saved_model

SOURCE = """
import numpy
import torch

def score(prompt, response): return len(response)
def scaled(prompt, response, scale=2): return scale * len(response)
def any_of(*texts): return len(texts[1])
def number(prompt, response): return numpy.float32(len(response))
def scalar(prompt, response): return torch.tensor(float(len(response)))
def called_by_lists(prompts, completions, **columns):
    return [len(prompt + completion) for prompt, completion in zip(prompts, completions)]
def only_completions(completions, **columns): return torch.tensor([float(len(c)) for c in completions])
def messages(completions): return [len(turns[0]["content"]) for turns in completions]
def longer(prompt, first, second): return float(len(first) > len(second))

class Judge:
    def __call__(self, prompt, response): return len(response)

made = Judge()

def lists(prompt, response): return [float(len(r)) for r in response]
def text(prompt, response): return "3.5"
def nothing(prompt, response): pass
def no_number(prompt, response): return float("nan")
def raises(prompt, response): return {}["gold"]
async def later(prompt, response): return 1.0
def answer(completions, answer, **columns): return [0.0]
def short(prompts, completions): return [0.0]
def words(prompts, completions): return ["a" for _ in completions]
def letter(prompt, first, second): return "A"
def vote(prompt, first, second): return 2
def one(prompt): return 0
def swapped(response, prompt): return len(response)
def last(first, second, prompt): return 0.5
def many(prompts, responses): return 0
constant = 3
def named(prompt, *, response): return 0
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "some_judges.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "broken_judges.py").write_text("\nraise RuntimeError('out of order')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("some_judges", None)


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("score", [1, 2]),
        ("scaled", [2, 4]),
        ("any_of", [1, 2]),
        ("number", [1, 2]),
        ("scalar", [1, 2]),
        ("made", [1, 2]),
        ("called_by_lists", [2, 3]),
        ("only_completions", [1, 2]),
    ],
)
def test_functions_that_score(name: str, scores: list[float]) -> None:
    judge = judge_named(f"some_judges:{name}")
    assert not isinstance(judge, BothOrders)
    assert judge(["p", "q"], ["a", "bb"]) == scores
    assert all(type(score) is float for score in judge(["p"], ["a"]))


def test_a_function_of_lists_is_given_what_trl_gives() -> None:
    conversation = ({"role": "user", "content": "p"},)
    judge = judge_named("some_judges:messages")
    assert isinstance(judge, ByLists) and judge([conversation], ["abc"]) == [3]


def test_a_function_that_compares_is_asked_in_both_orders() -> None:
    judge = judge_named("some_judges:longer")
    assert isinstance(judge, BothOrders)
    assert (judge("p", "aa", "b"), judge("p", "b", "aa"), judge("p", "a", "b")) == (1, 0, 0.5)


FOR_ONE = "for the prompt 'p' and the response 'abc'; expected a score, one number where higher is better"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lists", f"some_judges:lists returned [1.0, 1.0, 1.0] (list) {FOR_ONE}. A function of lists names "
                  "its parameters prompts and completions"),
        ("text", f"some_judges:text returned '3.5' (str) {FOR_ONE}"),
        ("nothing", f"some_judges:nothing returned None (NoneType) {FOR_ONE}"),
        ("no_number", f"some_judges:no_number returned nan (float) {FOR_ONE}"),
        ("raises", "some_judges:raises raised KeyError: 'gold' (some_judges.py, line 25) for the prompt 'p'"),
        ("short", "returned [0.0] (list) for 2 prompts and completions; expected a list of 2 scores"),
        ("words", "returned ['a', 'a'] (list) for 2 prompts and completions; expected a list of 2 scores"),
        ("letter", "returned 'A' (str) for the prompt 'p' and the first 'abc' and the second 'd'; expected "
                   "the probability that the first response is preferred, a number from 0 to 1"),
        ("vote", "returned 2 (int)"),
    ],
)  # fmt: skip
def test_answers_that_are_none_are_told(name: str, told: str) -> None:
    judge = judge_named(f"some_judges:{name}")
    with pytest.raises(PreferoError) as caught:
        if isinstance(judge, BothOrders):
            judge("p", "abc", "d")
        else:
            judge(["p", "p"], ["abc", "d"])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "some_judges:one",
            "some_judges:one takes 1 argument (prompt): a judge takes (prompt, response) and returns",
        ),
        (
            "some_judges:swapped",
            "takes (response, prompt), where response is the first, and the prompt comes",
        ),
        ("some_judges:last", "where first is the first, and the prompt comes first: a judge takes (prompt"),
        ("some_judges:many", "where prompts stands for a list, and a function of lists names its responses"),
        ("some_judges:constant", "some_judges:constant is no function, but 3"),
        ("some_judges:named", "some_judges:named takes 2 arguments (prompt, response): a judge takes"),
        ("some_judges:answer", "takes answer besides prompts and completions, which an evaluation does not"),
        ("some_judges:later", "some_judges:later is async, and a judge is called as a plain function"),
        ("some_judges:scor", "has no function 'scor'; did you mean 'score'?"),
        ("broken_judges:score", "cannot be imported: RuntimeError: out of order (broken_judges.py, line 2)"),
        ("some_judges.py", "is a file: name the function as module:function, .*--judge some_judges:FUNCTION"),
        ("some_judges.py:score", "--judge some_judges:score"),
        ("there/some_judges.py:score", "in the folder of the file: --judge some_judges:score"),
    ],
)
def test_names_that_are_no_judges(name: str, told: str) -> None:
    with pytest.raises(PreferoError, match=told.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")):
        judge_named(name)


def test_a_judge_is_tried_before_responses_are_drawn(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")

    def no_score(prompt: object, response: str) -> float:
        raise ValueError("no gold")

    stages: list[str] = []
    with pytest.raises(PreferoError, match="raised ValueError: no gold"):
        evaluate(
            {"model": model}, [Prompt("a b")], ByFunction(no_score), baseline=model,
            sampling=Sampling(max_new_tokens=2), report=stages.append,
        )  # fmt: skip
    assert stages == []
