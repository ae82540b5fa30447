"""In which script a text is written: by the letters it has most of."""

from __future__ import annotations

import numpy as np

_BLOCKS = (
    (0x0041, "Latin"),
    (0x005B, ""),
    (0x0061, "Latin"),
    (0x007B, ""),
    (0x00C0, "Latin"),
    (0x0250, ""),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, ""),
    (0x0750, "Arabic"),
    (0x0780, ""),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"),
    (0x0B00, "Oriya"),
    (0x0B80, "Tamil"),
    (0x0C00, "Telugu"),
    (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Burmese"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x1380, ""),
    (0x1780, "Khmer"),
    (0x1800, ""),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, ""),
    (0x3040, "Kana"),
    (0x3100, ""),
    (0x3400, "Han"),
    (0xA000, ""),
    (0xAC00, "Hangul"),
    (0xD7B0, ""),
    (0xF900, "Han"),
    (0xFB00, ""),
    (0x20000, "Han"),
    (0x32000, ""),
)
"""Where in Unicode a script's letters begin, and where they end; the marks between them are of no script."""

_STARTS = np.asarray([start for start, _ in _BLOCKS])
_NAMES = np.asarray([name for _, name in _BLOCKS])


def script(text: str) -> str:
    """The script with most letters, "" if there are none; Japanese, which mixes, is Kana where it has any."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else ""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    place = np.searchsorted(_STARTS, points, "right") - 1
    names, counts = np.unique(_NAMES[place[place >= 0]], return_counts=True)
    found = {str(name): int(count) for name, count in zip(names, counts, strict=True) if name}
    if {"Kana", "Han"} <= set(found):
        found["Kana"] += found.pop("Han")
    return max(found, key=found.__getitem__) if found else ""
