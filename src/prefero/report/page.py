"""The report page: the contents of a run's folder in one HTML file that loads nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from prefero.errors import PreferoError
from prefero.report import contents, curves, evaluation, summary
from prefero.report.folder import Comparison, Run, read, section
from prefero.report.sweeps import SHOWN, Sweep
from prefero.storage import write_text


def render(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run or a comparison, by default to ``report.html`` in its folder, and return its
    path. The page loads nothing, works without JavaScript, and escapes all text that comes from data.

    Raises :class:`PreferoError` if the folder holds neither a run nor a comparison, or a file in it is not
    JSON.
    """
    subject = read(folder)
    target = Path(output) if output is not None else Path(folder) / "report.html"
    if target.is_dir():
        target = target / "report.html"
    page = _of_run(subject) if isinstance(subject, Run) else _of_comparison(subject)
    write_page(environment().get_template("page.html").render(page, prefero=version("prefero")), target)
    return target


def environment(package: str = "report") -> Environment:
    """The templates of a package and of this one: strict, and with everything escaped."""
    report = PackageLoader("prefero", "report")
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("prefero", package), report]),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["source"] = lambda name: Markup(report.get_source(templates, name)[0])
    return templates


def write_page(text: str, file: Path) -> None:
    """Write a page whole or not at all, or raise :class:`PreferoError`."""
    try:
        write_text(file, text)
    except OSError as error:
        raise PreferoError(f"{file}: the page cannot be written: {error}") from error


def _of_run(run: Run) -> dict[str, Any]:
    headline, tiles = summary.of_run(run)
    figures, more_figures = curves.of_run(run)
    samples, sample_count = contents.samples([(run, "after", "better")])
    return {
        **_shared([(run, "", "")]),
        "kind": "run",
        "title": str(section(run.record, "method").get("title") or run.method),
        "key": run.method,
        "headline": headline,
        "tiles": tiles,
        "frontier": None,
        "varied": [],
        "figures": figures,
        "more_figures": more_figures,
        "table": evaluation.table(run.evaluation, {run.method: "better"}),
        "note": "",
        "samples": samples,
        "sample_count": sample_count,
    }


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    sweep = Sweep.of(comparison)
    shown = tuple(sweep.runs.values())[:SHOWN] if sweep else comparison.runs
    runs = [(run, run.name, f"method-{index % 8}") for index, run in enumerate(shown)]
    colours = {name: colour for _, name, colour in runs}
    headline, tiles = (
        summary.of_comparison(comparison, shown, "run", sweep.metric)
        if sweep
        else summary.of_comparison(comparison, shown, "method")
    )
    samples, sample_count = contents.samples(runs)
    return {
        **_shared(runs),
        "kind": "comparison",
        "finished": comparison.finished,
        "findings": [
            finding
            for run in comparison.runs
            for finding in contents.findings(run, run.name, colours.get(run.name, "start"))
        ],
        "title": f"Sweep over {', '.join(sweep.keys)}" if sweep else " · ".join(run.name for run in shown),
        "key": "",
        "headline": headline,
        "tiles": tiles,
        "frontier": evaluation.frontier(comparison.evaluation, colours),
        "varied": sweep.figures(colours) if sweep else [],
        "figures": curves.of_comparison(shown),
        "more_figures": [],
        "table": sweep.table(colours) if sweep else evaluation.table(comparison.evaluation, colours),
        "note": str(comparison.record.get("note") or ""),
        "samples": samples,
        "sample_count": sample_count,
    }


def _shared(runs: Sequence[tuple[Run, str, str]]) -> dict[str, Any]:
    """The parts of both pages that are the same; runs come with their name on the page and a CSS class."""
    first = runs[0][0]
    equations = [str(section(run.record, "method").get("equation") or "") for run, *_ in runs]
    watching, unwatched = contents.watching([run for run, *_ in runs])
    return {
        "subtitle": _model_name(first),
        "finished": all(run.finished for run, *_ in runs),
        "equations": [(*named, typeset(text)) for (_, *named), text in zip(runs, equations, strict=True)],
        "findings": [finding for each in runs for finding in contents.findings(*each)],
        "watching": watching,
        "unwatched": unwatched,
        "data": contents.data_sections(first),
        "first_rows": contents.first_rows(first),
        "sampling": first.record.get("sampling") or "",
        "template": first.record.get("template") or "",
        "notes_on_prompts": first.record.get("notes_on_prompts") or [],
        "settings": [(*named, contents.settings(run), contents.recipe(run)) for run, *named in runs],
    }


def _model_name(run: Run) -> str:
    """A hub name in full; the last part of a path."""
    name = str(section(run.record, "model").get("name") or "")
    return name if name.count("/") == 1 and not name.startswith(("/", ".")) else name.rpartition("/")[2]


_INDEX = r"(?:\{([^{}]*)\}|([A-Za-z0-9Α-ω]+))"


def typeset(equation: str) -> Markup:
    """An equation of the registry in HTML, with the indices and exponents of ``Σ_{t≤p} e^{r_k}``."""
    text = str(escape(equation))
    for mark, tag in (("_", "sub"), (r"\^", "sup")):
        text = re.sub(mark + _INDEX, rf"<{tag}>\1\2</{tag}>", text)
    return Markup(text)
