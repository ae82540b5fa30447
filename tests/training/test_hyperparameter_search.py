"""A search of settings by the trainer, as users of transformers know it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.trainer_utils import BestRun

from prefero.errors import PreferoError
from prefero.objectives import method
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer

Search = Callable[..., PreferenceTrainer]


@pytest.fixture
def searching(tmp_path: Path) -> Search:
    """Makes a trainer that makes its model, on the CPU."""

    def make(**changes: Any) -> PreferenceTrainer:
        settings: dict[str, Any] = {
            "model_init": tiny_model,
            "eval_dataset": pairs(8, seed=1),
            "objective": "dpo",
            "output_dir": str(tmp_path / "search"),
            "use_cpu": True,
            "disable_tqdm": True,
            "max_steps": 2,
            "examples_per_step": 6,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "save_strategy": "no",
        }
        settings |= changes
        return PreferenceTrainer(train_dataset=pairs(24), processing_class=tiny_tokenizer(), **settings)

    return make


def settings_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def test_every_trial_is_a_run_with_its_settings_and_the_best_is_returned(
    searching: Search, tmp_path: Path, own_cache: Path
) -> None:
    losses: list[float] = []

    def loss(metrics: dict[str, float]) -> float:
        losses.append(metrics["eval_loss"])
        return metrics["eval_loss"]

    best = searching().hyperparameter_search(
        hp_space=lambda trial: {
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
            "objective.beta": trial.suggest_categorical("objective.beta", [0.1, 1.0]),
        },
        compute_objective=loss,
        n_trials=3,
        direction="minimize",
        backend="optuna",
    )
    assert isinstance(best, BestRun) and best.objective == min(losses)
    runs = [settings_of(tmp_path / "search" / f"run-{number}") for number in range(3)]
    assert runs[int(best.run_id)]["learning_rate"] == best.hyperparameters["learning_rate"]
    assert runs[int(best.run_id)]["method"]["arguments"] == {"beta": best.hyperparameters["objective.beta"]}
    assert len({run["learning_rate"] for run in runs}) == 3
    assert len(list(own_cache.glob("references/*/*.safetensors"))) == 1, "one cache of reference scores"


def test_a_trial_starts_from_the_model_that_is_made_anew(searching: Search, tmp_path: Path) -> None:
    searching(objective={"method": "dpo", "beta": 0.3}, logging_steps=1).hyperparameter_search(
        hp_space=lambda trial: {"weight_decay": 0.0}, n_trials=2, direction="maximize"
    )
    first, second = (
        [json.loads(line).get("loss") for line in (tmp_path / "search" / name / "metrics.jsonl").open()]
        for name in ("run-0", "run-1")
    )
    assert first == second and first[0] != first[1]
    assert settings_of(tmp_path / "search" / "run-0")["method"]["arguments"] == {"beta": 0.3}


def _of_trial(trial: Any) -> Any:
    return tiny_model(seed=0 if trial is None else 1 + trial.number)


def _with_keyword(*, trial: Any = None) -> Any:
    return _of_trial(trial)


def _with_default(seed: int = 5) -> Any:
    return tiny_model(seed)


@pytest.mark.parametrize(
    ("model_init", "seeds"),
    [
        (_of_trial, [1, 2]),
        (_with_keyword, [1, 2]),
        (_with_default, [5, 5]),
        (lambda *_: tiny_model(3), [3, 3]),
    ],
)
def test_the_model_may_be_made_for_a_trial(
    searching: Search, tmp_path: Path, model_init: Any, seeds: list[int]
) -> None:
    """As transformers allows; a default that is bound in a lambda is left alone."""
    searching(model_init=model_init, max_steps=1, reference="none", objective="simpo").hyperparameter_search(
        hp_space=lambda trial: {}, n_trials=2
    )
    losses = []
    for seed in seeds:
        alone = searching(
            model_init=None, model=tiny_model(seed), max_steps=1, objective="simpo",
            output_dir=str(tmp_path / f"alone-{len(losses)}"),
        )  # fmt: skip
        alone.train()
        losses.append(alone.evaluate()["eval_loss"])
    rows = [
        json.loads((tmp_path / "search" / name / "evaluation.json").read_text())["rows"][0]["loss"]
        for name in ("run-0", "run-1")
    ]
    assert rows == losses


def test_a_model_that_an_earlier_trial_has_trained_is_refused(searching: Search) -> None:
    model = tiny_model()
    trainer = searching(model_init=lambda: model, max_steps=1)
    with pytest.raises(PreferoError, match="the model that an earlier trial has trained"):
        trainer.hyperparameter_search(hp_space=lambda trial: {}, n_trials=2)


def test_several_sets_of_held_out_data_are_compared_by_what_is_computed_of_all(searching: Search) -> None:
    """Also while trials train, where each set is measured by itself."""
    trainer = searching(
        eval_dataset={"a": pairs(4, seed=1), "b": pairs(4, seed=2)}, eval_strategy="steps", eval_steps=1
    )
    found = trainer.hyperparameter_search(
        hp_space=lambda trial: {},
        compute_objective=lambda metrics: metrics["eval_a_loss"] + metrics["eval_b_loss"],
        n_trials=1,
    )
    assert isinstance(found, BestRun) and found.objective > 0


def test_two_trials_are_not_written_to_one_folder(searching: Search) -> None:
    with pytest.raises(PreferoError, match="'same' for two trials"):
        searching(overwrite=True, max_steps=1).hyperparameter_search(
            hp_space=lambda trial: {}, hp_name=lambda trial: "same", n_trials=2
        )


def test_a_method_can_be_searched(searching: Search, tmp_path: Path) -> None:
    searching(max_steps=1).hyperparameter_search(
        hp_space=lambda trial: {"objective": ["dpo", "ipo"][trial.number]}, n_trials=2
    )
    assert [settings_of(tmp_path / "search" / f"run-{n}")["method"]["key"] for n in (0, 1)] == ["dpo", "ipo"]


def test_a_pruner_ends_a_trial(searching: Search) -> None:
    import optuna

    class Always(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number > 0

    seen: list[int] = []

    class Study(optuna.storages.InMemoryStorage):
        def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
            seen.append(state)
            return super().set_trial_state_values(trial_id, state, values)

    trainer = searching(eval_strategy="steps", eval_steps=1)
    trainer.hyperparameter_search(n_trials=2, hp_space=lambda trial: {}, pruner=Always(), storage=Study())
    states = optuna.trial.TrialState
    assert [state for state in seen if state.is_finished()] == [states.COMPLETE, states.PRUNED]


def test_a_trial_that_diverges_is_not_the_end(searching: Search, tmp_path: Path) -> None:
    best = searching().hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": [1e30, 1e-3][trial.number]}, n_trials=2
    )
    assert isinstance(best, BestRun) and best.run_id == "1"
    with pytest.raises(PreferoError, match="none of the trials has a result; the last stopped at step 2"):
        searching(output_dir=str(tmp_path / "other")).hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": 1e30}, n_trials=1
        )


def test_several_directions_give_several_runs(searching: Search) -> None:
    found = searching().hyperparameter_search(
        hp_space=lambda trial: {"objective.beta": trial.suggest_float("objective.beta", 0.1, 1)},
        compute_objective=lambda metrics: [metrics["eval_loss"], metrics["eval_rewards/accuracies"]],
        n_trials=2,
        direction=["minimize", "maximize"],
        hp_name=lambda trial: f"beta-{trial.params['objective.beta']:.2f}",
    )
    assert isinstance(found, list) and all(isinstance(one, BestRun) for one in found)


@pytest.mark.parametrize(
    ("changes", "search", "message"),
    [
        ({"model_init": None, "model": "tiny"}, {}, "give model_init"),
        ({"eval_dataset": None}, {}, "give eval_dataset"),
        ({}, {"backend": "ray"}, "backend is 'ray': .* uses 'optuna'"),
        ({}, {"n_jobs": 2}, "one after another"),
        ({}, {"direction": ["minimize", "maximize"]}, "give compute_objective"),
        ({}, {"hp_space": lambda trial: {"learning_rates": 1}}, "did you mean 'learning_rate'"),
        ({}, {"hp_space": lambda trial: {"per_device_train_batch_size": 4}}, "examples_per_step"),
        ({}, {"hp_space": lambda trial: {"objective.betta": 1}}, "did you mean 'beta'"),
        (
            {},
            {"hp_space": lambda trial: {"training.learning_rate": 1}},
            "'learning_rate' with 'training' before",
        ),
        ({}, {"hp_space": lambda trial: {"lr": 1}}, "no setting is called lr: it is learning_rate"),
        ({}, {"hp_space": lambda trial: {"output_dir": "x"}}, "output_dir, which the trials have in common"),
        ({}, {"hp_space": lambda trial: None}, "hp_space returned None"),
        ({}, {"hp_name": lambda trial: "../x"}, "the name of a folder in output_dir"),
        ({}, {"direction": "up"}, "direction is 'up'"),
        ({}, {"direction": []}, "direction is empty"),
        ({}, {"n_trials": 0}, "at least one"),
        ({}, {"compute_objective": lambda metrics: None}, "returned None: it returns a number"),
        ({}, {"compute_objective": lambda metrics: float("nan")}, "the last would be compared by nan"),
        (
            {"eval_dataset": {"a": pairs(4, seed=1), "b": pairs(4, seed=2)}},
            {},
            r"several sets .* metrics\['eval_a_loss'\]",
        ),
        ({"model_init": lambda first, second: tiny_model()}, {}, "takes first, second"),
        ({"objective": method("dpo")}, {"hp_space": lambda trial: {"objective.beta": 1}}, "as a name"),
        (
            {"objective": "nll"},
            {"hp_space": lambda trial: {}, "direction": "maximize"},
            "give compute_objective",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(
    searching: Search, changes: dict[str, Any], search: dict[str, Any], message: str
) -> None:
    if changes.get("model"):
        changes = {**changes, "model": tiny_model()}
    with pytest.raises(PreferoError, match=message):
        searching(**changes).hyperparameter_search(**{"n_trials": 1, **search})
