"""Settings of a recipe that are varied: every combination of values, or those that Optuna proposes."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective, primary
from prefero.objectives.needs import dry_run
from prefero.storage import finite
from prefero.training.best import JUDGED, METRICS, measured, short_keys
from prefero.training.config import TrainConfig
from prefero.training.identity import UNRECORDED
from prefero.training.overrides import SHORT_FORMS
from prefero.training.study import Study, Variant, unused_name
from prefero.training.tuning import Range, is_range, suggested
from prefero.training.vocabulary import OLD_PLACES

FIXED = (*sorted(UNRECORDED), "data.eval", "data.eval_split", "data.eval_limit", "samples")
"""Settings that a sweep cannot vary: where and how its runs start, and what they are measured on."""

LONGEST_VALUE, LONGEST_NAME = 24, 120
"""Characters of a value in the name of a run, and of the name."""


def sweep(
    config: TrainConfig | Mapping[str, Any],
    over: Mapping[str, Iterable[Any] | str],
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
    for key, values in space.items():
        _refuse_loss(study.settings, key, () if isinstance(values, Range) else values)
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
                history = [(values, results.get(name)) for name, values in record["values"].items()]
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
        study.tell(
            "losses of different objectives differ in scale: the lowest is not the best on that account"
        )
    return chosen


def _has_accuracy(objective: Objective) -> bool:
    """Whether the rewards of an objective order pairs."""
    return primary(objective) is not None and {"chosen", "rejected"} <= set(dry_run(objective).roles)


def run_names(combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each combination of values, which is safe as that of a folder: ``beta-0.05``, with several
    keys ``beta-0.05_learning_rate-1e-06``. Long values are cut and get a hash."""
    names: dict[str, None] = {}
    for values in combinations:
        name = "_".join(
            f"{_safe(key)}-{_safe(_text(value))}"
            for key, value in zip(short_keys(list(values)), values.values(), strict=True)
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


def _space(over: Mapping[str, Iterable[Any] | str], trials: int | None) -> dict[str, Range | tuple[Any, ...]]:
    """The values of each key, or the range that they are proposed from. Raises :class:`PreferoError` for keys
    that cannot be varied and values that make no sweep."""
    if not over:
        raise PreferoError("name what to vary, such as --over objective.beta=0.05,0.1,0.5")
    if not isinstance(over, Mapping):
        raise PreferoError(f"over is {over!r}: it maps settings to values, {{'objective.beta': [0.05, 0.1]}}")
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise PreferoError(f"trials is {trials!r}: it is the number of runs, at least one")
    _refuse_keys(list(over))
    space: dict[str, Range | tuple[Any, ...]] = {}
    for key, given in over.items():
        if isinstance(given, str):
            space[key] = Range.parse(key, given)
            if trials is None:
                raise PreferoError(
                    f"{key} is the range {given}, which has no grid: give trials (--trials 20), or list "
                    "values"
                )
            continue
        values = _listed(key, given)
        written = [_text(value) for value in values]
        twice = [text for text in written if written.count(text) > 1]
        if twice or not values:
            told = f"has {twice[0]} twice" if twice else "has no values"
            raise PreferoError(f"{key} {told}: list each value once, such as {key}=1,2,3")
        space[key] = values
    runs = math.prod(one.size if isinstance(one, Range) else len(one) for one in space.values())
    if runs < 2:
        told = ", ".join(
            f"{key} is {values[0]!r}" for key, values in space.items() if isinstance(values, tuple)
        )
        raise PreferoError(
            f"{told}: one value each makes a single run, which train is for. Several are separated by commas"
        )
    if trials is not None and trials >= runs:
        ranges = [f"{key}={one}" for key, one in space.items() if isinstance(one, Range)]
        if not ranges:
            raise PreferoError(f"the grid has {runs} runs: leave trials out, or make them fewer")
        raise PreferoError(
            f"trials is {trials}, and {', '.join(ranges)} of whole numbers has {runs} combinations with the "
            "rest: list the values and leave trials out, or write an end with a point, such as 1.0, for the "
            "numbers between"
        )
    return space


def _refuse_keys(keys: Sequence[Any]) -> None:
    """Raise :class:`PreferoError` for keys of no setting, of those that the runs have in common, and of one
    that is a part of another."""
    for key in keys:
        if not isinstance(key, str) or key != key.strip() or not all(key.split(".")):
            raise PreferoError(f"{key!r} is no key of a recipe, such as objective.beta")
        place = OLD_PLACES.get(key, key)
        for fixed in FIXED:
            if _within(place, fixed):
                raise PreferoError(f"{key} cannot be varied: the runs of a sweep have it in common")
            if _within(fixed, place):
                raise PreferoError(
                    f"{key} cannot be varied as a whole: the runs of a sweep have {fixed} in common. Vary "
                    f"what is in it, such as {key}.{'train' if key == 'data' else 'learning_rate'}"
                )
        for other in keys:
            if other != key and _within(str(other), key):
                raise PreferoError(f"{other} is a part of {key}, and both are varied: vary one of the two")


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def _listed(key: str, given: Any) -> tuple[Any, ...]:
    """The values that are listed for a key, numbers of arrays and tensors as numbers."""
    given = _plain(given)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise PreferoError(f"{key} is {given!r}: give a list of values, or a range such as 0.1..0.5")
    values = tuple(_plain(value) for value in given)
    for value in values:
        if isinstance(value, str) and is_range(value):
            raise PreferoError(f"{key} has {value} among its values: a range stands alone, {key}={value}")
    return values


def _plain(value: Any) -> Any:
    """The value as a recipe has it: numbers and lists for those of NumPy and PyTorch, a text for a path."""
    return value.tolist() if hasattr(value, "tolist") else str(value) if isinstance(value, Path) else value


def _refuse_loss(recipe: Mapping[str, Any], key: str, values: Sequence[Any]) -> None:
    """Raise :class:`PreferoError` where a value replaces a section of the recipe and leaves out what that
    says, unless it switches the section off, or is another method, which has other arguments."""
    section: Any = recipe
    for part in key.split("."):
        section = section.get(part) if isinstance(section, Mapping) else None
    short = SHORT_FORMS.get(key)
    for value in values if isinstance(section, Mapping) else ():
        new = value if isinstance(value, Mapping) else {short: value}
        method = key == "objective" and (
            new == {short: section.get(short)} or new.get(short) != section.get(short)
        )
        lost = [name for name, said in section.items() if name not in new and said is not None]
        if lost and not method and value not in (None, False):
            instead = "" if isinstance(value, Mapping) or short is None else f"vary {key}.{short}, or "
            raise PreferoError(
                f"{key}={_text(value)} would leave out {key}.{lost[0]}, which the recipe sets: {instead}give "
                "the whole section as each value"
            )


def _probes(space: Mapping[str, Range | Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs that stand for all that may be proposed: each key once at both ends of its range, and between
    them, and at each of its values, the others at their first."""
    options = {key: one.probes if isinstance(one, Range) else tuple(one) for key, one in space.items()}
    first = {key: values[0] for key, values in options.items()}
    for key, values in options.items():
        for value in values:
            yield f"{key}={_text(value)}", {**first, key: value}
