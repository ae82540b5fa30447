"""World ``reviews``: short reviews whose worth is what they say, not how long or in which single words.

A prompt says who did what with which item (``"we tried this soup today."``). A review is two to four clauses
about aspects of that item's category, joined by agreement (``, and``) or contrast (``, but``), perhaps with a
closing (``"i would not avoid it."``). No word decides its worth, which is read from the text alone, so that
it scores anything a model writes; a text outside the grammar loses a point.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import dataclass

from prefero.demo.text import TextWorld

WHO = ("i", "we", "they", "she", "he", "friends", "neighbours", "colleagues")
ACTS = ("tried", "got", "chose", "picked", "found", "booked")
DETERMINERS = ("the", "this", "that", "their")
TIMES = ("today", "yesterday", "recently", "tonight", "lately", "twice", "again", "finally")

ITEMS = {
    "food": ("soup", "burger", "pizza", "salad", "curry", "cake"),
    "device": ("phone", "laptop", "camera", "printer", "speaker", "tablet"),
    "stay": ("hotel", "cabin", "hostel", "villa", "apartment", "resort"),
    "story": ("book", "film", "series", "play", "musical", "game"),
}
CATEGORY = {item: category for category, items in ITEMS.items() for item in items}

ASPECTS: dict[str, dict[str, tuple[tuple[str, str], tuple[str, str]]]] = {
    "food": {
        "taste": (("rich", "delicious"), ("bland", "sour")),
        "portion": (("generous", "filling"), ("tiny", "meagre")),
        "texture": (("creamy", "tender"), ("chewy", "soggy")),
        "aroma": (("fragrant", "inviting"), ("stale", "pungent")),
        "sauce": (("tangy", "silky"), ("watery", "greasy")),
    },
    "device": {
        "design": (("sleek", "elegant"), ("bulky", "ugly")),
        "battery": (("lasting", "powerful"), ("weak", "unreliable")),
        "sound": (("crisp", "clear"), ("tinny", "muffled")),
        "setup": (("quick", "simple"), ("confusing", "tedious")),
        "software": (("stable", "smooth"), ("buggy", "sluggish")),
    },
    "stay": {
        "room": (("spacious", "cosy"), ("cramped", "dusty")),
        "bed": (("comfortable", "soft"), ("lumpy", "hard")),
        "view": (("stunning", "scenic"), ("gloomy", "blocked")),
        "staff": (("friendly", "helpful"), ("rude", "careless")),
        "breakfast": (("fresh", "tasty"), ("cold", "burnt")),
    },
    "story": {
        "plot": (("gripping", "clever"), ("predictable", "muddled")),
        "ending": (("moving", "satisfying"), ("abrupt", "hollow")),
        "dialogue": (("witty", "natural"), ("stiff", "clumsy")),
        "pace": (("brisk", "lively"), ("slow", "dragging")),
        "mood": (("warm", "haunting"), ("flat", "dreary")),
    },
}
"""Category → aspect → the (praising, blaming) adjectives that only this aspect takes."""

GENERAL = (("good", "great", "lovely", "excellent"), ("bad", "poor", "awful", "terrible"))
VERBS = ("was", "felt", "seemed", "looked")
STRONG = ("very", "really", "extremely")
HEDGES = ("slightly", "fairly", "somewhat")
CLOSINGS = {"recommend": 1, "repeat": 1, "avoid": -1, "return": -1}

NEGATED, STRENGTHENED, HEDGED = -0.6, 1.4, 0.6
CONTRAST_WEIGHT = 2.0
BROKEN_PENALTY = 1.0

SIGN = {
    word: 1 - 2 * side
    for sides in (GENERAL, *(own for aspects in ASPECTS.values() for own in aspects.values()))
    for side in (0, 1)
    for word in sides[side]
}


def vocabulary() -> tuple[str, ...]:
    """Every word and punctuation mark that prompts and reviews are made of, sorted."""
    aspects = [aspect for of_category in ASPECTS.values() for aspect in of_category]
    rest = ("the", "not", "and", "but", "would", "it", "i", ".", ",")
    words = itertools.chain(WHO, ACTS, DETERMINERS, TIMES, CATEGORY, aspects, SIGN, VERBS, STRONG, HEDGES)
    return tuple(sorted({*words, *CLOSINGS, *rest}))


def prompts(*, held_out: bool) -> list[str]:
    """The prompts of one side of the split, in a fixed order (36,864 in all, a fifth of them held out: those
    whose character codes add up to a multiple of five, so that no word is unseen in training)."""
    every = itertools.product(WHO, ACTS, DETERMINERS, CATEGORY, TIMES)
    texts = (" ".join(words) + "." for words in every)
    return [text for text in texts if (sum(map(ord, text)) % 5 == 0) == held_out]


def write_review(prompt: str, rng: random.Random) -> str:
    """A review of the corpus that the start model learns from: always well formed, worth 0 on average."""
    category = _category(prompt)
    assert category is not None, prompt
    lean = 1 / (1 + math.exp(-2 * rng.gauss(0, 1)))
    count = rng.choice((2, 2, 3, 3, 4))
    aspects = rng.sample(sorted(ASPECTS[category]), count)
    signs = [1 if rng.random() < lean else -1 for _ in aspects]

    text = ""
    for i, (aspect, sign) in enumerate(zip(aspects, signs, strict=True)):
        if i > 0 and rng.random() < 0.6:
            text += ", and " if sign == signs[i - 1] else ", but "
        elif i > 0:
            text += ". "
        text += _write_clause(category, aspect, sign, rng)
    text += "."
    if rng.random() < 0.5:
        text += " " + _write_closing(sum(signs), rng)
    return text


def _write_clause(category: str, aspect: str, sign: int, rng: random.Random) -> str:
    negated = rng.random() < 0.25
    degree = rng.random()
    side = 0 if (sign > 0) != negated else 1
    adjectives = ASPECTS[category][aspect][side] if rng.random() < 0.6 else GENERAL[side]
    words = ["the", aspect, rng.choice(VERBS)]
    if negated:
        words.append("not")
    if degree < 0.25:
        words.append(rng.choice(STRONG))
    elif degree < 0.45:
        words.append(rng.choice(HEDGES))
    return " ".join([*words, rng.choice(adjectives)])


def _write_closing(balance: int, rng: random.Random) -> str:
    sign = (1 if balance > 0 else -1) if balance else rng.choice((1, -1))
    if rng.random() < 0.1:
        sign = -sign
    verb = rng.choice(sorted(CLOSINGS))
    return f"i would {'' if CLOSINGS[verb] == sign else 'not '}{verb} it."


@dataclass(frozen=True, slots=True)
class Reading:
    """The weighted mean of a text's clauses and closing (about -1.4 to 1.4), and whether it is
    grammatical."""

    sentiment: float
    valid: bool

    @property
    def score(self) -> float:
        return self.sentiment - (0.0 if self.valid else BROKEN_PENALTY)


def read_review(prompt: str, text: str) -> Reading:
    """Read any text as a review of the prompt's item.

    A clause is worth its adjective's sign, times -0.6 behind ``not``, times 1.4 or 0.6 behind a strong or a
    hedging adverb; behind ``but`` it counts double. The closing is worth ±1. The mean is taken, so length
    earns nothing. Whatever cannot be read is passed over, and the text is not valid.
    """
    reader = _Reader(_words(text), _category(prompt))
    reader.read()
    weight = sum(w for _, w in reader.values)
    sentiment = sum(v * w for v, w in reader.values) / weight if weight else 0.0
    return Reading(sentiment, reader.valid)


class _Reader:
    """One pass over the words: what can be read is valued, what breaks the grammar makes the text invalid."""

    def __init__(self, words: list[str], category: str | None) -> None:
        self.words = words
        self.at = 0
        self.valid = category is not None and words[-1:] == ["."]
        self.known = ASPECTS.get(category, {}) if category else {}
        self.seen: set[str] = set()
        self.values: list[tuple[float, float]] = []

    def read(self) -> None:
        joint, clauses, closed = ".", 0, False
        while self.at < len(self.words):
            if (value := self._clause()) is not None:
                self.valid &= not closed and joint != ""
                self.values.append((value, CONTRAST_WEIGHT if joint == "but" else 1.0))
                clauses += 1
            elif (value := self._closing()) is not None:
                self.valid &= not closed and joint == "."
                self.values.append((value, 1.0))
                closed = True
            else:
                self.valid = False
                self.at += 1
                continue
            joint = self._joint()
        self.valid &= joint == "." and clauses > 0

    def _take(self, known: tuple[str, ...] | dict[str, int]) -> str | None:
        if self.at < len(self.words) and self.words[self.at] in known:
            self.at += 1
            return self.words[self.at - 1]
        return None

    def _clause(self) -> float | None:
        start = self.at
        if self._take(("the",)) and self.at < len(self.words):
            aspect = self.words[self.at]
            self.at += 1
            if self._take(VERBS):
                factor = NEGATED if self._take(("not",)) else 1.0
                factor *= STRENGTHENED if self._take(STRONG) else HEDGED if self._take(HEDGES) else 1.0
                adjective = self._take(SIGN)
                if adjective:
                    own = self.known.get(aspect)
                    fits = own is not None and any(adjective in side for side in (*own, *GENERAL))
                    self.valid &= fits and aspect not in self.seen
                    self.seen.add(aspect)
                    return SIGN[adjective] * factor
        self.at = start
        return None

    def _closing(self) -> float | None:
        start = self.at
        if self._take(("i",)) and self._take(("would",)):
            factor = -1 if self._take(("not",)) else 1
            verb = self._take(CLOSINGS)
            if verb and self._take(("it",)):
                return float(factor * CLOSINGS[verb])
        self.at = start
        return None

    def _joint(self) -> str:
        """The joint after a clause or closing: ``"."``, ``"and"``, ``"but"``, or ``""`` for none."""
        if self._take((".",)):
            return "."
        if self.words[self.at : self.at + 2] in ([",", "and"], [",", "but"]):
            self.at += 2
            return self.words[self.at - 1]
        return ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _category(prompt: str) -> str | None:
    return next((CATEGORY[word] for word in _words(prompt) if word in CATEGORY), None)


REVIEWS = TextWorld(
    name="reviews",
    summary="Short reviews of things people tried; gold is the sentiment, minus one for broken grammar.",
    words=vocabulary(),
    prompts=prompts,
    write=write_review,
    gold=lambda prompt, text: read_review(prompt, text).score,
    measures={"valid": lambda prompt, text: float(read_review(prompt, text).valid)},
)
