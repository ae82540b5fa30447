"""A second model in training: fast–slow chasing, its two learning rates, and the exchange of places."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from prefero.errors import PreferoError
from prefero.objectives import method
from prefero.objectives.compare import Compare
from prefero.objectives.quantities import Logp
from prefero.reference.providers import Adapters, Demand, ReferenceSpec, Trained, chosen_kind
from prefero.training.auxiliary import exchange
from prefero.training.run import train as train_recipe
from prefero.training.trainer import PreferenceTrainer
from tests.training.processes import Trainings
from tests.training.test_resume import assert_close
from tests.training.tiny import pairs, saved_model, tiny_experts, tiny_model, tiny_tokenizer

LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")


def trainer(folder: Path, **options: Any) -> PreferenceTrainer:
    settings: dict[str, Any] = {
        "objective": "ofs_dpo",
        "learning_rate": 1e-2,
        "max_steps": 6,
        "examples_per_step": 6,
        "tokens_per_row": 64,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": None,
        "max_length": 32,
    }
    if "slow" in options:
        options["models"] = {"slow": ReferenceSpec("trained", **options.pop("slow"))}
    return PreferenceTrainer(
        options.pop("model", None) or tiny_model(),
        pairs(26),
        processing_class=tiny_tokenizer(),
        output_dir=str(folder),
        disable_tqdm=True,
        report_to="none",
        **{**settings, **options},
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
    }


def slow(of: PreferenceTrainer) -> Trained:
    return of.references.trained["slow"]


def assert_same(first: nn.Module, second: nn.Module, atol: float = 0.0) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys() and one
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=atol, rtol=0, msg=lambda m, n=name: n + m)


def distance(first: nn.Module, second: nn.Module) -> float:
    one, other = weights(first), weights(second)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1, "max_grad_norm": 0.1}], ids=["plain", "clipped"]
)
def test_without_coupling_it_is_two_runs_of_dpo(tmp_path: Path, options: dict[str, Any]) -> None:
    both = trainer(
        tmp_path / "both",
        objective={"method": "ofs_dpo", "alpha": 0.0},
        slow={"learning_rate": 3e-3, "every": 0},
        **options,
    )
    both.train()
    for model, rate in ((both.model, 1e-2), (slow(both).model, 3e-3)):
        alone = trainer(tmp_path / str(rate), objective="dpo", learning_rate=rate, **options)
        alone.train()
        assert_same(model, alone.model, atol=2e-6)
    assert distance(both.model, slow(both).model) > 1e-3


def test_it_trains_both_by_default_the_slow_one_at_half_the_rate(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    start = copy.deepcopy(one.model)
    before = one.evaluate_examples(one.train_dataset).means()
    one.train()
    assert [group["initial_lr"] for group in one.optimizer.param_groups] == [1e-2, 1e-2, 5e-3, 5e-3]
    assert [group["weight_decay"] for group in one.optimizer.param_groups] == [0, 0, 0, 0]
    after = one.evaluate_examples(one.train_dataset).means()
    assert after["loss"] < before["loss"]
    assert distance(start, one.model) > distance(start, slow(one).model) > 0
    assert one.references.cached, "the reference is the start, not the slow model"


def test_equal_rates_keep_two_equal_models_equal(tmp_path: Path) -> None:
    one = trainer(tmp_path, slow={"learning_rate": 1e-2})
    one.train()
    assert_same(one.model, slow(one).model, atol=1e-4)


def test_both_are_pushed_towards_the_chosen_response(tmp_path: Path) -> None:
    """A sign error in the slow model's term, or one graph for both terms, lets the coupling hold one back."""
    ends = {}
    for alpha in (0.0, 0.9):
        one = trainer(
            tmp_path / str(alpha),
            objective={"method": "ofs_dpo", "alpha": alpha},
            optim="sgd",
            learning_rate=0.02,
            max_grad_norm=0.0,
            max_steps=1,
            warmup_steps=0,
            examples_per_step=26,
            slow={"every": None},
        )
        one.train()
        ends[alpha] = [margin(one, model) for model in (one.model, slow(one).model)]
    assert ends[0.9][0] > ends[0.0][0] and ends[0.9][1] > ends[0.0][1]


