"""Numbers, ticks, labels and equations on the page."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from prefero.report.charts import LABEL_GAP, Dot, Line, line_chart, scatter, smoothed, spread, thinned
from prefero.report.numbers import duration, number, percent, tick_labels, ticks
from prefero.report.page import typeset

FINITE = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.6931, "0.693"),
        (-1.5, "−1.50"),
        (1234567, "1\u2009234\u2009567"),
        (5e-7, "5e−7"),
        (1e-3, "0.00100"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
        (None, "–"),
        (123.456, "123"),
    ],
)
def test_numbers_as_people_read_them(value, text):
    assert number(value) == text


def test_durations():
    assert [duration(s) for s in (3.4, 75, 3600 * 5 + 61)] == ["3 s", "1 min 15 s", "5 h 01 min"]


@given(FINITE, st.floats(1e-5, 1e6))
def test_ticks_are_few_even_and_inside(low, width):
    marks = ticks(low, low + width)
    assert len(marks) <= 8
    assert all(low - 1e-6 * width <= mark <= low + width * (1 + 1e-6) for mark in marks)
    gaps = [after - before for before, after in pairwise(marks)]
    assert all(gap == pytest.approx(gaps[0], rel=1e-3) for gap in gaps)


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
def test_tick_labels_tell_the_ticks_apart(low, width):
    marks = ticks(low, low + width)
    assert len(set(tick_labels(marks))) == len(marks)


def test_tick_labels_have_the_same_decimals():
    assert tick_labels([0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([0.5, 0.6], percent) == ["50\u2009%", "60\u2009%"]


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_do_not_overlap_and_keep_their_order(heights):
    placed = spread(heights, 0, 200)
    ordered = [place for _, place in sorted(zip(heights, placed, strict=True))]
    for above, below in pairwise(ordered):
        assert below - above >= LABEL_GAP - 1e-6


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=60))
def test_a_running_mean_stays_within_what_was_logged(points):
    values = [y for _, y in points]
    assert all(min(values) - 1e-3 <= y <= max(values) + 1e-3 for _, y in smoothed(points))


def test_a_running_mean_does_not_bend_a_straight_line():
    line = [(x, 2.0 * x) for x in range(100)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])


def test_long_lines_are_thinned_but_end_where_they_end():
    points = [(float(x), float(x)) for x in range(5001)]
    assert len(thinned(points)) <= 400 and thinned(points)[-1] == points[-1]


def test_one_outlier_does_not_flatten_a_curve():
    points = [(float(x), 0.5 + 0.001 * (x % 7)) for x in range(300)]
    points[3] = (3.0, 1e6)
    chart = line_chart([Line("training", "train", points)], describe="loss")
    labels = re.findall(r'class="tick y"[^>]*>([^<]+)', chart)
    assert labels and all(float(label) < 1 for label in labels)


def test_a_gap_breaks_the_line():
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, 2.0), (3.0, 2.5)]
    chart = line_chart([Line("training", "train", points)], describe="loss")
    assert re.search(r'class="mean" d="M[^"]*M', chart) and "nan" not in chart


def test_a_chart_says_in_words_what_it_shows():
    chart = line_chart([Line("a", "train", [(0.0, 1.0), (1.0, 2.0)])], describe='x "quoted" <b>')
    assert 'aria-label="x &#34;quoted&#34; &lt;b&gt;"' in chart


@pytest.mark.parametrize(
    ("plain", "html"),
    [
        ("log π(y_w)/π_ref(y_w)", "log π(y<sub>w</sub>)/π<sub>ref</sub>(y<sub>w</sub>)"),
        ("Σ_{t≤p} e^{r_k}", "Σ<sub>t≤p</sub> e<sup>r<sub>k</sub></sup>"),
        ("β/|y_w|", "β/|y<sub>w</sub>|"),
        ("a < b", "a &lt; b"),
        ("y_<script>", "y_&lt;script&gt;"),
    ],
)
def test_indices_of_equations(plain, html):
    assert typeset(plain) == html


def test_the_label_of_a_dot_stands_where_there_is_room():
    dots = [Dot("a long name on the left", "start", 0, 1), Dot("a long name on the right", "start", 9, 2)]
    labels = re.findall(
        r'<text class="end [^>]*text-anchor="(\w+)">([^<]+)<', scatter(dots, describe="", x_label="")
    )
    assert labels == [("start", dots[0].label), ("end", dots[1].label)]
