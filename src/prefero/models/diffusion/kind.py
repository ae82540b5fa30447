"""Diffusion and flow models as a kind: options, and pairs of images scored by the errors of a denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, Literal, Self

import torch
from accelerate import PartialState
from peft import PeftModel
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from prefero.data.chat import Writing
from prefero.data.examples import Example, Examples, Text
from prefero.data.formats import load_examples
from prefero.data.pictures import Picture
from prefero.data.schema import SCHEMA
from prefero.errors import PreferoError
from prefero.models.diffusion.conditions import Scene, family_of
from prefero.models.diffusion.data import (
    IMAGES_AT_ONCE,
    Encoding,
    PictureDataset,
    PictureItem,
    fitted,
    prepare,
)
from prefero.models.diffusion.drawing import address, sampled
from prefero.models.diffusion.process import pseudo_huber, shrinks, squared_error
from prefero.models.diffusion.scoring import (
    Denoiser,
    DiffusionAdapter,
    Images,
    NoisyRow,
    NoisyStates,
    Times,
    Weight,
    joined,
    mapped,
    uniform,
)
from prefero.models.diffusion.source import DenoiserSource, LoadedDenoiser, bare, loaded, write_lora
from prefero.models.kind import (
    Batching,
    Dataset,
    Kind,
    PackedBatching,
    PackingChoice,
    PlainAnswer,
    Reading,
    parsed,
)
from prefero.models.loading import ModelSource, zero_dropout
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, signals_of
from prefero.objectives.signals import DENOISERS


class DiffusionOptions(BaseModel):
    """``model.options`` of a recipe.

    ``scale``, ``reduce``, ``weight`` and ``error`` say what stands for a log-probability: minus ``scale``
    ω(λ) times the error, a mean or a sum over elements. Methods made for denoisers have β for the plain mean
    (their default); others want a ``scale`` of some thousands. ``draws`` time steps are drawn for each image,
    with ``noise_per`` example or image. ``pipeline`` is where the autoencoder and the text encoders are, if
    not with the model; ``latents`` are the autoencoder's mean or a seeded sample. ``guidance`` is what a
    distilled model is told, ``sample_steps`` how many steps the report's images take.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    draws: int = Field(default=1, ge=1)
    noise_per: Literal["example", "response"] = "example"
    times: Times | None = None
    scale: float = Field(default=1.0, gt=0)
    reduce: Literal["mean", "sum"] = "mean"
    weight: Literal["uniform", "snr", "min_snr"] = "uniform"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    error: Literal["squared", "pseudo_huber"] = "squared"
    scheduler: str | dict[str, Any] | None = None
    pipeline: str | None = None
    variant: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    latents: Literal["mean", "sample"] = "mean"
    guidance: float = Field(default=3.5, ge=0)
    sample_steps: int = Field(default=20, ge=1)

    def omega(self) -> Weight:
        """ω of log signal-to-noise ratios; min(snr, γ)/snr is Hang et al.'s (2023, arXiv 2303.09556)."""
        match self.weight:
            case "uniform":
                return uniform
            case "snr":
                return Tensor.exp
            case "min_snr":
                return lambda log_snr: (self.min_snr_gamma * (-log_snr).exp()).clamp(max=1)


NUMBERS_AT_ONCE = 1 << 18
"""The numbers of a row by default: 16 images of Stable Diffusion's at 512 pixels."""


