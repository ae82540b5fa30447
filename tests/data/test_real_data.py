"""The real preference files read whole, with the counts that are known of them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize

pytestmark = pytest.mark.real

PAIR = ("chosen", "rejected")


def test_hh_transcripts(real_data: Path, base: PreTrainedTokenizerFast) -> None:
    path = real_data / "hh_rlhf_harmless_test.jsonl.gz"
    examples = load_examples(path)
    assert (len(examples), examples.format) == (2312, "transcripts")
    # Five rows part before the last turn of the assistant.
    assert sum(example.responses[1].prompt is None for example in examples) == 2307
    dataset = tokenize(examples, base, roles=PAIR)
    assert sum(e.cells[0].context is e.cells[1].context for e in dataset) == 2307
    assert dataset.summary.empty_responses == 4
    assert dataset.summary.sharing > 1.3
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line, example in zip(lines, dataset, strict=True):
            row = json.loads(line)
            for role, cell in zip(PAIR, example.cells, strict=True):
                read = base.decode(np.concatenate([cell.context, cell.response]))
                assert (
                    read == f"<s>{row[role].removesuffix(' ') if row[role][-2:] == ': ' else row[role]}</s>"
                )


def test_hh_transcripts_with_a_chat_template(real_data: Path, chatml: PreTrainedTokenizerFast) -> None:
    examples = load_examples(real_data / "hh_rlhf_harmless_test.jsonl.gz")
    summary = tokenize(examples, chatml, roles=PAIR, max_length=512).summary
    (reason,) = summary.dropped  # this tokenizer makes long texts of two prompts
    assert "prompt alone has max_length = 512" in reason and summary.dropped[reason] == 2
    assert summary.examples == 2310
    assert summary.lengths["all"]["max"] <= 512
    assert not [note for note in summary.notes if "chat template" in note]


def test_pandalm_comparisons(real_data: Path, base: PreTrainedTokenizerFast) -> None:
    examples = load_examples(real_data / "pandalm_testset.json.gz")
    assert (len(examples), examples.format) == (999, "comparisons")
    assert Counter(example.columns["tie"] for example in examples) == {False: 894, True: 105}
    shares = Counter(round(6 * example.columns["preference"]) for example in examples)
    assert shares == {6: 794, 5: 31, 4: 89, 3: 85}
    kept = tokenize(examples, base, roles=PAIR, columns={"tie"})
    assert len(kept) == 999
    dropped = tokenize(examples, base, roles=PAIR)
    assert (len(dropped), dropped.summary.dropped) == (894, {"ties": 105})


def test_gsm8k_solutions(real_data: Path, base: PreTrainedTokenizerFast) -> None:
    examples = load_examples(real_data / "gsm8k_example_model_solutions.jsonl.gz")
    assert (len(examples), examples.format) == (1319, "solutions")
    assert {len(example.responses) for example in examples} == {4}
    dataset = tokenize(examples, base, roles=(), columns={"label"}, views={"mismatched": ()})
    labels = np.stack([example.columns["label"] for example in dataset])
    assert Counter(labels.ravel().tolist()) == {-1.0: 3275, 1.0: 2001}
    pairs = tokenize(examples, base, roles=PAIR)
    assert (len(pairs), pairs.summary.dropped) == (731, {"equally good responses": 588})
