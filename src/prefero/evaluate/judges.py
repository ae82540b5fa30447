"""Judges of responses: a function, a reward model, or the reward that a run learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.data.chat import Writing, as_messages, in_one_text
from prefero.data.examples import Example, Examples, Response, Text
from prefero.data.packing import next_fit
from prefero.data.render import Renderers, ending_of
from prefero.data.schema import SCHEMA
from prefero.errors import PreferoError
from prefero.evaluate.functions import function_judge
from prefero.evaluate.reading import RunReading
from prefero.evaluate.win_rate import BothOrders
from prefero.generate.sampling import as_examples
from prefero.models.kind import Kind, Reading
from prefero.models.loading import ModelSource, first_line, kind_of
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import Objective, primary
from prefero.objectives.configurations import from_config
from prefero.objectives.heads import Fitted
from prefero.objectives.needs import dry_run, model_names
from prefero.objectives.presets.preference_heads import PairScore
from prefero.objectives.quantities import Map, Quantity
from prefero.objectives.reductions import Term
from prefero.training.batches import Collator, Draw
from prefero.training.checkpoints import load_objective
from prefero.training.run_folder import need_model, record_of
from prefero.training.step import Scorer


class ScoringJudge(Protocol):
    """A judge that scores responses, each to its prompt; higher is better."""

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]: ...


def judge_named(name: str) -> ScoringJudge | BothOrders:
    """The judge called ``module:function``, or the folder (or hub name) of a model.

    A function of two arguments scores (prompt, response); one of three, (prompt, first, second), gives the
    probability that the first is preferred, and is asked in both orders; one with a parameter
    ``completions`` is called with lists, as TRL calls reward functions. The folder of a run stands for the
    reward that it learned, or the preference between two responses if it is a general preference model. Any
    other model is a reward model, a sequence classifier with one label.

    Raises:
        PreferoError: there is no such function or model, or it is no judge.
    """
    module, colon, _ = name.partition(":")
    folder = Path(name)
    if module.endswith(".py") or (colon and not folder.exists() and "/" not in name):
        return function_judge(name)
    if (folder / "run.json").is_file():
        return learned_reward(folder)
    return RewardModel.load(name)


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A sequence classifier with one label, whose logit is the score. Conversations, and plain text too where
    the tokenizer has a chat template, are rendered with it; text that holds the template's marks is followed
    by the response as it is. A prompt may be an example, whose tools and template options are read too."""

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

    def __call__(self, prompts: Sequence[Text | Example], responses: Sequence[str]) -> list[float]:
        tokenizer, model = self.tokenizer, self.model
        read = [self._ids(*both) for both in zip(prompts, responses, strict=True)]
        order = sorted(range(len(read)), key=lambda index: len(read[index]))
        model.eval()
        device = next(model.parameters()).device
        scores = [0.0] * len(read)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            batch = tokenizer.pad({"input_ids": [read[index] for index in some]}, return_tensors="pt")
            with torch.no_grad():
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
                logits = model(**inputs).logits[:, 0].float()
            for index, score in zip(some, logits.tolist(), strict=True):
                scores[index] = score
        return scores

    def _ids(self, asked: Text | Example, response: str) -> list[int]:
        example = answered(asked, response)
        prompt = example.prompt
        renderers = Renderers(self.tokenizer)
        if renderers.of(example) is renderers.text:
            assert isinstance(prompt, str)
            return self.tokenizer(prompt + response, truncation=True)["input_ids"]
        turns = [*map(dict, as_messages(prompt, "user")), {"role": "assistant", "content": response}]
        if ending_of(prompt, example.responses) == "continued":
            begun = in_one_text(turns[-2])["content"] or ""
            turns[-2:] = [{**turns[-2], "content": f"{begun}{response}"}]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, tools=list(example.tools) or None, **example.template_options
            )
        except ValueError as error:
            raise PreferoError(f"the reward model reads no conversations: {first_line(error)}") from None
        return self.tokenizer(text, truncation=True, add_special_tokens=False)["input_ids"]


@dataclass(frozen=True, slots=True)
class LearnedReward:
    """The reward of an objective: a head's, or a multiple of log π − log π_ref. Texts are read as ``reading``
    says. A prompt may be an example, whose tools and template options are read too."""

    objective: Objective
    policy: nn.Module
    tokenizer: Any
    models: Mapping[str, nn.Module]
    reading: RunReading = field(default_factory=RunReading)

    def __call__(self, prompts: Sequence[Text | Example], responses: Sequence[str]) -> list[float]:
        examples = [
            replace(answered(prompt, text), origin=f"response {index + 1}")
            for index, (prompt, text) in enumerate(zip(prompts, responses, strict=True))
        ]
        return [float(of_example[0]) for of_example in self.of(examples)]

    def of(self, examples: Sequence[Example]) -> list[Float[Tensor, " response"]]:
        """The rewards of the responses of every example."""
        return rewards(
            self.objective,
            self.policy,
            examples,
            self.tokenizer,
            models=self.models,
            max_length=self.reading.max_length,
            writing=self.reading.writing,
        )


