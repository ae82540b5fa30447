"""Numbers as people read them: few digits, thin spaces between thousands, a real minus sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

MINUS, THIN = "−", "\u2009"

Format = Callable[[float], str]


def number(value: object, digits: int = 3) -> str:
    """``value`` with about ``digits`` significant digits; whole numbers in full."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    if isinstance(value, int) or (abs(value) >= 10**digits and abs(value) < 1e9):
        text = f"{round(value):,}".replace(",", THIN)
    elif value == 0:
        text = "0"
    elif abs(value) >= 1e9 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{places}f}"
    return text.replace("-", MINUS)


def alike(values: Sequence[float], digits: int = 3) -> Format:
    """The form that gives the largest of the values ``digits`` digits, and all the same decimals."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0)
    if largest == 0 or not 1e-3 <= largest < 1e4:
        return number
    places = max(0, digits - 1 - math.floor(math.log10(largest)))
    return lambda value: (
        f"{value + 0.0:.{places}f}".replace("-", MINUS) if math.isfinite(value) else number(value)
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}{THIN}%".replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def date(iso: object) -> str:
    """An ISO 8601 time for people; what is none, as it is."""
    try:
        moment = datetime.fromisoformat(str(iso))
    except ValueError:
        return str(iso)
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``: 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_labels(marks: Sequence[float], form: Format = number) -> list[str]:
    """The marks of one axis with the same number of decimals, no more than it takes to tell them apart."""
    factor, sign = (100, THIN + "%") if form is percent else (1, "")
    largest = max((abs(mark) * factor for mark in marks), default=0)
    if largest and not 1e-3 <= largest < 1e6:
        return [form(mark) for mark in marks]
    places = next((n for n in range(6) if all(_whole(mark * factor * 10**n) for mark in marks)), 6)
    return [f"{mark * factor:,.{places}f}{sign}".replace(",", THIN).replace("-", MINUS) for mark in marks]


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6
