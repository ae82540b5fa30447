"""Equations, which the registry writes in plain text, with their indices set as indices."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_GROUP = r"(?:\{([^{}]*)\}|([A-Za-z0-9Α-ω]+))"
_MARKS = (("_", "sub"), (r"\^", "sup"))


def typeset(equation: str) -> Markup:
    """``π_ref(y_w)`` and ``Σ_{t≤p} e^{r_k}`` in HTML; everything else stays as it is."""
    text = str(escape(equation))
    for mark, tag in _MARKS:
        text = re.sub(mark + _GROUP, rf"<{tag}>\1\2</{tag}>", text)
    return Markup(text)
