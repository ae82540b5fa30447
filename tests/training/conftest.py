from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prefero.training.trainer import PreferenceTrainer
from tests.forks import Forks
from tests.training.processes import Trainings
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., PreferenceTrainer]:
    """Makes a trainer on the CPU; plain SGD without warm-up, so that an update is the gradient."""
    count = 0

    def make(
        model: Any = None, data: Any = None, objective: Any = "dpo", **settings: Any
    ) -> PreferenceTrainer:
        nonlocal count
        count += 1
        defaults: dict[str, Any] = {
            "output_dir": str(tmp_path / f"run-{count}"),
            "use_cpu": True,
            "disable_tqdm": True,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
            "learning_rate": 0.1,
            "examples_per_step": 6,
            "tokens_per_row": 64,
            "logging_steps": 1,
            "save_strategy": "no",
        }
        return PreferenceTrainer(
            tiny_model() if model is None else model,
            pairs(24) if data is None else data,
            objective=objective,
            processing_class=tiny_tokenizer(),
            **{**defaults, **settings},
        )

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    forks = Forks("tests.training.processes", tmp_path_factory.mktemp("logs"))
    yield Trainings(forks)
    forks.close()
