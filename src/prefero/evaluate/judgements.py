"""A judge's preferences between models' responses and a baseline's, as files hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from prefero.data.examples import Text
from prefero.data.files import ENDINGS, load_rows
from prefero.data.formats.fields import Fields
from prefero.errors import PreferoError
from prefero.evaluate.length_control import LARGEST, Anchors
from prefero.storage import replacing, write_lines


@dataclass(frozen=True, slots=True)
class Judgement:
    """``preference`` is how probably the model's response is preferred to the baseline's, 0 to 1. Lengths are
    in characters, as AlpacaEval's. ``difficulty`` of the prompt is in logits, ``score`` the judge's own.
    ``judge`` and ``against`` are the names of the judge and of the baseline. ``beside`` tells apart prompts
    of the same text: a digest of their images, tools and template options, None where there are none."""

    model: str
    prompt: Text
    preference: float
    length: float | None = None
    baseline_length: float | None = None
    difficulty: float | None = None
    response: str | Image.Image | None = None
    baseline: str | Image.Image | None = None
    score: float | None = None
    judge: str | None = None
    against: str | None = None
    beside: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The known fields."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in known.items() if value is not None}


STORED = ("annotations.json", "judgements.jsonl")
"""The names of files of judgements, where a folder is given: AlpacaEval's, and those of an evaluation."""


JUDGES = ("run.json", "config.json", "adapter_config.json", "model_index.json")
"""Files of a folder that is a run or a model."""


def judgement_files(path: str | Path) -> list[Path]:
    """The files of judgements that a path names: a file of rows, or a folder with files of the names
    :data:`STORED` anywhere inside it. None for any other path: the folder of a run or a model is a judge."""
    path = Path(path)
    if path.name.lower().endswith(tuple(ENDINGS)):
        return [path]
    if not path.is_dir() or any((path / name).is_file() for name in JUDGES):
        return []
    return sorted(file for name in STORED for file in path.rglob(name))


def read_all_judgements(paths: Iterable[str | Path]) -> list[Judgement]:
    """The judgements in several files. Raises :class:`PreferoError` as :func:`read_judgements` does, and for
    a model that is in two of the files."""
    judged: list[Judgement] = []
    origin: dict[str, str | Path] = {}
    for path in paths:
        read = read_judgements(path)
        for model in by_model(read):
            if model in origin:
                raise PreferoError(
                    f"{origin[model]} and {path} both have judgements of {model!r}: give one of them, or "
                    "each model a name of its own in the rows (model)"
                )
            origin[model] = path
        judged += read
    return judged


def read_judgements(path: str | Path) -> list[Judgement]:
    """The judgements in a file of rows (JSONL, JSON, CSV, Parquet): ``prompt``, ``preference`` from 0 to 1,
    and optionally ``model``, ``response`` and ``baseline`` (or ``length`` and ``baseline_length``),
    ``difficulty``, ``score``, ``judge``, ``against`` and ``beside``; or AlpacaEval's ``annotations.json``,
    with 1 for the baseline, 2 for the model, 0 for a tie.

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
        *(fields.text(name) if name in fields else None for name in ("judge", "against", "beside")),
    )


def _length(fields: Fields, name: str, text: str | None) -> float | None:
    if name in fields:
        length = fields.number(name)
        if not 0 <= length <= LARGEST:
            fields.fail(name, f"found {length:g}", f"a number of characters, 0 to {LARGEST:g}")
        return length
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
        judge=fields.text("annotator") if "annotator" in fields else None,
        against=fields.text("generator_1") if "generator_1" in fields else None,
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


def write_judgements(folder: Path, judged: Sequence[Judgement]) -> None:
    """Write ``judgements.jsonl``, from which the judgements are read again. Images are written to ``images``
    beside it, each once; a row names its own as ``image`` and ``baseline_image``."""
    files: dict[int, str] = {}
    rows = []
    for number, each in enumerate(judged, 1):
        row = each.as_dict()
        for name, image, of in (
            ("response", "image", each.model),
            ("baseline", "baseline_image", "baseline"),
        ):
            content = row.get(name)
            if not isinstance(content, Image.Image):
                continue
            if id(content) not in files:
                of = each.model if name == "response" else name
                file = f"images/{number:05d}-{re.sub(r'[^A-Za-z0-9._-]', '_', of)[:80]}.png"
                with replacing(folder / file) as draft:
                    content.save(draft, "PNG")
                files[id(content)] = file
            del row[name]
            row[image] = files[id(content)]
        rows.append(row)
    write_lines(folder / "judgements.jsonl", rows)


def one_judge(judged: Sequence[Judgement]) -> tuple[str | None, str | None]:
    """The judge and the baseline of judgements, None where they do not say. Raises :class:`PreferoError` for
    several: their preferences are not of one scale."""
    names = []
    for what, given in (
        ("judges", (each.judge for each in judged)),
        ("baselines", (each.against for each in judged)),
    ):
        known = sorted({name for name in given if name is not None})
        if len(known) > 1:
            raise PreferoError(
                f"the judgements are of {len(known)} {what}: {', '.join(known)}. Give those of one, as files"
            )
        names.append(known[0] if known else None)
    return names[0], names[1]
