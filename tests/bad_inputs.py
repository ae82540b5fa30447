"""Bad inputs, drawn from a seed: files of rows, recipes, settings and models, damaged at random, and in ways
of which the message is known."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import pyarrow.parquet

ROWS = [
    {"prompt": f"Question {n}, größer?", "chosen": f"Yes, {n}.", "rejected": "No.", "chosen_score": n + 2.5}
    for n in range(4)
]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 5, 1e400, float("nan"), 10**400, "", " ", "\x00", "￾", "é", [], {}, [[]], [None], [5],
    {"": ""}, {"role": 5}, [{"role": "user"}], [{"content": None}], "[{", "{'a': 1}", "[" * 3000, ["a", "b"],
)  # fmt: skip
"""Values in place of a field's."""


@dataclass(frozen=True)
class BadInput:
    """Files, a command that reads them, and ``words`` that one line of its message has; without words the
    damage may be harmless. ``records`` are the rows of the file, where that is known."""

    name: str
    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    records: int | None = None


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to three changes of bytes: flipped, cut out, put in, repeated, or the end cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        until = min(at + draw.randint(1, 9), len(data))
        match draw.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = draw.randbytes(draw.randint(1, 4))
            case 3:
                data[at:at] = data[at:until] * draw.randint(1, 3)
            case _ if at:
                del data[at:]
    return bytes(data)


def lines(rows: list[str]) -> bytes:
    return "".join(row + "\n" for row in rows).encode("utf-8", "surrogatepass")


def table(columns: dict[str, Any], names: list[str] | None = None) -> bytes:
    file = io.BytesIO()
    arrays = [
        value if isinstance(value, pyarrow.Array) else pyarrow.array(value) for value in columns.values()
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names or list(columns)), file)
    return file.getvalue()


def of_columns() -> dict[str, list[Any]]:
    return {name: [row[name] for row in ROWS] for name in ROWS[0]}


def as_csv(mark: str = ",") -> list[str]:
    return [mark.join(ROWS[0]), *(mark.join(f'"{value}"' for value in row.values()) for row in ROWS)]


