"""Charts as inline SVG whose colours are CSS classes, so that one file serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean

from markupsafe import Markup, escape

from prefero.report.numbers import Format, number, tick_labels, ticks

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 92, 12, 36
MOST_POINTS = 400
LABEL_GAP = 14

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """``colour`` is a CSS class. ``held_out`` values are few and exact, and drawn as joined dots."""

    label: str
    colour: str
    points: Points
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area: the ranges of the axes in data units."""

    x: tuple[float, float]
    y: tuple[float, float]
    right: int = RIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + across * (WIDTH - LEFT - self.right), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    @property
    def end(self) -> int:
        return WIDTH - self.right


def span(values: Sequence[float], *, include: Sequence[float] = ()) -> tuple[float, float]:
    """The lowest and highest finite values, with some margin; a constant gets a margin around it."""
    finite = [value for value in [*values, *include] if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - room, high + room


def line_chart(
    lines: Sequence[Line],
    *,
    describe: str,
    form: Format = number,
    baseline: tuple[float, str] | None = None,
    x_label: str = "optimizer step",
) -> Markup:
    """Lines over steps, labelled at their ends. ``baseline`` is a value to be marked, and its name."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for y in _without_outliers(line)]
    low, high = span(ys, include=[baseline[0]] if baseline else [])
    frame = Frame((min(xs), max(max(xs), min(xs) + 1)), (low, high))
    parts = [_grid(frame, form, x_label)]
    if baseline:
        parts.append(_baseline(frame, *baseline))
    exact = all(line.held_out for line in lines)
    parts += [_drawn(frame, line, "mean" if exact else "held-out") for line in lines]
    parts.append(_end_labels(frame, lines, form))
    return svg(parts, describe)


def _without_outliers(line: Line) -> list[float]:
    """The values that the axis must show: one outlier in hundreds must not flatten the rest."""
    values = [y for _, y in line.points if math.isfinite(y)]
    if line.held_out or len(values) < 40:
        return values
    ordered = sorted(values)
    cut = len(ordered) // 100
    return ordered[cut : len(ordered) - cut]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Centred moving means over a fifteenth of the line to either side, fewer at its ends."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    last = len(finite) - 1
    means = []
    for i, (x, _) in enumerate(finite):
        reach = min(max(1, len(finite) // 15), i, last - i)
        means.append((x, fmean(y for _, y in finite[i - reach : i + reach + 1])))
    return means


def thinned(points: Points) -> Points:
    """At most ``MOST_POINTS`` of the points, including the last."""
    stride = math.ceil(len(points) / MOST_POINTS)
    return [point for i, point in enumerate(points) if (len(points) - 1 - i) % stride == 0]


def _drawn(frame: Frame, line: Line, joined: str) -> Markup:
    if line.held_out:
        dots = Markup().join(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                *frame.at(x, y), f"{line.label}: {number(y)} at step {number(x)}"
            )
            for x, y in line.points
            if math.isfinite(y)
        )
        return _group(line, path(frame, line.points, joined), dots)
    if len(line.points) < 20:
        return _group(line, path(frame, line.points, "mean"))
    raw = path(frame, thinned(line.points), "raw")
    return _group(line, raw, path(frame, thinned(smoothed(line.points)), "mean"))


def _group(line: Line, *parts: Markup) -> Markup:
    return Markup('<g class="line {}">{}</g>').format(line.colour, Markup().join(parts))


def path(frame: Frame, points: Points, name: str) -> Markup:
    """A path through the points, clipped to the frame and broken where a value is missing."""
    strokes = []
    for finite, stretch in groupby(points, key=lambda point: math.isfinite(point[1])):
        if not finite:
            continue
        inside = [frame.at(x, min(max(y, frame.y[0]), frame.y[1])) for x, y in stretch]
        strokes.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in inside))
    return Markup('<path class="{}" d="{}"/>').format(name, " ".join(strokes))


def _grid(
    frame: Frame, form: Format, x_label: str, x_marks: Sequence[tuple[float, str]] | None = None
) -> Markup:
    bottom = HEIGHT - BOTTOM
    parts = []
    marks = ticks(*frame.y)
    for value, label in zip(marks, tick_labels(marks, form), strict=True):
        _, y = frame.at(frame.x[0], value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{frame.end}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 8}" y="{y + 3.5:.1f}">{escape(label)}</text>')
    if x_marks is None:
        marks = ticks(*frame.x)
        x_marks = list(zip(marks, tick_labels(marks), strict=True))
    for value, label in x_marks:
        x, _ = frame.at(value, frame.y[0])
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick x" x="{x:.1f}" y="{bottom + 16}">{escape(label)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{frame.end}"/>')
    parts.append(f'<text class="unit" x="{frame.end}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    return Markup("".join(parts))


def _baseline(frame: Frame, value: float, name: str) -> Markup:
    _, y = frame.at(frame.x[0], value)
    return Markup(
        '<path class="baseline" d="M{0} {1:.1f}H{2}"/><text class="baseline" x="{2}" y="{3:.1f}">{4}</text>'
    ).format(LEFT, y, frame.end, y - 5, name)


def _end_labels(frame: Frame, lines: Sequence[Line], form: Format) -> Markup:
    """The names of the lines at their last values, moved apart where they would overlap."""
    places = []
    for line in lines:
        values = [y for _, y in (line.points if line.held_out else smoothed(line.points)) if math.isfinite(y)]
        if values:
            _, y = frame.at(frame.x[1], min(max(values[-1], frame.y[0]), frame.y[1]))
            places.append((y, line, values[-1]))
    heights = spread([y for y, _, _ in places], TOP + 4, HEIGHT - BOTTOM)
    return Markup().join(
        Markup('<text class="end {}" x="{}" y="{:.1f}">{}<title>{}</title></text>').format(
            line.colour, frame.end + 7, y + 3.5, line.label, form(last)
        )
        for y, (_, line, last) in zip(heights, places, strict=True)
    )


def spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights moved apart to :data:`LABEL_GAP`, in their order, between ``top`` and ``bottom``."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = dict.fromkeys(order, 0.0)
    floor = top
    for i in order:
        placed[i] = max(heights[i], floor)
        floor = placed[i] + LABEL_GAP
    ceiling = bottom
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - LABEL_GAP
    return [placed[i] for i in range(len(heights))]


def histogram(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[float]],
    *,
    describe: str,
    x_label: str = "tokens",
) -> Markup:
    """Outlined distributions over common bins; ``counts`` by CSS class."""
    highest = max((max(values, default=0) for values in counts.values()), default=1) or 1
    frame = Frame((edges[0], edges[-1]), (0, highest * 1.06), right=16)
    parts = [_grid(frame, number, x_label)]
    for colour, values in counts.items():
        corners = [frame.at(edges[0], 0)]
        for (left, right), value in zip(pairwise(edges), values, strict=False):
            corners += [frame.at(left, value), frame.at(right, value)]
        corners.append(frame.at(edges[-1], 0))
        outline = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        parts.append(Markup('<path class="area {}" d="{}"/>').format(colour, outline))
    return svg(parts, describe)


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a scatter chart with the intervals of its coordinates, where they are known. ``named`` ones
    have their label beside them; of all it is shown under the pointer."""

    label: str
    colour: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    named: bool = True


def scatter(
    dots: Sequence[Dot],
    *,
    describe: str,
    x_label: str,
    form: Format = number,
    x_marks: Sequence[tuple[float, str]] | None = None,
) -> Markup:
    """Labelled points with error bars. ``x_marks`` are places on the horizontal axis and their labels, by
    default round numbers."""
    xs = [x for dot in dots for x in (dot.x, *(dot.x_interval or ()))]
    ys = [y for dot in dots for y in (dot.y, *(dot.y_interval or ()))]
    frame = Frame(span(xs), span(ys))
    parts = [_grid(frame, form, x_label, x_marks)]
    for dot in dots:
        x, y = frame.at(dot.x, dot.y)
        to_the_left = x > (LEFT + frame.end) / 2  # where there is room for the label
        bars = []
        if dot.x_interval:
            low, high = (frame.at(end, dot.y)[0] for end in dot.x_interval)
            bars.append(f"M{low:.1f} {y:.1f}H{high:.1f}")
        if dot.y_interval:
            low, high = (frame.at(dot.x, end)[1] for end in dot.y_interval)
            bars.append(f"M{x:.1f} {low:.1f}V{high:.1f}")
        parts.append(
            Markup(
                '<g class="line {0}"><path class="bar" d="{1}"/><circle cx="{2:.1f}" cy="{3:.1f}" r="5">'
                "<title>{4}</title></circle></g>"
                '<text class="end {0}" x="{5:.1f}" y="{6:.1f}" text-anchor="{7}">{8}</text>'
            ).format(
                dot.colour,
                " ".join(bars),
                x,
                y,
                f"{dot.label}: {number(dot.y)}" + ("" if x_marks else f" at {number(dot.x)}"),
                x + (-8 if to_the_left else 8),
                y - 8,
                "end" if to_the_left else "start",
                dot.label if dot.named else "",
            )
        )
    return svg(parts, describe)


def whisker(
    value: float, interval: tuple[float, float] | None, scale: tuple[float, float], colour: str
) -> Markup:
    """A value and its interval on a common scale, for a table cell."""
    width, low = 120, scale[0]
    reach = (scale[1] - low) or 1

    def at(x: float) -> float:
        return 4 + (width - 8) * min(max((x - low) / reach, 0), 1)

    bar = f"M{at(interval[0]):.1f} 7H{at(interval[1]):.1f}" if interval else ""
    return Markup(
        '<svg class="whisker" viewBox="0 0 {} 14" aria-hidden="true"><path class="grid" d="M4 7H{}"/>'
        '<g class="line {}"><path class="bar" d="{}"/><circle cx="{:.1f}" cy="7" r="3.5"/></g></svg>'
    ).format(width, width - 4, colour, bar, at(value))


def svg(parts: Sequence[Markup], describe: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, describe, Markup().join(parts)
    )
