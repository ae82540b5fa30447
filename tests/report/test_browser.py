"""The report in a real browser."""

import subprocess

import pytest
from PIL import Image

from prefero.report.page import render
from tests.report import folders
from tests.system import needs

pytestmark = needs("chromium")


def browse(page, tmp_path, *arguments: str) -> str:
    """What headless Chromium makes of the page: its document after loading, or what it says on stderr."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'browser'}",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("write", [folders.write_run, folders.write_comparison, folders.write_interrupted])
def test_a_browser_lays_the_charts_out(tmp_path, write):
    page = render(write(tmp_path / "run"))
    document = browse(page, tmp_path, "--dump-dom")
    assert (
        document.count('<svg class="chart"')
        == page.read_text(encoding="utf-8").count('<svg class="chart"')
        > 4
    )
    for heading in ("Monitors", "Evaluation", "Curves", "Samples", "Data", "Settings"):
        assert f"<h2>{heading}</h2>" in document


def test_a_browser_runs_nothing_of_what_the_data_say(tmp_path):
    document = browse(render(folders.write_hostile(tmp_path / "run")), tmp_path, "--dump-dom")
    assert "<script" not in document and "<img" not in document and "alert('owned')" in document


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_paints_both_schemes(tmp_path, scheme):
    page, shot = render(folders.write_run(tmp_path / "run")), tmp_path / "shot.png"
    settings = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(page, tmp_path, f"--screenshot={shot}", "--window-size=1200,900", *settings)
    picture = Image.open(shot).convert("L")
    ground = picture.getpixel((5, 5))
    assert ground < 60 if scheme == "dark" else ground > 200
    ink = picture.getextrema()
    assert ink[1] - ink[0] > 150