@dataclass(frozen=True, slots=True)
class LearnedPreference:
    """The preference between two responses that a general preference model learned, which need not follow
    from scores of each: σ of its margin, and ½ for two equal ones."""

    learned: LearnedReward

    def __call__(self, prompt: Text | Example, first: str, second: str) -> float:
        if first == second:
            return 0.5
        example = answered(prompt, first, second, roles=("chosen", "rejected"))
        ((reward, other),) = self.learned.of([replace(example, origin="a comparison")])
        return float((reward - other).sigmoid())


def _learned(objective: Objective) -> type[LearnedReward] | type[LearnedPreference]:
    """The judge that an objective teaches. Raises :class:`PreferoError` for one whose reward needs more than
    a prompt and a response."""
    compared = primary(objective)
    name = objective.key or "the objective"
    if compared is None:
        raise PreferoError(f"{name} compares no rewards of responses, so its run is no judge")
    if any(isinstance(module, PairScore) for module in compared.modules()):
        return LearnedPreference
    needs = dry_run(_Reading(own_reward(compared.reward, name)))
    read = [f"which response is {' and which '.join(needs.roles)}"] if needs.roles else []
    read += [f"the column {name!r}" for name in sorted(needs.columns) if not SCHEMA[name].drawn]
    if read:
        raise PreferoError(
            f"a run of {name} is no judge: its reward of a response depends on {' and '.join(read)}, which "
            "nothing says of a new response. Judge by another run, such as dpo's, or by a reward model"
        )
    return LearnedReward


def learned_reward(folder: Path) -> LearnedReward | BothOrders:
    """The reward that the run in ``folder`` learned, or the preference if it is no reward's, against the
    run's reference, of texts that are read as in its training. Raises :class:`PreferoError` if there is no
    model or no reward of a new response, or the reference was not a fixed model."""
    record, model = record_of(folder), need_model(folder)
    if (record.get("model") or {}).get("kind") == "diffusion":
        raise PreferoError(
            f"{folder} is no judge: its model draws images, and its reward is an error over drawn noise, "
            "which is another one each time. Give a function of (prompt, image), --judge module:function"
        )
    config = record.get("config") or {}
    if "objective" not in config:
        raise _objects(folder, "objective")
    objective = from_config(config["objective"])
    judge = _learned(objective)
    # the weights of a head are made when it meets a model, so that it has none yet
    if objective.state_dict() or any(isinstance(module, Fitted) for module in objective.modules()):
        objective = load_objective(model)
    served = record.get("references") or {}
    added = config.get("model", {}).get("add_tokens") or []
    others = {}
    for name in sorted(model_names(dry_run(objective))):
        if served.get(name) in ("moving", "trained"):
            raise PreferoError(
                f"{folder} is no judge: its {name} was a model that changed during training, and was not kept"
            )
        others[name] = ModelSource(_reference(folder, config, name), add_tokens=added).load()
    source = ModelSource(str(model))
    reward = LearnedReward(
        objective, source.load(), source.processor(), others, RunReading.of(folder) or RunReading()
    )
    return reward if judge is LearnedReward else BothOrders(LearnedPreference(reward))


def _reference(folder: Path, config: Mapping[str, Any], name: str) -> str:
    section = config.get("reference") if name == "reference" else config.get("models", {}).get(name, {})
    if section is None:
        raise _objects(folder, name)
    model = section.get("model") or config.get("model", {}).get("name")
    if model is None:
        raise _objects(folder, "model")
    base = ModelSource(model).base if section.get("kind") == "adapters_off" else None
    return model if base is None else base.name


def _objects(folder: Path, what: str) -> PreferoError:
    return PreferoError(
        f"{folder}: the run was made in Python with an object as its {what}, so its objective and reference "
        f"are not known: give the trainer the {what} by name, or give prefero.evaluate.LearnedReward its "
        "objective and models"
    )


def answered(asked: Text | Example, *texts: str, roles: Sequence[str | None] = (None,)) -> Example:
    """The prompt with other responses, in the form of those that it has: texts, or turns of the assistant."""
    (example,) = as_examples([asked])
    written = all(isinstance(response.content, str) for response in example.responses)
    responses = tuple(
        Response(text if written else ({"role": "assistant", "content": text},), role)
        for text, role in zip(texts, roles, strict=True)
    )
    return Example(
        example.prompt,
        responses,
        tools=example.tools,
        origin=example.origin,
        template_options=example.template_options,
        images=example.images,
    )


def reads_examples(judge: ScoringJudge | BothOrders) -> bool:
    """Whether a judge reads all of a prompt's example; functions read the prompt itself."""
    asked = judge.judge if isinstance(judge, BothOrders) else judge
    return isinstance(asked, RewardModel | LearnedReward | LearnedPreference)


