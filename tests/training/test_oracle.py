"""The comparison-oracle step: ComPO's checks, and a model whose output layer alone moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prefero.errors import PreferoError
from prefero.feedback.selection import nearly_equal
from prefero.objectives import method
from prefero.objectives.configurations import from_config
from prefero.training.oracle import Direction, oracle
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer

BEFORE = (torch.tensor(-8.0), torch.tensor(-9.0))


@pytest.mark.parametrize(
    ("chosen", "rejected", "verdict"),
    [(-7.0, -9.5, -1), (-7.0, -8.5, 1), (-8.5, -9.5, 1), (-8.0, -9.5, 1), (-7.0, -9.0, 1)],
)
def test_only_both_improvements_count(chosen: float, rejected: float, verdict: int) -> None:
    after = (torch.tensor(chosen), torch.tensor(rejected))
    assert float(oracle(BEFORE, after)) == verdict


def answered(perturbations: torch.Tensor, verdicts: list[float]) -> Direction:
    direction = Direction(perturbations[0])
    direction.add(perturbations, torch.tensor(verdicts, dtype=perturbations.dtype))
    return direction


def test_a_success_pulls_towards_its_perturbation_and_a_failure_alone_moves_nothing() -> None:
    z = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(-answered(z, [-1]).gradient(0, 0), torch.tensor([0.6, -0.8]))
    assert not answered(z, [1]).gradient(0, 0).any()


def test_the_length_of_perturbations_does_not_matter_and_the_share_of_successes_does() -> None:
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    verdicts = [-1, 1, -1, 1, 1, 1, -1, -1]
    torch.testing.assert_close(answered(7 * z, verdicts).unit, answered(z, verdicts).unit)
    assert float(answered(z, verdicts).unit.norm()) == pytest.approx(1)
    assert float(answered(z, verdicts).gradient(0, 0).norm()) == pytest.approx(4 / 8)
    assert not answered(z, verdicts).gradient(0, 0.51).any(), "fewer successes than asked for"


def test_small_entries_go_and_the_others_keep_their_size() -> None:
    direction = answered(torch.tensor([[3.0, -4.0]]), [-1])
    torch.testing.assert_close(direction.sparse(0.7), torch.tensor([0.0, 0.8]))
    assert not direction.sparse(0.9).any()


def test_the_direction_is_near_the_gradient_of_linear_log_likelihoods() -> None:
    numbers = torch.Generator().manual_seed(0)
    up, down = torch.randn(2, 200, generator=numbers, dtype=torch.float64)
    z = torch.randn(1000, 200, generator=numbers, dtype=torch.float64)
    verdicts = oracle((torch.zeros(()), torch.zeros(())), (z @ up, z @ down))
    direction = Direction(z[0])
    direction.add(z, verdicts)
    wanted = up - down
    assert float(-direction.unit @ wanted / wanted.norm()) > 0.5
    assert 0.15 < direction.successes / 1000 < 0.35


def test_the_split_has_only_ties_at_delta_0_and_everything_at_infinity() -> None:
    margins = torch.tensor([0.0, 2.0, -5.0])
    assert nearly_equal(margins, 0.0).tolist() == [True, False, False]
    assert nearly_equal(margins, torch.inf).all()
    assert nearly_equal(margins, 3.0, order="right").tolist() == [False, True, False]


def trainer(folder: Path, **options) -> PreferenceTrainer:
    settings = {
        "max_steps": 4,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        "examples_per_step": 1,
    }
    objective = {"method": "compo", "perturbations": 40, "threshold": 0.0, "successes": 0.05, "probe": None}
    model = options.pop("model", None) or tiny_model()
    return PreferenceTrainer(
        model,
        pairs(4),
        objective=objective | options.pop("objective", {}),
        processing_class=tiny_tokenizer(),
        output_dir=str(folder),
        lr_scheduler_type="constant",
        warmup_steps=0,
        disable_tqdm=True,
        report_to="none",
        **{**settings, **options},
    )


def test_the_output_layer_alone_moves_and_both_sides_improve(tmp_path: Path) -> None:
    one = trainer(tmp_path, max_steps=1, examples_per_step=4, learning_rate=2.0)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    first = one.evaluate_examples(one.train_dataset).means()
    one.train()
    moved = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"lm_head.weight"}
    after = one.evaluate_examples(one.train_dataset).means()
    assert after["logps/chosen"] > first["logps/chosen"]
    assert after["logps/rejected"] < first["logps/rejected"]


def test_a_resumed_run_asks_the_same_questions(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    trainer(tmp_path / "cut", max_steps=4, save_steps=2).train()
    resumed = trainer(tmp_path / "cut", save_steps=2)
    resumed.train(str(tmp_path / "cut" / "checkpoint-2"))
    assert torch.equal(whole.model.lm_head.weight, resumed.model.lm_head.weight)


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    tied = trainer(tmp_path / "tied", model=tiny_model(tied=True))
    with pytest.raises(PreferoError, match="tie_word_embeddings=False"):
        tied.train()
    with pytest.raises(PreferoError, match="rule of its own"):
        from_config({"method": "compo", "plus": {"nll": 0.1}})
    with pytest.raises(PreferoError, match="rule of its own"):
        from_config({"method": "compo", "weight": "wpo"})
    with pytest.raises(PreferoError, match="rule of its own"):
        PreferenceTrainer(
            tiny_model(),
            pairs(4),
            objective=method("dpo") + method("compo"),
            processing_class=tiny_tokenizer(),
            output_dir=str(tmp_path / "sum"),
        )
