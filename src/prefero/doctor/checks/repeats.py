"""Repeated rows, rows that contradict each other, pairs of one text, preferences in a circle."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look


def check(look: Look) -> Iterator[Finding]:
    repeats = look.repeats
    rows = len(look.judgements)
    if not rows:
        return
    again = tuple(repeats.repeated)
    share = Measure.share("rows that repeat an earlier one", len(again), rows)
    yield Finding(
        "duplicates",
        "Repeated rows",
        level_of(share, look=0.005, act=0.02),
        f"{len(again):,} of {rows:,} rows have the prompt, the responses and the "
        "label of an earlier row, but for white space and case.",
        (share,),
        stake=share.value,
        why="A pair that stands k times pulls k times as hard, and copies on both sides of a split make "
        "held-out numbers too good.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        threshold="0.5 % of the rows; to act on from 2 %",
        remedies=(Remedy("Leave the repetitions out.", look.commands.without("duplicates")),),
        specimens=look.specimens(again, beside=repeats.repeated),
        rows=again,
    )
    against = tuple(row for group in repeats.contradicting for row in group)
    share = Measure.share("rows whose comparison is labelled both ways", len(against), rows)
    yield Finding(
        "contradictions",
        "Contradicting labels",
        level_of(share, look=0.0, act=0.01),
        f"{len(repeats.contradicting):,} comparisons stand in the data with both labels, on "
        f"{len(against):,} of {rows:,} rows.",
        (share,),
        stake=share.value,
        why="The two labels cancel each other where they are equally many, and a loss that trusts its labels "
        "(DPO) drives the policy back and forth between them. Where both are honest, people disagree, and a "
        "smoothed label says so.",
        papers=("Ray Chowdhury et al., 2024, arXiv 2403.00409", "Azar et al., 2023, arXiv 2310.12036"),
        threshold="any; to act on from 1 % of the rows",
        remedies=(
            Remedy("Leave all of them out.", look.commands.without("contradictions")),
            Remedy("Or train with labels that may be wrong.", look.commands.train("cdpo")),
        ),
        specimens=look.specimens(against, 2),
        rows=against,
    )
    if repeats.identical or look.corpus.pairs:
        share = Measure.share("pairs of one text", len(repeats.identical), rows)
        yield Finding(
            "identical",
            "Two sides with one text",
            level_of(share, look=0.0, act=0.01),
            f"{len(repeats.identical):,} of {rows:,} pairs have two responses that differ in white "
            "space or case alone.",
            (share,),
            stake=share.value,
            why="Such a pair prefers a line break. Its margin cannot grow without the two responses "
            "becoming unlikely together.",
            papers=("Pal et al., 2024, arXiv 2402.13228",),
            threshold="any; to act on from 1 % of the pairs",
            remedies=(Remedy("Leave them out.", look.commands.without("identical")),),
            specimens=look.specimens(repeats.identical),
            rows=repeats.identical,
        )
    circular = repeats.cyclic
    if circular or _lists(look):
        share = Measure.share("rows on a cycle of preferences", len(circular), rows)
        yield Finding(
            "cycles",
            "Preferences in a circle",
            level_of(share, look=0.0, act=0.05),
            f"Prompts with a preferred to b, b to c, and c to a: {repeats.circles:,}, on "
            f"{len(circular):,} of {rows:,} rows.",
            (share,),
            stake=share.value / 3,
            why="No reward orders them, so Bradley–Terry methods (DPO among them) fit at most two labels of "
            "three. Either one of the labels is wrong, or the preference is not transitive.",
            papers=("Zhang et al., 2024, arXiv 2410.02197", "Munos et al., 2023, arXiv 2312.00886"),
            threshold="any; to act on from 5 % of the rows",
            remedies=(
                Remedy("A general preference model takes them as they are.", look.commands.train("gpm")),
                Remedy("Or leave them out.", look.commands.without("cycles")),
            ),
            specimens=look.specimens(circular),
            rows=circular,
        )


def _lists(look: Look) -> bool:
    """Whether some prompt has pairs enough for a cycle."""
    prompts = [prompt for _, prompt, _, _ in look.judgements]
    return len(prompts) - len(set(prompts)) > 1 and bool(look.corpus.pairs)
