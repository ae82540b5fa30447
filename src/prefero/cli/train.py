"""``prefero train`` and ``prefero compare``: align a model with one method, or with several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import prefero
from prefero.cli.console import Json, complain, is_main_process, show, work
from prefero.cli.options import Columns, Format, MaxLength, Template
from prefero.cli.recipe import current_overrides, parse_override, read_recipe, split_arguments
from prefero.errors import PreferoError
from prefero.training.overrides import override
from prefero.training.vocabulary import current_names, in_their_places

if TYPE_CHECKING:
    from prefero.training.config import TrainConfig

Model = Annotated[str | None, typer.Option(help="The model to align: a hub name or a folder.")]
Data = Annotated[str | None, typer.Option(help="Preference data: a file, a folder or a hub name.")]
EvalData = Annotated[
    str | None,
    typer.Option(help="Held-out data, in the forms of --data, or the share to hold out, such as 0.1."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run.")]


def configuration(
    arguments: list[str],
    *,
    model: str | None = None,
    data: str | None = None,
    eval_data: str | None = None,
    method: str | None = None,
    output: Path | None = None,
    columns: str | None = None,
    format: str | None = None,
    template: str | None = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """The settings of a command line: the recipe, then the flags, then ``key=value``. A method named by flag
    has its own defaults: arguments in the recipe are those of the recipe's method."""
    recipe, overrides = split_arguments(arguments)
    settings = in_their_places(read_recipe(recipe), complain) if recipe else {}
    overridden = list(map(parse_override, overrides))
    if isinstance(settings.get("training"), dict):
        if any(key == "training.save_steps" for key, _ in overridden):
            settings["training"].pop("save_steps", None)  # null would be another setting, save_strategy
        settings["training"] = current_names(settings["training"], complain, "training.")
    flags: dict[str, Any] = {"model.name": model, "data.train": data, "data.eval": share_or_name(eval_data)}
    flags |= {"data.columns": columns, "data.format": format}
    flags |= {"data.template": template, "data.max_length": max_length}
    if output is not None:
        flags["output"] = str(output)
    if method is not None and method != _method_of(settings):
        flags["objective"] = {"method": method}
    given = [(key, value) for key, value in flags.items() if value is not None]
    return override(settings, [*given, *current_overrides(overridden, complain)])


def share_or_name(text: str | None) -> str | float | None:
    """Held-out data by name, or as the share of the training data to hold out."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _method_of(settings: Mapping[str, Any]) -> Any:
    objective = settings.get("objective")
    return objective.get("method") if isinstance(objective, Mapping) else objective


def carry_out(settings: Mapping[str, Any], run: Callable[[TrainConfig], Path], *, as_json: bool) -> None:
    """Check the settings, ``run`` with progress on stderr, write the report, and show the results."""
    config = prefero.TrainConfig.parse(settings)
    resume = NO_RESUME if config.training.save_only_model else RESUME
    with work(resume=resume) as progress:
        from prefero.cli.runs import in_words, of_folder, training_progress
        from prefero.models.head import keep_freed_memory

        keep_freed_memory()  # this process has nothing else to do
        with training_progress(progress):
            folder = run(config)
        outcome = of_folder(folder) if is_main_process() else {}
    show(outcome, lambda: in_words(outcome, folder), as_json=as_json)


RESUME = "training.resume_from_checkpoint=true resumes from the last checkpoint, auto also starts without one"
NO_RESUME = "training.save_only_model leaves checkpoints that a run cannot be resumed from"


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.yaml] [KEY=VALUE]...",
            help="A recipe (a YAML file), and settings that override it.",
        ),
    ] = None,
    model: Model = None,
    data: Data = None,
    eval_data: EvalData = None,
    method: Annotated[
        str | None, typer.Option(help="Name of the method; 'prefero methods' lists them.")
    ] = None,
    output: Output = None,
    columns: Columns = None,
    format: Format = None,
    template: Template = None,
    max_length: MaxLength = None,
    as_json: Json = False,
) -> None:
    """Align a model with preference data, by one method.

    From a recipe: prefero train recipe.yaml objective.beta=0.2

    In short: prefero train --model M --data D --method simpo --output DIR
    """
    settings = configuration(
        arguments or [],
        model=model,
        data=data,
        eval_data=eval_data,
        method=method,
        output=output,
        columns=columns,
        format=format,
        template=template,
        max_length=max_length,
    )
    carry_out(settings, lambda config: prefero.train(config), as_json=as_json)


def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.yaml] [KEY=VALUE]...",
            help="A recipe (a YAML file), and settings that override it.",
        ),
    ] = None,
    methods: Annotated[str, typer.Option(help="Methods to compare, separated by commas.")] = "",
    model: Model = None,
    data: Data = None,
    eval_data: EvalData = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Align the same model with several methods, and compare the results.

    The runs share the data and the cache of reference scores. With
    training.resume_from_checkpoint=auto a comparison that was interrupted continues.

    prefero compare recipe.yaml --methods dpo,simpo,ipo
    """
    keys = [key.strip() for key in methods.split(",") if key.strip()]
    if not keys:
        raise PreferoError("name the methods to compare, such as --methods dpo,simpo,ipo")
    settings = configuration(arguments or [], model=model, data=data, eval_data=eval_data, output=output)
    carry_out(settings, lambda config: prefero.compare(config, keys), as_json=as_json)
