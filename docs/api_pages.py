"""The pages of ``docs/api/``: the public names of each package, from signatures and docstrings.

``python -m docs.generate`` writes them.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = (
    "prefero",
    "prefero.data",
    "prefero.objectives",
    "prefero.models",
    "prefero.reference",
    "prefero.training",
    "prefero.generate",
    "prefero.evaluate",
    "prefero.doctor",
    "prefero.report",
    "prefero.demo",
    "prefero.theory",
    "prefero.logic",
    "prefero.sandbox",
)
"""Packages whose ``__init__`` exports public names, in the order of the datum."""

WIDTH = 100
MOST_PARAMETERS = 40
"""A class with more takes ``**settings``, which have a page of their own."""


@dataclass(frozen=True)
class PublicName:
    """A name that a package exports, with the module that defines it."""

    package: str
    name: str
    home: str
    value: Any

    @property
    def docstring(self) -> str:
        """Its own docstring; for a constant, the string after its assignment."""
        if callable(self.value) or isinstance(self.value, ModuleType):
            text = inspect.getdoc(self.value) or ""
            return "" if text.startswith(f"{self.name}(") else text
        return attributes(ast.parse(source(self.home)).body).get(self.name, "")

    @property
    def is_reexported(self) -> bool:
        """Whether ``prefero`` exports it for convenience and another package has its description."""
        return self.package == "prefero" and self.home != "prefero.errors"


@functools.cache
def source(module: str) -> str:
    return Path(str(import_module(module).__file__)).read_text("utf-8")


def attributes(body: list[ast.stmt]) -> dict[str, str]:
    """Strings that follow assignments, by the name assigned."""
    strings = {}
    for statement, after in pairwise(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        target = statement.target if isinstance(statement, ast.AnnAssign) else target
        if (
            isinstance(target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            strings[target.id] = inspect.cleandoc(str(after.value.value))
    return strings


@functools.cache
def public_names(package: str) -> tuple[PublicName, ...]:
    """The names in ``__all__``, without version numbers."""
    homes = {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(ast.parse(source(package)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    module = import_module(package)
    return tuple(
        PublicName(package, name, homes[name], getattr(module, name))
        for name in module.__all__
        if not name.startswith("__")
    )


@functools.cache
def anchors() -> Mapping[str, str]:
    """Links to public names, such as ``data.md#tokenize``: by their own name and by their module's."""
    places: dict[str, str] = {}
    for package in PACKAGES:
        taken: dict[str, int] = {}
        for public in described(package):
            slug = public.name.lower()
            taken[slug] = taken.get(slug, -1) + 1
            place = f"{file_of(package)}#{slug}" + (f"_{taken[slug]}" if taken[slug] else "")
            for name in (public.name, f"{package}.{public.name}", f"{public.home}.{public.name}"):
                places.setdefault(name, place)
    return places


def described(package: str) -> list[PublicName]:
    return [public for public in public_names(package) if not public.is_reexported]


def file_of(package: str) -> str:
    return f"{package.removeprefix('prefero.')}.md"


def pages() -> dict[str, str]:
    """File names and their contents."""
    return {"index.md": index(), **{file_of(package): page(package) for package in PACKAGES}}


def index() -> str:
    parts = [
        "# API",
        "Public names are those that a package exports: import them from the package. Other names may change "
        "in any version.",
    ]
    for package in PACKAGES:
        links = [
            f"[`{public.name}`]({anchors()[f'{public.home}.{public.name}']})"
            for public in public_names(package)
        ]
        parts += [
            f"## [`{package}`]({file_of(package)})",
            markdown(first_paragraph(package)),
            ", ".join(links),
        ]
    return "\n\n".join(parts) + "\n"


def first_paragraph(package: str) -> str:
    return (inspect.getdoc(import_module(package)) or "").partition("\n\n")[0]


def page(package: str) -> str:
    parts = [f"# {package}", markdown(inspect.getdoc(import_module(package)) or "")]
    elsewhere = [public for public in public_names(package) if public.is_reexported]
    if elsewhere and package == "prefero":
        rows = [
            f"- [`{public.name}`]({anchors()[f'{public.home}.{public.name}']}): {summary(public.docstring)}"
            for public in elsewhere
        ]
        parts.append("\n".join(rows))
    for public in described(package):
        parts += [f"## {public.name}", *description(public)]
    return "\n\n".join(parts) + "\n"


