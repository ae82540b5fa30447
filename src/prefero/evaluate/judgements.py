"""A judge's preferences between models' responses and a baseline's: read from files, and summarised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prefero.data.examples import Text
from prefero.data.files import load_rows
from prefero.data.formats.fields import Fields
from prefero.errors import PreferoError
from prefero.evaluate.intervals import mean
from prefero.evaluate.length_control import Anchors, length_controlled_win_rate
from prefero.evaluate.win_rate import win_rate_of


@dataclass(frozen=True, slots=True)
class Judgement:
    """``preference`` is how probably the model's response is preferred to the baseline's, 0 to 1. Lengths are
    in characters, as AlpacaEval's. ``difficulty`` of the prompt is in logits, ``score`` the judge's own."""

    model: str
    prompt: Text
    preference: float
    length: float | None = None
    baseline_length: float | None = None
    difficulty: float | None = None
    response: str | None = None
    baseline: str | None = None
    score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The known fields."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_judgements(path: str | Path) -> list[Judgement]:
    """The judgements in a file of rows (JSONL, JSON, CSV, Parquet): ``prompt``, ``preference`` from 0 to 1,
    and optionally ``model``, ``response`` and ``baseline`` (or ``length`` and ``baseline_length``),
    ``difficulty``, ``score``; or AlpacaEval's ``annotations.json``, with 1 for the baseline, 2 for the model,
    0 for a tie.

    Raises:
        PreferoError: a row has neither form.
    """
    judgements = []
    for row in load_rows(path):
        if row.problem:
            raise PreferoError(row.problem)
        fields = Fields(row)
        judgements.append(_alpaca_eval(fields) if "output_2" in fields else _judgement(fields))
    if not judgements:
        raise PreferoError(f"{path} holds no judgements.")
    return judgements


def _judgement(fields: Fields) -> Judgement:
    preference = fields.number("preference", "how probably the model's response is preferred, 0 to 1")
    if not 0 <= preference <= 1:
        fields.fail("preference", f"found {preference}", "a probability from 0 to 1")
    response, baseline = (fields.text(name) if name in fields else None for name in ("response", "baseline"))
    return Judgement(
        fields.text("model") if "model" in fields else "model",
        fields.turns("prompt"),
        preference,
        _length(fields, "length", response),
        _length(fields, "baseline_length", baseline),
        fields.number("difficulty") if "difficulty" in fields else None,
        response,
        baseline,
        fields.number("score") if "score" in fields else None,
    )


def _length(fields: Fields, name: str, text: str | None) -> float | None:
    if name in fields:
        return fields.number(name)
    return None if text is None else float(len(text))


def _alpaca_eval(fields: Fields) -> Judgement:
    preference = fields.number("preference", "1 (the baseline) to 2 (the model), 0 for a tie")
    if preference and not 1 <= preference <= 2:
        fields.fail("preference", f"found {preference}", "1 (the baseline) to 2 (the model), 0 for a tie")
    response, baseline = fields.text("output_2"), fields.text("output_1")
    return Judgement(
        fields.text("generator_2") if "generator_2" in fields else "model",
        fields.text("instruction"),
        preference - 1 if preference else 0.5,
        float(len(response)),
        float(len(baseline)),
        fields.number("instruction_difficulty") if "instruction_difficulty" in fields else None,
        response,
        baseline,
    )


def read_anchors(path: str | Path) -> tuple[Anchors, dict[int, float]]:
    """AlpacaEval's gamed baselines (``df_gamed.csv``), for win rates as on its leaderboard, and the
    difficulty of each instruction by its index. Raises :class:`PreferoError` if a row lacks a column."""
    preferences, lengths, difficulties, by_index = [], [], [], dict[int, float]()
    for row in load_rows(path):
        if row.problem:
            raise PreferoError(row.problem)
        fields = Fields(row)
        difficulty = fields.number("instruction_difficulty")
        by_index.setdefault(int(fields.number("index")), difficulty)
        if fields.values.get("preference") not in (None, ""):  # some were never judged
            preferences.append(fields.number("preference"))
            lengths.append(fields.number("std_delta_len"))
            difficulties.append(difficulty)
    return Anchors(preferences, lengths, difficulties), by_index


def with_difficulties(judged: Sequence[Judgement], by_index: Mapping[int, float]) -> list[Judgement]:
    """The judgements of one model, one per instruction of AlpacaEval in their order, with their
    difficulties."""
    if len(judged) != len(by_index):
        raise PreferoError(
            f"{judged[0].model if judged else 'the model'} has {len(judged)} judgements; there are "
            f"difficulties of {len(by_index)} instructions. Give a judgement for each, in their order."
        )
    return [replace(judgement, difficulty=by_index[index]) for index, judgement in enumerate(judged)]


def by_model(judged: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """The judgements of each model, in their order."""
    models: dict[str, list[Judgement]] = {}
    for judgement in judged:
        models.setdefault(judgement.model, []).append(judgement)
    return models


FEWEST = 10
"""Comparisons that a length-controlled win rate needs: two in each of five folds."""


def summary(judged: Sequence[Judgement], anchors: Anchors | None = None) -> dict[str, Any]:
    """A row of ``evaluation.json`` for one model, with 95 % intervals over prompts. Several responses to a
    prompt count as one comparison, their mean; in the length control each counts."""
    prompts = [each.prompt if isinstance(each.prompt, str) else repr(each.prompt) for each in judged]
    rate = win_rate_of([each.preference for each in judged], prompts=prompts)
    estimates = {"win_rate": (rate.rate, rate.interval)}
    ours, theirs = [each.length for each in judged], [each.baseline_length for each in judged]
    difficulties = [each.difficulty for each in judged]
    if None not in ours and None not in theirs and len(judged) >= FEWEST:
        controlled = length_controlled_win_rate(
            [each.preference for each in judged],
            [length for length in ours if length is not None],
            [length for length in theirs if length is not None],
            difficulty=None if None in difficulties else [each for each in difficulties if each is not None],
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
