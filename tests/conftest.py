"""Shapes that signatures of the objectives state are checked at run time in every test; property tests have
no deadline, which a busy machine would miss."""

from hypothesis import settings
from jaxtyping import install_import_hook

from tests import checking

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
install_import_hook("prefero.objectives", f"{checking.__name__}.typed")
