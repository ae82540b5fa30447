"""The page ``families.md``: a row of each family of data sets, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from prefero.data.arrange import arrange
from prefero.data.formats import load_examples
from prefero.data.preview import Preview, preview_rows
from prefero.objectives import dry_run, from_config

ASKED, GOOD, BAD = "Name a sea.", "The North Sea.", "The Rhine."


def user(text: str = ASKED) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def said(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


FAMILIES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "TRL, with a prompt": ("dpo", [{"prompt": ASKED, "chosen": GOOD, "rejected": BAD}]),
    "TRL, conversations with the prompt in them; UltraFeedback binarized": (
        "dpo",
        [
            {
                "prompt": ASKED,
                "chosen": [user(), assistant(GOOD)],
                "rejected": [user(), assistant(BAD)],
                "score_chosen": 8.5,
                "score_rejected": 3.0,
            }
        ],
    ),
    "Anthropic HH": (
        "dpo",
        [
            {
                "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
                "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
            }
        ],
    ),
    "UltraFeedback": (
        "dpo",
        [
            {
                "instruction": ASKED,
                "completions": [
                    {"model": "a", "response": GOOD, "annotations": {"honesty": {"Rating": "5"}}},
                    {"model": "b", "response": BAD, "annotations": {"honesty": {"Rating": "1"}}},
                ],
            }
        ],
    ),
    "HelpSteer 2: two rows of one prompt": (
        "dpo",
        [
            {"prompt": ASKED, "response": BAD, "helpfulness": 1, "correctness": 1},
            {"prompt": ASKED, "response": GOOD, "helpfulness": 4, "correctness": 4},
        ],
    ),
    "HelpSteer 3, edits": (
        "dpo",
        [
            {
                "context": [user()],
                "original_response": "A sea.",
                "good_edited_response": GOOD,
                "bad_edited_response": BAD,
            }
        ],
    ),
    "HelpSteer 3": (
        "dpo",
        [
            {
                "domain": "general",
                "context": [user()],
                "response1": GOOD,
                "response2": BAD,
                "overall_preference": -2,
            }
        ],
    ),
    "SHP": (
        "dpo",
        [
            {
                "history": ASKED,
                "human_ref_A": BAD,
                "human_ref_B": GOOD,
                "labels": 0,
                "score_A": 3,
                "score_B": 10,
            }
        ],
    ),
    "Arena": (
        "dpo",
        [
            {
                "model_a": "m",
                "model_b": "n",
                "winner": "model_b",
                "conversation_a": [user(), assistant(BAD)],
                "conversation_b": [user(), assistant(GOOD)],
            }
        ],
    ),
    "Arena, the columns of the contest": (
        "dpo",
        [
            {
                "prompt": json.dumps([ASKED]),
                "response_a": json.dumps([BAD]),
                "response_b": json.dumps([GOOD]),
                "winner_model_a": 0,
                "winner_model_b": 1,
                "winner_tie": 0,
            }
        ],
    ),
    "MT-bench, judgements": (
        "dpo",
        [
            {
                "model_a": "m",
                "model_b": "n",
                "winner": "model_b",
                "conversation_a": [user(), assistant(BAD), user("Is it deep?"), assistant("No.")],
                "conversation_b": [user(), assistant(GOOD), user("Is it deep?"), assistant("Not very.")],
                "turn": 1,
            }
        ],
    ),
    "OpenAssistant, a message in each row": (
        "dpo",
        [
            {"message_tree_id": "t", "message_id": "1", "parent_id": None, "role": "prompter", "text": ASKED},
            {"message_tree_id": "t", "message_id": "2", "parent_id": "1", "role": "assistant", "text": BAD}
            | {"rank": 1},
            {"message_tree_id": "t", "message_id": "3", "parent_id": "1", "role": "assistant", "text": GOOD}
            | {"rank": 0},
        ],
    ),
    "OpenAI's preference format": (
        "dpo",
        [
            {
                "input": {"messages": [user()]},
                "preferred_output": [assistant(GOOD)],
                "non_preferred_output": [assistant(BAD)],
            }
        ],
    ),
    "Stack exchange, answers with scores": (
        "dpo",
        [{"question": ASKED, "answers": [{"text": BAD, "pm_score": 1}, {"text": GOOD, "pm_score": 5}]}],
    ),
    "Stack exchange pairs": ("dpo", [{"question": ASKED, "response_j": GOOD, "response_k": BAD}]),
    "PKU-SafeRLHF": (
        "dpo",
        [
            {
                "prompt": ASKED,
                "response_0": BAD,
                "response_1": GOOD,
                "better_response_id": 1,
                "safer_response_id": 1,
            }
        ],
    ),
    "WebGPT": (
        "dpo",
        [
            {
                "question": {"full_text": ASKED},
                "answer_0": BAD,
                "answer_1": GOOD,
                "score_0": -1.0,
                "score_1": 1.0,
            }
        ],
    ),
    "Summaries with a choice": (
        "dpo",
        [{"info": {"post": "A mill."}, "summaries": [{"text": BAD}, {"text": GOOD}], "choice": 1}],
    ),
    "LLaMA-Factory, pairs": (
        "dpo",
        [
            {
                "instruction": "Answer the question.",
                "input": ASKED,
                "system": "Be brief.",
                "history": [["Hello", "Hi!"]],
                "chosen": GOOD,
                "rejected": BAD,
            }
        ],
    ),
    "LLaMA-Factory, ShareGPT": (
        "dpo",
        [
            {
                "conversations": [said("human", ASKED)],
                "chosen": said("gpt", GOOD),
                "rejected": said("gpt", BAD),
            }
        ],
    ),
    "MS-Swift": ("dpo", [{"messages": [user(), assistant(GOOD)], "rejected_response": BAD}]),
    "KTO, messages with a label": ("kto", [{"messages": [user(), assistant(GOOD)], "label": True}]),
    "KTO, TRL": ("kto", [{"prompt": ASKED, "completion": BAD, "label": False}]),
    "Nectar": (
        "dpo",
        [
            {
                "prompt": f"\n\nHuman: {ASKED}\n\nAssistant: ",
                "answers": [{"answer": BAD, "rank": 2.0}, {"answer": GOOD, "rank": 1.0}],
            }
        ],
    ),
    "AlpacaFarm": (
        "dpo",
        [{"instruction": ASKED, "input": "", "output_1": BAD, "output_2": GOOD, "preference": 2}],
    ),
    "distilabel": (
        "dpo",
        [{"system": "", "input": ASKED, "chosen": GOOD, "rejected": BAD, "rating": [9, 4]}],
    ),
    "distilabel, UltraFeedback preferences": (
        "dpo",
        [
            {
                "instruction": ASKED,
                "chosen-response": GOOD,
                "rejected-response": BAD,
                "chosen-rating": 5.0,
                "rejected-rating": 2.0,
            }
        ],
    ),
    "UltraInteract": (
        "dpo",
        [
            {
                "trajectory": [said("user", ASKED), said("assistant", "Which one?"), said("user", "Any.")],
                "chosen": GOOD,
                "rejected": BAD,
            }
        ],
    ),
    "Step-DPO": (
        "dpo",
        [
            {
                "prompt": "What is 2 + 3 · 4?",
                "initial_reason_steps": "Step 1: Multiply first.\nStep 2: ",
                "chosen": "3 · 4 = 12.",
                "rejected": "2 + 3 = 5.",
                "full_chosen": "…",
            }
        ],
    ),
    "Orca": ("dpo", [{"system": "Be brief.", "question": ASKED, "chosen": GOOD, "rejected": BAD}]),
    "Auto-J": ("dpo", [{"prompt": ASKED, "response 1": GOOD, "response 2": BAD, "label": 0}]),
    "RewardBench": (
        "dpo",
        [{"prompt": ASKED, "chosen": GOOD, "chosen_model": "a", "rejected": BAD, "rejected_model": "b"}],
    ),
    "RewardBench 2": (
        "dpo",
        [{"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD, "The Alps.", "I do not know."]}],
    ),
    "Prometheus": (
        "dpo",
        [
            {
                "orig_instruction": ASKED,
                "orig_response_A": BAD,
                "orig_response_B": GOOD,
                "orig_score_A": "1",
                "orig_score_B": "4",
                "orig_preference": "B",
                "instruction": "Compare two responses.",
            }
        ],
    ),
    "JudgeLM": (
        "dpo",
        [
            {
                "question_body": ASKED,
                "answer1_body": BAD,
                "answer2_body": GOOD,
                "score": [{"score": 3.0}, {"score": 9.0}],
            }
        ],
    ),
    "PandaLM, votes of annotators": (
        "dpo",
        [{"instruction": ASKED, "input": "", "response1": GOOD, "response2": BAD, "annotator1": 1}],
    ),
    "BeaverTails": ("kto", [{"prompt": ASKED, "response": GOOD, "is_safe": True}]),
}
"""Rows of data sets, invented, with the method that reads them here."""


def page() -> str:
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Rows of published data sets"
    yield ""
    yield "A row of each family, and how it is read: `prefero preview` shows the same for your own data."
    yield "Columns that are not read are listed. [Data](data.md) has the layouts and the names of columns."
    for name, (method, rows) in FAMILIES.items():
        yield ""
        yield f"## {name}"
        yield ""
        yield "```json"
        yield from (json.dumps(row, ensure_ascii=False) for row in rows)
        yield "```"
        yield ""
        yield "```text"
        yield from _told(_read(method, rows))
        yield "```"


def _read(method: str, rows: list[dict[str, Any]]) -> Preview:
    needs = dry_run(from_config(method))
    examples = arrange(load_examples(rows), needs.roles, needs.columns, for_method=method)
    return preview_rows(examples, needs.roles, len(examples))


def _told(preview: Preview) -> Iterator[str]:
    (row,) = preview.rows
    yield f"layout: {preview.layout}"
    for name, text in row.texts():
        yield f"{name}: {text}".replace("\n", "\n    ")
    for name, value in row.columns.items():
        yield f"{name}: {value}"
    yield from row.notes
    if row.unread:
        yield f"not read: {', '.join(row.unread)}"
