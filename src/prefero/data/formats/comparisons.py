"""Two responses to one prompt, and what says which of them is the better one: votes, a choice, a strength
with its sign, or scores. Ties are kept as such."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from prefero.data.examples import Example, Response
from prefero.data.formats.candidates import (
    CHOICES,
    LISTS,
    MARKS,
    ONE_HOT,
    SCORES,
    Family,
    families,
    has_name,
    is_tie,
    list_of_responses,
    place_of,
    refuse_several,
    rivals,
    told_by,
    writers_of,
)
from prefero.data.formats.conversations import read_sides, with_responses
from prefero.data.formats.fields import Fields, Layout, is_blank, number_of, spelled
from prefero.data.formats.names import SINGLE, is_nothing
from prefero.data.formats.responses import as_response

ANNOTATOR = re.compile(r"annotator_?\d+")
VOTES = {0: 0.5, 1: 1.0, 2: 0.0}
"""The votes that annotators cast, as preferences for the first of two responses."""

OPPOSITES = {"chosen": "rejected", "winner": "loser", "better": "worse", "preferred": "non_preferred"}
"""Fields that say which response is the worse one, beside those that say which is the better."""

STRENGTHS = ("preference_strength", "overall_preference", "strength")
SIGNED = {
    "overall_preference": ("individual_preference", "domain"),
    "preference_strength": ("preference_statement", "preference_elaboration", "all_preferences_unprocessed"),
}
"""Strengths whose signs are known by other fields of the row: those of HelpSteer 3 and 2."""
BOTH_SCORES = ("scores", "score", "ratings", "rating", "rewards")
"""Fields that may hold the scores of both in a list."""

LABELS = ("label", "labels")
"""Fields that choose a response, or tell something else."""

TIES = ("winner_tie", "tie", "is_tie")

AUTO_J = ("response 1", "response 2")
"""Auto-J's fields, which count from 1 what its labels count from 0."""

SHP = re.compile("human_ref.*")
"""SHP's fields, beside which ``labels`` is 1 where the first is preferred."""

FROM_0 = {0.0: 1.0, 1.0: 0.0, 0.5: 0.5}
FROM_0_WITH_TIES = {0.0: 1.0, 1.0: 0.0, 2.0: 0.5}
FROM_1 = {1.0: 1.0, 2.0: 0.0, 0.0: 0.5}
"""Preferences for the first response, by the number of the better one."""

CHOICE = ("choice", "choices_index", "best", "best_index", "preferred_index", "chosen_index")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much the first of two responses is preferred: 1, 0, 0.5 for a tie, or a share between; the single
    votes; and how strongly the better one is, in steps of the annotators' scale."""

    preference: float
    votes: Mapping[str, float] = field(default_factory=dict)
    strength: float | None = None
    tie: bool = False


def read_comparison(fields: Fields) -> Example:
    """Two responses and a verdict; the better response is the chosen one, the first of equals."""
    family = _compared(fields)
    verdict = next(filter(None, (read(fields, family) for read in VERDICTS)), None)
    if verdict is None:
        _refuse_without_verdict(fields, family)
    first, second = family.names
    if any(isinstance(fields.look(name), bool | int | float) for name in family.names):
        # A bare truth value or number is what an export made of the answer that spelled it.
        sides = [Response(str(fields.require(name, "text"))) for name in family.names]
    else:
        sides = _judged_turns(fields, read_sides(fields, family.names, (None, None)))
    for name, side in zip(family.names, sides, strict=True):
        if side.content == ():
            fields.not_empty(side.content, name)
    scores = _scores(fields, family)
    if scores is not None:
        sides = [
            replace(side, columns={**side.columns, "score": s}) for side, s in zip(sides, scores, strict=True)
        ]
    return _ordered(fields, (first, second), sides, verdict)


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


def _compared(fields: Fields) -> Family:
    """The two responses that are compared, by the columns of all first rows: one may be missing here."""
    found = rivals(fields.values, fields.habits)
    if len(found) > 1:
        refuse_several(fields, found)
    family = found[0] if found else _half(fields.values)
    if family is None:
        fields.fail("response1", "missing", "two responses, such as response1 and response2")
    if len(family.names) > 2:
        held = [at for at, name in enumerate(family.names) if name in fields]
        family = Family(tuple(family.names[at] for at in held), tuple(family.marks[at] for at in held))
        if family.marks not in MARKS:
            fields.fail(
                family.names[-1] if held else "response1",
                f"the row has the responses {', '.join(family.names) or 'none'}",
                "two responses; of more, scores or ranks, or which is the best one, in all of the rows",
            )
    return family


