"""Bad inputs, drawn from a seed: files of rows, recipes, settings, models and replies of endpoints, damaged
at random, and in ways of which the message is known."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies

from prefero.objectives import methods
from prefero.objectives.slots import SLOTS
from prefero.sections import sections_in
from prefero.training.config import Settings, TrainConfig

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
    damage may be harmless. ``records`` are the rows of the file, where that is known. ``places`` are names of
    which a message has one."""

    name: str
    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    records: int | None = None
    places: tuple[str, ...] = ()


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
        yield case("fewer cells", file, lines([header, cells[0], '"a"']), "row 2", "fewer cells")
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


NO_MODEL = "absent"
"""In the message of a recipe without another mistake, as the model that it names is not there."""


def of_settings(name: str, *settings: str) -> BadInput:
    """A recipe with settings, whose message names one of them, or the model, which is looked for later."""
    keys = [setting.partition("=")[0] for setting in settings]
    places = (
        NO_MODEL,
        "too long",
        *keys,
        *(key.rpartition(".")[2] for key in keys),
        *(f"'{key}" for key in keys),
    )
    bad = _of_recipe(name, RECIPE.encode())
    return replace(bad, arguments=(*bad.arguments, *settings), places=places)


def random_setting(draw: random.Random) -> BadInput:
    settings = [f"{draw.choice(KEYS)}={draw.choice(VALUES)}" for _ in range(draw.randint(1, 2))]
    return replace(of_settings(f"settings {settings!a:.80}", *settings), places=())


NUMBERS = (
    ".nan", "-.inf", "1e400", "-1", "0", "-0.0", "1e-320", "1.5", "9" * 400, "9" * 5000, "true", "null", "x",
    "''", "[]", "[1]", "{}", "0x10", "1_000", "'1'", "2020-01-01",
)  # fmt: skip
WRONG_SECTIONS = (
    "", "null", "true", "5", "1e400", "x", "''", "[]", "[1]", "[[x]]", "{}", "{x: 1}", "[{x: 1}]",
    "{x: {x: {}}}", "2020-01-01", "a" * 400, "/", "{1: 2}", "{? [a] : 1}", "{null: 1}", "!!binary aGk=",
    "*x", "'\\ud800'",
)  # fmt: skip
METHODS = (
    "dpo", "ipo", "simpo", "kto", "orpo", "discopop", "expression", "gpm", "multi_dpo", "spo_self_supervised",
    "beta_dpo", "odpo",
)  # fmt: skip


def numeric_settings() -> Iterator[BadInput]:
    """Every setting of the trainer that is a number, with each odd value."""
    for name, setting in Settings.model_fields.items():
        if re.search(r"\b(int|float)\b", str(setting.annotation)):
            for value in NUMBERS:
                yield of_settings(f"training.{name}={value:.20}", f"training.{name}={value}")


def sections(section: Any = TrainConfig, above: str = "") -> Iterator[BadInput]:
    """Every section of a recipe, those inside others too, with values of other types."""
    for name, inner in sections_in(section).items():
        for value in WRONG_SECTIONS:
            yield of_settings(f"{above}{name}={value:.20}", f"{above}{name}={value}")
        yield from sections(inner, f"{above}{name}.")


def method_arguments() -> Iterator[tuple[str, str, str]]:
    """Every argument of some methods, and every slot, with odd values: the method, the name, and the value as
    YAML has it."""
    for method in METHODS:
        names = [*methods()[method].parameters, *SLOTS, "plus", "coefficient", "settings", "no_argument"]
        yield from ((method, name, value) for name in names for value in (*NUMBERS, *WRONG_SECTIONS))


def of_settings_alone() -> list[BadInput]:
    """All odd values of settings."""
    of_methods = [
        of_settings(
            f"{method}, {name}={value:.20}", f"objective.method={method}", f"objective.{name}={value}"
        )
        for method, name, value in method_arguments()
    ]
    named = [
        replace(bad, places=(*bad.places, bad.name.partition(",")[0]))
        for bad in random.Random(0).sample(of_methods, 300)
    ]
    return [*numeric_settings(), *sections(), *named]


def of_the_command_line(count: int, seed: int) -> list[BadInput]:
    """Every known damage, and ``count`` of each random kind."""
    draw = random.Random(seed)
    known = [*known_files(draw), *known_recipes()]
    kinds = (random_file, random_recipe, random_setting)
    return known + [kind(draw) for kind in kinds for _ in range(count)]


