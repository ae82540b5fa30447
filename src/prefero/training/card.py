"""The model card of a run: ``README.md`` beside the trained weights, for the hub and for whoever finds the
folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from prefero.storage import write_text

SETTINGS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "examples_per_step",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "precision",
    "seed",
    "max_length",
    "too_long",
)
"""Settings that a card lists; all others stand in ``run.json``."""


def write_card(
    folder: Path, record: Mapping[str, Any], evaluation: Sequence[Mapping[str, Any]] = (), **head: Any
) -> None:
    """Write the card of the model in ``folder``, in place of the draft that libraries leave there; ``head``
    is as :func:`card` takes it."""
    adapter = folder / "adapter_config.json"
    fits = json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"] if adapter.is_file() else None
    write_text(folder / "README.md", card(record, evaluation, adapters_of=fits, **head))


def card(
    record: Mapping[str, Any],
    evaluation: Sequence[Mapping[str, Any]] = (),
    *,
    adapters_of: str | None = None,
    merged_into: str | None = None,
    **head: Any,
) -> str:
    """The card of the model that a run trained, in Markdown.

    ``record`` is the run's ``run.json``, and ``evaluation`` the rows of its ``evaluation.json``. Where the
    weights are adapters, ``adapters_of`` is the model that they fit; where adapters were merged,
    ``merged_into`` is that model. ``head`` goes into the part that the hub reads, such as ``license``,
    ``language`` and more ``tags``.
    """
    method, model = record["method"], record["model"]
    tags = head.pop("tags", None) or []
    base = adapters_of or merged_into or model["name"] or model["class"]
    adapters = ["lora"] if adapters_of else []
    told = ModelCardData(
        base_model=adapters_of or merged_into or model["name"] or None,
        library_name="peft" if adapters_of else "transformers",
        tags=["prefero", method["key"], *adapters, *([tags] if isinstance(tags, str) else tags)],
        **{name: value for name, value in head.items() if value is not None},
    )
    weights = f"{model['trained']:,} of {model['parameters']:,} weights"
    parts = [
        f"---\n{told.to_yaml()}\n---",
        f"# {Path(base).name}, trained with {method['title'] or method['key']}",
        f"prefero {record['prefero']} trained {weights} of `{base}` on preferences{_best(record)}.",
        *_adapters(model, adapters_of),
        *([_MERGED.format(merged_into)] if merged_into else []),
        "## Method",
        *_method(method),
        "## Data",
        *_data(record),
        "## Settings",
        _table(("setting", "value"), _settings(record)),
        "## Evaluation",
        *_evaluation(evaluation, record),
    ]
    return "\n\n".join(parts) + "\n"


_MERGED = "The adapters are merged into the weights of `{}`: this folder holds a whole model."


def merged_card(adapters: str, base: str) -> str:
    """The card of a model that adapters of no run of prefero were merged into, in Markdown."""
    told = ModelCardData(base_model=base, library_name="transformers", tags=["prefero", "merged"])
    title = f"# {Path(base).name} with the adapters of {Path(adapters).name}"
    parts = [f"---\n{told.to_yaml()}\n---", title, _MERGED.format(base), f"They were in `{adapters}`."]
    return "\n\n".join(parts) + "\n"


def _adapters(model: Mapping[str, Any], fits: str | None) -> Iterator[str]:
    if fits:
        began = "" if model["name"] in ("", fits) else f" The run began with `{model['name']}`."
        yield f"This folder holds adapters, which PEFT loads on top of `{fits}`.{began}"


def _best(record: Mapping[str, Any]) -> str:
    best = record.get("best")
    return f"; these are the weights of step {best['step']}, the best by {best['metric']}" if best else ""


def _method(method: Mapping[str, Any]) -> Iterator[str]:
    yield f"{method['title'] or 'A method of the user'} (`{method['key']}`)."
    if method["equation"]:
        yield f"    {method['equation']}"
    if method["arguments"]:
        yield _table(("argument", "value"), ((name, value) for name, value in method["arguments"].items()))
    if method["citation"]:
        yield f"Cite {method['citation']}, and prefero."


def _data(record: Mapping[str, Any]) -> Iterator[str]:
    data = record["data"]["train"]
    if not data:
        return
    told = f"{data['examples']:,} examples of `{data['name']}`, read as {data['format']}"
    if record["template"] is not None:
        told += f", of at most {data['max_length']} tokens. Chat template: {record['template']}"
    yield f"{told}."
    left_out = {**data.get("dropped", {}), "rows that could not be read": data.get("skipped", 0)}
    if any(left_out.values()):
        counted = (f"{what} ({count:,})" for what, count in left_out.items() if count)
        yield f"Left out: {', '.join(counted)}."
    if record["notes_on_prompts"]:
        yield "\n".join(f"- {note}" for note in record["notes_on_prompts"])


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    config = record["config"]
    given = {**config, **config.get("data", {}), **config.get("training", {})}
    given["learning_rate"] = record["learning_rate"]
    for name in SETTINGS:
        if given.get(name) not in (None, -1):
            yield name, given[name]


def _judged(row: Mapping[str, Any], samples: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The win rate of samples, and who judged them."""
    for name, against in (
        ("win_rate", "the start model"),
        ("win_rate_against_chosen", "the chosen responses"),
    ):
        if name in row:
            low, high = row["interval"][name]
            share = f"{row[name]:.1%}, with Wilson's 95 % interval [{low:.1%}, {high:.1%}]"
            yield f"win rate against {against}, judged by `{samples.get('judge')}`", share


def _evaluation(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Iterator[str]:
    held_out: Mapping[str, Any] | None = record["data"]["eval"]
    if held_out is None:
        yield "Nothing was held out: how the model does on other data was not measured."
    elif not rows:
        yield "What was measured on held-out data while it was trained stands in `metrics.jsonl` of the run."
    for row in rows:
        told = [("loss", f"{row['loss']:.4g}")] if "loss" in row else []
        if "accuracy" in row:
            low, high = row["interval"]["accuracy"]
            share = f"{row['accuracy']:.1%}, with Wilson's 95 % interval [{low:.1%}, {high:.1%}]"
            told.append(("reward accuracy", share))
        told += _judged(row, record.get("config", {}).get("samples", {}))
        data = (held_out or {}).get(row.get("held_out", ""), held_out)
        yield f"On {data['examples']:,} held-out examples of `{data['name']}`:" if data else ""
        yield _table(("measure", "value"), told)


def _table(header: tuple[str, str], rows: Any) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"| {header[0]} | {header[1]} |", "| --- | --- |", *lines])
