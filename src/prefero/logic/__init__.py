"""Preferences as propositional logic: what a model should accept, and which loss says so.

A proposition such as ``M(y_w)`` holds with the probability that a model gives a response. A
:class:`~prefero.logic.structures.PreferenceStructure` of formulas has a semantic loss, the method ``logic``
(:mod:`prefero.objectives.presets.logic`). Richardson et al., 2024, arXiv 2412.17696.
"""

from prefero.logic.formulas import Formula, Proposition, parse
from prefero.logic.structures import (
    PUBLISHED,
    PreferenceStructure,
    Reading,
    decompile,
    every_structure,
    structure,
)

__all__ = [
    "PUBLISHED",
    "Formula",
    "PreferenceStructure",
    "Proposition",
    "Reading",
    "decompile",
    "every_structure",
    "parse",
    "structure",
]
