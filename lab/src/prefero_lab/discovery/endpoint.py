"""A language model as the proposer, behind any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from prefero.errors import PreferoError
from prefero.objectives.expressions import FUNCTIONS, VARIABLES
from prefero_lab.discovery.archive import Entry, Proposal, Unreadable, ranked

KEY = "PREFERO_API_KEY"
LARGEST_REPLY, LONGEST_ANSWER = 1 << 20, 50_000
"""Bytes that are read, and characters of the model's own words."""

SHOWN, SHOWN_REJECTED = 10, 4
"""Entries that the model sees: the fittest, and the latest that were rejected."""

INSTRUCTIONS = (
    "You search for a loss that aligns a language model with preference pairs better than the known ones. "
    "A loss is one expression for the cost of a pair; the policy is trained to lower its mean.\n\n"
    "Names:\n{variables}\n\nFunctions:\n{functions}\n\n"
    "Also numbers, + - * /, ** with a number, and comparisons (1 or 0). Nothing else is read.\n"
    "A lost pair must cost more than a won one, and values and gradients must be finite everywhere.\n\n"
    'Answer with one JSON object alone: {{"thought": "why this could be better", "name": "a few words", '
    '"loss": "softplus(-z)", "beta": 0.1}}'
)


class Endpoint:
    """Asks a model at ``url`` (``http://localhost:8000/v1``) for a loss, given what was tried so far.

    The environment variable ``PREFERO_API_KEY`` is sent as the bearer token, if it is set. The reply is read
    as JSON, and its loss by :mod:`prefero.objectives.expressions`.
    """

    def __init__(self, url: str, model: str, *, temperature: float = 1.0, timeout: float = 120.0) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise PreferoError(
                f"{url!r} is no http(s) address of an endpoint, such as http://localhost:8000/v1"
            )
        path = url.rstrip("/")
        self.url = path if path.endswith("/chat/completions") else path + "/chat/completions"
        self.model, self.temperature, self.timeout = model, temperature, timeout
        self.origin = model

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal:
        """Raises :class:`Unreadable` for a reply that is no proposal, and
        :class:`~prefero.errors.PreferoError` where there is no reply."""
        reply = self.ask(
            {
                "model": self.model,
                "messages": [
                    {"role": "system", "content": instructions()},
                    {"role": "user", "content": history(entries)},
                ],
                "temperature": self.temperature,
                "seed": numbers.randrange(1 << 31),
            }
        )
        try:
            content = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise PreferoError(
                f"{self.url} did not answer as chat completions do, but with {shortened(reply)}"
            ) from None
        return proposal(str(content)[:LONGEST_ANSWER])

    def ask(self, body: Mapping[str, Any]) -> str:
        """The reply to a request. Redirects are not followed: the key is sent to the named host alone."""
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with httpx2.stream(
                "POST", self.url, json=body, headers=headers, timeout=self.timeout
            ) as response:
                content = b""
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > LARGEST_REPLY:
                        break
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise PreferoError(f"{self.url} does not answer ({reason}); is its server running?") from None
        reply = content[:LARGEST_REPLY].decode("utf-8", "replace")
        if not response.is_success:
            hint = f" (a key is read from {KEY})" if response.status_code in (401, 403) else ""
            raise PreferoError(f"{self.url} refused with {response.status_code}{hint}: {shortened(reply)}")
        return reply


def instructions() -> str:
    return INSTRUCTIONS.format(
        variables="\n".join(f"- {name}: {meaning}" for name, meaning in VARIABLES.items()),
        functions="\n".join(
            f"- {name}({', '.join('xyw'[: of.arguments])}): {of.meaning}" for name, of in FUNCTIONS.items()
        ),
    )


def history(entries: Sequence[Entry]) -> str:
    """Earlier attempts as the model reads them: one JSON line per entry."""
    best = ranked(entries)[:SHOWN]
    rejected = [entry for entry in entries if entry.fitness is None][-SHOWN_REJECTED:]
    lines = ["The fittest so far (higher is better):"]
    lines += [json.dumps({"fitness": entry.fitness, **entry.objective}) for entry in best]
    if rejected:
        lines.append("Rejected lately, and why:")
        lines += [json.dumps({"reason": entry.reason, **entry.objective}) for entry in rejected]
    return "\n".join([*lines, "Propose one that is not among them."])


def proposal(content: str) -> Proposal:
    """The first object of the reply that has a ``loss``, or an ``objective`` of the registry."""
    for found in objects(content):
        name, thought = str(found.get("name", "unnamed"))[:80], str(found.get("thought", ""))[:2000]
        if isinstance(found.get("objective"), dict):
            return Proposal(name, found["objective"], thought)
        if isinstance(found.get("loss"), str):
            beta = {"beta": found["beta"]} if "beta" in found else {}
            return Proposal(name, {"method": "expression", "loss": found["loss"], **beta}, thought)
    raise Unreadable(f"the reply has no JSON object with a loss: {shortened(content)}")


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that stand in a text."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(found, dict):
                yield found
        at = text.find("{", end)


def shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")
