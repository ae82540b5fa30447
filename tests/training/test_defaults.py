"""What a run does that nobody has said anything about."""

from __future__ import annotations

from tests.training.pinned_settings import SETTINGS


def test_a_default_setting_does_not_change_by_the_way() -> None:
    SETTINGS.check()
