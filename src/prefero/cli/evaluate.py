"""``prefero evaluate``: models side by side on held-out prompts, or judgements that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from prefero.cli.console import Json, complain, is_main_process, show, work
from prefero.cli.options import Columns, Format, MaxLength, Template, columns_of
from prefero.errors import PreferoError


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]MODEL...", help="Models: folders, runs, or hub names."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="module:function, a reward model, a run whose reward judges, or a file of judgements."
        ),
    ] = "",
    data: Annotated[
        str | None, typer.Option(help="Prompts: any preference data, or rows of prompts.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The model to win against, or 'chosen' for the data's own responses.",
            show_default="the reference, else chosen",
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The model to measure the divergence from.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Largest number of prompts.")] = 256,
    samples: Annotated[int, typer.Option(min=1, help="Number of responses to each prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy decoding.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    columns: Columns = None,
    format: Format = None,
    template: Template = None,
    max_length: MaxLength = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="AlpacaEval's df_gamed.csv: length-controlled win rates as on its leaderboard."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for evaluation.json and judgements.jsonl.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure models by win rate, length-controlled win rate, lengths, divergence, diversity.

    Rows are read and prompts written as the runs were trained, except for the options that are given.

    prefero evaluate runs/dpo runs/simpo --data test.jsonl --judge my_rewards:score --reference START

    prefero evaluate --judge judgements.jsonl
    """
    if not judge:
        raise PreferoError("name the judge: --judge module:function, a reward model, a run, or a file")
    stored = _is_file(judge)
    if stored and models:
        raise PreferoError("a file of judgements says what models it judges: give no models beside it")
    if not stored and not (models and data):
        raise PreferoError("give models and --data for the prompts, or a file of judgements as --judge")
    if not stored and anchors is not None:
        raise PreferoError("--anchors belong to AlpacaEval's judgements: give a file of them as --judge")
    if output is not None and (output / "run.json").is_file():
        raise PreferoError(f"{output} holds a run: name another folder for the evaluation")
    notes: Sequence[str] = ()
    with work() as progress:
        if stored:
            rows, judgements = _stored(judge, anchors), None
        else:
            from prefero.data.formats import row_function
            from prefero.evaluate.judges import judge_named
            from prefero.evaluate.policies import CHOSEN, Sampling, evaluate as measure, read_prompts
            from prefero.evaluate.reading import reading_of_rows

            sampling = Sampling(
                count=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
            )
            named = _named(models or [])
            reading, notes = reading_of_rows(
                data or "",
                named.values(),
                split="test",
                columns=None if columns is None else columns_of(columns),
                format=format,
            )
            asked = read_prompts(
                data or "",
                prompts,
                columns=reading.columns,
                format=reading.format,
                map=None if reading.map is None else row_function(reading.map),
            )
            result = measure(
                named,
                asked,
                judge_named(judge),
                baseline=baseline or reference or CHOSEN,
                reference=reference,
                sampling=sampling,
                template=template,
                max_length=max_length,
                report=lambda label: progress.print(f"[dim]{label}[/dim]"),
            )
            rows, judgements, notes = list(result.rows), result.judgements, [*notes, *result.notes]
        for note in notes:
            complain(note)
    if output is not None and is_main_process():
        from prefero.storage import write_json, write_lines

        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "evaluation.json", {"rows": rows, "notes": notes})
        if judgements is not None:
            write_lines(output / "judgements.jsonl", [one.as_dict() for one in judgements])
    show({"rows": rows, "notes": notes}, lambda: _table(rows), as_json=as_json)


def _is_file(judge: str) -> bool:
    from prefero.data.files import ENDINGS

    return judge.lower().endswith(tuple(ENDINGS))


def _stored(file: str, anchors: Path | None) -> list[dict[str, Any]]:
    from prefero.evaluate.judgements import (
        by_model,
        read_anchors,
        read_judgements,
        summary,
        with_difficulties,
    )

    models = by_model(read_judgements(file))
    if anchors is None:
        return [summary(judged) for judged in models.values()]
    gamed, difficulties = read_anchors(anchors)
    return [summary(with_difficulties(judged, difficulties), gamed) for judged in models.values()]


def _named(models: list[str]) -> dict[str, str]:
    """A name for each: the given one, or the last part of its path."""
    found: dict[str, str] = {}
    for model in models:
        name, equals, path = model.partition("=")
        if not equals:
            name, path = Path(model).name, model
        if name in found:
            raise PreferoError(f"two models are called {name!r}: name them, one={found[name]} two={path}")
        found[name] = path
    return found


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    def share(row: dict[str, Any], name: str) -> str:
        low, high = row["interval"].get(name, (row[name], row[name]))
        return f"{row[name]:.1%} [{100 * low:.1f}, {100 * high:.1f}]"

    def value(row: dict[str, Any], name: str) -> str:
        if name not in row["interval"]:
            return f"{row[name]:.3g}"
        low, high = row["interval"][name]
        return f"{row[name]:.3g} ± {(high - low) / 2:.2g}"

    columns = {
        "win_rate": ("win rate", share),
        "length_controlled_win_rate": ("length-\ncontrolled", share),
        "score": ("score", value),
        "kl": ("KL,\nnats", value),
        "length": ("tokens", value),
        "characters": ("characters", value),
        "distinct_2": ("distinct\nbigrams", value),
        "self_bleu": ("self-\nBLEU", value),
    }
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    there = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    for title, _ in there.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["method"]), *(form(row, name) if name in row else "" for name, (_, form) in there.items())
        )
    return table
