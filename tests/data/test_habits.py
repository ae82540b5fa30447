"""What one row cannot tell is decided by the other rows of its source, or refused; nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from prefero.data.arrange import PAIR, arrange
from prefero.data.convert import row_of
from prefero.data.examples import Example
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


class TestStrengths:
    def test_beside_a_winner_it_is_only_a_size(self) -> None:
        for name in ("strength", "preference_strength"):
            example = load_examples([sides("ab", winner="a", **{name: 2})])[0]
            assert said(example) == [GOOD, BAD]
            assert example.columns["strength"] == 2.0

    def test_without_a_sign_it_says_nothing(self) -> None:
        refuses([sides("ab", overall_preference=number) for number in (2, 1, 7)], "above 0 alone")

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

    def test_numbers_may_be_responses(self) -> None:
        row = {"prompt": "1+1?", "chosen": "2", "rejected": "1", "responses": ["1", "2", "3"]}
        assert said(load_examples([row])[0]) == ["2", "1"]

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


class TestSpelledColumns:
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

    def test_names_in_capitals_are_hinted_at(self) -> None:
        row = {name.capitalize(): text for name, text in pair().items()}
        refuses([row], "--columns prompt=Prompt,chosen=Chosen,rejected=Rejected ")


class TestFiles:
    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        path.write_text("prompt,chosen,rejected,chosen\nq,a,b,c\n")
        with pytest.raises(PreferoError, match="more than one column has the name 'chosen'"):
            load_examples(path)

    def test_two_fields_of_one_name_are_told(self, tmp_path: Path) -> None:
        for ending, text in ((".jsonl", "{}"), (".json", "[{}]")):
            path = tmp_path / f"train{ending}"
            path.write_text(text.replace("{}", '{"prompt":"q","chosen":"a","rejected":"b","chosen":"c"}'))
            example = load_examples(path)[0]
            assert said(example) == ["c", "b"]
            assert example.unread == ("chosen (given again later)",)

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
        (tmp_path / "train-00001-of-00002.parquet").unlink()
        with pytest.raises(PreferoError, match="expected a folder"):
            load_examples(tmp_path)

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
    ],
)
def test_converted_rows_are_one_source(rows: list[dict[str, Any]]) -> None:
    def bare(example: Example) -> tuple[Any, ...]:
        return example.prompt, example.responses, dict(example.columns), example.chosen_second

    examples = load_examples(rows)
    again = load_examples([json.loads(json.dumps(row_of(example))) for example in examples])
    assert list(map(bare, again)) == list(map(bare, examples))
