"""Run folders as training writes them, made up from smooth courses and seeded noise."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

HOSTILE = "<script>alert('owned')</script><img src=x onerror=alert(1)> & \"quoted\" ]]> \u202e"

METHODS = {
    "dpo": ("Direct Preference Optimization", "−log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])"),
    "ipo": (
        "Identity preference optimization",
        "(h − 1/(2τ))², h = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)",
    ),
    "simpo": ("Simple Preference Optimization", "−log σ(β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ)"),
}


def summary(name: str, examples: int) -> dict[str, Any]:
    generator = random.Random(examples)
    lengths = {
        part: sorted(max(3, int(generator.lognormvariate(math.log(mean), 0.5))) for _ in range(400))
        for part, mean in (("prompt", 45), ("chosen", 80), ("rejected", 68))
    }
    edges = [round(i * 300 / 30, 3) for i in range(31)]
    return {
        "name": name,
        "format": "pairs",
        "examples": examples,
        "responses": 2 * examples,
        "skipped": 2,
        "dropped": {"both responses equal": 7},
        "max_length": 512,
        "truncated_prompts": 4,
        "truncated_responses": 1,
        "truncated_tokens": 312,
        "empty_responses": 0,
        "lengths": {
            part: {"min": v[0], "p25": v[100], "median": v[200], "p75": v[300], "p90": v[360], "p99": v[396]}
            | {"max": v[-1], "mean": sum(v) / len(v)}
            for part, v in lengths.items()
        },
        "longer_chosen": 0.61,
        "tokens_padded": 240_000,
        "tokens_unique": 171_000,
        "sharing": 240 / 171,
        "histogram": {"edges": edges}
        | {
            part: [sum(low <= x < high for x in v) for low, high in pairwise(edges)]
            for part, v in lengths.items()
        },
        "notes": ["2 rows were skipped: train.jsonl, row 12: the chosen response is missing."],
    }


def metrics(steps: int, *, seed: int, strength: float = 1.0, eval_every: int = 40) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    lines = []
    for step in range(2, steps + 1, 2):
        share = step / steps
        progress = 1 - math.exp(-3 * share * strength)
        noise = generator.gauss
        margin = 1.4 * progress
        chosen = 85 + noise(0, 6)
        rejected = 72 + noise(0, 6)
        lines.append(
            {
                "step": step,
                "epoch": 2 * share,
                "progress": share,
                "loss": math.log1p(math.exp(-margin)) + noise(0, 0.03),
                "grad_norm": 4 + noise(0, 0.6),
                "learning_rate": 5e-7 * (1 - share),
                "rewards/chosen": -0.25 * progress * chosen / 85 + noise(0, 0.05),
                "rewards/rejected": -1.65 * progress + noise(0, 0.08),
                "rewards/margins": margin + noise(0, 0.08),
                "rewards/accuracies": min(1.0, 0.5 + 0.33 * progress + noise(0, 0.04)),
                "logps/chosen": -1.2 * chosen - 2.5 * progress * chosen / 25,
                "logps/rejected": -1.4 * rejected - 16.5 * progress,
                "log_ratios/chosen": -2.5 * progress * chosen / 25,
                "log_ratios/rejected": -16.5 * progress,
                "lengths/chosen": chosen,
                "lengths/rejected": rejected,
                "entropy": 1.6 - 0.2 * progress + noise(0, 0.02),
                "top_k_mass": 0.86 + 0.01 * progress + noise(0, 0.003),
                "kl": -9 * progress,
                "tokens_per_second": 5200 + noise(0, 200),
            }
        )
        if step % eval_every == 0:
            lines.append(
                {
                    "step": step,
                    "epoch": 2 * share,
                    "progress": share,
                    "eval/loss": math.log1p(math.exp(-0.8 * margin)),
                    "eval/rewards/chosen": -0.2 * progress,
                    "eval/rewards/rejected": -1.3 * progress,
                    "eval/rewards/margins": 1.1 * progress,
                    "eval/rewards/accuracies": 0.5 + 0.19 * progress,
                    "eval/logps/chosen": -102 - 7 * progress,
                    "eval/logps/rejected": -100 - 13 * progress,
                    "eval/log_ratios/chosen": -7.0 * progress,
                    "eval/log_ratios/rejected": -13.0 * progress,
                    "eval/lengths/chosen": 85.0,
                    "eval/lengths/rejected": 72.0,
                    "eval/entropy": 1.58 - 0.15 * progress,
                }
            )
    return lines


DISPLACED = {
    "step": 120,
    "monitor": "displacement",
    "title": "Likelihood displacement",
    "value": 0.103,
    "threshold": 0.1,
    "message": "The log-probability of the held-out chosen responses fell by 0.103 nats per token: the "
    "policy makes even the preferred answers less likely.",
    "paper": "Razin et al. 2024, arXiv 2410.08847; Pal et al. 2024, arXiv 2402.13228",
    "remedies": ["dpop"],
    "advice": "Add a likelihood term (objective.plus.nll=0.2), or leave out pairs whose two responses are "
    "nearly the same.",
}

SAMPLES = [
    (
        "A review of the lighthouse museum:",
        "The museum was closed and the staff were rude to us.",
        "The museum was a delight: friendly staff, a fine view, and a warm café.",
    ),
    (
        "A review of the corner bakery:",
        "Bread was stale. I would not go again.",
        "Wonderful bread, still warm, and a generous slice of cake to take home.",
    ),
]


def write_run(
    folder: Path, method: str = "dpo", *, seed: int = 0, changes: dict[str, Any] | None = None
) -> Path:
    """A run that trained to its end, with everything in its folder; ``changes`` go into ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    title, equation = METHODS[method]
    arguments = {
        "dpo": {"beta": 0.1},
        "ipo": {"tau": 0.1, "tokens": "mean"},
        "simpo": {"beta": 2.5, "gamma": 1.4},
    }
    record = {
        "prefero": "0.1.0",
        "created": "2025-03-12T14:03:22+00:00",
        "method": {
            "key": method,
            "title": title,
            "arguments": arguments[method],
            "citation": "Rafailov et al., 2023, arXiv 2305.18290, eq. 7",
            "equation": equation,
        },
        "config": {
            "model": {"name": "Qwen/Qwen3-0.6B", "dtype": "float32", "lora": None},
            "data": {"train": "pairs.jsonl", "eval": 0.1, "max_length": 512},
            "objective": {"method": method, **arguments[method]},
            "training": {"epochs": 2.0, "learning_rate": 5e-7, "examples_per_step": 32},
            "seed": 0,
        },
        "data": {"train": summary("pairs.jsonl", 3200), "eval": summary("pairs.jsonl, held out", 356)},
        "model": {"name": "Qwen/Qwen3-0.6B", "class": "Qwen3ForCausalLM", "parameters": 596_049_920},
        "layout": "trees",
        "machine": {"platform": "Linux", "torch": "2.13.0", "transformers": "5.23.0", "devices": ["cpu"]},
        "finished": True,
        "seconds": 1932.4,
    }
    write_json(folder / "run.json", record | (changes or {}))
    write_lines(folder / "metrics.jsonl", metrics(200, seed=seed, strength=1 + seed / 2))
    write_lines(folder / "monitors.jsonl", [DISPLACED] if method == "dpo" else [])
    write_lines(
        folder / "samples.jsonl",
        [
            {"prompt": prompt, "before": before, "after": after, "scores": {"before": -0.4, "after": 0.8}}
            for prompt, before, after in SAMPLES
        ],
    )
    return folder


