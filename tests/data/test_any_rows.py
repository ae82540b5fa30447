"""Whatever rows hold, the user gets examples or an error meant for the user, never a traceback."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st
from transformers import PreTrainedTokenizerFast

from prefero.data.files import read_file
from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from tests.data.test_formats import LAYOUT_ROWS

NAMES = sorted(
    {name for rows in LAYOUT_ROWS.values() for name in rows[0]} | {"score", "tools", "system", "tie"}
)

plain = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(width=16)
    | st.sampled_from(["", "a", "7.5", "[1]", "[", '[{"role": "user"}]', "\n\nHuman: a\n\nAssistant: b"])
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", None])},
        optional={"content": plain | st.just("hello"), "tool_calls": plain},
    ),
    max_size=3,
)
marked = st.fixed_dictionaries(
    {}, optional={"is_correct": plain, "solution": plain, "response": plain, "rating": plain}
)
values = st.recursive(
    plain | messages | marked,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "Rating"]), inner),
    max_leaves=6,
)


@st.composite
def changed_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Good rows of one layout, then one with a few fields replaced, removed or added."""
    rows = draw(st.sampled_from(sorted(LAYOUT_ROWS)).map(LAYOUT_ROWS.__getitem__))
    changed = dict(rows[0])
    for name in draw(st.lists(st.sampled_from([*changed, *NAMES]), min_size=1, max_size=3)):
        if draw(st.booleans()):
            changed[name] = draw(values)
        else:
            changed.pop(name, None)
    return [*rows, changed]


@settings(max_examples=400, deadline=None)
@given(rows=changed_rows() | st.lists(st.dictionaries(st.sampled_from(NAMES), values), max_size=3))
def test_any_rows(
    base: PreTrainedTokenizerFast, chatml: PreTrainedTokenizerFast, rows: list[dict[str, Any]]
) -> None:
    with contextlib.suppress(PreferoError):
        load_examples(rows)
    with contextlib.suppress(PreferoError):
        examples = load_examples(rows, skip_bad_rows=True)
        for tokenizer in (base, chatml):
            for roles in (("chosen", "rejected"), ()):
                with contextlib.suppress(PreferoError):
                    for example in tokenize(examples, tokenizer, roles=roles, max_length=24):
                        assert all(len(cell.context) and len(cell.response) for cell in example.cells)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=60) | st.text(st.sampled_from('[]{}",:1a\n \\')).map(str.encode),
    ending=st.sampled_from([".jsonl", ".json", ".csv", ".jsonl.gz", ".parquet"]),
)
def test_any_bytes(tmp_path_factory: Any, data: bytes, ending: str) -> None:
    path: Path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(data)
    with contextlib.suppress(PreferoError):
        for row in read_file(path):
            assert row.problem or json.dumps(list(row.fields)) is not None
