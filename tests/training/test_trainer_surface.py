"""What prefero overrides and uses of transformers' Trainer is listed, and is there."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments

from prefero.errors import PreferoError
from prefero.training import trainer_surface
from prefero.training.resuming import ResumingTrainer
from prefero.training.trainer import PreferenceTrainer
from prefero.training.trainer_surface import ATTRIBUTES, OVERRIDDEN, differences, require_surface

pytestmark = pytest.mark.oldest

OWN = (ResumingTrainer, PreferenceTrainer)

ANOTHER_MEANING = {"objective"}
"""Set by the backends of ``Trainer.hyperparameter_search`` alone, which prefero's trainer does not call."""


def test_the_installed_transformers_has_it_all() -> None:
    assert not list(differences(PreferenceTrainer))
    require_surface(PreferenceTrainer)


def test_every_override_is_listed() -> None:
    """One that is not is an accident: a method of our own under a name that transformers has too."""
    both = {
        name
        for own in OWN
        for name, value in vars(own).items()
        if callable(value) and not name.startswith("__") and hasattr(Trainer, name)
    }
    assert both == set(OVERRIDDEN)


def attributes(source: type, context: type[ast.expr_context]) -> set[str]:
    """What the methods of a class read or set of ``self``."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(source)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        if isinstance(node.ctx, context)
    }


def test_every_attribute_is_listed() -> None:
    """An attribute of transformers' trainer that ours uses is an argument of it, or in the table."""
    theirs = attributes(Trainer, ast.Store) | {"loss_is_scaled_for_ga"}
    ours = {name for own in OWN for name in attributes(own, ast.expr_context) | set(vars(own))}
    given = set(inspect.signature(Trainer.__init__).parameters)
    assert (theirs & ours) - given - ANOTHER_MEANING == set(ATTRIBUTES)


class _Renamed(Trainer):
    _save_checkpoint: Any = None  # as if it were gone


class _Lost(Trainer):
    def get_batch_samples(self, epoch_iterator: Any, num_batches: int) -> Any:  # type: ignore[override]
        """Without ``device``."""


class _Gained(Trainer):
    def _prepare_inputs(self, inputs: Any, device: Any) -> Any:  # type: ignore[override]
        """With ``device``."""


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        (
            _Renamed,
            "transformers 9.0 has no Trainer._save_checkpoint, which prefero overrides to mark a checkpoint "
            "as whole last, and remove an older one only then",
        ),
        (_Lost, "transformers 9.0 has no parameter 'device' of Trainer.get_batch_samples, which prefero "),
        (
            _Gained,
            "transformers 9.0 has a parameter 'device' of Trainer._prepare_inputs that prefero ",
        ),
    ],
    ids=["gone", "lost a parameter", "gained a parameter"],
)
def test_a_release_that_differs_is_told_in_a_sentence(base: type, sentence: str) -> None:
    found = [
        one for one in differences(PreferenceTrainer, base, release="transformers 9.0") if sentence in one
    ]
    assert len(found) == 1


def test_an_attribute_that_nothing_reads_any_more() -> None:
    class Bare:
        pass

    found = list(differences(PreferenceTrainer, Bare, Bare, "transformers 9.0"))
    assert len(found) == len(OVERRIDDEN) + len(ATTRIBUTES) + 1
    assert (
        "transformers 9.0 has no Trainer.loss_is_scaled_for_ga, which prefero uses to keep a loss that is a "
        "share of the whole step from being divided again"
    ) in found


def test_nothing_is_trained_on_a_release_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trainer_surface.OVERRIDDEN, "_gone", "do what no release does")
    monkeypatch.setattr(PreferenceTrainer, "_gone", lambda self: None, raising=False)
    require_surface.cache_clear()
    with pytest.raises(PreferoError, match=r'no Trainer\._gone, .*: pip install "transformers'):
        PreferenceTrainer("no model", None)
    monkeypatch.undo()
    require_surface.cache_clear()


def test_arguments_are_those_of_transformers() -> None:
    assert not list(differences(PreferenceTrainer, Trainer, TrainingArguments))
