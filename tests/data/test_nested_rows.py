"""What stands within objects, lists and texts of a row is read, noted or listed as unread; what is the prompt
and what is nothing is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prefero.data.convert import row_of
from prefero.data.examples import Example
from prefero.data.formats import load_examples
from prefero.errors import PreferoError

ASKED = "Name a lake."
GOOD, BAD = "Lake Como.", "A spoon."
KEPT = "is a text that spells an object, and is kept as it is"


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def pair(**more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, **more}


def said(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


def scores(example: Example) -> list[float | None]:
    return [response.columns.get("score") for response in example.responses]


def refuses(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        load_examples(rows)


class TestTextsThatSpellObjects:
    @pytest.mark.parametrize("spell", [json.dumps, str])
    def test_a_column_of_prompts(self, spell: Any) -> None:
        webgpt = {"question": spell({"dataset": "d", "full_text": ASKED}), "answer_0": GOOD, "answer_1": BAD}
        (example,) = load_examples([{**webgpt, "score_0": 1, "score_1": 0}])
        assert (example.prompt, example.unread) == ((user(ASKED),), ("question.dataset",))
        row = {"input": spell({"messages": [user(ASKED)], "tools": []}), "non_preferred_output": BAD}
        (example,) = load_examples([{**row, "preferred_output": GOOD}])
        assert (example.prompt, example.unread) == ((user(ASKED),), ())

    @pytest.mark.parametrize("spell", [json.dumps, str])
    @pytest.mark.parametrize(
        "known",
        [{"text": GOOD, "score": 3}, {"response": GOOD, "model": "m", "rating": 3}, {"content": GOOD}],
    )
    def test_columns_of_responses(self, spell: Any, known: dict[str, Any]) -> None:
        key = next(iter(known))
        row = pair(chosen=spell(known), rejected=spell({**known, key: BAD}))
        compared = {
            "prompt": ASKED,
            "response_a": row["chosen"],
            "response_b": row["rejected"],
            "winner": "a",
        }
        for rows in ([row], [compared]):
            (example,) = load_examples(rows)
            assert said(example) == [GOOD, BAD]
            assert scores(example) == [3 if len(known) > 1 else None] * 2
        (example,) = load_examples([{"prompt": ASKED, "completion": row["chosen"], "label": True}])
        assert said(example) == [GOOD]

    @pytest.mark.parametrize(
        ("prompt", "chosen"),
        [
            ("Who is it?", {"name": "Ann"}),
            ("Who is it?", {"answer": "Ann", "confidence": 0.9}),
            ("Answer in JSON: who is it?", {"text": "Ann", "score": 3}),
            ("Mark the names in: Ann is here.", {"text": "Ann is here.", "names": ["Ann"]}),
        ],
    )
    def test_answers_that_are_objects_stay_texts(self, prompt: str, chosen: dict[str, Any]) -> None:
        row = pair(prompt=prompt, chosen=json.dumps(chosen), rejected=json.dumps({**chosen, "x": 1}))
        (example,) = load_examples([row])
        assert said(example) == [row["chosen"], row["rejected"]]
        assert example.notes == (f"chosen {KEPT}", f"rejected {KEPT}")

    @pytest.mark.parametrize(
        "asked",
        [
            {"prompt": [user("Greet me. Answer in JSON.")]},
            {"prompt": "Greet me.", "system": "Reply in JSON."},
            {"instruction": "Greet me.", "input": "Format: JSON"},
            {"prompt": "Greet me.", "history": [["Speak JSON from now on.", "Yes."]]},
            {"prompt": "Greet me in an object with text."},
            {"prompt": [user("Give its text."), assistant("Which?"), user("That of the greeting.")]},
        ],
    )
    def test_answers_that_something_before_asks_for_stay_texts(self, asked: dict[str, Any]) -> None:
        texts = [json.dumps({"text": text, "score": 3}) for text in (GOOD, BAD)]
        sides = [("chosen", "rejected"), ("response_a", "response_b"), ("response1", "response2")]
        for names, more in zip(sides, ({}, {"winner": "a"}, {"annotator1": 1}), strict=True):
            (example,) = load_examples([{**asked, **dict(zip(names, texts, strict=True)), **more}])
            assert said(example) == texts
            assert set(example.notes) >= {f"{name} {KEPT}" for name in names}
            (again,) = load_examples([row_of(example)])
            assert said(again) == texts
        (example,) = load_examples([{**asked, "completion": texts[0], "label": True}])
        assert said(example) == texts[:1]

    @pytest.mark.parametrize(
        "more", [{"tone": "warm"}, {"model": "m", "messages": [user("Hi")]}, {"model": "m", "title": "t"}]
    )
    def test_answers_with_other_keys_stay_texts(self, more: dict[str, Any]) -> None:
        known = {} if "messages" in more else {"text": GOOD}
        row = pair(chosen=json.dumps({**known, **more}), rejected=json.dumps({**known, **more, "id": 1}))
        (example,) = load_examples([row])
        assert said(example) == [row["chosen"], row["rejected"]]
        with pytest.raises(PreferoError) as refused:
            load_examples([{**row, "rejected": row["chosen"]}])
        assert "--columns" not in str(refused.value)

    @pytest.mark.parametrize(
        "prompt", ["Say it in JSON.", [user("An object with role and content, please.")]]
    )
    def test_answers_that_look_like_messages_stay_texts(self, prompt: Any) -> None:
        texts = [json.dumps(assistant(text)) for text in (GOOD, BAD)]
        (example,) = load_examples([pair(prompt=prompt, chosen=texts[0], rejected=texts[1])])
        assert said(example) == texts
        kept = "is a text that spells messages, and is kept as it is"
        assert example.notes == (f"chosen {kept}", f"rejected {kept}")
        (example,) = load_examples([pair(chosen=texts[0], rejected=texts[1])])
        assert said(example) == [(assistant(GOOD),), (assistant(BAD),)]

    def test_responses_in_objects_are_noted(self) -> None:
        row = pair(chosen=json.dumps({"text": GOOD}), rejected=json.dumps({"text": BAD}))
        (example,) = load_examples([row])
        read = "is a text that spells an object, whose text is read as the response"
        assert (said(example), example.notes) == ([GOOD, BAD], (f"chosen {read}", f"rejected {read}"))

    def test_one_among_plain_texts_stays_text(self) -> None:
        spelled = json.dumps({"text": GOOD, "score": 3})
        examples = load_examples([pair()] * 4 + [pair(prompt=json.dumps({"messages": [user(ASKED)]}))])
        assert examples[4].notes == (f"prompt {KEPT}",)
        examples = load_examples([pair()] * 4 + [pair(chosen=spelled)])
        assert (said(examples[4]), examples[4].notes) == ([spelled, BAD], (f"chosen {KEPT}",))

    def test_one_plain_text_among_objects_is_noted(self) -> None:
        rows = [pair(chosen=json.dumps({"text": GOOD}), rejected=json.dumps({"text": BAD}))] * 4
        (*_, example) = load_examples([*rows, pair(rejected=rows[0]["rejected"])])
        assert said(example) == [GOOD, BAD]
        assert example.notes == (
            "chosen is plain text, where other rows have a list or an object",
            "rejected is a text that spells an object, whose text is read as the response",
        )
        refuses([*rows, pair(chosen='{"text": "Lake')], "row 5, field 'chosen'.*neither JSON nor Python")

    def test_one_text_among_lists_and_objects_is_read_as_they_are(self) -> None:
        for good, bad in (
            ([GOOD], [BAD, "No."]),
            ([user(ASKED), assistant(GOOD)], [user(ASKED), assistant(BAD)]),
        ):
            rows = [pair(chosen=good, rejected=bad)] * 4
            examples = load_examples([*rows, pair(chosen=json.dumps(good), rejected=json.dumps(bad))])
            assert examples[4].responses == examples[0].responses

    @pytest.mark.parametrize("name", ["responses", "list"])
    def test_a_text_that_spells_a_list_is_one_where_its_column_is_named_for_several(self, name: str) -> None:
        better, worse = (
            ("bon_best", "loser_list") if name == "list" else (f"chosen_{name}", f"rejected_{name}")
        )
        good = GOOD if name == "list" else json.dumps([GOOD])
        row = {"prompt": ASKED, better: good, worse: json.dumps([BAD, "A cup."])}
        (example,) = load_examples([row])
        assert said(example) == [GOOD, BAD, "A cup."]
        assert f"{worse} is a text that spells a list, whose texts are read as responses" in example.notes

    @pytest.mark.parametrize(
        "prompt", [ASKED, "Name three reasons.", "Name things in Python.", "List lakes."]
    )
    @pytest.mark.parametrize("spell", [json.dumps, str])
    def test_other_texts_that_spell_lists_are_answers(self, prompt: str, spell: Any) -> None:
        row = pair(prompt=prompt, chosen=spell([GOOD, "It is big."]), rejected=spell([BAD, "No, it is."]))
        (example,) = load_examples([row])
        assert said(example) == [row["chosen"], row["rejected"]]
        assert example.notes == tuple(
            f"{side} is a text that spells a list, and is kept as it is" for side in ("chosen", "rejected")
        )


class TestObjects:
    @pytest.mark.parametrize(
        "prompt",
        [
            {"messages": [user(ASKED)]},
            {"conversations": [{"from": "human", "value": ASKED}]},
            {"role": ["user"], "content": [ASKED]},
            user(ASKED),
        ],
    )
    def test_an_object_that_holds_a_conversation_is_the_prompt(self, prompt: dict[str, Any]) -> None:
        (example,) = load_examples([pair(prompt=prompt)])
        assert (example.prompt, example.unread, example.notes) == ((user(ASKED),), (), ())

    @pytest.mark.parametrize("prompt", [{"turns": 3}, {"a": {"b": {}}}, {"text": ASKED}])
    def test_an_object_that_holds_no_prompt_is_not_passed_over(self, prompt: dict[str, Any]) -> None:
        refuses([pair(prompt=prompt)], "field 'prompt': missing")

    def test_numbers_beside_a_message_are_those_of_the_response(self) -> None:
        good, bad = assistant(GOOD, score=9, id="a"), assistant(BAD, score=1, id="b")
        for chosen, rejected in ((good, bad), ([good], [bad])):
            (example,) = load_examples([pair(chosen=chosen, rejected=rejected)])
            assert said(example) == [(assistant(GOOD),), (assistant(BAD),)]
            assert scores(example) == [9, 1]
            assert example.unread == ("chosen.id", "rejected.id")
        (example,) = load_examples([{"prompt": ASKED, "responses": [good, bad]}])
        assert (scores(example), example.unread) == ([9, 1], ("responses.id",))
        refuses([pair(chosen=good, rejected={**good, "score": 1})], "it equals chosen")

    def test_what_else_stands_in_messages_is_unread(self) -> None:
        asked = user(ASKED, lang="en")
        row = {"chosen": [asked, assistant(GOOD, weight=0)], "rejected": [asked, assistant(BAD, id=3)]}
        (example,) = load_examples([row])
        assert example.unread == ("chosen.lang", "chosen.weight", "rejected.lang", "rejected.id")
        row["history"] = [{"human": "Hi", "assistant": "Ho", "mood": "good"}]
        (example,) = load_examples([{**row, "prompt": ASKED, "chosen": GOOD, "rejected": BAD}])
        assert example.unread == ("history.mood",)
        (example,) = load_examples([pair(prompt=[user(ASKED, name="Ann", reasoning_content="x")])])
        assert example.unread == ()

    def test_what_else_stands_at_any_depth_is_unread(self) -> None:
        held = {"messages": [user(ASKED, mood="good")], "kind": "chat"}
        (example,) = load_examples([pair(prompt=held)])
        assert example.unread == ("prompt.messages.mood", "prompt.kind")
        rated = {"helpfulness": {"Rating": "4", "Rationale": "It helps."}}
        completions = [{"response": text, "annotations": rated} for text in (GOOD, BAD)]
        (example,) = load_examples([{"instruction": ASKED, "completions": completions}])
        assert example.unread == ("completions.annotations.helpfulness.Rationale",)

    def test_objects_may_stand_in_a_table_of_lists(self) -> None:
        table = {"model": ["m", "n"], "response": [GOOD, BAD], "score": [2, 1], "hue": ["red", None]}
        (example,) = load_examples([{"prompt": ASKED, "completions": table}])
        assert (said(example), scores(example)) == ([GOOD, BAD], [2, 1])
        assert [response.writer for response in example.responses] == ["m", "n"]
        assert example.unread == ("completions.hue",)

    def test_a_side_may_be_a_list_of_objects(self) -> None:
        row = {"prompt": ASKED, "bon_best": {"answer": GOOD, "llm_name": "m"}}
        row["loser_list"] = [
            {"answer": BAD, "llm_name": "n", "hue": "red"},
            {"answer": "No.", "llm_name": "o"},
        ]
        (example,) = load_examples([row])
        assert said(example) == [GOOD, BAD, "No."]
        assert [response.columns["label"] for response in example.responses] == [1, -1, -1]
        assert example.unread == ("loser_list.hue",)

    def test_the_fields_of_all_messages_of_a_tree_are_told(self) -> None:
        def reply(text: str, rank: int, **more: Any) -> dict[str, Any]:
            return {"text": text, "role": "assistant", "rank": rank, "replies": [], **more}

        asked = {
            "text": ASKED,
            "role": "prompter",
            "replies": [reply(GOOD, 0), reply(BAD, 1, labels={"a": 1})],
        }
        (example,) = load_examples([{"message_tree_id": "t", "tree_state": "ready", "prompt": asked}])
        assert set(example.unread) == {"labels", "tree_state"}


class TestThePromptOfOneRow:
    @pytest.mark.parametrize("answers", [{}, {"label": True}, {"scores": [2, 1]}, {"winner": "a"}])
    @pytest.mark.parametrize("nothing", [{"question": None}, {"question": ""}, {}])
    def test_another_field_does_not_stand_in_for_it(
        self, answers: dict[str, Any], nothing: dict[str, Any]
    ) -> None:
        texts: dict[str, Any] = {"chosen": GOOD, "rejected": BAD}
        if answers:
            texts = {"label": {"completion": GOOD}, "scores": {"responses": [GOOD, BAD]}}.get(
                next(iter(answers)), {"response_a": GOOD, "response_b": BAD}
            )
        row = {"question": "Two?", "context": "Due laghi.", **texts, **answers}
        other = {name: value for name, value in row.items() if name != "question"} | nothing
        refuses([row, row, row, other], "row 4, field 'question'.*a prompt, as other rows have one")

    def test_a_part_of_it_alone_is_noted(self) -> None:
        row = {"instruction": "Translate.", "input": "Due laghi.", **answers()}
        for nothing in (None, " "):
            (*_, example) = load_examples([row, row, {**row, "instruction": nothing}])
            assert example.prompt == "Due laghi."
            assert "the prompt is input alone: the row has no instruction" in example.notes[0]

    def test_a_field_that_others_do_not_have_is_noted(self) -> None:
        rows = [pair()] * 3 + [{"question": "Two?", "chosen": GOOD, "rejected": BAD}]
        examples = load_examples(rows)
        assert examples[3].prompt == "Two?"
        assert "the prompt is question alone: the row has no prompt" in examples[3].notes[0]
        examples = load_examples([{**pair(), "question": ASKED}] + [{"question": ASKED, **answers()}] * 3)
        assert "the prompt is prompt, though there is question" in examples[0].notes[0]
        assert not examples[1].notes

    def test_another_part_of_one_object_is_no_other_field(self) -> None:
        rows = [
            {"info": {part: ASKED}, "summaries": [GOOD, BAD], "choice": 0}
            for part in ("post", "post", "article")
        ]
        assert not any(example.notes for example in load_examples(rows))


def answers() -> dict[str, str]:
    return {"chosen": GOOD, "rejected": BAD}


class TestWhereAnswersBegin:
    @pytest.mark.parametrize(
        "prompt",
        [
            "### Human: Q?\n### Assistant:",
            "Human: Q?\nAssistant:",
            "User: a\nBot: b\nUser: c\nBot:",
            "<s>[INST] Q? [/INST]",
            "### Instruction:\nQ?\n\n### Response:",
            "A chat. USER: Q? ASSISTANT:",
            "**User:** Q?\n\n**Assistant:**",
            "Question: Q?\nA: red\nB: blue\nAnswer:",
            "Q: Q?\nA:",
            "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n",
            "<|user|>\nQ?</s>\n<|assistant|>\n",
            "<start_of_turn>user\nQ?<end_of_turn>\n<start_of_turn>model\n",
            "<|start_header_id|>user<|end_header_id|>\n\nQ?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ],
    )
    def test_behind_the_last_mark_of_the_assistant(self, prompt: str) -> None:
        gap = "" if prompt.endswith("\n") else " "
        row = {
            side: f"{prompt}{gap}It is a {word}." for side, word in (("chosen", "lake"), ("rejected", "coal"))
        }
        (example,) = load_examples([row])
        assert example.prompt == prompt
        assert said(example) == [f"{gap}It is a lake.", f"{gap}It is a coal."]
        assert example.notes == ("the prompt has marks of speakers in its text, which are kept",)

    def test_without_a_mark_the_prompt_is_noted(self) -> None:
        begun = "The answer to what you ask is, if I remember all of it well,"
        for prompt in (begun, "Question: Q?"):
            (example,) = load_examples([{"chosen": f"{prompt} a lake.", "rejected": f"{prompt} no lake."}])
            assert example.prompt == prompt
            assert "no mark of the assistant" in example.notes[0]


NOTHING: list[dict[str, Any]] = [
    {"prompt": ASKED, "response": "nan", "helpfulness": 4},
    {"prompt": ASKED, "chosen": "nan", "rejected": [BAD]},
    {"prompt": ASKED, "completion": "nan", "label": True},
    {"prompt": ASKED, "responses": ["nan", BAD], "scores": [1, 2]},
    {"prompt": ASKED, "response_1": "nan", "response_2": BAD, "response_3": "No.", "score_1": 1}
    | {"score_2": 2, "score_3": 3},
    {"prompt": ASKED, "response_a": "nan", "response_b": BAD, "winner": "a"},
    {"prompt": ASKED, "initial_reason_steps": "Step 1: Look.\n", "chosen": "nan", "rejected": BAD},
    {"instruction": ASKED, "output": ["nan", BAD]},
    {"prompt": ASKED, "chosen": [assistant("nan")], "rejected": [assistant(BAD)]},
    {"chosen": f"\n\nHuman: {ASKED}\n\nAssistant: nan", "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: No."},
    {
        "question": ASKED,
        "m": {"solution": "nan", "is_correct": True},
        "n": {"solution": BAD, "is_correct": False},
    },
]


class TestNothing:
    @pytest.mark.parametrize("row", NOTHING)
    def test_the_word_for_it_is_noted_in_every_layout(self, row: dict[str, Any]) -> None:
        (example,) = load_examples([row])
        assert any("is the word 'nan'" in note for note in example.notes)
        asked = json.loads(json.dumps(row).replace(ASKED, "None").replace("nan", GOOD))
        (example,) = load_examples([asked])
        assert any("is the word 'None'" in note for note in example.notes)

    @pytest.mark.parametrize("row", NOTHING[:8])
    def test_an_empty_prompt_is_noted_in_every_layout(self, row: dict[str, Any]) -> None:
        for empty in ("", " "):
            (example,) = load_examples(
                [json.loads(json.dumps(row).replace(ASKED, empty).replace("nan", GOOD))]
            )
            assert "the prompt is empty" in example.notes

    @pytest.mark.parametrize("prompt", [[], [{"role": "system", "content": "Be brief."}], [user(" ")]])
    def test_a_conversation_without_a_question_is_empty(self, prompt: list[Any]) -> None:
        (example,) = load_examples([pair(prompt=prompt)])
        assert "the prompt is empty" in example.notes
