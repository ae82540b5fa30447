"""The responses of a row that are compared: the fields that hold them, told apart by a mark in their names,
and the words by which a verdict names one of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from prefero.data.formats.fields import SAID, Fields, Habits, as_list, is_blank, number_of, spelled
from prefero.data.schema import GIVEN

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

ONE_HOT = ("winner_model", "winner", "wins")
SCORES = ("score", "orig_score", "rating", "reward", "overall_score", "votes", "upvotes")
WRITERS = ("model", "generator", "writer", "author", "policy", "model_name", "id")
"""What each response may have in a field of its own that a verdict may name it by."""

IN_LISTS = ("models", "model_names", "generation_models", "completion_models", "writers", "ids")
"""Fields that may hold this for all responses."""

LISTS = (
    "completions",
    "responses",
    "generations",
    "answers",
    "candidates",
    "outputs",
    "summaries",
    "candidates_completions",
    "all_generated_responses",
)
"""Fields that hold several responses in a list."""

VALUES = frozenset(
    name for spec in GIVEN.values() if spec.axes == "example response" for name in spec.fields
) | {"overall_score", "annotations"}
"""What tells how good each response of a list is, beside the list or in its items."""

MARKS = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"))
"""The marks of two responses that are compared."""

_STEMS = (
    "(?:response|answer|output|completion|generation|reply|summary|text|candidate|conversation|human_ref)s?"
)
_MARK = r"(\d{1,2}|[a-jA-J])"
NAMES = (
    re.compile(rf"((?:orig_)?{_STEMS}[ _-]?(?:(?:model|assistant)_)?){_MARK}((?:_body|_text)?)"),
    re.compile(rf"((?:(?:model|assistant)_)?){_MARK}([ _-]{_STEMS})"),
)
"""The name of one of several responses, told apart by a letter or a number."""

SPEAKERS = (re.compile(rf"((?:assistant|chatbot|bot|ai)[ _-]?){_MARK}()"),)
"""The same where only another column shows that a response is meant: it may hold who wrote one."""

USUAL = re.compile("response|answer|output|completion|generation|reply|candidate|conversation|human_ref")

LONGEST = 80
"""Characters of a text that may name a response."""

LETTERS = "abcdefghij"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SIDES = ("left", "right")

_NOUN = (
    "(?:response|answer|output|completion|assistant|model|candidate|option|summary|text|generation|reply|"
    "conversation|chatbot|system)"
)
_DEGREE = (
    "(?:slightly|much|clearly|significantly|strongly|far|marginally|somewhat|definitely|moderately|way|"
    "a bit|a little|a lot)"
)
_LEAD = "(?:(?:prefers?|preferred|winner|wins?|choose|chose|chosen|better|best|selected|verdict)(?: is)?)"
_BETTER = "(?:better|best|preferred|superior|winner|wins?|won|chosen|favou?red)"

_QUALITY = (
    "(?:good|great|fine|ok|okay|bad|poor|terrible|right|correct|wrong|incorrect|helpful|unhelpful|"
    "acceptable|unacceptable|safe|unsafe)"
)
_ALIKE = (
    rf"(?:(?:about|roughly|nearly|almost|exactly) )*(?:the )?(?:equal|same|similar|tied|"
    rf"(?:equally|similarly) {_QUALITY})(?: quality)?"
)
TIE = re.compile(
    rf"(?:(?:it s|it is) )?(?:a )?(?:tie|tied|draw)(?: (?:both ?)?(?:are )?(?:equally )?{_QUALITY})?|"
    rf"both{_QUALITY}|"
    rf"(?:both|neither)(?: (?:of them|{_NOUN}s?))?(?: (?:is|are))?(?: (?:{_QUALITY}|{_ALIKE}))?|"
    rf"neither(?: (?:one|{_NOUN}))? is {_BETTER}|"
    rf"(?:they )?(?:are )?{_ALIKE}|no (?:preference|difference|winner)"
)
"""A tie, in words between single spaces: a statement of nothing else."""

HARMLESS = r"\s.,:;()\[\]{}*#_`\"'“”‘’\-"
"""The characters between words that do not change what they say."""

ORDER = re.compile(rf"([{HARMLESS}\w]+?)(?<!-)(>+|<+)(?!-)([{HARMLESS}\w]+)")
EQUAL = re.compile(rf"([{HARMLESS}\w]+?)=+([{HARMLESS}\w]+)")
"""Signs between two responses that say which of them is better, or that none is."""


@dataclass(frozen=True, slots=True)
class Family:
    """The fields of responses that are compared, and the marks that tell their names apart, in order."""

    names: tuple[str, ...]
    marks: tuple[str, ...]

    @property
    def usual(self) -> bool:
        """Whether responses alone have such names; a text or a summary may be part of the prompt."""
        return bool(USUAL.search(self.names[0]))

    def beside(self, stem: str) -> tuple[tuple[str, ...], ...]:
        """The ways to name a field of each: ``score_0``, ``score0``, ``0_score``, ``response_0_score``."""
        return _beside(self, stem)


@lru_cache
def _beside(family: Family, stem: str) -> tuple[tuple[str, ...], ...]:
    ways = ("{stem}_{mark}", "{stem}{mark}", "{stem} {mark}", "{stem}-{mark}", "{mark}_{stem}")
    by_mark = (tuple(way.format(stem=stem, mark=mark) for mark in family.marks) for way in ways)
    return (*by_mark, tuple(f"{name}_{stem}" for name in family.names))


@lru_cache
def families(names: tuple[str, ...], patterns: tuple[re.Pattern[str], ...] = NAMES) -> tuple[Family, ...]:
    """The families among the fields: of two responses with the marks of :data:`MARKS`, or of more."""
    found: dict[tuple[int, str, str, bool, bool], list[tuple[str, str]]] = {}
    for name in names:
        for number, pattern in enumerate(patterns):
            if match := pattern.fullmatch(name):
                before, mark, behind = match.groups()
                kind = (number, before, behind, mark.isdecimal(), mark.isupper())
                found.setdefault(kind, []).append((mark, name))
                break
    complete = []
    for members in found.values():
        in_order = sorted(members, key=lambda member: (len(member[0]), member))
        family = Family(tuple(name for _, name in in_order), tuple(mark for mark, _ in in_order))
        if len(members) > 2 or family.marks in MARKS:
            complete.append(family)
    return tuple(complete)


def rivals(names: Iterable[Any], habits: Habits) -> Sequence[Family]:
    """The families that may be the responses: one where the names or the verdicts of the first rows tell.

    A verdict that names a field tells; one that is a mark, and scores beside, tell unless usual names of
    responses speak for another family.
    """
    names = tuple(dict.fromkeys((*habits.names, *map(str, names))))
    found = families(names)
    if len(found) < 2:
        return found
    words = {_spaced(word) for name in CHOICES for word in habits.words.get(name, ())}
    named = [family for family in found if words & set(map(_spaced, family.names))]
    if len(named) == 1:
        return named
    usual = [family for family in found if family.usual]
    fitting = [family for family in found if _fits(family, names, words, habits)]
    told = [family for family in found if family in (usual or found) and family in (fitting or found)]
    return told or found


def _fits(family: Family, names: Collection[str], words: Iterable[str], habits: Habits) -> bool:
    """Whether verdicts of the first rows have the marks of a family, or scores stand beside its fields."""
    own = set(map(_spaced, family.marks))
    if any(own & set(word.split()) and place_of(word, family) is not None for word in words):
        return True
    marks = {float(mark) for mark in family.marks if mark.isdecimal()}
    for numbers in (habits.numbers.get(name, frozenset()) for name in CHOICES):
        if numbers & marks and numbers - {0} <= marks:
            return True
    return any(set(beside) <= set(names) for stem in (*SCORES, *ONE_HOT) for beside in family.beside(stem))


def refuse_several(fields: Fields, found: Sequence[Family]) -> NoReturn:
    """Raises :class:`PreferoError` for a row in which several families may be the responses."""
    one, other = sorted(found[:2], key=lambda family: not family.usual)
    remedy = "one of them alone: leave the others out with map (data.map)"
    if len(one.names) == len(other.names):
        columns = ",".join(f"{new}={old}" for new, old in zip(other.names, one.names, strict=True))
        remedy += f"; --columns {columns} (data.columns in a recipe) reads the former"
    fields.contradict(
        one.names[0],
        f"{' and '.join(one.names)} may be the responses, or {' and '.join(other.names)}",
        remedy,
    )


def place_of(value: Any, family: Family, aliases: Sequence[Collection[Any]] = ()) -> int | None:
    """The place in the family of the response that a word or sentence names, None if it names none, or more.

    ``aliases`` are further names of each response, such as its writer's.
    """
    text = str(value)
    named = {place for place, own in enumerate(aliases) if text in own}
    if len(text) <= LONGEST:
        if order := ORDER.fullmatch(text):
            better, worse = (order[1], order[3]) if order[2][0] == ">" else (order[3], order[1])
            places = [place_of(side, family, aliases) for side in (better, worse)]
            return places[0] if None not in places and places[0] != places[1] else None
        said = _spaced(text)
        names = (_spaced(name).replace(" ", "") for name in family.names)
        named |= {place for place, name in enumerate(names) if name == said.replace(" ", "")}
        named |= {place for place, own in enumerate(_sentences(family.marks)) if own.fullmatch(said)}
        named |= {place for place, own in enumerate(aliases) if said and said in own}
    return named.pop() if len(named) == 1 else None


def has_name(value: Any, aliases: Sequence[Collection[Any]]) -> bool:
    """Whether a value is one of the further names of a response, such as its number."""
    return any(_spaced(value) in own for own in aliases)


def is_tie(value: Any, family: Family, words: Iterable[str]) -> bool:
    """Whether words say that two responses are equally good. ``words`` are those of the column: a C is a tie
    as the third answer beside A and B alone."""
    text = str(value)
    if len(text) > LONGEST:
        return False
    if equal := EQUAL.fullmatch(text):
        return {place_of(side, family) for side in equal.groups()} == {0, 1}
    return says_tie(text) or (_spaced(text) == "c" and bool({"a", "b"} & set(map(_spaced, words))))


def says_tie(text: str) -> bool:
    """Whether words call two responses equally good."""
    return len(text) <= LONGEST and bool(TIE.fullmatch(_spaced(text)))


def writers_of(values: Mapping[str, Any], family: Family) -> list[set[str]]:
    """The names of each response that stand in fields beside it: who wrote it, or what its number is."""
    own: list[set[str]] = [set() for _ in family.names]
    for names in (names for stem in WRITERS for names in family.beside(stem)):
        for place, name in enumerate(names):
            if not is_blank(values.get(name)):
                own[place].add(_spaced(values[name]))
    for held in (values.get(name) for name in IN_LISTS):
        if isinstance(held, list | tuple) and len(held) == len(own):
            for place, name in enumerate(held):
                own[place].add(_spaced(name))
    return own


def told_by(values: Mapping[str, Any]) -> Habits:
    """The numbers and words of the verdicts in one row."""
    held = {name: values[name] for name in CHOICES if not is_blank(values.get(name))}
    numbers = {
        name: frozenset((number,)) for name, value in held.items() if (number := number_of(value)) is not None
    }
    words = {name: frozenset((value,)) for name, value in held.items() if isinstance(value, str)}
    return Habits(numbers=numbers, words=words)


def listed(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of responses that a row has; text that spells one counts, and a table of its objects."""
    return {name: held for name in LISTS if (held := as_list(values.get(name)))}


