"""The type checker behind the shapes."""

from beartype import BeartypeConf, beartype

typed = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Whole numbers are accepted for floating-point ones, as in Python's own type system."""
