"""Each kind of protection, for tests that run under all of them or are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefero.sandbox import Protection, confinement
from tests.system import needs

ALL = [
    pytest.param("bubblewrap", marks=needs("bwrap")),
    pytest.param("unshare", marks=pytest.mark.system),
    "none",
]


def without(monkeypatch: pytest.MonkeyPatch, *commands: str) -> None:
    """Behave as a machine that lacks commands."""
    which = confinement.shutil.which
    monkeypatch.setattr(confinement.shutil, "which", lambda name: None if name in commands else which(name))
    confinement._strongest.cache_clear()


STRONGER = {"bubblewrap": (), "unshare": ("bwrap",), "none": ("bwrap", "unshare")}


@pytest.fixture
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Protection]:
    """The protection of a machine whose strongest means is the parameter; printed."""
    without(monkeypatch, *STRONGER[request.param])
    found = confinement.protection("limits")
    if found.means != request.param:
        pytest.skip(f"no {request.param} here: {'; '.join(found.missing)}")
    print(f"in force: {found}")
    yield found
    confinement._strongest.cache_clear()
