"""TRL's preference losses, side by side with the methods that compute the same: loss and parameter gradients
of one real batch, by TRL's own trainers and by prefero's.

``PARITY`` is the table: TRL's trainer and arguments on the left, prefero's method on the right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.data.examples import Example, Examples, Response
from prefero.data.views import one_cycle
from prefero.reference.providers import Moving
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import saved_model, text, tiny_model, tiny_tokenizer

pytest.importorskip("trl")

import datasets
from accelerate import Accelerator
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.tpo import TPOConfig, TPOTrainer
from trl.trainer.callbacks import SyncRefModelCallback

ROWS = 7
SEED = 0

Numbers = tuple[float, Mapping[str, torch.Tensor]]
"""A loss and its gradient by parameter."""

# what TRL is told → what prefero is told
DPO = [
    ({"loss_type": "sigmoid", "beta": 0.3}, {"method": "dpo", "beta": 0.3}),
    ({"loss_type": "hinge"}, {"method": "rso", "gamma": 0.1, "loss": "hinge_norm"}),
    ({"loss_type": "ipo", "beta": 0.2}, {"method": "ipo", "tau": 0.2, "tokens": "mean"}),
    ({"loss_type": "exo_pair", "label_smoothing": 1e-3}, {"method": "exo_pref", "beta": 0.1}),
    ({"loss_type": "nca_pair"}, {"method": "nca_pair", "beta": 0.1}),
    ({"loss_type": "robust", "label_smoothing": 0.1}, {"method": "rdpo", "flip_rate": 0.1}),
    ({"loss_type": "bco_pair"}, {"method": "bco_pair"}),
    ({"loss_type": "sppo_hard"}, {"method": "sppo", "coefficient": 2.0, "beta": 0.1, "labels": "hard"}),
    ({"loss_type": "aot"}, {"method": "aot"}),
    ({"loss_type": "aot", "label_smoothing": 0.1}, {"method": "aot", "smoothing": 0.1}),
    ({"loss_type": "aot_unpaired"}, {"method": "aot_unpaired"}),
    ({"loss_type": "apo_zero"}, {"method": "apo_zero"}),
    ({"loss_type": "apo_down"}, {"method": "apo_down"}),
    (
        {"loss_type": "discopop", "discopop_tau": 0.5},
        {"method": "discopop", "beta": 0.1, "tau": 0.5},
    ),
    ({"loss_type": "sft"}, {"method": "nll", "tokens": "batch"}),
    ({"loss_type": "sigmoid_norm", "beta": 2.0}, {"method": "dpo_norm", "beta": 2.0}),
    # sums of losses
    (
        {"loss_type": ["sigmoid", "apo_down"], "loss_weights": [0.7, 0.3]},
        {"method": "dpo", "coefficient": 0.7, "plus": {"apo_down": 0.3}},
    ),
    (
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"method": "mpo_mixed", "tokens": "batch"},
    ),
    (
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        {"method": "dpo", "plus": {"nll": {"coefficient": 0.3, "tokens": "batch"}}},
    ),
    # what goes with several of the losses
    ({"loss_type": "sigmoid", "ld_alpha": 0.4}, {"method": "ld_dpo", "alpha": 0.4}),
    (
        {"loss_type": "sigmoid", "f_divergence_type": "forward_kl"},
        {"method": "f_dpo", "divergence": "forward_kl"},
    ),
    (
        {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
        {"method": "f_dpo", "divergence": "jsd"},
    ),
    (
        {
            "loss_type": "sigmoid",
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.8,
        },
        {"method": "f_dpo", "divergence": "alpha", "alpha": 0.2},
    ),
    (
        {"loss_type": "hinge", "f_divergence_type": "js_divergence"},
        {"method": "rso", "gamma": 0.1, "loss": "hinge_norm", "reward": {"f_dpo": {"divergence": "jsd"}}},
    ),
    (
        {"loss_type": "ipo", "f_divergence_type": "forward_kl"},
        {"method": "ipo", "reward": {"f_dpo": {"divergence": "forward_kl"}}},
    ),
    (
        {
            "loss_type": "sigmoid_norm",
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.7,
        },
        {"method": "dpo_norm", "beta": 0.1, "reward": {"f_dpo": {"divergence": "alpha", "alpha": 0.3}}},
    ),
    (
        {"loss_type": "robust", "label_smoothing": 0.2, "ld_alpha": 0.4},
        {"method": "rdpo", "flip_rate": 0.2, "reward": {"ld_dpo": {"alpha": 0.4}}},
    ),
    (
        {"loss_type": "nca_pair", "ld_alpha": 0.0},
        {"method": "nca_pair", "beta": 0.1, "reward": {"ld_dpo": {"alpha": 0.0}}},
    ),
    ({"loss_type": "sigmoid", "use_weighting": True}, {"method": "wpo", "beta": 0.1, "clamp": None}),
    (
        {"loss_type": "robust", "label_smoothing": 0.1, "use_weighting": True},
        {"method": "rdpo", "flip_rate": 0.1, "weight": {"wpo": {"clamp": None}}},
    ),
]

CPO = [
    ({"loss_type": "sigmoid", "label_smoothing": 0.1}, {"method": "cpo", "smoothing": 0.1}),
    ({"loss_type": "hinge", "cpo_alpha": 0.5}, {"method": "cpo", "lam": 0.5, "link": "hinge"}),
    ({"loss_type": "ipo"}, {"method": "cpo_ipo"}),
    (
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
        {"method": "simpo", "beta": 2.0, "gamma": 1.0},
    ),
    (
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.1},
        {"method": "cpo_simpo", "beta": 2.0, "gamma": 0.5, "lam": 0.1},
    ),
    (
        {"loss_type": "alphapo", "beta": 2.0, "simpo_gamma": 0.5, "alpha": 0.2},
        {"method": "alphapo", "beta": 2.0, "gamma": 0.5, "alpha": 0.2},
    ),
]

ORPO = [({"beta": 0.2}, {"method": "orpo", "lam": 0.2, "text": "whole"})]

KTO = [
    ({"loss_type": "kto"}, {"method": "kto"}),
    (
        {"loss_type": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5},
        {"method": "kto", "desirable": 1.5, "undesirable": 0.5},
    ),
    ({"loss_type": "apo_zero_unpaired"}, {"method": "apo_zero_unpaired"}),
]

TPO = [
    ({"loss_type": "sigmoid", "beta": 0.2}, {"method": "tpo_triple", "beta": 0.2, "alpha": 1.0}),
    (
        {"loss_type": "hinge", "beta": 0.2},
        {"method": "tpo_triple", "beta": 0.2, "alpha": 1.0, "link": "hinge"},
    ),
    ({"loss_type": "ipo", "beta": 0.2}, {"method": "cpo_ipo", "tau": 0.2, "baseline": "gold"}),
    ({"loss_type": "tpo-l", "beta": 2.0}, {"method": "tpo_l", "beta": 2.0}),
]

TRAINERS: Mapping[str, tuple[Callable, Callable, list]] = {
    "DPO": (DPOTrainer, DPOConfig, DPO),
    "CPO": (CPOTrainer, CPOConfig, CPO),
    "ORPO": (ORPOTrainer, ORPOConfig, ORPO),
    "KTO": (KTOTrainer, KTOConfig, KTO),
    "TPO": (TPOTrainer, TPOConfig, TPO),
}

PARITY = [
    pytest.param(name, entry, id=f"{name}-" + "-".join(f"{key}={value}" for key, value in entry[0].items()))
    for name, (_, _, table) in TRAINERS.items()
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
    trainer_of, config_of, _ = TRAINERS[name]
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
    assert trainer.plan.rows > 1, "the step is meant to be spread over several rows"
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return loss, {name: before[name] - weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("name", "entry"), PARITY)
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
    reference = Moving(policy, alpha=0.6, every=2)
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
