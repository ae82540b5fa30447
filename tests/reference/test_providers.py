"""Who the policy is measured against: kinds of reference, what each gives, and what each cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from prefero.errors import PreferoError
from prefero.objectives.signals import ENTROPY
from prefero.reference.providers import (
    Adapters,
    Demand,
    Moving,
    ReferenceSpec,
    adapters_of,
    chosen_kind,
    frozen_copy,
)
from prefero.training.trainer import PreferenceTrainer
from tests.language import LANGUAGE
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

VECTORS = Path(__file__).parents[1] / "golden" / "vectors" / "objectives-core.json"
LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")


def made(folder: Path, model: Any = None, **options: Any) -> PreferenceTrainer:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "examples_per_step": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-2,
    }
    data = options.pop("train_dataset", pairs(16))
    return PreferenceTrainer(
        tiny_model() if model is None else model,
        data,
        processing_class=tiny_tokenizer(),
        **{**defaults, **options},
    )


def logged(folder: Path, name: str = "loss") -> list[float]:
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Weights(nn.Module):
    """What the golden vector calls a model: three numbers."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def golden(content: Any) -> Any:
    if isinstance(content, dict):
        if content.get("method") == "tr_dpo_reference_update":
            return content
        content = list(content.values())
    found = (golden(inner) for inner in content) if isinstance(content, list) else ()
    return next((one for one in found if one), None)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.6, "reference_after_step"), (1.0, "reference_after_step_hard")]
)
def test_tr_dpo_follows_the_golden_trajectory(alpha: float, expected: str) -> None:
    vector = golden(json.loads(VECTORS.read_text()))
    reference = Moving(
        LANGUAGE,
        Weights(vector["inputs"]["initial_reference"]),
        alpha=alpha,
        every=vector["params"]["sync_steps"],
    )
    trajectory = zip(vector["inputs"]["policy_after_step"], vector["expected"][expected], strict=True)
    for step, (policy, after) in enumerate(trajectory, start=1):
        reference.follow(Weights(policy), step)
        torch.testing.assert_close(
            reference.model.values.detach(), torch.tensor(after, dtype=torch.float64), atol=1e-12, rtol=0
        )
    assert not reference.model.values.requires_grad


def test_a_moving_reference_that_never_moves_is_frozen(tmp_path: Path) -> None:
    made(tmp_path / "frozen", reference="frozen").train()
    made(tmp_path / "late", reference=ReferenceSpec("moving", every=100)).train()
    made(tmp_path / "still", reference=ReferenceSpec("moving", alpha=0.0, every=1)).train()
    assert logged(tmp_path / "frozen") == logged(tmp_path / "late") == logged(tmp_path / "still")


def test_after_a_hard_update_the_loss_is_log_two(tmp_path: Path) -> None:
    trainer = made(tmp_path / "hard", reference=ReferenceSpec("moving", alpha=1.0, every=2))
    trainer.train()
    losses = logged(tmp_path / "hard")
    assert losses[2] == pytest.approx(0.6931472, abs=1e-6)
    assert all(weight.grad is None for weight in trainer.references.moving["reference"].model.parameters())


@pytest.mark.parametrize("options", [{"alpha": 1.1}, {"every": 0}])
def test_impossible_updates_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PreferoError, match="moving reference"):
        Moving(LANGUAGE, tiny_model(), **options)


def test_a_copy_shares_what_is_not_trained() -> None:
    policy = get_peft_model(tiny_model(), LORA)
    copy = dict(frozen_copy(policy).named_parameters())
    for name, weight in policy.named_parameters():
        assert (copy[name] is weight) == (not weight.requires_grad)


def test_references_of_adapters_agree(tmp_path: Path) -> None:
    kinds = ["auto", "frozen", "cached", "adapters_off", ReferenceSpec("moving", every=100)]
    for number, kind in enumerate(kinds):
        trainer = made(tmp_path / str(number), peft_config=LORA, reference=kind)
        if kind == "auto":
            assert type(trainer.references.providers["reference"]).__name__ == "AdaptersOff"
        trainer.train()
    first = logged(tmp_path / "0")
    assert first[0] == pytest.approx(0.6931472, abs=1e-6) and abs(first[-1] - first[0]) > 1e-3
    for number in range(1, len(kinds)):
        assert logged(tmp_path / str(number)) == pytest.approx(first, abs=2e-6)