TEMPLATES = {
    "syntax": ("{% for m in messages %}", "chat template"),
    "statement": ("{% nothing %}", "chat template"),
    "refuses": ("{{ raise_exception('never') }}", "row 1"),
    "a division": ("{{ 1 / 0 }}", "row 1"),
    "a large range": ("{% for i in range(10**9) %}x{% endfor %}", "row 1"),
    "an attribute": ("{{ messages.__class__.__mro__ }}", "row 1"),
    "itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "row 1"),
}
"""Chat templates that write nothing, with a word of the message."""


def bad_templates(files: dict[str, bytes]) -> Iterator[BadInput]:
    """Models whose chat template is no template, or refuses every conversation."""
    rows = lines([json.dumps({**row, "prompt": [{"role": "user", "content": "?"}]}) for row in ROWS])
    settings = json.loads(files["tokenizer_config.json"])
    for name, (template, word) in TEMPLATES.items():
        changed = json.dumps({**settings, "chat_template": template}).encode()
        model = {f"model/{file}": content for file, content in files.items()}
        model["model/tokenizer_config.json"] = changed
        arguments = ("preview", "rows.jsonl", "--model", "model", "--json")
        yield BadInput(f"template: {name}", arguments, {**model, "rows.jsonl": rows}, (word,))


SMALL: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    1.5,
    "",
    "x",
    [],
    {},
    [1],
    {"a": {}},
    "1e400",
    [[]],
    {"": None},
)
"""Values of settings of a model, which is made in the changed size before its weights are compared."""

HUGE: tuple[Any, ...] = (10**400, 10**15, -(10**15), 1e308, float("nan"), float("inf"), "\ud800", "[" * 3000)
"""Values that no size of a model may have."""


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: Any, rest: bytes, size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + rest


