"""``prefero reproduce``: measure what papers claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, complain, show, work
from prefero.errors import PreferoError

if TYPE_CHECKING:
    from rich.console import Console

NOT_ALL_MEASURED = 1


def reproduce(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Papers, by their keys.", show_default=False),
    ] = None,
    area: Annotated[str | None, typer.Option(help="All papers of an area.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All papers.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of seeds; a verdict needs two or more.", show_default="the claim's own"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for results, from which a later call resumes.")
    ] = Path("reproduced"),
    report: Annotated[
        bool, typer.Option("--report", help="Write OUTPUT/report.html, one page about these papers.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose the step sizes again, on seeds that are not judged.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Number of parallel processes.", show_default="one per core"
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Update FILE, the results of the survey as data.", show_default=False
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is in OUTPUT already.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what papers claim, in small worlds; without KEY, --area or --all list the papers.

    The verdict (holds, does not hold here, too small to tell) is measured each time, over several seeds.
    """
    from prefero_lab.papers.survey import chosen, papers
    from prefero_lab.papers.table import as_dict, listed, listing, outcomes

    wanted = chosen(keys or (), area, everything)
    if not wanted:
        if report or tune or fresh or seeds or record:
            raise PreferoError("name the papers to measure: keys, --area or --all (alone, it lists them)")
        every = list(papers().values())
        show([listed(paper) for paper in every], lambda: listing(every), as_json=as_json)
        return

    from prefero_lab.machine import cores
    from prefero_lab.papers.results import Results
    from prefero_lab.papers.runner import reproduce_all

    label = wanted[0].key if len(wanted) == 1 else f"{len(wanted)} papers"
    with work() as console, _progress(console, label) as progress:
        survey = reproduce_all(
            wanted,
            seeds=seeds,
            output=Results(output, fresh=fresh),
            tune=tune,
            jobs=jobs or cores(),
            progress=progress,
        )
    if len(wanted) == 1:
        for error in survey.failed.values():
            raise error
    failed = {key: f"{type(error).__name__}: {error}" for key, error in survey.failed.items()}
    for key, why in failed.items():
        complain(f"{key}: {why}")
    measured = survey.found
    payload: dict[str, Any] = {"papers": [as_dict(outcome) for outcome in measured], "not_measured": failed}
    if report:
        from prefero_lab.papers.page import render

        payload["report"] = str(render(measured, failed, output / "report.html"))
    if record:
        from prefero_lab.papers.record import update

        update(record, measured)
    show(payload, lambda: outcomes(measured, failed, report=payload.get("report")), as_json=as_json)
    if failed:
        raise typer.Exit(NOT_ALL_MEASURED)


@contextmanager
def _progress(console: Console, label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, elsewhere a line for each result."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(label, total=None, what="")

        def report(done: int, total: int, what: str) -> None:
            bars.update(task, completed=done, total=total, what=what)
            if what and not console.is_terminal:
                console.print(f"{label}, {done} of {total} done; {what}", soft_wrap=True)

        yield report
