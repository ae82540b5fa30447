"""``prefero inspect``: checks of preference data before a model is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, show, work
from prefero.cli.options import (
    Columns,
    Format,
    Map,
    MaxLength,
    Template,
    TooLong,
    columns_of,
    need_model,
    refuse_replacing,
)
from prefero.cli.preview import in_words
from prefero.cli.train import EvalData, share_or_name
from prefero.errors import PreferoError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefero.doctor.inspection import Inspection


def inspect(
    data: Annotated[str, typer.Argument(help="Preference data: a file, a folder or a hub name.")],
    eval_data: EvalData = None,
    model: Annotated[
        str | None, typer.Option(help="The model to be aligned, for the checks that need it.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="Number of pairs that the model scores.", show_default="256")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Data type of the model's weights.", show_default="float32")
    ] = None,
    max_length: MaxLength = None,
    too_long: TooLong = None,
    split: Annotated[str, typer.Option(help="The split of the data, where there are several.")] = "train",
    eval_split: Annotated[str, typer.Option(help="The split of the held-out data.")] = "test",
    format: Format = None,
    columns: Columns = None,
    map: Map = None,
    template: Template = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of rows to read.")] = None,
    without: Annotated[
        str, typer.Option(help="Findings whose rows are not saved, separated by commas.")
    ] = "",
    save: Annotated[Path | None, typer.Option(help="Save the remaining rows as JSON lines.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file that rows are saved to, if it is there.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML page to write.", show_default="NAME-inspection.html"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Inspect preference data before training: problems, and how to fix them.

    Repetitions, contradictions, leaks, noise, length, style: one HTML page, in order of importance.
    """
    keys = [key.strip() for key in without.split(",") if key.strip()]
    if bool(keys) != (save is not None):
        raise PreferoError("--without and --save go together: the findings to leave out, and the file")
    if model is None:
        need_model({"--rows": rows, "--dtype": dtype, "--template": template})
        if too_long is not None and max_length is None:
            raise PreferoError(
                "--too-long needs --max-length or --model: nothing is too long without a limit"
            )
    from prefero.doctor.commands import writable
    from prefero.doctor.inspection import inspect as look
    from prefero.doctor.page import summary, write
    from prefero.storage import check_output

    page = output or Path(f"{_stem(data)}-inspection.html")
    check_output(page)
    if save is not None:
        writable(save, data)
        if not overwrite:
            refuse_replacing(save)
    fate: Any = too_long or "cut_response"  # checked before anything is read
    outcome: dict[str, Any] = {"page": str(page)}
    with work() as progress, progress.status("reading") as status:

        def checking(name: str) -> None:
            status.update(f"checking {name}")
            if not progress.is_terminal and model is not None:
                progress.print(f"checking {name}")

        inspection: Inspection = look(
            data,
            eval_data=share_or_name(eval_data),
            model=_source(model, dtype or "float32"),
            rows=256 if rows is None else rows,
            max_length=max_length,
            too_long=fate,
            split=split,
            eval_split=eval_split,
            format=format or "auto",
            columns=columns_of(columns),
            map=map,
            template=template or "auto",
            limit=limit,
            seed=seed,
            progress=checking,
        )
        if save is not None:
            outcome |= {"saved": str(save), "saved_rows": inspection.save(save, without=keys)}
        write(inspection, page)

    def told() -> RenderableType:
        from rich.console import Group

        saved = (save, outcome["saved_rows"]) if save else None
        return Group(in_words(inspection.preview), "", summary(inspection, page, saved=saved))

    show(inspection.as_dict() | outcome, told, as_json=as_json)


def _source(model: str | None, dtype: Any) -> Any:
    if model is None:
        return None
    from prefero.models.loading import ModelSource

    return ModelSource(model, dtype=dtype)


def _stem(data: str) -> str:
    """The name of the data without folders and endings."""
    return Path(data).name.split(".")[0] or "data"
