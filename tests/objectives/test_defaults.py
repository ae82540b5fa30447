"""The methods' defaults. Golden vectors and limits name their arguments, so none of them sees one change."""

from __future__ import annotations

from tests.objectives.pinned_defaults import DEFAULTS


def test_a_default_does_not_change_by_the_way() -> None:
    DEFAULTS.check()
