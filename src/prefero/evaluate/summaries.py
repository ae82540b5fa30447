"""Judgements summed up: a row of ``evaluation.json`` for each model, and where its difficulties came from."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from statistics import fmean
from typing import Any, Literal

from prefero.errors import PreferoError, number_of
from prefero.evaluate.difficulties import Difficulties, difficulties_by_others, hash_of
from prefero.evaluate.intervals import mean
from prefero.evaluate.judgements import Judgement, by_model, one_judge
from prefero.evaluate.length_control import Anchors, length_controlled_win_rate
from prefero.evaluate.win_rate import win_rate_of

FEWEST = 10
"""Prompts that a length-controlled win rate needs: two in each of five folds."""

FEW_MODELS = 10
"""Fewer models than these give difficulties that are said to be rough: on AlpacaEval's leaderboard win rates
are then more than 2.5 points off on average."""

FLAT = 1e-3
"""Intervals narrower than this come of fits that are all the same, not of many prompts."""

REMEDY = "give the judgements of several models, or --difficulties FILE"

Source = Literal["known", "fitted", "absent"]


def summary(
    judged: Sequence[Judgement],
    anchors: Anchors | None = None,
    difficulty: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A row of ``evaluation.json`` for one model, with 95 % intervals over prompts. Several responses to a
    prompt count as one comparison, their mean; in the length control each counts, and its interval draws
    prompts. ``difficulty`` is that of each judgement's prompt; by default the judgements' own, where they
    have some."""
    prompts = [hash_of(each) for each in judged]
    rate = win_rate_of([each.preference for each in judged], prompts=prompts)
    estimates = {"win_rate": (rate.rate, rate.interval)}
    ours, alone = [each.length for each in judged], dict[str, float]()
    if not _without_length(judged):
        own = [each.difficulty for each in judged if each.difficulty is not None]
        controlled = length_controlled_win_rate(
            [each.preference for each in judged],
            [length for length in ours if length is not None],
            [each.baseline_length for each in judged if each.baseline_length is not None],
            difficulty=difficulty or (own if len(own) == len(judged) else None),
            anchors=anchors,
            prompts=prompts,
        )
        estimates["length_controlled_win_rate"] = controlled.rate, controlled.interval
    for name, values in (("characters", ours), ("score", [each.score for each in judged])):
        known = [value for value in values if value is not None]
        means = mean_by(prompts, known) if len(known) == len(values) else []
        if len(means) > 1:
            estimate = mean(means)
            estimates[name] = estimate.value, estimate.interval
        elif means:  # one prompt has no interval over prompts
            alone[name] = means[0]
    return {
        "method": judged[0].model,
        **{name: value for name, (value, _) in estimates.items()},
        **alone,
        **{"wins": rate.wins, "ties": rate.ties, "losses": rate.losses},
        "interval": {name: [interval.low, interval.high] for name, (_, interval) in estimates.items()},
    }


def mean_by(groups: Sequence[Hashable], values: Sequence[float]) -> list[float]:
    """The mean of the values of each group, in the order in which groups first occur."""
    members: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        members.setdefault(group, []).append(value)
    return [fmean(own) for own in members.values()]


