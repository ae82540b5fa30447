"""What sharing will save on a data file, before any model runs.

Cost model of prefix sharing (Wang & Hegde, 2024, arXiv 2410.20305): linear layers cost in proportion to the
tokens that go through them, attention in proportion to its (query, key) pairs, the head to its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers import PretrainedConfig

from benchmarks.small_models import joined, texts_of, train_tokenizer
from benchmarks.tables import publish, table
from benchmarks.workload import VOCABULARY, llama
from prefero.data.arrange import PAIR
from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize
from prefero.data.trie import TokenExample, TokenTrie


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens through the linear layers, (query, key) pairs of attention, rows through the head."""

    tokens: int = 0
    attention_pairs: int = 0
    head_rows: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.tokens + other.tokens,
            self.attention_pairs + other.attention_pairs,
            self.head_rows + other.head_rows,
        )

    def multiplications(self, config: PretrainedConfig) -> float:
        """Multiply-adds of a forward pass through a model like Llama; backward is twice that on any path."""
        hidden, layers = config.hidden_size, config.num_hidden_layers
        head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
        queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
        linear = hidden * (2 * queries + 2 * keys) + 3 * hidden * config.intermediate_size
        attention = 2 * queries
        return (
            layers * (self.tokens * linear + self.attention_pairs * attention)
            + self.head_rows * hidden * config.vocab_size
        )


def padded_batch(examples: Sequence[TokenExample], *, score_prompts: bool) -> Cost:
    """All responses of a batch as rows of the longest one's length, as padding trainers lay them out."""
    cells = [cell for example in examples for cell in example.cells]
    longest = max(len(cell.context) + len(cell.response) for cell in cells)
    tokens = len(cells) * longest
    scored = tokens - len(cells) if score_prompts else sum(len(cell.response) for cell in cells)
    return Cost(tokens, len(cells) * longest * (longest + 1) // 2, scored)


def separate(example: TokenExample) -> Cost:
    """Every response a row of its own length: no padding, nothing shared."""
    lengths = [len(cell.context) + len(cell.response) for cell in example.cells]
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return Cost(sum(lengths), pairs, sum(len(cell.response) for cell in example.cells))


def shared(example: TokenExample) -> Cost:
    """The example's token tree."""
    trie = TokenTrie.build(example.cells)
    scored = np.unique(np.concatenate(trie.paths))
    return Cost(len(trie), trie.attention_pairs, len(np.unique(trie.parent[scored])))


def estimate(
    examples: Sequence[TokenExample],
    config: PretrainedConfig,
    *,
    note: str,
    examples_per_step: int,
    seed: int,
    save: bool,
) -> None:
    """Add up all four layouts over a shuffled epoch and publish tokens, pairs and expected ratios."""
    order = np.random.default_rng(seed).permutation(len(examples))
    batches = [
        [examples[i] for i in order[start : start + examples_per_step]]
        for start in range(0, len(order), examples_per_step)
    ]
    layouts = {
        "padded batch, every position scored": [padded_batch(batch, score_prompts=True) for batch in batches],
        "padded batch, responses scored": [padded_batch(batch, score_prompts=False) for batch in batches],
        "rows without padding": [separate(example) for example in examples],
        "shared prefixes": [shared(example) for example in examples],
    }
    totals = {name: sum(costs, Cost()) for name, costs in layouts.items()}
    own = totals["shared prefixes"]
    rows = [
        [
            name,
            f"{cost.tokens:,}",
            f"{cost.attention_pairs:,}",
            f"{cost.head_rows:,}",
            f"{cost.tokens / own.tokens:.2f}×",
            f"{cost.multiplications(config) / own.multiplications(config):.2f}×",
        ]
        for name, cost in totals.items()
    ]
    text = "\n\n".join(
        [
            "## Expected from sharing",
            f"{note}\n\nOne epoch of {len(examples):,} examples in shuffled steps of {examples_per_step}. "
            "The last column weighs linear layers, attention and head as the model's sizes have it, for "
            "passes of the policy alone; a real step adds the optimizer, memory traffic and overhead.",
            table(["layout", "tokens", "attention pairs", "head rows", "tokens/shared", "work/shared"], rows),
        ]
    )
    publish("sharing", text, {name: asdict(cost) for name, cost in totals.items()}, save=save)


def estimate_file(data: str, *, per_step: int, max_length: int, seed: int, save: bool) -> None:
    """:func:`estimate` for a data file, with the benchmark's model and a tokenizer trained on the file."""
    examples = load_examples(data)
    tokenizer = train_tokenizer(joined(texts_of(examples)), VOCABULARY)
    roles = PAIR if {"chosen", "rejected"} <= set(examples[0].roles) else ()
    tokens = tokenize(examples, tokenizer, roles=roles, max_length=max_length)
    estimate(
        tokens,
        llama().config,
        note=f"{examples.name}: {len(tokens):,} examples, {tokens.summary.responses:,} responses.",
        examples_per_step=per_step,
        seed=seed,
        save=save,
    )