def list_of_responses(fields: Fields) -> str:
    """The field with the list of responses: of several the one that has as many items as the scores or ranks,
    or whose items have their own. Raises :class:`PreferoError` where that does not tell."""
    held = listed(fields.values)
    if len(held) < 2:
        return next(iter(held), fields.first(LISTS) or LISTS[0])
    lengths = {
        len(value)
        for name in VALUES
        if isinstance(value := spelled(v) if isinstance(v := fields.look(name), str) else v, list | tuple)
    }
    judged = {
        name
        for name, items in held.items()
        if all(isinstance(i, Mapping) and {*i} & {*VALUES} for i in items)
    }
    told = judged or {name for name, items in held.items() if len(items) in lengths}
    if len(told) != 1:
        one, other = list(held)[:2]
        fields.contradict(
            one,
            f"{one} may be the responses, or {other}",
            f"one list alone: --columns {other}={one} (data.columns in a recipe) reads the former, "
            f"--columns {one}={other} the latter",
        )
    return told.pop()


def named_elsewhere(values: Mapping[str, Any], sides: Sequence[Any]) -> str:
    """Where the responses stand of which each side names one, by field, key, mark, place, number or writer;
    empty where the sides are responses themselves, such as those that stand there again."""
    words = [str(side).strip() for side in sides]
    if any(len(word) > LONGEST for word in words) or words[0] == words[1]:
        return ""
    said = set(map(_spaced, words))
    if all(_may_be_response(values.get(word)) for word in words):
        return ", ".join(words)
    for name, held in values.items():
        held = held if isinstance(held, Mapping) and USUAL.search(str(name)) else {}
        if {_spaced(key) for key, value in held.items() if _may_be_response(value)}.issuperset(said):
            return str(name)
    names = tuple(map(str, values))
    for family in (*families(names), *families(names, SPEAKERS)):
        items = [values.get(name) for name in family.names]
        if not _say(items, words) and _name_each(words, family, writers_of(values, family)):
            return ", ".join(family.names)
    for name, items in listed(values).items():
        if len(items) < 2 or _say(items, words):
            continue
        names = tuple(f"{name}[{place}]" for place in range(len(items)))
        counted = [
            Family(names, tuple(str(place + first) for place in range(len(items)))) for first in (0, 1)
        ]
        own = writers_of(values, counted[0])
        for place, item in enumerate(items):
            if isinstance(item, Mapping):
                told = (value for key, value in item.items() if not _is_said_under(key))
                own[place] |= {_spaced(value) for value in told if isinstance(value, str | int)}
        if any(_name_each(words, family, own) for family in counted):
            return name
    return ""


