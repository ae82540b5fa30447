"""What a limit on the length cuts off."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.corpus import as_text, said
from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import BYTES, Look


def check(look: Look) -> Iterator[Finding | Unasked]:
    limit = look.max_length
    if limit is None:
        yield Unasked("What is cut off", "no limit was given (--max-length, in tokens)")
        return
    cut: list[int] = []
    ends: list[int] = []
    needed: list[int] = []
    for row, example in enumerate(look.corpus.examples):
        prompt = look.tokens(as_text(example.prompt))
        responses = [look.tokens(said(response)) + 1 for response in example.responses]
        needed.append(prompt + max(responses))
        if needed[-1] > limit:
            cut.append(row)
        if max(responses) >= limit:
            ends.append(row)
    share = Measure.share(f"rows longer than {limit:,} tokens", len(cut), len(needed))
    enough = sorted(needed)[min(len(needed) - 1, round(0.99 * len(needed)))]
    yield Finding(
        "truncation",
        "What is cut off",
        level_of(share, look=0.01, act=0.1),
        f"With at most {limit:,} tokens, {len(cut):,} of {len(needed):,} rows lose the beginning of "
        f"their prompt, and {len(ends):,} the end of a response. {enough:,} tokens leave 99 % of the rows "
        "whole.",
        (share, Measure.share("rows that lose the end of a response", len(ends), len(needed))),
        stake=share.value,
        why="The two sides are then compared on something else than what was judged, and a response "
        "without its end teaches not to stop.",
        threshold="1 % of the rows; to act on from 10 %",
        remedies=(
            Remedy("Allow what 99 % of the rows need.", look.commands.train("dpo", data__max_length=enough)),
            Remedy("Or leave the long rows out.", look.commands.without("truncation")),
        ),
        sample=""
        if look.tokenizer
        else f"Tokens are estimated, at {BYTES} bytes of text each; a model named would count them.",
        rows=tuple(cut),
    )
