"""Preference data without faults, and copies of rows with faults planted at known rates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]
GOOD = WORDS[:12]


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS[12:], k=words))


def clean(count: int, seed: int = 0, *, signal: int = 4, words: int = 24) -> list[Row]:
    """Pairs of equally long responses; ``signal`` words of the chosen one, and none of the rejected, are of a
    kind that a classifier of words can learn."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        chosen = text(draw, words - signal).split() + draw.choices(GOOD, k=signal)
        draw.shuffle(chosen)
        while len(" ".join(chosen)) < (wanted := 4 * words - 1):
            chosen.append("")
        rejected = text(draw, words)
        rows.append(
            {"prompt": f"{number} {text(draw, 8)}", "chosen": " ".join(chosen)[:wanted], "rejected": rejected}
        )
    return rows


def flipped(rows: Sequence[Row], rate: float, seed: int = 0) -> list[Row]:
    """Every label flipped with probability ``rate``."""
    draw = random.Random(seed)
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if draw.random() < rate else dict(row)
        for row in rows
    ]


def longer_chosen(rows: Sequence[Row], rate: float, seed: int = 0) -> list[Row]:
    """The longer response is the chosen one with probability ``rate``; rows with equal ones are left out."""
    draw = random.Random(seed)
    made = []
    for row in rows:
        short, long = sorted((row["chosen"], row["rejected"]), key=len)
        if len(short) == len(long):
            continue
        sides = (long, short) if draw.random() < rate else (short, long)
        made.append({**row, "chosen": sides[0], "rejected": sides[1]})
    return made


def repeated(rows: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """``count`` of the rows once more, at random places, with other white space."""
    draw = random.Random(seed)
    again = [{**row, "chosen": f"{row['chosen']} \n"} for row in draw.sample(list(rows), count)]
    made = [*rows, *again]
    draw.shuffle(made)
    return made


def nearly_identical(rows: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """In ``count`` of the rows the rejected response is the chosen one with its first word replaced."""
    draw = random.Random(seed)
    places = set(draw.sample(range(len(rows)), count))
    return [
        {**row, "rejected": " ".join(["zzz", *row["chosen"].split()[1:]])} if place in places else dict(row)
        for place, row in enumerate(rows)
    ]