def _may_be_response(value: Any) -> bool:
    """Whether a value says something, as a response does and a score does not."""
    return (
        isinstance(value, str | list | tuple | Mapping) and not is_blank(value) and number_of(value) is None
    )


def _say(items: Sequence[Any], words: Sequence[str]) -> bool:
    """Whether one of several responses is one of the words."""
    return any(_spaced(word) in {_spaced(text) for item in items for text in _texts(item)} for word in words)


def _is_said_under(key: Any) -> bool:
    """Whether an object holds under a key what a response says."""
    return key in (*SAID, "message", "messages") or bool(USUAL.search(str(key)))


def _texts(item: Any) -> list[str]:
    """The texts of a response, also of its messages and in an object, and nothing else that stands there."""
    if isinstance(item, Mapping):
        return [text for key, held in item.items() if _is_said_under(key) for text in _texts(held)]
    if isinstance(item, list | tuple):
        return [text for part in item for text in _texts(part)]
    return [item] if isinstance(item, str) else []


def _name_each(words: Sequence[str], family: Family, aliases: Sequence[Collection[str]]) -> bool:
    """Whether each word names another one of the responses, by its place too."""
    if all(word.isdecimal() and int(word) <= len(family.names) for word in words):
        return True
    places = [place_of(word, family, aliases) for word in words]
    return None not in places and len(set(places)) == len(places)


