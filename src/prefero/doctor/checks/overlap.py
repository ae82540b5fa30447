"""What training and held-out data have in common."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.corpus import same
from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look, specimen
from prefero.doctor.nearness import prompts_nearby
from prefero.doctor.repeats import judgements
from prefero.doctor.shingles import sketches


def check(look: Look) -> Iterator[Finding | Unasked]:
    held_out = look.held_out
    if held_out is None:
        yield Unasked("Overlap of training and held-out data", "no held-out data were named (--eval-data)")
        return
    train_prompts = [prompt for _, prompt in look.corpus.prompts]
    test_prompts = [prompt for _, prompt in held_out.prompts]
    places: dict[int, int] = {}
    for row, prompt in enumerate(train_prompts):
        places.setdefault(same(prompt), row)
    exact = {row: places[key] for row, prompt in enumerate(test_prompts) if (key := same(prompt)) in places}
    left = [row for row in range(len(test_prompts)) if row not in exact]
    left_prompts = [test_prompts[row] for row in left]
    nearby = prompts_nearby(sketches(train_prompts), train_prompts, sketches(left_prompts), left_prompts)
    near = {left[at]: row for at, row in nearby.items()}
    known = {(prompt, frozenset(sides)) for _, prompt, *sides in look.judgements}
    whole = sum((prompt, frozenset(sides)) in known for _, prompt, *sides in judgements(held_out))
    either = {**exact, **near}
    share = Measure.share("held-out rows whose prompt, or nearly, is trained on", len(either), len(held_out))
    keys = {same(test_prompts[row]) for row in exact}
    trained = set(near.values())
    rows = tuple(row for row, prompt in enumerate(train_prompts) if row in trained or same(prompt) in keys)
    yield Finding(
        "overlap",
        "Held-out prompts that are trained on",
        level_of(share, look=0.0, act=0.01),
        f"{len(either):,} of {len(held_out):,} held-out rows have a prompt that stands in the training data: "
        f"{len(exact):,} the same, {len(near):,} nearly. For {whole:,} both responses are there as well.",
        (
            share,
            Measure.share("the same prompt", len(exact), len(held_out)),
            Measure.share("the same prompt and responses", whole, len(held_out)),
        ),
        stake=share.value,
        why="Held-out accuracy then measures what was learnt by heart, and a run is stopped too late.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        threshold="any; to act on from 1 % of the held-out rows",
        remedies=(
            Remedy("Take these prompts out of the training data.", look.commands.without("overlap")),
            Remedy(
                "Or hold out a share of the training data: prompts are never split.",
                look.commands.on_share("dpo", 0.05),
            ),
        ),
        specimens=tuple(specimen(held_out, row) for row in sorted(either)[:3]),
        sample="Nearly: a Jaccard similarity of 0.8 or more of runs of eight bytes.",
        rows=rows,
    )