def bad_weights(content: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Files of weights whose header says what is not so, that end early, or hold no numbers; with a word of
    the message."""
    header, rest = header_of(content)
    first = next(name for name in header if name != "__metadata__")
    start, end = header[first]["data_offsets"]

    def lying(**changes: Any) -> bytes:
        return with_header({**header, first: {**header[first], **changes}}, rest)

    yield "nothing", b"", "cannot be read"
    yield "a size alone", content[:8], "cannot be read"
    yield "half of the header", content[:40], "cannot be read"
    yield "half of the weights", content[: len(content) // 2], "cannot be read"
    yield "one byte short", content[:-1], "cannot be read"
    yield "one byte more", content + b"\0", "cannot be read"
    yield "a header past the end", with_header(header, rest, 1 << 62), "cannot be read"
    yield "a header of nothing", with_header({}, b""), "lack"
    yield "a header that is a list", with_header([], rest), "cannot be read"
    yield "another shape", lying(shape=[1, 1]), "cannot be read"
    yield "a shape below zero", lying(shape=[-1, 4]), "cannot be read"
    yield "a huge shape", lying(shape=[1 << 40, 1 << 40]), "cannot be read"
    yield "an unknown type", lying(dtype="F99"), "cannot be read"
    yield "another type", lying(dtype="F16"), "cannot be read"
    yield "offsets past the end", lying(data_offsets=[start, end + (1 << 40)]), "cannot be read"
    yield "offsets turned round", lying(data_offsets=[end, start]), "cannot be read"
    yield "offsets inside others", lying(data_offsets=[start + 4, end + 4]), "cannot be read"
    renamed = {("no." if name == first else "") + name: entry for name, entry in header.items()}
    yield "another name", with_header(renamed, rest), first
    lacking = {name: entry for name, entry in header.items() if name != first}
    yield "a weight less", with_header(lacking, rest), "cannot be read"
    for name, number in (("NaN", b"\0\0\xc0\x7f"), ("infinity", b"\0\0\x80\x7f")):
        yield name, with_header(header, rest[:start] + number + rest[start + 4 :]), "infinite"


def bad_models(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Folders of a model in which one file is damaged, or missing: bytes of any, values of JSON."""
    draw = random.Random(seed)
    for _ in range(count):
        name = draw.choice(sorted(files))
        content = damaged(files[name], draw)
        kind = draw.random()
        if name.endswith(".json") and kind < 0.7:
            settings = json.loads(files[name])
            key = draw.choice(sorted(settings))
            values = HUGE if draw.random() < 0.2 else SMALL
            settings[key] = draw.choice(values)
            content = json.dumps(settings).encode()
            yield f"{name}: {key} = {settings[key]!r:.80}", files | {name: content}
        elif kind > 0.95:
            yield f"{name}, missing", {other: files[other] for other in files if other != name}
        elif kind > 0.9:
            yield f"{name}, other text", files | {name: draw.choice([b"", b"null", b"[]", b"5", b"[" * 9999])}
        else:
            yield f"{name}, bytes", files | {name: content}


ADAPTER_SETTINGS: tuple[tuple[str, Any], ...] = (
    ("base_model_name_or_path", None), ("base_model_name_or_path", 5), ("base_model_name_or_path", ""),
    ("r", 8), ("r", 0), ("r", -1), ("r", "x"), ("r", 10**400), ("lora_alpha", "x"), ("lora_alpha", None),
    ("lora_alpha", float("nan")), ("lora_alpha", float("inf")), ("target_modules", ["none"]),
    ("target_modules", "(("), ("target_modules", 5), ("modules_to_save", ["lm_head"]), ("peft_type", "NONE"),
    ("peft_type", None), ("task_type", "NONE"), ("bias", "none of these"), ("rank_pattern", 5),
    ("rank_pattern", {"(": 3}), ("layers_to_transform", [99]), ("use_dora", True), ("lora_dropout", 2),
    ("lora_dropout", "x"), ("init_lora_weights", "x"), ("auto_mapping", {"parent_library": "os"}),
)  # fmt: skip
"""Settings of adapters that do not go with their weights, or with any."""


def bad_adapters(files: dict[str, bytes]) -> Iterator[tuple[str, dict[str, bytes], str]]:
    """Folders of LoRA adapters whose configuration or weights are something else; with a word of the
    message."""
    known = json.loads(files["adapter_config.json"])
    for key, value in ADAPTER_SETTINGS:
        content = json.dumps({**known, key: value}).encode()
        yield f"{key} = {value!r:.40}", {**files, "adapter_config.json": content}, "adapters"
    for content in (b"", b"[]", b"5", b"[" * 9999, files["adapter_config.json"][:50]):
        yield f"configuration {content[:9]!r}", {**files, "adapter_config.json": content}, "adapter"
    for name, content, word in bad_weights(files["adapter_model.safetensors"]):
        told = word if word == "infinite" else "adapters"
        yield f"weights: {name}", {**files, "adapter_model.safetensors": content}, told


KEYS_OF_REPLIES = strategies.sampled_from(
    ["loss", "beta", "objective", "method", "name", "thought", "plus", "weight", "coefficient", "", "x"]
)
JSON_VALUES = strategies.recursive(
    strategies.one_of(
        strategies.none(),
        strategies.booleans(),
        strategies.integers(),
        strategies.sampled_from([10**400, -(10**400), 0.1, 1, float("nan"), float("inf"), -0.0]),
        strategies.floats(),
        strategies.text(strategies.characters(), max_size=20),  # halves of characters too
        strategies.sampled_from(
            ["dpo", "expression", "softplus(-z)", "softplus(z)", "z ** 9", "</think>", "{"]
        ),
    ),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(KEYS_OF_REPLIES, inner, max_size=3)
    ),
    max_leaves=8,
)
"""Values of JSON as a model may write them."""


def _body(content: Any, message: dict[str, Any], beside: dict[str, Any], escaped: bool) -> bytes:
    body = {"choices": [{"message": {"content": content, **message}, **beside}]}
    return json.dumps(body, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


@strategies.composite
def replies(draw: strategies.DrawFn) -> bytes:
    """Replies of an endpoint around a proposal, or something like one, and whole ones that are damaged."""
    fields = strategies.dictionaries(KEYS_OF_REPLIES, JSON_VALUES, max_size=5)
    proposal = json.dumps(draw(fields | JSON_VALUES), ensure_ascii=draw(strategies.booleans()))
    around = strategies.sampled_from(
        ["", "Let me think {about it}. ", "<think>", "```json\n", "{" * 50, '{"a": ']
    )
    text = draw(around) + proposal + draw(around)
    content = draw(strategies.sampled_from([text, [{"type": "text", "text": text}]]) | JSON_VALUES)
    message = strategies.dictionaries(strategies.sampled_from(["refusal", "tool_calls"]), JSON_VALUES)
    beside = strategies.dictionaries(
        strategies.just("finish_reason"), JSON_VALUES | strategies.just("length")
    )
    body = _body(content, draw(message), draw(beside), draw(strategies.booleans()))
    return damaged(body, draw(strategies.randoms())) if draw(strategies.integers(0, 3)) == 3 else body
