"""Several runs from one recipe: methods side by side, and settings varied. They share the data that are read,
the cache of reference scores and a ``comparison.json``; each has a run folder of its own."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefero.data.arrange import arrange
from prefero.data.examples import Examples
from prefero.data.pictures import Picture
from prefero.errors import PreferoError, number_of
from prefero.models.kind import Kind
from prefero.objectives.compare import Objective
from prefero.objectives.needs import dry_run
from prefero.storage import check_output, finite, write_json
from prefero.training.best import OTHER_ROWS, note, ranked
from prefero.training.checkpoints import complete_checkpoints, shown
from prefero.training.config import TrainConfig, read_settings
from prefero.training.identity import UNRECORDED, leaves, of_objective
from prefero.training.lock import FolderLock, refuse_running
from prefero.training.overrides import override
from prefero.training.resuming import NotFiniteError
from prefero.training.run import arguments, checked, read_examples, train_checked
from prefero.training.run_folder import record_of
from prefero.training.trainer import PreferenceTrainer

RECORD = "comparison.json"
"""What the runs are and what was measured of each, in the folder that holds their folders."""


def compare(
    config: TrainConfig | Mapping[str, Any],
    methods: Sequence[str | Mapping[str, Any]],
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train several methods from the same start on the same data and the same cache of reference scores.

    Each has a run folder of its own inside the recipe's output folder, which gets a ``comparison.json``. The
    recipe's own objective is used where it is the method's. Returns the folder. Nothing is trained unless all
    methods can be. With ``training.resume_from_checkpoint: auto`` runs that are finished are kept, and the
    others resume from their last checkpoint or start; a run whose loss is not finite ends, and the others
    continue.
    """
    if isinstance(methods, str) or not methods:
        raise PreferoError(f"methods is {methods!r}: list those to compare, such as ['dpo', 'simpo']")
    study = Study(config, callbacks)
    variants: dict[str, Variant] = {}
    for method in methods:
        key = method.get("method") if isinstance(method, Mapping) else method
        if not isinstance(key, str):
            raise PreferoError(
                f"{method!r} is no method: name it, or give a mapping with `method` and its arguments"
            )
        name = unused_name(key, variants)
        variants[name] = study.variant(name, {"objective": method})
    with study.running(list(variants.values())):
        for variant in variants.values():
            study.run(variant)
    return study.end()


@dataclass(frozen=True)
class Variant:
    """A run of a study, checked. ``kept`` is one that an earlier part of the study has finished."""

    name: str
    config: TrainConfig
    objective: Objective
    kind: Kind
    kept: bool


