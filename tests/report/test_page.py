"""The report of every kind of folder: what a reader needs is there."""

import html
import json
import re

import pytest

from prefero.errors import PreferoError
from prefero.report.page import render
from tests.report import folders


def text_of(document: str) -> str:
    """The text a reader sees: without styles and tags."""
    visible = re.sub(r"<(style|script)\b.*?</\1>", " ", document, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", visible)).split())


def report(write, tmp_path) -> str:
    return render(write(tmp_path / "run")).read_text(encoding="utf-8")


def test_a_run_shows_what_a_reader_needs(tmp_path):
    text = text_of(report(folders.write_run, tmp_path))
    for needed in (
        "Direct Preference Optimization dpo",
        "Qwen/Qwen3-0.6B",
        "Held-out reward accuracy went from 58.6 % to 68.1 %",
        "One monitor fired: likelihood displacement",
        "95 % interval",
        "methods that address it dpop",
        "Razin et al. 2024",
        "Reward accuracy",
        "chance",
        "Log-probability nats per token under the policy",
        "Mass of the likeliest tokens",
        "The museum was a delight",
        "rows skipped 2",
        "1.40 times fewer tokens to compute: 171 000 instead of 240 000",
        "Rafailov et al., 2023",
        "training.learning_rate 5e−7",
        "32 min 12 s",
    ):
        assert needed in text, needed


def test_a_comparison_shows_the_methods_side_by_side(tmp_path):
    document = report(folders.write_comparison, tmp_path)
    text = text_of(document)
    for needed in (
        "Three methods on the same data",
        "dpo : Likelihood displacement",
        "Gold reward against distance",
        "KL to the start model, nats per response",
        "73.0 % to 83.0 %",
        "Losses of different methods cannot be compared",
    ):
        assert needed in text, needed
    for index in range(3):
        assert document.count(f'class="swatch method-{index}"') >= 3
    best = re.findall(r'class="best"><span class="figure">([^<]+)', document)
    assert best == ["0.840", "80.0\u2009%"]


def test_an_interrupted_run_says_so(tmp_path):
    text = text_of(report(folders.write_interrupted, tmp_path))
    assert "Not finished: this page shows what the run had logged by step 60" in text
    assert "Nothing was sampled" in text and "No monitor fired" in text


def test_a_run_that_has_only_begun_is_still_a_page(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"method": {"key": "dpo"}, "finished": false}')
    text = text_of(render(folder).read_text(encoding="utf-8"))
    for said in ("Not finished: nothing was logged yet", "wrote no summary of its data", "none watching"):
        assert said in text


def test_lists_and_labelled_responses_have_their_own_names(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    other = [
        {
            key.replace("chosen", "desirable").replace("rejected", "undesirable"): value
            for key, value in line.items()
        }
        for line in folders.metrics(100, seed=0)
    ]
    folders.write_lines(folder / "metrics.jsonl", other)
    text = text_of(render(folder).read_text(encoding="utf-8"))
    assert "undesirable" in text and "Likelihood of held-out desirable responses" in text


def test_a_loss_that_is_measured_once_is_not_set_against_itself(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    for steps, said in ((40, "measured once"), (80, "when first measured")):
        folders.write_lines(folder / "metrics.jsonl", folders.metrics(steps, seed=0))
        text = text_of(render(folder).read_text(encoding="utf-8"))
        assert [said in text, text.count("measured once")] == [True, int(steps == 40)]


def test_a_loss_that_became_no_number_does_not_break_the_page(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    lines = [line | ({"loss": None} if line["step"] > 100 else {}) for line in folders.metrics(200, seed=0)]
    folders.write_lines(folder / "metrics.jsonl", lines)
    document = render(folder).read_text(encoding="utf-8")
    assert "nan" not in re.sub(r"<style.*?</style>", "", document, flags=re.DOTALL).lower().split()
    assert not re.search(r'\b(d|cx|cy|x|y|points)="[^"]*nan', document)


def test_text_from_data_is_escaped_everywhere(tmp_path):
    document = report(folders.write_hostile, tmp_path)
    assert "<script" not in document and "<img" not in document
    assert document.count("&lt;script&gt;alert(") > 20
    assert "onerror=alert(1)" in text_of(document)


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    document = report(folders.write_run, tmp_path)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", document)
    assert not re.search(r"url\(|@import|https?://", document)
    assert "default-src 'none'" in document


def test_both_colour_schemes_define_every_colour(tmp_path):
    style = re.search(r"<style>(.*?)</style>", report(folders.write_run, tmp_path), re.DOTALL)[1]
    light, dark = style.split("prefers-color-scheme: dark", 1)
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    for scheme in (light, dark.split("}", 1)[0]):
        assert used <= set(re.findall(r"(--[\w-]+):", scheme))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "holds no run"),
        (
            lambda folder: folders.write_comparison(folder).joinpath("comparison.json").unlink(),
            "did you mean",
        ),
        (lambda folder: folders.write_run(folder).joinpath("run.json").write_text("{"), "not valid JSON"),
        (lambda folder: folders.write_run(folder).joinpath("run.json").write_text("[]"), "no JSON object"),
    ],
)
def test_what_is_no_run_is_refused_with_its_place(tmp_path, make, complaint):
    make(tmp_path / "run")
    with pytest.raises(PreferoError, match=complaint):
        render(tmp_path / "run")


def test_the_page_goes_where_it_is_told(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    assert render(folder, tmp_path / "deep" / "page.html").is_file()
    assert render(folder, tmp_path) == tmp_path / "report.html"


def test_the_records_of_the_fixtures_are_the_contract_s(tmp_path):
    record = json.loads((folders.write_run(tmp_path / "run") / "run.json").read_text())
    assert {
        "prefero",
        "created",
        "method",
        "config",
        "data",
        "model",
        "layout",
        "machine",
        "finished",
    } <= set(record)


def test_images_are_shown_from_the_file_itself_and_nothing_else_is_loaded(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    pixel = "data:image/png;base64,iVBORw0KGgo="
    folders.write_lines(
        folder / "samples.jsonl",
        [
            {"prompt": 'a "cat" <b>', "before": {"image": pixel}, "after": {"image": pixel}},
            {"prompt": "", "before": {"image": "https://elsewhere/x.png"}, "after": {"image": 'x" onload="'}},
        ],
    )
    page = render(folder).read_text(encoding="utf-8")
    assert page.count(f'<img src="{pixel}"') == 2
    assert 'alt="before: a &#34;cat&#34; &lt;b&gt;"' in page
    assert "<img" not in page.replace(f'<img src="{pixel}"', "")


def test_the_top_of_a_sweep_shows_what_its_runs_are_chosen_by(tmp_path):
    folder = folders.write_comparison(tmp_path / "run")
    record = json.loads((folder / "comparison.json").read_text())
    values = {name: {"objective.method": name} for name in folders.METHODS}
    over = {"objective.method": list(folders.METHODS)}
    for metric, tiles in (
        ("gold_reward", {"gold"}),
        ("win_rate", {"win"}),
    ):
        sweep = {"over": over, "values": values, "metric": metric, "trials": None}
        (folder / "comparison.json").write_text(json.dumps({**record, "sweep": sweep}))
        page = render(folder).read_text(encoding="utf-8")
        top = text_of(page[page.index('<div class="tiles">') : page.index("<nav")])
        assert {word for word in ("gold", "win") if word in top.lower()} == tiles
