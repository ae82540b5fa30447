"""Two responses to one prompt, and what says which of them is the better one: votes, a choice, a strength
with its sign, or scores. Ties are kept as such."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from prefero.data.examples import Example, Response
from prefero.data.formats.conversations import read_sides, with_responses
from prefero.data.formats.fields import Fields, Layout, number_of, spelled
from prefero.data.formats.names import compared_names
from prefero.data.formats.responses import as_response

ANNOTATOR = re.compile(r"annotator_?\d+")
VOTES = {0: 0.5, 1: 1.0, 2: 0.0}
"""The votes that annotators cast, as preferences for the first of two responses."""

CHOICES = (
    "better_response_id",
    "better_id",
    "preferred_id",
    "winner_id",
    "chosen_id",
    "winner",
    "preference",
    "orig_preference",
    "preferred",
    "overall_preference",
    "choice",
    "better",
    "better_response",
    "preferred_response",
    "verdict",
    "chosen",
    "label",
    "labels",
    "safer_response_id",
)
"""Fields that say which response is the better one, the first that does."""

STRENGTHS = ("preference_strength", "overall_preference", "strength")
SCORES = ("score", "orig_score", "rating", "reward", "overall_score", "votes", "upvotes")
BOTH_SCORES = ("scores", "score", "ratings", "rating", "rewards")
"""Fields that may hold the scores of both in a list."""

ONE_HOT = ("winner_model", "winner", "wins")
TIES = ("winner_tie", "tie", "is_tie")

FIRST = ("first", "left", "one")
SECOND = ("second", "right", "two")
AUTO_J = ("response 1", "response 2")
"""Auto-J's fields, which count from 1 what its labels count from 0."""

SHP = re.compile("human_ref.*")
"""SHP's fields, beside which ``labels`` is 1 where the first is preferred."""

FROM_0 = {0.0: 1.0, 1.0: 0.0, 0.5: 0.5}
FROM_0_WITH_TIES = {0.0: 1.0, 1.0: 0.0, 2.0: 0.5}
FROM_1 = {1.0: 1.0, 2.0: 0.0, 0.0: 0.5}
"""Preferences for the first response, by the number of the better one."""

TIE = re.compile(r"tie.*|both.*|equal.*|draw|neither|same|none|c")
"""A tie in words, or as the third answer beside A and B."""

SUMMARIES = ("summaries", "responses", "completions", "answers", "candidates", "outputs", "generations")
CHOICE = ("choice", "choices_index", "best", "best_index", "preferred_index", "chosen_index")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much the first of two responses is preferred: 1, 0, 0.5 for a tie, or a share between; the single
    votes; and how strongly the better one is, in steps of the annotators' scale."""

    preference: float
    votes: Mapping[str, float] = field(default_factory=dict)
    strength: float | None = None
    tie: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """The fields of two responses, and the marks by which other fields name them."""

    names: tuple[str, str]
    marks: tuple[str, str]

    def beside(self, stem: str) -> list[tuple[str, str]]:
        """The ways to name a field of each: ``score_0``, ``score0``, ``0_score``, ``response_0_score``."""
        first, second = self.marks
        ways = ("{stem}_{mark}", "{stem}{mark}", "{stem} {mark}", "{stem}-{mark}", "{mark}_{stem}")
        named = [(way.format(stem=stem, mark=first), way.format(stem=stem, mark=second)) for way in ways]
        return [*named, (f"{self.names[0]}_{stem}", f"{self.names[1]}_{stem}")]


def read_comparison(fields: Fields) -> Example:
    """Two responses and a verdict; the better response is the chosen one, the first of equals."""
    compared = _compared(fields)
    verdict = next(filter(None, (read(fields, compared) for read in VERDICTS)), None)
    if verdict is None:
        fields.fail(*_no_verdict(fields))
    if any(isinstance(fields.look(name), bool | int | float) for name in compared.names):
        # A bare truth value or number is what an export made of the answer that spelled it.
        sides = [Response(str(fields.require(name, "text"))) for name in compared.names]
    else:
        sides = _judged_turns(fields, read_sides(fields, compared.names, (None, None)))
    scores = _scores(fields, compared)
    if scores is not None:
        sides = [
            replace(side, columns={**side.columns, "score": s}) for side, s in zip(sides, scores, strict=True)
        ]
    return _ordered(fields, compared.names, sides, verdict)


def _judged_turns(fields: Fields, sides: list[Response]) -> list[Response]:
    """The conversations up to the turn that was judged, where they go on behind it, as in MT-bench's rows."""
    turn = fields.look("turn")
    contents = [side.content for side in sides if isinstance(side.content, tuple)]
    if not isinstance(turn, int) or turn < 1 or len(contents) < 2:
        return sides
    judged = []
    for content in contents:
        asked = [place for place, message in enumerate(content) if message["role"] == "user"]
        judged.append(content[: asked[turn]] if turn < len(asked) else content)
    if judged == contents:
        return sides
    fields.get("turn")
    fields.note(f"the conversations are compared up to turn {turn}")
    return [replace(side, content=content) for side, content in zip(sides, judged, strict=True)]


