"""``prefero.inspect``: all checks on a data set, and their findings in order of importance."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prefero.data.examples import Example, Examples
from prefero.data.files import Source
from prefero.data.formats import row_function
from prefero.data.preview import Preview, preview_rows
from prefero.doctor.checks import Check, Finding, Look, Remedy, Unasked, in_order
from prefero.doctor.commands import Commands, save_rows
from prefero.doctor.contents import check_marks, check_rows, check_scripts
from prefero.doctor.corpus import (
    Corpus,
    facts,
    histogram,
    lengths as lengths_of,
    of_examples,
    quantiles,
    read,
)
from prefero.doctor.labels import check_labels, check_scores
from prefero.doctor.length import FATES, check_length, check_truncation
from prefero.doctor.nearness import check_nearness, check_overlap
from prefero.doctor.reading import check_reading
from prefero.doctor.repeats import check_repeats
from prefero.doctor.sides import check_differences, check_words, check_writers
from prefero.errors import PreferoError, nearest

if TYPE_CHECKING:
    from prefero.data.tokenize import TooLong

CHECKS: Mapping[str, Check] = {
    "contents of rows": check_rows,
    "reading": check_reading,
    "scores": check_scores,
    "template marks": check_marks,
    "scripts": check_scripts,
    "lengths": check_length,
    "truncation": check_truncation,
    "repetitions": check_repeats,
    "near repetitions": check_nearness,
    "overlap": check_overlap,
    "differences within pairs": check_differences,
    "writers": check_writers,
    "words": check_words,
    "annotators and wrong labels": check_labels,
}
"""The checks that need no model, by name."""

OF_TEXTS = (
    "template marks",
    "scripts",
    "lengths",
    "truncation",
    "near repetitions",
    "differences within pairs",
    "words",
)
"""The checks that read the texts of responses, so that images have none of them."""

NO_MODEL = Unasked(
    "Checks with the model: ranking, displacement, distance from its own samples, cost",
    "no model was named (--model)",
)

REMOVE_ALWAYS = (
    "bare",
    "identical",
    "duplicates",
    "contradictions",
    "near_contradictions",
    "scores",
    "markup",
    "overlap",
)
"""Findings whose rows are harmful whatever is trained."""

FIRST_ROWS = 3
"""Rows that are shown."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The findings, those to act on first, and the checks that were skipped (``unasked``). ``lengths`` and
    ``histogram`` are in characters. ``held_out`` are rows of the same source that were set aside and not
    counted. ``limited`` tells that there may be more rows than were read. ``preview`` has the first rows, as
    the model reads them if there is one."""

    name: str
    format: str
    rows: int
    pairs: int
    findings: tuple[Finding, ...]
    unasked: tuple[Unasked, ...]
    facts: tuple[tuple[str, int], ...]
    lengths: Mapping[str, Mapping[str, float]]
    histogram: tuple[Sequence[float], Mapping[str, Sequence[float]]]
    seconds: float
    commands: Commands
    limited: bool
    preview: Preview
    examples: Examples = field(repr=False, compare=False)
    held_out: Sequence[Example] = field(repr=False, compare=False)
    source: Source = field(repr=False, compare=False)
    split: str = "train"

    def __getitem__(self, key: str) -> Finding:
        """The finding with that key."""
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(finding.key == key for finding in self.findings)

    def without(self, keys: Collection[str]) -> tuple[int, ...]:
        """The positions of the examples in none of these findings. Raises :class:`PreferoError` for an
        unknown key."""
        removed: set[int] = set()
        for key in keys:
            if key == "unreadable":
                continue
            if key not in self:
                known = [finding.key for finding in self.findings]
                raise PreferoError(
                    f"no finding is called {key!r}{nearest(key, known)}. Findings here: {', '.join(known)}."
                )
            removed.update(self[key].rows)
        return tuple(row for row in range(self.rows) if row not in removed)

    def save(self, file: str | Path, *, without: Collection[str]) -> int:
        """Write the rows of the source, unchanged, without unreadable ones and those of some findings; return
        their number. Raises :class:`PreferoError` for an unknown key, and if the file cannot be written."""
        kept_examples = [*(self.examples[row] for row in self.without(without)), *self.held_out]
        kept = {origin for example in kept_examples for origin in (example.origin, *example.joined)}
        return save_rows(self.source, file, kept, split=self.split)

    @property
    def extent(self) -> str:
        """The number of rows, in words, and whether they are the first of more."""
        return f"the first {self.rows:,} rows (--limit)" if self.limited else f"{self.rows:,} rows"

    @property
    def clearing(self) -> Remedy | None:
        """The removal of all rows that are harmful whatever is trained, if several findings have such
        rows."""
        found = [each for each in self.findings if each.rows and each.level != "fine"]
        keys = [finding.key for finding in found if finding.key in REMOVE_ALWAYS]
        if len(keys) < 2:
            return None
        removed = self.rows - len(self.without(keys))
        return Remedy(
            f"Remove all rows at once that are harmful whatever is trained: {removed:,} of {self.rows:,}.",
            self.commands.without(*keys),
        )

    def as_dict(self) -> dict[str, Any]:
        """The inspection as JSON has it."""
        return {
            "name": self.name,
            "format": self.format,
            "rows": self.rows,
            "limited": self.limited,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 1),
            "first_rows": self.preview.in_texts(),
            "template": self.preview.template,
            "max_length": self.preview.max_length,
            "facts": dict(self.facts),
            "lengths": self.lengths,
            "findings": [asdict(finding) for finding in self.findings],
            "not_looked_at": [asdict(skipped) for skipped in self.unasked],
        }


def inspect(
    data: Source,
    *,
    eval_data: Source | float | None = None,
    model: Any = None,
    processor: Any = None,
    rows: int = 256,
    max_length: int | None = None,
    split: str = "train",
    eval_split: str = "test",
    format: str = "auto",
    columns: Mapping[str, str] = MappingProxyType({}),
    map: str | Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    template: str = "auto",
    too_long: TooLong = "cut_response",
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda name: None,
) -> Inspection:
    """Inspect preference data before a model is trained on them.

    Args:
        data: as :func:`prefero.load_examples` takes it. Rows that cannot be read are a finding.
        eval_data: held-out data, read in the same way; or the share of the data to hold out, as in training.
        model: the model to be aligned: a hub name, a folder, a
            :class:`~prefero.models.loading.ModelSource`, or a model; ``processor`` is its tokenizer, if it
            is not beside the model. With a model there are more checks: how it orders the pairs, which pairs
            would displace the chosen response, how far the responses are from its own samples, and what
            training costs.
        rows: the number of pairs that the model scores, drawn at random.
        max_length: the limit in tokens for the check of truncation; with a model by default that of training.
        split: the split of the data, where there are several; ``eval_split`` likewise.
        format: the layout of the rows, or ``"auto"``.
        columns: fields under other names in the source, such as ``{"prompt": "context"}``.
        map: a function that makes a row of each row, or its name, ``"module:function"``.
        template: ``"none"`` turns the model's chat template off.
        too_long: what becomes of rows of more tokens than ``max_length``, as in training. The model scores
            none that are left out.
        limit: the largest number of rows to read.
        seed: of everything that is sampled.
        progress: called with the name of each stage.

    Raises:
        PreferoError: no row can be read, there is no such model, or an argument is out of range; before any
            check.
    """
    started = time.perf_counter()
    _check_arguments(eval_data, max_length, too_long, limit)
    policy = None
    if model is not None:
        from prefero.doctor.policy import Policy

        policy = Policy.of(
            model,
            processor,
            rows=rows,
            max_length=max_length,
            template=template,
            too_long=too_long,
            seed=seed,
        )
    progress("rows")
    function = row_function(map) if isinstance(map, str) else map
    reading = partial(read, format=format, columns=columns, map=function)
    corpus, data = reading(data, split=split, limit=limit)
    corpus, held_out, set_aside = _held_out(corpus, eval_data, eval_split, reading, seed)
    options = {
        "split": split,
        "eval_split": eval_split,
        "format": format,
        "columns": ",".join(f"{name}={column}" for name, column in columns.items()),
        "map": map if isinstance(map, str) else None,
        "template": template,
        "max_length": max_length,
        "too_long": too_long,
        "limit": limit,
    }
    commands = _commands(data, eval_data, policy.kind.model_name if policy else None, options)
    look = Look(corpus, commands, held_out, max_length, too_long, seed, policy, progress)
    results = list(_results(look))
    return _inspection(look, results, set_aside, data, split, time.perf_counter() - started)


def _check_arguments(
    eval_data: Source | float | None, max_length: int | None, too_long: str, limit: int | None
) -> None:
    if too_long not in FATES:
        raise PreferoError(
            f"too_long is {too_long!r}{nearest(too_long, FATES)}; expected one of {', '.join(FATES)}."
        )
    for name, value, least in (("max_length", max_length, 2), ("limit", limit, 1)):
        if value is not None and value < least:
            raise PreferoError(f"{name} is {value}; expected at least {least}.")
    if isinstance(eval_data, int | float) and not 0 < eval_data < 1:
        raise PreferoError(f"eval_data is {eval_data}; a share to hold out lies between 0 and 1.")


def _held_out(
    corpus: Corpus,
    eval_data: Source | float | None,
    split: str,
    reading: Callable[..., tuple[Corpus, Source]],
    seed: int,
) -> tuple[Corpus, Corpus | None, Sequence[Example]]:
    """The corpus to check, the held-out one, and the rows of the source that were set aside for it."""
    if not isinstance(eval_data, int | float):
        if eval_data is None:
            return corpus, None, ()
        held_out = reading(eval_data, split=split)[0]
        return corpus, held_out, ()
    kept, set_aside = corpus.examples.hold_out(eval_data, seed)
    if not len(set_aside):
        raise PreferoError(f"eval_data = {eval_data} holds out none of the {len(corpus)} rows.")
    return of_examples(kept), of_examples(set_aside), set_aside


def _results(look: Look) -> Iterator[Finding | Unasked]:
    checks = dict(CHECKS)
    if look.policy is None:
        yield NO_MODEL
    else:
        from prefero.doctor.model import check_model

        checks["the model"] = check_model
        if look.corpus.pairs:
            look.progress("tokens")
            look.policy.read_some(look.corpus.examples, [pair.row for pair in look.corpus.pairs])
    if look.corpus.drawn:
        yield Unasked(f"Checks of texts: {', '.join(OF_TEXTS)}", "the responses are images")
    for name, check in checks.items():
        if not (look.corpus.drawn and name in OF_TEXTS):
            look.progress(name)
            yield from check(look)


def _inspection(
    look: Look,
    results: Sequence[Finding | Unasked],
    set_aside: Sequence[Example],
    source: Source,
    split: str,
    seconds: float,
) -> Inspection:
    corpus, lengths = look.corpus, lengths_of(look.corpus)
    return Inspection(
        corpus.examples.name,
        corpus.examples.format,
        len(corpus),
        len(corpus.pairs),
        in_order(result for result in results if isinstance(result, Finding)),
        tuple(result for result in results if isinstance(result, Unasked)),
        tuple(facts(corpus)),
        quantiles(lengths),
        histogram(lengths),
        seconds,
        look.commands,
        look.commands.reading.get("limit") == len(corpus) + len(set_aside),
        _preview(look),
        corpus.examples,
        set_aside,
        source,
        split,
    )


def _preview(look: Look) -> Preview:
    """The first rows, as the model reads them if there is one that reads pairs."""
    if look.policy is not None and look.corpus.pairs:
        return look.policy.preview(FIRST_ROWS)
    return preview_rows(look.corpus.examples, (), FIRST_ROWS)


DEFAULTS = {
    "split": "train",
    "eval_split": "test",
    "format": "auto",
    "columns": "",
    "map": None,
    "template": "auto",
    "max_length": None,
    "too_long": "cut_response",
    "limit": None,
}


def _commands(
    data: Source, eval_data: Source | float | None, model: str | None, options: Mapping[str, Any]
) -> Commands:
    return Commands(
        str(data) if isinstance(data, str | Path) else "DATA",
        str(eval_data) if isinstance(eval_data, str | Path | float) else None,
        model or None,
        {name: value for name, value in options.items() if value != DEFAULTS[name]},
    )
