"""The data as the checks see them: texts of prompts and responses, side by side, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefero.data.arrange import PAIR, worth
from prefero.data.examples import Example, Examples, Response, Text, spoken
from prefero.data.files import Source
from prefero.data.formats import load_examples
from prefero.data.pictures import Picture
from prefero.doctor.further import Further, further
from prefero.errors import PreferoError


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt. ``row`` is the example's position; ``scores`` are a judge's, if known."""

    row: int
    prompt: str
    chosen: str
    rejected: str
    scores: tuple[float, float] | None = None

    @property
    def sides(self) -> tuple[str, str]:
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class Labelled:
    """One response that is called good or bad by itself."""

    row: int
    prompt: str
    response: str
    good: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """The examples of one source as pairs, or as labelled responses where they come one by one.

    A list is read as its best against its worst response. ``ties`` are the rows that prefer neither side:
    called a tie by annotators, or a list whose best is no better than its worst. ``bare`` are rows that
    nothing is known of. ``further`` is what rows say that examples do not keep.
    """

    examples: Examples
    pairs: tuple[Pair, ...]
    labelled: tuple[Labelled, ...]
    ties: tuple[int, ...]
    bare: tuple[int, ...]
    further: Further = field(default_factory=Further)

    def __len__(self) -> int:
        return len(self.examples)

    def origin(self, row: int) -> str:
        return self.examples[row].origin

    @property
    def votes(self) -> dict[int, tuple[Any, ...]]:
        """By row, what its annotators said."""
        known = self.further.votes
        return {row: known[one.origin] for row, one in enumerate(self.examples) if one.origin in known}

    @property
    def writers(self) -> dict[int, tuple[str, str]]:
        """By row, who wrote the chosen and the rejected response."""
        known = self.further.writers
        return {row: known[one.origin] for row, one in enumerate(self.examples) if one.origin in known}

    @property
    def prompts(self) -> Iterator[tuple[int, str]]:
        """Every row with its prompt."""
        return ((row, as_text(example.prompt)) for row, example in enumerate(self.examples))

    @property
    def sided(self) -> Iterator[tuple[int, str, bool]]:
        """Every response that is on one side: its row, its text, and whether the better one."""
        for pair in self.pairs:
            yield pair.row, pair.chosen, True
            yield pair.row, pair.rejected, False
        for one in self.labelled:
            yield one.row, one.response, one.good


def read(
    source: Source, *, split: str = "train", format: str = "auto", limit: int | None = None
) -> tuple[Corpus, Source]:
    """The corpus of a source, and the source in a form that can be read again. Bad rows are listed in
    ``examples.skipped``.

    Raises :class:`PreferoError` where nothing can be read.
    """
    if not isinstance(source, str | Path | list | tuple) and not hasattr(source, "column_names"):
        source = source if hasattr(source, "keys") else list(source)
    examples = load_examples(source, split=split, format=format, skip_bad_rows=True, limit=limit)
    return of_examples(examples, further(source, split=split)), source


def of_examples(examples: Examples, more: Further | None = None) -> Corpus:
    """Raises :class:`PreferoError` for responses that are images."""
    for example in examples:
        if any(isinstance(response.content, Picture) for response in example.responses):
            raise PreferoError(
                f"{example.origin}: the responses are images, and what is looked for is in texts; images in "
                "prompts are fine"
            )
    pairs, labelled, ties, bare = [], [], [], []
    for row, example in enumerate(examples):
        sides = _sides(example)
        if example.columns.get("tie"):
            ties.append(row)
        elif isinstance(sides, tuple):
            better, worse = sides
            scores = tuple(side.columns.get("score") for side in sides)
            pairs.append(
                Pair(
                    row,
                    as_text(example.prompt),
                    said(better),
                    said(worse),
                    None if None in scores else scores,  # type: ignore[arg-type]
                )
            )
        elif sides == "tie":
            ties.append(row)
        elif len(example.responses) == 1 and "label" in example.responses[0].columns:
            only = example.responses[0]
            labelled.append(Labelled(row, as_text(example.prompt), said(only), only.columns["label"] > 0))
        else:
            bare.append(row)
    return Corpus(
        examples, tuple(pairs), tuple(labelled), tuple(ties), tuple(bare), more if more else Further()
    )


def _sides(example: Example) -> tuple[Response, Response] | str:
    by_role = {response.role: response for response in example.responses}
    if set(PAIR) <= set(by_role):
        return by_role["chosen"], by_role["rejected"]
    worths = [worth(response) for response in example.responses]
    known = [value for value in worths if value is not None]
    if len(known) < 2 or len(known) < len(worths):
        return ""
    best, worst = max(known), min(known)
    if best == worst:
        return "tie"
    return example.responses[known.index(best)], example.responses[known.index(worst)]


def said(response: Response) -> str:
    return "\n\n".join(spoken(response.content))


def as_text(content: Text) -> str:
    """A prompt as one text; the turns of a conversation with their roles."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return _words(content[0].get("content"))
    return "\n\n".join(f"{turn['role']}: {_words(turn.get('content'))}" for turn in content)


def _words(content: Any) -> str:
    if isinstance(content, list | tuple):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content or ""


def same(text: str) -> int:
    """A number that two texts share if they differ in nothing but white space and case."""
    return hash(" ".join(text.split()).casefold())