class Diffusion(Kind[PictureItem, NoisyRow]):
    """A denoiser of diffusers: U-Nets and transformers, on pixels or latents, for diffusions and flows."""

    name = "diffusion"
    samples_are_text = False
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    redrawn = "noise and time steps of a diffusion model are drawn again in every epoch"

    def __init__(self, parts: DenoiserSource | LoadedDenoiser, options: DiffusionOptions) -> None:
        self.parts, self.options = parts, options
        self.processor, self.model_name = parts.scheduler, parts.name
        self.family = family_of(parts.config)
        self.adapter = DiffusionAdapter.of(
            parts.scheduler,
            weight=options.omega(),
            scale=options.scale,
            reduce=options.reduce,
            error=squared_error if options.error == "squared" else pseudo_huber,
        )
        flows = self.adapter.process.prediction == "flow"
        self.states = frozenset({"forward noise", "flow"} if flows else {"forward noise"})

    @classmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        """``processor`` is the scheduler or the pipeline of a loaded model."""
        chosen = parsed(DiffusionOptions, options, cls.name)
        if not isinstance(model, ModelSource):
            return cls(LoadedDenoiser(model, processor, scheduler=chosen.scheduler), chosen)
        parts = DenoiserSource(
            model, scheduler=chosen.scheduler, pipeline=chosen.pipeline, variant=chosen.variant
        )
        return cls(parts, chosen)

    @property
    def scene(self) -> Scene:
        parts = self.parts
        return Scene(parts.pipeline, parts.config, self.resolution, self.options.guidance)

    @property
    def resolution(self) -> int:
        """The number of pixels along the sides of images."""
        own, shrinks = self.parts.config.get("sample_size"), self._shrinks
        side = self.options.resolution or (own * shrinks if isinstance(own, int) else None)
        if side is None or side % shrinks:
            problem = "its configuration says not how large images are" if side is None else f"{side} pixels"
            raise PreferoError(
                f"{self.model_name or self.parts.config['_class_name']}: {problem}; name a number of pixels "
                f"that {shrinks} divides with model.options.resolution"
            )
        return side

    @property
    def _shrinks(self) -> int:
        return 1 if self._autoencoder is None else shrinks(self._autoencoder)

    @property
    def _autoencoder(self) -> Any:
        return getattr(self.parts.pipeline, "vae", None)

    @property
    def _channels(self) -> int:
        return int(self.parts.config.get("in_channels", 3))

    # Data

    def check(self, needs: Needs) -> None:
        super().check(needs)
        unknown = {signal.name for signal in signals_of(needs)} - set(DENOISERS)
        if unknown:
            raise PreferoError(
                f"a diffusion model has no signal {sorted(unknown)[0]!r}; there are {', '.join(DENOISERS)}"
            )
        for name in sorted(needs.columns):
            if SCHEMA[name].axes == "example response token" and not SCHEMA[name].drawn:
                raise PreferoError(
                    f"the objective reads {name!r} of tokens of text, which images do not have: the tokens "
                    "of a diffusion model are time steps"
                )

    def read(self, source: Any, needs: Needs, reading: Reading) -> PictureDataset:
        if isinstance(source, PictureDataset):
            if source.roles != needs.roles:
                raise PreferoError(
                    f"the images were prepared for {source.roles or 'lists'}, but {reading.method} reads "
                    f"{needs.roles or 'lists'}: give the examples themselves"
                )
            return source
        examples = source if isinstance(source, Examples) else load_examples(source, split=reading.split)
        options = self.options
        encoding = Encoding(self.scene, self._channels, options.latents, options.draws, reading.seed)
        self._move(PartialState().device)
        try:
            return prepare(examples, needs, encoding, reading.method)
        finally:
            self._move("cpu")

    def _move(self, device: torch.device | str) -> None:
        """The autoencoder and the text encoders, which are needed only now and then."""
        for name, part in getattr(self.parts.pipeline, "components", {}).items():
            if isinstance(part, nn.Module) and name not in ("unet", "transformer"):
                part.to(device).eval()

    def batching(self, data: Dataset[PictureItem], packing: str) -> Batching:
        return PackedBatching(
            [item.draws * (len(item.values) + sum(len(at) for _, at in item.views.values())) for item in data]
        )

    def budget(self, packing: str, device: torch.device) -> int:
        """In noisy images."""
        vae = self._autoencoder
        channels = self._channels if vae is None else vae.config.latent_channels
        return max(2, NUMBERS_AT_ONCE // (channels * (self.resolution // self._shrinks) ** 2))

    def collate(self, items: Sequence[PictureItem], seeds: Sequence[int]) -> NoisyRow:
        drawn = [self._drawn(item, seed) for item, seed in zip(items, seeds, strict=True)]
        return NoisyRow({view: joined([one[view] for one in drawn]) for view in drawn[0]})

    def _drawn(self, item: PictureItem, seed: int) -> dict[str, NoisyStates]:
        """The noisy states of one item; a response has the same noise in every view."""
        every = {"": (item.values, tuple(range(len(item.values)))), **item.views}
        found = {}
        for view, (values, places) in every.items():
            states = self.adapter.draw(
                Images(values[None], mapped(item.conditions[view], lambda value: value[None])),
                torch.Generator().manual_seed(seed),
                tokens=item.draws,
                times=self.options.times,
                noise_per=self.options.noise_per,
            )
            at = list(places)
            found[view] = NoisyStates(
                Images(values[None, at], states.images.conditions),
                states.index[:, at],
                states.states[:, at],
                states.targets[:, at],
            )
        return found

    # Models

    def load(self) -> nn.Module:
        return self.parts.load()

    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        kept_in: Any = str(dtype).removeprefix("torch.")
        model = loaded(ModelSource(name, dtype=kept_in))
        self.adapt(model)
        return model

    def adapt(self, model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False) -> str:
        if packing not in ("auto", "padded"):
            raise PreferoError(f"layout {packing!r} is for language models: images stand side by side")
        if not keep_dropout:
            zero_dropout(model)
        inner = bare(model)
        inner.activation_checkpointing_enable = MethodType(recompute, inner)
        return "images"

    def score(
        self,
        model: nn.Module,
        inputs: NoisyRow,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        policy = self._called(model)
        second = {name: self._second(other) for name, other in (others or {}).items()}
        return inputs.parted(self.adapter.score(policy, inputs.whole, second))

    def _called(self, model: nn.Module) -> Denoiser:
        """The model as adapters call denoisers, on what its weights can be multiplied with."""
        dtype = bare(model).dtype
        denoiser = self.family.call(self.scene, model)

        def called(given: Tensor, timestep: Tensor, **conditions: Any) -> Any:
            fitting = mapped(
                conditions, lambda value: value.to(dtype) if value.is_floating_point() else value
            )
            return denoiser(given.to(dtype), timestep=timestep, **fitting)

        return called

    def _second(self, other: nn.Module | SecondModel) -> Denoiser:
        second = other if isinstance(other, SecondModel) else SecondModel(other)
        denoiser = self._called(second.model)

        def called(*given: Any, **told: Any) -> Any:
            with second.context():
                return denoiser(*given, **told)

        return called

    def masks(self, inputs: NoisyRow) -> dict[str, Tensor]:
        return {
            view: states.images.present[:, :, None].expand(states.index.shape)
            for view, states in inputs.views.items()
        }

    def save_beside(self, model: nn.Module, folder: Path) -> None:
        """Adapters as a pipeline's ``load_lora_weights`` reads them."""
        if isinstance(model, PeftModel) and hasattr(self.parts.pipeline, "save_lora_weights"):
            write_lora(model, self.parts.pipeline, folder)

    # Samples

    def sampling(self, max_length: int | None, **options: Any) -> str:
        size = f"{self.resolution} × {self.resolution} pixels"
        return f"drawn in {self.options.sample_steps} steps, {size}, with the same noise each time"

    def prompts(
        self, examples: Sequence[Example], count: int, max_length: int | None, **options: Any
    ) -> list[str]:
        found = dict.fromkeys(example.prompt for example in examples if isinstance(example.prompt, str))
        return list(found)[:count]

    def sample(
        self, model: nn.Module, prompts: Sequence[str], seed: int, max_length: int | None, **options: Any
    ) -> list[dict[str, str]]:
        return [{"image": address(image)} for image in self.images(model, prompts, seed)]

    def images(self, model: nn.Module, prompts: Sequence[str], seed: int) -> list[Image.Image]:
        """An image to each prompt, whose noise depends on the seed and its place among the prompts."""
        called, steps = self._called(model), self.options.sample_steps
        self._move(next(model.parameters()).device)
        try:
            return [
                image
                for start in range(0, len(prompts), IMAGES_AT_ONCE)
                for image in sampled(
                    called,
                    model,
                    self.scene,
                    self.processor,
                    prompts[start : start + IMAGES_AT_ONCE],
                    seed + start,
                    steps,
                )
            ]
        finally:
            self._move("cpu")

    def respond(
        self,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        *,
        seed: int,
        count: int = 1,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        writing: Writing | None = None,
    ) -> list[PlainAnswer]:
        if max_new_tokens is not None or temperature != 1:
            raise PreferoError(
                f"a longest response and a temperature are settings of text, which a model of kind "
                f"{self.name} does not draw: leave --max-new-tokens and --temperature out"
            )
        told = [_caption(prompt) for prompt in prompts for _ in range(count)]
        return [PlainAnswer(image) for image in self.images(model, told, seed)]

    def shown(self, picture: Picture) -> Image.Image:
        """The middle of the image, as training reads it."""
        mode = Encoding(self.scene, self._channels).mode
        return fitted(picture.open(mode), self.resolution)


def _caption(prompt: Text | Example) -> str:
    """Raise :class:`PreferoError` for a prompt that is no text."""
    asked = prompt.prompt if isinstance(prompt, Example) else prompt
    if not isinstance(asked, str):
        raise PreferoError(
            f"a diffusion model draws to a caption, and the prompt {str(asked)[:80]} is a conversation"
        )
    return asked


def recompute(
    model: Any,
    activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
    every_n_layers: int = 1,
    offload: bool = False,
) -> None:
    """Turn on diffusers' own activation checkpointing, by the name under which a trainer looks for it. Raises
    :class:`PreferoError` for options."""
    if activation_checkpointing_kwargs or every_n_layers != 1 or offload:
        raise PreferoError("activation checkpointing of diffusion models has no options")
    model.enable_gradient_checkpointing()
