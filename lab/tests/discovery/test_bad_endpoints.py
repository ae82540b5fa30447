"""Servers and models that answer badly: the search neither ends in a traceback nor waits for ever, and its
archive stays one that can be read."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from prefero.errors import PreferoError
from prefero_lab.cli.discover import attempt
from prefero_lab.discovery import Archive, BanditFitness, Endpoint, discover, endpoint
from prefero_lab.discovery.archive import Unreadable
from prefero_lab.discovery.search import KNOWN, proposed
from tests.bad_inputs import replies

BANDIT = BanditFitness(prompts=16, answers=4, pairs=64, steps=5)
GOOD = json.dumps({"choices": [{"message": {"content": '{"loss": "softplus(0.3 - z)"}'}}]}).encode()

Behaviour = Callable[[socket.socket], None]


class Server:
    """Reads a request, and then does with the connection what ``behaviours`` say, one after the other, the
    last one for ever."""

    def __init__(self, *behaviours: Behaviour, family: int = socket.AF_INET) -> None:
        self.behaviours, self.asked, self.over = list(behaviours), 0, threading.Event()
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.listener = socket.socket(family)
        self.listener.bind((host, 0))
        self.listener.listen()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        behaviour = self.behaviours[min(self.asked, len(self.behaviours) - 1)]
        self.asked += 1
        with connection:
            try:
                data = connection.recv(65536)
                while data.startswith(b"POST") and b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += connection.recv(65536)
                behaviour(connection)
            except OSError:
                pass  # the client has left

    def close(self) -> None:
        self.over.set()
        self.listener.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(*behaviours: Behaviour, **options: Any) -> Server:
        servers.append(Server(*behaviours, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def sends(data: bytes) -> Behaviour:
    return lambda connection: connection.sendall(data)


def answers(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> Behaviour:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return sends("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)


def says(content: Any, **message: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content, **message}}]}).encode()


def cut_off(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "length"}]}).encode()


def trickles(begin: bytes) -> Behaviour:
    def behaviour(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    return behaviour


def endless(begin: bytes, part: bytes) -> Behaviour:
    def behaviour(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(part)

    return behaviour


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEVER = [trickles(begin) for begin in (b"", HEAD + b"X-Long: ", HEAD + b"\r\n", CHUNKED + b"9999999\r\n")]
BROKEN: dict[str, tuple[Behaviour, str]] = {
    "bad status line": (sends(b"HTTP/9 what\r\n\r\n"), "does not answer"),
    "status that is no number": (sends(b"HTTP/1.1 abc OK\r\n\r\n"), "does not answer"),
    "no headers": (sends(GOOD), "does not answer"),
    "nothing": (sends(b""), "does not answer"),
    "reset": (resets, "does not answer"),
    "chunks cut": (sends(CHUNKED + b"ff\r\n{"), "does not answer"),
    "chunks of no size": (sends(CHUNKED + b"zz\r\n{"), "does not answer"),
    "length too large": (answers(GOOD, length=9999), "does not answer"),
    "length too small": (answers(GOOD, length=9), "did not answer as chat completions do"),
    "length that is no number": (sends(HEAD + b"Content-Length: x\r\n\r\n{}"), "does not answer"),
    "not compressed": (answers(GOOD, "Content-Encoding: gzip"), "does not answer"),
    "headers for ever": (endless(HEAD, b"X-One: " + b"y" * 9999 + b"\r\n"), "does not answer"),
    "page": (answers(b"<html>", "Content-Type: text/html"), "did not answer as chat completions .*<html>"),
    "UTF-16": (answers(GOOD.decode().encode("utf-16")), "did not answer as chat completions do"),
    "empty": (answers(b""), "did not answer as chat completions do"),
    "an error with 200": (answers(b'{"error": {"message": "overloaded"}}'), "did not answer .*overloaded"),
    "choices of another type": (answers(b'{"choices": "x"}'), "did not answer as chat completions do"),
    "message of another type": (answers(b'{"choices": [{"message": [1]}]}'), "did not answer"),
    "deep": (answers(b'{"choices": ' + b"[" * 5000), "did not answer as chat completions do"),
    "digits": (answers(b'{"choices": ' + b"9" * 5000 + b"}"), "did not answer as chat completions do"),
    "503": (answers(b"busy", status="503 Busy"), "refused with 503: 'busy'"),
    "429": (answers(b"", "Retry-After: soon", status="429 Slow"), "refused with 429"),
}


@pytest.mark.parametrize(("behaviour", "reason"), BROKEN.values(), ids=list(BROKEN))
def test_a_server_that_fails_is_asked_again_and_then_ends_the_search_with_a_line(
    behaviour: Behaviour, reason: str, serving: Callable[..., Server]
) -> None:
    server = serving(behaviour)
    with pytest.raises(
        PreferoError, match=f"after 2 attempts, {re.escape(server.url)}/chat/.* {reason}"
    ) as end:
        Endpoint(server.url, "m", timeout=5, waits=[0.01])([], random.Random(0))
    assert server.asked == 2
    assert "\n" not in str(end.value)


@pytest.mark.parametrize("behaviour", NEVER)
def test_a_deadline_holds_for_the_whole_reply(behaviour: Behaviour, serving: Callable[..., Server]) -> None:
    server, began = serving(behaviour), time.monotonic()
    with pytest.raises(PreferoError, match=r"has not answered in full within 0\.4 seconds"):
        Endpoint(server.url, "m", timeout=0.4, waits=[])([], random.Random(0))
    assert time.monotonic() - began < 5


def test_a_failure_that_passes_costs_no_round(
    serving: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serving(resets, answers(b"", status="502 Bad"), answers(GOOD))
    proposal = Endpoint(server.url, "m", waits=[0.01, 0.02])([], random.Random(0))
    assert proposal.objective == {"method": "expression", "loss": "softplus(0.3 - z)"}
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("next attempt in 0.01 seconds")
    assert second.endswith("refused with 502: ''; next attempt in 0.02 seconds")


@pytest.mark.parametrize(
    "asked", ["7777", "1e400", "-5", "nan", "9" * 400, "Fri, 31 Dec 2100 23:59:59 GMT", "Fri, 99 Foo", ""]
)
def test_the_wait_that_a_server_asks_for_is_bounded_and_said(
    asked: str,
    serving: Callable[..., Server],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    server = serving(answers(b"", f"Retry-After: {asked}", status="429 Slow"), answers(GOOD))
    Endpoint(server.url, "m", waits=[0.01])([], random.Random(0))
    if asked.startswith(("7", "Fri, 31")):
        assert waited == [endpoint.LONGEST_WAIT]
        assert "next attempt in 60 seconds (it asks for " in caplog.text
    else:
        assert waited == [0.01]


def test_what_will_not_change_is_not_tried_again(serving: Callable[..., Server]) -> None:
    for status in ("301 Moved", "400 Bad", "401 No", "404 Not found", "413 Large", "422 What"):
        server = serving(answers(b"why", "Location: http://127.0.0.1:9/", "Retry-After: 9", status=status))
        with pytest.raises(PreferoError, match=f"refused with {status[:3]}.*: 'why'"):
            Endpoint(server.url, "m")([], random.Random(0))
        assert server.asked == 1


def test_addresses(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serving(answers(GOOD))
    with pytest.raises(PreferoError, match=r"does not answer: .*SSL"):
        Endpoint(server.url.replace("http", "https"), "m", timeout=5, waits=[])([], random.Random(0))
    for host in ("nowhere.invalid", "a..b", "a" * 300):
        with pytest.raises(PreferoError, match=f"//{re.escape(host)}/v1/chat/completions does not answer"):
            Endpoint(f"http://{host}/v1", "m", timeout=9, waits=[])([], random.Random(0))
    for address in ("http://[::1", "http://host:99999", "http://host:x", "http://\ud800", ""):
        with pytest.raises(PreferoError, match=r"is no http\(s\) address"):
            Endpoint(address, "m")
    monkeypatch.setenv("PREFERO_API_KEY", "geheim-ß")
    with pytest.raises(PreferoError, match="PREFERO_API_KEY has characters") as refused:
        Endpoint(server.url, "m", waits=[])([], random.Random(0))
    assert "geheim" not in str(refused.value)
    monkeypatch.delenv("PREFERO_API_KEY")
    if not socket.has_ipv6:
        return
    try:
        six = serving(answers(GOOD), family=socket.AF_INET6)
    except OSError:
        return  # no loopback of version 6
    assert Endpoint(six.url, "m", waits=[])([], random.Random(0)).objective


def bomb() -> bytes:
    return gzip.compress(b"{" * (64 << 20), 1)


LARGE: tuple[Callable[[], Behaviour], ...] = (
    lambda: answers(bomb(), "Content-Encoding: gzip"),
    lambda: answers(gzip.compress(bomb()), "Content-Encoding: gzip, gzip"),
    lambda: endless(HEAD + b"\r\n", b"{" * 65536),
    lambda: answers(says("{" * (2 << 20))),
)


@pytest.mark.parametrize("behaviour", LARGE)
def test_a_reply_of_any_size_is_read_up_to_a_limit(
    behaviour: Callable[[], Behaviour], serving: Callable[..., Server]
) -> None:
    began, server = time.monotonic(), serving(behaviour())
    with pytest.raises(Unreadable, match="more than 1,048,576 bytes"):
        Endpoint(server.url, "m", timeout=10, waits=[])([], random.Random(0))
    assert time.monotonic() - began < 5


LOSS = '"loss": "softplus(0.1 - z)"'
FACTS = {"method": "expression", "loss": "softplus(0.1 - z)"}
DEEP = "[" * 5000 + "]" * 5000
READ: list[tuple[bytes, dict[str, Any], str]] = [
    (says(f"{{{LOSS}}}"), FACTS, ""),
    (says(f'<think>{{"loss": "z"}}, or … </think>\n```json\n{{{LOSS}}}\n```'), FACTS, ""),
    (says(f"drafts, their begin lost </think> {{{LOSS}}}"), FACTS, ""),
    (says([{"type": "thinking", "thinking": "?"}, {"type": "text", "text": f"{{{LOSS}}}"}]), FACTS, ""),
    (says(f'{{{LOSS}}} {{"loss": "z"}} {{{LOSS}}}'), FACTS, "1 further proposal in the reply not read"),
    (says(f'{{{LOSS}, "gamma": 2}}'), FACTS, "not read of the proposal: gamma"),
    (says(f'{{{LOSS}, "beta": 2, "name": null, "thought": 5}}'), {**FACTS, "beta": 2.0}, ""),
    (says(f'{{{LOSS}, "objective": "as steep as can be"}}'), FACTS, ""),
    (says('{"objective": "ipo"}'), {"method": "ipo"}, ""),
    (
        says('{"objective": {"method": "ipo"}, "loss": "z"}'),
        {"method": "ipo"},
        "not read of .*: loss",
    ),
    (says(f'{{"a": {DEEP}}} {{{LOSS}}}'), FACTS, ""),
    (says('{"a ' * 90 + f"{{{LOSS}}}"), FACTS, ""),
    (b"\xef\xbb\xbf" + says(f"{{{LOSS}}}"), FACTS, ""),
    (says(f'{{{LOSS}}} <think> or {{"loss": "z"}}'), FACTS, ""),
    (cut_off(f"{{{LOSS}}} and so on, without an en"), FACTS, ""),
]


@pytest.mark.parametrize(("reply", "objective", "note"), READ)
def test_what_a_model_says_around_a_proposal(reply: bytes, objective: dict[str, Any], note: str) -> None:
    made = endpoint.proposal(endpoint.content_of(reply))
    assert made.objective == objective
    assert re.fullmatch(note, made.note)
    assert made.name == "unnamed"


def beta(value: str) -> bytes:
    return says(f'{{{LOSS}, "beta": {value}}}')


def config(objective: Any) -> bytes:
    return says(json.dumps({"objective": objective}))


REJECTED: list[tuple[bytes, str]] = [
    (beta('"0.1"'), "beta is '0.1': input should be a valid number"),
    (beta("[0.1]"), "beta is "),
    (beta("true"), "beta is True"),
    (beta("{}"), "beta is "),
    (beta("NaN"), "finite number"),
    (beta("-Infinity"), "finite number"),
    (beta("1e999"), "finite number"),
    (beta("9" * 400), "beta is "),
    (beta("9" * 5000), "more than 4,300 digits"),
    (beta('0.1, "beta": 0.2'), "'beta' stands twice"),
    (beta(DEEP), "nested more than 100 deep"),
    (says(f'{{{LOSS}, "name": {"[" * 200}1{"]" * 200}}}'), "nested more than 100 deep"),
    (says(f'{{{LOSS}, "thought": "half \ud83d"}}'), "half a character"),
    (says('{"loss": "softplus(-z)\\udc00"}'), "half a character"),
    (says('{"loss": 5}'), "loss is 5"),
    (says('{"loss": null}'), "neither a loss nor an objective"),
    (says('{"loss": ""}'), "is no expression"),
    (says(json.dumps({"loss": "z" * 100_000})), "at most 600 characters"),
    (says('{"loss": "softplus(-z) * ' + "9" * 400 + '"}'), "is not part of the language"),
    (says('{"loss": "z ** ' + "9" * 400 + '"}'), "is not part of the language"),
    (says('{"loss": "' + "-" * 500 + 'z"}'), "parts inside one another"),
    (says('{"loss": "z' + ".a" * 290 + '"}'), "parts inside one another"),
    (says('{"loss": "exp(exp(-z)) * exp(exp(exp(-z)))"}'), "is not finite|the loss is"),
    (
        says('{"loss": "1e6 * square(1e6 * square(1e6 * square(1e6 * square(1e6 * square(z)))))"}'),
        "inf|wrong",
    ),
    (says('{"loss": "softplus(-z)\\u001b[2J\\n"}'), "is no expression"),
    (config({"method": "sofplus"}), "no method is called"),
    (config({"method": 5}), "an objective is a method's name"),
    (config([]), "objective is "),
    (config({}), "an objective is a method's name"),
    (config({"method": "dpo", "beta": "much"}), "beta of dpo is a number"),
    (config({"method": "dpo", "beta": 10**400}), "beta of dpo lies in"),
    (config({"method": "dpo", "beta": float("nan")}), "finite number"),
    (config({"method": "dpo", "settings": ["x"]}), "no published settings"),
    (config({"method": "dpo", "weight": {"a": {"b": [1]}}}), "no weight is called"),
    (config({"method": "spo_self_supervised", "degrees": 1e300}), "degrees of spo_self_supervised lies in"),
    (config({"method": "dpo", "\x1b]0;x\x07": 1}), "has no argument"),
    (config({"method": "dpo", "a": "x" * 5000}), "at most 4,000"),
    (says(""), "has no text"),
    (says("   "), "has no text"),
    (says(None), "has no text"),
    (says(5), "has no text"),
    (says([]), "has no text"),
    (says([5, {"type": "image"}, {"text": 5}]), "has no text"),
    (says(None, refusal="I can't help with that.\x1b[2J"), "refused: \"I can't help with that."),
    (says(None, tool_calls=[{"id": "1"}]), "calls tools"),
    (says("I would rather not."), "has no JSON object with a loss: 'I would"),
    (says('{"loss": "softplus('), r"no JSON object with a loss \(broken JSON"),
    (says("<think>" + "so " * 9999), "the reply is thoughts, with no answer after them"),
    (says(f"<think> a draft {{{LOSS}}}, or"), "the reply is thoughts"),
    (cut_off(f"<think> a draft {{{LOSS}}}, or"), "was cut off at the model's limit"),
    (says(f"{{{LOSS}}} </think>"), "the reply is thoughts"),
    (cut_off('{"thought": "with {braces} in it", "loss": "softp'), "was cut off at the model's limit"),
    (says("{" * 900_000), "no JSON object"),
    (says('{"a":' * 100_000), "only 100 places are looked at"),
    (says('{"' * 300_000), "no JSON object"),
    (says('{"a": 1}' * 90_000), "no JSON object"),
    (says('{"' + "a" * 900_000), "no JSON object"),
    (says("{" + " " * 900_000), "no JSON object"),
    (b'{"choices": [{"message": {"content": "{}", "content": "{}"}}]}', "'content' stands twice"),
    (b'{"choices": [{"message": {"content": "x", "more": "\\ud800"}}]}', "half a character"),
    (
        b'{"choices": [{"message": {"content": "{ cut"}, "finish_reason": "length"}]}',
        "cut off at the",
    ),
    (b'{"choices": [{"message": {}}]}', "has no text"),
]


def test_bad_proposals_take_a_round_each_and_leave_an_archive_that_a_search_goes_on_from(
    serving: Callable[..., Server], tmp_path: Path
) -> None:
    spoken = 'softer\x1b[2J\nand "so"\u202e on'
    named = json.dumps({"name": spoken * 20, "thought": spoken * 500, "loss": "softplus(0.2 - z)"})
    server = serving(*(answers(reply) for reply, _ in REJECTED), answers(says(named)))
    proposer, output, began = Endpoint(server.url, "m", waits=[]), tmp_path / "search", time.monotonic()
    shown: list[str] = []
    archive = discover(
        output,
        proposer,
        BANDIT,
        rounds=len(REJECTED) + 1,
        known=KNOWN[:1],
        report=lambda entry, archive: shown.append(attempt(entry, archive)),
    )
    assert time.monotonic() - began < 15
    *rejected, last = archive.entries[1:]
    for entry, (reply, reason) in zip(rejected, REJECTED, strict=True):
        assert entry.status == "rejected", reply[:200]
        assert re.search(reason, entry.reason), (reply[:200], entry.reason)
    assert last.status == "scored"
    assert len(last.name) == 80
    assert last.name.startswith('softer\\x1b[2J and "so"\\u202e on')
    assert len(last.thought) == 2000
    assert all(line.isprintable() for line in shown), "nothing that a terminal would act on"

    def never(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = archive.file.read_bytes().decode("utf-8").split("\n")
    assert all(json.loads(line, parse_constant=never)["number"] == n for n, line in enumerate(lines[:-1]))
    assert max(map(len, lines)) < 6000
    assert Archive(archive.file).entries == archive.entries
    resumed = discover(output, proposer, BANDIT, rounds=len(archive), known=KNOWN[:1], resume=True)
    assert len(resumed) == len(archive) + 1


class Replying:
    """Proposes what stands in a reply."""

    origin = "m"

    def __init__(self, reply: bytes) -> None:
        self.reply = reply

    def __call__(self, *_: Any) -> Any:
        return endpoint.proposal(endpoint.content_of(self.reply))


def check_reply(reply: bytes, folder: Path) -> None:
    """A reply becomes an entry that is read again as it was, or is one of another kind of server."""
    archive = Archive(folder / "archive.jsonl")
    try:
        entry = proposed(archive, Replying(reply), random.Random(0), BANDIT)
    except endpoint.Failed as failed:
        assert str(failed).startswith("did not answer as chat completions do")
        return
    assert (entry.fitness is None) == (entry.status == "rejected")
    assert entry.reason or entry.status == "scored"
    archive.append(entry)
    assert attempt(archive.entries[-1], archive).isprintable()
    assert Archive(archive.file).entries == archive.entries


@given(replies())
@settings(max_examples=60)
def test_a_sample_of_replies(reply: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_reply(reply, Path(folder))


@pytest.mark.slow
@given(replies())
@settings(max_examples=3000)
def test_replies(reply: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_reply(reply, Path(folder))