def margin(of: PreferenceTrainer, model: nn.Module) -> float:
    total = 0.0
    with torch.no_grad():
        for row in of.get_eval_dataloader(of.train_dataset):
            logps = of.scorer(model, row).models["policy"].logps.sum(-1)
            total += float((logps[:, 0] - logps[:, 1]).sum())
    return total


def test_an_exchange_swaps_weights_optimizer_state_and_rates(tmp_path: Path) -> None:
    one = trainer(tmp_path, max_steps=3, weight_decay=0.1)
    one.train()
    second, optimizer, scheduler = slow(one), one.optimizer, one.lr_scheduler
    mine, its = dict(one.model.named_parameters()), second.weights

    def facts(parameters: dict[str, nn.Parameter]) -> dict[str, Any]:
        found = {}
        for name, weight in parameters.items():
            (number,) = [
                n for n, g in enumerate(optimizer.param_groups) if any(weight is p for p in g["params"])
            ]
            group = {key: value for key, value in optimizer.param_groups[number].items() if key != "params"}
            rates = scheduler.get_last_lr()[number], scheduler.base_lrs[number]
            state = {key: value.clone() for key, value in optimizer.state[weight].items()}
            found[name] = (weight.detach().clone(), state, group, rates)
        return found

    before = facts(mine), facts(its)
    assert before[0]["lm_head.weight"][2]["initial_lr"] == 2 * before[1]["lm_head.weight"][2]["initial_lr"]
    exchange(one.model, second, optimizer, scheduler)
    assert_equal((facts(its), facts(mine)), before)
    assert before[0]["lm_head.weight"][1]["exp_avg"].any()
    exchange(one.model, second, optimizer, scheduler)
    assert_equal((facts(mine), facts(its)), before)


def assert_equal(now: Any, then: Any) -> None:
    if isinstance(then, torch.Tensor):
        assert torch.equal(now, then)
    elif isinstance(then, dict | tuple):
        assert len(now) == len(then)
        for key in then if isinstance(then, dict) else range(len(then)):
            assert_equal(now[key], then[key])
    else:
        assert now == then


def test_the_model_with_the_lower_loss_takes_the_policys_place_and_keeps_its_rate(tmp_path: Path) -> None:
    # The slow one is the faster one here, so that it is the better one at the first comparison and stays it.
    one = trainer(
        tmp_path, slow={"learning_rate": 2e-2, "every": 3}, warmup_steps=0, lr_scheduler_type="constant"
    )
    one.train()
    rates = [entry["learning_rate"] for entry in one.state.log_history if "learning_rate" in entry]
    assert rates == [1e-2] * 3 + [2e-2] * 3
    never = trainer(
        tmp_path / "never",
        slow={"learning_rate": 2e-2, "every": 0},
        warmup_steps=0,
        lr_scheduler_type="constant",
    )
    never.train()
    assert {e["learning_rate"] for e in never.state.log_history if "learning_rate" in e} == {1e-2}


