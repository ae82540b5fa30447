"""A language model as the proposer, behind any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from prefero.bounded_json import DECODER, fault_in, place_of, unreadable
from prefero.errors import PreferoError, number_of
from prefero.objectives.expressions import FUNCTIONS, LONGEST, VARIABLES
from prefero.sections import problems
from prefero_lab.discovery.archive import Entry, Proposal, Unreadable, printable, ranked

logger = logging.getLogger(__name__)

KEY = "PREFERO_API_KEY"
LARGEST_REPLY = 1 << 20
"""Bytes of a reply that are read, after decompression."""

MOST_OBJECTS, LARGEST_OBJECTIVE = 100, 4000
"""Places of a text at which a JSON object is looked for, and characters of an objective."""

WAITS = (1.0, 5.0, 25.0)
"""Seconds before each further attempt, where an endpoint fails for the time being."""

LONGEST_WAIT = 60.0
"""Seconds that an endpoint may ask to wait for."""

TEMPORARY = {408, 409, 425, 429}
"""Statuses of a refusal that may be another one later; all from 500 on are too."""

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


class _Message(BaseModel):
    content: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Any = None


class _Completion(BaseModel):
    """What is read of a reply in the form of chat completions."""

    choices: Annotated[list[_Choice], Field(min_length=1)]


def _words(longest: int) -> BeforeValidator:
    """Makes a line of whatever stands in the place of a description, with an end where it is longer."""

    def line(given: Any) -> str:
        text = printable(" ".join(str("" if given is None else given).split()))
        return text if len(text) <= longest else text[: longest - 1] + "…"

    return BeforeValidator(line)


class _Written(BaseModel):
    """A proposal as a model writes it: a ``loss`` with its ``beta``, or an ``objective``."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

    name: Annotated[str, _words(80)] = ""
    thought: Annotated[str, _words(2000)] = ""
    loss: Annotated[str, Field(max_length=LONGEST)] | None = None
    beta: float | None = None
    objective: dict[str, JsonValue] | None = None

    @property
    def configuration(self) -> dict[str, Any]:
        if self.objective is not None:
            return self.objective
        beta = {} if self.beta is None else {"beta": self.beta}
        return {"method": "expression", "loss": self.loss, **beta}

    @property
    def not_read(self) -> list[str]:
        """The fields that have no part in the proposal."""
        beside = [] if self.objective is None else ["loss", "beta"]
        return [name for name in beside if getattr(self, name) is not None] + list(self.model_extra or ())


class Failed(Exception):
    """An exchange that may succeed later, after ``wait`` seconds where the endpoint says so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Endpoint:
    """Asks a model at ``url`` (``http://localhost:8000/v1``) for a loss, given what was tried so far.

    The environment variable ``PREFERO_API_KEY`` is sent as the bearer token, if it is set. The reply is read
    as JSON, and its loss by :mod:`prefero.objectives.expressions`. A reply takes at most ``timeout`` seconds
    from the request to its last byte. Where an exchange fails for the time being, another one follows after
    each of the ``waits``, in seconds, or after what the endpoint asks for, up to a minute.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        temperature: float = 1.0,
        timeout: float = 120.0,
        waits: Sequence[float] = WAITS,
    ) -> None:
        try:
            address = httpx2.URL(url)
            known = address.scheme in ("http", "https") and bool(address.host)
            known = known and 0 <= (address.port or 0) < 1 << 16
        except (httpx2.InvalidURL, ValueError):
            known = False
        if not known:
            raise PreferoError(
                f"{url!r} is no http(s) address of an endpoint, such as http://localhost:8000/v1"
            )
        path = url.rstrip("/")
        self.url = path if path.endswith("/chat/completions") else path + "/chat/completions"
        self.model, self.temperature, self.timeout, self.waits = model, temperature, timeout, waits
        self.origin = model

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal:
        """Raises :class:`Unreadable` for a reply that is no proposal, and
        :class:`~prefero.errors.PreferoError` where there is no reply."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": instructions()},
                {"role": "user", "content": history(entries)},
            ],
            "temperature": self.temperature,
            "seed": numbers.randrange(1 << 31),
        }
        for wait in (*self.waits, None):
            try:
                return proposal(content_of(self.ask(body)))
            except Failed as failed:
                if wait is None:
                    attempts = number_of(len(self.waits) + 1, "attempt")
                    raise PreferoError(f"after {attempts}, {self.url} {failed}") from None
                pause = max(wait, min(failed.wait, LONGEST_WAIT))
                asked = f" (it asks for {failed.wait:.0f})" if failed.wait > pause else ""
                logger.warning("%s %s; next attempt in %g seconds%s", self.url, failed, pause, asked)
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def ask(self, body: Mapping[str, Any]) -> bytes:
        """The reply to a request. Redirects are not followed: the key is sent to the named host alone."""
        # In a thread of its own, so that the deadline holds for the whole exchange, whatever the server
        # trickles, and where the caller has an event loop too (a notebook).
        with start_blocking_portal() as portal:
            return portal.call(self._exchange, body)

    async def _exchange(self, body: Mapping[str, Any]) -> bytes:
        try:
            with anyio.fail_after(self.timeout):
                async with (
                    httpx2.AsyncClient(timeout=self.timeout) as client,
                    client.stream("POST", self.url, json=body, headers=_authorization()) as response,
                ):
                    content = b""
                    async for chunk in response.aiter_bytes():
                        content += chunk
                        if len(content) > LARGEST_REPLY:
                            break
        except TimeoutError:
            raise Failed(f"has not answered in full within {self.timeout:g} seconds") from None
        except (httpx2.HTTPError, OSError, UnicodeError) as error:  # the latter of names of hosts
            reason = str(error) or type(error).__name__
            raise Failed(f"does not answer: {reason} (is its server running?)") from None
        if response.is_success and len(content) > LARGEST_REPLY:
            raise Unreadable(f"the reply has more than {LARGEST_REPLY:,} bytes")
        if not response.is_success:
            status, said = response.status_code, shortened(content.decode("utf-8", "replace"))
            refused = f"refused with {status}{f' (a key is read from {KEY})' if status in (401, 403) else ''}"
            if status in TEMPORARY or status >= 500:
                raise Failed(f"{refused}: {said}", seconds(response.headers.get("Retry-After", "")))
            raise PreferoError(f"{self.url} {refused}: {said}")
        return content


def _authorization() -> dict[str, str]:
    """The header with the key. Raises :class:`PreferoError`, without the key, where no header can hold it."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise PreferoError(f"{KEY} has characters that no header takes: set it to the key alone")
    return {"Authorization": f"Bearer {key}"} if key else {}


