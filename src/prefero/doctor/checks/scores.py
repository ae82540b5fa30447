"""Whether a judge's scores agree with the labels."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look


def check(look: Look) -> Iterator[Finding]:
    scored = [pair for pair in look.corpus.pairs if pair.scores is not None]
    if not scored:
        return
    margins = [pair.scores[0] - pair.scores[1] for pair in scored if pair.scores]
    against = tuple(pair.row for pair, margin in zip(scored, margins, strict=True) if margin < 0)
    even = sum(margin == 0 for margin in margins)
    share = Measure.share("pairs whose rejected response scores higher", len(against), len(scored))
    yield Finding(
        "scores",
        "Scores against labels",
        level_of(share, look=0.005, act=0.05),
        f"In {len(against):,} of {len(scored):,} scored pairs the rejected response has the "
        f"higher score; in {even:,} both score the same.",
        (share, Measure.share("pairs with equal scores", even, len(scored))),
        stake=min(1.0, 2 * share.value),
        why="Either the label or the score is wrong. Methods that read the score (odpo, rpo_reward_aware) "
        "and those that read the label then learn opposite things from the same pair.",
        papers=("Amini et al., 2024, arXiv 2402.10571", "Deng et al., 2025, arXiv 2502.14560"),
        threshold="0.5 % of the scored pairs; to act on from 5 %",
        remedies=(
            Remedy("Leave these pairs out.", look.commands.without("scores")),
            Remedy("With what is left, ask for margins as wide as the scores'.", look.commands.train("odpo")),
        ),
        specimens=look.specimens(against),
        rows=against,
    )
