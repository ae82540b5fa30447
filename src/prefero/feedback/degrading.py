"""Responses with part of their key content taken out: graded variants for self-supervision.

Key phrases are found by RAKE (Rose et al., 2010): candidates are what stop words and punctuation leave
standing together, a word scores its degree over its frequency, a phrase the sum of its words. Self-supervised
preference optimization removes them, best first (Li et al., 2024, arXiv 2409.17791).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prefero.data.examples import Example, Response
from prefero.errors import PreferoError

_STOP_WORDS = """
    a about above after again against all also am an and any are as at be because been before being
    below between both but by can could did do does doing don down during each either else ever
    every few for from further had has have having he her here hers herself him himself his how
    however i if in into is it its itself just let may me might more most must my myself neither no
    nor not now of off on once only or other ought our ours ourselves out over own per quite rather
    s same shall she should since so some such t than that the their theirs them themselves then
    there these they this those though through thus to too toward under until up upon us very was we
    were what when where whether which while who whom whose why will with within without would yet
    you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that carry little by themselves."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True, slots=True)
class KeyPhrase:
    """Characters ``start`` to ``stop`` of a text, and how much they carry."""

    start: int
    stop: int
    score: float


def key_phrases(text: str, stop_words: frozenset[str] = STOP_WORDS) -> list[KeyPhrase]:
    """Every key phrase of a text, in its order."""
    phrases: list[list[re.Match[str]]] = [[]]
    end = 0
    for word in _WORD.finditer(text):
        apart = re.search(r"[^ \t]", text[end : word.start()]) is not None
        end = word.end()
        if apart:
            phrases.append([])
        if word.group().lower() in stop_words:
            phrases.append([])
        else:
            phrases[-1].append(word)
    phrases = [phrase for phrase in phrases if phrase]
    degree, frequency = defaultdict[str, int](int), defaultdict[str, int](int)
    for phrase in phrases:
        for word in phrase:
            degree[word.group().lower()] += len(phrase)
            frequency[word.group().lower()] += 1
    score = {word: degree[word] / frequency[word] for word in degree}
    return [
        KeyPhrase(phrase[0].start(), phrase[-1].end(), sum(score[word.group().lower()] for word in phrase))
        for phrase in phrases
    ]


@dataclass(frozen=True, slots=True)
class Degraded:
    """A text of which ``removed`` key phrases are gone; ``degree`` is 0 for none of them."""

    text: str
    degree: int
    removed: int


def degraded(text: str, degrees: int = 3, most: float = 1.0) -> list[Degraded]:
    """A text and its variants, one a degree from 0, the text itself, to ``degrees`` − 1, which lacks the
    share ``most`` of its key phrases; best phrases go first, of equal ones the earlier, and words keep their
    order.

    A text of fewer phrases than degrees has fewer variants; each has the degree that its share comes nearest
    to. A text that would be left empty is no variant.

    Raises:
        PreferoError: fewer than two degrees, or ``most`` outside (0, 1].
    """
    if degrees < 2 or not 0 < most <= 1:
        raise PreferoError(
            f"variants have at least 2 degrees and lose a share in (0, 1], not {degrees} and {most}"
        )
    phrases = key_phrases(text)
    ranked = sorted(range(len(phrases)), key=lambda place: -phrases[place].score)
    found = [Degraded(text, 0, 0)]
    for degree in range(1, degrees):
        removed = int(degree / (degrees - 1) * most * len(phrases) + 0.5)
        if removed == found[-1].removed:
            continue
        left = without(text, [phrases[place] for place in ranked[:removed]])
        nearest = min(max(round(removed / (most * len(phrases)) * (degrees - 1)), 1), degrees - 1)
        if left.strip() and nearest > found[-1].degree:
            found.append(Degraded(left, nearest, removed))
    return found


def without(text: str, phrases: Sequence[KeyPhrase]) -> str:
    """The text less these phrases, and less one of the two spaces around each."""
    kept, at = "", 0
    for phrase in sorted(phrases, key=lambda one: one.start):
        kept, at = kept + text[at : phrase.start], phrase.stop
        if at < len(text) and text[at] in " \t" and (not kept or kept[-1].isspace()):
            at += 1
    return kept + text[at:]


def with_degraded_responses(
    example: Example, generator: np.random.Generator, *, degrees: int = 3, most: float = 1.0
) -> Example:
    """A pair with a variant of either response beside it, of a degree that is drawn from those it has: the
    roles and the column of ``spo_self_supervised``.

    Raises:
        PreferoError: the example is no pair of texts.
    """
    by_role = {response.role: response for response in example.responses}
    added = []
    for role in ("chosen", "rejected"):
        if role not in by_role or not isinstance(by_role[role].content, str):
            raise PreferoError(
                f"{example.origin or 'an example'} has no {role} response that is a text to take content from"
            )
        variants = degraded(str(by_role[role].content), degrees, most)
        variant = variants[int(generator.integers(len(variants)))]
        added.append(Response(variant.text, f"{role}_degraded", {"degree": variant.degree}))
    given = [replace(one, columns={**one.columns, "degree": 0}) for one in example.responses]
    return replace(example, responses=(*given, *added))