def _ordered(fields: Fields, names: tuple[str, str], sides: list[Response], verdict: Verdict) -> Example:
    """The pair with the better response first. Equal responses are a tie, or say nothing; silence that was
    judged is kept."""
    tie = verdict.tie or verdict.preference == 0.5
    if sides[0].content == sides[1].content and not tie:
        fields.fail(names[1], f"it equals {names[0]}, so there is nothing to compare", "another response")
    swapped = verdict.preference < 0.5
    share = 1 - verdict.preference if swapped else verdict.preference
    votes = {name: 1 - vote if swapped else vote for name, vote in verdict.votes.items()}
    if swapped:
        sides, names = sides[::-1], (names[1], names[0])
    sides = [replace(side, role=role) for side, role in zip(sides, ("chosen", "rejected"), strict=True)]
    columns: dict[str, float | tuple[float, ...]] = {"tie": tie, "preference": share}
    if verdict.strength is not None:
        columns["strength"] = verdict.strength
    example = with_responses(fields, names, sides, conversational=True)
    return replace(example, columns=columns, votes=votes, chosen_second=swapped)


def _compared(fields: Fields) -> Compared:
    named = compared_names(fields.values)
    if named is not None:
        return Compared(named[:2], named[2])
    one = next(
        (n for name in fields.values if (n := compared_names([str(name), *_partners(str(name))]))), None
    )
    if one is None:
        fields.fail("response1", "missing", "two responses, such as response1 and response2")
    return Compared(one[:2], one[2])


def _partners(name: str) -> list[str]:
    """The name with its last number or letter replaced by any that may stand for the other response."""
    return [f"{name[:-1]}{mark}" for mark in "012abAB"]


def _no_verdict(fields: Fields) -> tuple[str, str, str]:
    expected = "1, 2 or 0 by one annotator at least, a winner, a preference, or scores of both responses"
    name = fields.first(CHOICES)
    if name is not None:
        return name, f"found {fields.look(name)!r}, which names none of the two responses", expected
    return "annotator1", "the row has no votes", expected


def _votes(fields: Fields, compared: Compared) -> Verdict | None:
    """Single votes; it is a tie unless one response has more votes than the other, and more than there are
    for a tie."""
    names = [str(name) for name in fields.values if ANNOTATOR.fullmatch(str(name))]
    if not names or (fields.first(CHOICES) and not any(name in fields.habits.numbers for name in names)):
        return None
    votes = {name: read_vote(fields, name) for name in names}
    cast = Counter(votes.values())
    preference = sum(votes.values()) / len(votes)
    better = cast[float(preference >= 0.5)]
    return Verdict(preference, votes, tie=better <= max(cast[0.5], cast[float(preference < 0.5)]))


def read_vote(fields: Fields, name: str) -> float:
    """An annotator's preference for the first response: 1, 0, or 0.5 for a tie."""
    expected = "1 (the first is better), 2 (the second) or 0 (a tie)"
    vote = fields.number(name, expected)
    if vote not in VOTES:
        fields.fail(name, f"found {fields.values[name]!r}", expected)
    return VOTES[int(vote)]


def _one_hot(fields: Fields, compared: Compared) -> Verdict | None:
    """A mark for each response, and perhaps one for a tie."""
    for stem in ONE_HOT:
        for names in compared.beside(stem):
            if any(_is_used(fields, name) for name in names):
                first, second = (fields.truth(name, fields.require(name, "1 or 0")) for name in names)
                tie = fields.first(TIES)
                tied = bool(tie) and fields.truth(str(tie), fields.get(str(tie)))
                if first + second + tied > 1:
                    fields.fail(names[0], "more than one of the marks is set", "one winner, or a tie")
                if tie and not (first or second or tied):
                    fields.fail(names[0], "none of the marks is set", "one winner, or a tie")
                return Verdict(1.0 if first else 0.0 if second else 0.5)
    return None


def _share(fields: Fields, compared: Compared) -> Verdict | None:
    """SHP's labels: 1 where the first is preferred, 0 where the second is."""
    if "labels" not in fields or not SHP.fullmatch(compared.names[0]):
        return None
    expected = "1 (the first is better), 0 (the second) or 0.5 (a tie)"
    share = fields.number("labels", expected)
    if share not in (0, 0.5, 1):
        fields.fail("labels", f"found {share:g}", expected)
    return Verdict(share)