class Study:
    """Runs from one recipe inside its output folder, and the ``comparison.json`` about them, which is written
    before the first run and after each.

    Raises :class:`PreferoError` where the folder holds a run, or a comparison that is neither to be resumed
    nor to be replaced.
    """

    def __init__(
        self, config: TrainConfig | Mapping[str, Any], callbacks: Sequence[TrainerCallback] = ()
    ) -> None:
        self.config = config if isinstance(config, TrainConfig) else TrainConfig.parse(config)
        self.callbacks = callbacks
        self.settings = (
            config.model_dump(exclude_unset=True) if isinstance(config, TrainConfig) else dict(config)
        )
        if self.settings.get("training"):
            self.settings["training"] = read_settings(self.settings["training"], "training.")
        self.record: dict[str, Any] = {"runs": [], "finished": [], "data": {}, "held_out": {}, "start": {}}
        check_output(self.config.output, "folder")
        self._writes = arguments(self.config).process_index == 0
        if self._writes:
            refuse_running(self.config.output)
        self._wanted = self.config.training.resume_from_checkpoint
        self._before: Mapping[str, Any] = {}
        self.earlier = self._earlier()
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._variants: dict[str, Variant] = {}
        self._read: dict[tuple[str, int], tuple[Examples, Examples | None, str]] = {}
        self._arranged: set[Any] = set()

    def _earlier(self) -> Mapping[str, Any]:
        """The record of an earlier part of this study; empty where it is not to be resumed."""
        folder, wanted = self.config.output, self._wanted
        if (folder / "run.json").is_file():
            raise PreferoError(f"{folder} holds a single run: name another folder for a comparison")
        if not wanted:
            if (folder / RECORD).is_file() and not self.config.training.overwrite:
                raise PreferoError(
                    f"{folder} holds a comparison: name another output folder, resume it with "
                    "training.resume_from_checkpoint=auto, or replace it with training.overwrite=true"
                )
            with suppress(PreferoError):  # of a record that is replaced
                self._before = _recorded(folder / RECORD)
            return {}
        if wanted not in (True, "auto"):
            raise PreferoError(
                f"training.resume_from_checkpoint is {wanted}, a checkpoint of one run, and these are "
                "several: auto resumes each from its last"
            )
        self._before = _recorded(folder / RECORD)
        if wanted is True and not self._before:
            raise PreferoError(
                f"{folder} holds no comparison to resume; training.resume_from_checkpoint=auto starts one "
                "where there is none"
            )
        return self._before

    # Before anything is trained

    def variant(self, name: str, values: Mapping[str, Any]) -> Variant:
        """The run of the recipe with these settings, by their dotted keys. Raises :class:`PreferoError`
        naming the run, for all that can be wrong before data and weights are looked at. A method that is the
        recipe's and has no arguments of its own has those of the recipe."""
        own = self.config.objective
        if values.get("objective") in (own.get("method"), {"method": own.get("method")}):
            values = {**values, "objective": own}
        try:
            settings = override(self.settings, values.items())
            config = TrainConfig.parse({**settings, "output": self.config.output / name})
            kept = False
            if self._wanted:
                config, kept = self._continued(name, config)
            return Variant(name, config, *checked(config), kept)
        except PreferoError as error:
            raise PreferoError(f"{name}: {error}") from error

    def _continued(self, name: str, config: TrainConfig) -> tuple[TrainConfig, bool]:
        """The recipe of a run that starts where an earlier part of the study left it, and whether that is its
        end."""
        start: dict[str, Any] = {"resume_from_checkpoint": "auto", "overwrite": False}
        record = record_of(config.output)
        differ = _differences(record.get("config", {}), config.as_dict()) if record else {}
        kept = bool(record) and not differ and name in self.earlier.get("finished", ())
        if not kept and record.get("finished") and not complete_checkpoints(config.output):
            if differ:
                told = [f"{key} was {shown(was)}, and is {shown(now)}" for key, (was, now) in differ.items()]
                raise PreferoError(
                    f"{config.output} holds a finished run of other settings, without a checkpoint to resume "
                    f"from: {'; '.join(told)}. Restore them, or name another output folder"
                )
            if name not in self.earlier.get("runs", ()):
                raise PreferoError(
                    f"{config.output} holds a finished run that is no part of this comparison, without a "
                    "checkpoint to resume from: name another output folder"
                )
            start = {"resume_from_checkpoint": None, "overwrite": True}
            self.tell(f"{name} had ended before its results were recorded, and is trained again")
        return config.model_copy(update={"training": config.training.model_copy(update=start)}), kept

    def _checked_data(self, variant: Variant) -> None:
        """Read the data of a run, see that its method can use them, and that a run which is kept had the
        same."""
        training, held_out, digest = self._data(variant.config)
        self.record["data"][variant.name] = digest
        self.record["held_out"][variant.name] = [_digest(held_out)]
        before = self.earlier.get("data", {}).get(variant.name, digest)
        if variant.kept and before != digest:
            raise PreferoError(
                f"{variant.name} is finished, and its data have changed since: the others would be trained "
                "or measured on other rows. Restore the data, or name another output folder"
            )
        needs = dry_run(variant.objective)
        known = (digest, tuple(needs.roles), tuple(needs.columns))
        for examples in (training, held_out) if known not in self._arranged else ():
            if examples is not None:
                arrange(
                    examples, needs.roles, needs.columns, for_method=variant.objective.key or variant.name
                )
        self._arranged.add(known)

    def _data(self, config: TrainConfig) -> tuple[Examples, Examples | None, str]:
        """The examples of a recipe and a hash of them, read once for all recipes that read the same."""
        drawn = isinstance(config.data.eval, float) or not isinstance(config.data.train, str)
        known = config.data.model_dump_json(exclude=_AS_TOKENS), config.seed if drawn else 0
        if known not in self._read:
            training, held_out = read_examples(config.data, config.seed)
            self._read[known] = training, held_out, _digest(training, held_out)
        return self._read[known]

    # While runs are trained

    @contextmanager
    def running(self, variants: Sequence[Variant]) -> Iterator[None]:
        """Around the runs: ``comparison.json`` lists these variants and the results that are there, and other
        studies are kept out of the folder."""
        _refuse_twins(variants)
        for variant in variants:
            self._checked_data(variant)
        if len({rows[0] for rows in self.record["held_out"].values()}) > 1:
            self.tell(OTHER_ROWS)
        lock = FolderLock(self.config.output)
        if self._writes:
            lock.take()
        try:
            self._adopt(variants)
            yield
        finally:
            lock.release()

    def _adopt(self, variants: Sequence[Variant]) -> None:
        rows = self.earlier.get("evaluation", {}).get("rows", [])
        for variant in variants:
            self._variants[variant.name] = variant
            if variant.kept:
                self._rows[variant.name] = [row for row in rows if row.get("method") == variant.name]
                self.record["start"][variant.name] = self.earlier.get("start", {}).get(variant.name)
                self._count_measured(variant)
        left = [name for name in self._before.get("runs", ()) if name not in self._variants]
        dropped = [name for name in left if (self.config.output / str(name)).is_dir()]
        if dropped:
            self.tell(f"no longer part of the comparison, and left in their folders: {', '.join(dropped)}")
        self._write()

    def add(self, variant: Variant) -> None:
        """Add a run to those of the study."""
        self._checked_data(variant)
        self._variants[variant.name] = variant
        self._write()

    def run(self, variant: Variant) -> None:
        """Train one of the runs, unless it is kept, and record what was measured of it."""
        if variant.kept:
            self.tell(f"{variant.name} is finished and kept")
            return
        training, held_out, _ = self._data(variant.config)
        try:
            rows = train_checked(
                variant.config,
                variant.objective,
                variant.kind,
                training,
                held_out,
                self.callbacks,
                name=variant.name,
                begin=lambda trainer: self._same_start(variant, trainer),
            )
        except NotFiniteError as error:
            rows = [{"method": variant.name, "failed": str(error)}]
            self.tell(f"{variant.name} {error}")
        except PreferoError as error:
            if error.args and variant.name not in str(error):
                error.args = (f"{variant.name}: {error}", *error.args[1:])
            raise
        gc.collect()  # a run that has failed holds its model in the error
        self._count_measured(variant)
        self._count_measured(variant)
        self._rows[variant.name] = rows
        self._write()

    def _count_measured(self, variant: Variant) -> None:
        """Note how many held-out examples a run was measured on: those that do not fit are left out."""
        measured = record_of(variant.config.output).get("data", {}).get("eval") or {}
        self.record["held_out"][variant.name] = [
            *self.record["held_out"][variant.name][:1],
            measured.get("examples"),
        ]

    def _same_start(self, variant: Variant, trainer: PreferenceTrainer) -> None:
        """Raise :class:`PreferoError` if the model is another one than that which a run of the same settings
        started from."""
        now = trainer.start["model"]
        for name, before in self.record["start"].items():
            other = self._variants[name].config
            same = (other.model, other.seed) == (variant.config.model, variant.config.seed)
            if before and same and before != now:
                raise PreferoError(
                    f"{variant.name}: the weights of {variant.config.model.name} are other ones than those "
                    f"that {name} started from. Restore them, or name another output folder"
                )
        self.record["start"][variant.name] = now

    def _write(self) -> None:
        done = [name for name in self._variants if name in self._rows]
        self.record["runs"] = list(self._variants)
        self.record["finished"] = done
        self.record["evaluation"] = {"rows": [row for name in done for row in self._rows[name]]}
        if "sweep" in self.record:
            self.record["sweep"]["best"] = next(iter(ranked(self.record)), None)
            self.record["note"] = note(self.record)
        if self._writes:
            write_json(self.config.output / RECORD, self.record)

    def tell(self, message: str) -> None:
        if self._writes:
            print(message, file=sys.stderr)

    # What came out

    def end(self) -> Path:
        """The folder. Raises :class:`PreferoError` if every run has failed."""
        failed = [row["failed"] for rows in self._rows.values() for row in rows if "failed" in row]
        if failed and len(failed) == len(self._variants):
            raise PreferoError(f"none of {number_of(len(failed), 'run')} could be trained; {failed[0]}")
        return self.config.output