def test_trained_adapters_are_part_of_the_start(tmp_path: Path) -> None:
    policy = get_peft_model(tiny_model(), LORA)
    assert adapters_of(policy) == Adapters(True, True)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    assert adapters_of(policy) == Adapters(True, False)
    trainer = made(tmp_path / "run", policy)
    assert type(trainer.references.providers["reference"]).__name__ == "Frozen"
    trainer.train()
    assert logged(tmp_path / "run")[0] == pytest.approx(0.6931472, abs=1e-6)


def test_another_checkpoint_is_the_reference(tmp_path: Path) -> None:
    other = saved_model(tmp_path / "other", seed=5)
    made(tmp_path / "cached", reference=other).train()
    made(tmp_path / "live", reference=ReferenceSpec("checkpoint", model=other), objective="dpo").train()
    own = made(tmp_path / "own")
    own.train()
    assert logged(tmp_path / "cached") == pytest.approx(logged(tmp_path / "live"), abs=2e-6)
    assert abs(logged(tmp_path / "cached")[0] - logged(tmp_path / "own")[0]) > 1e-3


def test_two_model_signals_with_adapters(tmp_path: Path) -> None:
    for kind in ("adapters_off", "frozen"):
        made(tmp_path / kind, peft_config=LORA, reference=kind, objective="tdpo2").train()
    assert logged(tmp_path / "adapters_off") == pytest.approx(logged(tmp_path / "frozen"), abs=2e-6)


def test_an_objective_without_a_reference_has_none(tmp_path: Path) -> None:
    trainer = made(tmp_path / "run", objective="simpo", reference="none")
    assert not trainer.references.providers and not trainer.references.cached
    trainer.train()
    assert "log_ratios/chosen" not in (tmp_path / "run" / "metrics.jsonl").read_text()


PLAIN, NEW, TRAINED = Adapters(), Adapters(True, True), Adapters(True, False)
SIGNAL, COMPARED = Demand(frozenset({ENTROPY})), Demand(compared=True)


@pytest.mark.parametrize(
    ("spec", "demand", "adapters", "kind"),
    [
        (ReferenceSpec(), Demand(), PLAIN, "cached"),
        (ReferenceSpec(), SIGNAL, PLAIN, "frozen"),
        (ReferenceSpec(), COMPARED, PLAIN, "frozen"),
        (ReferenceSpec(), Demand(), NEW, "adapters_off"),
        (ReferenceSpec(), Demand(), TRAINED, "frozen"),
        (ReferenceSpec("cached"), Demand(), NEW, "cached"),
        (ReferenceSpec.named("org/model"), Demand(), PLAIN, "cached"),
        (ReferenceSpec.named("org/model"), COMPARED, PLAIN, "checkpoint"),
        (ReferenceSpec.named("moving"), COMPARED, PLAIN, "moving"),
    ],
)
def test_what_auto_stands_for(spec: ReferenceSpec, demand: Demand, adapters: Adapters, kind: str) -> None:
    assert chosen_kind("reference", spec, demand, adapters) == kind


@pytest.mark.parametrize(
    ("name", "spec", "demand", "adapters", "message"),
    [
        ("reference", ReferenceSpec("none"), Demand(), PLAIN, "reference is none, but"),
        ("previous", ReferenceSpec(), Demand(), PLAIN, "name it, models.previous: org/model"),
        ("reference", ReferenceSpec("cached"), COMPARED, PLAIN, "cannot be cached: .* compares"),
        ("reference", ReferenceSpec("cached"), SIGNAL, PLAIN, "cannot be cached: .* reads entropy"),
        ("reference", ReferenceSpec("moving", cache=Path("x")), Demand(), PLAIN, "holds a fixed model"),
        ("reference", ReferenceSpec("adapters_off"), Demand(), PLAIN, "has no adapters: add model.lora"),
    ],
)
def test_what_cannot_serve_is_refused_by_name(
    name: str, spec: ReferenceSpec, demand: Demand, adapters: Adapters, message: str
) -> None:
    with pytest.raises(PreferoError, match=message):
        chosen_kind(name, spec, demand, adapters)
