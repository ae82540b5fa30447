"""How rows become tokens: columns that are not read, pairs whose sides are the same tokens, and what the chat
template does to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prefero.data.formats.fields import BOOKKEEPING
from prefero.data.tokenize import SAME_TOKENS
from prefero.doctor.checks import NEVER, Finding, Look, Measure, Remedy


def check_reading(look: Look) -> Iterator[Finding]:
    """Columns that nothing is made of; with a model, what its tokenizer and template make of the rows."""
    yield _unread(look)
    if look.policy is not None and look.corpus.pairs:
        yield _same_tokens(look)
        yield from _remarks(look)


def _unread(look: Look) -> Finding:
    examples = look.corpus.examples
    columns = Counter(name for example in examples for name in example.unread)
    rows = [
        row for row, example in enumerate(examples) if not all(map(BOOKKEEPING.fullmatch, example.unread))
    ]
    share = Measure.share(
        "rows with a column that is not read, ids and the like aside", len(rows), len(examples)
    )
    told = ", ".join(f"{name} ({count:,})" for name, count in columns.most_common(12))
    return look.finding(
        "unread",
        "Columns that are not read",
        share,
        f"Nothing is made of these columns, with the number of rows that have them: {told}."
        if columns
        else "Every column of the rows is read.",
        limits=(0, NEVER),
        stake=0.0,
        why="If one of them holds the prompt, a system text, earlier turns or scores under another name, the "
        "policy is trained on something else than the annotators saw.",
        remedies=(Remedy("Name such a column: --columns prompt=COLUMN (data.columns in a recipe)."),)
        if rows
        else (),
        specimens=look.specimens(rows, 1),
    )


def _same_tokens(look: Look) -> Finding:
    assert look.policy is not None
    tokens = look.policy.tokens
    count = tokens.summary.dropped.get(SAME_TOKENS, 0)
    share = Measure.share(SAME_TOKENS, count, len(tokens) + count)
    return look.finding(
        "same_tokens",
        "Sides that are the same tokens",
        share,
        f"{count:,} of {share.of:,} pairs have two sides that the model cannot tell apart: the chat template "
        "leaves out where they differ, or a limit on the length cuts it off. Training leaves them out.",
        limits=(0, 0.1),
        why="Such a pair has the loss ln 2 for ever, and no gradient.",
        sample=look.policy.sample(len(look.corpus.pairs)),
    )


def _remarks(look: Look) -> Iterator[Finding]:
    """Notes on single rows as they are tokenised, counted."""
    assert look.policy is not None
    tokens = look.policy.tokens
    notes = Counter(note for example in tokens for note in example.notes if "max_length" not in note)
    if not notes:
        return
    (_, most), *_ = notes.most_common(1)
    share = Measure.share("rows with a remark on how the model reads them", most, len(tokens))
    told = " ".join(f"{note[:1].upper()}{note[1:]} ({count:,} rows)." for note, count in notes.most_common())
    yield look.finding(
        "template",
        "How the model reads the rows",
        share,
        told,
        limits=(0, NEVER),
        stake=0.0,
        why="The model is trained on what its chat template writes.",
        remedies=(Remedy("See the rows as they are trained.", look.commands.preview()),),
        sample=look.policy.sample(len(look.corpus.pairs)),
    )