def rewards(
    objective: Objective,
    model: nn.Module,
    examples: Sequence[Example],
    processor: Any,
    *,
    models: Mapping[str, nn.Module] | None = None,
    max_length: int | None = None,
    writing: Writing | None = None,
    tokens_per_row: int = 4096,
) -> list[Float[Tensor, " response"]]:
    """The reward that a method learned, for every response of every example.

    With a head it is the head's: ::

        objective = prefero.load_objective("runs/dph/model")
        best = rewards(objective, model, examples, tokenizer)[0].argmax()

    Without one it is usually a multiple of the log-ratio to ``models["reference"]``. Arguments as for
    :func:`values`.

    Raises:
        PreferoError: as :func:`values` does, and for an objective that compares no rewards.
    """
    compared = primary(objective)
    if compared is None:
        raise PreferoError(f"{objective.key or 'the objective'} compares no rewards of responses")
    return values(
        own_reward(compared.reward, objective.key or "the objective"),
        model,
        examples,
        processor,
        models=models,
        max_length=max_length,
        writing=writing,
        tokens_per_row=tokens_per_row,
    )


def values(
    quantity: Quantity,
    model: nn.Module,
    examples: Sequence[Example],
    processor: Any,
    *,
    models: Mapping[str, nn.Module] | None = None,
    max_length: int | None = None,
    writing: Writing | None = None,
    tokens_per_row: int = 4096,
) -> list[Float[Tensor, "response *rest"]]:
    """The values of a quantity for the responses of each example, in their order, without gradient.

    Responses are tokenised as in training, with the end token, where the state of a whole response is read.
    The quantity moves to the model's device. A quantity that addresses roles needs examples that have them.

    Args:
        quantity: a number (or vector) for every response, such as an objective's reward, or for every token.
        model: the policy.
        models: other models that the quantity reads, by name.
        processor: its tokenizer, or the processor of its kind.
        max_length: most tokens of a prompt with its response, by default as in training.
        writing: the chat template and its arguments; by default the tokenizer's own.
        tokens_per_row: most tokens of one forward pass.

    Raises:
        PreferoError: a model or an annotation that the quantity reads is missing.
    """
    needs, others = dry_run(_Reading(quantity)), dict(models or {})
    if missing := model_names(needs) - set(others):
        raise PreferoError(
            f"the quantity reads {' and '.join(sorted(missing))}, besides the policy: give it in "
            f"models={{{', '.join(f'{name!r}: …' for name in sorted(missing))}}}"
        )
    kind = kind_of("auto", model, processor)
    kind.check(needs)
    reading = Reading(max_length=max_length, too_long="keep_recent_prompt", writing=writing or Writing())
    data = kind.read(Examples(examples), needs, reading)
    if len(data) < len(examples):
        raise PreferoError(f"not every example has a value: {' '.join(data.summary.notes)}")
    batching = kind.batching(data, kind.adapt(model))
    device = next(model.parameters()).device
    scorer = Scorer(kind, needs, {name: _Given(kind, others[name]) for name in model_names(needs)})
    collate = Collator(kind, needs.columns, views=needs.views)
    by_example: dict[int, Tensor] = {}
    modules = [model, *others.values(), quantity.to(device)]
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        costs = [batching.cost([index]) for index in range(len(data))]
        for members in next_fit(range(len(data)), costs, tokens_per_row):
            batch = collate([(Draw(index, 0), data[index]) for index in members]).to(device)
            with torch.no_grad():
                numbers = quantity(scorer(model, batch)).cpu()
            for place, index in enumerate(members):
                by_example[index] = numbers[place, : len(data[index].lengths)]
    finally:
        for module, was_training in zip(modules, training, strict=True):
            module.train(was_training)
    return [by_example[index] for index in range(len(data))]


def own_reward(reward: Quantity, name: str) -> Quantity:
    """The part of a reward that a response has by itself: without a baseline over the batch that is taken
    from all of them alike, such as KTO's, so that a score is the same in every batch. Raises
    :class:`PreferoError` for a reward that reads the batch otherwise."""
    while isinstance(reward, Map) and reward.function is torch.sub:
        own, baseline = cast("tuple[Quantity, Quantity]", tuple(reward.arguments))
        if not _reads_batch(baseline):
            break
        reward = own
    if _reads_batch(reward):
        raise PreferoError(
            f"the reward of {name} depends on the other responses of its batch, so a score of one response "
            "means nothing: judge by another run, such as dpo's, or by a reward model"
        )
    return reward


def _reads_batch(quantity: Quantity) -> bool:
    return any(getattr(module, "whole_step", False) for module in quantity.modules())


class _Reading(Objective):
    """An objective that only touches what a quantity reads."""

    def __init__(self, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        self.quantity(batch)
        return []


@dataclass(frozen=True)
class _Given:
    """A model that is scored as it is."""

    kind: Kind
    model: nn.Module

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)