def seconds(retry_after: str) -> float:
    """The wait that the header ``Retry-After`` asks for, a number of seconds or a date; 0 for anything
    else."""
    try:
        return float(retry_after) if math.isfinite(float(retry_after)) else 0.0
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


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


def content_of(reply: bytes) -> str:
    """The model's words in a reply.

    Raises :class:`Unreadable` where it has none, and :class:`Failed` for a reply of another kind, such as
    the page of a proxy.
    """
    text = reply.decode("utf-8-sig", "replace")
    try:
        decoded = DECODER.decode(text)
        choice = _Completion.model_validate(decoded).choices[0]
    except (ValueError, RecursionError):  # a ValidationError is a ValueError too
        raise Failed(f"did not answer as chat completions do, but with {shortened(text)}") from None
    if fault := fault_in(decoded):
        raise Unreadable(f"the reply cannot be read: {fault[1]}{place_of(fault)}")
    message = choice.message
    content = message.content
    if isinstance(content, list):  # of parts, of which thoughts are others
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if isinstance(content, str) and content.strip():
        # Thoughts may hold drafts, and a template may have opened them before the reply begins.
        answer = re.split(r"</think(?:ing)?>", content)[-1]
        answer = re.split(r"<think(?:ing)?>", answer)[
            0
        ]  # thoughts without an end, of a reply that was cut off
        if choice.finish_reason == "length" and not objects(answer)[0]:
            raise Unreadable(f"the reply was cut off at the model's limit: {shortened(content)}")
        if not answer.strip():
            raise Unreadable(f"the reply is thoughts, with no answer after them: {shortened(content)}")
        return answer
    if message.refusal:
        raise Unreadable(f"the model refused: {shortened(str(message.refusal))}")
    if message.tool_calls:
        raise Unreadable("the reply calls tools, and there are none")
    raise Unreadable("the reply has no text")


def proposal(content: str) -> Proposal:
    """The first object of the reply that has a ``loss``, or an ``objective`` of the registry.

    Raises :class:`Unreadable` where there is none, or one of wrong types.
    """
    found, fault_of_first = objects(content)
    proposals = [each for each in found if each.keys() & {"loss", "objective"}]
    if not proposals:
        why = f" ({fault_of_first})" if fault_of_first else ""
        raise Unreadable(f"the reply has no JSON object with a loss{why}: {shortened(content)}")
    first = proposals[0]
    if fault := fault_in(first):
        raise Unreadable(f"the proposal cannot be read: {fault[1]}{place_of(fault)}")
    if isinstance(first.get("objective"), str):  # the name of a method; beside a loss, a description
        first = {**first, "objective": None if "loss" in first else {"method": first["objective"]}}
    try:
        written = _Written.model_validate(first)
    except ValidationError as error:
        raise Unreadable("; ".join(problems(error, _Written, whole="the proposal"))) from None
    if written.loss is None and written.objective is None:
        raise Unreadable("the proposal has neither a loss nor an objective")
    if (size := len(json.dumps(written.objective))) > LARGEST_OBJECTIVE:
        raise Unreadable(f"the objective has {size:,} characters; at most {LARGEST_OBJECTIVE:,} are read")
    others = sum(other != proposals[0] for other in proposals[1:])
    notes = [f"{number_of(others, 'further proposal')} in the reply not read"] if others else []
    if written.not_read:
        names = ", ".join(printable(name[:40]) for name in written.not_read[:8])
        notes.append(f"not read of the proposal: {names}{', …' if len(written.not_read) > 8 else ''}")
    return Proposal(written.name or "unnamed", written.configuration, written.thought, note="; ".join(notes))


def objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """The JSON objects that stand in a text, and why the first place that looks like one has none. Those
    behind a hundred places are not looked for, so that the time goes with the length."""
    found: list[dict[str, Any]] = []
    reason, end, looked = "", 0, 0
    for place in re.finditer(r'\{\s*"', text):
        if place.start() < end:
            continue  # inside the object before
        if looked == MOST_OBJECTS:
            reason = f"{reason}; only {MOST_OBJECTS} places are looked at" if reason else ""
            break
        looked += 1
        try:
            value, end = DECODER.raw_decode(text, place.start())
        except (ValueError, RecursionError) as error:
            reason = reason or unreadable(error)
        else:
            found.append(value)
    return found, reason


def shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")
