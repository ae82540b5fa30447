"""Run one side once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.settings import Settings
from benchmarks.sides import SIDES


def main(name: str, settings_path: str, out: str) -> None:
    module, function = SIDES[name].split(":")
    side = importlib.import_module(f"benchmarks.sides.{module}")
    settings = Settings.load(Path(settings_path))
    settings.apply_threads()
    getattr(side, function)(name, settings).save(Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
