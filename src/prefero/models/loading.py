"""Loading and unwrapping: from a name to a model, to its kind, and to what is inside its wrappers.

A loaded model may be wrapped in PEFT adapters, data parallelism or compilation, and its weights may be
shards: the functions at the end of this file see through that.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
import transformers
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from prefero.errors import PreferoError, nearest
from prefero.hub import hub_access, without_hub
from prefero.models.kind import Kind
from prefero.models.weights import refuse_no_numbers, refuse_other_weights, unreadable_file
from prefero.sections import STRICT, Spec

KINDS: Mapping[str, str] = {
    "language": "prefero.models.causal.scoring:Language",
    "encoder_decoder": "prefero.models.encoder_decoder.kind:EncoderDecoder",
    "diffusion": "prefero.models.diffusion.kind:Diffusion",
    "discrete_diffusion": "prefero.models.discrete_diffusion.kind:DiscreteDiffusion",
    "tabular": "prefero.models.tabular.kind:Tabular",
    "vision_language": "prefero.models.vision_language.kind:VisionLanguage",
}
"""Where the class of each kind is; it is imported when it is asked for."""


MERGED = "base"
"""The folder of a run with the model that earlier adapters were merged into, where new ones are trained."""

PEFT_ASKS_BY_OLD_NAME = ".*is_gradient_checkpointing. is deprecated"
"""A warning of transformers about a name by which PEFT asks, and nobody else."""

# From a name to a model


def _pattern(targets: str | list[str] | None) -> str | list[str] | None:
    """The layers to train; a text is a pattern for their whole names. Raises :class:`ValueError`."""
    try:
        re.compile(targets if isinstance(targets, str) else "")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"it is no regular expression: {error}; names of layers are given as a list"
        ) from None
    return targets


@dataclass(frozen=True, config=STRICT)
class Lora(Spec):
    """Low-rank adapters (Hu et al., 2021) in place of full fine-tuning."""

    r: Annotated[int, Field(ge=1, le=10**6)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[str | list[str] | None, AfterValidator(_pattern)] = None
    modules_to_save: list[str] | None = None

    def config(self, kind: Kind, rows: Mapping[str, Any] = MappingProxyType({})) -> LoraConfig:
        """For PEFT, on the layers that are usual for the kind of model unless others are named. ``rows`` are
        of :func:`rows_of_tokens`; a module that is trained whole needs none."""
        whole = [*(self.modules_to_save or ()), *rows.get("modules_to_save", ())]
        indices = {
            name: ids
            for name, ids in rows.get("trainable_token_indices", {}).items()
            if not any(name.endswith(module) for module in whole)
        }
        targets = self.target_modules or kind.lora_targets
        return LoraConfig(
            task_type=kind.task_type,
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            modules_to_save=whole or None,
            trainable_token_indices=indices or None,
        )


def _lora(given: Any) -> Any:
    """Adapters by default for true, none for false; a number alone is refused with the key that it is for."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        raise ValueError(f"a number says nothing here: the rank is {{r: {given}}}, and true is the default")
    return ({} if given else None) if isinstance(given, bool) else given


