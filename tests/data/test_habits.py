"""What one row cannot tell is decided by the other rows of its source, or refused; nothing is guessed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from prefero.data.arrange import PAIR, arrange
from prefero.data.convert import row_of
from prefero.data.examples import Example
from prefero.data.files import load_rows
from prefero.data.formats import load_examples
from prefero.errors import PreferoError

ASKED = "Name a lake."
GOOD, BAD = "Lake Como.", "A spoon."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def sides(mark: str = "12", **more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, f"response_{mark[0]}": GOOD, f"response_{mark[1]}": BAD, **more}


def pair(**more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, **more}


def said(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


def refuses(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        load_examples(rows)


def answers() -> dict[str, str]:
    return {"chosen": GOOD, "rejected": BAD}


class TestNumbersOfTheBetterResponse:
    @pytest.mark.parametrize("name", ["winner", "preference", "label", "better_response_id"])
    def test_a_source_with_a_2_counts_from_1(self, name: str) -> None:
        rows = [sides(**{name: 1}), sides(**{name: 2})]
        assert [said(example)[0] for example in load_examples(rows)] == [GOOD, BAD]

    @pytest.mark.parametrize("name", ["winner", "preference", "label", "better_response_id"])
    def test_a_source_with_a_0_and_no_2_is_ambiguous(self, name: str) -> None:
        refuses([sides(**{name: 0}), sides(**{name: 1})], "count from 0 or from 1")
        refuses([sides(**{name: "1"}), sides(**{name: "0"})], "count from 0 or from 1")

    def test_a_0_among_1_and_2_is_a_tie(self) -> None:
        rows = [sides(winner=number) for number in (0, 1, 2)]
        assert [example.columns["tie"] for example in load_examples(rows)] == [True, False, False]

    def test_a_2_is_no_number_of_fields_that_count_from_0(self) -> None:
        refuses([sides("01", winner=1), sides("01", winner=2)], "field 'winner': found 1")

    @pytest.mark.parametrize("name", ["label", "labels"])
    def test_labels_with_a_0_may_count_from_0(self, name: str) -> None:
        refuses([sides(**{name: number}) for number in (0, 1, 2)], "count from 0 or from 1")

    @pytest.mark.parametrize("mark", ["ab", "01", "12"])
    def test_labels_are_shares_beside_human_ref_alone(self, mark: str) -> None:
        refuses([sides(mark, labels=1)], "field 'labels'")

    @pytest.mark.parametrize(("mark", "later"), [("12", 0), ("01", 2)])
    def test_a_later_number_that_puts_the_rows_before_it_in_doubt_is_refused(
        self, mark: str, later: int
    ) -> None:
        rows = [sides(mark, winner=1)] * 25 + [sides(mark, winner=later)]
        assert said(load_examples(rows[:25])[0])[0] == (GOOD if mark == "12" else BAD)
        with pytest.raises(PreferoError, match=r"row 26, field 'winner'.*count from 0 or from 1"):
            load_examples(rows, skip_bad_rows=True)

    def test_a_choice_past_the_end_of_the_list_counts_from_1(self) -> None:
        rows = [{"post": ASKED, "summaries": [GOOD, BAD], "choice": choice} for choice in (1, 2)]
        with pytest.raises(PreferoError, match="row 2, field 'choice': found 2"):
            load_examples(rows, skip_bad_rows=True)


class TestStrengths:
    def test_beside_a_winner_it_is_only_a_size(self) -> None:
        for name in ("strength", "preference_strength"):
            example = load_examples([sides("ab", winner="a", **{name: 2})])[0]
            assert said(example) == [GOOD, BAD]
            assert example.columns["strength"] == 2.0

    @pytest.mark.parametrize("numbers", [(2, 1, 7), (0, 1, 2), (0, 1), (3, 3), (0,), (1,)])
    def test_without_a_sign_it_says_nothing(self, numbers: tuple[int, ...]) -> None:
        for name in ("strength", "overall_preference"):
            refuses([sides("ab", **{name: number}) for number in numbers], "no number below 0")

    @pytest.mark.parametrize(
        ("name", "beside"),
        [("preference_strength", {"preference_statement": "s"}), ("overall_preference", {"domain": "code"})],
    )
    def test_that_of_a_published_family_has_one(self, name: str, beside: dict[str, str]) -> None:
        for number in (1, 2, 3):
            assert said(load_examples([sides(**{name: number}, **beside)])[0]) == [BAD, GOOD]

    def test_the_first_rows_tell_whether_it_has_a_sign(self) -> None:
        rows = [sides("ab", preference_strength=number) for number in (*[2] * 25, -3)]
        with pytest.raises(PreferoError, match=r"row 1, .*no number below 0"):
            load_examples(rows, skip_bad_rows=True)
        rows[0] = sides("ab", preference_strength=-1)
        assert said(load_examples(rows)[0]) == [GOOD, BAD]
        assert said(load_examples(rows)[1]) == [BAD, GOOD]

    def test_beside_scores_it_is_only_a_size(self) -> None:
        example = load_examples([sides("ab", strength=2, score_a=9, score_b=1)])[0]
        assert said(example) == [GOOD, BAD]
        assert example.columns["strength"] == 2.0

    def test_a_list_has_none(self) -> None:
        rows = [{"prompt": ASKED, "responses": [GOOD, BAD], "scores": [2, 1], "strength": 2}]
        assert load_examples(rows)[0].unread == ("strength",)

    def test_a_pair_has_its_size(self) -> None:
        assert load_examples([pair(strength=-2)])[0].columns["strength"] == 2.0


class TestNamesAndMarks:
    def test_winner_may_be_who_wrote_the_better_response(self) -> None:
        row = {"prompt": ASKED, "winner": "m", "loser": "n", "winner_response": GOOD, "loser_response": BAD}
        example = load_examples([row])[0]
        assert said(example) == [GOOD, BAD]
        assert example.unread == ("winner", "loser")

    @pytest.mark.parametrize(("chosen", "rejected"), [("a", "b"), ("response_a", "response_b")])
    def test_chosen_and_rejected_may_name_the_responses(self, chosen: str, rejected: str) -> None:
        assert said(load_examples([sides("ab", chosen=chosen, rejected=rejected)])[0]) == [GOOD, BAD]
        assert said(load_examples([sides("ab", chosen=rejected, rejected=chosen)])[0]) == [BAD, GOOD]

    @pytest.mark.parametrize(("chosen", "rejected"), [("1", "0"), (1, 0)])
    def test_places_in_a_list_are_no_responses(self, chosen: Any, rejected: Any) -> None:
        refuses(
            [{"prompt": ASKED, "responses": [BAD, GOOD], "chosen": chosen, "rejected": rejected}], "stands"
        )

    def test_numbers_are_read_as_their_texts(self) -> None:
        example = load_examples([pair(prompt="1+1?", chosen=2, rejected=1.5)])[0]
        assert said(example) == ["2", "1.5"]
        assert example.notes == tuple(
            f"{name} is a number, which is read as its text" for name in ("chosen", "rejected")
        )
        assert said(load_examples([{"prompt": "1+1?", "completion": 2, "label": True}])[0]) == ["2"]
        refuses([pair(chosen=math.nan)], "field 'chosen': found float nan")
        refuses([pair(chosen=True, rejected=False)], "field 'chosen': found bool True")

    def test_numbers_that_may_be_places_of_other_texts_are_refused(self) -> None:
        refuses([pair(chosen=1, rejected=0, this=GOOD, that=BAD)], "chosen': found 1, which may be the place")

    def test_numbers_may_be_responses(self) -> None:
        row = {"prompt": "1+1?", "chosen": "2", "rejected": "1", "responses": ["1", "2", "3"]}
        assert said(load_examples([row])[0]) == ["2", "1"]

    @pytest.mark.parametrize(("chosen", "rejected"), [("gpt-4", "llama"), (3, 7), (0.9, 0.1)])
    def test_chosen_and_rejected_may_tell_of_fields_that_say_more(self, chosen: Any, rejected: Any) -> None:
        row = {"prompt": ASKED, "chosen": chosen, "rejected": rejected}
        row |= {"chosen_response": GOOD, "rejected_response": BAD}
        example = load_examples([row])[0]
        assert said(example) == [GOOD, BAD]
        assert example.unread == ("chosen", "rejected")

    def test_results_are_no_responses_beside_whole_ones(self) -> None:
        example = load_examples([pair(chosen_answer="4", rejected_answer="5")])[0]
        assert said(example) == [GOOD, BAD]
        assert example.unread == ("chosen_answer", "rejected_answer")

    @pytest.mark.parametrize("worker", ["worker-17", 17])
    def test_a_field_that_names_no_response_is_no_verdict(self, worker: Any) -> None:
        example = load_examples([sides("ab", winner="b", winner_id=worker)])[0]
        assert said(example) == [BAD, GOOD]
        assert example.unread == ("winner_id",)

    def test_a_number_that_is_a_mistake_does_not_make_the_scores_the_verdict(self) -> None:
        rows = [sides(winner=number, score_1=1, score_2=2) for number in (1, 2, 7)]
        refuses(rows, "row 3, field 'winner': found 7")

    def test_a_row_without_the_verdict_of_the_others_is_refused(self) -> None:
        scored = {"score_a": 1, "score_b": 2}
        for verdicts in ({"winner": "a"}, {"winner_a": 1, "winner_b": 0}, {"preference_strength": -1}):
            rows = [sides("ab", **verdicts, **scored), sides("ab", **dict.fromkeys(verdicts), **scored)]
            refuses(rows, f"row 2, field '{next(iter(verdicts))}'")

    def test_longer_texts_of_other_names_are_no_responses(self) -> None:
        row = pair(positive="It answers the question well.", negative="It does not answer it at all.")
        assert said(load_examples([row])[0]) == [GOOD, BAD]

    def test_a_bad_cell_of_a_verdict_is_refused(self) -> None:
        scored = {"score_a": 1, "score_b": 2}
        refuses([sides("ab", winner="a", **scored), sides("ab", winner="x", **scored)], "found 'x'")

    def test_a_writer_of_both_is_no_winner(self) -> None:
        refuses([sides("ab", model_a="m", model_b="m", winner="m")], "field 'winner': found 'm'")

    def test_no_mark_at_all_is_no_tie(self) -> None:
        marks = {"winner_model_a": 0, "winner_model_b": 0}
        refuses([sides("ab", **marks, winner_tie=0)], "none of the marks is set")
        assert load_examples([sides("ab", **marks, winner_tie=1)])[0].columns["tie"]

    def test_names_of_annotators_are_no_votes(self) -> None:
        example = load_examples([sides("ab", winner="a", annotator1="Ann", annotator2="Bo")])[0]
        assert said(example) == [GOOD, BAD]
        assert example.unread == ("annotator1", "annotator2")


class TestPrompts:
    def test_the_beginning_of_answers_is_no_prompt_beside_another_text(self) -> None:
        begun = "I am sorry, but I cannot"
        refuses([{"ask": ASKED, "chosen": f"{begun} do that.", "rejected": f"{begun} swim."}], "read: ask")

    def test_a_transcript_holds_its_prompt_beside_another_text(self) -> None:
        begun = f"Human: {ASKED}\nAssistant:"
        row = {"note": "a remark", "chosen": f"{begun} {GOOD}", "rejected": f"{begun} {BAD}"}
        assert load_examples([row])[0].prompt == begun

    @pytest.mark.parametrize("prompt", [ASKED, f"Be brief.\n\n{ASKED}", f"Answer this: {ASKED} Be brief."])
    def test_an_input_that_stands_in_the_prompt_is_not_written_again(self, prompt: str) -> None:
        assert load_examples([pair(prompt=prompt, input=ASKED)])[0].prompt == prompt

    def test_earlier_turns_that_are_plain_text_are_not_read(self) -> None:
        assert load_examples([pair(history="User: a\nBot: b")])[0].unread == ("history",)

    def test_a_prompt_that_nearly_all_responses_repeat_is_taken_off(self) -> None:
        rows = [
            {"prompt": f"{n}?", "chosen": f"{n}? yes", "rejected": f"{n}? no"}
            for n in ("A", "B", "C", "D", "E")
        ]
        examples = load_examples([*rows, {"prompt": "F?", "chosen": "yes", "rejected": "no"}])
        assert [said(example) for example in (examples[0], examples[5])] == [[" yes", " no"], ["yes", "no"]]

    def test_a_long_prompt_that_the_responses_repeat_is_taken_off(self) -> None:
        prompt = "Please name a lake in the north of Italy that is deep and cold."
        repeating = {"prompt": prompt, "chosen": f"{prompt} Como", "rejected": f"{prompt} Rome"}
        examples = load_examples([pair()] * 25 + [repeating])
        assert said(examples[25]) == [" Como", " Rome"]

    @pytest.mark.parametrize("rejected", [BAD, f"{ASKED} {BAD}"])
    def test_a_response_that_keeps_the_prompt_is_noted(self, rejected: str) -> None:
        rows = [pair()] * 25 + [pair(chosen=f"{ASKED} {GOOD}", rejected=rejected)]
        examples = load_examples(rows)
        assert examples[25].notes == ("a response begins with the prompt, and keeps it",)
        assert examples[0].notes == ()

    def test_an_empty_prompt_is_noted(self) -> None:
        begun = "Please name one lake, any lake, that is deep and lies in Italy, and only one: "
        rows = [{"chosen": f"{begun}{GOOD}", "rejected": f"{begun}{BAD}"}] * 2
        examples = load_examples([*rows, {"chosen": GOOD, "rejected": BAD}])
        assert "what the two sides begin with" in examples[1].notes[0]
        assert examples[2].notes == ("the prompt is empty: the two sides share no beginning",)

    def test_an_object_that_is_no_prompt_may_hold_it(self) -> None:
        row = {"question": {"text": ASKED}, "chosen": "The Como.", "rejected": "The spoon."}
        refuses([row], "--columns prompt=question.text ")
        example = load_examples([row], columns={"prompt": "question.text"})[0]
        assert (example.prompt, example.unread) == (ASKED, ())

    @pytest.mark.parametrize("prompt", [f"Human: {ASKED}\nAssistant:", f"[INST] {ASKED} [/INST]"])
    def test_marks_of_speakers_that_are_kept_are_noted(self, prompt: str) -> None:
        notes = ("the prompt has marks of speakers in its text, which are kept",)
        assert load_examples([pair(prompt=prompt)])[0].notes == notes
        assert load_examples([pair(prompt=f"\n\nHuman: {ASKED}\n\nAssistant:")])[0].notes == ()

    def test_a_prompt_that_the_responses_continue_is_noted(self) -> None:
        row = {"messages": [user(ASKED), assistant("It is")], "chosen": GOOD, "rejected": BAD}
        told = "the prompt ends with a turn of the assistant, "
        assert load_examples([row])[0].notes == (f"{told}which the responses continue",)
        row |= {"chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}
        assert load_examples([row])[0].notes == (f"{told}behind which the responses are other turns",)

    @pytest.mark.parametrize(
        ("begun", "prompt"),
        [
            ("Question: What does f do?\nInput: 3\nOutput: 5\nExplain f.\n", None),
            ("Instruction: What does f do?\nInput: 3\nOutput: 5\nExplain f.\n", None),
            ("Instruction: Compare cars.\nModel: Tesla\nYear: 2020\n", None),
            ("User: Hi\nAssistant: Hello.\nUser: Name a lake\n", None),
            ("Instruction: Name a lake.\nOutput: ", "Instruction: Name a lake.\nOutput:"),
            ("User: Name a lake.\nModel: ", "User: Name a lake.\nModel:"),
            ("User: Hi\nAssistant: Hello.\nUser: Name a lake.\nAssistant: Well,\n", None),
        ],
    )
    def test_answers_begin_behind_the_last_mark_of_the_assistant(
        self, begun: str, prompt: str | None
    ) -> None:
        if prompt is None:
            prompt = begun.partition(" Well")[0].rstrip()
        example = load_examples([{"chosen": f"{begun}Como.", "rejected": f"{begun}A spoon."}])[0]
        assert example.prompt == prompt
        assert [f"{prompt}{text}" for text in said(example)] == [f"{begun}Como.", f"{begun}A spoon."]

    def test_a_transcript_beside_a_prompt_is_noted(self) -> None:
        transcripts = {side: f"\n\nHuman: Hi\n\nAssistant: {text}" for side, text in answers().items()}
        examples = load_examples([pair(**transcripts), *[pair()] * 3])
        assert examples[0].notes == ("a response is a whole transcript, and keeps it",)

    def test_a_response_ends_with_the_assistant(self) -> None:
        row = {"chosen": [user(ASKED), assistant(GOOD)]}
        row["rejected"] = [user(ASKED), assistant(BAD), user("Thanks.")]
        refuses([row], "field 'rejected': the conversation ends with a turn of user")

    def test_marks_of_images_are_where_the_images_stand(self) -> None:
        row = {"conversations": [{"from": "human", "value": f"<image>\n{ASKED}"}]}
        row |= {"chosen": GOOD, "rejected": BAD}
        prompt = load_examples([{**row, "images": ["a.png"]}])[0].prompt
        assert prompt == (
            {"role": "user", "content": [{"type": "image", "number": 0}, {"type": "text", "text": ASKED}]},
        )
        refuses([{**row, "images": ["a.png", "b.png"]}], "1 marks <image>, and the row has 2 images")
        assert load_examples([row])[0].prompt == (user(f"<image>\n{ASKED}"),)


class TestNothing:
    """What tables write into a cell without a text."""

    @pytest.mark.parametrize("nothing", [math.nan, None, ""])
    def test_no_text_is_none(self, nothing: Any) -> None:
        (example,) = load_examples([pair(system=nothing, input=nothing)])
        assert (example.prompt, example.unread) == (ASKED, ())

    @pytest.mark.parametrize("nothing", ["nan", "None", " NULL", "<noinput>"])
    def test_the_words_for_it_are_not_read(self, nothing: str) -> None:
        (example,) = load_examples([{"instruction": ASKED, "input": nothing, "system": nothing, **answers()}])
        assert [turn["content"] for turn in example.prompt] == [ASKED]
        assert example.unread == ("input", "system")

    def test_as_a_response_they_are_noted(self) -> None:
        assert load_examples([pair(rejected="nan")])[0].notes == ("rejected is the word 'nan'",)

    def test_a_number_that_is_none_is_still_refused_where_a_number_belongs(self) -> None:
        refuses([pair(weight=1.0), pair(weight=math.nan)], "field 'weight'")


class TestEqualSides:
    @pytest.mark.parametrize(
        "row",
        [
            {"responses": [GOOD, GOOD], "scores": [1, 5]},
            {"responses": [GOOD, BAD, GOOD], "scores": [1, 2, 5]},
            {"answers": [{"answer": GOOD, "rank": 1}, {"answer": GOOD, "rank": 2}]},
        ],
    )
    def test_a_list_whose_best_and_worst_are_equal_is_dropped(self, row: dict[str, Any]) -> None:
        other = {"prompt": "Two?", "responses": [GOOD, BAD], "scores": [2, 1]}
        if "answers" in row:
            other = {"prompt": "Two?", "answers": [{"answer": GOOD, "rank": 1}, {"answer": BAD, "rank": 2}]}
        pairs = arrange(load_examples([{"prompt": ASKED, **row}, other]), PAIR)
        assert pairs.dropped == {"equal responses of different worth": 1}

    def test_a_text_is_not_both_chosen_and_rejected(self) -> None:
        refuses([pair(chosen=[GOOD], rejected=[GOOD, BAD])], "field 'rejected': it equals chosen")

    def test_an_order_beside_scores_says_nothing(self) -> None:
        refuses([{"instruction": ASKED, "output": [BAD, GOOD], "score": [1, 5]}], "score stands beside it")


class TestContradictions:
    @pytest.mark.parametrize(
        ("row", "told"),
        [
            (pair(chosen_score=1, rejected_score=9), "the rejected response has the higher score"),
            (pair(score_chosen=1, score_rejected=9), "the rejected response has the higher score"),
            (pair(chosen_rank=1, rejected_rank=0), "the rejected response has the better rank"),
            (sides("ab", winner="a", score_a=1, score_b=9), "the rejected response has the higher score"),
            ({"prompt": ASKED, "responses": [GOOD, BAD], "scores": [9, 1], "ranks": [1, 0]}, "the ranks"),
            (pair(winner="rejected"), "winner is 'rejected'"),
            (pair(preference="Rejected"), "preference is 'rejected'"),
        ],
    )
    def test_they_are_noted(self, row: dict[str, Any], told: str) -> None:
        (note,) = load_examples([row])[0].notes
        assert note.startswith(told)

    @pytest.mark.parametrize(
        "row",
        [
            pair(chosen_score=9, rejected_score=1, winner="chosen"),
            pair(chosen_rank=1, rejected_rank=2, chosen_score=2, rejected_score=2),
            sides("ab", winner="tie", score_a=1, score_b=9),
            {"prompt": ASKED, "responses": [GOOD, BAD, "Hm."], "scores": [9, 5, 5], "ranks": [1, 2, 2]},
        ],
    )
    def test_what_agrees_is_not(self, row: dict[str, Any]) -> None:
        assert load_examples([row])[0].notes == ()


class TestOddFirstRows:
    """Most of the first rows tell what rows are, not the first of them."""

    def test_file_names_among_texts_are_texts(self) -> None:
        odd = pair(prompt="Which file?", chosen="cat.png", rejected="dog.png")
        for rows in ([odd, pair(), pair()], [pair(), odd, pair()]):
            examples = load_examples(rows)
            assert examples.format == "pairs"
            assert [said(example) for example in examples] == [[r["chosen"], r["rejected"]] for r in rows]
        alone = {"prompt": ASKED, "completion": "cat.png", "label": True}
        examples = load_examples([alone, {**alone, "completion": GOOD}, {**alone, "completion": BAD}])
        assert said(examples[0]) == ["cat.png"]

    def test_the_odd_row_is_the_one_that_is_refused(self) -> None:
        beside = {"response_a": GOOD, "response_b": BAD}
        rows = [pair(chosen="A", rejected="B", **beside), pair(**beside), pair(**beside)]
        refuses(rows, "row 1, field 'chosen'")
        examples = load_examples(rows, skip_bad_rows=True)
        assert (len(examples), len(examples.skipped)) == (2, 1)


class TestSpelledColumns:
    def test_a_prompt_that_spells_a_list_is_noted(self) -> None:
        note = "prompt is a text that spells a list, and is kept as it is"
        assert load_examples([pair()] * 25 + [pair(prompt=json.dumps([ASKED]))])[25].notes == (note,)

    def test_a_text_that_spells_messages_is_noted(self) -> None:
        later = pair(chosen=json.dumps([assistant(GOOD)]))
        example = load_examples([pair()] * 25 + [later])[25]
        assert said(example)[0] == later["chosen"]
        assert example.notes == ("chosen is a text that spells messages, and is kept as it is",)

    def test_one_plain_cell_is_the_mistake_of_its_row(self) -> None:
        rows = [
            pair(chosen=json.dumps([assistant(GOOD)]), rejected=json.dumps([assistant(BAD)]))
            for _ in range(5)
        ]
        examples = load_examples([*rows, {**rows[0], "chosen": "an error"}], skip_bad_rows=True)
        assert examples[4].responses[0].content == (assistant(GOOD),)
        assert len(examples) == 5
        assert "field 'chosen'" in examples.skipped[0]

    def test_a_turn_that_is_null_is_the_mistake_of_its_row(self) -> None:
        def row(*turns: str | None) -> dict[str, Any]:
            asked = json.dumps(["Hi"] * len(turns))
            return {"prompt": asked, "response_a": json.dumps(turns), "response_b": asked, "winner": "a"}

        examples = load_examples([row(GOOD), row(GOOD, None)], skip_bad_rows=True)
        assert examples[0].prompt == (user("Hi"),)
        assert len(examples.skipped) == 1


class TestOtherMeanings:
    @pytest.mark.parametrize(
        "more", [{"group": "math"}, {"weight": "high"}, {"sample": ["a", "b"]}, {"gold": {"id": 1}}]
    )
    def test_a_column_of_another_meaning_is_not_read(self, more: dict[str, Any]) -> None:
        example = load_examples([pair(**more)])[0]
        assert said(example) == [GOOD, BAD]
        assert example.unread == tuple(more)

    def test_an_empty_further_response_is_none(self) -> None:
        assert said(load_examples([pair(rationale="", gold=" ")])[0]) == [GOOD, BAD]

    def test_a_further_response_that_the_method_does_not_take_is_unread(self) -> None:
        (example,) = arrange(load_examples([pair(gold="Como.", sample="A pond.", hue="red")]), PAIR)
        assert said(example) == [GOOD, BAD]
        assert example.unread == ("hue", "gold", "sample")
        assert arrange([example], PAIR)[0] == example

    def test_a_column_of_words_is_not_read_where_a_number_turns_up(self) -> None:
        rows = [pair(weight="high")] * 25 + [pair(weight=3)]
        assert load_examples(rows)[25].unread == ("weight",)

    def test_a_bad_cell_of_a_known_column_is_refused(self) -> None:
        refuses([pair(weight=2), pair(weight="high")], "field 'weight'")

    def test_speakers_in_capitals_are_known(self) -> None:
        rows = [
            {"role": "User", "content": ASKED},
            {"role": "Human", "content": ASKED},
        ]
        for asked in rows:
            row = {"chosen": [asked, {"role": "AI", "content": GOOD}], "rejected": [asked, assistant(BAD)]}
            assert load_examples([row])[0].prompt == (user(ASKED),)

    def test_options_and_tools_as_text(self) -> None:
        tool = {"type": "function", "function": {"name": "look"}}
        example = load_examples([pair(chat_template_kwargs='{"quiet": true}', tools=json.dumps(tool))])[0]
        assert example.template_options == {"quiet": True}
        assert example.tools == (tool,)
        assert load_examples([pair(tools="null")])[0].tools == ()

    def test_labels_of_candidates_are_true_or_false(self) -> None:
        example = load_examples([{"prompt": ASKED, "responses": [GOOD, BAD], "label": [1, 0]}])[0]
        assert [response.columns["label"] for response in example.responses] == [1.0, -1.0]

    def test_a_number_beyond_all_bounds_is_refused(self) -> None:
        refuses([pair(weight=10**400), pair(weight=1)], "field 'weight'")

    def test_rows_within_a_field_are_hinted_at(self) -> None:
        row = {"text": json.dumps({"question": ASKED, **answers()}), "ds_name": "x"}
        hint = "question=text.question,chosen=text.chosen,rejected=text.rejected"
        refuses([row], f"--columns {hint} ")
        columns = dict(part.split("=") for part in hint.split(","))
        example = load_examples([row], columns=columns)[0]
        assert (example.prompt, said(example), example.unread) == (ASKED, [GOOD, BAD], ("ds_name",))

    def test_names_in_capitals_are_hinted_at(self) -> None:
        refuses(
            [{"prompt": ASKED, "chosenText": GOOD, "rejectedText": BAD}],
            "--columns chosen=chosenText,rejected=rejectedText ",
        )
        row = {name.capitalize(): text for name, text in pair().items()}
        refuses([row], "--columns prompt=Prompt,chosen=Chosen,rejected=Rejected ")


class TestFiles:
    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        path.write_text("prompt,chosen,rejected,chosen\nq,a,b,c\n")
        with pytest.raises(PreferoError, match="more than one column has the name 'chosen'"):
            load_examples(path)

    def test_two_fields_of_one_name_are_the_mistake_of_their_row(self, tmp_path: Path) -> None:
        twice, inner = '{"prompt":"q","chosen":"a","rejected":"b","chosen":"c"}', '{"prompt":{"a":1,"a":2}}'
        for ending, text in ((".jsonl", "{0}\n{1}\n{2}"), (".json", "[{0},{1},{2}]")):
            path = tmp_path / f"train{ending}"
            path.write_text(text.format(json.dumps(pair()), twice, inner))
            with pytest.raises(PreferoError, match=r"row 2: the field 'chosen' stands twice"):
                load_examples(path)
            assert len(load_examples(path, skip_bad_rows=True)) == 1
            problems = [row.problem for row in load_rows(path)]
            assert "the field 'a' stands twice in one object (field prompt)" in str(problems[2])

    def test_half_a_character_is_the_mistake_of_its_row(self, tmp_path: Path) -> None:
        path = tmp_path / "train.jsonl"
        path.write_text("\n".join(json.dumps(pair(chosen=text)) for text in ("a \ud83d", GOOD)))
        with pytest.raises(PreferoError, match=r"row 1: a text holds half a character, as in 'a \\ud83d'"):
            load_examples(path)
        assert len(load_examples(path, skip_bad_rows=True)) == 1
        refuses([pair(chosen="a \ud83d")], "half a character")

    def test_names_of_classes(self, tmp_path: Path) -> None:
        columns = {name: datasets.Value("string") for name in ("prompt", "completion")}
        features = datasets.Features({**columns, "label": datasets.ClassLabel(names=["good", "bad"])})
        rows = [{"prompt": ASKED, "completion": text, "label": n} for n, text in enumerate((GOOD, BAD))]
        data = datasets.Dataset.from_list(rows, features=features)
        data.to_parquet(tmp_path / "train.parquet")
        for source in (data, tmp_path / "train.parquet"):
            labels = [example.responses[0].columns["label"] for example in load_examples(source)]
            assert labels == [1.0, -1.0]

    def test_a_split_in_several_files(self, tmp_path: Path) -> None:
        for number in range(2):
            data = datasets.Dataset.from_list([pair(prompt=f"{number}?")])
            data.to_parquet(tmp_path / f"train-{number:05}-of-00002.parquet")
        assert [example.prompt for example in load_examples(tmp_path)] == ["0?", "1?"]
        folder = tmp_path / "hub" / "data"
        folder.mkdir(parents=True)
        for number in range(2):
            name = f"train-{number:05}-of-00002.parquet"
            (tmp_path / name).rename(folder / name.replace(".", "-0123456789abcdef."))
        assert [example.prompt for example in load_examples(tmp_path / "hub")] == ["0?", "1?"]
        datasets.Dataset.from_list([pair()]).to_parquet(tmp_path / "train-00000-of-00002.parquet")
        with pytest.raises(PreferoError, match="expected a folder"):
            load_examples(tmp_path)

    @pytest.mark.parametrize(("name", "mark"), [("train.tsv", "\t"), ("train.csv", ";"), ("train.csv", "\t")])
    def test_other_marks_between_cells(self, tmp_path: Path, name: str, mark: str) -> None:
        path = tmp_path / name
        path.write_text("\n".join(mark.join(row) for row in (pair().keys(), pair().values())))
        assert said(load_examples(path)[0]) == [GOOD, BAD]

    def test_arrays_are_lists_and_what_pandas_has_for_nothing_is_null(self) -> None:
        earlier = np.empty(1, dtype=object)
        earlier[0] = np.array(["Hi", "Hello"], dtype=object)
        turns = (user("Hi"), assistant("Hello"), user(ASKED))
        missing = pytest.importorskip("pandas").NA
        example = load_examples([pair(history=earlier, system=missing, note=missing)])[0]
        assert (example.prompt, example.unread) == (turns, ())
        row = {"prompt": np.array(turns, dtype=object), "responses": np.array([GOOD, BAD], dtype=object)}
        example = load_examples([{**row, "scores": np.array([2, 1])}])[0]
        assert (example.prompt, said(example)) == (turns, [GOOD, BAD])
        assert [response.columns["score"] for response in example.responses] == [2, 1]

    def test_tables_of_pandas(self, tmp_path: Path) -> None:
        table = datasets.Dataset.from_list([pair(), pair(prompt="Two?")]).to_pandas()
        sources: list[Any] = [table]
        for orient in ("columns", "index", "records"):
            sources.append(tmp_path / f"{orient}.json")
            table.to_json(sources[-1], orient=orient)
        for source in sources:
            assert [example.prompt for example in load_examples(source)] == [ASKED, "Two?"]

    def test_blank_lines_and_a_mark_of_byte_order(self, tmp_path: Path) -> None:
        path = tmp_path / "train.ndjson"
        path.write_bytes("\ufeff\r\n".encode() + json.dumps(pair()).encode() + b"\r\n\r\n")
        assert said(load_examples(path)[0]) == [GOOD, BAD]

    def test_an_array_under_the_name_of_lines(self, tmp_path: Path) -> None:
        for indent in (None, 1):
            path = tmp_path / "train.jsonl"
            path.write_text(json.dumps([pair()], indent=indent))
            with pytest.raises(PreferoError, match=r"Rename the file to \.json"):
                load_examples(path)


@pytest.mark.parametrize(
    "rows",
    [
        [sides("ab", winner="a"), {**sides("ab", winner="tie"), "response_a": BAD}],
        [sides("ab", winner="a"), {**sides("ab", winner="a"), "response_b": ""}],
        [sides("ab", winner="a", score_a=3, score_b=1, model_a="m", model_b="n")],
        [sides(preference=1.25), sides(preference=2)],
        [sides(preference_strength=-2), sides(preference_strength=0)],
        [pair(chosen=[GOOD], rejected=[BAD, "No."]), pair(chosen=[GOOD], rejected=[BAD])],
        [
            {"prompt": prompt, "response": text, "helpfulness": score, "correctness": 1}
            for prompt, text, score in ((ASKED, GOOD, 4), (ASKED, BAD, 1), ("Another?", "One.", 3))
        ],
    ],
)
def test_converted_rows_are_one_source(rows: list[dict[str, Any]]) -> None:
    def bare(example: Example) -> tuple[Any, ...]:
        return example.prompt, example.responses, dict(example.columns), example.chosen_second

    examples = load_examples(rows)
    again = load_examples([json.loads(json.dumps(row_of(example))) for example in examples])
    assert list(map(bare, again)) == list(map(bare, examples))


class TestWhatIsSaidOfTheReading:
    def test_columns_that_are_read_and_those_that_are_not(self) -> None:
        (example,) = load_examples([pair(chosen_score=4, rejected_score=1, source="us", system="")])
        assert example.read == ("prompt", "chosen", "rejected", "chosen_score", "rejected_score")
        assert example.unread == ("source",)

    def test_a_mistyped_name_of_a_field(self) -> None:
        rows = [pair(good=4, bad=1)]
        read = load_examples(rows, columns={"chosen_score": "good", "rejected_score": "bad"})
        assert [response.columns["score"] for response in read[0].responses] == [4, 1]
        with pytest.raises(PreferoError, match=r"columns\.chosen_scor .*'good'.* mean 'chosen_score'"):
            load_examples(rows, columns={"chosen_scor": "good", "rejected_score": "bad"})

    def test_equally_good_candidates(self) -> None:
        rows = [{"prompt": ASKED, "responses": [GOOD, BAD], "scores": scores} for scores in ([2, 2], [2, 1])]
        notes = [example.notes for example in arrange(load_examples(rows), ())]
        assert "equally good" in notes[0][0]
        assert not notes[1]


@pytest.mark.parametrize(
    "part", [GOOD, *({"type": "text", key: GOOD} for key in ("text", "value", "content"))]
)
def test_parts_of_messages_hold_their_text_in_several_ways(part: Any) -> None:
    answers = [{"role": "assistant", "content": [said]} for said in (part, {"type": "text", "text": BAD})]
    rows = [{"prompt": [user(ASKED)], "chosen": answers[:1], "rejected": answers[1:]}]
    chosen = load_examples(rows)[0].responses[0].content
    assert chosen == ({"role": "assistant", "content": [{"type": "text", "text": GOOD}]},)


@pytest.mark.parametrize("part", [7, {"type": "text", "words": GOOD}])
def test_a_part_of_a_message_without_its_text(part: Any) -> None:
    rows = [
        pair(
            prompt=[user(ASKED)], chosen=[{"role": "assistant", "content": [part]}], rejected=[assistant(BAD)]
        )
    ]
    with pytest.raises(PreferoError, match=r"row 1, field 'chosen'.*part"):
        load_examples(rows)
