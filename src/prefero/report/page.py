"""The report page: the contents of a run's folder in one HTML file that loads nothing else."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from prefero.errors import PreferoError
from prefero.report import contents, curves, evaluation, summary
from prefero.report.folder import Comparison, Run, read, section
from prefero.storage import write_text


def render(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run or a comparison, and return its path.

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
    """Write a page whole or not at all.

    Raises :class:`PreferoError` if the file cannot be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        raise PreferoError(f"{file}: the page cannot be written: {error}") from error


def _of_run(run: Run) -> dict[str, Any]:
    headline, tiles = summary.of_run(run)
    main, rest = curves.of_run(run)
    method = section(run.record, "method")
    samples, sample_count = contents.samples([(run, "after", "better")])
    watching, unwatched = contents.watching([run])
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
        "watching": watching,
        "unwatched": unwatched,
        "frontier": None,
        "figures": main,
        "more_figures": rest,
        "table": evaluation.table(run.evaluation, {run.method: "better"}),
        "note": "",
        "samples": samples,
        "sample_count": sample_count,
        "data": contents.data_sections(run),
        "settings": [("", "", contents.settings(run), contents.recipe(run))],
    }


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    runs = comparison.runs
    colours = {run.method: f"method-{index % 8}" for index, run in enumerate(runs)}
    headline, tiles = summary.of_comparison(runs, comparison.evaluation)
    samples, sample_count = contents.samples([(run, run.method, colours[run.method]) for run in runs])
    watching, unwatched = contents.watching(runs)
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
            finding for run in runs for finding in contents.findings(run, run.method, colours[run.method])
        ],
        "watching": watching,
        "unwatched": unwatched,
        "frontier": evaluation.frontier(comparison.evaluation, colours),
        "figures": curves.of_comparison(runs),
        "more_figures": [],
        "table": evaluation.table(comparison.evaluation, colours),
        "note": str(comparison.record.get("note") or ""),
        "samples": samples,
        "sample_count": sample_count,
        "data": contents.data_sections(runs[0]),
        "settings": [
            (run.method, colours[run.method], contents.settings(run), contents.recipe(run)) for run in runs
        ],
    }


def _model_name(run: Run) -> str:
    """A hub name in full; the last part of a path."""
    name = str(section(run.record, "model").get("name") or "")
    return name if name.count("/") == 1 and not name.startswith(("/", ".")) else name.rpartition("/")[2]


_INDEX = r"(?:\{([^{}]*)\}|([A-Za-z0-9Α-ω]+))"


def typeset(equation: str) -> Markup:
    """An equation of the registry, such as ``π_ref(y_w)`` or ``Σ_{t≤p} e^{r_k}``, in HTML with its indices
    and exponents."""
    text = str(escape(equation))
    for mark, tag in (("_", "sub"), (r"\^", "sup")):
        text = re.sub(mark + _INDEX, rf"<{tag}>\1\2</{tag}>", text)
    return Markup(text)
