"""What the comparisons run on: a tokenizer and pairs from a data file, a Llama of 512 hidden and 8 layers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from benchmarks.settings import Settings
from benchmarks.small_models import joined, llama as llama_of, texts_of, train_tokenizer
from prefero.data.arrange import PAIR, arrange
from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.models.kind import PackedBatching
from prefero.training.batches import StepPlan

VOCABULARY = 32_000


def llama(max_length: int = 2048) -> LlamaForCausalLM:
    """512 hidden, 8 layers, 8 heads, 32,000 tied embeddings: 41.7 M parameters, random."""
    return llama_of(VOCABULARY, hidden=512, layers=8, intermediate=1376, max_length=max_length)


@dataclass(frozen=True, slots=True)
class Workload:
    """``usable`` of the file's ``found`` pairs fit, and read the same tokenised whole or in parts; ``pairs``
    of them, drawn at random, are trained on. ``tokenizer`` is the vocabulary that the texts gave,
    ``vocabulary`` the rows of the model's embedding."""

    data: str
    found: int
    usable: int
    pairs: int
    tokenizer: int
    vocabulary: int
    parameters: int
    prompt_tokens: float
    response_tokens: float

    @property
    def note(self) -> str:
        return (
            f"{self.pairs} pairs drawn from the {self.usable} usable of {self.found} in {self.data}: on "
            f"average {self.prompt_tokens:.0f} tokens in a prompt, {self.response_tokens:.0f} in a response. "
            f"Llama with random weights, {self.parameters / 1e6:.1f} M parameters, {self.vocabulary:,} "
            f"embedding rows; byte-level BPE of {self.tokenizer:,} tokens trained on the texts."
        )


def prepare(data: str, pairs: int, settings: Settings) -> Workload:
    """Write model, tokenizer and pairs into the settings' folder.

    Raises :class:`PreferoError` where the file cannot be read or gives fewer than ``pairs`` usable pairs.
    """
    examples = arrange(load_examples(data), PAIR)
    texts = texts_of(examples, PAIR)
    tokenizer = train_tokenizer(joined(texts), VOCABULARY)
    rows, lengths = [], []
    for (prompt, chosen), (other_prompt, rejected) in texts:
        counted = _lengths(tokenizer, prompt, [chosen, rejected]) if prompt == other_prompt else None
        if counted and counted[0] + max(counted[1:]) <= settings.max_length:
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
            lengths.append(counted)
    if len(rows) < pairs:
        raise PreferoError(
            f"{data} has {len(rows)} usable pairs, fewer than the {pairs} asked for: lower --pairs"
        )
    drawn = random.Random(settings.seed).sample(range(len(rows)), pairs)
    _write(settings.pairs, [rows[i] for i in drawn])
    _write(settings.ordered, [rows[drawn[i]] for step in _steps(pairs, settings) for i in step])
    set_seed(settings.seed)
    model = llama()
    model.save_pretrained(settings.model)
    tokenizer.save_pretrained(settings.model)
    return Workload(
        data=Path(data).name,
        found=len(examples),
        usable=len(rows),
        pairs=pairs,
        tokenizer=len(tokenizer),
        vocabulary=VOCABULARY,
        parameters=model.num_parameters(),
        prompt_tokens=sum(lengths[i][0] for i in drawn) / pairs,
        response_tokens=sum(sum(lengths[i][1:]) for i in drawn) / (2 * pairs),
    )


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _steps(pairs: int, settings: Settings) -> list[list[int]]:
    """The pairs of each step, as the trainer will draw them."""
    size = settings.pairs_per_step
    batching = PackedBatching([1] * pairs)
    return StepPlan(pairs, batching, examples_per_step=size, tokens_per_row=size, seed=settings.seed).steps(0)


def _lengths(tokenizer: PreTrainedTokenizerFast, prompt: str, responses: list[str]) -> list[int] | None:
    """Tokens of prompt and responses, end tokens included.

    None where a response is empty, or where tokens would merge across the boundary: trainers that tokenise
    prompt and response together would then train on other tokens.
    """
    first = tokenizer(prompt)["input_ids"]
    counted = [len(first)]
    for response in responses:
        rest = tokenizer(response)["input_ids"]
        if not rest or tokenizer(prompt + response)["input_ids"] != first + rest:
            return None
        counted.append(len(rest) + 1)
    return counted
