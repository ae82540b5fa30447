"""Trees of messages, as OpenAssistant has them: every message that has ranked answers is an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from prefero.data.files import Row
from prefero.data.formats.fields import ROLES, Layout, is_blank
from prefero.data.formats.lists import read_list

USED = ("text", "role", "rank", "replies", "message_id", "parent_id", "message_tree_id", "deleted")


@dataclass(slots=True)
class Node:
    """A message of a tree, its fields as the data have them, and the messages that answer it."""

    origin: str
    message: Mapping[str, Any]
    replies: list[Node] = field(default_factory=list)

    @property
    def ranked(self) -> list[Node]:
        """The answers that annotators have ranked, deleted ones left out."""
        return [
            node
            for node in self.replies
            if not is_blank(node.message.get("rank")) and str(node.message.get("deleted")).lower() != "true"
        ]


def gather(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of trees, a tree in one row or a message in each, as rows with the list of the ranked answers
    to one message; the messages up to it are the prompt. What has no rank is left in a field that is not
    read."""
    for _, group in groupby(rows, key=lambda row: row.problem or row.fields.get("message_tree_id")):
        tree = list(group)
        if tree[0].problem:
            yield from tree
            continue
        gathered = [example for root in _roots(tree) for example in _examples(root, (), tree[0])]
        if gathered:
            yield from gathered
        else:
            problem = f"{tree[0].origin}: the tree has no message with two ranked answers"
            yield replace(tree[0], fields={}, problem=problem)


def _roots(rows: list[Row]) -> list[Node]:
    """The first messages of a tree, with their answers; a message whose question is missing begins one."""
    if isinstance(rows[0].fields.get("prompt"), Mapping):
        return [_nested(row.origin, row.fields["prompt"]) for row in rows]
    nodes = {str(row.fields.get("message_id")): Node(row.origin, row.fields) for row in rows}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(str(node.message.get("parent_id")))
        siblings = roots if parent is None or parent is node else parent.replies
        siblings.append(node)
    return roots


def _nested(origin: str, message: Mapping[str, Any]) -> Node:
    replies = message.get("replies")
    answers = [reply for reply in replies if isinstance(reply, Mapping)] if isinstance(replies, list) else []
    return Node(origin, message, [_nested(origin, reply) for reply in answers])


def _examples(node: Node, before: tuple[Mapping[str, Any], ...], tree: Row) -> Iterator[Row]:
    role = str(node.message.get("role"))
    turns = (*before, {"role": ROLES.get(role.lower(), role), "content": node.message.get("text")})
    ranked = node.ranked
    if turns[-1]["role"] == "user" and len(ranked) > 1:
        others = {
            name: value
            for held in (*(own.message for own in reversed(ranked)), tree.fields)
            for name, value in held.items()
            if name not in USED and name != "prompt" and not is_blank(value)
        }
        answers = [{"response": own.message.get("text"), "rank": own.message["rank"]} for own in ranked]
        joined = tuple(own.origin for own in ranked[1:])
        if unranked := len(node.replies) - len(ranked):
            others["answers without a rank"] = unranked
        fields = {**others, "prompt": list(turns), "responses": answers}
        yield replace(tree, origin=ranked[0].origin, fields=fields, joined=joined)
    for reply in node.replies:
        yield from _examples(reply, turns, tree)


def _holds_tree(specimen: Mapping[str, Any]) -> bool:
    nested = specimen.get("prompt")
    return {"message_id", "text", "role"} <= set(specimen) or (
        isinstance(nested, Mapping) and "replies" in nested
    )


TREES = Layout(
    "trees",
    "message_id, parent_id, message_tree_id, text, role and rank, or prompt: {text, role, replies: [{…}, …]}",
    read_list,
    fields=("message_tree_id",),
    holds=_holds_tree,
    gather=gather,
)
