"""Judges by name: a function, a reward model, or the reward that a run learned."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from prefero.data.examples import Text
from prefero.errors import PreferoError, nearest
from prefero.evaluate.win_rate import BothOrders
from prefero.models.loading import ModelSource, first_line


class Scorer(Protocol):
    """Scores many responses, one to a prompt each; higher is better."""

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class ByFunction:
    """A function (prompt, response) → score."""

    function: Callable[[Text, str], float]

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        return [float(self.function(*one)) for one in zip(prompts, responses, strict=True)]


def judge_named(name: str) -> Scorer | BothOrders:
    """What judges: ``module:function`` or a folder (or hub name) of a model.

    A function of two arguments scores (prompt, response); one of three, (prompt, first, second), gives the
    probability that the first is preferred, and is asked in both orders. A folder with a ``run.json`` is a
    run, whose reward judges: the implicit one, or its learned head's. Any other model is a reward model, a
    sequence classifier with one label.

    Raises:
        PreferoError: there is no such function or model, or it is no judge.
    """
    module, colon, function = name.partition(":")
    if colon and not Path(name).exists() and "/" not in name:
        return _function(module, function)
    folder = Path(name)
    if (folder / "run.json").is_file():
        from prefero.evaluate.learned_reward import learned_reward

        return learned_reward(folder)
    return RewardModel.load(name)


def _function(module: str, name: str) -> ByFunction | BothOrders:
    sys.path.insert(0, "")  # modules of the folder one is in, as python -m finds them
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise PreferoError(f"the judge's module {module!r} cannot be imported: {error}") from None
    finally:
        sys.path.remove("")
    function = getattr(found, name, None)
    if not callable(function):
        raise PreferoError(f"{module} has no function {name!r}{nearest(name, vars(found))}")
    count = len(inspect.signature(function).parameters)
    if count == 2:
        return ByFunction(function)
    if count == 3:
        return BothOrders(function)
    raise PreferoError(
        f"{module}:{name} takes {count} arguments; a judge takes (prompt, response) and gives a score, or "
        "(prompt, first, second) and gives the probability that the first is preferred"
    )


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A sequence classifier with one label, whose logit is the score.

    Conversations are rendered with the tokenizer's chat template; a prompt that is text is followed by the
    response as it is.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 16

    @classmethod
    def load(cls, name: str) -> RewardModel:
        source = ModelSource(name)
        config = source.config()
        architecture = (getattr(config, "architectures", None) or ["none"])[0]
        if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
            raise PreferoError(
                f"{name} is no judge: a reward model is a sequence classifier with one label, this one is "
                f"{architecture} with {config.num_labels}. A judge may also be module:function, a run's "
                "folder, or a file of judgements."
            )
        return cls(source.load("AutoModelForSequenceClassification", "reward model"), source.processor())

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        texts = [self._text(*one) for one in zip(prompts, responses, strict=True)]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        self.model.eval()
        device = next(self.model.parameters()).device
        scores = [0.0] * len(texts)
        tokenizer, model = self.tokenizer, self.model
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            batch = tokenizer(
                [texts[place] for place in some],
                return_tensors="pt",
                padding=True,
                truncation=True,
                add_special_tokens=isinstance(prompts[some[0]], str),
            )
            with torch.no_grad():
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
                logits = model(**inputs).logits[:, 0].float()
            for place, score in zip(some, logits.tolist(), strict=True):
                scores[place] = score
        return scores

    def _text(self, prompt: Text, response: str) -> str:
        if isinstance(prompt, str):
            return prompt + response
        turns = [*map(dict, prompt), {"role": "assistant", "content": response}]
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False)
        except ValueError as error:
            raise PreferoError(f"the reward model reads no conversations: {first_line(error)}") from None
