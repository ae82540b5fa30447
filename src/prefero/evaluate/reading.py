"""How the rows of an evaluation are read and its prompts written: as a run was trained, unless options say
otherwise."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from prefero.data.chat import Writing
from prefero.data.files import Source, load_rows
from prefero.data.formats import LOOK_AT
from prefero.training.run_folder import model_of, record_of


@dataclass(frozen=True, slots=True)
class RunReading:
    """The settings of a run by which its rows became tokens: ``columns``, ``format`` and ``map`` as
    :func:`prefero.load_examples` takes them (``map`` as ``module:function``), how prompts are written, and
    the most tokens of a prompt with its response."""

    columns: Mapping[str, str] = field(default_factory=dict)
    format: str = "auto"
    map: str | None = None
    writing: Writing = field(default_factory=Writing)
    max_length: int | None = None

    @classmethod
    def of(cls, folder: str | Path) -> Self | None:
        """Those of the run in a folder, of which its model or a checkpoint may be named; None where there is
        none. A chat template that the run saved with its model is read there: its file may be another one by
        now."""
        folder = Path(folder)
        inner = folder.name == "model" or folder.name.startswith("checkpoint-")
        saved = (folder if inner else model_of(folder) or folder) / "chat_template.jinja"
        record = record_of(folder.parent if inner else folder)
        if not record:
            return None
        config = record.get("config") or {}
        data: Mapping[str, Any] = config.get("data") or config  # flat in a run from Python of version 0.1
        date = record.get("date")
        template = record.get("template_name") or data.get("template") or "auto"
        writing = Writing(
            str(saved) if record.get("template_saved") and saved.is_file() else template,
            data.get("chat_template_kwargs") or {},
            None if date is None else dt.date.fromisoformat(date),
        )
        return cls(
            data.get("columns") or {},
            data.get("format") or "auto",
            data.get("map"),
            writing,
            data.get("max_length"),
        )

    def rows_in_words(self) -> str:
        """The settings by which rows are read that are not the default, or nothing."""
        columns = ",".join(f"{name}={column}" for name, column in self.columns.items())
        return _told({"columns": columns, "format": self.format, "map": self.map})

    def prompts_in_words(self) -> str:
        """The settings by which prompts are written and cut that are not the default, or nothing."""
        options = dict(self.writing.options)
        told = {"template": self.writing.template, "chat_template_kwargs": options or None}
        return _told(told | {"max_length": self.max_length})

    def changed(self, template: str | None, max_length: int | None) -> Self:
        """With another template and length, where they are given."""
        writing = self.writing if template is None else replace(self.writing, template=template)
        return replace(self, writing=writing, max_length=max_length or self.max_length)


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, "", "auto"))


def reading_of_rows(
    data: Source,
    models: Iterable[str],
    *,
    split: str,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
) -> tuple[RunReading, Sequence[str]]:
    """How the rows of ``data`` are read: as the first run among the ``models`` read its own, except for the
    columns and the layout that are given; and what is to be said of that. Columns of the run that the data do
    not have are left out, and so is its function of rows where something is given."""
    runs = [(model, reading) for model in models if (reading := RunReading.of(model)) is not None]
    if not runs:
        return RunReading(columns or {}, format or "auto"), ()
    name, own = runs[0]
    others = [model for model, reading in runs[1:] if reading.rows_in_words() != own.rows_in_words()]
    notes = []
    if others and columns is None and format is None:
        notes.append(
            f"{', '.join(others)} read rows otherwise than {name} in training, as which they are read for all"
        )
    if columns is None:
        rows = islice(load_rows(data, split=split), LOOK_AT) if own.columns and own.map is None else ()
        found = {str(column) for row in rows for column in row.fields}
        there = {one: at for one, at in own.columns.items() if own.map is not None or at in found}
        absent = [f"{one}={at}" for one, at in own.columns.items() if one not in there]
        if absent:
            notes.append(f"columns of {name} that {data} does not have: {', '.join(absent)}")
        own = replace(own, columns=there)
    else:
        own = replace(own, columns=columns, map=None)
    own = own if format is None else replace(own, format=format, map=None)
    if told := own.rows_in_words():
        notes.append(f"rows are read as those of {name}: {told}")
    return own, notes


def readings_of_models(
    models: Sequence[str], *, template: str | None = None, max_length: int | None = None
) -> tuple[Mapping[str, RunReading], Sequence[str]]:
    """How prompts are written for each of the models, and what is to be said of that: for a run as it was
    trained, for any other model as for the first run; except for what is given."""
    runs = {model: reading for model in models if (reading := RunReading.of(model)) is not None}
    first = next(iter(runs), None)
    shared = RunReading() if first is None else runs[first]
    readings = {model: runs.get(model, shared).changed(template, max_length) for model in models}
    notes = []
    for model in readings:
        before = runs.get(model, shared)
        if told := before.prompts_in_words():
            origin = "as it was trained" if model in runs else f"as for {first}"
            notes.append(f"{model}: prompts are written {origin}: {told}")
        given = [f"template {template}"] if template not in (None, before.writing.template) else []
        given += [f"max_length {max_length}"] if max_length not in (None, before.max_length) else []
        if told and given:
            notes[-1] += f"; but {', '.join(given)}, as given"
    return readings, notes
