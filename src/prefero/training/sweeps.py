"""Settings of a recipe that are varied: every combination of values, or those that Optuna proposes."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective, primary
from prefero.objectives.needs import dry_run
from prefero.storage import finite
from prefero.training.best import JUDGED, METRICS, measured
from prefero.training.config import TrainConfig
from prefero.training.identity import UNRECORDED
from prefero.training.study import Study, Variant, unused_name
from prefero.training.tuning import Range, suggested

FIXED = (*sorted(UNRECORDED), "data.eval", "data.eval_split", "data.eval_limit")
"""Settings that a sweep cannot vary: where and how its runs start, and what they are measured on."""

LONGEST_VALUE, LONGEST_NAME = 24, 120
"""Characters of a value in the name of a run, and of the name."""


def sweep(
    config: TrainConfig | Mapping[str, Any],
    over: Mapping[str, Sequence[Any] | str],
    *,
    trials: int | None = None,
    metric: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train with every combination of some settings, or with ``trials`` ones that Optuna proposes.

    ``over`` maps dotted keys to their values, ``{"objective.beta": [0.05, 0.1]}``, or for Optuna to a range,
    ``"1..8"`` or, uniform in the logarithm, ``"log:1e-7..1e-5"``. A grid goes through the values in their
    order, the last key fastest. ``metric`` is ``accuracy``, that of the reward on the held-out data, the
    default where all runs have it, ``loss``, or what ``samples.judge`` gives: ``win_rate``,
    ``win_rate_against_chosen`` or ``score``. The runs share the data, the cache of reference scores and
    the folder as those of :func:`compare` do, and are resumed in the same way; ``comparison.json`` also says
    what was varied and which run is best. Returns the folder.

    Raises :class:`PreferoError`, before anything is trained, if there are no held-out data or any of the runs
    cannot be trained.
    """
    study = Study(config, callbacks)
    space = _space(over, trials)
    if study.config.data.eval is None:
        raise PreferoError(
            "a sweep compares its runs on held-out data, and there are none: name some, or hold out a share "
            "of the training data, such as data.eval=0.1"
        )
    written = {key: str(one) if isinstance(one, Range) else list(one) for key, one in space.items()}
    study.record["sweep"] = {"over": written, "trials": trials, "values": {}}
    if trials is None:
        _grid(study, {key: one for key, one in space.items() if not isinstance(one, Range)}, metric)
    else:
        _trials(study, space, trials, metric)
    return study.end()


def _grid(study: Study, space: Mapping[str, Sequence[Any]], metric: str | None) -> None:
    """Train with every combination of the values."""
    combinations = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    named = dict(zip(run_names(combinations), combinations, strict=True))
    variants = [study.variant(name, values) for name, values in named.items()]
    study.record["sweep"] |= {"values": named, "metric": _metric(metric, variants, study)}
    with study.running(variants):
        for variant in variants:
            study.run(variant)


def _trials(
    study: Study, space: Mapping[str, Range | Sequence[Any]], trials: int, metric: str | None
) -> None:
    """Train with values that are proposed one after another. Those of an earlier part of the sweep stay."""
    record, earlier = study.record["sweep"], study.earlier.get("sweep", {})
    record["metric"] = _metric(
        metric, [study.variant(name, values) for name, values in _probes(space)], study
    )
    if earlier and earlier.get("over") != finite(record["over"]):
        before = ", ".join(f"{key}={_text(values)}" for key, values in earlier.get("over", {}).items())
        raise PreferoError(
            f"{study.config.output} holds a sweep over {before}: repeat that to resume it, or name another "
            "output folder"
        )
    record["values"] = dict(itertools.islice(earlier.get("values", {}).items(), trials))
    variants = [study.variant(name, values) for name, values in record["values"].items()]
    seed, higher = study.config.seed, METRICS[record["metric"]]
    with study.running(variants):
        for number in range(trials):
            if number == len(variants):
                results = measured(study.record)
                history = [(record["values"][name], result) for name, result in results.items()]
                name, values = f"trial-{number}", suggested(space, seed, number, history, higher=higher)
                record["values"][name] = values
                variants.append(study.variant(name, values))
                study.add(variants[-1])
            study.run(variants[number])