def _without_length(judged: Sequence[Judgement]) -> str:
    """Why one model has no length-controlled win rate; empty where it has one."""
    unknown = sum(each.length is None or each.baseline_length is None for each in judged)
    if unknown:
        return f"{unknown} of its {number_of(len(judged), 'judgement')} tell no lengths"
    prompts = len({hash_of(each) for each in judged})
    return "" if prompts >= FEWEST else f"it takes {FEWEST} prompts, and there are {prompts}"


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
            judge or baseline, or of none of a model's prompts; judgements of which only some have a
            difficulty.
    """
    one_judge(judged)
    models = by_model(judged)
    if difficulties is not None:
        if any(each.difficulty is not None for each in judged):
            raise PreferoError(
                "the judgements have difficulties of their own, and others are given: leave out one of them"
            )
        for own in models.values():
            difficulties.refuse_others(own)
    by_others = {} if difficulties is not None else difficulties_by_others(models)
    rows = []
    for own in models.values():
        source, used = _difficulties(own, difficulties, by_others)
        known = None if used is None else used.of(own)
        row = summary(own, anchors, None if known is None else [each or 0.0 for each in known])
        if "length_controlled_win_rate" in row:
            row["difficulties"] = {"source": source}
            if used is not None:
                telling = used.models if source == "known" else _on_prompts_of(own, models, used.models)
                missing = prompts_of(own) - set(used.logits)
                row["difficulties"] |= {"models": len(telling), "missing": len(missing)}
        rows.append(row)
    return rows, [*_notes_of_judgements(models), *_notes(rows, difficulties)]


def prompts_of(judged: Sequence[Judgement]) -> set[str]:
    """The hashes of the prompts."""
    return {hash_of(each) for each in judged}


def _on_prompts_of(
    own: Sequence[Judgement], models: dict[str, list[Judgement]], names: Sequence[str]
) -> list[str]:
    """Those of the models that were judged on some of the same prompts."""
    prompts = prompts_of(own)
    return [name for name in names if prompts & prompts_of(models[name])]


def _notes_of_judgements(models: dict[str, list[Judgement]]) -> Iterator[str]:
    """Notes on judgements that do not tell all, or are not of the same prompts."""
    every = [each for own in models.values() for each in own]
    for what, names in (
        ("judge", [each.judge for each in every]),
        ("baseline", [each.against for each in every]),
    ):
        if 0 < (unknown := names.count(None)) < len(names):
            of = next(name for name in names if name is not None)
            yield f"{unknown} of {len(every)} judgements do not say their {what}: it is taken to be {of}"
    prompts = {name: prompts_of(own) for name, own in models.items()}
    shared = set.intersection(*prompts.values())
    if any(own != shared for own in prompts.values()):
        counts = _listed([f"{name} on {len(own)}" for name, own in prompts.items()])
        yield (
            f"the models were judged on different prompts ({counts}; {len(shared)} are shared by all): each "
            "win rate is over its model's own prompts"
        )
    if any(each.length is not None for each in every):  # else nobody expects control of lengths
        reasons: dict[str, list[str]] = {}
        for name, own in models.items():
            reasons.setdefault(_without_length(own), []).append(name)
        for reason, without in reasons.items():
            if reason:
                yield f"no length-controlled win rate of {_listed(without)}: {reason}"


def _difficulties(
    own: Sequence[Judgement], given: Difficulties | None, by_others: dict[str, Difficulties]
) -> tuple[Source, Difficulties | None]:
    """Where the difficulties of one model's prompts come from; themselves where they are not its own."""
    name = own[0].model
    if given is not None:
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


def _flat(row: dict[str, Any]) -> bool:
    """Whether the interval of a length-controlled win rate has no width, of judgements that are no ties."""
    low, high = row["interval"]["length_controlled_win_rate"]
    return high - low < FLAT and row["wins"] + row["losses"] > 0


def _listed(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _notes(rows: Sequence[dict[str, Any]], given: Difficulties | None) -> Iterator[str]:
    controlled = [row for row in rows if "difficulties" in row]

    def models(chosen: Sequence[dict[str, Any]]) -> str:
        return _listed([str(row["method"]) for row in chosen])

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
    if flat := [row for row in controlled if _flat(row)]:
        yield (
            f"the length-controlled win rate of {models(flat)} is the same on every resample, so that its "
            "interval has no width: the judgements are too few, or too much of one kind, to fit one. Read "
            "the win rate"
        )
    for row in controlled:
        if row["difficulties"].get("missing"):
            yield (
                f"{row['method']}: {row['difficulties']['missing']} of its prompts have no difficulty, and "
                "count as of average difficulty"
            )
