"""Where the real preference data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder that ``PREFERO_DATA`` names, or ``../shared/data`` from the repository's root."""
    folder = Path(os.environ.get("PREFERO_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "hh_rlhf_harmless_test.jsonl.gz").exists():
        pytest.skip(f"no preference data in {folder}: set PREFERO_DATA to the folder that holds them")
    return folder