def _half(names: Collection[Any]) -> Family | None:
    """The family of which a row has one response alone."""
    pairs = ([str(name), f"{str(name)[:-1]}{mark}"] for name in names for mark in "012abAB")
    return next((found[0] for pair in pairs if (found := families(tuple(dict.fromkeys(pair))))), None)


def _refuse_without_verdict(fields: Fields, family: Family) -> NoReturn:
    """Raises :class:`PreferoError` for a row in which nothing says which response is the better one."""
    name = fields.first(CHOICES)
    if name is not None:
        _refuse_mark(fields, name, family)
    fields.fail(
        "annotator1",
        "the row has no votes",
        "1, 2 or 0 by one annotator at least, a winner, a preference, or scores of both responses",
    )


def _votes(fields: Fields, family: Family) -> Verdict | None:
    """Single votes, where the annotators' columns have the numbers of votes and nothing else in the first
    rows: other numbers may be those of the annotators, and words their names. Refused where a field calls
    another response the better one."""
    names = _annotators(fields)
    numbers = _numbers(fields, names)
    if not numbers or not are_votes(fields, names) or _may_count_from_0(family, numbers):
        return None
    verdict = _cast(fields, names, family)
    voted = 0.5 if verdict.tie else float(verdict.preference > 0.5)
    for name in (name for name in CHOICES if name in fields and name not in LABELS):
        said = _said(fields, name, family)
        if said == voted:
            fields.get(name)
        elif said is not None:
            fields.contradict(
                name,
                f"found {fields.look(name)!r}, beside other votes in {', '.join(verdict.votes)}",
                "one verdict: if these are the numbers of annotators, or votes that do not count, leave them "
                "out with map (data.map)",
            )
    return verdict


def _other_votes(fields: Fields, family: Family) -> Verdict | None:
    """Whatever stands in the annotators' columns, as votes: nothing else says which response is better."""
    names = _annotators(fields)
    return _cast(fields, names, family) if names else None


def _annotators(fields: Fields) -> list[str]:
    """The annotators' columns of all first rows: a row may lack some."""
    names = dict.fromkeys((*fields.habits.names, *map(str, fields.values)))
    return [name for name in names if ANNOTATOR.fullmatch(name)]


def _numbers(fields: Fields, names: Collection[str]) -> Set[float]:
    return {number for name in names for number in fields.habits.numbers.get(name, ())}


def are_votes(fields: Fields, names: Collection[str]) -> bool:
    """Whether all that the first rows have in these columns are numbers of votes."""
    return _numbers(fields, names) <= set(VOTES) and not any(name in fields.habits.words for name in names)


def _may_count_from_0(family: Family, numbers: Set[float]) -> bool:
    """Whether the numbers of votes may count the responses otherwise than from 1."""
    return family.marks[0] == "0" or (family.marks[0] != "1" and 2 not in numbers)


def _said(fields: Fields, name: str, family: Family) -> float | None:
    """The preference for the first response that a field certainly tells, None where it may be another."""
    number = number_of(fields.look(name))
    if number is None:
        return _meaning(fields, name, family)
    known = _numbering(name, family, fields.habits.numbers.get(name, frozenset()) | {number})
    return None if known is None or name in STRENGTHS else known.get(number)


def _cast(fields: Fields, names: Collection[str], family: Family) -> Verdict:
    """The votes of a row: a tie unless one response has more votes than the other, and more than there are
    for a tie."""
    cast_by = [name for name in names if not is_blank(fields.look(name))]
    if not cast_by:
        _refuse_without_verdict(fields, family)
    if silent := [name for name in names if name in fields.values and name not in cast_by]:
        fields.note(f"{', '.join(silent)} cast no vote")
    votes = {name: _vote(fields, name, family, names) for name in cast_by}
    counts = Counter(votes.values())
    preference = sum(votes.values()) / len(votes)
    better = counts[float(preference >= 0.5)]
    return Verdict(preference, votes, tie=better <= max(counts[0.5], counts[float(preference < 0.5)]))


def _vote(fields: Fields, name: str, family: Family, names: Collection[str]) -> float:
    """An annotator's preference for the first response, told by a word or a number."""
    if number_of(fields.look(name)) is None:
        preference = _meaning(fields, name, family)
        if preference is None:
            return read_vote(fields, name)
        fields.get(name)
        return preference
    first, second = family.names
    if _may_count_from_0(family, _numbers(fields, names)):
        fields.contradict(
            name,
            f"found {fields.look(name)!r}, which may count {first} and {second} from 0 or from 1",
            f"{first}, {second} or tie",
        )
    return read_vote(fields, name)


