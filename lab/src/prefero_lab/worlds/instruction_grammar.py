"""The language of the ``instructions`` world: what is asked for, how notes are written and how they are read.

A prompt asks for four things (``"write a warm note on tea for guests in points with two facts, mention
aroma."``): a tone, a form, a number of facts, and one fact by name. A note is a line for each fact, in prose
(``"the tea has lovely aroma."``) or in points (``"- lovely aroma."``), perhaps with filler before it (``"of
course, the tea has lovely aroma."``), which says nothing. The corpus is sloppy: it often misses what was
asked.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

TONES = {
    "plain": ("usual", "common", "regular", "simple"),
    "warm": ("lovely", "cosy", "gentle", "charming"),
    "formal": ("notable", "esteemed", "distinguished", "renowned"),
}
TONE = {word: tone for tone, words in TONES.items() for word in words}
FORMS = ("prose", "points")
COUNTS = {"two": 2, "three": 3}
AUDIENCES = ("friends", "guests", "visitors", "readers")

TOPICS = {
    "drink": ("tea", "coffee", "cocoa", "cider"),
    "garden": ("orchard", "meadow", "park", "grove"),
    "town": ("harbour", "market", "village", "castle"),
    "craft": ("pottery", "weaving", "carving", "printing"),
}
CATEGORY = {topic: category for category, topics in TOPICS.items() for topic in topics}
FACTS = {
    "drink": ("aroma", "flavour", "warmth", "colour", "foam", "sweetness"),
    "garden": ("shade", "paths", "flowers", "birds", "benches", "soil"),
    "town": ("streets", "towers", "bridges", "squares", "inns", "walls"),
    "craft": ("tools", "patterns", "masters", "workshops", "glazes", "guilds"),
}

FILLERS = tuple(
    tuple(phrase.split())
    for phrase in (
        "of course",
        "in other words",
        "let us note",
        "generally speaking",
        "it is worth saying",
        "to put it briefly",
        "as you may know",
        "as a matter of fact",
    )
)

FILLED, REPEATED, RIGHT_TONE, RIGHT_CATEGORY, RIGHT_FORM, NAMED = 0.35, 0.15, 0.75, 0.9, 0.7, 0.5
"""Rates of these in the corpus, per line or per note."""


def vocabulary() -> tuple[str, ...]:
    """Every word and punctuation mark that prompts and notes are made of, sorted."""
    asked = ["write", "a", "note", "on", "for", "in", "with", "facts", ",", "mention", "."]
    facts = itertools.chain(*FACTS.values())
    fillers = itertools.chain(*FILLERS)
    return tuple(
        sorted(
            {*asked, *TONES, *TONE, *AUDIENCES, *FORMS, *COUNTS, *CATEGORY, *facts, *fillers}
            | {"the", "has", "-"}
        )
    )


def prompts(*, held_out: bool) -> list[str]:
    """The prompts of one side of the split, in a fixed order (4,608 in all, a fifth of them held out).

    Held out are those whose character codes add up to a multiple of five.
    """
    every = (
        f"write a {tone} note on {topic} for {who} in {form} with {count} facts, mention {fact}."
        for topic, category in CATEGORY.items()
        for tone, who, form, count, fact in itertools.product(
            TONES, AUDIENCES, FORMS, COUNTS, FACTS[category]
        )
    )
    return [text for text in every if (sum(map(ord, text)) % 5 == 0) == held_out]


@dataclass(frozen=True, slots=True)
class Asked:
    """The instructions of a prompt."""

    tone: str
    topic: str
    form: str
    count: int
    fact: str


def read_prompt(prompt: str) -> Asked | None:
    """The instructions of a prompt; None if it is no prompt of this world."""
    match = re.fullmatch(
        r"write a (\w+) note on (\w+) for \w+ in (\w+) with (\w+) facts, mention (\w+)\.", prompt.strip()
    )
    if match is None:
        return None
    tone, topic, form, count, fact = match.groups()
    known = tone in TONES and topic in CATEGORY and form in FORMS and count in COUNTS
    return Asked(tone, topic, form, COUNTS[count], fact) if known else None


def write_note(prompt: str, rng: random.Random) -> str:
    """A note of the corpus that the start model learns from: well formed, and sloppy."""
    asked = read_prompt(prompt)
    assert asked is not None, prompt
    form = asked.form if rng.random() < RIGHT_FORM else rng.choice(FORMS)
    count = max(1, asked.count + rng.choice((-1, 0, 0, 0, 1)))
    own = FACTS[CATEGORY[asked.topic]]
    facts = [asked.fact] if rng.random() < NAMED else []
    while len(facts) < count:
        if facts and rng.random() < REPEATED:
            facts.append(rng.choice(facts))
        elif rng.random() < RIGHT_CATEGORY:
            facts.append(rng.choice([fact for fact in own if fact not in facts]))
        else:
            facts.append(rng.choice(FACTS[rng.choice(sorted(FACTS))]))
    rng.shuffle(facts)
    return " ".join(_write_line(asked, form, fact, rng) for fact in facts)


def _write_line(asked: Asked, form: str, fact: str, rng: random.Random) -> str:
    tone = asked.tone if rng.random() < RIGHT_TONE else rng.choice(sorted(TONES))
    filler = " ".join(rng.choice(FILLERS)) + ", " if rng.random() < FILLED else ""
    subject = f"the {asked.topic} has " if form == "prose" else ""
    return f"{'- ' if form == 'points' else ''}{filler}{subject}{rng.choice(TONES[tone])} {fact}."


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a note. ``topic`` is None in points, which name none."""

    form: str
    topic: str | None
    tone: str
    fact: str
    filled: bool


@dataclass(frozen=True, slots=True)
class Note:
    """The lines of a text, and whether it consists of nothing else."""

    lines: tuple[Line, ...]
    valid: bool


def read_note(text: str) -> Note:
    """The lines of any text; what is none is passed over, and makes the text invalid."""
    words, at, lines, valid = re.findall(r"\w+|[^\w\s]", text), 0, [], True
    while at < len(words):
        found = _line(words[at:])
        if found is None:
            valid, at = False, at + 1
        else:
            line, length = found
            lines.append(line)
            at += length
    return Note(tuple(lines), valid and bool(lines))


FACT = {fact for facts in FACTS.values() for fact in facts}


def _line(words: Sequence[str]) -> tuple[Line, int] | None:
    """The line that words begin with, and how many of them it is."""
    at = points = int(words[0] == "-")
    filler = next((f for f in FILLERS if tuple(words[at : at + len(f) + 1]) == (*f, ",")), ())
    at += len(filler) + 1 if filler else 0
    topic = None
    if not points:
        if (
            len(words) < at + 3
            or words[at] != "the"
            or words[at + 1] not in CATEGORY
            or words[at + 2] != "has"
        ):
            return None
        topic, at = words[at + 1], at + 3
    if len(words) < at + 3 or words[at] not in TONE or words[at + 1] not in FACT or words[at + 2] != ".":
        return None
    form = "points" if points else "prose"
    return Line(form, topic, TONE[words[at]], words[at + 1], bool(filler)), at + 3
