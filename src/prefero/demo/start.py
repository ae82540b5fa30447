"""Start models of the text worlds: a small model and a word tokenizer, trained once, then read from disk."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from prefero.storage import cache_folder

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

Pair = tuple[str, str]
"""A prompt and a response."""

Ids = Sequence[int]

Report = Callable[[int, int], None]
"""Told how many steps are done, of how many."""


@dataclass(frozen=True, slots=True)
class StartRecipe:
    """Settings of a start model. ``examples`` is the size of its corpus; the loss is on the response only.

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

    def tokenizer(self, words: Sequence[str]) -> PreTrainedTokenizerFast:
        """One token a word."""
        return word_tokenizer(words, self.max_length)

    def untrained(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        """The model as it begins, its weights drawn from the global generator."""
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=self.intermediate,
                max_position_embeddings=self.max_length,
                rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
                initializer_range=self.initializer_range,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )

    def loss(self, model: Any, prompts: Sequence[Ids], responses: Sequence[Ids], pad: int) -> Tensor:
        """The mean over the tokens of the responses, which end with their end tokens."""
        both = zip(prompts, responses, strict=True)
        ids = padded([[*prompt, *response] for prompt, response in both], pad)
        targets = padded([[*[-1] * len(p), *r] for p, r in zip(prompts, responses, strict=True)], -1)[:, 1:]
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = targets >= 0
        return F.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted])


@dataclass(frozen=True, slots=True)
class StartModel:
    """A model with its tokenizer, and the ``folder`` that both were loaded from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path


def word_tokenizer(
    words: Sequence[str], max_length: int, template: str = "<s> $A", *, marks: bool = True
) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word or punctuation mark (or what stands between spaces, without
    ``marks``), which gives back the text it was given. ``template`` says what it puts around a text."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if marks else pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(
        prefix="##", cleanup=True
    )  # no word starts so; spaces before . and ,
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        special_tokens=[(token, vocabulary[token]) for token in SPECIAL if token in template.split()],
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
    origin: StartModel | None = None,
) -> StartModel:
    """The start model of world ``name``: from ``cache`` if it was made before, else trained and put there.

    ``corpus(n)`` gives the first ``n`` pairs of an endless corpus, the same for the same seed. The entry is
    keyed by the recipe, the words, the beginning of the corpus and the seed. With an ``origin`` of the same
    words and sizes this is another phase of training: it begins as that model.
    """
    after = None if origin is None else origin.folder.name
    settings = [asdict(recipe), list(words), list(corpus(200)), seed, *([] if after is None else [after])]
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    folder = (cache or cache_folder("worlds")) / f"{name}-{fingerprint}"
    if not folder.is_dir():
        tokenizer = recipe.tokenizer(words)
        with one_thread():
            model = _train(tokenizer, corpus(recipe.examples), recipe, seed, report, origin)

        def write(draft: Path) -> None:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)

        save_whole(folder, write)
    with quiet():
        kind = getattr(transformers, AutoConfig.from_pretrained(folder).architectures[0])
        return StartModel(kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder), folder)


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
    origin: StartModel | None,
) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = recipe.untrained(tokenizer).train()
    if origin is not None:
        model.load_state_dict(origin.model.state_dict())
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
    pad: Any = tokenizer.pad_token_id
    for step, (prompts, responses) in enumerate(_batches(tokenizer, corpus, recipe, seed), start=1):
        loss = recipe.loss(model, prompts, responses, pad)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if report:
            report(step, recipe.steps)
    return model.eval()


def _batches(
    tokenizer: PreTrainedTokenizerFast, corpus: Sequence[Pair], recipe: StartRecipe, seed: int
) -> Iterator[tuple[list[Ids], list[Ids]]]:
    """Prompts and responses with their end tokens, the corpus reshuffled every epoch."""
    prompts = tokenizer([prompt for prompt, _ in corpus]).input_ids
    responses = tokenizer([text for _, text in corpus], add_special_tokens=False).input_ids
    rng = random.Random(seed)
    order: list[int] = []
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = list(range(len(corpus)))
            rng.shuffle(order)
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        yield [prompts[i] for i in chosen], [[*responses[i], tokenizer.eos_token_id] for i in chosen]


def padded(rows: Sequence[Ids], value: int) -> Tensor:
    """Rows of token ids, filled up to the right."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


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
