"""Which of several responses are compared, and which of them words and numbers name: read where a row can
mean one thing alone, else refused."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from prefero.data.arrange import PAIR, arrange
from prefero.data.examples import Example
from prefero.data.formats import load_examples
from prefero.errors import PreferoError

ASKED = "Name a lake."
GOOD, BAD, OTHER = "Lake Como.", "A spoon.", "The moon."


def sides(mark: str = "ab", **more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, f"response_{mark[0]}": GOOD, f"response_{mark[1]}": BAD, **more}


def three(mark: str = "012", stem: str = "response", **more: Any) -> dict[str, Any]:
    texts = zip(mark, (GOOD, BAD, OTHER), strict=True)
    return {"prompt": ASKED, **{f"{stem}_{own}": text for own, text in texts}, **more}


def pair(**more: Any) -> dict[str, Any]:
    return {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, **more}


def said(example: Example) -> list[Any]:
    return [response.content for response in example.responses]


def read(*rows: dict[str, Any], **columns: str) -> list[list[Any]]:
    return [said(example) for example in load_examples(list(rows), columns=columns)]


def best(*rows: dict[str, Any]) -> list[Any]:
    return [said(example)[0] for example in arrange(load_examples(list(rows)), PAIR)]


def refuses(message: str, *rows: dict[str, Any]) -> None:
    with pytest.raises(PreferoError, match=message):
        arrange(load_examples(list(rows)), PAIR)


class TestThreeResponses:
    @pytest.mark.parametrize("name", ["winner", "choice", "preference", "better_response_id", "best"])
    @pytest.mark.parametrize("mark", ["012", "123"])
    def test_a_verdict_names_the_best_by_its_number(self, name: str, mark: str) -> None:
        verdicts: list[dict[str, Any]] = [{name: int(number)} for number in mark]
        rows = [three(mark, **verdict) for verdict in verdicts]
        examples = load_examples(rows)
        assert best(*rows) == [GOOD, BAD, OTHER]
        assert [response.columns["rank"] for response in examples[1].responses] == [1, 0, 1]

    @pytest.mark.parametrize("word", ["c", "Response C", "response_c", "C is the best", "m3", "third"])
    def test_a_verdict_names_the_best_in_words(self, word: str) -> None:
        assert best(three("abc", winner=word, model_a="m1", model_b="m2", model_c="m3")) == [OTHER]

    def test_scores_say_more_than_a_verdict(self) -> None:
        row = three(score_0=9, score_1=1, score_2=4, winner=2)
        assert best(row) == [GOOD]
        assert load_examples([row])[0].unread == ("winner",)

    @pytest.mark.parametrize("stem", ["summary", "answer", "text", "output"])
    def test_none_of_them_is_left_out(self, stem: str) -> None:
        assert len(load_examples([three(stem=stem, winner=0)])[0].responses) == 3

    @pytest.mark.parametrize("verdict", [{"annotator1": 0}, {"preference_strength": -1}, {"winner": "tie"}])
    def test_what_tells_two_apart_does_not_tell_three_apart(self, verdict: dict[str, Any]) -> None:
        refuses(f"3 responses that nothing tells apart.*not read: {next(iter(verdict))}", three(**verdict))

    def test_a_number_that_may_count_otherwise_is_refused(self) -> None:
        refuses("row 1, field 'winner': found 1", three("123", winner=1), three("123", winner=0))
        refuses("row 1, field 'winner': found 0", three("012", winner=0), three("012", winner=3))

    def test_a_third_one_that_is_null_everywhere_is_none(self) -> None:
        assert read(sides("12", response_3=None, winner=2)) == [[BAD, GOOD]]

    def test_a_third_one_among_pairs_is_refused(self) -> None:
        rows = [sides("12", winner=1 + number % 2) for number in range(25)]
        refuses("row 26, field 'response_3': the row has the responses", *rows, three("123", winner=2))

    def test_a_response_that_stands_alone_has_the_label(self) -> None:
        row = {"prompt": ASKED, "completion": GOOD, "label": 1, "text_1": "p", "text_2": "q", "text_3": "r"}
        for left in (row, {name: row[name] for name in list(row)[:-1]}):
            assert read(left) == [[GOOD]]
        refuses("field 'label': it may be the label of completion", sides("12", completion=OTHER, label=1))
        assert read(sides("12", completion=OTHER, label=1), winner="label") == [[GOOD, BAD]]


class TestTwoPairsOfNames:
    BOTH: ClassVar[dict[str, Any]] = {
        "question": ASKED,
        "answer_a": GOOD,
        "answer_b": BAD,
        "text_1": "A page.",
        "text_2": "Another.",
    }

    @pytest.mark.parametrize("winner", ["tie", "a", "answer_a"])
    def test_the_usual_names_are_those_of_responses(self, winner: str) -> None:
        assert read({**self.BOTH, "winner": winner}) == [[GOOD, BAD]]

    def test_a_verdict_names_the_fields(self) -> None:
        assert read({**self.BOTH, "winner": "text_2"}) == [["Another.", "A page."]]

    @pytest.mark.parametrize("verdict", [{"winner": 1}, {"winner": "2"}, {"score_1": 1, "score_2": 2}])
    def test_a_verdict_against_the_usual_names_is_refused(self, verdict: dict[str, Any]) -> None:
        columns = {"text_1": "answer_a", "text_2": "answer_b"}
        advice = "--columns text_1=answer_a,text_2=answer_b "
        refuses(
            f"answer_a and answer_b may be the responses, or text_1 and text_2.*{advice}", self.BOTH | verdict
        )
        assert sorted(read(self.BOTH | verdict, **columns)[0]) == sorted([GOOD, BAD])

    def test_marks_decide_between_usual_names(self) -> None:
        both = sides("ab", answer_1="x", answer_2="y")
        assert read({**both, "winner": "b"}) == [[BAD, GOOD]]
        assert read({**both, "winner": 2}) == [["y", "x"]]
        refuses("may be the responses", {**both, "winner": "tie"})

    def test_a_null_does_not_put_others_in_its_place(self) -> None:
        rows = [{**self.BOTH, "winner": "a"}, {**self.BOTH, "answer_b": None, "winner": "a"}]
        refuses("row 2, field 'answer_b': is null", *rows)
        del rows[1]["answer_b"]
        refuses("row 2, field 'answer_b': missing", *rows)

    def test_two_lists(self) -> None:
        row = {"prompt": ASKED, "answers": ["4", "four"], "outputs": [BAD, GOOD], "scores": [1, 2]}
        refuses("answers may be the responses, or outputs.*--columns answers=outputs ", row)
        (example,) = load_examples([row], columns={"answers": "outputs"})
        assert said(example) == [BAD, GOOD]
        assert best({**row, "answers": ["4"]}) == [GOOD]


class TestNamesUnderChosenAndRejected:
    @pytest.mark.parametrize(
        ("chosen", "rejected"),
        [
            ("llama", "gpt-4"),
            ("assistant_b", "assistant_a"),
            ("Model B", "Model A"),
            ("B", "A"),
            ("second", "first"),
        ],
    )
    def test_they_name_what_a_winner_names(self, chosen: str, rejected: str) -> None:
        row = sides(model_a="gpt-4", model_b="llama")
        assert read({**row, "chosen": chosen, "rejected": rejected}) == [[BAD, GOOD]]
        assert read({**row, "winner": chosen, "loser": rejected}) == [[BAD, GOOD]]

    @pytest.mark.parametrize(("better", "worse"), [("chosen", "rejected"), ("winner", "loser")])
    def test_both_do_not_name_one(self, better: str, worse: str) -> None:
        rows = [sides(**{better: "a", worse: "b"}), sides(**{better: "a", worse: "a"})]
        refuses(f"row 2, field '{worse}': found 'a'", *rows)

    @pytest.mark.parametrize(
        "row",
        [
            {"responses": [GOOD, BAD], "chosen": "B", "rejected": "A"},
            {"responses": [GOOD, BAD], "chosen": "response_2", "rejected": "response_1"},
            {"responses": [GOOD, BAD], "models": ["m", "n"], "chosen": "n", "rejected": "m"},
            {
                "responses": [{"id": "r1", "text": GOOD}, {"id": "r2", "text": BAD}],
                "chosen": "r2",
                "rejected": "r1",
            },
            {"response_a": GOOD, "response_b": BAD, "winner_response": "b", "loser_response": "a"},
            {"response_a": GOOD, "response_b": BAD, "chosen": 1, "rejected": 0},
            {"response_1": GOOD, "response_2": BAD, "response_3": OTHER, "chosen": "3", "rejected": "1"},
            {
                "responses": [{"name": "m", "text": GOOD}, {"name": "n", "text": BAD}],
                "chosen": "n",
                "rejected": "m",
            },
            {"responses": {"gpt-4": GOOD, "llama": BAD}, "chosen": "llama", "rejected": "gpt-4"},
            {"answers": {"A": {"text": GOOD}, "B": {"text": BAD}}, "chosen": "b", "rejected": "a"},
            {"assistant_a": GOOD, "assistant_b": BAD, "chosen": "B", "rejected": "A"},
            {"candidates": ["It is 2.", "It is 1."], "chosen": "2", "rejected": "1"},
        ],
    )
    def test_where_they_name_what_is_not_read_they_are_no_responses(self, row: dict[str, Any]) -> None:
        refuses("is no response but says where one stands", {"prompt": ASKED, **row})

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"responses": ["Yes", "No"]},
            {"answers": ["1"]},
            {"option_a": "x", "option_b": "y"},
            {"A": None, "B": None, "1": 0.9, "0": 0.1, "Yes": 0.9, "No": 0.1},
            {"answer_scores": {"A": 1, "B": 0, "1": 0.9, "0": 0.1, "Yes": 1, "No": 0}},
        ],
    )
    def test_short_answers_stay_answers(self, more: dict[str, Any]) -> None:
        answers = [("1", "0"), ("A", "B"), ("Yes", "No")]
        for chosen, rejected in answers if "responses" not in more else answers[2:]:
            assert read({"prompt": ASKED, "chosen": chosen, "rejected": rejected, **more}) == [
                [chosen, rejected]
            ]

    @pytest.mark.parametrize(
        "candidates",
        [
            {"completions": [{"response": "A", "model": "x"}, {"response": "B", "model": "y"}]},
            {"responses": [{"text": "A", "score": 1}, {"text": "B", "score": 2}]},
            {"generations": [[{"role": "assistant", "content": text}] for text in "AB"]},
            {"generations": ["A.", "B."]},
        ],
    )
    def test_the_texts_of_candidates_are_responses(self, candidates: dict[str, Any]) -> None:
        assert read({"prompt": ASKED, "chosen": "A", "rejected": "B", **candidates}) == [["A", "B"]]


class TestWords:
    @pytest.mark.parametrize("mark", ["ab", "12", "01", "AB"])
    @pytest.mark.parametrize(
        "word",
        [
            "{}",
            "[[{}]]",
            "Response {} is better",
            "{}-is-slightly-better",
            "I strongly prefer response {}",
            "model_{} wins",
            "The second response is much better.",
            "{} is better than {other}",
            "{}>>{other}",
            "response_{}",
            "{other} < {}",
        ],
    )
    def test_sentences(self, mark: str, word: str) -> None:
        verdict = word.format(mark[1], other=mark[0])
        assert read(sides(mark, verdict=verdict)) == [[BAD, GOOD]]

    @pytest.mark.parametrize(
        "word",
        [
            "tie",
            "A=B",
            "both are bad",
            "About the same",
            "equally good",
            "no winner",
            "tie (bothbad)",
            "Neither",
            "both responses are equally good",
            "It's a tie.",
            "both_bad",
            "similar quality",
            "neither is better",
        ],
    )
    def test_ties(self, word: str) -> None:
        assert load_examples([sides(winner=word)])[0].columns["tie"] is True

    @pytest.mark.parametrize(
        "word",
        [
            "Both are good, but A is better.",
            "Neither is great, but B is better",
            "Tie-breaker: A",
            "Both A",
            "Equal in tone, but A wins",
            "Similar, slightly prefer A",
            "the same, except B is shorter",
            "both agree",
            "similarity",
            "equality",
            "tier 1",
            "A!=B",
        ],
    )
    def test_words_of_a_tie_that_say_more_are_none(self, word: str) -> None:
        refuses("names none of the two", sides(winner=word))

    @pytest.mark.parametrize(
        ("mark", "words"),
        [
            ("ab", ["A更差", "A 差", "不是A", "A أسوأ", "A 👎", "!A", "A?", "A->B", "A<-B", "A≈B", "b хуже"]),
            ("12", ["回答1较差", "ответ 2 хуже", "不是2", "1 ❌", "¬1", "2 ÷ 1"]),
        ],
    )
    def test_words_and_signs_of_any_script_have_to_be_known(self, mark: str, words: list[str]) -> None:
        for word in words:
            for name in ("winner", "annotator1"):
                refuses(f"row 1, field '{name}': found ", sides(mark, **{name: word}))

    @pytest.mark.parametrize("names", [("文心", "通义"), ("Лама", "Яндекс"), ("gpt-4", "gpt-4+")])
    def test_writers_have_names_of_any_script(self, names: tuple[str, str]) -> None:
        row = sides(model_a=names[0], model_b=names[1])
        for verdict in ({"winner": names[1]}, {"chosen": names[1], "rejected": names[0]}):
            assert read(row | verdict) == [[BAD, GOOD]]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("Response a is worse", "names none of the two"),
            ("Response 2", "names none of the two"),
            ("C", "names none of the two"),
            (True, "does not say whether the first response is meant or the second"),
            ("false", "does not say whether"),
            *((word, "tables write for nothing, which is no tie") for word in ("None", "nan", "NULL", "N/A")),
        ],
    )
    @pytest.mark.parametrize("name", ["winner", "label", "preference", "better_response_id"])
    def test_other_words_are_refused(self, name: str, value: Any, message: str) -> None:
        refuses(f"row 1, field '{name}': found .*{message}", sides(**{name: value}))

    def test_a_c_is_a_tie_beside_a_and_b(self) -> None:
        examples = load_examples([sides(winner=word) for word in "ABC"])
        assert [example.columns["tie"] for example in examples] == [False, False, True]

    def test_a_word_that_names_both_says_nothing(self) -> None:
        row = {"prompt": ASKED, "response_a": "b", "response_b": "a", "winner": "b"}
        refuses("field 'winner': found 'b'", row)

    def test_a_number_may_be_that_of_a_response(self) -> None:
        assert read(sides(id_a=11, id_b=12, winner_id=12)) == [[BAD, GOOD]]
        refuses("field 'winner_id': found 2", sides("12", id_1=2, id_2=1, winner_id=2))


class TestVotes:
    def test_words(self) -> None:
        example = load_examples([sides(annotator_1="B", annotator_2="A", annotator_3="B")])[0]
        assert said(example) == [BAD, GOOD]
        assert example.columns["preference"] == pytest.approx(2 / 3)
        assert not example.unread

    def test_one_who_has_not_voted_is_noted(self) -> None:
        example = load_examples([sides("12", annotator1=2, annotator2=None, annotator3=2)])[0]
        assert said(example) == [BAD, GOOD]
        assert example.notes == ("annotator2 cast no vote",)
        refuses("row 2, .*no votes", sides("12", annotator1=2), sides("12", annotator1=None))

    @pytest.mark.parametrize(
        ("mark", "votes"), [("01", (0, 1)), ("01", (0, 1, 2)), ("ab", (0, 1)), ("ab", (1,))]
    )
    def test_numbers_that_may_count_from_0(self, mark: str, votes: tuple[int, ...]) -> None:
        refuses(
            "field 'annotator1': found .*from 0 or from 1", *(sides(mark, annotator1=vote) for vote in votes)
        )

    @pytest.mark.parametrize("names", [{"annotator1": "B"}, {"annotator1": "Ann"}, {"annotator1": 17}])
    @pytest.mark.parametrize(
        "verdict", [{"score_a": 2, "score_b": 1}, {"preference_strength": -2}, {"winner": "a"}]
    )
    def test_beside_another_verdict_names_and_numbers_of_people_are_none(
        self, names: dict[str, Any], verdict: dict[str, Any]
    ) -> None:
        example = load_examples([sides(**names, **verdict)])[0]
        assert said(example) == [GOOD, BAD]
        assert (example.votes, example.unread) == ({}, ("annotator1",))

    def test_columns_are_votes_where_all_rows_have_some(self) -> None:
        rows = [sides("12", annotator1=1, winner="1"), sides("12", annotator1=17, winner="2")]
        examples = load_examples(rows)
        assert [said(example)[0] for example in examples] == [GOOD, BAD]
        assert examples[0].unread == ("annotator1",)
        assert load_examples(rows[:1])[0].votes == {"annotator1": 1.0}

    @pytest.mark.parametrize("winner", ["response_2", 2, "tie"])
    def test_votes_against_a_verdict_are_refused(self, winner: Any) -> None:
        refuses("row 1, field 'winner': found .*beside other votes", sides("12", annotator1=1, winner=winner))

    def test_a_row_without_the_votes_of_the_others_is_refused(self) -> None:
        scored = {"score_1": 1, "score_2": 2}
        refuses("row 2, .*no votes", sides("12", annotator1=1, **scored), sides("12", **scored))

    def test_of_a_pair(self) -> None:
        assert load_examples([pair(annotator1=1), pair(annotator1="Ann")])[0].votes == {}
        assert load_examples([pair(annotator1=0, annotator2=1)])[0].unread == ("annotator1", "annotator2")
        assert load_examples([pair(annotator1=2, annotator2=1)])[0].votes == {
            "annotator1": 0,
            "annotator2": 1,
        }


class TestColumnsOfPairs:
    @pytest.mark.parametrize(
        "more",
        [{name: "tie"} for name in ("winner", "label", "status", "preference")]
        + [{"is_tie": True}, {"tie": True}, {"winner": "both good"}],
    )
    def test_a_tie_is_left_out_and_counted(self, more: dict[str, Any]) -> None:
        examples = arrange(load_examples([pair(), pair(**more)]), PAIR)
        assert len(examples) == 1
        assert examples.dropped == {"ties": 1}

    def test_a_column_that_calls_ties_tells_of_all(self) -> None:
        examples = load_examples([pair(status=status) for status in ("tie", "unchanged")])
        assert [example.columns["tie"] for example in examples] == [True, False]
        assert load_examples([pair(status="unchanged")])[0].unread == ("status",)

    @pytest.mark.parametrize(
        "more",
        [
            {"agreement": "both agree"},
            {"label": "similarity"},
            {"labels": "ties"},
            {"status": "same"},
            {"outcome": "Equal to gold"},
            {"result": "tier 1"},
            {"agreement": "both good"},
        ],
    )
    def test_other_words_in_columns_that_are_not_named_for_verdicts_are_none(
        self, more: dict[str, Any]
    ) -> None:
        (example,) = load_examples([pair(**more)])
        assert "tie" not in example.columns
        assert example.unread == tuple(more)

    def test_a_response_is_no_tie(self) -> None:
        row = {"prompt": ASKED, "preferred": "Same here.", "non_preferred": BAD}
        assert "tie" not in load_examples([row])[0].columns

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"preference": 3}, "field 'preference': found 3. Expected a number of at least 0 and at most 1"),
            ({"preference": -0.5}, "field 'preference': found -0.5"),
            ({"weight": -1}, "field 'weight': found -1. Expected a number of at least 0"),
            ({"flip_rate": 1.5}, "field 'flip_rate'"),
            ({"chosen_win_rate": 2, "rejected_win_rate": 0}, "field 'chosen_win_rate'"),
            ({"chosen_uncertainty": -2, "rejected_uncertainty": 0}, "field 'chosen_uncertainty'"),
        ],
    )
    def test_numbers_lie_where_their_column_has_them(self, more: dict[str, Any], message: str) -> None:
        refuses(f"row 2, {message}", pair(**dict.fromkeys(more, 0.5)), pair(**more))

    def test_a_place_is_no_share(self) -> None:
        for number in (1, 2):
            examples = load_examples([pair(preference=1), pair(preference=2), pair(preference=number)])
            assert examples[2].unread == ("preference",)
        refuses("not read: preference", {"prompt": ASKED, "responses": [GOOD, BAD], "preference": 1})

    def test_a_share_for_the_rejected_response_is_noted(self) -> None:
        (note,) = load_examples([pair(preference=0.2)])[0].notes
        assert note == "preference is 0.2: more annotators prefer the rejected response"


def test_a_conversation_without_a_message_is_refused() -> None:
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}]
    for name in ("conversation_a", "conversation_b"):
        row = {"conversation_a": turns, "conversation_b": turns, "winner": "a"}
        refuses(f"field '{name}': .*no assistant message", {**row, name: []})


class TestLists:
    def test_steps_of_one_answer_are_no_rivals(self) -> None:
        row = {"prompt": ASKED, "completions": ["2+2=4", "4+1=6"], "labels": [True, False], "scores": [1, 2]}
        refuses("field 'completions': labels stand beside it, so that it holds the steps", row)
        (example,) = load_examples([row], columns={"label": "labels"})
        assert [response.columns["label"] for response in example.responses] == [1.0, -1.0]

    def test_columns_that_are_not_read_are_named(self) -> None:
        row = {"prompt": ASKED, "all_generated_responses": [BAD, GOOD], "all_rm_scores": [0.1, 0.4]}
        refuses("nothing tells apart.*not read: all_rm_scores; --columns scores=COLUMN", row)
        (example,) = arrange(load_examples([row], columns={"scores": "all_rm_scores"}), PAIR)
        assert said(example) == [GOOD, BAD]

    @pytest.mark.parametrize("name", ["choice", "best"])
    def test_a_place_that_may_count_from_1(self, name: str) -> None:
        rows = [{"prompt": ASKED, "responses": [GOOD, BAD], name: place} for place in (1, 0)]
        refuses(f"field '{name}': found 1; the first rows have no 0.*choices_index={name} ", rows[0])
        assert read(*rows) == [[BAD, GOOD], [GOOD, BAD]]
        assert read(rows[0], choices_index=name) == [[BAD, GOOD]]
