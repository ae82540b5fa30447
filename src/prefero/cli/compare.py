"""``prefero compare``: several methods side by side on one cache of reference scores."""

from __future__ import annotations

from typing import Annotated

import typer

import prefero
from prefero.cli.console import Json
from prefero.cli.train import Data, EvalData, Model, Output, carry_out, configuration
from prefero.errors import PreferoError


def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE.yaml] [KEY=VALUE]...", help="A recipe, and settings laid over it."),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Methods to compare, separated by commas.", show_default=False)
    ] = "",
    model: Model = None,
    data: Data = None,
    eval_data: EvalData = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Align the same model with several methods, and compare the results."""
    keys = [key.strip() for key in methods.split(",") if key.strip()]
    if not keys:
        raise PreferoError("name the methods to compare, such as --methods dpo,simpo,ipo")
    settings = configuration(arguments or [], model=model, data=data, eval_data=eval_data, output=output)
    carry_out(settings, lambda config: prefero.compare(config, keys), as_json=as_json)
