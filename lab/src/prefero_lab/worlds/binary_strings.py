"""World ``binary_strings``: numbers in binary whose second half repeats the first, for discrete diffusion.

The start model has learnt the structure: nearly all its strings are valid, and half of them are odd numbers.
Odd ones are preferred. Gold is 1 for a string that is odd and still valid, so a policy that forgets the
structure is seen to pay. After the toy experiment of D2-DPO (Borso et al., 2025, arXiv 2503.08295).

``prefero world binary_strings FOLDER`` writes a start model and pairs, for
recipes/discrete_diffusion.yaml.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from prefero.demo.start import one_thread, quiet, save_whole
from prefero.demo.text import stream
from prefero.models.discrete_diffusion.kind import DiscreteDiffusion
from prefero.models.discrete_diffusion.scoring import Sequences
from prefero.models.discrete_diffusion.timed import TimedForMaskedLM
from prefero.storage import cache_folder
from prefero_lab.worlds import WorldParser

BITS = 8
TOKENS = ("0", "1", "<s>", "<mask>")
"""By their ids."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "masking": {"noise": "masking", "ends": False},
    "uniform": {"noise": "uniform", "ends": False, "vocabulary": 2, "sample_steps": 64},
}
"""``model.options`` by noise; all strings are of one length, so that none has to end."""

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class StringsRecipe:
    """Settings of the start model, which is told the time under uniform noise."""

    noise: Literal["masking", "uniform"] = "masking"
    bits: int = BITS
    hidden: int = 48
    layers: int = 2
    heads: int = 4
    steps: int = 800
    batch: int = 128
    lr: float = 3e-3


@dataclass(frozen=True, slots=True)
class Start:
    """A start model with its tokenizer, the ``folder`` that both were loaded from, and its recipe."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    recipe: StringsRecipe

    @property
    def kind(self) -> DiscreteDiffusion:
        """The kind of model with which a trainer reads and scores."""
        return _kind(self.model, self.tokenizer, self.recipe)


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of a model's strings that are odd, valid, and both (the gold reward)."""

    odd: float
    valid: float
    gold: float


def valid(text: str, bits: int = BITS) -> bool:
    """Whether these are as many bits, and the second half repeats the first."""
    return len(text) == bits and set(text) <= {"0", "1"} and text[: bits // 2] == text[bits // 2 :]


def odd(text: str) -> bool:
    """Whether the last bit is 1."""
    return text.endswith("1")


def corpus(count: int, bits: int, generator: torch.Generator) -> Int[Tensor, "row bit"]:
    """Valid strings, all alike probable."""
    return torch.randint(2, (count, bits // 2), generator=generator).repeat(1, 2)


def start_model(
    cache: Path | None = None, recipe: StringsRecipe = StringsRecipe(), *, seed: int = 0
) -> Start:
    """The model to start from: trained once per recipe and seed, then read from disk."""
    content = json.dumps([asdict(recipe), TOKENS, seed], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = (cache or cache_folder("worlds")) / f"binary_strings-{key}"
    if not folder.is_dir():
        with one_thread():
            trained = _train(recipe, seed)

        def write(draft: Path) -> None:
            trained.save_pretrained(draft)
            _tokenizer().save_pretrained(draft)

        save_whole(folder, write)
    with quiet():
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        return Start(model, AutoTokenizer.from_pretrained(folder), folder, recipe)


def draw_strings(start: Start, count: int, seed: int, model: torch.nn.Module | None = None) -> list[str]:
    """Samples of a model, the start itself by default; the same noise for the same seed."""
    kind = start.kind
    given, length = np.asarray([TOKENS.index("<s>")]), start.recipe.bits
    with one_thread():
        filled = kind.fill(model or start.model, [given] * count, [length] * count, seed)
    return [kind.text(ids) for ids in filled]


def preference_pairs(start: Start, count: int, seed: int) -> list[Row]:
    """Pairs of an odd and an even string, samples of the start model; those that are not valid are left out,
    so that nothing but the last bit of each half is preferred."""
    drawn = draw_strings(start, 4 * count, stream("binary_strings", "pairs", seed).initial_seed())
    strings = [string for string in drawn if valid(string, start.recipe.bits)]
    chosen, rejected = ([string for string in strings if odd(string) == wanted] for wanted in (True, False))
    pairs = zip(chosen[:count], rejected[:count], strict=False)
    return [{"prompt": "", "chosen": one, "rejected": other} for one, other in pairs]


def measure(
    start: Start, model: torch.nn.Module | None = None, count: int = 4096, *, seed: int = 0
) -> Shares:
    """Shares of a model's strings with the wanted properties, under noise that is the same for every
    model."""
    strings = draw_strings(start, count, stream("binary_strings", "held-out", seed).initial_seed(), model)
    found = [(odd(one), valid(one, start.recipe.bits)) for one in strings]
    both = [all(one) for one in found]
    return Shares(*(sum(some) / count for some in (*zip(*found, strict=True), both)))


def _kind(model: PreTrainedModel, tokenizer: Any, recipe: StringsRecipe) -> DiscreteDiffusion:
    return DiscreteDiffusion.of(model, tokenizer, OPTIONS[recipe.noise])


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a bit."""
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<mask>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", mask_token="<mask>")


def _train(recipe: StringsRecipe, seed: int) -> PreTrainedModel:
    """By the bound that scores are differences of, with the weight of every time set to one."""
    config = BertConfig(
        vocab_size=len(TOKENS),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=2 * recipe.hidden,
        max_position_embeddings=recipe.bits + 1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = BertForMaskedLM(config)
        if recipe.noise == "uniform":
            model = TimedForMaskedLM.of(model)
    adapter = _kind(model, _tokenizer(), recipe).adapter
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    generator = stream("binary_strings", "corpus", seed)
    given = torch.full((recipe.batch, 1), TOKENS.index("<s>"))
    for _ in range(recipe.steps):
        strings = corpus(recipe.batch, recipe.bits, generator)
        drawn = adapter.draw(Sequences(strings[:, None]), generator)
        states = drawn.states[:, 0, 0]
        told = {"time": drawn.times[:, 0]} if adapter.timed else {}
        logits = model(input_ids=torch.cat((given, states), -1), **told).logits[:, 1:]
        explained = adapter.noise.explained(adapter.noise.logps(logits), strings, states)
        (-explained.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def write(start: Start, folder: Path, *, pairs: int, seed: int) -> None:
    """The start model in ``model/``, pairs in ``train.jsonl`` and a tenth as many in ``held_out.jsonl``."""
    shutil.copytree(start.folder, folder / "model", dirs_exist_ok=True)
    for name, count, stream_seed in (("train", pairs, seed), ("held_out", pairs // 10, seed + 1_000_000)):
        rows = preference_pairs(start, count, stream_seed)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> Path:
    """Binary numbers whose second half repeats the first, for discrete diffusion: odd ones are chosen."""
    parser = WorldParser("binary_strings", main.__doc__)
    parser.add_argument("--noise", choices=sorted(OPTIONS), default="masking")
    parser.add_argument("--pairs", type=int, default=1000)
    given = parser.parse_args(arguments)
    recipe = StringsRecipe(noise=given.noise)
    write(start_model(recipe=recipe, seed=given.seed), given.folder, pairs=given.pairs, seed=given.seed)
    return given.folder
