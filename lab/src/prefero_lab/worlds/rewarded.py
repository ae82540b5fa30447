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
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import EncoderDecoderRecipe, StartModel, one_thread
from prefero.demo.text import TextWorld
from prefero_lab.worlds import WorldParser

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
