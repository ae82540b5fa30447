"""Whether the words alone tell chosen from rejected responses."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look
from prefero.doctor.probe import SHORTEST
from prefero.report.numbers import percent


def check(look: Look) -> Iterator[Finding | Unasked]:
    if not look.corpus.pairs:
        yield Unasked("Words that tell the sides apart", "responses are labelled one by one, not in pairs")
        return
    found = look.probe
    if found is None:
        yield Unasked("Words that tell the sides apart", f"fewer than {SHORTEST} pairs")
        return
    accuracy = Measure("pairs put right by a classifier of words", found.accuracy, found.interval)
    better, worse = (", ".join(map(_named, side)) for side in found.telling)
    yield Finding(
        "separability",
        "Words that tell the sides apart",
        level_of(accuracy, look=0.75, act=0.9),
        f"A linear classifier of words, marks and length puts {percent(found.accuracy)} of the pairs right "
        "whose prompts it has not seen; 50 % is chance. Most telling of the chosen: "
        f"{better or 'nothing'}; of the rejected: {worse or 'nothing'}.",
        (accuracy,),
        stake=max(0.0, 2 * found.accuracy - 1),
        why="Pairs of two sources (a stronger model against one's own, people against a model) are told "
        "apart by their style, and style is what is learnt: the loss falls fast, and what the labels were "
        "about is not reached.",
        papers=("Wang et al., 2025, arXiv 2504.02193",),
        threshold="75 %; to act on from 90 %",
        remedies=(
            Remedy(
                "Draw both responses from the model that is to be aligned, and let a judge rank them; until "
                "then let unlikely responses count less.",
                look.commands.train("wpo"),
            ),
            Remedy(
                "Take a loss that saturates, and see on held-out pairs of another source what was learnt.",
                look.commands.compare("dpo", "ipo", "wpo"),
            ),
        ),
        sample=look.probed.strip(),
    )


def _named(feature: str) -> str:
    return feature if feature.startswith("(") else "“" + feature.replace("\n", "⏎") + "”"
