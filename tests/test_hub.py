"""Where the hub cannot be reached: one message, at once, and what was downloaded before is still read."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from prefero import hub
from prefero.data.files import load_rows
from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.models.loading import ModelSource, kind_of
from tests.training.tiny import saved_model

REFUSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A hub whose port refuses connections, and an empty cache; waiting for another try is an error."""
    import datasets

    monkeypatch.setattr(constants, "ENDPOINT", REFUSED)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for settings in (constants, datasets.config):
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits for {seconds} seconds"))
    forget = hub._failure.cache_clear
    forget()
    yield
    forget()


READINGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "configuration": ("model", ModelSource("no/such").config),
    "tokenizer": ("tokenizer", ModelSource("no/such").processor),
    "weights": ("causal language model", ModelSource("no/such").load),
    "kind": ("model", lambda: kind_of("auto", ModelSource("no/such"))),
    "denoiser": ("denoiser", lambda: kind_of("diffusion", ModelSource("no/such"))),
    "data": ("data", lambda: load_rows("no/such")),
    "streamed data": ("data", lambda: load_rows("no/such", streaming=True)),
    "a configuration of data": ("data", lambda: load_rows("no/such:en")),
}


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_says_that_the_hub_cannot_be_reached(name: str) -> None:
    what, read = READINGS[name]
    with pytest.raises(PreferoError) as caught:
        read()
    message = str(caught.value)
    assert "'no/such" in message and f"({REFUSED}) cannot be reached: [Errno 111]" in message
    assert f"Name the file or folder of the {what}" in message
    assert "HF_ENDPOINT" in message and "HF_HUB_OFFLINE=1" in message
    assert not constants.HF_HUB_OFFLINE  # only while something was read


def test_the_base_of_adapters_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "no/base"}))
    with pytest.raises(PreferoError, match=r"adapters, whose .*'no/base'.* cannot be reached"):
        kind_of("auto", ModelSource(str(tmp_path)))


def test_a_hub_that_is_turned_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_failure", lambda *_: pytest.fail("asks"))
    with pytest.raises(PreferoError, match=r"'no/such'.*HF_HUB_OFFLINE turns the .*unset HF_HUB_OFFLINE"):
        ModelSource("no/such").config()


def test_folders_are_read_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_failure", lambda *_: pytest.fail("asks"))
    saved_model(tmp_path / "model")
    assert kind_of("auto", ModelSource(str(tmp_path / "model"))).name == "language"


def test_what_was_downloaded_before_is_read(tmp_path: Path) -> None:
    saved_model(tmp_path / "model")
    kept = tmp_path / "cache" / "models--some--model"
    shutil.copytree(tmp_path / "model", kept / "snapshots" / ("a" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    source = ModelSource("some/model")
    assert kind_of("auto", source).name == "language"
    source.load()


def test_a_hub_that_answers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_failure", lambda *_: "")
    with hub.hub_access("some/model"):
        assert not constants.HF_HUB_OFFLINE
    assert hub.unreachable() == hub.without_hub("some/model", "model") == ""


def test_a_stream_that_breaks_off_names_the_row() -> None:
    import datasets

    def rows() -> Iterator[dict[str, str]]:
        for number in range(30):
            if number == 25:
                raise ConnectionError("the connection was reset\nwhile reading")
            yield {"prompt": f"{number}", "chosen": "yes", "rejected": "no"}

    streamed = datasets.IterableDataset.from_generator(rows)
    assert len(load_examples(streamed, limit=25)) == 25
    with pytest.raises(PreferoError, match=r"data set, row 26: .*the connection was reset\. Try again"):
        load_examples(streamed)
