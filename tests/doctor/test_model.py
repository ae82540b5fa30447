"""What a model makes of the data, with small models made from configurations."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

import prefero
from prefero.data.examples import Examples
from prefero.data.tokenize import tokenize
from prefero.doctor.policy import Policy, ches_of
from prefero.errors import PreferoError
from prefero.evaluate.ranking import pair_logps
from prefero.generate.sampling import sample
from tests.data.test_training_templates import ON, ONE, tokenizer_of
from tests.generate.test_contexts import small_model
from tests.training.tiny import pairs, saved_model, text, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pairs(60)


@pytest.fixture(scope="module")
def inspection(folder, rows):
    return prefero.inspect(rows, model=folder, rows=60)


@pytest.fixture(scope="module")
def tokens(rows):
    return tokenize(
        prefero.load_examples(rows), tiny_tokenizer(), roles=("chosen", "rejected"), max_length=64
    )


def test_ranking_and_displacement_are_those_of_the_functions(inspection, tokens):
    """In the order of the data, whatever was drawn: every pair is scored here."""
    model = tiny_model()
    cells = [(one.cells[0], one.cells[1]) for one in tokens]
    logps = pair_logps(model, cells)
    ranking = inspection["reference"]
    assert ranking.measures[0].count == int((logps.margin() >= 0).sum())
    assert ranking.measures[1].count == int((logps.margin(per_token=True) >= 0).sum())
    scores = ches_of(model, cells).normalised
    assert inspection["displacement"].rows == tuple((scores >= 0).nonzero().flatten().tolist())
    gap = logps.margin(per_token=True).abs()
    nearest = gap.argsort(stable=True)[:30].sort().values.tolist()
    assert inspection["reference_gap"].rows == tuple(nearest)


def test_cost_counts_shared_tokens_once(inspection, tokens):
    cost = inspection["cost"]
    numbers = {measure.name: measure.value for measure in cost.measures}
    assert numbers["tokens per epoch"] == pytest.approx(tokens.summary.tokens_unique)
    assert numbers["tokens saved by sharing prompts"] == pytest.approx(1 - 1 / tokens.summary.sharing)
    assert 0 < numbers["seconds to score the reference, once"] < 60 and cost.level == "fine"


def test_own_samples_are_on_policy_and_random_words_are_not(folder):
    model, tokenizer, draw = tiny_model(), tiny_tokenizer(), random.Random(0)
    prompts = [text(draw, 3, 6) for _ in range(64)]
    own = sample(
        model, tokenizer, prompts, generator=torch.Generator().manual_seed(1), max_new_tokens=30, count=2
    )
    texts = [f" {one.text}" for one in own]
    mine = [
        {"prompt": prompt, "chosen": one, "rejected": other}
        for prompt, one, other in zip(prompts, texts[::2], texts[1::2], strict=True)
        if one.strip() and other.strip() and one != other
    ]
    found = prefero.inspect(mine, model=folder)["on_policy"]
    for measure in found.measures:
        assert abs(measure.value) < 0.5 and 0 in measure.interval
    assert found.level == "fine"
    foreign = [
        {"prompt": prompt, "chosen": " a" * draw.randint(8, 20), "rejected": " b" * draw.randint(8, 20)}
        for prompt in prompts
    ]
    found = prefero.inspect(foreign, model=folder)["on_policy"]
    for measure in found.measures:
        assert measure.interval.low > 0.2


def test_own_samples_go_on_from_the_contexts_of_the_data(monkeypatch):
    """Also where the data are written by a training template."""
    drawn = []

    def kept(*arguments, **settings):
        drawn.extend(sample(*arguments, **settings))
        return drawn

    monkeypatch.setattr("prefero.doctor.policy.sample", kept)
    tokenizer = tokenizer_of("qwen3")
    policy = Policy.of(small_model(tokenizer), tokenizer)
    policy.read(Examples([ON, ONE]), [0, 1])
    assert policy.tokens.writing.template == "qwen3"
    assert policy.on_policy is not None
    contexts = [tokens.cells[0].context.tolist() for tokens in policy.tokens]
    assert [one.context.tolist() for one in drawn] == contexts


def test_what_is_cut_off_is_counted_by_the_tokenizer(folder, rows):
    found = prefero.inspect(rows, model=folder, max_length=12)["truncation"]
    counted = tokenize(
        prefero.load_examples(rows), tiny_tokenizer(), roles=("chosen", "rejected"), max_length=12
    )
    assert found.rows == tuple(i for i, one in enumerate(counted) if one.truncated)
    assert "estimated" not in found.sample
    whole = tokenize(prefero.load_examples(rows), tiny_tokenizer(), roles=("chosen", "rejected"))
    longest = max(len(c.context) + len(c.response) for one in whole for c in one.cells)
    assert f"data.max_length={longest}" in found.remedies[0].command


def test_pairs_that_training_leaves_out_are_not_scored(folder, rows):
    kept = prefero.inspect(rows, model=folder, max_length=12, too_long="drop")
    cut = kept["truncation"]
    assert cut.rows == prefero.inspect(rows, model=folder, max_length=12)["truncation"].rows
    assert 0 < len(cut.rows) < len(rows) and "they are left out" in cut.message
    assert kept["reference"].measures[0].of == len(rows) - len(cut.rows)
    assert not {row.row - 1 for row in kept.preview.rows} & set(cut.rows)
    with pytest.raises(PreferoError, match=r"all pairs that were looked at \(\d+\) have more than"):
        prefero.inspect(rows, model=folder, max_length=2, too_long="error")


def test_a_model_without_room_is_not_recommended_to_have_it(folder):
    rows = [{**row, "prompt": " a" * 100} for row in pairs(20)]
    found = prefero.inspect(rows, model=folder)["truncation"]
    assert "this one has 64" in found.remedies[0].what and not found.remedies[0].command


def test_some_pairs_are_scored_and_it_says_so(folder, rows):
    found = prefero.inspect(rows, model=folder, rows=30)["reference"]
    assert found.measures[0].of == 30 and "30 of 60 pairs" in found.sample
    again = prefero.inspect(rows, model=folder, rows=30)["reference"]
    assert again.measures == found.measures


def test_few_pairs_tell_nothing_of_the_model(folder, rows):
    found = prefero.inspect(rows, model=folder, rows=10)
    assert "reference" not in found and "cost" in found
    assert any("10 pairs (--rows) are too few" in skipped.reason for skipped in found.unasked)
    assert "--model" not in found.commands.without("duplicates")
    assert "--model" in found.commands.without("truncation")


def test_a_loaded_model_is_left_as_it_was(rows):
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = prefero.inspect(rows, model=model, processor=tiny_tokenizer(), rows=30)
    assert "reference" in found and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labelled_responses_are_not_scored(folder):
    rows = [{"prompt": "a b", "completion": " c d", "label": i % 2 == 0} for i in range(10)]
    found = prefero.inspect(rows, model=folder)
    assert "no pairs" in next(one.reason for one in found.unasked if "model" in one.title)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no/such-folder-here/x"}, "no model can be loaded"),
        ({"rows": 1}, "at least 2 pairs"),
        ({"max_length": 65}, "64 positions"),
    ],
)
def test_mistakes_come_before_the_data_are_read(folder, settings, message):
    def never():
        raise AssertionError("the data were read")
        yield

    with pytest.raises(PreferoError, match=message):
        prefero.inspect(never(), **{"model": folder, **settings})


def test_models_that_do_not_read_text_alone_are_refused():
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForMaskedLM(BertConfig(vocab_size=30, **sizes))
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    with pytest.raises(PreferoError, match="kind discrete_diffusion"):
        prefero.inspect(pairs(4), model=model, processor=tokenizer)


def test_on_the_command_line(folder, rows, tmp_path, monkeypatch, capfd):
    import sys

    from prefero.cli.main import run

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    words = "inspect pairs.jsonl --rows 60 --json --without reference_gap --save kept.jsonl --model"
    monkeypatch.setattr(sys, "argv", ["prefero", *words.split(), folder])
    with pytest.raises(SystemExit) as ended:
        run()
    found = json.loads(capfd.readouterr().out)
    assert ended.value.code == 0 and found["saved_rows"] == 30
    assert np.isfinite([one["measures"][0]["value"] for one in found["findings"]]).all()
    page = (tmp_path / "pairs-inspection.html").read_text()
    assert "What training will cost" in page
