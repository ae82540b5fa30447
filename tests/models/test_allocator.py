"""The allocator setting is a request that other systems may decline."""

from __future__ import annotations

import platform

from prefero.models import head as allocator


def test_it_says_whether_it_was_set(monkeypatch) -> None:
    assert allocator.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not allocator.keep_freed_memory()
