"""``prefero.inspect``: every check on a data set, in the order of what matters."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefero.data.examples import Example, Examples
from prefero.data.files import Source
from prefero.doctor.checks import (
    annotators,
    contents,
    length,
    likeness,
    markup,
    nearness,
    overlap,
    repeats,
    scores,
    scripts,
    truncation,
    words,
    writers,
)
from prefero.doctor.commands import Commands
from prefero.doctor.corpus import of_examples, read
from prefero.doctor.findings import Finding, Remedy, Unasked, in_order
from prefero.doctor.look import Check, Look
from prefero.doctor.overview import facts, histogram, quantiles
from prefero.doctor.overview import lengths as lengths_of
from prefero.doctor.saving import save_rows
from prefero.errors import PreferoError, nearest

CHECKS: Mapping[str, Check] = {
    "what rows hold": contents.check,
    "scores": scores.check,
    "marks of templates": markup.check,
    "scripts": scripts.check,
    "lengths": length.check,
    "what is cut off": truncation.check,
    "repetitions": repeats.check,
    "near repetitions": nearness.check,
    "overlap": overlap.check,
    "how pairs differ": likeness.check,
    "writers": writers.check,
    "words": words.check,
    "annotators and noise": annotators.check,
}
"""Every check that needs no model, by what it looks at."""

NO_MODEL = Unasked(
    "What the model makes of the data: ranking, displacement, distance from its own samples, cost",
    "no model was named (--model)",
)

CLEAR_CUT = (
    "bare",
    "identical",
    "duplicates",
    "contradictions",
    "near_contradictions",
    "scores",
    "markup",
    "overlap",
)
"""Findings whose rows are better left out, whatever is trained."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found, what has to be acted on first; and what was not looked at, and why.

    ``rows`` counts the examples, ``pairs`` those that compare two responses. ``lengths`` and ``histogram``
    are in characters. ``held_out`` are rows of the same source that were set aside, and are not counted.
    """

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
    examples: Examples = field(repr=False, compare=False)
    held_out: Sequence[Example] = field(repr=False, compare=False)
    source: Source = field(repr=False, compare=False)
    split: str = "train"

    def __getitem__(self, key: str) -> Finding:
        """The finding of that key."""
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(finding.key == key for finding in self.findings)

    def without(self, keys: Collection[str]) -> tuple[int, ...]:
        """The positions of the examples that none of these findings names.

        Raises :class:`PreferoError` for a key that no finding has.
        """
        out: set[int] = set()
        for key in keys:
            if key == "unreadable":
                continue
            if key not in self:
                known = [finding.key for finding in self.findings]
                raise PreferoError(
                    f"no finding is called {key!r}{nearest(key, known)}. Findings here: {', '.join(known)}."
                )
            out.update(self[key].rows)
        return tuple(row for row in range(self.rows) if row not in out)

    def save(self, file: str | Path, *, without: Collection[str]) -> int:
        """Write the rows, as they stand in the source, without those that some findings name, and without
        rows that cannot be read; how many there were.

        Raises :class:`PreferoError` for a key that no finding has, and if the file cannot be written.
        """
        kept = {self.examples[row].origin for row in self.without(without)}
        kept |= {example.origin for example in self.held_out}
        return save_rows(self.source, file, kept, split=self.split)

    @property
    def clearing(self) -> Remedy | None:
        """How to leave out all the rows at once that do harm whatever is trained; None if there are none."""
        keys = [one.key for one in self.findings if one.key in CLEAR_CUT and one.rows and one.level != "fine"]
        if len(keys) < 2:
            return None
        out = self.rows - len(self.without(keys))
        return Remedy(
            f"Leave out all rows at once that do harm whatever is trained: {out:,} of {self.rows:,}.",
            self.commands.without(*keys),
        )

    def as_dict(self) -> dict[str, Any]:
        """The inspection as JSON has it."""
        return {
            "name": self.name,
            "format": self.format,
            "rows": self.rows,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 1),
            "facts": dict(self.facts),
            "lengths": self.lengths,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_looked_at": [asdict(one) for one in self.unasked],
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
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda name: None,
) -> Inspection:
    """Look at preference data before a model is trained on them.

    Args:
        data: as :func:`prefero.load_examples` takes it. Rows that cannot be read are a finding.
        eval_data: held-out data, read alike; or the share of the data to hold out, as training would.
        model: the model that is to be aligned: a hub name, a folder, a
            :class:`~prefero.models.loading.ModelSource`, or a model; its tokenizer as ``processor``, if not
            beside it. With it also: how it orders the pairs, which will displace it, how far they are from
            what it writes, what training will cost.
        rows: how many pairs the model scores, drawn at random.
        max_length: in tokens, to say what it cuts off; with a model by default what training would take.
        split: which split of the data, where there are several; ``eval_split`` likewise.
        format: the layout of the rows, or ``"auto"``.
        limit: how many rows at most.
        seed: draws what is sampled.
        progress: told what is being looked at.

    Raises:
        PreferoError: no row can be read, there is no such model, or an argument is out of range; before
            anything is looked at.
    """
    started = time.perf_counter()
    for name, value, least in (("max_length", max_length, 2), ("limit", limit, 1)):
        if value is not None and value < least:
            raise PreferoError(f"{name} is {value}; expected at least {least}.")
    if isinstance(eval_data, int | float) and not 0 < eval_data < 1:
        raise PreferoError(f"eval_data is {eval_data}; a share to hold out lies between 0 and 1.")
    policy, checks = None, dict(CHECKS)
    if model is not None:
        from prefero.doctor.checks.model import check as of_model
        from prefero.doctor.policy import Policy

        checks["the model"] = of_model
        policy = Policy.of(model, processor, rows=rows, max_length=max_length, seed=seed)
    progress("rows")
    corpus, data = read(data, split=split, format=format, limit=limit)
    held_out = None
    held: Sequence[Example] = ()
    if isinstance(eval_data, int | float):
        kept, held = corpus.examples.hold_out(eval_data, seed)
        if not len(held):
            raise PreferoError(f"eval_data = {eval_data} holds out none of the {len(corpus)} rows.")
        held_out, corpus = of_examples(Examples(held)), of_examples(kept, corpus.further)
    elif eval_data is not None:
        held_out, _ = read(eval_data, split=eval_split, format=format)
    options = {"split": split, "eval_split": eval_split, "format": format, "max_length": max_length}
    commands = _commands(data, eval_data, policy.kind.model_name if policy else None, options)
    look = Look(corpus, commands, held_out, max_length, seed, policy)
    if policy is not None and corpus.pairs:
        from prefero.doctor.policy import TOKENIZED

        progress("tokens")
        places = [pair.row for pair in corpus.pairs]
        policy.read(corpus.examples, random.Random(seed).sample(places, min(TOKENIZED, len(places))))
    findings: list[Finding] = []
    unasked = [] if policy else [NO_MODEL]
    for name, check in checks.items():
        progress(name)
        for found in check(look):
            if isinstance(found, Finding):
                findings.append(found)
            else:
                unasked.append(found)
    lengths = lengths_of(corpus)
    return Inspection(
        corpus.examples.name,
        corpus.examples.format,
        len(corpus),
        len(corpus.pairs),
        in_order(findings),
        tuple(unasked),
        tuple(facts(corpus)),
        quantiles(lengths),
        histogram(lengths),
        time.perf_counter() - started,
        commands,
        corpus.examples,
        held,
        data,
        split,
    )


DEFAULTS = {"split": "train", "eval_split": "test", "format": "auto", "max_length": None}


def _commands(
    data: Source, eval_data: Source | float | None, model: str | None, options: Mapping[str, Any]
) -> Commands:
    return Commands(
        str(data) if isinstance(data, str | Path) else "DATA",
        str(eval_data) if isinstance(eval_data, str | Path | float) else None,
        model or None,
        {name: value for name, value in options.items() if value != DEFAULTS[name]},
    )