def _metric(metric: str | None, variants: Sequence[Variant], study: Study) -> str:
    """The metric to choose by; by default the accuracy, where all runs have one. Raises :class:`PreferoError`
    for one that the runs do not have."""
    if metric not in (None, *METRICS):
        raise PreferoError(f"metric is {metric!r}: a sweep chooses by one of {', '.join(METRICS)}")
    against = JUDGED.get(metric or "")
    for samples in [each.config.samples for each in variants] if metric in JUDGED else ():
        if samples.judge is None or against not in (None, samples.against):
            also = "" if against is None else f", and samples.against={against}"
            raise PreferoError(f"metric is {metric}, which a judge gives: set samples.judge{also}")
    without = [each.objective.key for each in variants if not _has_accuracy(each.objective)]
    if metric == "accuracy" and without:
        raise PreferoError(
            f"metric is accuracy, and {without[0]} compares no pairs that a reward could order: choose by "
            "loss"
        )
    chosen = metric or ("loss" if without else "accuracy")
    over = study.record["sweep"]["over"]
    if chosen == "loss" and any(key.startswith("objective") for key in over):
        study.tell("losses of different objectives differ in scale: the lowest is not the best for that")
    if "seed" in over and isinstance(study.config.data.eval, float):
        study.tell("data.eval is a share that is drawn by the seed: runs are measured on different rows")
    return chosen


def _has_accuracy(objective: Objective) -> bool:
    """Whether the rewards of an objective order pairs."""
    return primary(objective) is not None and {"chosen", "rejected"} <= set(dry_run(objective).roles)


def run_names(combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each combination of values, which is safe as that of a folder: ``beta-0.05``, with several
    keys ``beta-0.05_learning_rate-1e-06``. Long values are cut and get a hash."""
    names: dict[str, None] = {}
    for values in combinations:
        last = [key.rpartition(".")[2] for key in values]
        short = [part if last.count(part) == 1 else key for key, part in zip(values, last, strict=True)]
        name = "_".join(
            f"{_safe(key)}-{_safe(_text(value))}" for key, value in zip(short, values.values(), strict=True)
        )
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        names[unused_name(name, names)] = None
    return list(names)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(finite(value))


def _safe(text: str) -> str:
    """The text as a part of a folder's name."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "-", re.sub(r"[\[\]{}()\"'\s]", "", text))
    if plain and len(plain) <= LONGEST_VALUE:
        return plain
    return f"{plain[: LONGEST_VALUE - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _space(over: Mapping[str, Sequence[Any] | str], trials: int | None) -> dict[str, Range | tuple[Any, ...]]:
    """The values of each key, or the range that they are proposed from. Raises :class:`PreferoError` for keys
    that cannot be varied and values that make no sweep."""
    if not over:
        raise PreferoError("name what to vary, such as --over objective.beta=0.05,0.1,0.5")
    if trials is not None and trials < 1:
        raise PreferoError(f"trials is {trials}: a sweep has at least one")
    space: dict[str, Range | tuple[Any, ...]] = {}
    for key, given in over.items():
        if key in FIXED:
            raise PreferoError(f"{key} cannot be varied: the runs of a sweep have it in common")
        if isinstance(given, str):
            space[key] = Range.parse(key, given)
            if trials is None:
                raise PreferoError(
                    f"{key} is the range {given}, which has no grid: give trials (--trials 20), or list "
                    "values"
                )
            continue
        values = tuple(given.tolist()) if isinstance(given, np.ndarray) else tuple(given)
        written = [_text(value) for value in values]
        twice = [text for text in written if written.count(text) > 1]
        if twice or not values:
            told = f"has {twice[0]} twice" if twice else "has no values"
            raise PreferoError(f"{key} {told}: list each value once, such as {key}=1,2,3")
        space[key] = values
    sizes = [len(values) for values in space.values() if not isinstance(values, Range)]
    if len(sizes) == len(space):
        runs = math.prod(sizes)
        if runs < 2:
            raise PreferoError(f"{', '.join(space)}: one value each makes a single run, which train is for")
        if trials is not None and trials >= runs:
            raise PreferoError(f"the grid has {runs} runs: leave trials out, or make them fewer")
    return space


def _probes(space: Mapping[str, Range | Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs that stand for all that may be proposed: each key once at both ends of its range and at each of
    its values, the others at their first."""
    options = {key: one.ends if isinstance(one, Range) else tuple(one) for key, one in space.items()}
    first = {key: values[0] for key, values in options.items()}
    for key, values in options.items():
        for value in values:
            yield f"{key}={_text(value)}", {**first, key: value}
