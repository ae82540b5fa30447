"""TRL's preference losses, side by side with the methods that compute the same: loss and parameter gradients
of one real batch, by TRL's own trainers and by prefero's. The table is that of ``docs/trl_page.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.tpo import TPOConfig, TPOTrainer
from trl.trainer.callbacks import SyncRefModelCallback

from docs.trl_page import PARITY
from prefero.data.arrange import one_cycle
from prefero.data.examples import Example, Examples, Response
from prefero.reference.providers import Moving
from prefero.training.trainer import PreferenceTrainer
from tests.language import LANGUAGE
from tests.training.tiny import saved_model, text, tiny_model, tiny_tokenizer

ROWS = 7
SEED = 0

Numbers = tuple[float, Mapping[str, torch.Tensor]]
"""A loss and its gradient by parameter."""

TRAINERS: Mapping[str, tuple[Callable, Callable]] = {
    "DPO": (DPOTrainer, DPOConfig),
    "CPO": (CPOTrainer, CPOConfig),
    "ORPO": (ORPOTrainer, ORPOConfig),
    "KTO": (KTOTrainer, KTOConfig),
    "TPO": (TPOTrainer, TPOConfig),
}

CASES = [
    pytest.param(name, entry, id=f"{name}-" + "-".join(f"{key}={value}" for key, value in entry[0].items()))
    for name, table in PARITY.items()
    for entry in table
]


def rows(trainer: str) -> list[dict[str, Any]]:
    """Rows of several lengths, as both libraries read them; neither reads the columns that it has no use
    for."""
    numbers = random.Random(1)
    made = [{"prompt": text(numbers, 2, 8), "chosen": " " + text(numbers, 1, 9)} for _ in range(ROWS)]
    if trainer == "KTO":
        return [
            {"prompt": row["prompt"], "completion": row["chosen"], "label": number % 3 == 0}
            for number, row in enumerate(made)
        ]
    for row in made:
        row["rejected"] = " " + text(numbers, 1, 9) + " w"
        if trainer == "TPO":
            row["reference"] = " " + text(numbers, 1, 9) + " v"
    return made


def triples(data: list[dict[str, Any]]) -> Examples:
    """What TRL's TPO calls the reference is a gold response."""
    roles = {"chosen": "chosen", "rejected": "rejected", "reference": "gold"}
    return Examples(
        [
            Example(row["prompt"], tuple(Response(row[name], role) for name, role in roles.items()))
            for row in data
        ]
    )


def in_trls_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """TRL lends every prompt the completion of the row before; in this order that is prefero's lender too."""
    lender = one_cycle(len(data), SEED)
    walk = [0]
    while len(walk) < len(data):
        walk.append(int(lender[walk[-1]]))
    return [data[at] for at in reversed(walk)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_model(tmp_path_factory.mktemp("reference"), seed=1)


def by_trl(name: str, arguments: Mapping[str, Any], folder: Path) -> Numbers:
    trainer_of, config_of = TRAINERS[name]
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.pad_token = "<unk>"
    data = rows(name)
    trainer = trainer_of(
        model=model,
        args=config_of(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=ROWS,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            seed=SEED,
            **arguments,
        ),
        train_dataset=datasets.Dataset.from_list(in_trls_order(data) if name == "KTO" else data),
        processing_class=tokenizer,
        **({"ref_model": tiny_model(seed=1)} if name in ("DPO", "KTO") else {}),
    )
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(model.train(), batch)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters()}


def by_prefero(name: str, objective: Mapping[str, Any], reference: str, folder: Path) -> Numbers:
    """One step of gradient descent at a rate of 1, so that the step is the gradient."""
    model, data = tiny_model(), rows(name)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = PreferenceTrainer(
        model,
        triples(data) if name == "TPO" else data,
        objective=objective,
        processing_class=tiny_tokenizer(),
        reference=reference,
        output_dir=str(folder / "prefero"),
        use_cpu=True,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_grad_norm=0.0,
        max_steps=1,
        examples_per_step=ROWS,
        tokens_per_row=60,
        logging_steps=1,
        save_strategy="no",
        seed=SEED,
        report_to="none",
        disable_tqdm=True,
    )
    assert trainer.plan.micro_batches > 1, "the step is meant to be spread over several rows"
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return loss, {name: before[name] - weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("name", "entry"), CASES)
def test_a_loss_of_trl_is_a_method(name: str, entry: tuple, reference: str, tmp_path: Path) -> None:
    arguments, objective = entry
    expected, slopes = by_trl(name, arguments, tmp_path)
    loss, found = by_prefero(name, objective, reference, tmp_path)
    assert loss == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert set(found) == set(slopes)
    size = max(float(slope.abs().max()) for slope in slopes.values())
    assert size > 1e-4
    for parameter, slope in slopes.items():
        assert float((found[parameter] - slope).abs().max()) <= 2e-5 * size, parameter


def test_a_moving_reference_is_trls() -> None:
    """``sync_ref_model`` with α and an interval is the reference ``moving`` with the same two."""
    Accelerator(cpu=True)  # TRL's callback wants to know the processes
    policy, theirs = tiny_model(), tiny_model()
    reference = Moving(LANGUAGE, policy, alpha=0.6, every=2)
    torch.manual_seed(0)
    for step in range(1, 5):
        with torch.no_grad():
            for weight in policy.parameters():
                weight += 0.1 * torch.randn_like(weight)
        reference.follow(policy, step)
        if step % 2 == 0:
            SyncRefModelCallback.sync_target_model(policy, theirs, 0.6)
    for mine, expected in zip(reference.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)