@dataclass(frozen=True, config=STRICT)
class ModelSource(Spec):
    """A hub name or a folder, and how to load the model. ``kind`` is one of
    :data:`prefero.models.loading.KINDS`, by default what its configuration tells, and ``options`` are those
    of the kind. ``tokenizer`` is where its tokenizer or processor is, if elsewhere. ``dtype`` is what the
    weights are kept in. ``quantization`` is ``4bit`` (NF4) or ``8bit``, which needs bitsandbytes. ``lora``
    trains adapters in place of the weights; ``true`` is those by default. ``add_tokens`` are tokens that the
    tokenizer gets where it lacks them; their rows of the embeddings begin as the mean of the others, and are
    trained, with ``lora`` too.

    ``name`` may also be a folder (or hub name) of PEFT adapters, as a run with ``lora`` leaves it. Then
    ``adapter: continue``, the default, trains these adapters further on the model that they belong to, and
    ``adapter: merge`` adds them to its weights, of which all, or a new ``lora``, are trained.

    Every method raises :class:`PreferoError` for what is missing or is not what it should be.
    """

    name: str
    kind: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] = "float32"
    attention: Literal["sdpa", "eager", "flex_attention"] | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    lora: Annotated[Lora | None, BeforeValidator(_lora)] = None
    adapter: Literal["continue", "merge"] | None = None
    add_tokens: list[Annotated[str, Field(min_length=1)]] = field(default_factory=list)
    trust_remote_code: bool = False

    def config(self) -> Any:
        """Its configuration, as transformers has it."""
        if self.base is not None:
            try:
                config = self.base.config()
            except PreferoError as error:
                raise PreferoError(
                    f"{self.name!r} are adapters, whose adapter_config.json names a model that is not there "
                    f"(base_model_name_or_path): {error}"
                ) from None
        else:
            if (Path(self.name) / "comparison.json").is_file():
                raise PreferoError(
                    f"{self.name} holds several runs: name the model of one, such as {self.name}/RUN/model"
                )
            hint = "; a model is a folder with a config.json, or a name on the hub"
            config = self._from_pretrained("AutoConfig", "model", self.name, hint)
        text = config.get_text_config()
        ids = [*self._adapter_tokens, *self.new_tokens.values()]
        if ids and text.vocab_size <= max(ids):
            text.vocab_size = max(ids) + 1  # as the model is loaded
        return config

    def processor(self, loader: str = "AutoTokenizer") -> Any:
        """Its tokenizer or processor, by one of transformers' loaders, with the tokens to add."""
        processor = self._processor(loader)
        if self.new_tokens:
            getattr(processor, "tokenizer", processor).add_tokens(list(self.new_tokens))
        return processor

    @cached_property
    def new_tokens(self) -> Mapping[str, int]:
        """The tokens to add that its tokenizer lacks, and the ids that they get."""
        if not self.add_tokens:
            return {}
        tokenizer = self._processor("AutoTokenizer")
        known = tokenizer.get_vocab()
        tokenizer.add_tokens(self.add_tokens)
        added = [token for token in self.add_tokens if token not in known]
        new = {token: tokenizer.convert_tokens_to_ids(token) for token in added}
        if new and self.continues:
            raise PreferoError(
                f"{self.name!r} are adapters that are trained further, and their tokenizer lacks "
                f"{', '.join(map(repr, new))}: leave model.add_tokens out, or add the adapters to the "
                "weights first with model.adapter=merge"
            )
        return new

    def _processor(self, loader: str) -> Any:
        if self.base is not None and self.tokenizer is None and not _has_tokenizer(self.name, self.revision):
            return self.base.processor(loader)
        what = loader.removeprefix("Auto").lower()
        hint = "; name one with model.tokenizer"
        return self._from_pretrained(loader, what, self.tokenizer or self.name, hint)

    def load(self, loader: str = "AutoModelForCausalLM", what: str = "causal language model") -> nn.Module:
        """The model, by one of transformers' loaders; ``what`` names it in messages. Raises
        :class:`PreferoError` also for weights that are not those that its configuration asks for."""
        if self.base is None:
            model = self._whole(loader, what)
        else:
            model = self._with_adapter(self.base.load(loader, what))
        _add_rows(model, list(self.new_tokens.values()))
        return model

    def _whole(self, loader: str, what: str) -> nn.Module:
        if self.adapter is not None:
            raise PreferoError(
                f"model.adapter is {self.adapter}, but {self.name!r} is a whole model: it has no "
                "adapter_config.json. Name the folder of the adapters, or leave model.adapter out"
            )
        options: dict[str, Any] = {"dtype": self.dtype}
        if self.quantization is not None:
            options["quantization_config"] = _quantized(self.quantization)
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        # sizes that differ are refused below, with their names
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loaded = self._from_pretrained(loader, what, self.name, **options)
        refuse_other_weights(model, self.name, loaded)
        return model

    @cached_property
    def adapter_file(self) -> Path | None:
        """The configuration of the adapters of this name; None, where the name is a model's."""
        try:
            with hub_access(self.name):
                file = find_adapter_config_file(self.name, revision=self.revision)
        except (OSError, ValueError):
            return None  # loading it gives a better message
        return None if file is None else Path(file)

    @cached_property
    def base(self) -> ModelSource | None:
        """The model that the adapters of this name belong to; None, where the name is a model's."""
        file = self.adapter_file
        if file is None:
            return None
        config = _read_object(file)
        name = config.get("base_model_name_or_path")
        if not name or not isinstance(name, str):
            raise PreferoError(
                f"{file} does not say which model its adapters belong to: write the model's folder or hub "
                "name there, as base_model_name_or_path"
            )
        folder = file.parent
        merged = folder.parent / MERGED
        if Path(name).name == MERGED and merged.is_dir() and (folder.parent / "run.json").is_file():
            name = str(merged)  # the run's own, wherever its folder is by now
        elif not Path(name).is_dir() and (folder / name).is_dir():
            name = str(folder / name)
        below = replace(
            self, name=name, revision=config.get("revision"), lora=None, adapter=None, add_tokens=[]
        )
        try:
            return below if below.base is None else replace(below, adapter="merge")
        except RecursionError:
            raise PreferoError(
                f"{file} names a model (base_model_name_or_path) that is the adapters themselves, or belongs "
                "to them: write the folder or hub name of a whole model there"
            ) from None

    def on(self, base: str) -> ModelSource:
        """The adapters of this name on a model that is elsewhere by now than their configuration says."""
        below = replace(
            self, name=base, tokenizer=None, revision=None, lora=None, adapter=None, add_tokens=[]
        )
        moved = replace(self)
        moved.__dict__["base"] = below if below.base is None else replace(below, adapter="merge")
        return moved

    @cached_property
    def _adapter_tokens(self) -> Sequence[int]:
        """The ids of the tokens that the adapters of this name have rows for, and their base has not: rows of
        other tokens may be trained as well, and begin as what they are."""
        if self.base is None or self.adapter_file is None:
            return []
        rows = _read_object(self.adapter_file).get("trainable_token_indices") or []
        ids = {i for each in rows.values() for i in each} if isinstance(rows, dict) else set(rows)
        if ids and (self.base.tokenizer or _has_tokenizer(self.base.name, self.base.revision)):
            ids -= set(self.base.processor().get_vocab().values())
        return sorted(ids)

    @property
    def continues(self) -> bool:
        """Whether adapters that are there already are trained further."""
        return self.base is not None and self.adapter != "merge"

    def _with_adapter(self, model: nn.Module) -> nn.Module:
        """The base model with the adapters of this name: to be trained, or merged into its weights."""
        adapted = self.adapted(model)
        return adapted if self.continues else merged(adapted).requires_grad_(True)

    def adapted(self, model: nn.Module) -> Any:
        """The base model with the adapters of this name beside its weights."""
        if self.continues and self.lora is not None:
            raise PreferoError(
                f"{self.name!r} are adapters, which are trained further, and model.lora adds new ones: leave "
                "model.lora out, or add these to the weights first with model.adapter=merge"
            )
        if self.quantization is not None and not self.continues:
            raise PreferoError(
                "adapters cannot be merged into quantised weights without changing them: leave out "
                "model.quantization, or model.adapter=merge"
            )
        _add_rows(model, self._adapter_tokens)
        if self.quantization is not None:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        try:
            with warnings.catch_warnings(), hub_access(self.name):
                warnings.filterwarnings("error", "Found missing adapter keys")
                warnings.filterwarnings("ignore", PEFT_ASKS_BY_OLD_NAME, FutureWarning)
                adapted = PeftModel.from_pretrained(
                    model, self.name, is_trainable=self.continues, revision=self.revision
                )
        except Exception as error:  # PEFT and safetensors have one for every kind of damage
            folder = Path(self.name)
            told = " ".join(str(error).split())[:300]
            if away := without_hub(self.name, "adapters"):
                told = away
            elif folder.is_dir() and not list(folder.glob("adapter_model.*")):
                told = "the folder has no adapter_model.safetensors"
            elif file := unreadable_file(self.name, self.revision):
                told = f"the file {file} cannot be read, it ends early or is damaged ({told})"
            raise PreferoError(
                f"the adapters of {self.name!r} cannot be put on {self.base.name!r}: {told}"  # type: ignore[union-attr]
            ) from None
        refuse_no_numbers(adapted, self.name)
        scales = [
            scale for layer in adapter_layers(adapted) for scale in getattr(layer, "scaling", {}).values()
        ]
        if not all(map(math.isfinite, scales)):
            raise PreferoError(
                f"the adapters of {self.name!r} are multiplied by {scales[0]}: correct lora_alpha in their "
                "adapter_config.json"
            )
        return adapted

    def _from_pretrained(self, loader: str, what: str, name: str, hint: str = "", **options: Any) -> Any:
        options |= {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        try:
            with hub_access(name):
                return getattr(transformers, loader).from_pretrained(name, **options)
        except Exception as error:  # of every kind: transformers checks little, and tokenizers names none
            if file := unreadable_file(name, self.revision):
                raise PreferoError(
                    f"the file {file} cannot be read: it ends early or is damaged ({first_line(error)}). "
                    "Copy it again"
                ) from None
            away = without_hub(name, what) if isinstance(error, OSError) else ""
            reason = _no_model_here(name) or away or f"{first_line(error).rstrip('.')}{hint}"
            raise PreferoError(f"no {what} can be loaded from {name!r}: {reason}") from None


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model. Raises :class:`PreferoError` where it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PreferoError(f"{file} cannot be read: {first_line(error)}. Copy it again") from None
    if not isinstance(content, dict):
        raise PreferoError(f"{file} holds no JSON object. Copy it again")
    return content


def _no_model_here(name: str) -> str:
    """Why a path is no model's, where the path itself tells; else nothing."""
    path = Path(name).expanduser()
    inner = [path / "model" / file for file in ("config.json", "adapter_config.json", "model_index.json")]
    if any(file.is_file() for file in inner):
        return f"it is the folder of a run, whose model is {path / 'model'}"
    if path.exists() or not (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        return ""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no such folder{nearest(path.name, beside)}"


@torch.no_grad()
def _add_rows(model: nn.Module, ids: Sequence[int]) -> None:
    """Give the embeddings of a model rows for new tokens, which are the mean of the rows that there are; the
    same rows each time. Raises :class:`PreferoError` for a model without embeddings of tokens."""
    if not ids:
        return
    if not isinstance(model, PreTrainedModel):
        raise PreferoError(f"model.add_tokens: {type(model).__name__} has no embeddings of tokens")
    inner: Any = model
    embeddings = [each for each in (inner.get_input_embeddings(), inner.get_output_embeddings()) if each]
    rows = len(embeddings[0].weight)
    if max(ids) >= rows:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.resize_token_embeddings(max(ids) + 1)
    spare = [i for i in ids if i < rows]  # of a table that is longer than the tokenizer
    for each in embeddings if spare else ():
        each.weight[spare] = each.weight[: min(ids)].mean(0)


def merged(adapted: Any) -> Any:
    """The model with its PEFT adapters added to its weights. Embeddings and a head that share their weights
    have weights of their own then, if there are adapters on one of them, which would change both."""
    model = adapted.get_base_model()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [each for each in (embedding, head) if isinstance(each, BaseTunerLayer)]
    if layers and head is not None and head.weight is embedding.weight:
        inner: Any = BaseTunerLayer.get_base_layer(head) if head in layers else head
        inner.weight = nn.Parameter(inner.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    return adapted.merge_and_unload()


def rows_of_tokens(model: nn.Module, ids: Sequence[int]) -> dict[str, Any]:
    """The arguments of a PEFT configuration that train the rows of some tokens beside its adapters: those of
    the embeddings, and of a head that is not tied to them, whole where it has a bias, which PEFT's rows would
    drop."""
    if not ids:
        return {}
    inner: Any = unwrapped(model)
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    names = {id(module): name for name, module in inner.named_modules()}
    trained = {"trainable_token_indices": {names[id(embedding)]: list(ids)}}
    if head is None or head.weight is embedding.weight:
        return trained
    if getattr(head, "bias", None) is not None:
        return trained | {"modules_to_save": [names[id(head)]]}
    trained["trainable_token_indices"][names[id(head)]] = list(ids)
    return trained


def _has_tokenizer(name: str, revision: str | None) -> bool:
    """Whether a folder or hub name has a tokenizer of its own; adapters alone have none."""
    quiet = {
        f"_raise_exceptions_for_{absence}": False for absence in ("missing_entries", "connection_errors")
    }
    with hub_access(name):
        return any(
            cached_file(name, file, revision=revision, **quiet)
            for file in ("tokenizer_config.json", "tokenizer.json")
        )


def _quantized(bits: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PreferoError(
            f"model.quantization={bits} needs bitsandbytes: pip install 'prefero[quantization]'"
        )
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# From a model to its kind


def kind_of(
    kind: str | Kind,
    model: ModelSource | nn.Module,
    processor: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Kind:
    """The kind of that name for a model, or with ``"auto"`` the one that its configuration tells.

    Raises :class:`PreferoError` for an unknown name, and where the configuration tells none.
    """
    if isinstance(kind, Kind):
        return kind
    if isinstance(model, ModelSource):
        kind, options = model.kind if kind == "auto" else kind, options or model.options
    name = _kind_told_by(model) if kind == "auto" else kind
    if name not in KINDS:
        raise PreferoError(f"model.kind {name!r} is not known{nearest(name, KINDS)}: {', '.join(KINDS)}")
    module, _, class_name = KINDS[name].partition(":")
    kind_class: type[Kind] = getattr(import_module(module), class_name)
    return kind_class.of(model, processor, options)


def _kind_told_by(model: ModelSource | nn.Module) -> str:
    """The name of the kind that a model's configuration and class tell."""
    if isinstance(model, ModelSource):
        if _is_diffusers(model.base or model):
            return "diffusion"
        config = model.config()
        architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    else:
        inner = unwrapped(model)
        if type(inner).__module__.startswith("diffusers."):
            return "diffusion"
        if not isinstance(inner, PreTrainedModel):
            raise PreferoError(
                f"{type(inner).__name__} is neither a model of transformers nor of diffusers: say which kind "
                f"of model it is, kind=… ({', '.join(KINDS)})"
            )
        config, architecture = inner.config, type(inner).__name__
    if own := getattr(config, "prefero_kind", None):
        return own
    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder"
    if architecture.endswith("ForMaskedLM") or architecture == "LLaDAModelLM":  # masked, despite its name
        return "discrete_diffusion"
    if getattr(config, "vision_config", None) is not None:
        return "vision_language"
    return "language"


def _is_diffusers(source: ModelSource) -> bool:
    folder = Path(source.name)
    if folder.is_dir():
        config = folder / "config.json"
        written = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
        return (folder / "model_index.json").is_file() or '"_diffusers_version"' in written
    from huggingface_hub import file_exists

    try:
        with hub_access(source.name):
            return file_exists(source.name, "model_index.json", revision=source.revision)
    except Exception:  # of the name, the hub or the connection: loading it gives a better message
        return False


# Inside the wrappers

PEFT_PREFIX = "base_model.model."
"""The prefix of parameter names in a model that PEFT wraps."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside PEFT adapters, data parallelism and compilation.

    Raises :class:`PreferoError` for prompt tuning, whose virtual tokens have no place in a shared prompt.
    """
    while not isinstance(model, PreTrainedModel):
        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise PreferoError(
                    f"{model.active_peft_config.peft_type.value} adapters put virtual tokens before the "
                    "prompt, which a shared prompt has no place for: use LoRA or another weight adapter"
                )
            model = model.get_base_model()
        elif isinstance(inside := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
            model = inside
        else:
            break
    return model


def innermost(model: nn.Module) -> PreTrainedModel:
    """The transformers language model inside adapters and wrappers.

    Raises :class:`PreferoError` where there is none, and as :func:`unwrapped` does.
    """
    inner = unwrapped(model)
    if not isinstance(inner, PreTrainedModel):
        raise PreferoError(f"{type(inner).__name__} is not a transformers model, nor a wrapper of one")
    if inner.get_output_embeddings() is None:
        raise PreferoError(
            f"{type(inner).__name__} has no language-model head: load it with AutoModelForCausalLM"
        )
    return inner


def adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """The layers that PEFT put adapters on."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters of a model off, for forwards inside this context.

    Only the flag that the layers read is set: PEFT's own ``disable_adapter`` also freezes the parameters,
    which sharded training remembers. Raises :class:`PreferoError` where the flag does not reach all that was
    adapted: merged adapters, and whole modules trained beside them (``modules_to_save``).
    """
    layers = adapter_layers(model)
    if any(layer.merged for layer in layers):
        raise PreferoError("the adapters are merged into the weights: use a cached or a frozen reference")
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules()):
        raise PreferoError(
            "the adapter trains whole modules (modules_to_save), which switching adapters off would keep "
            "changed: use a cached or a frozen reference"
        )
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer._disable_adapters = flag


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards each of its modules has the mode that it had before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def zero_dropout(model: nn.Module) -> None:
    """Set dropout to 0, in modules and wherever a forward reads its rate from an attribute; and the noise
    that experts' inputs get in training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            noise = "dropout" in name or name in ("jitter_noise", "input_jitter_noise")
            if noise and isinstance(value, float):
                setattr(module, name, 0.0)


def local_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights by name; of a sharded model this process's shards, also after a gathering forward."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def fill_weight(weight: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into a weight, or its share of it into this process's shard."""
    whole = whole.to(weight.device, weight.dtype)
    if isinstance(weight, DTensor):
        whole = distribute_tensor(whole, weight.device_mesh, weight.placements)
    weight.copy_(whole)
