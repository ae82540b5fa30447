"""Chat templates in the manner of well-known models, written anew, each with what is known of it beforehand.

What an assistant's turn says, its end mark included, stands between ``{% generation %}`` tags, from which
transformers tells the ranges; models' own templates mostly lack the tags, so :attr:`Template.source` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Template:
    """A chat template: ``tagged`` with generation tags, the special tokens that it needs (``marks``), the
    model's end token ``eos``, the text ``closing`` behind what an assistant says (with its end mark, if it
    has one), and the thought that its generation prompt ``opens``. ``keeps_tags`` leaves the tags in the
    model's template; ``forgets`` tells that earlier turns change when later ones follow."""

    tagged: str
    closing: str
    eos: str = "</s>"
    marks: tuple[str, ...] = ()
    opens: str = ""
    keeps_tags: bool = False
    forgets: bool = False

    @cached_property
    def source(self) -> str:
        return self.tagged if self.keeps_tags else re.sub(r"\{%-? (end)?generation -?%\}", "", self.tagged)

    @property
    def has_end(self) -> bool:
        return bool(self.closing.strip())

    def render(self, tokenizer: Any, messages: Messages, **options: Any) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the range of each of the assistant's turns."""
        tokens = {**tokenizer.special_tokens_map, **options.pop("others", {})}
        texts, ranges = render_jinja_template(
            [messages], chat_template=self.tagged, return_assistant_tokens_mask=True, **tokens, **options
        )
        return texts[0], ranges[0]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)

ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

ALTERNATE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user, assistant, user, …') }}{% endif %}{% endfor %}"
)

LLAMA_2 = ALTERNATE + (
    "{% for m in turns %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ m.content | trim }}"
    " [/INST]{% else %}{% generation %} {{ m.content | trim }} {{ eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
)

MISTRAL = ALTERNATE + (
    "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and system %}{{ system }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %}{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)

UNSPACED = ALTERNATE + (
    "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}[INST]"
    "{% if loop.first and system %}{{ system }}\n{% endif %}{{ m.content }}[/INST]"
    "{% else %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}<|eot_id|>{% endgeneration %}"
    "{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

DATED = LLAMA_3.replace(
    "{% for",
    "<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}<|eot_id|>{% for",
    1,
)

GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'assistant' %}<start_of_turn>model\n"
    "{% generation %}{{ m.content | trim }}<end_of_turn>{% endgeneration %}{{ '\n' }}"
    "{% else %}<start_of_turn>user\n{{ m.content | trim }}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

LAST_QUESTION = (
    "{% set at = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set at.last = loop.index0 %}{% endif %}{% endfor %}"
)

THINKING = LAST_QUESTION + (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set text = m.content or '' %}{% set thought = m.reasoning_content or '' %}"
    "{% if not thought and '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% generation %}{% if loop.index0 > at.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
    "{% endif %}{{ text }}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

OPENS_THOUGHT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|Assistant|>{% generation %}{{ m.content.split('</think>')[-1] }}"
    "<|end_of_sentence|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)

TOOLS = (
    "{% if tools %}<|im_start|>system\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% elif m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content or '' }}{% for call in m.tool_calls or [] %}\n<tool_call>\n"
    "{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

VICUNA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }} {% else %}A chat between two. {% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}ASSISTANT:"
    "{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% elif m.role != 'system' %}{{ m.role | upper }}: {{ m.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

NO_END = (
    "{% for m in messages %}{% if m.role == 'assistant' %}### Response:\n"
    "{% generation %}{{ m.content }}{% endgeneration %}{{ '\n\n' }}"
    "{% else %}### {{ m.role | capitalize }}:\n{{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)

BARE = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

OTHER_END = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

LAST_MARK = OTHER_END.removesuffix("{% endif %}") + "{% else %}{{ eos_token }}{% endif %}"

LAST_END = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n"
    "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

ONE_END = (
    "{% for m in messages %}{% if m.role == 'assistant' %}Bot:"
    "{% generation %} {{ m.content }}{% if loop.last %}{{ eos_token }}{% endif %}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ m.role | capitalize }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Bot:{% endif %}"
)

CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant"
    "{% generation %}{% if m.reasoning_content and loop.last %}<|channel|>analysis<|message|>"
    "{{ m.reasoning_content }}<|end|><|start|>assistant{% endif %}<|channel|>final<|message|>{{ m.content }}"
    "{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endgeneration %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)

CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

TEMPLATES = {
    "chatml": Template(CHATML, "<|im_end|>", "<|im_end|>", CHATML_MARKS),
    "chatml, generation tags": Template(CHATML, "<|im_end|>", "<|im_end|>", CHATML_MARKS, keeps_tags=True),
    "chatml, marks that are no tokens": Template(CHATML, "<|im_end|>"),
    "chatml, default system": Template(DEFAULT_SYSTEM + CHATML, "<|im_end|>", "<|im_end|>", CHATML_MARKS),
    "zephyr": Template(ZEPHYR, "</s>"),
    "llama 2": Template(LLAMA_2, " </s>"),
    "mistral": Template(MISTRAL, "</s>"),
    "unspaced": Template(UNSPACED, "</s>", marks=("[INST]", "[/INST]")),
    "llama 3": Template(LLAMA_3, "<|eot_id|>", "<|eot_id|>", HEADERS),
    "dated": Template(DATED, "<|eot_id|>", "<|eot_id|>", HEADERS),
    "gemma": Template(GEMMA, "<end_of_turn>", "<eos>", ("<start_of_turn>", "<end_of_turn>", "<eos>")),
    "thinking": Template(THINKING, "<|im_end|>", "<|im_end|>", CHATML_MARKS, forgets=True),
    "opens a thought": Template(
        OPENS_THOUGHT,
        "<|end_of_sentence|>",
        "<|end_of_sentence|>",
        ("<|User|>", "<|Assistant|>", "<|end_of_sentence|>"),
        opens="<think>\n",
    ),
    "tools": Template(TOOLS, "<|im_end|>", "<|im_end|>", CHATML_MARKS),
    "vicuna": Template(VICUNA, "</s>"),
    "no end": Template(NO_END, ""),
    "bare": Template(BARE, ""),
    "another end": Template(OTHER_END, "<|end|>", "<|eos|>", ("<|end|>", "<|eos|>")),
    "another end, and one of the text": Template(
        LAST_MARK, "<|end|>", "<|eos|>", ("<|user|>", "<|assistant|>", "<|end|>", "<|eos|>")
    ),
    "last end": Template(LAST_END, "</s>"),
    "one end": Template(ONE_END, "</s>", forgets=True),
    "channels": Template(
        CHANNELS,
        "<|return|>",
        "<|return|>",
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        forgets=True,
    ),
}
