"""Start models of the text worlds: a small Llama and a word tokenizer, trained once, then read from disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

Pair = tuple[str, str]
"""A prompt and a response."""

Report = Callable[[int, int], None]
"""Told how many steps are done, of how many."""


@dataclass(frozen=True, slots=True)
class StartRecipe:
    """How a start model is made. ``examples`` is the size of its corpus; the loss is on the response only.

    The learning rate is as high as it looks: at a width of 64, lower ones do not learn the grammar in time.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    intermediate: int = 192
    max_length: int = 64
    rope_theta: float = 1000.0
    initializer_range: float = 0.1
    examples: int = 20_000
    steps: int = 750
    batch: int = 32
    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class StartModel:
    """A model with its tokenizer, and the ``folder`` that both were loaded from."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    folder: Path


def default_folder() -> Path:
    """``worlds`` in the folder that ``PREFERO_CACHE`` names, or in the user's cache folder."""
    named = os.environ.get("PREFERO_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "prefero") / "worlds"


def word_tokenizer(words: Sequence[str], max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word or punctuation mark, which gives back the text it was given."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(
        prefix="##", cleanup=True
    )  # no word starts so; spaces before . and ,
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def start_model(
    name: str,
    words: Sequence[str],
    corpus: Callable[[int], Sequence[Pair]],
    recipe: StartRecipe,
    *,
    seed: int,
    cache: Path | None = None,
    report: Report | None = None,
) -> StartModel:
    """The start model of world ``name``: from ``cache`` if it was made before, else trained and put there.

    ``corpus(n)`` gives the first ``n`` pairs of an endless corpus, the same for the same seed. The entry is
    keyed by the recipe, the words, the beginning of the corpus and the seed; it appears whole or not at all.
    """
    folder = (cache or default_folder()) / f"{name}-{_fingerprint(words, corpus(200), recipe, seed)}"
    if not folder.is_dir():
        tokenizer = word_tokenizer(words, recipe.max_length)
        with one_thread():
            model = _train(tokenizer, corpus(recipe.examples), recipe, seed, report)
        _save(model, tokenizer, folder)
    with quiet():
        return StartModel(
            LlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder), folder
        )


def _fingerprint(words: Sequence[str], beginning: Sequence[Pair], recipe: StartRecipe, seed: int) -> str:
    content = json.dumps([asdict(recipe), list(words), list(beginning), seed], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    def write(draft: Path) -> None:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)

    save_whole(folder, write)


def save_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder of what ``write`` puts into the one it is given: it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with quiet():
            write(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same model
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _train(
    tokenizer: PreTrainedTokenizerFast,
    corpus: Sequence[Pair],
    recipe: StartRecipe,
    seed: int,
    report: Report | None,
) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_config(tokenizer, recipe)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    warmup = recipe.warmup * recipe.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (recipe.steps - step) / (recipe.steps - warmup))
    )
    for step, (ids, targets) in enumerate(_batches(tokenizer, corpus, recipe, seed), start=1):
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = targets[:, 1:] >= 0
        loss = F.cross_entropy(model.lm_head(hidden[wanted]), targets[:, 1:][wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if report:
            report(step, recipe.steps)
    return model.eval()


def _config(tokenizer: PreTrainedTokenizerFast, recipe: StartRecipe) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _batches(
    tokenizer: PreTrainedTokenizerFast, corpus: Sequence[Pair], recipe: StartRecipe, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Right-padded token ids and targets (-1 where there is no loss), the corpus reshuffled every epoch."""
    prompts = tokenizer([prompt for prompt, _ in corpus]).input_ids
    responses = tokenizer([text for _, text in corpus], add_special_tokens=False).input_ids
    rng = random.Random(seed)
    order: list[int] = []
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = list(range(len(corpus)))
            rng.shuffle(order)
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        ids = [torch.tensor([*prompts[i], *responses[i], tokenizer.eos_token_id]) for i in chosen]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
        targets = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
        for row, i in enumerate(chosen):
            targets[row, : len(prompts[i])] = -1
        yield padded, targets


@contextmanager
def one_thread() -> Iterator[None]:
    """For models this small: on a busy machine, two threads took ten times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars for two small files."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
