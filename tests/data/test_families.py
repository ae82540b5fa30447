"""Rows as published data sets have them: the prompt, the better and the worse response, what is not read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from prefero.data.arrange import arrange
from prefero.data.examples import Example, Examples, spoken
from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError

PAIR = ("chosen", "rejected")
ASKED, GOOD, BAD = "Name a river in Egypt.", "The Nile flows there.", "It is a pyramid."


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, Any]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, Any]:
    return {"from": "gpt", "value": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def asked(example: Example) -> list[tuple[str, Any]]:
    """The turns of the prompt."""
    prompt = (user(example.prompt),) if isinstance(example.prompt, str) else example.prompt
    return [(turn["role"], turn["content"]) for turn in prompt]


def said(examples: Examples) -> list[list[str]]:
    return [["".join(spoken(r.content)).strip() for r in example.responses] for example in examples]


def contents(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


def turns(text: str = ASKED, answer: str = GOOD) -> list[dict[str, Any]]:
    return [user(text), assistant(answer)]


FAMILIES: dict[str, list[dict[str, Any]]] = {
    "a prompt in context": [{"context": ASKED, "chosen": GOOD, "rejected": BAD}],
    "a prompt in input": [{"input": ASKED, "chosen": GOOD, "rejected": BAD}],
    "winner and loser": [{"question": ASKED, "winner": GOOD, "loser": BAD}],
    "chosen_response": [{"instruction": ASKED, "chosen_response": GOOD, "rejected_response": BAD}],
    "accepted": [{"input": ASKED, "accepted": GOOD, "rejected": BAD}],
    "stack exchange": [{"question": ASKED, "response_j": GOOD, "response_k": BAD}],
    "messages beside text": [{"messages": [user(ASKED)], "chosen": GOOD, "rejected": BAD}],
    "single messages": [{"conversations": [human(ASKED)], "chosen": gpt(GOOD), "rejected": gpt(BAD)}],
    "whole conversations": [{"chosen": turns(), "rejected": turns(answer=BAD), "messages": turns()}],
    "objects as sides": [
        {"prompt": ASKED, "chosen": {"text": GOOD, "score": 2}, "rejected": {"text": BAD, "score": 1}}
    ],
    "output as a list": [{"instruction": ASKED, "input": "", "output": [GOOD, BAD]}],
    "preferred_output": [
        {
            "input": {"messages": [user(ASKED)], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [assistant(GOOD)],
            "non_preferred_output": [assistant(BAD)],
        }
    ],
    "marks of a transcript in the prompt": [
        {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "chosen": f" {GOOD}", "rejected": f" {BAD}"}
    ],
    "responses that repeat the prompt": [
        {"prompt": ASKED, "chosen": f"{ASKED} {GOOD}", "rejected": f"{ASKED} {BAD}"}
    ],
    "shared posts": [
        {"history": ASKED, "human_ref_A": BAD, "human_ref_B": GOOD, "labels": 0, "score_A": 2, "score_B": 9}
    ],
    "strength below 0": [{"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": -2}],
    "overall_preference": [
        {"context": [user(ASKED)], "response1": GOOD, "response2": BAD, "overall_preference": -3}
    ],
    "better_response_id": [
        {
            "prompt": ASKED,
            "response_0": BAD,
            "response_1": GOOD,
            "better_response_id": 1,
            "safer_response_id": 0,
        }
    ],
    "answers with scores": [
        {"question": {"full_text": ASKED}, "answer_0": GOOD, "answer_1": BAD, "score_0": 1.0, "score_1": -1.0}
    ],
    "outputs with a preference": [
        {"instruction": ASKED, "input": "", "output_1": BAD, "output_2": GOOD, "preference": 2}
    ],
    "outputs with a label": [{"input": ASKED, "output_1": GOOD, "output_2": BAD, "label": 1}],
    "response 1 with a label": [{"prompt": ASKED, "response 1": BAD, "response 2": GOOD, "label": 1}],
    "a judge's rows": [
        {
            "instruction": "Compare the two.",
            "orig_instruction": ASKED,
            "orig_response_A": GOOD,
            "orig_response_B": BAD,
            "orig_preference": "A",
        }
    ],
    "an arena": [
        {
            "model_a": "m",
            "model_b": "n",
            "winner": "model_b",
            "conversation_a": turns(answer=BAD),
            "conversation_b": turns(),
        }
    ],
    "an arena's columns": [
        {
            "prompt": json.dumps([ASKED]),
            "response_a": json.dumps([GOOD]),
            "response_b": json.dumps([BAD]),
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        }
    ],
    "summaries with a choice": [
        {"info": {"post": ASKED, "title": "t"}, "summaries": [{"text": BAD}, {"text": GOOD}], "choice": 1}
    ],
    "ranked answers": [
        {"prompt": ASKED, "answers": [{"answer": BAD, "rank": 2.0}, {"answer": GOOD, "rank": 1.0}]}
    ],
    "generations with ratings": [{"instruction": ASKED, "generations": [BAD, GOOD], "ratings": [1, 5]}],
    "neighbouring rated rows": [
        {"prompt": ASKED, "response": BAD, "helpfulness": 1, "correctness": 4, "verbosity": 3},
        {"prompt": ASKED, "response": GOOD, "helpfulness": 3, "correctness": 4, "verbosity": 1},
    ],
    "numbered responses": [
        {"prompt": ASKED, "answer_a": "I do not know.", "answer_b": BAD, "answer_c": GOOD}
        | {"rank_a": 2, "rank_b": 3, "rank_c": 1}
    ],
    "edited responses": [{"context": [user(ASKED)], "original_response": BAD, "edited_response": GOOD}],
    "good and bad edits": [
        {"context": [user(ASKED)], "original_response": "Hm.", "good_edited_response": GOOD}
        | {"bad_edited_response": BAD}
    ],
    "one judgement alone": [{"prompt": ASKED, "response_0": BAD, "response_1": GOOD, "safer_response_id": 1}],
    "hyphens": [{"instruction": ASKED, "chosen-response": GOOD, "rejected-response": BAD}],
    "exchanges": [
        {"conversation": [{"input": ASKED, "output": GOOD}], "chosen": turns(), "rejected": turns(answer=BAD)}
    ],
    "speakers under other keys": [
        {
            "conversation": [{"sender": "user", "text": ASKED}],
            "chosen": {"sender": "model", "text": GOOD},
            "rejected": {"sender": "model", "text": BAD},
        }
    ],
    "bodies with scores in a list": [
        {"question_body": ASKED, "answer1_body": BAD, "answer2_body": GOOD}
        | {"score": [{"score": 3.0, "logprobs": -1.0}, {"score": 9.0, "logprobs": -2.0}]}
    ],
    "messages and another answer": [{"messages": turns(), "rejected_response": BAD}],
    "two lists of messages": [{"messages": turns(), "rejected_messages": turns(answer=BAD)}],
    "two conversations": [
        {
            "conversations": [human(ASKED), gpt(GOOD)],
            "rejected_conversations": [human(ASKED), gpt(BAD)],
        }
    ],
    "a response and another one": [
        {"query": ASKED, "response": GOOD, "rejected_response": BAD, "history": []}
    ],
    "context_messages": [{"context_messages": [user(ASKED)], "chosen": GOOD, "rejected": BAD}],
    "short names": [{"question": ASKED, "pos_resp": GOOD, "neg_resp": BAD}],
    "reject": [{"input": ASKED, "chosen": GOOD, "reject": BAD}],
    "the winner by its text": [{"prompt": ASKED, "response_1": BAD, "response_2": GOOD, "winner": GOOD}],
    "the turn that was judged": [
        {
            "conversation_a": [*turns(answer=BAD), *turns("And?", "No.")],
            "conversation_b": [*turns(), *turns("And?", "Yes.")],
            "winner": "model_b",
            "turn": 1,
        }
    ],
    "a tree, a message in each row": [
        {"message_tree_id": "t", "message_id": "a", "parent_id": None, "role": "prompter", "text": ASKED},
        *(
            {"message_tree_id": "t", "message_id": name, "parent_id": "a", "role": "assistant"}
            | {"text": text, "rank": rank, "lang": "en"}
            for name, text, rank in (("b", BAD, 1), ("c", GOOD, 0), ("d", "Hm.", None))
        ),
    ],
    "a tree in one row": [
        {
            "message_tree_id": "t",
            "prompt": {
                "text": ASKED,
                "role": "prompter",
                "replies": [
                    {"text": BAD, "role": "assistant", "rank": 1, "replies": []},
                    {"text": GOOD, "role": "assistant", "rank": 0, "replies": []},
                ],
            },
        }
    ],
    "several rejected texts": [{"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD, "I do not know."]}],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_better_response_answers_the_prompt(name: str) -> None:
    examples = arrange(load_examples(FAMILIES[name]), PAIR)
    assert [asked(example) for example in examples] == [[("user", ASKED)]]
    assert said(examples) == [[GOOD, BAD]]


LABELLED: dict[str, dict[str, Any]] = {
    "a response and is_safe": {"prompt": ASKED, "response": GOOD, "is_safe": True},
    "messages and label": {"messages": turns(), "label": True},
    "conversations and kto_tag": {"conversations": [human(ASKED), gpt(GOOD)], "kto_tag": True},
    "an output and kto_tag": {"instruction": ASKED, "input": "", "output": GOOD, "kto_tag": True},
    "a conversation and a text": {"prompt": [user(ASKED)], "completion": GOOD, "label": True},
    "a number as text": {"prompt": ASKED, "completion": GOOD, "label": "1.0"},
    "a word": {"prompt": ASKED, "completion": GOOD, "label": "chosen"},
}


@pytest.mark.parametrize("name", LABELLED)
def test_a_labelled_response_answers_the_prompt(name: str) -> None:
    (example,) = load_examples([LABELLED[name]])
    assert asked(example) == [("user", ASKED)]
    assert said(Examples([example])) == [[GOOD]]
    assert example.responses[0].columns == {"label": 1.0}


TIES: dict[str, dict[str, Any]] = {
    "strength": {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 0},
    "words": {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "tie (bothbad)"},
    "scores": {"prompt": "p", "answer_0": "a", "answer_1": "b", "score_0": 0, "score_1": 0},
    "equal responses": {"prompt": "p", "response 1": "a", "response 2": "a", "label": 2},
}


@pytest.mark.parametrize("name", TIES)
def test_a_tie_is_kept_and_counted(name: str) -> None:
    clear = {"strength": -1, "words": "model_a", "equal responses": 0}
    better = {**TIES[name], **({"score_0": 1} if name == "scores" else {list(TIES[name])[-1]: clear[name]})}
    better = {key: "c" if value == "b" or key == "response 2" else value for key, value in better.items()}
    examples = load_examples([TIES[name], better])
    assert [example.columns["tie"] for example in examples] == [True, False]
    assert arrange(examples, PAIR).dropped == {"ties": 1}


def test_a_missing_response_of_a_comparison_is_named() -> None:
    row = {"prompt": "p", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": 0}
    rows = [row, {**row, "answer_1": None}]
    with pytest.raises(PreferoError, match="rows, row 2, field 'answer_1': is null"):
        load_examples(rows)
    assert len(load_examples(rows, skip_bad_rows=True)) == 1


def test_what_a_comparison_says_is_kept() -> None:
    row = {"prompt": "p", "response1": "a", "response2": "b", "overall_preference": 2}
    single = {"individual_preference": [{"score": 2}, {"score": -1}, {"score": 0}]}
    example = load_examples([{**row, **single}, {**row, "overall_preference": -1}])[0]
    assert example.columns == {"tie": False, "preference": 1.0, "strength": 2.0}
    assert list(example.votes.values()) == [1.0, 0.0, 0.5]
    assert example.chosen_second
    (scored,) = load_examples(FAMILIES["shared posts"])
    assert [response.columns["score"] for response in scored.responses] == [9.0, 2.0]


def test_ratings_of_candidates_belong_to_the_candidates() -> None:
    row = {
        "input": "p",
        "chosen": "good",
        "rejected": "bad",
        "generations": ["bad", "good"],
        "rating": [1, 9],
    }
    (example,) = load_examples([row])
    assert [response.columns["score"] for response in example.responses] == [9.0, 1.0]
    (unknown,) = load_examples([{**row, "generations": ["x", "y"]}])
    assert "score" not in unknown.responses[0].columns
    assert "rating" in unknown.unread


class TestPrompts:
    def test_an_input_stands_below_its_instruction(self) -> None:
        row = {"instruction": "Answer.", "input": ASKED, "chosen": GOOD, "rejected": BAD}
        rows = load_examples([row, {**row, "input": ""}])
        assert [example.prompt for example in rows] == [f"Answer.\n\n{ASKED}", "Answer."]

    def test_system_and_earlier_turns_stand_before_the_question(self) -> None:
        row = {"system": "Be brief.", "history": [["Hi", "Hello"]], "instruction": ASKED}
        (example,) = load_examples([{**row, "chosen": GOOD, "rejected": BAD}])
        assert asked(example) == [
            ("system", "Be brief."),
            ("user", "Hi"),
            ("assistant", "Hello"),
            ("user", ASKED),
        ]

    def test_an_empty_system_text_is_none_but_the_row_is_written_like_the_others(self) -> None:
        row = {"question": ASKED, "chosen": GOOD, "rejected": BAD}
        examples = load_examples([{**row, "system": ""}, {**row, "system": "Be brief."}, row])
        assert [len(example.prompt) for example in examples] == [1, 2, 1]
        assert examples[0].prompt == (user(ASKED),)

    def test_a_system_text_counts_beside_whole_conversations(self) -> None:
        row = {"system": "Be brief.", "prompt": ASKED, "chosen": turns(), "rejected": turns(answer=BAD)}
        assert asked(load_examples([row])[0]) == [("system", "Be brief."), ("user", ASKED)]
        own = [system("Be long."), *turns()]
        other = {**row, "chosen": own, "rejected": [*own[:2], assistant(BAD)]}
        with pytest.raises(PreferoError, match=r"row 1, field 'system': .*another system turn"):
            load_examples([other])

    def test_the_prompt_stands_once(self) -> None:
        sides = {
            side: [system("Be kind."), *turns(answer=a)] for side, a in zip(PAIR, (GOOD, BAD), strict=True)
        }
        for prompt in (ASKED, [user(ASKED)]):
            (example,) = load_examples([{"prompt": prompt, **sides}])
            assert asked(example) == [("system", "Be kind."), ("user", ASKED)]
        (example,) = load_examples(
            [{"prompt": [system("s"), user(ASKED)], "chosen": turns(), "rejected": turns(answer=BAD)}]
        )
        assert asked(example) == [("system", "s"), ("user", ASKED)]
        assert said(Examples([example])) == [[GOOD, BAD]]

    @pytest.mark.parametrize("prompt", ["You are a pirate.", [user("You are a pirate.")]])
    def test_a_prompt_that_the_conversations_lack_is_refused(self, prompt: Any) -> None:
        row = {"prompt": prompt, "chosen": turns(), "rejected": turns(answer=BAD)}
        with pytest.raises(
            PreferoError, match=r"rows, row 1, field 'prompt': chosen begins with a turn of user"
        ):
            load_examples([row])

    def test_transcripts_beside_a_prompt_contain_it(self) -> None:
        whole = f"\n\nHuman: {ASKED}\n\nAssistant:"
        row = {"chosen": f"{whole} {GOOD}", "rejected": f"{whole} {BAD}"}
        for prompt in (ASKED, whole):
            examples = load_examples([{**row, "prompt": prompt}])
            assert (asked(examples[0]), said(examples)) == ([("user", ASKED)], [[GOOD, BAD]])
        with pytest.raises(PreferoError, match="field 'prompt': chosen does not contain it"):
            load_examples([{**row, "prompt": "Another question."}])

    @pytest.mark.parametrize("shared", ["", "The "])
    def test_a_prompt_under_an_unknown_name_is_refused(self, shared: str) -> None:
        row = {"enquiry": ASKED, "chosen": f"{shared}Nile.", "rejected": f"{shared}pyramid.", "id": "x"}
        with pytest.raises(PreferoError, match=r"not read: enquiry\. .* --columns prompt=enquiry "):
            load_examples([row])
        (example,) = load_examples([row], columns={"prompt": "enquiry"})
        assert (example.prompt, example.unread) == (ASKED, ("id",))

    @pytest.mark.parametrize("prompt", [None, "", " "])
    def test_an_empty_prompt_among_others_is_refused(self, prompt: str | None) -> None:
        row = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
        with pytest.raises(PreferoError, match="row 2, field 'prompt': is empty"):
            load_examples([row, {**row, "prompt": prompt}])

    def test_a_row_without_the_others_prompt_field_needs_a_shared_beginning(self) -> None:
        row = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
        shared = {"chosen": f"{ASKED} {GOOD}", "rejected": f"{ASKED} {BAD}"}
        assert load_examples([row, shared])[1].prompt == ASKED
        with pytest.raises(PreferoError, match="row 2, field 'prompt': missing"):
            load_examples([row, {"chosen": GOOD, "rejected": BAD}])

    def test_beside_a_shared_beginning_other_columns_are_not_the_prompt(self) -> None:
        beginning = "Question: what is 2 + 2?\n"
        row = {"chosen": f"{beginning}4", "rejected": f"{beginning}5", "remark": "an easy one, surely"}
        (example,) = load_examples([row])
        assert (example.prompt, example.unread) == (beginning.strip(), ("remark",))


class TestText:
    def test_an_answer_in_json_stays_text(self) -> None:
        answers = ['[{"role": "cook", "name": "X"}]', '[{"role": "user", "content": "Rain?"}]']
        rows = [
            {"prompt": "List the team.", "chosen": answers[0], "rejected": "I cannot."},
            {"prompt": "Write a chat.", "chosen": answers[1], "rejected": answers[1].replace("Rain", "Snow")},
        ]
        assert [e.responses[0].content for e in load_examples(rows)] == answers
        assert load_examples(rows[1:])[0].responses[0].content == answers[1]

    @pytest.mark.parametrize(
        "write", [repr, json.dumps, lambda turns: "[" + "\n ".join(map(repr, turns)) + "]"]
    )
    @pytest.mark.parametrize("prompt", [None, ASKED])
    def test_conversations_in_csv(self, tmp_path: Path, write: Any, prompt: str | None) -> None:
        rows = [{"chosen": write(turns()), "rejected": write(turns(answer=BAD))}] * 2
        if prompt:
            rows = [{"prompt": prompt, **row} for row in rows]
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        examples = load_examples(tmp_path / "rows.csv")
        assert (asked(examples[1]), said(examples)[1]) == ([("user", ASKED)], [GOOD, BAD])

    def test_a_conversation_that_cannot_be_read_is_no_text(self, tmp_path: Path) -> None:
        row = {"chosen": str(turns()), "rejected": str(turns(answer=BAD))}
        broken = {**row, "chosen": "[{'role': 'user', 'content': Hi}]"}
        with pytest.raises(PreferoError, match=r"row 2, field 'chosen': .*neither JSON nor Python reads"):
            load_examples([row, broken])

    def test_python_in_a_column_is_read_and_never_run(self, tmp_path: Path) -> None:
        mark = tmp_path / "ran"
        attack = f"[{{'role': 'user', 'content': open({str(mark)!r}, 'w')}}]"
        with pytest.raises(PreferoError):
            load_examples([{"chosen": attack, "rejected": attack + " "}])
        assert not mark.exists()


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "zone": None}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"properties": {"city": {"type": "string"}, "zone": None}},
    },
}


class TestNulls:
    def test_keys_that_a_table_adds_are_as_if_absent(self) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None}
        row = {
            "prompt": [user("go")],
            "chosen": [message],
            "rejected": [assistant("no")],
            "tools": [TOOL],
        }
        (example,) = load_examples(datasets.Dataset.from_list([row]))
        turn = contents(example)[0][0]
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
        assert turn == {"role": "assistant", "content": "", "tool_calls": [call]}
        assert example.tools[0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}

    def test_nulls_that_the_row_itself_has_stay(self) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None}
        row = {"prompt": [user("go")], "chosen": [message], "rejected": [assistant("no")], "tools": [TOOL]}
        (example,) = load_examples([row])
        assert contents(example)[0][0] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
        assert example.tools == (TOOL,)

    def test_lists_as_arrays_are_lists(self) -> None:
        row = {"prompt": [user(ASKED)], "chosen": turns()[1:], "rejected": [assistant(BAD)]}
        arrays = {name: np.array(value, dtype=object) for name, value in row.items()}
        assert load_examples([arrays])[0] == load_examples([row])[0]

    def test_null_columns_are_as_if_absent(self) -> None:
        row = {"prompt": [user(ASKED)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}
        assert (
            load_examples([{**row, "tools": None, "system": None, "score": None}])[0]
            == load_examples([row])[0]
        )


class TestUnread:
    def test_what_nothing_is_made_of_is_listed(self) -> None:
        row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": "m", "rejected_model": "n"}
        more = {"colour": "blue", "hint": "water", "group": 1, "empty": "", "none": None}
        assert load_examples([{**row, **more}])[0].unread == ("colour", "hint")

    def test_the_summary_names_each_once(self, base: PreTrainedTokenizerFast) -> None:
        row = {"prompt": "p", "chosen": "a", "rejected": "b"}
        rows = load_examples([{**row, "colour": "blue"}, {**row, "colour": "red", "hint": "h"}])
        notes = tokenize(rows, base, roles=PAIR, max_length=24).summary.notes
        assert "columns that are not read: colour, hint (data.columns says what a column holds)." in notes

    def test_parts_of_objects_are_listed_by_name(self) -> None:
        (example,) = load_examples(FAMILIES["preferred_output"])
        assert example.unread == ("input.parallel_tool_calls",)
        (example,) = load_examples(FAMILIES["summaries with a choice"])
        assert example.unread == ("info.title",)
        rated = [{"text": text, "score": score, "safety": 1} for text, score in ((GOOD, 2), (BAD, 1))]
        (example,) = load_examples([{"prompt": ASKED, "chosen": rated[0], "rejected": rated[1]}])
        assert example.unread == ("chosen.safety", "rejected.safety")
        (example,) = load_examples(
            [{"prompt": ASKED, "completions": [rated[1], {**rated[0], "critique": "c"}]}]
        )
        assert example.unread == ("completions.safety", "completions.critique")

    def test_answers_of_a_tree_without_a_rank_are_listed(self) -> None:
        (example,) = load_examples(FAMILIES["a tree, a message in each row"])
        assert example.unread == ("lang", "answers without a rank")
        with pytest.raises(PreferoError, match="row 1: the tree has no message with two ranked answers"):
            load_examples(FAMILIES["a tree, a message in each row"][:2])

    def test_ranks_that_contradict_scores_are_noted(self) -> None:
        answers = [{"answer": BAD, "rank": 1, "score": 1}, {"answer": GOOD, "rank": 2, "score": 5}]
        (pair,) = arrange(load_examples([{"prompt": ASKED, "answers": answers}]), PAIR)
        assert said(Examples([pair])) == [[GOOD, BAD]]
        assert pair.notes == ("the ranks of its responses contradict their scores, which count",)

    def test_candidates_that_a_pair_leaves_out_are_noted(self) -> None:
        row = {"prompt": ASKED, "responses": [BAD, "Hm.", GOOD], "scores": [1, 2, 3]}
        (pair,) = arrange(load_examples([row]), PAIR)
        assert pair.notes == ("1 response between the best and the worst is not used",)

    def test_other_verdicts_are_listed(self) -> None:
        assert load_examples(FAMILIES["better_response_id"])[0].unread == ("safer_response_id",)

    def test_a_column_that_another_one_replaces_is_listed(self) -> None:
        row = {"prompt": "old", "question": "new", "chosen": "a", "rejected": "b"}
        (example,) = load_examples([row], columns={"prompt": "question"})
        assert (example.prompt, example.unread) == ("new", ("prompt (not the one of columns)",))


class TestRatedRows:
    ROWS = (
        {"prompt": "p", "response": "a", "helpfulness": 1, "correctness": 4},
        {"prompt": "p", "response": "b", "helpfulness": 3, "correctness": 0},
        {"prompt": "q", "response": "c", "helpfulness": 2, "correctness": 2},
        {"prompt": "r", "response": "d", "helpfulness": 2, "correctness": 2},
        {"prompt": "r", "response": "e", "helpfulness": 2, "correctness": 3},
    )

    def test_neighbours_are_compared_by_helpfulness(self) -> None:
        examples = load_examples(list(self.ROWS))
        assert [example.origin for example in examples] == ["rows, row 1", "rows, row 3", "rows, row 4"]
        assert examples[0].joined == ("rows, row 2",)
        assert examples[0].responses[0].columns == {
            "score": 1.0,
            "score/helpfulness": 1.0,
            "score/correctness": 4.0,
        }
        pairs = arrange(examples, PAIR)
        assert said(pairs) == [["b", "a"]]
        assert pairs.dropped == {
            "responses without another one to the same prompt": 1,
            "equally good responses": 1,
        }

    @pytest.mark.parametrize(
        "differing",
        [
            {"instruction": "p", "input": ("a", "b")},
            {"prompt": "p", "system": ("a", "b")},
            {"prompt": "p", "history": ([["a", "b"]], [["c", "d"]])},
            {"prompt": "p", "tools": ([{"name": "f"}], [{"name": "g"}])},
            {"question": "p", "context": ("a", "b")},
            {"prompt": tuple({"messages": [user(text)]} for text in "ab")},
            {"input": tuple({"messages": [user(text)]} for text in "ab")},
            {"question": tuple({"full_text": text} for text in "ab")},
            {"info": tuple({"post": text} for text in "ab")},
        ],
    )
    def test_rows_that_ask_something_else_are_not_joined(self, differing: dict[str, Any]) -> None:
        rows = [
            {name: held[place] if isinstance(held, tuple) else held for name, held in differing.items()}
            | {"response": text, "helpfulness": 3 - place}
            for place, text in enumerate("xy")
        ]
        assert said(load_examples(rows)) == [["x"], ["y"]]
        assert said(load_examples([rows[0], rows[0] | {"response": "y"}])) == [["x", "y"]]

    def test_what_differs_in_joined_rows_is_told(self) -> None:
        rows = [
            {**row, "weight": place, "model": f"m{place}", "split": "train"}
            for place, row in enumerate(self.ROWS[:2])
        ]
        (example,) = load_examples([rows[0], rows[1] | {"label": 1}])
        assert example.unread == (
            "weight (not the same in all rows of the question)",
            "split",
            "label (not the same in all rows of the question)",
        )
        assert [response.writer for response in example.responses] == ["m0", "m1"]
        assert example.columns == {}
        (example,) = load_examples([{**row, "weight": 2} for row in rows])
        assert example.columns == {"weight": 2}

    @pytest.mark.parametrize(
        ("bad", "field"),
        [
            ({"helpfulness": float("nan")}, "helpfulness"),
            ({"helpfulness": None}, "helpfulness"),
            ({"correctness": "good"}, "correctness"),
            ({"response": " "}, "response"),
        ],
    )
    def test_a_bad_row_is_told_as_its_own_and_left_out_alone(self, bad: dict[str, Any], field: str) -> None:
        rows = [self.ROWS[0], self.ROWS[0] | bad, self.ROWS[1]]
        with pytest.raises(PreferoError, match=f"row 2, field '{field}'"):
            load_examples(rows)
        examples = load_examples(rows, skip_bad_rows=True)
        assert said(examples) == [["a", "b"]]
        assert len(examples.skipped) == 1

    def test_rows_that_are_all_alone_are_refused_for_pairs(self) -> None:
        with pytest.raises(PreferoError, match="one response alone"):
            arrange(load_examples([self.ROWS[2]]), PAIR)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "response_a": "a", "response_b": "b", "winner": 1}, "field 'winner': found 1"),
        ({"prompt": "p", "response_a": "a", "response_b": "b", "winner": "x"}, "field 'winner': found 'x'"),
        ({"prompt": "p", "response_1": "a", "response_2": "a", "preference": 1}, "it equals response_1"),
        ({"question": "q", "winner": "a", "loser": "a"}, "field 'loser': it equals winner"),
        ({"response_a": "a", "response_b": "b", "winner": "a", "ask": "x y"}, "field 'prompt': missing"),
        ({"post": "p", "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2}, "field 'choice': found 2"),
        ({"messages": [user("a")], "label": True}, "field 'messages': the assistant does not have the last"),
        ({"prompt": ["a", "b"], "chosen": ["c"], "rejected": ["d"]}, "1 answers to 2 turns"),
        (
            {"history": [["a"]], "instruction": "i", "chosen": "a", "rejected": "b"},
            "a turn without its answer",
        ),
    ],
)
def test_a_bad_row_of_a_family_names_its_field(row: dict[str, Any], message: str) -> None:
    with pytest.raises(PreferoError, match=rf"^rows, row 1, .*{message}"):
        load_examples([row])