def _strength(fields: Fields, compared: Compared) -> Verdict | None:
    """A number whose sign says which is better: below 0 the first."""
    name = next((name for name in STRENGTHS if _is_used(fields, name)), None)
    if name is None or name not in fields.habits.numbers:
        return None
    value = fields.number(name)
    before = fields.habits.numbers[name]
    if _are_sizes(before | {value}):
        say = fields.fail if _are_sizes(before) else fields.contradict
        say(
            name,
            "the rows have no number below 0, so that their sign does not say which is better",
            "numbers below 0 where the first response is better, or a winner beside them",
        )
    votes = _single_strengths(fields)
    return Verdict(0.5 if value == 0 else float(value < 0), votes, abs(value))


def _are_sizes(numbers: Set[float]) -> bool:
    """Whether strengths hardly have signs: there are several, and none below 0."""
    return min(numbers) >= 0 and len(numbers) > 1 + 2 * (0 in numbers)


def _single_strengths(fields: Fields) -> dict[str, float]:
    single = fields.look("individual_preference")
    if not isinstance(single, list) or not all(isinstance(item, Mapping) for item in single):
        return {}
    fields.get("individual_preference")
    scores = [fields.take("individual_preference", item, "score") for item in single]
    return {
        f"annotator{number}": 0.5 if score == 0 else float(score < 0)
        for number, score in enumerate(scores, start=1)
        if isinstance(score, int | float)
    }


def _choice(fields: Fields, compared: Compared) -> Verdict | None:
    """The better response by its name, its mark, its number or its text.

    A field of such a name that never says which response is meant is something else, such as the number of a
    worker, and is left alone.
    """
    signed = [name for name in STRENGTHS if number_of(fields.look(name)) is not None]
    held = (name for name in CHOICES if _is_used(fields, name) and name not in signed)
    name = next((name for name in held if _tells(fields, name, compared)), None)
    if name is None:
        return None
    number = number_of(fields.get(name))
    if number is None:
        preference = _meaning(fields, fields.look(name), compared)
    else:
        preference = _of_number(fields, name, number, compared)
    if preference is None:
        _refuse_mark(fields, name, compared)
    size = fields.first(signed)
    strength = None if size is None else abs(fields.number(size))
    return Verdict(preference, _single_strengths(fields), strength)


def _is_used(fields: Fields, name: str) -> bool:
    """Whether a field holds something, here or in the first rows: then a row without it has no verdict."""
    return name in fields or name in fields.habits.numbers or name in fields.habits.words


def _tells(fields: Fields, name: str, compared: Compared) -> bool:
    """Whether a field says which response is the better one, in this row or another."""
    numbers, words = fields.habits.numbers.get(name, ()), fields.habits.words.get(name, ())
    if numbers:
        return 2 * sum(0 <= number <= 2 for number in numbers) > len(numbers)
    return any(_meaning(fields, value, compared) is not None for value in (fields.look(name), *words))


def _refuse_mark(fields: Fields, name: str, compared: Compared) -> NoReturn:
    first, second = compared.marks
    fields.fail(
        name, f"found {fields.look(name)!r}", f"one of {first}, {second}, or the name of a response, or tie"
    )


def _meaning(fields: Fields, value: Any, compared: Compared) -> float | None:
    """The preference for the first response that words say, None where they say none."""
    if order := re.fullmatch(r"(\w)\s*([<>=])[<>=]*\s*(\w)", str(value).strip(" []")):
        value = {">": order[1], "<": order[3], "=": "tie"}[order[2]]
    said = _plain(value)
    writers = [_plain(fields.look(f"model_{mark}")) for mark in compared.marks]
    texts = [fields.look(name) for name in compared.names]
    for place, words in enumerate((FIRST, SECOND)):
        mark = compared.marks[place].lower()
        named = {mark, _plain(compared.names[place]), f"model{mark}", f"response{mark}", f"assistant{mark}"}
        wrote = said and said == writers[place] and writers[0] != writers[1]
        is_text = isinstance(value, str) and value == texts[place] != texts[1 - place]
        if said in {*words, *named, f"answer{mark}", f"output{mark}"} or wrote or is_text:
            return 1.0 - place
    return 0.5 if TIE.fullmatch(said) else None


def _of_number(fields: Fields, name: str, number: float, compared: Compared) -> float:
    """The preference for the first response where a field has the number of the better one.

    Fields may count from 1 and their numbers from 0: what the first rows have decides, or nothing does.
    """
    before = fields.habits.numbers.get(name, frozenset())
    known = _numbering(name, compared, before | {number})
    first, second = compared.names
    if known is None:
        say = fields.fail if _numbering(name, compared, before) is None else fields.contradict
        found = ", ".join(f"{n:g}" for n in sorted(before | {number}))
        say(
            name,
            f"found {number:g}; the rows have {found}, so that they may count from 0 or from 1",
            f"{first}, {second} or tie",
        )
    if known is FROM_1 and 1 < number < 2:
        return 2 - number
    if number not in known:
        _refuse_mark(fields, name, compared)
    return known[number]


