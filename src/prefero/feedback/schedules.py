"""Who generates, who is the reference, and when: schedules of rounds, as plain numbers and names."""

from __future__ import annotations

from dataclasses import dataclass


def generator_version(step: int, sync_every: int | None) -> int:
    """How many updates the weights contain that generate the responses of an optimizer step, counted from 0.

    The generator takes the policy's weights at the start of steps 0, s, 2s, …: s = 1 is online, None (never)
    offline. Lanchantin et al., 2025, arXiv 2506.21495.
    """
    return 0 if sync_every is None else step - step % sync_every


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of training: which model it starts from, which is the reference, on which data, to which."""

    start_from: str
    reference: str
    data: str
    output: str


def stepwise(count: int) -> list[Stage]:
    """sDPO: the data in ``count`` parts, each stage's model the start and the reference of the next.

    ``S`` is the supervised model, ``D1`` … the parts of the data, ``M1`` … the models. Reference scores are
    made anew at every stage, and its first loss is log 2. Kim et al., 2024, arXiv 2403.19270.
    """
    models = ["S", *(f"M{step}" for step in range(1, count + 1))]
    return [Stage(models[step], models[step], f"D{step + 1}", models[step + 1]) for step in range(count)]


def replay_limits(rounds: int, share: float = 0.3) -> list[float]:
    """DNO's limits on pairs of earlier rounds, the latest first, as shares of the round's pairs: 30 %, 15 %,
    halved every time. Rosset et al., 2024, arXiv 2404.03715."""
    return [share / 2**age for age in range(rounds)]
