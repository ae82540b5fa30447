"""Prefix sharing: layouts, masks, costs and packing plans, and log-probabilities read through them."""

from __future__ import annotations

import numpy as np
import torch
from transformers.masking_utils import causal_mask_function

from prefero.data.packing import Forest, next_fit, pack
from prefero.data.trie import Cell, TokenExample, TokenTrie
from prefero.models.causal.attention import ancestor_rule
from prefero.models.head import LogitRule, read_head
from prefero.models.signals import Meter
from tests.golden.adapters import adapter


def forest_of(cells: list[Cell], share: bool) -> Forest:
    return pack([TokenExample(tuple(cells), {}, 0)], share_response_prefixes=share)


def attend(forest: Forest) -> list[list[int]]:
    node = torch.arange(len(forest))
    return ancestor_rule(forest, causal_mask_function)(0, 0, node[:, None], node).int().tolist()


def branches(prompt, *responses) -> list[Cell]:
    """The pair layout: every response is a branch that begins with its own copy of the last prompt token,
    which is not scored."""
    context = np.array(prompt[:-1])
    return [
        Cell(context, np.array([prompt[-1], *response]), np.arange(len(response) + 1) > 0)
        for response in responses
    ]


def read(forest: Forest, logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [response, token] from logits of every node."""
    rows = logits[forest.readout]
    logps, _ = read_head(torch.nn.Identity(), LogitRule(), rows, forest.slot, forest.target, Meter())
    return forest.cells[""].gather(logps)[0]


def baseline(prompt, responses) -> dict[str, int]:
    """The cost of every response in a row of its own, without padding."""
    lengths = [len(prompt) + len(response) for response in responses]
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return {"tokens_baseline": sum(lengths), "attention_pairs_baseline": pairs}


@adapter("p045", "prefix_sharing_pair_layout")
def pair_layout(params, inputs):
    prompt, chosen, rejected = inputs["prompt"], inputs["chosen"], inputs["rejected"]
    cells = branches(prompt, chosen, rejected)
    forest = forest_of(cells, share=False)
    trie = TokenTrie.build(cells, share_response_prefixes=False)
    labels = torch.full((len(forest),), params["label_pad"])
    labels[forest.scored] = forest.target
    return {
        "input_ids": forest.ids.tolist(),
        "labels": labels.tolist(),
        "position_ids": forest.depth.tolist(),
        "chosen_index": int(trie.paths[0][0]),
        "rejected_index": int(trie.paths[1][0]),
        "end_index": len(trie),
        "attend": attend(forest),
        "tokens_shared": len(trie),
        "attention_pairs_shared": trie.attention_pairs,
        **baseline(prompt, (chosen, rejected)),
    }


@adapter("p045", "prefix_sharing_pair_gather")
def pair_gather(params, inputs):
    labels, start, middle = inputs["labels"], inputs["chosen_index"], inputs["rejected_index"]
    prompt = [0] * (start + 1)
    forest = forest_of(branches(prompt, labels[start + 1 : middle], labels[middle + 1 :]), share=False)
    chosen, rejected = read(forest, torch.tensor(inputs["logits"], dtype=torch.float64)).sum(-1)
    return {"chosen_logp_sum": chosen, "rejected_logp_sum": rejected}


@adapter("p045", "prefix_sharing_token_trie")
def token_trie(params, inputs):
    cells = [Cell(np.array(inputs["prompt"]), np.array(response)) for response in inputs["responses"]]
    share = params["share_response_prefixes"]
    trie, forest = TokenTrie.build(cells, share_response_prefixes=share), forest_of(cells, share)
    return {
        "tokens": trie.ids.tolist(),
        "parent": trie.parent.tolist(),
        "position_ids": trie.depth.tolist(),
        "subtree_end": trie.end.tolist(),
        "response_paths": [path.tolist() for path in trie.paths],
        "attend": attend(forest),
        "n_nodes": len(trie),
        "attention_pairs": trie.attention_pairs,
        **baseline(inputs["prompt"], inputs["responses"]),
    }


@adapter("p045", "prefix_sharing_trie_logps_bigram")
def bigram_logps(params, inputs):
    cells = [Cell(np.array(inputs["prompt"]), np.array(response)) for response in inputs["responses"]]
    forest = forest_of(cells, share=True)
    table = torch.tensor(inputs["bigram_logits"], dtype=torch.float64)
    logps = read(forest, table[forest.ids])
    return {
        "response_token_logps": [
            row[: len(cell.response)].tolist() for row, cell in zip(logps, cells, strict=True)
        ]
    }


@adapter("p045", "packing_next_fit_plan")
def next_fit_plan(params, inputs):
    rows = next_fit(inputs["order"], inputs["lengths"], params["capacity"])
    return {
        "bins_as_sets": [sorted(row) for row in rows],
        "fill": [sum(inputs["lengths"][number] for number in row) for row in rows],
        "n_pairs_per_bin": [len(row) for row in rows],
    }
