"""What a limit on the length cuts off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefero.doctor.corpus import as_text, said
from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look

if TYPE_CHECKING:
    from prefero.doctor.policy import Policy

BYTES = 4
"""Of text to a token, where no tokenizer counts: about right for English."""


@dataclass(frozen=True, slots=True)
class Needed:
    """Tokens of prompt and longest response, row by row, and which rows lose the end of a response."""

    rows: Sequence[int]
    tokens: Sequence[int]
    ends: int
    cut: tuple[int, ...]
    how: str


def check(look: Look) -> Iterator[Finding | Unasked]:
    if look.policy is not None and look.corpus.pairs:
        yield finding(look, look.policy.limit, counted(look, look.policy))
    elif look.max_length is not None:
        yield finding(look, look.max_length, estimated(look, look.max_length))
    else:
        yield Unasked("What is cut off", "no limit was given (--max-length, in tokens)")


def counted(look: Look, policy: Policy) -> Needed:
    """As training would tokenise and cut."""
    tokens = [
        max(len(cell.context) + len(cell.response) for cell in example.cells) + example.truncated
        for example in policy.tokens
    ]
    cut = [place for place, one in zip(policy.places, policy.tokens, strict=True) if one.truncated]
    some = len(policy.places) < len(look.corpus.pairs)
    how = f"On {len(policy.places):,} of {len(look.corpus.pairs):,} pairs, drawn at random." if some else ""
    return Needed(policy.places, tokens, policy.tokens.summary.truncated_responses, tuple(sorted(cut)), how)


def estimated(look: Look, limit: int) -> Needed:
    tokens, ends = [], 0
    for example in look.corpus.examples:
        responses = [_tokens(said(response)) + 1 for response in example.responses]
        tokens.append(_tokens(as_text(example.prompt)) + max(responses))
        ends += max(responses) >= limit
    cut = tuple(row for row, needed in enumerate(tokens) if needed > limit)
    how = f"Tokens are estimated, at {BYTES} bytes of text each; a model named (--model) would count them."
    return Needed(range(len(tokens)), tokens, ends, cut, how)


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES)


def finding(look: Look, limit: int, needed: Needed) -> Finding:
    count = len(needed.rows)
    share = Measure.share(f"rows longer than {limit:,} tokens", len(needed.cut), count)
    enough = sorted(needed.tokens)[min(count - 1, round(0.99 * count))]
    allow = (
        Remedy("Allow what 99 % of the rows need.", look.commands.train("dpo", data__max_length=enough)),
    )
    if look.policy is not None and enough > (look.policy.context or enough):
        allow = (
            Remedy(
                f"Take a model with a context of {enough:,} tokens; this one has {look.policy.context:,}."
            ),
        )
    return Finding(
        "truncation",
        "What is cut off",
        level_of(share, look=0.01, act=0.1),
        f"With at most {limit:,} tokens, {len(needed.cut):,} of {count:,} rows are cut, most of them at the "
        f"beginning of their prompt, and {needed.ends:,} lose the end of a response. {enough:,} tokens "
        "leave 99 % of the rows whole.",
        (share, Measure.share("rows that lose the end of a response", needed.ends, count)),
        stake=share.value,
        why="The two sides are then compared on something else than what was judged, and a response "
        "without its end teaches not to stop.",
        threshold="1 % of the rows; to act on from 10 %",
        remedies=(*allow, Remedy("Leave the long rows out.", look.commands.without("truncation"))),
        sample=needed.how,
        specimens=look.specimens(needed.cut, 1),
        rows=needed.cut,
    )
