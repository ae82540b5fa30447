"""World ``rewarded``: the reviews of :mod:`prefero.demo.reviews`, written by an encoder–decoder and
rewarded one by one; no two responses are compared.

A row: ``{"prompt": "she tried their soup today.", "completion": "the taste was good.", "score": 1.24,
"label": true}``. Scores are the gold reward, standardised over the data; a label says whether it is above the
mean.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import Ids, StartModel, StartRecipe, one_thread, padded, word_tokenizer
from prefero.demo.text import TextWorld
from prefero_lab.worlds import WorldParser


@dataclass(frozen=True, slots=True)
class EncoderDecoderRecipe(StartRecipe):
    """A recipe for a T5, whose tokenizer puts an end token behind every text, and which takes twice the steps
    to write as well."""

    family: str = "t5"
    steps: int = 1500
    lr: float = 5e-3

    def tokenizer(self, words: Sequence[str]) -> PreTrainedTokenizerFast:
        return word_tokenizer(words, self.max_length, template="$A </s>")

    def untrained(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=self.hidden,
                d_kv=self.hidden // self.heads,
                d_ff=self.intermediate,
                num_layers=self.layers,
                num_heads=self.heads,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,  # type: ignore[call-arg]
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.pad_token_id,
            )
        )

    def loss(self, model: Any, prompts: Sequence[Ids], responses: Sequence[Ids], pad: int) -> Tensor:
        ids = padded(prompts, pad)
        return model(input_ids=ids, attention_mask=(ids != pad).long(), labels=padded(responses, -100)).loss


REWARDED = replace(REVIEWS, recipe=EncoderDecoderRecipe())


def single_responses(pairs: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Both sides of every scored pair as rows of their own, shuffled."""
    rewards = [pair[f"{role}_score"] for pair in pairs for role in ("chosen", "rejected")]
    mean, spread = fmean(rewards), pstdev(rewards)
    rows = [
        {
            "prompt": pair["prompt"],
            "completion": pair[role],
            "score": (pair[f"{role}_score"] - mean) / spread,
            "label": pair[f"{role}_score"] > mean,
        }
        for pair in pairs
        for role in ("chosen", "rejected")
    ]
    random.Random(seed).shuffle(rows)
    return rows


def write(world: TextWorld, start: StartModel, folder: Path, *, prompts: int, seed: int) -> None:
    """The start model in ``model/``, rows in ``train.jsonl`` and a tenth as many in ``held_out.jsonl``."""
    shutil.copytree(start.folder, folder / "model", dirs_exist_ok=True)
    for name, count, own in (("train", prompts, seed), ("held_out", prompts // 10, seed + 1_000_000)):
        with one_thread():
            rows = single_responses(world.preference_pairs(start, count, own), own)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> Path:
    """Reviews, written by a small encoder–decoder: single responses with their scores."""
    parser = WorldParser("rewarded", main.__doc__)
    parser.add_argument("--prompts", type=int, default=1024, help="each with two responses")
    given = parser.parse_args(arguments)
    start = REWARDED.start_model(seed=given.seed)
    write(REWARDED, start, given.folder, prompts=given.prompts, seed=given.seed)
    return given.folder
