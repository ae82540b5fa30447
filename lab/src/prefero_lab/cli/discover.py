"""``prefero discover``: search for a preference loss on a small world."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, show, work
from prefero.errors import PreferoError
from prefero.storage import check_output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefero_lab.discovery import Archive, Entry, Score

SHOWN = 8


class World(StrEnum):
    REVIEWS = "reviews"
    BANDIT = "bandit"


def discover(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the search.")] = Path("discovery"),
    rounds: Annotated[
        int, typer.Option(min=0, help="Number of proposals to try, besides the known losses.")
    ] = 40,
    seed: Annotated[int, typer.Option(help="Seed of world, training and mutations.")] = 0,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Ask a language model for losses, at an OpenAI-compatible address such as "
            "http://localhost:8000/v1; a key is read from PREFERO_API_KEY. Without an endpoint, known losses "
            "are mutated.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask at the endpoint.", show_default=False)
    ] = None,
    world: Annotated[
        World, typer.Option(help="Train a small language model (reviews), or a table, which is faster.")
    ] = World.REVIEWS,
    pairs: Annotated[int, typer.Option(min=2, help="Preference pairs to train on.")] = 1024,
    epochs: Annotated[float, typer.Option(help="Passes over the pairs in each training (reviews).")] = 3.0,
    prompts: Annotated[
        int, typer.Option(min=2, help="Held-out prompts of the measurements; all prompts of the bandit.")
    ] = 512,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the search in the output folder.")] = False,
    as_json: Json = False,
) -> None:
    """Search for a loss that aligns better: propose, screen, train on a small world, record the gain.

    A proposal is read as a formula and never run as code. archive.jsonl has every attempt with its score or
    the reason why it was rejected; the best is measured again on data that it was not chosen on. The method
    expression trains with a loss of the search: prefero train --method expression objective.loss=…
    """
    if (endpoint is None) != (model is None):
        raise PreferoError("give --endpoint and --model together: an address, and the model to ask there")
    check_output(output, "folder")
    with work(resume="--resume continues from the last attempt") as console:
        from prefero_lab.discovery import (
            BanditFitness,
            Endpoint,
            Fitness,
            Mutation,
            TextFitness,
            confirm,
            discover as search,
        )

        proposer = Endpoint(endpoint, model) if endpoint and model else Mutation()
        with console.status("start model, pairs and held-out prompts") as status:
            fitness: Fitness = (
                TextFitness(output, pairs=pairs, epochs=epochs, prompts=prompts, seed=seed)
                if world is World.REVIEWS
                else BanditFitness(pairs=pairs, prompts=prompts, seed=seed)
            )

            def tell(entry: Entry, archive: Archive) -> None:
                console.print(attempt(entry, archive), soft_wrap=True)
                status.update(f"attempt {len(archive)}: propose, screen, train, measure")

            archive = search(output, proposer, fitness, rounds=rounds, seed=seed, resume=resume, report=tell)
            status.update("the best once more, on pairs and prompts of its own")
            confirmed = confirm(archive, fitness)
    show(outcome(archive, confirmed), lambda: table(archive, confirmed), as_json=as_json)


def attempt(entry: Entry, archive: Archive) -> str:
    from rich.markup import escape

    from prefero_lab.discovery.archive import printable

    best = archive.ranked()[:1]
    if entry.fitness is None:
        said = f"rejected: {printable(entry.reason)}"
    else:
        low, high = entry.measures["interval"]
        said = f"gains {entry.fitness:+.3f} ± {(high - low) / 2:.3f}"
        said += ", the best so far" if best and best[0].number == entry.number else ""
        said += f" ({entry.reason})" if entry.reason else ""
    return escape(f"{entry.number:>3}  {said}: {entry.wording}")


def outcome(archive: Archive, confirmed: list[tuple[Entry, Score]]) -> dict[str, Any]:
    return {
        "archive": str(archive.file),
        "attempts": len(archive),
        "rejected": len(archive) - len(archive.ranked()),
        "best": [
            {"number": entry.number, "fitness": entry.fitness, "objective": dict(entry.objective)}
            for entry in archive.ranked()[:SHOWN]
        ],
        "confirmed": [
            {
                "number": entry.number,
                "objective": dict(entry.objective),
                "fitness": score.fitness,
                **score.as_dict(),
            }
            for entry, score in confirmed
        ],
    }


def table(archive: Archive, confirmed: list[tuple[Entry, Score]]) -> RenderableType:
    """The best attempts, and the two that were measured again on data that they were not chosen on."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    again = {entry.number: score for entry, score in confirmed}
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for name in ("no.", "gold reward gained", "on fresh data"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("loss", overflow="fold")
    ranked = archive.ranked()
    rest = [entry for entry in ranked[SHOWN:] if entry.number in again]
    for entry in [*ranked[:SHOWN], *rest]:
        low, high = entry.measures["interval"]
        score = again.get(entry.number)
        fresh = f"{score.fitness:+.3f} ± {(score.high - score.low) / 2:.3f}" if score else ""
        gained = f"{entry.fitness:+.3f} ± {(high - low) / 2:.3f}"
        grid.add_row(str(entry.number), gained, fresh, Text(entry.wording))
    note = (
        f"{len(archive)} attempts, {len(archive) - len(ranked)} of them rejected. The best of many is chosen "
        f"by its score, so trust the column of fresh data. Archive: {archive.file}"
    )
    return Group(grid, Text(), Text(note, style="dim"))