def _numbering(name: str, compared: Compared, found: Set[float]) -> Mapping[float, float] | None:
    """The meaning of the numbers of a field, None where those that are found do not tell."""
    first = compared.marks[0]
    if name == "labels":
        return None
    if name == "label" and compared.names == AUTO_J:
        return None if {1, 2} <= found and 0 not in found else FROM_0_WITH_TIES
    if first == "0":
        return None if 2 in found else FROM_0
    if first == "1":
        return None if 0 in found and (name == "label" or 2 not in found) else FROM_1
    return {}


def _plain(value: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value or "").lower())


def _by_scores(fields: Fields, compared: Compared) -> Verdict | None:
    scores = _scores(fields, compared)
    if scores is None:
        return None
    return Verdict(0.5 if scores[0] == scores[1] else float(scores[0] > scores[1]))


def _scores(fields: Fields, compared: Compared) -> tuple[float, float] | None:
    for stem in SCORES:
        for names in compared.beside(stem):
            if all(name in fields for name in names):
                first, second = (fields.number(name) for name in names)
                return first, second
    name = next((name for name in BOTH_SCORES if _are_two(fields.look(name))), None)
    if name is None:
        return None
    first, second = (
        fields.as_number(fields.take(name, item, "score") if isinstance(item, Mapping) else item, name)
        for item in fields.list(name, "the scores of both responses")
    )
    return first, second


def _are_two(value: Any) -> bool:
    """Whether a value is a list of two, or text that spells one."""
    value = spelled(value) if isinstance(value, str) else value
    return isinstance(value, list | tuple) and len(value) == 2


VERDICTS: tuple[Callable[[Fields, Compared], Verdict | None], ...] = (
    _votes,
    _one_hot,
    _share,
    _choice,
    _strength,
    _by_scores,
)
"""The ways to say which response is better, the more particular ones first."""


def _holds_comparison(specimen: Mapping[str, Any]) -> bool:
    named = compared_names(specimen)
    if "rejected" in specimen and not (named and _are_marks(specimen, Compared(named[:2], named[2]))):
        return False
    if named is None:
        return any(ANNOTATOR.fullmatch(str(name)) for name in specimen) and any(
            compared_names([str(name), *_partners(str(name))]) for name in specimen
        )
    compared = Compared(named[:2], named[2])
    known = {*CHOICES, *STRENGTHS}
    known |= {name for stem in (*ONE_HOT, *SCORES) for names in compared.beside(stem) for name in names}
    known |= {name for name in BOTH_SCORES if _are_two(specimen.get(name))}
    return any(name in known or ANNOTATOR.fullmatch(str(name)) for name in specimen)


def _are_marks(specimen: Mapping[str, Any], compared: Compared) -> bool:
    """Whether chosen and rejected name the two responses, instead of being them."""
    marks = {*map(_plain, (*compared.marks, *compared.names))}
    return all(_plain(specimen.get(name, "")) in marks for name in ("chosen", "rejected"))


def read_choice(fields: Fields) -> Example:
    """Several responses in a list, and the place of the best one, from 0. The others are as good as each
    other."""
    name, choice = fields.first(SUMMARIES) or SUMMARIES[0], fields.first(CHOICE) or CHOICE[0]
    items = fields.list(name, "a list of responses")
    if len(items) < 2:
        fields.fail(name, f"{len(items)} response", "two responses or more")
    expected = f"the place of the best of {len(items)} responses in {name}, from 0"
    best = fields.number(choice, expected)
    if best not in range(len(items)):
        say = fields.contradict if best == len(items) else fields.fail
        say(choice, f"found {best:g}", expected)
    names = [f"{name}[{place}]" for place in range(len(items))]
    responses = [as_response(fields, item, own) for item, own in zip(items, names, strict=True)]
    if len(items) == 2:
        verdict = Verdict(1 - best)
        return _ordered(fields, (names[0], names[1]), responses, verdict)
    ranked = [
        replace(response, columns={**response.columns, "rank": int(place != best)})
        for place, response in enumerate(responses)
    ]
    return with_responses(fields, names, ranked, conversational=True)


COMPARISONS = Layout(
    "comparisons",
    "prompt or instruction, response1, response2 (or response_a, output_1, answer_0, conversation_a, …) and "
    "annotator1, annotator2, … (1, 2, or 0 for a tie), winner, preference, better_response_id, "
    "preference_strength, or score of each",
    read_comparison,
    holds=_holds_comparison,
)
CHOSEN_OF_LIST = Layout(
    "choices",
    "prompt, post or info.post, summaries (or responses): [{text}, …], and choice, the place of the best",
    read_choice,
    fields=("|".join(SUMMARIES), "|".join(CHOICE)),
    without="chosen|rejected",
)