def description(public: PublicName) -> Iterator[str]:
    if callable(public.value):
        yield f"```python\n{signature(public.name, public.value)}\n```"
    else:
        yield "A module." if isinstance(public.value, ModuleType) else f"A constant of `{public.home}`."
    yield markdown(public.docstring)
    if inspect.isclass(public.value):
        members = [*fields(public), *methods(public.value)]
        if members:
            yield "\n".join(members)


def fields(public: PublicName) -> Iterator[str]:
    """Attributes of a class that have a description of their own."""
    for node in ast.walk(ast.parse(source(public.home))):
        if isinstance(node, ast.ClassDef) and node.name == public.name:
            for name, text in attributes(node.body).items():
                if not name.startswith("_"):
                    yield f"- `{name}`: {summary(text)}"


def methods(kind: type) -> Iterator[str]:
    """Public methods and properties that the class defines itself, with the first paragraph of each."""
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        bound = isinstance(member, property)
        shown = name if bound else signature(name, getattr(kind, name), WIDTH * 3).replace("(self, ", "(")
        yield f"- `{shown.replace('(self)', '()')}`: {summary(inspect.cleandoc(function.__doc__))}"


def summary(docstring: str) -> str:
    return " ".join(markdown(docstring.partition("\n\n")[0]).split())


def signature(name: str, value: Any, width: int = WIDTH) -> str:
    """``name(parameter: annotation = default, …) -> annotation``, a line each where they are long."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"{name}(message)"
    if getattr(value, "_is_protocol", False):
        return f"class {name}(Protocol)"
    found = inspect.signature(value)
    if len(found.parameters) > MOST_PARAMETERS:
        return f"{name}(**settings)"
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters, seen_star = [], False
    for parameter in found.parameters.values():
        star = next((star for kind, star in stars.items() if kind == parameter.kind), "")
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
            parameters.append("*")
        seen_star = seen_star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        text = f"{star}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {default(parameter.default)}"
        parameters.append(text)
    result = found.return_annotation
    end = "" if result in (found.empty, None, "None") else f" -> {annotation(result)}"
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) <= width:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in parameters) + f"){end}"


def annotation(given: Any) -> str:
    text = given if isinstance(given, str) else inspect.formatannotation(given)
    return re.sub(r"\b(prefero|typing|collections|torch|pathlib)(\.\w+)*\.(?=\w)", "", text)


def default(given: Any) -> str:
    if inspect.isfunction(given) or inspect.isclass(given):
        return given.__name__
    text = repr(given)
    return "…" if " at 0x" in text or len(text) > 60 else text


def markdown(docstring: str) -> str:
    """A docstring's reStructuredText as Markdown: roles, literals, literal blocks, sections of arguments."""
    blocks: list[str] = []
    literal = False
    for block in re.split(r"\n{2,}", docstring):
        lines = block.splitlines()
        indented = bool(lines) and all(line.startswith("    ") for line in lines)
        if literal and indented:
            blocks.append("```text\n" + inspect.cleandoc("\n" + block) + "\n```")
            continue
        literal = block.endswith("::")
        if section := re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):\n(.*)", block, re.S):
            blocks.append(f"*{HEADINGS[section[1]]}*")
            blocks.append(entries(inspect.cleandoc("\n" + section[2])))
            continue
        text = re.sub(r"\s*::\Z", ":", block) if re.search(r"\w::\Z", block) else block.removesuffix("::")
        if text.strip():
            blocks.append(inline(inspect.cleandoc("\n" + text) if indented else text.strip()))
    return "\n\n".join(blocks)


HEADINGS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Raises": "Raises",
    "Returns": "Returns",
    "Yields": "Yields",
}


def entries(text: str) -> str:
    """``name: description`` with indented continuation lines, as a list."""
    joined = re.sub(r"\n\s+", " ", text)
    if not re.match(r"\S+: ", joined):
        return inline(joined)
    return "\n".join(re.sub(r"^(\S+): ", r"- `\1`: ", inline(line)) for line in joined.splitlines())


def inline(text: str) -> str:
    text = re.sub(r":\w+:`(~?)([^`<]+)`", lambda role: reference(role[2], bool(role[1])), text)
    return text.replace("``", "`")


def reference(target: str, short: bool) -> str:
    """A link to a public name, or code."""
    shown = target.rpartition(".")[2] if short else target
    place = anchors().get(target)
    return f"[`{shown}`]({place})" if place else f"`{shown}`"
