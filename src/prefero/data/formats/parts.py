"""What a row of pairs may carry besides the pair: responses in other roles, and other prompts to the same."""

from __future__ import annotations

from dataclasses import replace

from prefero.data.examples import Example, Response, Text
from prefero.data.formats.fields import Fields
from prefero.data.formats.picture_fields import as_picture, shows
from prefero.data.pictures import Picture
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES


def with_other_parts(example: Example, fields: Fields) -> Example:
    """``example`` with every response and prompt that the row has under a name of
    :data:`~prefero.data.schema.OTHER_RESPONSES` or :data:`~prefero.data.schema.OTHER_PROMPTS`.

    A field of such a name that is no text, as where ``sample`` counts the rows, is something else. Text
    beside a conversation is a message of its own. Responses beside images are images.
    """
    shown = any(isinstance(response.content, Picture) for response in example.responses)
    speaks = not isinstance(example.prompt, str)
    responses = list(example.responses)
    for role, part in OTHER_RESPONSES.items():
        if role in example.roles:
            continue
        if shown and part.field in fields and shows(fields.values[part.field]):
            responses.append(Response(as_picture(fields, part.field), role))
        elif not shown and is_text(fields, part.field):
            content = fields.turns(part.field)
            fields.not_empty(content, part.field)
            responses.append(Response(as_message(content, "assistant") if speaks else content, role))
    prompts = {}
    for view, part in OTHER_PROMPTS.items():
        if is_text(fields, part.field):
            prompt = fields.turns(part.field)
            prompts[view] = as_message(prompt, "user") if speaks else prompt
    return replace(example, responses=tuple(responses), prompts=prompts)


def is_text(fields: Fields, name: str) -> bool:
    return name in fields and isinstance(fields.values[name], str | list | tuple | dict)


def as_message(content: Text, role: str) -> Text:
    return ({"role": role, "content": content},) if isinstance(content, str) else content
