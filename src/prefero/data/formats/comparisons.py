"""Two responses to one prompt, and what says which of them is the better one: votes, a choice, a strength
with its sign, or scores. Ties are kept as such."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.conversations import read_sides, with_responses
from prefero.data.formats.fields import Fields, Layout
from prefero.data.formats.names import compared_names
from prefero.data.formats.responses import as_response

ANNOTATOR = re.compile(r"annotator_?\d+")
VOTES = {0: 0.5, 1: 1.0, 2: 0.0}
"""The votes that annotators cast, as preferences for the first of two responses."""

IDS = ("better_response_id", "better_id", "preferred_id", "winner_id", "chosen_id")
SHARES = ("labels",)
CHOICES = (
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
)
STRENGTHS = ("preference_strength", "overall_preference", "strength")
SCORES = ("score", "orig_score", "rating", "reward", "overall_score", "votes", "upvotes")
ONE_HOT = ("winner_model", "winner", "wins")
TIES = ("winner_tie", "tie", "is_tie")

FIRST = ("first", "left", "one")
SECOND = ("second", "right", "two")
AUTO_J = ("response 1", "response 2")
"""Auto-J's fields, which count from 1 what its labels count from 0."""

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
        sides = read_sides(fields, compared.names, (None, None))
    scores = _scores(fields, compared)
    if scores is not None:
        sides = [
            replace(side, columns={**side.columns, "score": s}) for side, s in zip(sides, scores, strict=True)
        ]
    return _ordered(fields, compared.names, sides, verdict)


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
            if all(name in fields for name in names):
                first, second = (fields.truth(name, fields.get(name)) for name in names)
                tie = fields.first(TIES)
                tied = bool(tie) and fields.truth(str(tie), fields.get(str(tie)))
                if first + second + tied > 1:
                    fields.fail(names[0], "more than one of the marks is set", "one winner, or a tie")
                if tie and not (first or second or tied):
                    fields.fail(names[0], "none of the marks is set", "one winner, or a tie")
                return Verdict(1.0 if first else 0.0 if second else 0.5)
    return None


def _id(fields: Fields, compared: Compared) -> Verdict | None:
    name = fields.first(IDS)
    return None if name is None else Verdict(_of_mark(fields, name, compared))


def _share(fields: Fields, compared: Compared) -> Verdict | None:
    """SHP's labels: 1 where the first is preferred, 0 where the second is."""
    name = fields.first(SHARES)
    if name is None:
        return None
    expected = "1 (the first is better), 0 (the second) or 0.5 (a tie)"
    share = fields.number(name, expected)
    if share not in (0, 0.5, 1):
        fields.fail(name, f"found {share:g}", expected)
    return Verdict(share)


def _strength(fields: Fields, compared: Compared) -> Verdict | None:
    """A number whose sign says which is better: below 0 the first."""
    name = fields.first(STRENGTHS)
    if name is None or not _is_number(fields.look(name)):
        return None
    value = fields.number(name)
    numbers = fields.habits.numbers.get(name, frozenset())
    if len(numbers) > 1 and min(numbers) > 0:
        fields.fail(
            name,
            "the first rows have numbers above 0 alone, so that their sign does not say which is better",
            "numbers below 0 where the first response is better, or a winner beside them",
        )
    votes = _single_strengths(fields)
    return Verdict(0.5 if value == 0 else float(value < 0), votes, abs(value))


def _single_strengths(fields: Fields) -> dict[str, float]:
    single = fields.look("individual_preference")
    if not isinstance(single, list) or not all(isinstance(item, Mapping) for item in single):
        return {}
    fields.get("individual_preference")
    scores = [item.get("score") for item in single]
    return {
        f"annotator{number}": 0.5 if score == 0 else float(score < 0)
        for number, score in enumerate(scores, start=1)
        if isinstance(score, int | float)
    }


def _choice(fields: Fields, compared: Compared) -> Verdict | None:
    """The better response by its name, its mark or its number."""
    signed = {name for name in STRENGTHS if _is_number(fields.look(name))}
    name = fields.first(name for name in CHOICES if name not in signed)
    if name is None:
        return None
    size = fields.first(name for name in STRENGTHS if name in signed)
    strength = None if size is None else abs(fields.number(size))
    return Verdict(_of_mark(fields, name, compared), _single_strengths(fields), strength)


def _of_mark(fields: Fields, name: str, compared: Compared) -> float:
    """The preference for the first response where a field names the better one."""
    value = fields.get(name)
    first, second = compared.marks
    if not isinstance(value, bool) and _is_number(value):
        return _of_number(fields, name, float(value), compared)
    if order := re.fullmatch(r"(\w)\s*([<>=])[<>=]*\s*(\w)", str(value).strip(" []")):
        better = {">": order[1], "<": order[3], "=": "tie"}[order[2]]
        value = better
    said = _plain(value)
    writers = [_plain(fields.look(f"model_{mark}")) for mark in compared.marks]
    for place, words in enumerate((FIRST, SECOND)):
        mark = compared.marks[place].lower()
        named = {mark, _plain(compared.names[place]), f"model{mark}", f"response{mark}", f"assistant{mark}"}
        wrote = said and said == writers[place] and writers[0] != writers[1]
        if said in {*words, *named, f"answer{mark}", f"output{mark}"} or wrote:
            return 1.0 - place
    if TIE.fullmatch(said):
        return 0.5
    fields.fail(name, f"found {value!r}", f"one of {first}, {second}, or the name of a response, or tie")


def _of_number(fields: Fields, name: str, number: float, compared: Compared) -> float:
    """The preference for the first response where a field has the number of the better one.

    Fields may count from 1 and their numbers from 0: what the first rows have decides, and where they have a
    0 and no 2, nothing does.
    """
    first, second = compared.marks
    found = fields.habits.numbers.get(name, frozenset()) | {number}
    expected = f"one of {first}, {second}, or the name of a response, or tie"
    known: dict[float, float] = {}
    if name == "label" and compared.names == AUTO_J:
        known = {0.0: 1.0, 1.0: 0.0, 2.0: 0.5}
    elif first == "0" and 2 not in found:
        known = {0.0: 1.0, 1.0: 0.0, 0.5: 0.5}
    elif first == "1" and 0 in found and 2 not in found:
        fields.fail(
            name,
            f"found {number:g}; the first rows have a 0 and no 2, so that they may count from 0 or from 1",
            f"{compared.names[0]}, {compared.names[1]} or tie",
        )
    elif first == "1":
        known = {1.0: 1.0, 2.0: 0.0, 0.0: 0.5}
        if 1 < number < 2:
            return 2 - number
    if number not in known:
        fields.fail(name, f"found {number:g}", expected)
    return known[number]


def _plain(value: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value or "").lower())


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


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
    return None


VERDICTS: tuple[Callable[[Fields, Compared], Verdict | None], ...] = (
    _votes,
    _one_hot,
    _id,
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
    known = {*IDS, *SHARES, *CHOICES, *STRENGTHS}
    known |= {name for stem in (*ONE_HOT, *SCORES) for names in compared.beside(stem) for name in names}
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
        fields.fail(choice, f"found {best:g}", expected)
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