def read_vote(fields: Fields, name: str) -> float:
    """An annotator's preference for the first response: 1, 0, or 0.5 for a tie."""
    expected = "1 (the first is better), 2 (the second) or 0 (a tie)"
    vote = fields.number(name, expected)
    if vote not in VOTES:
        fields.fail(name, f"found {fields.values[name]!r}", expected)
    return VOTES[int(vote)]


def _one_hot(fields: Fields, family: Family) -> Verdict | None:
    """A mark for each response, and perhaps one for a tie."""
    for stem in ONE_HOT:
        for names in family.beside(stem):
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


def _share(fields: Fields, family: Family) -> Verdict | None:
    """SHP's labels: 1 where the first is preferred, 0 where the second is."""
    if "labels" not in fields or not SHP.fullmatch(family.names[0]):
        return None
    expected = "1 (the first is better), 0 (the second) or 0.5 (a tie)"
    share = fields.number("labels", expected)
    if share not in (0, 0.5, 1):
        fields.fail("labels", f"found {share:g}", expected)
    return Verdict(share)


def _strength(fields: Fields, family: Family) -> Verdict | None:
    """A number whose sign says which is better: below 0 the first."""
    name = next((name for name in STRENGTHS if _is_used(fields, name)), None)
    if name is None or name not in fields.habits.numbers:
        return None
    known = any(companion in fields for companion in SIGNED.get(name, ()))
    if not known and not any(number < 0 for number in fields.habits.numbers[name]):
        if _scores(fields, family) is not None:
            return None
        first, second = family.names
        fields.contradict(
            name,
            "the first rows have no number below 0, so that its sign does not say which response is better",
            f"numbers below 0 where {first} is better, one among the first rows at least; or a column winner "
            f"beside it, with {first}, {second} or tie",
        )
    value = fields.number(name)
    votes = _single_strengths(fields)
    return Verdict(0.5 if value == 0 else float(value < 0), votes, abs(value))


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


def _choice(fields: Fields, family: Family) -> Verdict | None:
    """The better response by its name, its mark, its number or its text.

    A field of such a name that never says which response is meant is something else, such as the number of a
    worker, and is left alone.
    """
    signed = [name for name in STRENGTHS if number_of(fields.look(name)) is not None]
    held = (name for name in CHOICES if _is_used(fields, name) and name not in signed)
    name = next((name for name in held if _tells(fields, name, family)), None)
    if name is None:
        return None
    alone = fields.first(SINGLE)
    if alone is not None and name in LABELS:
        fields.contradict(
            name,
            f"it may be the label of {alone}, or say which of {' and '.join(family.names)} is better",
            f"one of them alone: --columns winner={name} (data.columns in a recipe) compares the two; for a "
            f"label of {alone}, leave the two out with map (data.map)",
        )
    preference = _told(fields, name, family)
    if preference is None:
        _refuse_mark(fields, name, family)
    worse = OPPOSITES.get(name, "")
    if worse in fields and _told(fields, worse, family) not in (1 - preference, None):
        found = f"found {fields.look(worse)!r}, beside {fields.look(name)!r} in {name}"
        fields.fail(worse, found, "the name of the other response")
    size = fields.first(signed)
    strength = None if size is None else abs(fields.number(size))
    return Verdict(preference, _single_strengths(fields), strength)


def _told(fields: Fields, name: str, family: Family) -> float | None:
    """The preference for the first response that a field tells, None where it tells none."""
    number = number_of(fields.get(name))
    if number is None or has_name(number, writers_of(fields.values, family)):
        return _meaning(fields, name, family)
    return _of_number(fields, name, number, family)


def _is_used(fields: Fields, name: str) -> bool:
    """Whether a field holds something, here or in the first rows: then a row without it has no verdict."""
    return name in fields or name in fields.habits.numbers or name in fields.habits.words


def _tells(fields: Fields, name: str, family: Family) -> bool:
    """Whether a field says which response is the better one, in this row or another."""
    numbers, words = fields.habits.numbers.get(name, ()), fields.habits.words.get(name, ())
    if 2 * sum(0 <= number <= 2 for number in numbers) > len(numbers):
        return True
    if _meaning(fields, name, family) is not None:
        return True
    return any(place_of(word, family) is not None or is_tie(word, family, words) for word in words)


def _refuse_mark(fields: Fields, name: str, family: Family) -> NoReturn:
    """Raises :class:`PreferoError` for a verdict that names none of the two responses."""
    value, (first, second), (one, other) = fields.look(name), family.marks, family.names
    why = "which names none of the two responses"
    if isinstance(value, bool) or str(value).strip().lower() in ("true", "false"):
        why = "which does not say whether the first response is meant or the second"
    elif is_nothing(value):
        why = "the word that tables write for nothing, which is no tie"
    fields.fail(
        name,
        f"found {value!r}, {why}",
        f"{first}, {second}, {one}, {other}, who wrote one of them, or tie; or scores of both. "
        "Other words can be changed with map (data.map)",
    )