@lru_cache
def _sentences(marks: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """For each response the sentences that call it the better one: ``a``, ``model a``, ``prefer a``, ``the
    first one is slightly better than the second``."""
    named = []
    for place, mark in enumerate(marks):
        own = {mark.lower(), LETTERS[place] if mark.isdecimal() and place < len(LETTERS) else mark.lower()}
        ways = [f"(?:the )?(?:{_NOUN} ?)?(?:{'|'.join(sorted(own))})"]
        if place < len(ORDINALS):
            ordinals = [ORDINALS[place], *([SIDES[place]] if len(marks) == 2 else [])]
            ways.append(f"(?:the )?(?:{'|'.join(ordinals)})(?: one| {_NOUN})?")
            ways += [f"(?:{_NOUN} )?{COUNTS[place]}"] if marks[0] != "0" else []
        named.append(f"(?:{'|'.join(ways)})")
    sentences = []
    for place, own_name in enumerate(named):
        others = "|".join(name for other, name in enumerate(named) if other != place)
        sentences.append(
            re.compile(
                rf"(?:i )?(?:{_DEGREE} )*(?:{_LEAD} )?(?:{_DEGREE} )*{own_name}(?: (?:is|was))?(?: the)?"
                rf"(?: {_DEGREE})*(?: {_BETTER}(?: one| {_NOUN})?)?(?: (?:than|over) (?:{others}))?"
            )
        )
    return tuple(sentences)


def _spaced(value: Any) -> str:
    """The words of a text in small letters, of any script, and every sign that may mean something, single
    spaces between them; a whole number as such."""
    number = number_of(value)
    if number is not None and number == int(number):
        return str(int(number))
    return " ".join(re.findall(rf"[^\W_]+|[^\w{HARMLESS}]", str(value).lower()))
