"""The public names are those that ``public_names.txt`` pins, and each can be used and is described.

``python -m tests.test_public_names`` writes the table. A change of it is a change of the interface and has
an entry in CHANGELOG.md.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest

from docs.api_pages import MOST_PARAMETERS, PACKAGES, PublicName, public_names
from tests.pinned import Pinned

NAMES = [public for package in PACKAGES for public in public_names(package)]


def lines() -> dict[str, str]:
    """``prefero.data.read_row = (row, layout)``; what cannot be called stands with its type."""
    return {f"{public.package}.{public.name}": parameters(public.value) for public in NAMES}


def parameters(value: object) -> str:
    if isinstance(value, ModuleType):
        return "module"
    if not callable(value):
        return type(value).__name__
    if getattr(value, "_is_protocol", False):
        return "protocol"
    if inspect.isclass(value) and issubclass(value, Exception):
        return "exception"
    names = list(inspect.signature(value).parameters)
    if len(names) > MOST_PARAMETERS:  # settings of transformers: tests/training/settings.txt has them
        return "(settings)"
    return f"({', '.join(names)})"


INTERFACE = Pinned(Path(__file__).with_name("public_names.txt"), lines, "tests.test_public_names")


def test_the_interface_is_the_pinned_one() -> None:
    INTERFACE.check()


@pytest.mark.parametrize("public", NAMES, ids=lambda public: f"{public.package}.{public.name}")
def test_a_public_name_is_described(public: PublicName) -> None:
    assert public.docstring


def test_a_public_name_stays_itself_when_a_module_of_that_name_is_imported() -> None:
    import prefero.data.tokenize
    import prefero.evaluate.divergence

    assert inspect.isfunction(prefero.data.tokenize)
    assert inspect.isfunction(prefero.evaluate.divergence)


if __name__ == "__main__":
    INTERFACE.write()