def unused_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with a number if it is taken, in capitals or not: some disks do not tell them apart."""
    lower = {one.lower() for one in taken}
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one.lower() not in lower)


def _refuse_twins(variants: Sequence[Variant]) -> None:
    """Raise :class:`PreferoError` for two runs of the same settings, written in two ways or not."""
    seen: dict[str, str] = {}
    for variant in variants:
        settings = {**variant.config.as_dict(), "objective": of_objective(variant.objective)}
        said = {key: value for key, value in leaves(finite(settings)) if key not in UNRECORDED}
        written = repr(sorted((key, repr(_as_number(value))) for key, value in said.items()))
        if written in seen:
            raise PreferoError(
                f"{variant.name} has the same settings as {seen[written]}: a run like another tells nothing "
                "new. Leave one of the two out"
            )
        seen[written] = variant.name


def _as_number(value: Any) -> Any:
    """The value, 1 as 1.0 is."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


_AS_TOKENS = {"max_length", "too_long", "template", "chat_template_kwargs", "score"}
"""Settings of data that decide how rows become tokens, and not which rows are read."""


def _digest(*parts: Examples | None) -> str:
    """A hash of prompts, responses and annotations, in their order."""
    digest = hashlib.sha256()
    for examples in parts:
        digest.update(b"part")
        for example in examples or ():
            said = [
                (
                    each.role,
                    each.content.identity if isinstance(each.content, Picture) else each.content,
                    sorted(each.columns.items()),
                )
                for each in example.responses
            ]
            digest.update(repr((example.prompt_identity, said, sorted(example.columns.items()))).encode())
    return digest.hexdigest()[:32]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of two recipes that differ, with both values."""
    was, is_now = (dict(leaves(json.loads(json.dumps(finite(each))))) for each in (before, now))
    return {
        key: (was.get(key), is_now.get(key))
        for key in {**was, **is_now}
        if key not in UNRECORDED and was.get(key) != is_now.get(key)
    }


_SHAPE = {"runs": list, "finished": list, "data": dict, "start": dict, "evaluation": dict, "sweep": dict}


def _recorded(file: Path) -> dict[str, Any]:
    """The content of ``comparison.json``; empty where there is none. Raises :class:`PreferoError` for another
    content than prefero writes."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PreferoError(f"{file} cannot be read ({error}): restore it, or name another folder") from None
    wrong = [
        key
        for key, kind in _SHAPE.items()
        if not isinstance(record, dict) or not isinstance(record.get(key, kind()), kind)
    ]
    if wrong:
        raise PreferoError(
            f"{file}: {wrong[0]} is not what prefero writes: restore it, or name another folder"
        )
    return dict(record)