def _meaning(fields: Fields, name: str, family: Family) -> float | None:
    """The preference for the first response that the words in a field say, None where they say none."""
    value = fields.look(name)
    aliases = writers_of(fields.values, family)
    for own, response in zip(aliases, family.names, strict=True):
        if isinstance(text := fields.look(response), str):
            own.add(text)
    place = place_of(value, family, aliases)
    if place is not None:
        return 1.0 - place
    return 0.5 if is_tie(value, family, fields.habits.words.get(name, ())) else None


def _of_number(fields: Fields, name: str, number: float, family: Family) -> float:
    """The preference for the first response where a field has the number of the better one.

    Fields may count from 1 and their numbers from 0: what the first rows have decides, or nothing does.
    """
    before = fields.habits.numbers.get(name, frozenset())
    known = _numbering(name, family, before | {number})
    first, second = family.names
    if known is None:
        say = fields.fail if _numbering(name, family, before) is None else fields.contradict
        found = ", ".join(f"{n:g}" for n in sorted(before | {number}))
        say(
            name,
            f"found {number:g}; the rows have {found}, so that they may count from 0 or from 1",
            f"{first}, {second} or tie",
        )
    if known is FROM_1 and 1 < number < 2:
        return 2 - number
    if number not in known:
        _refuse_mark(fields, name, family)
    return known[number]


def _numbering(name: str, family: Family, found: Set[float]) -> Mapping[float, float] | None:
    """The meaning of the numbers of a field, None where those that are found do not tell."""
    first = family.marks[0]
    if name == "labels":
        return None
    if name == "label" and family.names == AUTO_J:
        return None if {1, 2} <= found and 0 not in found else FROM_0_WITH_TIES
    if first == "0":
        return None if 2 in found else FROM_0
    if first == "1":
        return None if 0 in found and (name == "label" or 2 not in found) else FROM_1
    return {}


def _by_scores(fields: Fields, family: Family) -> Verdict | None:
    scores = _scores(fields, family)
    if scores is None:
        return None
    return Verdict(0.5 if scores[0] == scores[1] else float(scores[0] > scores[1]))


def _scores(fields: Fields, family: Family) -> tuple[float, float] | None:
    for stem in SCORES:
        for names in family.beside(stem):
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


VERDICTS: tuple[Callable[[Fields, Family], Verdict | None], ...] = (
    _votes,
    _one_hot,
    _share,
    _choice,
    _strength,
    _by_scores,
    _other_votes,
)
"""The ways to say which response is better, the more particular ones first."""


def _holds_comparison(specimen: Mapping[str, Any]) -> bool:
    found = rivals(specimen, told_by(specimen))
    alone = any(isinstance(specimen.get(name), str) for name in SINGLE)
    two = [family for family in found if len(family.names) == 2 and (family.usual or not alone)]
    if "rejected" in specimen and not any(_are_marks(specimen, family) for family in two):
        return False
    voted = any(ANNOTATOR.fullmatch(str(name)) for name in specimen)
    if not found:
        return voted and _half(specimen) is not None
    known = {*CHOICES, *STRENGTHS}
    known |= {
        n for family in two for stem in (*ONE_HOT, *SCORES) for names in family.beside(stem) for n in names
    }
    known |= {name for name in BOTH_SCORES if _are_two(specimen.get(name))}
    return bool(two) and (voted or any(name in known for name in specimen))


def _are_marks(specimen: Mapping[str, Any], family: Family) -> bool:
    """Whether chosen and rejected name the two responses, instead of being them."""
    writers = writers_of(specimen, family)
    return {place_of(specimen.get(name), family, writers) for name in ("chosen", "rejected")} == {0, 1}


def read_choice(fields: Fields) -> Example:
    """Several responses in a list, and the place of the best one, from 0. The others are as good as each
    other."""
    name, choice = list_of_responses(fields), fields.first(CHOICE) or CHOICE[0]
    items = fields.list(name, "a list of responses")
    if len(items) < 2:
        fields.fail(name, f"{len(items)} response", "two responses or more")
    expected = f"the place of the best of {len(items)} responses in {name}, from 0"
    best = fields.number(choice, expected)
    from_0 = name == "summaries" or "index" in choice or 0 in fields.habits.numbers.get(choice, ())
    if not from_0:
        fields.contradict(
            choice,
            f"found {best:g}; the first rows have no 0, so that they may count from 0 or from 1",
            f"{expected}; --columns choices_index={choice} (data.columns in a recipe) says that it is",
        )
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
    fields=("|".join(LISTS), "|".join(CHOICE)),
    without="chosen|rejected",
)