def test_a_turn_changes_names_and_not_what_is_trained(tmp_path: Path) -> None:
    """Without coupling the pair of models is the same whoever is called the policy."""
    options: dict[str, Any] = {"objective": {"method": "ofs_dpo", "alpha": 0.0}}
    turned = trainer(tmp_path / "turned", slow={"learning_rate": 2e-2, "every": 3}, **options)
    still = trainer(tmp_path / "still", slow={"learning_rate": 2e-2, "every": 0}, **options)
    turned.train(), still.train()
    assert_same(turned.model, slow(still).model, atol=2e-6)
    assert_same(slow(turned).model, still.model, atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"peft_config": LORA}, {"experts": True}],
    ids=["full", "adapters", "experts"],
)
def test_a_resumed_run_is_the_uninterrupted_one_also_after_a_turn(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    experts = options.pop("experts", False)

    def make() -> PreferenceTrainer:
        model = tiny_experts() if experts else tiny_model()
        settings = {"learning_rate": 2e-3, "warmup_steps": 0, "examples_per_step": 26, **options}
        return trainer(tmp_path, slow={"learning_rate": 2e-2, "every": 3}, model=model, **settings)

    whole = make()
    whole.train()
    assert max(e["learning_rate"] for e in whole.state.log_history if "learning_rate" in e) > 2e-3
    for checkpoint in (2, 3, 4):  # amid a first interval, at its end, amid the second
        resumed = make()
        resumed.train(str(tmp_path / f"checkpoint-{checkpoint}"))
        assert_same(resumed.model, whole.model)
        assert_same(slow(resumed).model, slow(whole).model)
        assert torch.equal(resumed.update.moved()["losses"], whole.update.moved()["losses"])


def test_adapters_share_the_model_below_and_measure_against_it(tmp_path: Path) -> None:
    one = trainer(tmp_path, peft_config=LORA)
    one.train()
    theirs = dict(slow(one).model.named_parameters())
    for name, weight in one.model.named_parameters():
        assert (theirs[name] is weight) == (not weight.requires_grad)
    assert "reference" not in one.references.cached, "the adapters are switched off for it"
    assert distance(one.model, slow(one).model) > 0


def test_two_processes_are_one(run: Trainings, tmp_path: Path) -> None:
    models = {"slow": {"kind": "trained", "learning_rate": 2e-2, "every": 3}}
    run(tmp_path / "one", objective="ofs_dpo", models=models, learning_rate=5e-3)
    run(tmp_path / "two", objective="ofs_dpo", models=models, learning_rate=5e-3, processes=2)
    assert_close(tmp_path / "one", tmp_path / "two")


def test_a_recipe_names_it_and_a_frozen_one_is_still_possible(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(pair) for pair in pairs(8)))
    recipe = {
        "model": saved_model(tmp_path / "model"),
        "data": str(data),
        "objective": "ofs_dpo",
        "training": {"examples_per_step": 4},
        "samples": 0,
    }
    train_recipe({**recipe, "output": tmp_path / "plain"})
    settings = {"learning_rate": 1e-6, "every": 1}
    train_recipe({**recipe, "models": {"slow": settings}, "output": tmp_path / "settings"})
    train_recipe({**recipe, "models": {"slow": "frozen"}, "output": tmp_path / "frozen"})
    with pytest.raises(PreferoError, match="learning rate, but is not trained"):
        train_recipe(
            {**recipe, "models": {"slow": {**settings, "kind": "frozen"}}, "output": tmp_path / "no"}
        )


class WholeStep(Compare):
    whole_step = True


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="reference: moving"):
        trainer(tmp_path, objective="dpo", reference="trained")
    with pytest.raises(PreferoError, match=r"name it, models\.previous"):
        trainer(tmp_path, objective="inpo_nash")
    with pytest.raises(PreferoError, match="rule of its own"):
        trainer(tmp_path, objective=method("dpo") + method("ofs_dpo"), slow={})
    ratio = (Logp() - Logp("slow")).sum()
    with pytest.raises(PreferoError, match="looks at the whole step at once"):
        trainer(tmp_path, objective=WholeStep(ratio), slow={})
    with pytest.raises(PreferoError, match="gives it no gradient"):
        chosen_kind("slow", ReferenceSpec("trained"), Demand(compared=True), Adapters())
    with pytest.raises(PreferoError, match="holds a fixed model only"):
        chosen_kind("slow", ReferenceSpec("trained", cache=tmp_path), Demand(), Adapters())


def test_a_sharded_policy_is_refused(run: Trainings, tmp_path: Path) -> None:
    text = run(tmp_path / "run", objective="ofs_dpo", processes=2, parallel="fsdp", expect=1)
    assert "PreferoError" in text and "step the policy alone" in text
