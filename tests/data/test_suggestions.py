"""The advice of a refusal names columns under which the rows are read indeed."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prefero.data.examples import Example
from prefero.data.formats import load_examples, parse_columns
from prefero.errors import PreferoError

ASKED = "Name a deep lake."
GOOD, BAD = "Lake Como.", "A spoon."


def said(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


def message_of(rows: Any, **options: Any) -> str:
    with pytest.raises(PreferoError) as caught:
        load_examples(rows, **options)
    return str(caught.value)


def advised(rows: Any, **options: Any) -> list[dict[str, str]]:
    """The columns of every option in the message, as a shell and the command take them."""
    words = shlex.split(message_of(rows, **options))
    given = [after for before, after in pairwise(words) if before == "--columns"]
    return [parse_columns(text) for text in given if "=COLUMN" not in text and "=…" not in text]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"id": 1, "User Query": ASKED, "Better Answer": GOOD, "Worse Answer": BAD, "rater": "ann"},
            {"prompt": "User Query", "chosen": "Better Answer", "rejected": "Worse Answer"},
        ),
        (
            {"Questions": ASKED, "Answer1": GOOD, "Answer2": BAD, "Preference": "Answer1"},
            {"prompt": "Questions", "answer1": "Answer1", "answer2": "Answer2", "preference": "Preference"},
        ),
        (
            {"Prompt": ASKED, "Response A": GOOD, "Response B": BAD, "preferred": "A"},
            {"prompt": "Prompt", "response_a": "Response A", "response_b": "Response B"},
        ),
        ({"PROMPT": ASKED, "chosen": GOOD, "Rejected": BAD}, {"prompt": "PROMPT", "rejected": "Rejected"}),
        ({"prompt": ASKED, "choosen": GOOD, "rejected": BAD}, {"chosen": "choosen"}),
        ({"prompt": ASKED, " chosen": GOOD, "rejected ": BAD}, {"chosen": "chosen", "rejected": "rejected"}),
        (
            {"userPrompt": ASKED, "preferredResponse": GOOD, "nonPreferredResponse": BAD},
            {
                "user_prompt": "userPrompt",
                "chosen": "preferredResponse",
                "rejected": "nonPreferredResponse",
            },
        ),
        (
            {"user's question, as asked": ASKED, "the good one": GOOD, "the bad one": BAD},
            {"prompt": "user's question, as asked", "chosen": "the good one", "rejected": "the bad one"},
        ),
        (
            {"Instruction": "Say.", "Input": ASKED, "Chosen": GOOD, "Rejected": BAD},
            {"instruction": "Instruction", "input": "Input", "chosen": "Chosen", "rejected": "Rejected"},
        ),
        ({"the ask": ASKED, "chosen": GOOD, "rejected": BAD, "category_path": "a/b"}, {"prompt": "the ask"}),
        (
            {
                "conv_so_far": [{"role": "user", "content": ASKED}],
                "chosen": GOOD,
                "rejected": BAD,
                "p": "a b",
            },
            {"prompt": "conv_so_far"},
        ),
        (
            {"prompt": ASKED, "chosen": {"words": GOOD}, "rejected": {"words": BAD}},
            {"chosen": "chosen.words", "rejected": "rejected.words"},
        ),
        (
            {"prompt": {"turn": {"said": ASKED}}, "chosen": GOOD, "rejected": BAD},
            {"prompt": "prompt.turn.said"},
        ),
    ],
)
def test_the_names_that_are_advised_are_read(row: dict[str, Any], columns: dict[str, str]) -> None:
    assert advised([row]) == [columns]
    (example,) = load_examples([row], columns=columns)
    assert ASKED in str(example.prompt)
    assert said(example) == [GOOD, BAD]


def test_conversations_by_a_short_name_with_their_ratings() -> None:
    asked = {"role": "user", "content": ASKED}
    rows = [
        {
            f"conv_{mark}": [asked, {"role": "assistant", "content": text}]
            for mark, text in (("A", BAD), ("B", GOOD))
        }
        | {"conv_A_rating": 1.0, "conv_B_rating": 5.0}
    ]
    (columns,) = advised(rows)
    assert load_examples(rows, columns=columns)[0].responses[0].content[-1]["content"] == GOOD


def test_several_columns_that_may_be_the_prompt_are_all_named() -> None:
    rows = [{"ask one": ASKED, "ask two": f"{ASKED} Now.", "chosen": GOOD, "rejected": BAD}]
    assert advised(rows) == [{"prompt": "ask one"}, {"prompt": "ask two"}]


def test_a_prompt_within_the_sides_is_advised() -> None:
    rows = [{"chosen": {"prompt": ASKED, "text": GOOD}, "rejected": {"prompt": ASKED, "text": BAD}}]
    assert advised(rows) == [{"prompt": "chosen.prompt"}, {"prompt": "rejected.prompt"}]
    (example,) = load_examples(rows, columns={"prompt": "chosen.prompt"})
    assert (example.prompt, said(example)) == (ASKED, [GOOD, BAD])
    assert example.unread == ("rejected.prompt",)


@pytest.mark.parametrize(
    "row",
    [
        {"foo": 1, "bar": "x"},
        {"Prompt": "", "Chosen": GOOD, "Rejected": GOOD},
        {"completion_a": GOOD, "completion_b": BAD, "text": ASKED, "annotations": [{"preferred": "A"}]},
    ],
)
def test_where_no_names_help_a_function_is_advised(row: dict[str, Any]) -> None:
    assert not advised([row])
    assert "data.map=module:function" in message_of([row])


@pytest.mark.parametrize(
    ("responses", "told"),
    [
        ({"response_a": "Yes.", "response_b": "No."}, "response_a and response_b are responses.* winner=…"),
        ({"response": "Yes.", "stars": 4}, "response is one response.* label=….* score=…"),
    ],
)
def test_what_says_how_good_responses_are_is_asked_for(responses: dict[str, Any], told: str) -> None:
    with pytest.raises(PreferoError, match=told) as refused:
        load_examples([{"prompt": "May I?", **responses}])
    assert "rejected" not in str(refused.value)


def test_a_row_with_a_mistake_gives_no_advice_on_names() -> None:
    good = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "remark": "any text at all"}
    for rows in ([{**good, "chosen": ""}, good, good, good], [good, {**good, "chosen": ""}]):
        message = message_of(rows)
        assert "--columns" not in message
        assert "data.map" not in message
        assert "skip_bad_rows" in message


def test_given_names_are_kept_in_the_advice() -> None:
    rows = [{"enquiry": ASKED, "Good One": GOOD, "Bad One": BAD}]
    columns = {"prompt": "enquiry", "chosen": "Good One", "rejected": "Bad One"}
    assert advised(rows, columns={"prompt": "enquiry"}) == [columns]


def test_a_table_whose_names_have_blanks_around_them(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"prompt, chosen,rejected \n{ASKED},{GOOD},{BAD}\n")
    (columns,) = advised(path)
    (example,) = load_examples(path, columns=columns)
    assert said(example) == [GOOD, BAD]
    with pytest.raises(PreferoError, match="no row has such a column"):
        load_examples([{" a": 1, "a ": 2}], columns={"prompt": "a"})


def test_unread_columns_of_unusual_spelling_are_noted() -> None:
    row = {"input": ASKED, "chosen": GOOD, "rejected": BAD, "Instruction": "Say.", "colour": "red"}
    row |= {"Chosen_Score": 4, "Rejected Score": 1}
    (example,) = load_examples([row])
    assert example.notes == (
        "columns would be read under their usual names: --columns "
        "'instruction=Instruction,chosen_score=Chosen_Score,rejected_score=Rejected Score'",
    )
    columns = {
        "instruction": "Instruction",
        "chosen_score": "Chosen_Score",
        "rejected_score": "Rejected Score",
    }
    (example,) = load_examples([row], columns=columns)
    assert example.prompt == f"Say.\n\n{ASKED}"
    assert example.unread == ("colour",)
    assert example.notes == ()


def test_names_with_commas() -> None:
    assert parse_columns("prompt=what, and why,chosen=good") == {"prompt": "what, and why", "chosen": "good"}
    with pytest.raises(PreferoError, match="expected name=column"):
        parse_columns("prompt,chosen=good")


@pytest.mark.parametrize(
    ("row", "lacks"),
    [
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
            "messages is one conversation",
        ),
        ({"instruction": "Say hi", "input": "", "output": "Hi."}, "output is one response"),
    ],
)
def test_rows_for_supervised_training_are_told_what_a_preference_needs(row: Any, lacks: str) -> None:
    with pytest.raises(PreferoError, match=f"{lacks}, and no column .* says how good it is") as refused:
        load_examples([row] * 3)
    assert "Layouts known" not in str(refused.value) and "--columns label=" in str(refused.value)
