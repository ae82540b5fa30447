"""Shapes that signatures of the objectives state are checked at run time in every test; property tests have
no deadline, which a busy machine would miss."""

import gc
import os

from hypothesis import settings
from jaxtyping import install_import_hook

from tests import checking

# The same cases every time; HYPOTHESIS_PROFILE=exploring draws new ones.
settings.register_profile("patient", deadline=None, derandomize=True)
settings.register_profile("exploring", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))
install_import_hook("prefero.objectives", f"{checking.__name__}.typed")


def pytest_collection_finish() -> None:
    """Every start of a trainer collects garbage, which takes a second among all that TRL and others import;
    what is loaded by now is left out of it."""
    gc.collect()
    gc.freeze()