def bad_rows() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Names, rows of JSON, and the words of their messages."""
    good = json.dumps(ROWS[1])
    chosen = json.dumps(ROWS[1]["chosen"])
    yield "twice", good[:-1] + ', "chosen": "again"}', ("chosen", "twice")
    yield "twice inside", good.replace(chosen, '{"a": 1, "a": 2}'), ("chosen", "'a'", "twice")
    for depth in (120, 3000, 100_000):
        yield f"{depth} deep", good.replace(chosen, "[" * depth + "]" * depth), ("nested more than",)
    yield "digits", good.replace(chosen, "7" * 5000), ("digits",)
    yield "half", good.replace(chosen, '"c\\udfff"'), ("chosen", "half a character")
    yield "half inside", good.replace(chosen, '[{"role": "\\ud800"}]'), ("chosen.0.role", "half a character")
    yield "half a name", good.replace("chosen", "chosen\\ud800", 1), ("half a character",)
    yield "a number", "5", ("an object",)
    yield "cut off", good[:-9], ("broken JSON",)


def known_files(draw: random.Random) -> Iterator[BadInput]:
    preview = ("preview", "{file}", "--json", "--rows", "9")

    def case(name: str, file: str, content: bytes, *words: str) -> BadInput:
        arguments = tuple(part.format(file=file) for part in preview)
        return BadInput(f"{name} in {file}", arguments, {file: content}, (file, *words))

    good = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    for name, row, words in bad_rows():
        rows = [good[0], row, *good[2:]]
        yield case(name, "rows.jsonl", lines(rows), "row 2", *words)
        yield case(name, "rows.jsonl.gz", gzip.compress(lines(rows)), "row 2", *words)
        yield case(name, "rows.json", f"[{', '.join(rows)}]".encode(), "row 2", *words[-1:])
    latin = [*good[:1], good[1].encode().replace("ö".encode(), b"\xf6").decode("utf-8", "surrogateescape")]
    content = "\n".join(latin).encode("utf-8", "surrogateescape")
    yield case("Latin 1", "rows.jsonl", content, "row 2", "not UTF-8")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        for file, text in (("rows.jsonl", "\n".join(good)), ("rows.csv", "\n".join(as_csv()))):
            yield case(encoding, file, text.encode(encoding), "UTF-")
    columns = json.dumps(of_columns())
    yield case("column twice", "rows.json", f'{columns[:-1]}, "chosen": ["a"]}}'.encode(), "chosen", "twice")
    for file, mark in (("rows.csv", ","), ("rows.tsv", "\t"), ("rows.csv", ";")):
        header, *cells = as_csv(mark)
        repeated = header.replace("rejected", "chosen")
        yield case("column twice", file, lines([repeated, *cells]), "chosen", "twice")
        yield case("more cells", file, lines([header, cells[0], cells[1] + mark + "x"]), "row 2", "more cell")
        yield case("fewer cells", file, lines([header, cells[0], '"a"']), "row 2", "rejected")
        yield case("open quote", file, lines([header, cells[0], '"a']), "row 2", "broken CSV")
    offsets, texts = pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pyarrow.py_buffer(b"a\xff\xfe")
    broken = {"prompt": ["a", "b"], "chosen": pyarrow.StringArray.from_buffers(2, offsets, texts)}
    broken["rejected"] = ["c", "d"]
    yield case("no UTF-8", "rows.parquet", table(broken), "row 2", "chosen", "not UTF-8")
    names = ["prompt", "chosen", "chosen", "chosen_score"]
    yield case("column twice", "rows.parquet", table(of_columns(), names), "chosen", "twice")
    whole = table(of_columns())
    yield case("cut off", "rows.parquet", whole[: draw.randrange(8, len(whole) - 1)], "Parquet")
    for file in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        yield case("nothing", file, b"", "empty")


def random_file(draw: random.Random) -> BadInput:
    good = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    contents: dict[str, Callable[[], bytes]] = {
        "rows.jsonl": lambda: lines(good),
        "rows.json": lambda: f"[{', '.join(good)}]".encode(),
        "columns.json": lambda: json.dumps(of_columns()).encode(),
        "rows.csv": lambda: lines(as_csv()),
        "rows.tsv": lambda: lines(as_csv("\t")),
        "rows.jsonl.gz": lambda: gzip.compress(lines(good), mtime=0),
        "rows.parquet": lambda: table(of_columns()),
    }
    file = draw.choice(list(contents))
    records = None
    if draw.random() < 0.5:
        content = damaged(contents[file](), draw)
        if file == "rows.jsonl":
            records = sum(1 for line in content.split(b"\n") if line.strip())
    else:
        file, records = "rows.jsonl", len(ROWS)
        rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
        for _ in range(draw.randint(1, 2)):
            rows[draw.randrange(len(rows))][draw.choice(list(ROWS[0]))] = draw.choice(ODD)
        content = lines([json.dumps(row, ensure_ascii=draw.random() < 0.5) for row in rows])
    arguments = ("preview", file, "--json", "--rows", "99")
    return BadInput("random file", arguments, {file: content}, records=records)


RECIPE = """model: {name: ./absent, dtype: float32, lora: {r: 4, target_modules: [q_proj]}}
data: {train: rows.jsonl, max_length: 64, columns: {prompt: prompt}}
objective: {method: dpo, beta: 0.3}
training: {max_steps: 1, learning_rate: 1e-6, samples: 0, lr_scheduler_kwargs: {}}
output: run
"""

KNOWN_RECIPES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("output: run", "output: run\noutput: other", ("line 6", "output", "twice")),
    ("{method: dpo,", "{method: dpo, method: ipo,", ("line 3", "objective.method", "twice")),
    ("{method: dpo,", "&o {method: dpo, plus: *o,", ("line 3", "alias")),
    ("max_steps: 1", "max_steps: &a [*a]", ("line 4", "alias")),
    ("beta: 0.3", "beta: " + "[" * 60 + "]" * 60, ("nested more than",)),
    ("beta: 0.3", "beta: " + "[" * 6000, ("nested more than",)),
    ("output: run", 'output: "\\ud800"', ("line 5", "half a character")),
    ("output: run", "output: !!int x", ("line 5",)),
    ("output: run", "output: 2020-13-45", ("line 5", "month")),
    ("beta: 0.3", "beta: " + "9" * 5000, ("line 3", "digits")),
    ("output: run", "output: *nobody", ("line 5", "nobody")),
    ("output: run", "output: !!python/name:os.system ''", ("line 5",)),
    ("output: run", "outptu: run", ("outptu",)),
    ("[q_proj]", "'(('", ("target_modules", "expression")),
    ("max_steps: 1", "max_steps: one", ("training.max_steps",)),
    ("beta: 0.3", "beta: much", ("beta",)),
    ("learning_rate: 1e-6", "learning_rate: .inf", ("learning_rate",)),
    ("output: run", "output: " + "a" * 300, ("too long",)),
    ("output: run", "output: rows.jsonl/run", ("rows.jsonl",)),
)
REFERENCES = "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" if n else "x0: &x0 [1]\n" for n in range(9)
)
"""A few lines that stand for a hundred million values."""


def _of_recipe(name: str, content: bytes, words: tuple[str, ...] = ()) -> BadInput:
    files = {"recipe.yaml": content, "rows.jsonl": lines([json.dumps(row) for row in ROWS])}
    return BadInput(name, ("train", "recipe.yaml"), files, words)


def known_recipes() -> Iterator[BadInput]:
    for before, after, words in KNOWN_RECIPES:
        yield _of_recipe(f"recipe with {after[:40]}", RECIPE.replace(before, after, 1).encode(), words)
    yield _of_recipe("recipe of references", (RECIPE + REFERENCES).encode(), ("recipe.yaml", "aliases"))
    yield _of_recipe("recipe in UTF-16", RECIPE.encode("utf-16"), ("recipe.yaml", "not UTF-8"))
    yield _of_recipe("recipe of bytes", b"\x00\x01\x02", ("recipe.yaml",))
    yield _of_recipe("recipe of nothing", b"", ("recipe.yaml", "mapping"))


def random_recipe(draw: random.Random) -> BadInput:
    return _of_recipe("random recipe", damaged(RECIPE.encode(), draw))


KEYS = (
    "model.name", "model.kind", "model.options", "model.tokenizer", "model.revision", "model.dtype",
    "model.lora", "model.lora.r", "model.lora.target_modules", "model.adapter", "model.add_tokens",
    "model.trust_remote_code", "data.train", "data.eval", "data.columns", "data.format", "data.template",
    "data.max_length", "data.too_long", "data.map", "data.chat_template_kwargs", "data.seed", "objective",
    "objective.method", "objective.beta", "objective.plus", "objective.link", "reference",
    "reference.kind", "output", "training", "training.arguments", "training.max_steps",
    "training.learning_rate", "training.optim", "training.optim_args", "training.seed",
    "training.data_seed", "training.adam_beta1", "training.lr_scheduler_type",
    "training.lr_scheduler_kwargs", "training.warmup_steps", "training.save_steps",
    "training.logging_steps", "training.report_to", "training.eval_strategy", "training.num_train_epochs",
    "training.examples_per_step", "training.layout", "training.tokens_per_row", "training.max_grad_norm",
    "training.weight_decay", "training.log_level", "training.gradient_checkpointing",
    "training.activation_checkpointing", "training.dataloader_num_workers",
    "training.resume_from_checkpoint", "training.samples", "training.neftune_noise_alpha",
    "training.bf16", "training.accelerator_config", "training.fsdp", "training.deepspeed",
    "training.hub_strategy", "models",
)  # fmt: skip
VALUES = (
    "", "null", "true", "0", "-1", "5", "1e300", "1e400", ".nan", "-.inf", "1" * 400, "x", "''", "[]", "{}",
    "[x]", "{x: 1}", "{1: 2}", "[[]]", "[1, two]", "'(('", "a" * 300, "../x", "/", "é", "\udcff",
    "2020-01-01", "[{a: [{b: 1}]}]", "module:function", "os:system", "\x00", "a=b", "*a",
    "!!binary x", "'\\ud800'",
)  # fmt: skip


def random_setting(draw: random.Random) -> BadInput:
    count = draw.randint(1, 2)
    settings = [f"{draw.choice(KEYS)}={draw.choice(VALUES)}" for _ in range(count)]
    bad = _of_recipe("random settings", RECIPE.encode())
    return BadInput(f"settings {settings!a:.80}", (*bad.arguments, *settings), bad.files)


def of_the_command_line(count: int, seed: int) -> list[BadInput]:
    """Every known damage, and ``count`` of each random kind."""
    draw = random.Random(seed)
    known = [*known_files(draw), *known_recipes()]
    kinds = (random_file, random_recipe, random_setting)
    return known + [kind(draw) for kind in kinds for _ in range(count)]


def bad_models(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Folders of a model in which one file is damaged: bytes of any, values of JSON. Values are small, as a
    model of a changed size is made before its weights are compared."""
    draw = random.Random(seed)
    for _ in range(count):
        name = draw.choice(sorted(files))
        content = damaged(files[name], draw)
        if name.endswith(".json") and draw.random() < 0.7:
            settings = json.loads(files[name])
            key = draw.choice(sorted(settings))
            small = (None, True, -1, 0, 3, 1.5, "", "x", [], {}, [1], {"a": {}})
            settings[key] = draw.choice(small)
            content = json.dumps(settings).encode()
            yield f"{name}: {key} = {settings[key]!r}", files | {name: content}
        else:
            yield f"{name}, bytes", files | {name: content}
