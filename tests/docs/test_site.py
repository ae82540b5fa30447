"""The site builds without a warning: no link or anchor leads nowhere, the navigation has every page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs import generate
from tests.docs.blocks import ROOT


def pages_of(navigation: list[object]) -> list[str]:
    found = []
    for entry in navigation:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages_of(value) if isinstance(value, list) else [str(value)]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    named = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    there = {file.name for file in (ROOT / "docs").glob("*.md")}
    there |= {f"{part}/index.md" for part in generate.PARTS}
    assert sorted(named) == sorted(there)


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="pip install 'prefero[docs]'")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.py"))
    generate.write(tmp_path / "docs")
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site" / "methods" / "dpo" / "index.html").is_file()
