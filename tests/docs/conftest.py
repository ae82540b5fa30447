from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

from tests.docs import stand_ins
from tests.docs.blocks import ROOT


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation")
    stand_ins.make(folder)
    return folder


@pytest.fixture
def workplace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own in which the names of the documentation are small models and data."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    gc.freeze()  # every run collects what it leaves twice, which takes longest of what was there before
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, value in {
        "PREFERO_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "TERM": "dumb",
    }.items():
        monkeypatch.setenv(name, value)
    return folder
