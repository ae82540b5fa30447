"""``prefero evaluate``: models side by side on held-out prompts, or judgements that are there already."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, complain, console, is_main_process, show, work
from prefero.cli.options import Columns, Format, MaxLength, Template, advising, columns_of
from prefero.errors import PreferoError, number_of
from prefero.storage import check_output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from prefero.evaluate.difficulties import Difficulties
    from prefero.evaluate.judgements import Judgement


OF_MODELS = (
    "data", "baseline", "reference", "prompts", "samples", "max_new_tokens", "temperature", "seed", "columns",
    "format", "template", "max_length",
)  # fmt: skip
"""The options that say how models respond and to what, which stored judgements leave no room for."""


def evaluate(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]MODEL...", help="Models: folders, runs, or hub names."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="module:function, a reward model, a run whose reward judges, or judgements: a file or "
            "folder, or several."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Prompts: any preference data, or rows of prompts.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The model to win against (or its name), or 'chosen' for the data's own responses.",
            show_default="the reference, else chosen",
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The model to measure the divergence from.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Largest number of prompts.")] = 256,
    samples: Annotated[int, typer.Option(min=1, help="Number of responses to each prompt.")] = 1,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest response.", show_default="128")
    ] = None,
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
    difficulties: Annotated[
        Path | None,
        typer.Option(
            help="Difficulties of prompts, for length-controlled win rates: a file that is read, or written "
            "if it is not there."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for evaluation.json, judgements.jsonl, and images that were drawn."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure models by win rate, length-controlled win rate, lengths, divergence, diversity.

    Rows are read and prompts written as the runs were trained, except for the options that are given.

    prefero evaluate runs/dpo runs/simpo --data test.jsonl --judge my_rewards:score --reference START

    prefero evaluate --judge judgements.jsonl

    prefero evaluate --judge results/a/annotations.json --judge results/b/annotations.json
    """
    if not judge:
        raise PreferoError("name the judge: --judge module:function, a reward model, a run, or a file")
    stored = _files(judge)
    if stored and models:
        raise PreferoError("a file of judgements says what models it judges: give no models beside it")
    if stored:
        _refuse_options_of_models(context)
    if not stored and not (models and data):
        raise PreferoError(
            f"give models, and --data for the prompts; or judgements, which --judge {judge[0]} are not: a "
            "file of them, or a folder with judgements.jsonl or annotations.json"
        )
    if not stored and anchors is not None:
        raise PreferoError("--anchors belong to AlpacaEval's judgements: give a file of them as --judge")
    if output is not None and (output / "run.json").is_file():
        raise PreferoError(f"{output} holds a run: name another folder for the evaluation")
    if output is not None:
        check_output(output, "folder")
    if difficulties is not None:
        check_output(difficulties)
    notes: Sequence[str] = ()
    against = ""
    with work() as progress, advising(f"prefero convert {data or 'DATA'} -o ROWS.jsonl --skip-bad-rows"):
        kept = _kept(difficulties, anchors)
        if stored:
            from prefero.evaluate.judgements import one_judge

            rows, judgements, notes = _stored(stored, anchors, difficulties, kept)
            against = one_judge(judgements)[1] or ""
        else:
            from prefero.data.formats import row_function
            from prefero.evaluate.judges import judge_named
            from prefero.evaluate.policies import CHOSEN, Sampling, evaluate as measure, read_prompts
            from prefero.evaluate.reading import reading_of_rows

            sampling = Sampling(
                count=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
            )
            named = _named(models or [])
            reference = _model(reference, named)
            against = _model(baseline, named) or reference or CHOSEN
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
                judge_named(judge[0]),
                judge_name=judge[0],
                difficulties=kept,
                baseline=against,
                reference=reference,
                sampling=sampling,
                template=template,
                max_length=max_length,
                report=lambda stage: progress.print(stage, style="dim", markup=False, soft_wrap=True),
            )
            rows, judgements, notes = list(result.rows), result.judgements, [*notes, *result.notes]
        for note in notes:
            complain(note)
    measured: dict[str, Any] = {"rows": rows, "notes": notes}
    if against:
        measured["baseline"] = against
    if output is not None and is_main_process():
        from prefero.evaluate.judgements import write_judgements
        from prefero.storage import write_json

        output.mkdir(parents=True, exist_ok=True)
        if not stored:
            write_judgements(output, judgements)
        write_json(output / "evaluation.json", measured)
    show(measured, lambda: _in_words(rows, against), as_json=as_json)
    if difficulties is not None and kept is None:  # last, since there may be none to be fitted
        complain(_keep(difficulties, judgements))


def _files(judges: list[str]) -> list[Path]:
    """The files of judgements that are given as judges; none where a judge is to judge. Raises
    :class:`PreferoError` for several judges, and for judges beside files."""
    from prefero.evaluate.judgements import judgement_files

    files = {judge: judgement_files(judge) for judge in judges}
    if len(judges) > 1 and (others := [judge for judge, named in files.items() if not named]):
        raise PreferoError(
            f"--judge {others[0]} is no file of judgements, and there are {len(judges)} judges: give several "
            "files, or folders with annotations.json or judgements.jsonl, or one judge"
        )
    return [file for named in files.values() for file in named]


