"""The curves of a run, or of several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prefero.report.charts import Line, Points, line_chart
from prefero.report.folder import Run, section
from prefero.report.numbers import GROUPS, METRICS, SKIPPED, Format, metric, number, percent
from prefero.training.series import EVAL

Curve = Callable[[Run, str], Points]
"""The points of a run's curve; the second argument is the prefix of the metrics, ``""`` or ``"eval/"``."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title, unit and note."""

    title: str
    unit: str
    chart: Markup
    note: str = ""


def of_run(run: Run) -> tuple[list[Figure], list[Figure]]:
    """The main charts of a run, and charts of everything else that it logged."""
    better, worse = groups_of([run])
    main = [
        _single(run, "loss"),
        _single(run, "rewards/accuracies"),
        _sides(run, "Rewards", "implicit reward, mean per response", "rewards", better, worse),
        _single(run, "rewards/margins"),
        _sides(run, "Log-probability", f"{run.unit} under the policy", "logps", better, worse, by="lengths"),
        _sides(run, "Log-ratio to the reference", run.unit, "log_ratios", better, worse, by="lengths"),
        _single(run, "entropy"),
        _single(run, "top_k_mass"),
        *_judged(run),
    ]
    drawn = {"loss", "rewards/accuracies", "rewards/margins", "entropy", "top_k_mass", *SKIPPED}
    drawn |= {"samples/win_rate", "samples/score"}
    drawn |= {f"{name}/{group}" for name in ("rewards", "logps", "log_ratios") for group in (better, worse)}
    rest = [_single(run, name) for name in run.metric_names() if name not in drawn]
    return [figure for figure in main if figure], [figure for figure in rest if figure]


def of_comparison(runs: Sequence[Run]) -> list[Figure]:
    """The same curve of every run in one chart each; held-out values where all the runs have them."""
    figures = [
        _together(runs, "Reward accuracy", METRICS["rewards/accuracies"].unit, _plain("rewards/accuracies")),
        *(
            _together(
                runs,
                f"Log-probability, {group} responses",
                f"{runs[0].unit} under the policy",
                _per_token(f"logps/{group}", f"lengths/{group}"),
            )
            for group in groups_of(runs)
        ),
        _together(
            runs,
            "Reward margin",
            METRICS["rewards/margins"].unit,
            _plain("rewards/margins"),
            note="Each method has its own scale of reward.",
        ),
        _together(runs, "Next-token entropy", METRICS["entropy"].unit, _plain("entropy")),
        _together(
            runs, "Loss", "", _plain("loss"), note="Losses of different methods cannot be compared in height."
        ),
    ]
    return [figure for figure in figures if figure]


def groups_of(runs: Sequence[Run]) -> tuple[str, str]:
    """The names of the better and the worse responses in these runs."""
    names = {name for run in runs for name in run.metric_names()}
    return next((pair for pair in GROUPS if f"logps/{pair[0]}" in names), GROUPS[0])


def _plain(name: str) -> Curve:
    return lambda run, prefix: run.series(prefix + name)


def _per_token(name: str, by: str) -> Curve:
    def curve(run: Run, prefix: str) -> Points:
        lengths = dict(run.series(prefix + by))
        return [
            (step, value / lengths[step]) for step, value in run.series(prefix + name) if lengths.get(step)
        ]

    return curve


def _single(run: Run, name: str) -> Figure | None:
    named = metric(name)
    lines = [
        Line("training", "train", run.series(name)),
        Line("held out", "held", run.series(EVAL + name), held_out=True),
    ]
    baseline = (0.5, "chance") if name == "rewards/accuracies" else None
    return figure(named.title, named.unit, lines, form=named.form, baseline=baseline)


def _sides(
    run: Run, title: str, unit: str, name: str, better: str, worse: str, by: str = ""
) -> Figure | None:
    lines = []
    for group, colour in ((better, "better"), (worse, "worse")):
        curve = _per_token(f"{name}/{group}", f"{by}/{group}") if by else _plain(f"{name}/{group}")
        held_out = curve(run, EVAL)
        lines.append(Line(group, colour, curve(run, "")))
        lines.append(
            Line(f"{group}, held out" if not lines[-1].points else "held out", colour, held_out, True)
        )
    return figure(title, unit, lines)


def _judged(run: Run) -> Iterator[Figure | None]:
    """A judge's verdicts on the samples, with the interval over prompts of the last."""
    settings = section(section(run.record, "config"), "samples")
    against = "the chosen responses" if settings.get("against") == "chosen" else "the start model's answers"
    for name, unit in (("win_rate", f"against {against}"), ("score", METRICS["samples/score"].unit)):
        named = metric(f"samples/{name}")
        point, low, high = (
            run.series(f"{EVAL}samples/{one}") for one in (name, f"{name}_low", f"{name}_high")
        )
        note = f"Judged by {settings.get('judge')} on {number(len(run.samples))} prompts."
        if low and high:
            ends = f"{named.form(low[-1][1])} to {named.form(high[-1][1])}"
            note += f" 95 % interval over prompts at the last point: {ends}."
        baseline = (0.5, "even") if name == "win_rate" else None
        lines = [Line("samples", "held", point, held_out=True)]
        yield figure(named.title, unit, lines, form=named.form, baseline=baseline, note=note)


def _together(runs: Sequence[Run], title: str, unit: str, curve: Curve, note: str = "") -> Figure | None:
    prefix = EVAL if all(len(curve(run, EVAL)) > 1 for run in runs) else ""
    lines = [
        Line(run.name, f"method-{index % 8}", curve(run, prefix), held_out=bool(prefix))
        for index, run in enumerate(runs)
    ]
    accuracy = title == "Reward accuracy"
    where = "held-out pairs" if prefix else "training pairs"
    return figure(
        title,
        unit or where,
        lines,
        form=percent if accuracy else number,
        baseline=(0.5, "chance") if accuracy else None,
        note=f"On {where}. {note}".strip(),
    )


def figure(
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    form: Format = number,
    baseline: tuple[float, str] | None = None,
    note: str = "",
) -> Figure | None:
    """A line chart with its heading, or None if none of its values was logged."""
    logged = [line for line in lines if not all(math.isnan(y) for _, y in line.points)]
    if not logged:
        return None
    courses = "; ".join(
        f"{line.label} from {form(line.points[0][1])} to {form(line.points[-1][1])}" for line in logged
    )
    chart = line_chart(logged, describe=f"{title}: {courses}", form=form, baseline=baseline)
    return Figure(title, unit, chart, note)
