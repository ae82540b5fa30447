"""Lists of K responses: the prompt through the network once, against once a response."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Spread, machine
from benchmarks.rounds import progress
from benchmarks.tables import machine_note, publish, table, verdict
from benchmarks.workload import llama
from prefero.data.packing import Forest, pack
from prefero.data.trie import Cell, TokenExample
from prefero.models.causal.scoring import Language

TARGET = 2.5


def compare(*, responses: int, prompt: int, length: int, rounds: int, seed: int, save: bool) -> None:
    """Forward and backward of one list of random tokens on both layouts, in turn; publish the ratio."""
    here = machine()
    torch.manual_seed(seed)
    model = llama()
    layouts: dict[str, nn.Module] = {"shared": model, "padded": copy.deepcopy(model)}
    used = {
        "shared": Language.adapt(layouts["shared"], packing="auto"),
        "padded": Language.adapt(layouts["padded"], packing="padded"),
    }
    forest = pack([_list(responses, prompt, length, model.config.vocab_size, np.random.default_rng(seed))])
    steps = {name: _step(layout, forest) for name, layout in layouts.items()}
    gradients = {name: run() for name, run in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(1, rounds + 1):
        for name, run in steps.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
        shown = ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items())
        progress.print(f"round {number} of {rounds}: {shown}")
    gain = Spread.of([b / a for a, b in zip(seconds["shared"], seconds["padded"], strict=True)])
    difference = float((gradients["shared"] - gradients["padded"]).norm() / gradients["padded"].norm())
    tokens = {"shared": len(forest), "padded": responses * (prompt + length)}
    rows = [[f"{name} ({used[name]})", tokens[name], Spread.of(seconds[name])] for name in steps]
    text = "\n\n".join(
        [
            f"## Lists of {responses} responses",
            f"Prompt of {prompt}, responses of {length} tokens, one list, forward and backward; median "
            f"(lowest–highest) of {rounds} rounds in turn.\n\n{machine_note(here)}",
            table(["layout", "tokens", "seconds"], rows),
            verdict("padded over shared", gain.median, TARGET, at_least=True)
            + f"\n- gradients differ by {difference:.1e} of their norm",
        ]
    )
    figures: dict[str, Any] = {
        "machine": here,
        "layouts": used,
        "tokens": tokens,
        "seconds": seconds,
        "times_padded": asdict(gain),
        "gradient_difference": difference,
    }
    publish("lists", text, figures, save=save)


def _list(
    responses: int, prompt: int, length: int, vocabulary: int, generator: np.random.Generator
) -> TokenExample:
    context = generator.integers(2, vocabulary, prompt)
    cells = tuple(Cell(context, generator.integers(2, vocabulary, length)) for _ in range(responses))
    return TokenExample(cells, columns={}, index=0)


def _step(model: nn.Module, forest: Forest) -> Callable[[], Tensor]:
    """One forward and backward; returns the gradient of a weight that every token goes through."""
    weight = next(w for name, w in model.named_parameters() if name.endswith("layers.0.mlp.down_proj.weight"))

    def run() -> Tensor:
        model.zero_grad(set_to_none=True)
        logps = Language.score(model, forest)[""]
        (-logps.logps.sum() / logps.mask.sum()).backward()
        assert weight.grad is not None
        return weight.grad.clone()

    return run
