"""``prefero sweep``: train with several values of some settings, and compare the results."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import prefero
from prefero.cli.console import Json, complain
from prefero.cli.recipe import current_overrides, parse_override, split_arguments
from prefero.cli.train import Data, EvalData, Model, Output, carry_out, configuration
from prefero.errors import PreferoError


def sweep(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.yaml] [KEY=VALUE]...",
            help="A recipe (a YAML file), and settings that override it.",
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A setting to vary, and its values, separated by commas: objective.beta=0.05,0.1,0.5; with "
            "--trials also a range: log:1e-7..1e-5, 0.1..0.5 or 1..8. Repeat it for several settings.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Runs that Optuna proposes, one after another.", show_default="every combination of values"
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What is best on held-out data: accuracy (of the reward) or loss; with samples.judge also "
            "win_rate, win_rate_against_chosen or score.",
            show_default="accuracy, where pairs are compared",
        ),
    ] = None,
    model: Model = None,
    data: Data = None,
    eval_data: EvalData = None,
    method: Annotated[
        str | None, typer.Option(help="Name of the method; 'prefero methods' lists them.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Align a model with several values of some settings, and compare the results.

    The runs share the data and the cache of reference scores. With
    training.resume_from_checkpoint=auto a sweep that was interrupted continues.

    prefero sweep recipe.yaml --over objective.beta=0.05,0.1,0.5 --over training.learning_rate=1e-6,5e-6
    """
    settings = configuration(
        arguments or [], model=model, data=data, eval_data=eval_data, method=method, output=output
    )
    varied: dict[str, Any] = {}
    for argument in over or ():
        key, values = parse_over(argument)
        if key in varied:
            raise PreferoError(f"{key} is varied twice: give all its values in one --over")
        varied[key] = values
    _, given = split_arguments(arguments or [])
    fixed = [key for key, _ in current_overrides(map(parse_override, given), lambda told: None)]
    flags = {"model.name": model, "data.train": data, "objective.method": method}
    for key in (*fixed, *(key for key, value in flags.items() if value is not None)):
        for other in varied:
            if key == other or key.startswith(f"{other}."):
                raise PreferoError(
                    f"{key} is set, and {other} is varied, which would replace it: leave one out"
                )
    carry_out(
        settings,
        lambda config: prefero.sweep(settings, varied, trials=trials, metric=metric),
        as_json=as_json,
    )


def parse_over(argument: str) -> tuple[str, list[Any] | str]:
    """The key and the values of ``key=values``: a list, of values separated by commas or in brackets, or the
    text of a range. Raises :class:`PreferoError` for anything else."""
    from prefero.training.tuning import is_range

    key, _ = parse_override(argument)
    text = argument.partition("=")[2].strip()
    if is_range(text):
        return _current(key, 1), text
    _, values = parse_override(f"{key}=[{text}]")
    if not isinstance(values, list) or not values:
        raise PreferoError(f"{key}: {text!r} are no values separated by commas, such as {key}=0.05,0.1")
    if len(values) == 1 and isinstance(values[0], list):
        (values,) = values  # the brackets were there
    return _current(key, next(iter(values), None)), values


def _current(key: str, value: Any) -> str:
    """The current name of a setting."""
    ((name, _),) = current_overrides([(key, value)], complain)
    return name
