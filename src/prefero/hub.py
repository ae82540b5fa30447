"""The Hugging Face hub: whether it can be reached, asked once, before its libraries try each file again and
again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

REMEMBERED = 60
"""Seconds for which an answer counts."""


@contextmanager
def hub_access(name: str) -> Iterator[None]:
    """Around the reading of a model or of data that may be on the hub: where it cannot be reached, libraries
    read what they have downloaded before, and do not wait for it."""
    if Path(name).expanduser().exists() or not unreachable():
        yield
        return
    import datasets  # takes its own setting from that of the hub, as it is imported
    from huggingface_hub import constants

    settings: tuple[Any, ...] = (constants, datasets.config)
    before = [setting.HF_HUB_OFFLINE for setting in settings]
    for setting in settings:
        setting.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.HF_HUB_OFFLINE = value


def unreachable() -> str:
    """Why the hub cannot be reached, in words; empty where it can."""
    from huggingface_hub import constants

    config = getattr(sys.modules.get("datasets"), "config", None)
    if constants.HF_HUB_OFFLINE or getattr(config, "HF_HUB_OFFLINE", False):
        return "HF_HUB_OFFLINE turns the Hugging Face hub off"
    reason = _failure(constants.ENDPOINT, int(time.monotonic() // REMEMBERED))
    return f"the Hugging Face hub ({constants.ENDPOINT}) cannot be reached: {reason}" if reason else ""


def without_hub(name: str, what: str) -> str:
    """Why ``what`` is not to be had by a name that is neither a file nor a folder, where the hub cannot be
    reached, and what to do; empty where it can."""
    reason = "" if Path(name).expanduser().exists() else unreachable()
    if not reason:
        return ""
    if "HF_HUB_OFFLINE" in reason:
        way = "unset HF_HUB_OFFLINE"
    else:
        way = (
            "check the connection, or set HF_ENDPOINT to a mirror of the hub; HF_HUB_OFFLINE=1 uses what was "
            "downloaded before without asking"
        )
    return (
        f"it is no file or folder here, its files have not all been downloaded before, and {reason}. Name "
        f"the file or folder of the {what}, or {way}"
    )


@lru_cache(maxsize=1)
def _failure(endpoint: str, period: int) -> str:
    """The error of one request that is not repeated; empty for an answer, whatever it says. ``period`` is the
    time in which it was asked."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # the HTTP client, and with it its errors, is the hub's own affair
        return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ""
