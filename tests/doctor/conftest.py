from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefero.data.files import load_rows

ROOT = Path(__file__).resolve().parents[2]


def rows_of(name: str) -> list[dict]:
    file = Path(os.environ.get("PREFERO_DATA", ROOT.parent / "shared" / "data")) / name
    if not file.exists():
        pytest.skip(f"no {file}")
    return [dict(row.fields) for row in load_rows(file)]


@pytest.fixture(scope="session")
def hh() -> list[dict]:
    """Pairs of Anthropic's harmless-base test set, whose two sides share their prompt."""
    return rows_of("hh_rlhf_harmless_test.jsonl.gz")


@pytest.fixture(scope="session")
def pandalm() -> list[dict]:
    return rows_of("pandalm_testset.json.gz")
