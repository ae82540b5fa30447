"""The page for those who come from TRL says what the tested table says, in words that recipes understand."""

from __future__ import annotations

import re

import yaml

from docs.trl_page import PARITY, page
from prefero.objectives import from_config


def test_every_objective_of_the_page_can_be_pasted_into_a_recipe() -> None:
    spelled = re.findall(r"\| `(\{.*\})` \|$", page(), flags=re.MULTILINE)
    assert len(spelled) == sum(map(len, PARITY.values()))
    for text in spelled:
        assert from_config(yaml.safe_load(text)).key
