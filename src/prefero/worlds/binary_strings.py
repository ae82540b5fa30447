"""World ``binary_strings``: numbers in binary whose second half repeats the first, for discrete diffusion.

The start model, a masked diffusion model, has learnt the structure: nearly all its strings are valid, and
half of them are odd numbers. Odd ones are preferred. Gold is 1 for a string that is odd and still valid, so a
policy that forgets the structure is seen to pay. After the toy experiment of D2-DPO (Borso et al., 2025,
arXiv 2503.08295).
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from prefero.models.discrete_diffusion import DiscreteDiffusionAdapter, Sequences
from prefero.models.discrete_noise import Masking
from prefero.models.discrete_sampling import unmask
from prefero.objectives import Objective, PreferenceBatch
from prefero.worlds.start import default_folder, one_thread, quiet, save_whole
from prefero.worlds.text import stream

MASK = 2
"""The token that stands for a bit that is not known yet."""

NOISE = Masking(MASK)
ADAPTER = DiscreteDiffusionAdapter(NOISE)

Strings = Int[Tensor, "*where bit"]
"""Bits, the highest first."""


@dataclass(frozen=True, slots=True)
class StringsRecipe:
    """How long strings are, and how the start model is made."""

    bits: int = 8
    hidden: int = 48
    layers: int = 2
    heads: int = 4
    steps: int = 800
    batch: int = 128
    lr: float = 3e-3


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a policy is trained. The steps in which a pair is seen draw new times and states."""

    steps: int = 300
    batch: int = 64
    lr: float = 5e-4
    draws: int = 1


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a model's strings: how many are odd, valid, and both (the gold reward)."""

    odd: float
    valid: float
    gold: float


def valid(strings: Strings) -> Bool[Tensor, "*where"]:
    """Whether the second half repeats the first."""
    first, second = strings.chunk(2, -1)
    return (first == second).all(-1)


def odd(strings: Strings) -> Bool[Tensor, "*where"]:
    """Whether the last bit is 1."""
    return strings[..., -1] == 1


def corpus(count: int, bits: int, generator: torch.Generator) -> Int[Tensor, "row bit"]:
    """Valid strings, all alike probable."""
    return torch.randint(2, (count, bits // 2), generator=generator).repeat(1, 2)


def start_model(
    cache: Path | None = None, recipe: StringsRecipe = StringsRecipe(), *, seed: int = 0
) -> BertForMaskedLM:
    """The model to start from: trained once per recipe and seed, then read from disk."""
    key = hashlib.sha256(json.dumps([asdict(recipe), seed], sort_keys=True).encode()).hexdigest()[:16]
    folder = (cache or default_folder()) / f"binary_strings-{key}"
    if not folder.is_dir():
        with one_thread():
            trained = _train(recipe, seed)
        save_whole(folder, trained.save_pretrained)
    with quiet():
        return BertForMaskedLM.from_pretrained(folder).eval()


def draw_strings(model: BertForMaskedLM, count: int, generator: torch.Generator) -> Int[Tensor, "row bit"]:
    """Samples of a model."""
    empty = torch.zeros(count, model.config.max_position_embeddings, dtype=torch.int64)
    return unmask(model, NOISE, empty, generator)


def preference_pairs(start: BertForMaskedLM, count: int, seed: int) -> Sequences:
    """Pairs of an odd and an even string, samples of the start model; those that are not valid are left out,
    so that nothing but the last bit of each half is preferred."""
    strings = draw_strings(start, 4 * count, stream("binary_strings", "pairs", seed))
    strings = strings[valid(strings)]
    chosen, rejected = strings[odd(strings)], strings[~odd(strings)]
    pairs = min(count, len(chosen), len(rejected))
    return Sequences(torch.stack((chosen[:pairs], rejected[:pairs]), 1))


def align(
    start: BertForMaskedLM,
    pairs: Sequences,
    objective: Objective,
    recipe: Alignment = Alignment(),
    *,
    seed: int = 0,
) -> BertForMaskedLM:
    """The start model after training on pairs with any objective over log-probabilities."""
    policy = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=recipe.lr)
    generator = stream("binary_strings", "alignment", seed)
    for _ in range(recipe.steps):
        some = torch.randint(len(pairs.tokens), (recipe.batch,), generator=generator)
        states = ADAPTER.draw(Sequences(pairs.tokens[some]), generator, draws=recipe.draws)
        with torch.no_grad():
            reference = ADAPTER.score(start, states)
        batch = PreferenceBatch({"policy": ADAPTER.score(policy, states), "reference": reference})
        objective.loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy


def measure(model: BertForMaskedLM, count: int = 4096, *, seed: int = 0) -> Shares:
    """What share of a model's strings has what is wanted, under noise that is the same for every model."""
    strings = draw_strings(model, count, stream("binary_strings", "held-out", seed))
    both = odd(strings) & valid(strings)
    return Shares(*(float(share.double().mean()) for share in (odd(strings), valid(strings), both)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the start model under an objective; ``after`` has an entry a seed."""

    before: Shares
    after: tuple[Shares, ...]


def outcome(
    start: BertForMaskedLM,
    objective: Objective,
    recipe: Alignment = Alignment(),
    *,
    pairs: int = 1000,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Outcome:
    """Policies that an objective makes of the start model; a seed decides about pairs, times and states."""
    after = []
    for seed in seeds:
        own = copy.deepcopy(objective)  # an objective may have state, which is no policy's but its own
        after.append(measure(align(start, preference_pairs(start, pairs, seed), own, recipe, seed=seed)))
    return Outcome(measure(start), tuple(after))


def _train(recipe: StringsRecipe, seed: int) -> BertForMaskedLM:
    """By the bound that scores are differences of, with the weight of every time set to one."""
    config = BertConfig(
        vocab_size=MASK + 1,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=2 * recipe.hidden,
        max_position_embeddings=recipe.bits,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    generator = stream("binary_strings", "corpus", seed)
    for _ in range(recipe.steps):
        strings = corpus(recipe.batch, recipe.bits, generator)
        drawn = ADAPTER.draw(Sequences(strings[:, None]), generator)
        states = drawn.states[:, 0, 0]
        logps = NOISE.logps(model(input_ids=states).logits)
        (-NOISE.explained(logps, strings, states).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()
