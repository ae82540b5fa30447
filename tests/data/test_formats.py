"""Every layout is read from every kind of file; a bad row names file, row, field and remedy."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, strategies as st

from prefero.data.examples import Example
from prefero.data.formats import LAYOUTS, load_examples
from prefero.errors import PreferoError


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How are you?\n\nAssistant:"

LAYOUT_ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"prompt": "2+2=", "chosen": "4", "rejected": "5"},
        {"prompt": "1+1=", "chosen": "2", "rejected": "3"},
    ],
    "unpaired": [
        {"prompt": "2+2=", "completion": "4", "label": True},
        {"prompt": "2+2=", "completion": "5", "label": False},
    ],
    "transcripts": [{"chosen": f"{HH} Fine.", "rejected": f"{HH} Bad."}],
    "lists": [{"prompt": "2+2=", "responses": ["4", "5", "four"], "scores": [9.0, 1.0, 8.0]}],
    "trees": [
        {"message_tree_id": "a", "message_id": "a", "parent_id": None, "role": "prompter", "text": "2+2="}
        | {"rank": None},
        {"message_tree_id": "a", "message_id": "b", "parent_id": "a", "role": "assistant", "text": "5"}
        | {"rank": 1},
        {"message_tree_id": "a", "message_id": "c", "parent_id": "a", "role": "assistant", "text": "4"}
        | {"rank": 0},
    ],
    "steps": [
        {
            "prompt": "2+2+2=",
            "initial_reason_steps": "Step 1: 2+2=4.\nStep 2: ",
            "chosen": "4+2=6.",
            "rejected": "4+2=7.",
        }
    ],
    "comparisons": [
        {
            "instruction": "Name a colour.",
            "input": "Not blue.",
            "response1": "Blue",
            "response2": "Red",
            "annotator1": 2,
            "annotator2": 2,
            "annotator3": 0,
        }
    ],
    "solutions": [
        {
            "question": "2+2?",
            "ground_truth": "4",
            "small": {"is_correct": False, "solution": "5"},
            "large": {"is_correct": True, "solution": "4"},
        }
    ],
    "ratings": [
        {"prompt": "2+2=", "response": "5", "helpfulness": 0, "verbosity": 1},
        {"prompt": "2+2=", "response": "4", "helpfulness": 4, "verbosity": 1},
    ],
    "numbered": [
        {"prompt": "2+2=", "response_1": "5", "response_2": "4", "response_3": "3"}
        | {"score_1": 1, "score_2": 9, "score_3": 0}
    ],
    "choices": [
        {"info": {"post": "A long day."}, "summaries": [{"text": "Day"}, {"text": "?"}], "choice": 0}
    ],
    "output_pairs": [{"instruction": "2+2=", "input": "", "output": ["4", "5"]}],
}

PICTURE_LAYOUTS = {"picks", "picture_pairs", "picture_lists", "unpaired_pictures"}
"""Those of ``test_picture_rows``."""


def write(folder: Path, rows: list[dict[str, Any]], ending: str) -> Path | datasets.Dataset:
    path = folder / f"train{ending}"
    if ending == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        structured = (list, dict)
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, structured) else v for k, v in row.items()} for row in rows
        )
        path.write_text(out.getvalue())
    elif ending == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def without_origin(example: Example) -> tuple[Any, ...]:
    return example.prompt, example.responses, example.columns, example.tools, example.template_options


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ""])
@pytest.mark.parametrize("layout", LAYOUT_ROWS)
def test_a_layout_is_the_same_from_every_kind_of_file(tmp_path: Path, layout: str, ending: str) -> None:
    if (layout, ending) == ("solutions", ".csv"):
        pytest.skip("CSV has no objects to hold a solution and its mark")
    expected = load_examples(LAYOUT_ROWS[layout])
    read = load_examples(write(tmp_path, LAYOUT_ROWS[layout], ending))
    assert read.format == expected.format == layout
    assert list(map(without_origin, read)) == list(map(without_origin, expected))


def test_every_layout_is_tried_here() -> None:
    assert {layout.name for layout in LAYOUTS} == {*LAYOUT_ROWS, *PICTURE_LAYOUTS}


def only(row: dict[str, Any], **options: Any) -> Example:
    (example,) = load_examples([row], **options)
    return example


def contents(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


class TestPairs:
    def test_explicit_text(self) -> None:
        example = only(LAYOUT_ROWS["pairs"][0])
        assert (example.prompt, contents(example)) == ("2+2=", ["4", "5"])
        assert example.roles == ("chosen", "rejected")

    def test_implied_text_prompt_splits_no_word(self) -> None:
        example = only({"chosen": "Q: two times six? It is 12.", "rejected": "Q: two times six? It is 14."})
        assert example.prompt == "Q: two times six? It is"
        assert contents(example) == [" 12.", " 14."]

    def test_implied_prompt_is_the_shared_conversation(self) -> None:
        shared = [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello"), user("2+2?")]
        row = {"chosen": [*shared, assistant("4")], "rejected": [*shared, assistant("5")]}
        example = only(row)
        assert example.prompt == tuple(shared)
        assert contents(example) == [(assistant("4"),), (assistant("5"),)]

    def test_explicit_conversation_with_tools_and_template_options(self) -> None:
        tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
        call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
        read = {**call, "content": ""}
        row = {
            "prompt": [user("2+2?")],
            "chosen": [call],
            "rejected": [assistant("5")],
            "tools": [json.dumps(tool)],
            "chat_template_kwargs": {"enable_thinking": False},
        }
        example = only(row)
        assert example.tools == (tool,)
        assert example.template_options == {"enable_thinking": False}
        assert contents(example)[0] == (read,)

    def test_prompt_text_beside_whole_conversations(self) -> None:
        row = {
            "prompt": "2+2?",
            "chosen": [user("2+2?"), assistant("4")],
            "rejected": [user("2+2?"), assistant("5")],
            "score_chosen": 8,
            "score_rejected": 2.5,
        }
        example = only(row)
        assert example.prompt == (user("2+2?"),)
        assert contents(example) == [(assistant("4"),), (assistant("5"),)]
        assert [response.columns["score"] for response in example.responses] == [8.0, 2.5]

    def test_a_given_conversation_is_not_guessed_again(self) -> None:
        turns = [user("go on"), assistant("a")], [user("go on"), assistant("b")]
        prompt = [user("Hi"), assistant("Hello")]
        example = only({"prompt": prompt, "chosen": turns[0], "rejected": turns[1]})
        assert example.prompt == tuple(prompt)
        assert contents(example) == [tuple(turns[0]), tuple(turns[1])]

    def test_system_question_rows(self) -> None:
        example = only({"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "It is 4."})
        assert example.prompt == ({"role": "system", "content": "Be brief."}, user("2+2?"))

    def test_sharegpt_messages(self) -> None:
        row = {
            "chosen": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
            "rejected": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "5"}],
        }
        assert only(row).prompt == (user("2+2?"),)

    @pytest.mark.parametrize(
        "extra",
        [
            {"chosen_score": 8, "rejected_score": "3"},
            {"rating_chosen": 8, "rating_rejected": 3},
            {"scores": [8, 3]},
        ],
    )
    def test_annotations_are_picked_up(self, extra: dict[str, Any]) -> None:
        row = {**LAYOUT_ROWS["pairs"][0], **extra, "group": 2, "tie": "false", "prompt_embedding": [0.5, 1]}
        example = only(row)
        assert [response.columns["score"] for response in example.responses] == [8.0, 3.0]
        assert example.columns == {"group": 2, "tie": False, "prompt_embedding": (0.5, 1.0)}

    def test_a_single_number_beside_a_pair_is_not_a_score_of_each(self) -> None:
        example = only({**LAYOUT_ROWS["pairs"][0], "score": 0.7})
        assert example.responses[0].columns == {}


class TestTranscripts:
    def test_turns_become_messages(self) -> None:
        example = only(LAYOUT_ROWS["transcripts"][0])
        assert example.prompt == (user("Hi"), assistant("Hello"), user("How are you?"))
        assert contents(example) == ["Fine.", "Bad."]
        assert example.responses[1].prompt is None

    def test_sides_that_part_earlier_have_their_own_prompts(self) -> None:
        row = {"chosen": f"{HH} Fine.", "rejected": f"{HH} Well.\n\nHuman: Sure?\n\nAssistant: No."}
        example = only(row)
        assert example.prompt == (user("Hi"), assistant("Hello"), user("How are you?"))
        own = (*example.prompt, assistant("Well."), user("Sure?"))
        assert (example.responses[1].prompt, contents(example)) == (own, ["Fine.", "No."])

    def test_a_repeated_speaker_keeps_turns_alternating(self) -> None:
        twice = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
        example = only({"chosen": f"{twice} e", "rejected": f"{twice} f\n\nAssistant: g"})
        assert example.prompt == (user("a"), assistant("b\n\nAssistant: c"), user("d"))
        assert example.responses[1].prompt == (*example.prompt, assistant("f\n\nAssistant:"))
        assert contents(example) == ["e", " g"]

    def test_a_judged_silence_is_kept(self) -> None:
        assert contents(only({"chosen": f"{HH} ", "rejected": f"{HH} Bad."})) == ["", "Bad."]

    @given(st.lists(st.text(st.characters(exclude_characters="\n")), min_size=4, max_size=8))
    def test_nothing_of_a_transcript_is_lost(self, texts: list[str]) -> None:
        speakers = [("Human", "Assistant")[position % 2] for position in range(len(texts) // 2 * 2)]
        pieces = zip(speakers, texts, strict=False)
        transcript = "".join(f"\n\n{speaker}: {text}" for speaker, text in pieces)
        example = only({"chosen": transcript, "rejected": transcript + "!"})
        turns = [*example.prompt, assistant(example.responses[0].content)]
        labels = {"user": "Human", "assistant": "Assistant"}
        again = "".join(f"\n\n{labels[turn['role']]}: {turn['content']}" for turn in turns)
        assert again == transcript


class TestLists:
    def test_ultrafeedback(self) -> None:
        ratings = {
            "helpfulness": {"Rating": "4"},
            "honesty": {"Rating": "2"},
            "truthfulness": {"Rating": "N/A"},
        }
        row = {
            "instruction": "2+2?",
            "completions": [
                {"model": "a", "response": "4", "overall_score": 9.5, "annotations": ratings},
                {"model": "b", "response": "5", "overall_score": 1.0, "annotations": ratings},
            ],
        }
        example = only(row)
        assert example.prompt == (user("2+2?"),)
        assert example.roles == (None, None)
        assert example.responses[0].columns == {"score": 9.5, "score/helpfulness": 4.0, "score/honesty": 2.0}

    def test_aspects_are_averaged_without_an_overall_score(self) -> None:
        answers = [{"response": text, "annotations": {"a": {"Rating": 4}, "b": 1}} for text in "xy"]
        assert only({"prompt": "2+2?", "completions": answers}).responses[0].columns["score"] == 2.5

    def test_ranked_answers(self) -> None:
        row = {"prompt": "p", "answers": [{"answer": "a", "rank": 2.0}, {"answer": "b", "rank": 1.0}]}
        assert [response.columns["rank"] for response in only(row).responses] == [2, 1]
        flat = {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 0]}
        assert [response.columns["rank"] for response in only(flat).responses] == [1, 0]


class TestOthers:
    def test_unpaired(self) -> None:
        examples = load_examples(LAYOUT_ROWS["unpaired"])
        assert [example.responses[0].columns["label"] for example in examples] == [1.0, -1.0]

    @pytest.mark.parametrize("label", [1, 1.0, "True", "true", "1"])
    def test_labels_in_other_spellings(self, label: Any) -> None:
        row = {**LAYOUT_ROWS["unpaired"][0], "label": label}
        assert only(row).responses[0].columns["label"] == 1.0

    @pytest.mark.parametrize("labels", [(1, 2), (0, 1, 2), (1, 0.5), ("1", "2")])
    def test_other_numbers_put_all_labels_in_doubt(self, labels: tuple[Any, ...]) -> None:
        rows = [{**LAYOUT_ROWS["unpaired"][0], "label": label} for label in labels]
        with pytest.raises(PreferoError, match=rf"row {len(rows)}, field 'label'.*a 1 may not mean true"):
            load_examples(rows, skip_bad_rows=True)

    def test_steps_go_on_in_the_assistants_turn(self) -> None:
        example = only(LAYOUT_ROWS["steps"][0])
        assert example.prompt == (user("2+2+2="), assistant("Step 1: 2+2=4.\nStep 2: "))
        assert [response.ended for response in example.responses] == [False, False]
        (span,) = example.responses[0].spans
        assert (span.start, span.end, span.kind, span.index) == (0, len("4+2=6."), "step", 2)

    def test_first_step_has_no_steps_before_it(self) -> None:
        example = only({**LAYOUT_ROWS["steps"][0], "initial_reason_steps": "", "chosen": "Step 1: 6"})
        assert example.prompt == (user("2+2+2="),)
        assert example.responses[0].spans[0].index == 1

    @pytest.mark.parametrize(
        ("votes", "chosen", "tie", "share"),
        [
            ((1, 1, 1), "a", False, 1.0),
            ((2, 2, 0), "b", False, 5 / 6),
            ((1, 2, 2), "b", False, 2 / 3),
            ((0, 0, 2), "b", True, 2 / 3),
            ((0, 0, 0), "a", True, 0.5),
            ((0, 1, 2), "a", True, 0.5),
            ((1, 2), "a", True, 0.5),
            (("1",), "a", False, 1.0),
        ],
    )
    def test_votes(self, votes: tuple[Any, ...], chosen: str, tie: bool, share: float) -> None:
        row = {"instruction": "i", "input": "", "response1": "a", "response2": "b"}
        example = only({**row, **{f"annotator{n}": vote for n, vote in enumerate(votes, start=1)}})
        assert example.prompt == (user("i"),)
        assert contents(example)[0] == chosen
        assert example.columns["tie"] is tie
        assert example.columns["preference"] == pytest.approx(share)

    @pytest.mark.parametrize("second", [2, "2", 2.0, "2.0"])
    def test_a_vote_is_one_however_it_is_written(self, second: Any) -> None:
        row = {"instruction": "i", "response1": "a", "response2": "b", "annotator1": second, "annotator2": 2}
        example = only({**row, "annotator_3": 0, "annotator4": "1.0"})
        assert contents(example) == ["b", "a"]
        assert example.votes == {"annotator1": 1.0, "annotator2": 1.0, "annotator_3": 0.5, "annotator4": 0.0}
        assert example.chosen_second
        assert example.columns["preference"] == sum(example.votes.values()) / 4

    def test_a_comparison_without_a_vote_is_refused(self) -> None:
        rows = [LAYOUT_ROWS["comparisons"][0], {"instruction": "i", "response1": "a", "response2": "b"}]
        with pytest.raises(PreferoError, match="row 2, field 'annotator1': the row has no votes"):
            load_examples(rows)

    def test_votes_beside_named_sides(self) -> None:
        pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
        example = only({**pair, "annotator1": "2.0", "annotator2": 1, "annotator3": 0, "annotator4": ""})
        assert example.votes == {"annotator1": 0.0, "annotator2": 1.0, "annotator3": 0.5}
        assert not example.chosen_second
        assert only({**pair, "annotator1": "Ann", "annotator2": 1}).votes == {}
        assert only(pair).votes == {}

    def test_an_exported_truth_value_is_the_word_it_was(self) -> None:
        assert contents(only({**LAYOUT_ROWS["comparisons"][0], "response2": True}))[0] == "True"

    @pytest.mark.parametrize(
        ("fields", "writers"),
        [
            ({"chosen_model": "A", "rejected_model": "B"}, ["A", "B"]),
            ({"source_chosen": "A", "source_rejected": "B", "model1": "C", "model2": "D"}, ["A", "B"]),
            ({"model_a": "A", "model_b": "B"}, ["A", "B"]),
            ({"cmp_key": "A_B"}, ["A", "B"]),
            ({"chosen_model": "A"}, ["", ""]),
            ({"cmp_key": "A_B_C"}, ["", ""]),
        ],
    )
    def test_writers(self, fields: dict[str, Any], writers: list[str]) -> None:
        def read(row: dict[str, Any]) -> list[str]:
            return [response.writer for response in only({**row, **fields}).responses]

        assert read({"prompt": "p", "chosen": "a", "rejected": "b"}) == writers
        compared = {"instruction": "i", "response1": "a", "response2": "b"}
        assert read({**compared, "annotator1": 1}) == writers
        if set(fields) & {"model_a", "cmp_key"}:
            assert read({**compared, "annotator1": "2.0"}) == writers[::-1]
            assert read({"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}) == writers
            assert read({"prompt": "p", "responses": list("abc"), "scores": [1, 2, 3]}) == ["", "", ""]

    def test_solutions_are_labelled_candidates(self) -> None:
        example = only(LAYOUT_ROWS["solutions"][0])
        assert example.prompt == (user("2+2?"),)
        assert [response.columns["label"] for response in example.responses] == [-1.0, 1.0]


PAIR, LIST = LAYOUT_ROWS["pairs"][0], LAYOUT_ROWS["lists"][0]

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no rejected": ({"prompt": "a", "chosen": "b"}, "field 'rejected': missing.*Expected text"),
    "null rejected": ({**PAIR, "rejected": None}, "field 'rejected': is null"),
    "misspelled": (
        {"prompt": "a", "chosen": "b", "rejcted": "c"},
        "'rejected': missing; did you mean 'rejcted'",
    ),
    "equal": ({**PAIR, "rejected": "4"}, "field 'rejected': it equals chosen"),
    "equal messages": (
        {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("b")]},
        "it equals chosen",
    ),
    "empty": ({**PAIR, "chosen": " \n"}, "field 'chosen': the response is empty"),
    "empty message": ({**PAIR, "chosen": [assistant("")]}, "field 'chosen': the response is empty"),
    "truth as text": ({**PAIR, "chosen": True}, "field 'chosen': found bool True. Expected text, or a list"),
    "mixed": ({**PAIR, "chosen": [assistant("4")]}, "one side is text, the other messages"),
    "role missing": ({**PAIR, "chosen": [{"content": "4"}]}, "field 'chosen': found the message"),
    "content": ({**PAIR, "chosen": [{"role": "assistant", "content": 3}]}, "a message's content is int 3"),
    "nobody answers": ({**PAIR, "chosen": [user("4")]}, "no assistant message"),
    "nothing shared": ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "field 'prompt': missing"),
    "NaN": ({**PAIR, "chosen_score": math.nan, "rejected_score": 1}, "'chosen_score': found float nan"),
    "infinite": ({**PAIR, "chosen_score": math.inf, "rejected_score": 1}, "found float inf.*finite"),
    "not a number": ({**PAIR, "chosen_score": "good", "rejected_score": 1}, "found str 'good'"),
    "true is no score": ({**PAIR, "chosen_score": True, "rejected_score": 1}, "found bool True"),
    "one score": ({**PAIR, "chosen_score": 1, "rejected_score": None}, "field 'rejected_score': is null"),
    "fractional group": ({**PAIR, "group": 1.5}, "field 'group': found 1.5. Expected a whole number"),
    "tie": ({**PAIR, "tie": "perhaps"}, "field 'tie': found 'perhaps'. Expected true or false"),
    "embedding": ({**PAIR, "prompt_embedding": 3}, "field 'prompt_embedding': found int"),
    "tools": ({**PAIR, "tools": "add"}, "field 'tools'"),
    "a tool that is no JSON": ({**PAIR, "tools": [""]}, "field 'tools'.*no JSON"),
    "label": ({"prompt": "a", "completion": "b", "label": "maybe"}, "field 'label': found 'maybe'"),
    "completion": ({"prompt": "a", "completion": "", "label": True}, "'completion': the response is empty"),
    "short list": ({**LIST, "scores": [1, 2]}, "field 'scores': 2 values for 3 responses"),
    "NaN in list": ({**LIST, "scores": [1, 2, math.nan]}, "field 'scores': found float nan"),
    "one response": ({"prompt": "p", "responses": ["a"], "scores": [1]}, "'responses': 1 response"),
    "null in list": ({**LIST, "responses": ["a", None, "b"]}, r"'responses\[1\]': missing"),
    "unscored": (
        {"prompt": "p", "completions": [{"response": "a", "rating": 1}, {"response": "b"}]},
        r"'completions\[1\]': it has no score",
    ),
    "transcript": (
        {"chosen": f"{HH} a", "rejected": f"{HH} b\n\nHuman: c"},
        "'rejected': its last turn is Human's",
    ),
    "same transcripts": ({"chosen": f"{HH} a", "rejected": f"{HH} a"}, "it equals chosen"),
    "vote": ({**LAYOUT_ROWS["comparisons"][0], "annotator2": 3}, "'annotator2': found 3. Expected 1 "),
    "nothing to compare": ({**LAYOUT_ROWS["comparisons"][0], "response2": "Blue"}, "it equals response1"),
    "unmarked": (
        {"question": "q", "a": {"is_correct": None, "solution": "s"}},
        r"'a\.is_correct': found None",
    ),
    "no solution": ({"question": "q", "a": {"is_correct": True, "solution": ""}}, r"'a\.solution': found ''"),
    "same step": ({**LAYOUT_ROWS["steps"][0], "rejected": "4+2=6."}, "it equals chosen"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_names_place_and_remedy(tmp_path: Path, name: str) -> None:
    bad, message = BAD[name]
    good = next(rows[0] for rows in LAYOUT_ROWS.values() if only_matches(rows[0], bad))
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(PreferoError, match=rf"^train\.jsonl, row 2, {message_of(message)}") as caught:
        load_examples(path)
    assert "skip_bad_rows=True" in str(caught.value)
    examples = load_examples(path, skip_bad_rows=True)
    assert len(examples) == 1
    assert [skipped.startswith("train.jsonl, row 2, field") for skipped in examples.skipped] == [True]


def message_of(message: str) -> str:
    return message if message.startswith("field") else f"field.*{message}"


def only_matches(good: dict[str, Any], bad: dict[str, Any]) -> bool:
    """Whether the rows are of one layout, so that one good row leads recognition."""
    return next(layout for layout in LAYOUTS if layout.matches(good)) is next(
        layout for layout in LAYOUTS if layout.matches(bad)
    )


def test_broken_rows_of_a_file_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b'\n{"prompt": \n' + b'{"prompt": "\xff"}\n')
    with pytest.raises(PreferoError, match=r"row 2: broken JSON.*skip_bad_rows"):
        load_examples(path)
    examples = load_examples(path, skip_bad_rows=True)
    assert len(examples) == 1
    assert [message.split(":")[0] for message in examples.skipped] == [
        "train.jsonl, row 2",
        "train.jsonl, row 3",
    ]


def test_nothing_but_bad_rows_is_an_error() -> None:
    with pytest.raises(PreferoError, match=r"none of the rows could be read.*it equals chosen"):
        load_examples([{**PAIR, "rejected": "4"}], skip_bad_rows=True)


def test_an_unknown_layout_lists_what_was_found_and_what_is_known() -> None:
    with pytest.raises(PreferoError, match="Columns found: text, stars") as caught:
        load_examples([{"text": "a", "stars": 3}])
    for layout in LAYOUTS:
        assert f"{layout.name}: {layout.columns}" in str(caught.value)


def test_a_format_can_be_named() -> None:
    row = {"chosen": f"{HH} Fine.", "rejected": f"{HH} Bad."}
    assert only(row, format="pairs").prompt == only(row).prompt
    with pytest.raises(PreferoError, match=r"unknown format 'pair'; did you mean 'pairs'.*transcripts"):
        load_examples([row], format="pair")


def test_limit_stops_reading() -> None:
    rows = [{**PAIR, "rejected": str(number)} for number in range(5, 100)]
    assert len(load_examples([*rows, {"prompt": "bad"}], limit=3)) == 3


class TestHoldOut:
    def test_no_prompt_is_on_both_sides(self) -> None:
        rows = [{"prompt": str(n // 3), "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(60)]
        train, held = load_examples(rows).hold_out(0.25, seed=1)
        assert len(train) + len(held) == 60
        assert 15 <= len(held) <= 17
        assert not {example.prompt for example in train} & {example.prompt for example in held}

    def test_the_seed_decides(self) -> None:
        examples = load_examples([{"prompt": str(n), "chosen": "a", "rejected": "b"} for n in range(40)])
        parts = [[e.prompt for e in examples.hold_out(0.5, seed)[1]] for seed in (0, 0, 1)]
        assert parts[0] == parts[1] != parts[2]
