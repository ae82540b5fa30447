"""The page itself: everything the folder holds in one HTML file that needs nothing else."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from prefero.report import contents, curves, evaluation, summary
from prefero.report.equations import typeset
from prefero.report.folder import Comparison, Run, read, section


def render(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run or a comparison, and say where.

    ``output`` is by default ``report.html`` in the folder. The page loads nothing from anywhere, works
    without JavaScript, and escapes all text that comes from data.

    Raises :class:`PreferoError` if the folder holds neither a run nor a comparison, or a file in it is not
    JSON.
    """
    subject = read(folder)
    target = Path(output) if output is not None else Path(folder) / "report.html"
    if target.is_dir():
        target = target / "report.html"
    page = _of_run(subject) if isinstance(subject, Run) else _of_comparison(subject)
    text = environment().get_template("page.html").render(page, prefero=version("prefero"))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, target)
    return target


def environment() -> Environment:
    loader = PackageLoader("prefero", "report")
    made = Environment(
        loader=loader,
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["source"] = lambda name: Markup(loader.get_source(made, name)[0])
    return made


def _of_run(run: Run) -> dict[str, Any]:
    headline, tiles = summary.of_run(run)
    main, rest = curves.of_run(run)
    method = section(run.record, "method")
    samples, sample_count = contents.samples([(run, "after", "better")])
    able, unable = contents.watching([run])
    return {
        "kind": "run",
        "title": str(method.get("title") or run.method),
        "key": run.method,
        "subtitle": _model_name(run),
        "headline": headline,
        "finished": run.finished,
        "tiles": tiles,
        "equations": [("", "", typeset(str(method["equation"])))] if method.get("equation") else [],
        "findings": contents.findings(run),
        "watching": able,
        "unwatched": unable,
        "frontier": None,
        "figures": main,
        "more_figures": rest,
        "table": evaluation.table(run.evaluation, {run.method: "better"}),
        "note": "",
        "samples": samples,
        "sample_count": sample_count,
        "data": contents.data_parts(run),
        "settings": [("", "", contents.settings(run), contents.recipe(run))],
    }


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    runs = comparison.runs
    colours = {run.method: f"method-{index % 8}" for index, run in enumerate(runs)}
    headline, tiles = summary.of_comparison(runs, comparison.evaluation)
    samples, sample_count = contents.samples([(run, run.method, colours[run.method]) for run in runs])
    able, unable = contents.watching(runs)
    return {
        "kind": "comparison",
        "title": " · ".join(run.method for run in runs),
        "key": "",
        "subtitle": _model_name(runs[0]),
        "headline": headline,
        "finished": all(run.finished for run in runs),
        "tiles": tiles,
        "equations": [
            (
                run.method,
                colours[run.method],
                typeset(str(section(run.record, "method").get("equation") or "")),
            )
            for run in runs
        ],
        "findings": [
            found for run in runs for found in contents.findings(run, run.method, colours[run.method])
        ],
        "watching": able,
        "unwatched": unable,
        "frontier": evaluation.frontier(comparison.evaluation, colours),
        "figures": curves.of_comparison(runs),
        "more_figures": [],
        "table": evaluation.table(comparison.evaluation, colours),
        "note": str(comparison.record.get("note") or ""),
        "samples": samples,
        "sample_count": sample_count,
        "data": contents.data_parts(runs[0]),
        "settings": [
            (run.method, colours[run.method], contents.settings(run), contents.recipe(run)) for run in runs
        ],
    }


def _model_name(run: Run) -> str:
    """A hub name in full, the last part of a path."""
    name = str(section(run.record, "model").get("name") or "")
    return name if name.count("/") == 1 and not name.startswith(("/", ".")) else name.rpartition("/")[2]