def _stored(
    files: Sequence[Path], anchors: Path | None, file: Path | None, difficulties: Difficulties | None
) -> tuple[list[dict[str, Any]], Sequence[Judgement], list[str]]:
    """The rows, the judgements, and what is to be said. Raises :class:`PreferoError` where a ``file`` of
    difficulties is named, and the judgements have their own."""
    from prefero.evaluate.judgements import (
        by_model,
        read_all_judgements,
        read_anchors,
        with_difficulties,
    )
    from prefero.evaluate.summaries import summaries

    judged, gamed = read_all_judgements(files), None
    if anchors is not None:
        gamed, known = read_anchors(anchors)
        judged = [each for own in by_model(judged).values() for each in with_difficulties(own, known)]
    elif file is not None and difficulties is None and any(each.difficulty is not None for each in judged):
        raise PreferoError(
            f"the judgements have difficulties of their own, so that none are fitted for {file}: leave out "
            "--difficulties, or the field difficulty"
        )
    rows, notes = summaries(judged, anchors=gamed, difficulties=difficulties)
    return rows, judged, notes


def _kept(difficulties: Path | None, anchors: Path | None) -> Difficulties | None:
    """The difficulties in the file, if it is there."""
    if difficulties is not None and anchors is not None:
        raise PreferoError("--anchors bring the difficulties of AlpacaEval: leave --difficulties out")
    if difficulties is None or not difficulties.exists():
        return None
    from prefero.evaluate.difficulties import read_difficulties

    return read_difficulties(difficulties)


def _keep(file: Path, judged: Sequence[Judgement]) -> str:
    """Write the difficulties by all the models; returns what is to be said of that."""
    from prefero.evaluate.difficulties import fit_difficulties
    from prefero.evaluate.judgements import by_model

    fitted = fit_difficulties(by_model(judged))
    if is_main_process():
        fitted.write(file)
    count = number_of(len(fitted.models), "model")
    return f"wrote the difficulties of {number_of(len(fitted.logits), 'prompt')}, by {count}, to {file}"


def _named(models: list[str]) -> dict[str, str]:
    """A name for each: the given one, or the last part of its path. Raises :class:`PreferoError` for a name
    that two have, and where a name or a path is empty."""
    found: dict[str, str] = {}
    for model in models:
        name, equals, path = model.partition("=")
        if not equals:
            name, path = Path(model).name or model, model
        if not name or not path:
            raise PreferoError(f"{model!r} names no model: give a folder or a hub name, or name=MODEL")
        if name in found:
            raise PreferoError(f"two models are called {name!r}: name them, one={found[name]} two={path}")
        found[name] = path
    return found


def _model(given: str | None, named: dict[str, str]) -> str | None:
    """The model that is given by its path, or by its name among those of the command."""
    return named[given] if given in named and given != "chosen" and not Path(given).exists() else given


def _refuse_options_of_models(context: typer.Context) -> None:
    """Raise :class:`PreferoError` for options that only models have a use for."""
    for name in OF_MODELS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise PreferoError(
                f"--{name.replace('_', '-')} is of models that respond, and the judge is stored judgements: "
                "leave it out"
            )


def _in_words(rows: list[dict[str, Any]], against: str) -> RenderableType:
    """The measures in a table with a line for each model, or for each measure where that is too wide; and
    what the win rates are against, where that is known."""
    from rich.console import Group
    from rich.measure import Measurement
    from rich.text import Text

    lines = _cells(rows)
    table, screen = _table(lines), console()
    whole = Measurement.get(screen, screen.options.update(max_width=sys.maxsize), table).maximum
    if whole > screen.width:
        turned = zip(*([_in_one_line(cell) for cell in line] for line in lines), strict=True)
        table = _table(list(map(list, turned)))
    if not against:
        return table
    named = "the chosen responses of the data" if against == "chosen" else f"the responses of {against}"
    return Group(table, Text(f"win rates are against {named}"))


def _in_one_line(cell: str) -> str:
    return cell.replace("-\n", "-").replace("\n", " ")


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The titles of the measures that the rows have, and a line for each row."""

    def share(row: dict[str, Any], name: str) -> str:
        low, high = row["interval"].get(name, (row[name], row[name]))
        return f"{row[name]:.1%} [{100 * low:.1f}, {100 * high:.1f}]"

    def value(row: dict[str, Any], name: str) -> str:
        if name not in row["interval"]:
            return f"{row[name]:.3g}"
        low, high = row["interval"][name]
        return f"{row[name]:.3g} ± {(high - low) / 2:.2g}"

    measures = {
        "win_rate": ("win rate", share),
        "length_controlled_win_rate": ("length-\ncontrolled", share),
        "score": ("score", value),
        "kl": ("KL,\nnats", value),
        "length": ("tokens", value),
        "characters": ("characters", value),
        "distinct_2": ("distinct\nbigrams", value),
        "self_bleu": ("self-\nBLEU", value),
    }
    there = {name: measure for name, measure in measures.items() if any(name in row for row in rows)}
    return [
        ["model", *(title for title, _ in there.values())],
        *(
            [
                str(row["method"]),
                *(form(row, name) if name in row else "" for name, (_, form) in there.items()),
            ]
            for row in rows
        ),
    ]


def _table(lines: list[list[str]]) -> Table:
    """A table of these lines, the first of them its header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    header, *others = lines
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(header[0]), overflow="fold")
    for title in header[1:]:
        table.add_column(Text(title), justify="right", overflow="fold")
    for line in others:
        table.add_row(*map(Text, line))
    return table