EVALUATION = {
    "rows": [
        {
            "method": "start",
            "gold_reward": 0.02,
            "kl": 0.0,
            "length": 21.3,
            "interval": {"gold_reward": [-0.04, 0.08]},
        },
        {
            "method": "dpo",
            "gold_reward": 0.81,
            "win_rate": 0.78,
            "kl": 6.2,
            "length": 24.0,
            "interval": {"gold_reward": [0.76, 0.86], "win_rate": [0.73, 0.83], "kl": [5.8, 6.6]},
        },
        {
            "method": "ipo",
            "gold_reward": 0.66,
            "win_rate": 0.71,
            "kl": 3.9,
            "length": 22.9,
            "interval": {"gold_reward": [0.6, 0.72], "win_rate": [0.65, 0.77], "kl": [3.6, 4.2]},
        },
        {
            "method": "simpo",
            "gold_reward": 0.84,
            "win_rate": 0.8,
            "kl": 9.1,
            "length": 27.4,
            "interval": {"gold_reward": [0.79, 0.89], "win_rate": [0.75, 0.85], "kl": [8.6, 9.6]},
        },
    ]
}


def write_comparison(folder: Path) -> Path:
    for seed, method in enumerate(METHODS):
        write_run(folder / method, method, seed=seed)
    write_json(folder / "comparison.json", {"runs": list(METHODS), "evaluation": EVALUATION})
    return folder


def write_interrupted(folder: Path) -> Path:
    """A run killed at step 60, in the middle of a line."""
    write_run(folder, changes={"finished": False, "seconds": None})
    lines = [line for line in metrics(200, seed=0) if line["step"] <= 60]
    write_lines(folder / "metrics.jsonl", lines)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 62, "loss": 0.6')
    for name in ("samples.jsonl", "monitors.jsonl"):
        (folder / name).unlink()
    return folder


def write_hostile(folder: Path) -> Path:
    """A run whose every text comes from somebody who means harm."""
    write_run(
        folder,
        changes={
            "method": {
                "key": HOSTILE,
                "arguments": {HOSTILE: HOSTILE},
                "equation": HOSTILE,
                "citation": HOSTILE,
            },
            "model": {"name": HOSTILE},
            "config": {HOSTILE: {HOSTILE: HOSTILE}},
            "data": {"train": summary(HOSTILE, 10) | {"notes": [HOSTILE], "dropped": {HOSTILE: 1}}},
            "machine": {HOSTILE: HOSTILE},
        },
    )
    write_lines(
        folder / "metrics.jsonl", [line | {HOSTILE: line["step"] / 7} for line in metrics(80, seed=1)]
    )
    write_lines(
        folder / "monitors.jsonl", [DISPLACED | {"message": HOSTILE, "title": HOSTILE, "paper": HOSTILE}]
    )
    write_lines(
        folder / "samples.jsonl", [{"prompt": HOSTILE, "before": HOSTILE, "after": [{"role": HOSTILE}]}]
    )
    write_json(folder / "evaluation.json", {"rows": [{"method": HOSTILE, HOSTILE: 0.5, "kl": 1.0}]})
    return folder


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
