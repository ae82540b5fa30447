"""Judges that are functions, named ``module:function``: what they are called with, and what they return."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prefero.data.examples import Text
from prefero.errors import PreferoError, nearest, number_of
from prefero.evaluate.win_rate import BothOrders

SCORES = "a score, one number where higher is better"
PROBABILITY = "the probability that the first response is preferred, a number from 0 to 1"

SIGNATURES = (
    f"a judge takes (prompt, response) and returns {SCORES}; or (prompt, first, second) and returns "
    f"{PROBABILITY}; or lists by the names prompts and completions, as TRL's reward functions do, and "
    "returns a list of scores"
)


@dataclass(frozen=True, slots=True)
class ByFunction:
    """A function (prompt, response) → score. Raises :class:`PreferoError` where the function raises, or
    returns no finite number."""

    function: Callable[[Text, str], float]

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        return [self._score(*both) for both in zip(prompts, responses, strict=True)]

    def _score(self, prompt: Text, response: str) -> float:
        given = _called(self.function, {"prompt": prompt, "response": response})
        score = _number(given)
        if score is None:
            hint = ". A function of lists names its parameters prompts and completions"
            raise PreferoError(
                f"{_returned(self.function, given)} for {_texts(prompt=prompt, response=response)}; expected "
                f"{SCORES}{hint if _is_list(given) else ''}"
            )
        return score


@dataclass(frozen=True, slots=True)
class ByLists:
    """A function of lists, called as TRL calls reward functions: ``prompts`` and ``completions`` → scores. A
    completion is a text, or one message of the assistant where the prompt is a conversation. Raises
    :class:`PreferoError` as :class:`ByFunction` does."""

    function: Callable[..., Iterable[float]]
    takes_prompts: bool

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        asked = [prompt if isinstance(prompt, str) else [*map(dict, prompt)] for prompt in prompts]
        completions = [
            response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        texts = {"prompts": asked, "completions": completions}
        given = _called(self.function, texts if self.takes_prompts else {"completions": completions})
        scores = [_number(one) for one in given] if _is_list(given) else []
        known = [score for score in scores if score is not None]
        if len(known) < len(scores) or len(scores) != len(responses):
            raise PreferoError(
                f"{_returned(self.function, given)} for {len(responses)} prompts and completions; expected a "
                f"list of {len(responses)} scores, each a number where higher is better"
            )
        return known


@dataclass(frozen=True, slots=True)
class ByComparison:
    """A function (prompt, first, second) → probability that the first is preferred. Raises
    :class:`PreferoError` where the function raises, or returns no number from 0 to 1."""

    function: Callable[[Text, str, str], float]

    def __call__(self, prompt: Text, first: str, second: str) -> float:
        given = _called(self.function, {"prompt": prompt, "first": first, "second": second})
        probability = _number(given)
        if probability is None or not 0 <= probability <= 1:
            raise PreferoError(
                f"{_returned(self.function, given)} for {_texts(prompt=prompt, first=first, second=second)}; "
                f"expected {PROBABILITY}"
            )
        return probability


def function_judge(name: str) -> ByFunction | ByLists | BothOrders:
    """The judge that ``module:function`` names; the working directory is searched too. Raises
    :class:`PreferoError` where there is none, and for a function that no judge is called as."""
    module, _, attribute = name.partition(":")
    if module.endswith(".py"):
        raise PreferoError(
            f"{module} is a file: name the function as module:function, in the folder of the file: --judge "
            f"{Path(module).stem}:{attribute or 'FUNCTION'}"
        )
    function = _imported(module, attribute)
    if inspect.iscoroutinefunction(function):
        raise PreferoError(f"{name} is async, and a judge is called as a plain function: {SIGNATURES}")
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        raise PreferoError(f"the parameters of {name} are not known: {SIGNATURES}") from None
    required = {
        key
        for key, one in parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    if "completions" in parameters:
        if beyond := sorted(required - {"prompts", "completions"}):
            raise PreferoError(
                f"{name} takes {', '.join(beyond)} besides prompts and completions, which an evaluation does "
                "not have: give these defaults, or judge by the texts alone"
            )
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        return ByLists(function, "prompts" in parameters or takes_any)
    if wrong := _misplaced(list(parameters)):
        raise PreferoError(f"{name} takes ({', '.join(parameters)}), where {wrong}: {SIGNATURES}")
    if _takes(function, 2):
        return ByFunction(function)
    if _takes(function, 3):
        return BothOrders(ByComparison(function))
    count = number_of(len(parameters), "argument")
    raise PreferoError(f"{name} takes {count} ({', '.join(parameters)}): {SIGNATURES}")


def _imported(module: str, attribute: str) -> Callable[..., Any]:
    sys.path.insert(0, "")  # modules of the current folder, as python -m finds them
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        raise PreferoError(
            f"the judge's module {module!r} cannot be imported: {_told(error)}{_place(error)}"
        ) from error
    finally:
        sys.path.remove("")
    function = getattr(imported, attribute, None)
    if function is not None and not callable(function):
        raise PreferoError(f"{module}:{attribute} is no function, but {_short(function)}")
    if not callable(function):
        raise PreferoError(f"{module} has no function {attribute!r}{nearest(attribute, vars(imported))}")
    return function


def _misplaced(parameters: Sequence[str]) -> str:
    """The mistake in the order of parameters, by their names; empty where there is none."""
    if lists := {"prompts", "responses"} & set(parameters):
        return f"{min(lists)} stands for a list, and a function of lists names its responses completions"
    if "prompt" in parameters[1:3] or parameters[:1] in (["response"], ["completion"], ["image"]):
        return f"{parameters[0]} is the first, and the prompt comes first"
    return ""


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments by their places."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _called(function: Callable[..., Any], texts: Mapping[str, Any]) -> Any:
    """The answer of a judge; a function of lists is called by names. Images are copies, which it may
    change."""
    given = {name: _own(value) for name, value in texts.items()}
    try:
        return function(**given) if "completions" in given else function(*given.values())
    except Exception as error:
        raise PreferoError(
            f"the judge {_name(function)} raised {_told(error)}{_place(error)} for {_texts(**texts)}"
        ) from error


def _own(given: Any) -> Any:
    if isinstance(given, list):
        return [_own(one) for one in given]
    return given.copy() if isinstance(given, Image.Image) else given


def _number(given: Any) -> float | None:
    """The finite number that a judge returned; None where it is none."""
    if isinstance(given, str | bytes) or _is_list(given):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _is_list(given: Any) -> bool:
    """Whether this holds several answers: a list, or an array or tensor with an axis."""
    return isinstance(given, list | tuple) or bool(getattr(given, "ndim", 0))


def _returned(function: Callable[..., Any], given: Any) -> str:
    return f"the judge {_name(function)} returned {_short(given)} ({type(given).__name__})"


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}:{name}"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _place(error: BaseException) -> str:
    """Where an error was raised: file and line; nothing for an import that found no module to run."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "" if last.filename.startswith("<") else f" ({Path(last.filename).name}, line {last.lineno})"


def _texts(**texts: Any) -> str:
    return " and ".join(f"the {name} {_short(text)}" for name, text in texts.items())


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:40]} … {text[-39:]}"
