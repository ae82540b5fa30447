"""Whether annotators agree, and how many labels are wrong."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.agreement import Agreement
from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look
from prefero.doctor.noise import FlipRate, flip_rate, of_disagreement, of_majority
from prefero.doctor.probe import SHORTEST
from prefero.evaluate.intervals import Interval
from prefero.report.numbers import number, percent


def check(look: Look) -> Iterator[Finding | Unasked]:
    if look.agreement:
        yield agreement(look, look.agreement)
    else:
        yield Unasked(
            "Agreement of annotators", "no row has the votes of several (annotator1, annotator2, …)"
        )
    if look.corpus.pairs:
        found = noise(look)
        yield found or Unasked("Wrong labels", f"fewer than {SHORTEST} pairs, and no repeated judgements")


def agreement(look: Look, found: Agreement) -> Finding:
    alpha = Measure("Krippendorff's α", found.alpha, found.interval, unit="", of=found.rows)
    split = Measure.share("rows with a dissenting vote", len(found.split), found.rows)
    level = "act" if found.interval.high < 0.4 else "look" if found.alpha < 0.667 else "fine"
    return Finding(
        "agreement",
        "Annotators disagree" if level != "fine" else "Agreement of annotators",
        level,  # type: ignore[arg-type]
        f"Two votes on a row agree in {percent(found.observed)} of the cases; beyond chance that is α = "
        f"{number(found.alpha)} (1 is full agreement, 0 is chance). {len(found.split):,} of {found.rows:,} "
        "rows have a dissenting vote.",
        (alpha, split, Measure("couples of votes that agree", found.observed)),
        stake=(1 - max(found.alpha, 0)) / 2,
        why="No policy can agree with people more than they do among themselves, and held-out accuracy has "
        "its ceiling there. By custom α from 0.8 is reliable, from 0.667 good enough for tentative "
        "conclusions.",
        papers=("Krippendorff, 2011, Computing Krippendorff's alpha-reliability",),
        threshold="α below 0.667; to act on below 0.4",
        remedies=(
            Remedy("Train with labels that may be wrong.", look.commands.train("cdpo")),
            Remedy("Or keep the unanimous rows alone.", look.commands.without("agreement")),
        ),
        specimens=look.specimens(found.split),
        rows=found.split,
    )


def noise(look: Look) -> Finding | None:
    """By several annotators if there are any, by repeated judgements that contradict each other, else by what
    a classifier is sure of."""
    measures = [*_by_people(look), *_by_repetition(look)]
    if look.probe is not None:
        by_probe = flip_rate(look.probe.leads, look.probe.prompts)
        measures.append(_measure("labels that a classifier by words would call flipped", by_probe))
        most = 1 - look.probe.interval.low
        measures.append(Measure("labels flipped at most, by its accuracy", min(most, 0.5)))
    if not measures:
        return None
    best = measures[0]
    interval = best.interval
    assert interval is not None
    level = level_of(best, look=0.05, act=0.1)
    if level == "look" and interval.low < 0.01:
        level = "fine"
    rate = min(max(round(best.value, 2), 0.01), 0.45)
    about = (
        f"About {percent(best.value)} of the labels look flipped"
        if interval.high - interval.low < 0.15
        else f"How many labels are flipped cannot be told well: the estimate is {percent(best.value)}"
    )
    return Finding(
        "noise",
        "Wrong labels",
        level,
        f"{about}, {percent(interval.low)} to {percent(interval.high)} by the 95 % interval.",
        tuple(measures),
        stake=min(2 * best.value, 1.0),
        why="A flipped label pulls the policy the wrong way as hard as a right one pulls it the right way: "
        "of the signal 1 − 2ε is left.",
        papers=(
            "Ray Chowdhury et al., 2024, arXiv 2403.00409",
            "Wu et al., 2024, arXiv 2407.07880",
            "Mitchell, 2023, A note on DPO with noisy preferences",
        ),
        threshold="5 %, where the interval excludes 1 %; to act on from 10 %",
        remedies=(
            Remedy(
                "Tell the loss how many labels are flipped.",
                look.commands.train("rdpo", objective__flip_rate=rate),
            ),
            Remedy("Or bound what a label can say.", look.commands.train("cdpo", objective__smoothing=rate)),
            Remedy("Or let pairs with large losses count less.", look.commands.train("dr_dpo")),
        ),
        sample="Votes are taken to go wrong independently of each other. The estimate by a classifier "
        "supposes that labels are flipped at random, whatever the pair, and that its mistakes become rarer "
        "the surer it is." + look.probed,
    )


def _measure(name: str, rate: FlipRate) -> Measure:
    return Measure(name, rate.value, rate.interval)


def _by_people(look: Look) -> Iterator[Measure]:
    found = look.agreement
    if found is None or found.clashing is None:
        return
    single = of_disagreement(found.clashing, found.decided)
    ends = (of_majority(end, found.judges) for end in (single.interval.low, single.interval.high))
    if found.judges > 2:
        name = f"labels wrong, by the majority of {found.judges} votes"
        yield Measure(name, of_majority(single.value, found.judges), Interval(*ends))
    yield _measure("single votes that are wrong, by their disagreement", single)


def _by_repetition(look: Look) -> Iterator[Measure]:
    """Where repeated comparisons differ at all: rows that merely were copied say nothing of their labels."""
    judged = look.repeats.judged
    clashes = [2 * one * other / ((one + other) * (one + other - 1)) for one, other in judged]
    if clashes and any(clashes):
        rate = sum(clashes) / len(clashes)
        yield _measure("labels wrong, by comparisons judged repeatedly", of_disagreement(rate, len(clashes)))
