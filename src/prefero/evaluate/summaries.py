"""Judgements summed up: a row of ``evaluation.json`` for each model, and where its difficulties came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from prefero.errors import PreferoError, number_of
from prefero.evaluate.difficulties import Difficulties, difficulties_by_others
from prefero.evaluate.intervals import mean
from prefero.evaluate.judgements import Judgement, by_model, one_judge
from prefero.evaluate.length_control import Anchors, length_controlled_win_rate
from prefero.evaluate.win_rate import win_rate_of

FEWEST = 10
"""Comparisons that a length-controlled win rate needs: two in each of five folds."""

FEW_MODELS = 10
"""Fewer models than these give difficulties that are said to be rough: on AlpacaEval's leaderboard win rates
are then more than 2.5 points off on average."""

REMEDY = "give the judgements of several models, or --difficulties FILE"

Source = Literal["known", "fitted", "absent"]


def summary(
    judged: Sequence[Judgement],
    anchors: Anchors | None = None,
    difficulty: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A row of ``evaluation.json`` for one model, with 95 % intervals over prompts. Several responses to a
    prompt count as one comparison, their mean; in the length control each counts. ``difficulty`` is that of
    each judgement's prompt; by default the judgements' own, where they have some."""
    prompts = [each.prompt if isinstance(each.prompt, str) else repr(each.prompt) for each in judged]
    rate = win_rate_of([each.preference for each in judged], prompts=prompts)
    estimates = {"win_rate": (rate.rate, rate.interval)}
    ours = [each.length for each in judged]
    if _controls_length(judged):
        own = [each.difficulty for each in judged if each.difficulty is not None]
        controlled = length_controlled_win_rate(
            [each.preference for each in judged],
            [length for length in ours if length is not None],
            [each.baseline_length for each in judged if each.baseline_length is not None],
            difficulty=difficulty or (own if len(own) == len(judged) else None),
            anchors=anchors,
        )
        estimates["length_controlled_win_rate"] = controlled.rate, controlled.interval
    for name, values in (("characters", ours), ("score", [each.score for each in judged])):
        known = [value for value in values if value is not None]
        if len(known) == len(values) > 1:
            estimate = mean(known)
            estimates[name] = estimate.value, estimate.interval
    return {
        "method": judged[0].model,
        **{name: value for name, (value, _) in estimates.items()},
        **{"wins": rate.wins, "ties": rate.ties, "losses": rate.losses},
        "interval": {name: [interval.low, interval.high] for name, (_, interval) in estimates.items()},
    }


def _controls_length(judged: Sequence[Judgement]) -> bool:
    known = all(each.length is not None and each.baseline_length is not None for each in judged)
    return known and len(judged) >= FEWEST


def summaries(
    judged: Sequence[Judgement],
    *,
    anchors: Anchors | None = None,
    difficulties: Difficulties | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of ``evaluation.json`` for the models that were judged, and what is to be said of the
    difficulties of prompts in their length-controlled win rates.

    They are, in this order: ``difficulties``, where they are given; the judgements' own; those that the
    judgements of the other models tell, without the model itself; or absent. ``difficulties`` of a row says
    which, and from how many models.

    Raises:
        PreferoError: several judges or baselines; given difficulties beside the judgements' own, of another
            judge or baseline, or of none of the prompts; judgements of which only some have a difficulty.
    """
    one_judge(judged)
    models = by_model(judged)
    if difficulties is not None:
        if any(each.difficulty is not None for each in judged):
            raise PreferoError(
                "the judgements have difficulties of their own, and others are given: leave out one of them"
            )
        difficulties.refuse_others(judged)
    by_others = {} if difficulties is not None else difficulties_by_others(models)
    rows = []
    for own in models.values():
        source, used = _difficulties(own, difficulties, by_others)
        known = None if used is None else used.of(own)
        row = summary(own, anchors, None if known is None else [each or 0.0 for each in known])
        if "length_controlled_win_rate" in row:
            row["difficulties"] = {"source": source}
            if used is not None and known is not None:
                row["difficulties"] |= {"models": len(used.models), "missing": known.count(None)}
        rows.append(row)
    return rows, list(_notes(rows, difficulties))


def _difficulties(
    own: Sequence[Judgement], given: Difficulties | None, by_others: dict[str, Difficulties]
) -> tuple[Source, Difficulties | None]:
    """Where the difficulties of one model's prompts come from; themselves where they are not its own."""
    name = own[0].model
    if given is not None:
        if set(given.of(own)) == {None}:
            raise PreferoError(
                f"the difficulties are of none of the prompts that {name} was judged on: they were fitted "
                "from other prompts"
            )
        return "known", given
    missing = sum(each.difficulty is None for each in own)
    if not missing:
        return "known", None
    if missing < len(own):
        raise PreferoError(
            f"{missing} of {len(own)} judgements of {name} have no difficulty, and the others have one: give "
            "all of them one, or none"
        )
    others = by_others[name]
    return ("absent", None) if set(others.of(own)) == {None} else ("fitted", others)


def _notes(rows: Sequence[dict[str, Any]], given: Difficulties | None) -> Iterator[str]:
    controlled = [row for row in rows if "difficulties" in row]

    def models(chosen: Sequence[dict[str, Any]]) -> str:
        names = [str(row["method"]) for row in chosen]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    if absent := [row for row in controlled if row["difficulties"]["source"] == "absent"]:
        yield (
            f"the length-controlled win rate of {models(absent)} is without difficulties of prompts, and can "
            f"be off by many points (on AlpacaEval by 6.6 on average, and up to 27): {REMEDY}"
        )
    fitted = [row for row in controlled if row["difficulties"]["source"] == "fitted"]
    if fitted:
        fewest = min(row["difficulties"]["models"] for row in fitted)
        rough = f", which is rough: {REMEDY}" if fewest < FEW_MODELS else ""
        yield (
            "difficulties of prompts, for length-controlled win rates, are fitted for each model from the "
            f"judgements of {number_of(fewest, 'other model')}{rough}"
        )
    if given is not None and controlled:
        yield (
            f"difficulties of prompts are those fitted from {number_of(len(given.models), 'model')}"
            + (", which is rough" if len(given.models) < FEW_MODELS else "")
        )
        if among := [row for row in controlled if row["method"] in given.models]:
            yield (
                f"{models(among)}: the difficulties were fitted from these judgements too, and follow them "
                "more closely than those by other models"
            )
    for row in controlled:
        if row["difficulties"].get("missing"):
            yield (
                f"{row['method']}: {row['difficulties']['missing']} of its prompts have no difficulty, and "
                "count as of average difficulty"
            )
