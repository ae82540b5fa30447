"""The one kind of error that is the user's to mend, and the words of messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PreferoError(Exception):
    """A mistake in what the user gave: data, configuration, or a combination that makes no sense.

    The message names the thing, the place and the remedy. The command line prints it alone, without a
    traceback, and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("'?.", "'?"))  # a sentence that :func:`nearest` has ended


def number_of(count: int, noun: str) -> str:
    """A number with its noun: ``"1 row"``, ``"2 rows"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that offers the known word closest to ``word``, or the first that begins with it:
    ``"; did you mean 'simpo'?"``, or nothing."""
    known = list(known)
    begin = [other for other in known if len(word) > 2 and other.startswith(word)]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    match = close or begin[:1] or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
