"""A language model behind an address: what it is asked, what is read of its answer, and what is not."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prefero.errors import PreferoError
from prefero_lab.discovery import BanditFitness, Endpoint, Entry, discover
from prefero_lab.discovery.search import KNOWN

BANDIT = BanditFitness(prompts=16, answers=4, pairs=64, steps=20)


class Server:
    """Answers with what stands in ``replies``, in their order: a text, or a status."""

    def __init__(self) -> None:
        self.replies: list[str | int] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(json.loads(body))
                outer.headers.append(dict(self.headers))
                outer.paths.append(self.path)
                reply = outer.replies.pop(0)
                if isinstance(reply, int):
                    self.send_response(reply)
                    if reply == 302:
                        self.send_header("Location", f"{outer.url}/elsewhere")
                    self.end_headers()
                    self.wfile.write(b"the reason")
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(reply.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def says(self, *contents: str) -> None:
        self.replies += [json.dumps({"choices": [{"message": {"content": content}}]}) for content in contents]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def ask(server: Server, entries: list[Entry] | None = None) -> Any:
    return Endpoint(server.url, "a-model", waits=())(entries or [], random.Random(0))


def test_a_search_asks_scores_and_tells_what_was_wrong(server: Server, tmp_path: Path) -> None:
    server.says(
        'Let me think {about it}. {"thought": "softer", "name": "soft", "loss": "softplus(0.1 - z)", '
        '"beta": 0.2}',
        '{"name": "evil", "loss": "__import__(\'os\').system(\'touch /tmp/pwned\')"}',
        "I would rather not.",
        '```json\n{"name": "config", "objective": {"method": "ipo", "tau": 0.2, "tokens": "sum"}}\n```',
        '{"name": "upside down", "loss": "softplus(z)"}',
    )
    proposer = Endpoint(server.url, "a-model")
    archive = discover(tmp_path / "search", proposer, BANDIT, rounds=5, known=KNOWN[:2])
    soft, evil, silent, config, upside_down = archive.entries[2:]
    assert (soft.origin, soft.name, soft.thought, soft.status) == ("a-model", "soft", "softer", "scored")
    assert soft.objective == {"method": "expression", "loss": "softplus(0.1 - z)", "beta": 0.2}
    assert evil.status == "rejected"
    assert "not part of the language" in evil.reason or "no function is called" in evil.reason
    assert "no JSON object with a loss" in silent.reason
    assert "rather not" in silent.reason
    assert config.status == "scored"
    assert config.objective["method"] == "ipo"
    assert "wrong sign" in upside_down.reason
    first, *_, last = server.asked
    assert server.paths[0] == "/v1/chat/completions"
    assert first["model"] == "a-model"
    system, history = (message["content"] for message in first["messages"])
    assert "chosen_mean_logp" in system
    assert "softplus(x)" in system
    assert "softplus(-z)" in history
    told = last["messages"][1]["content"]
    assert "softplus(0.1 - z)" in told
    assert "no function is called" in told or "not part of the language" in told
    assert first["seed"] != last["seed"]


def test_the_fittest_come_first_and_not_everything_is_told(server: Server) -> None:
    entries = [
        Entry(number, "known", "", {"method": "ipo", "tau": 0.1 + number}, status="scored", fitness=number)
        for number in range(30)
    ]
    server.says('{"loss": "softplus(-z)"}')
    ask(server, entries)
    told = server.asked[0]["messages"][1]["content"].splitlines()
    assert json.loads(told[1])["fitness"] == 29
    assert len(told) == 12


def test_a_key_is_sent_to_the_named_host_and_not_where_it_redirects(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFERO_API_KEY", "secret")
    server.replies.append(302)
    with pytest.raises(PreferoError, match="refused with 302"):
        ask(server)
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert len(server.asked) == 1


def test_without_a_key_none_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFERO_API_KEY", raising=False)
    server.says('{"loss": "softplus(-z)"}')
    ask(server)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (401, r"refused with 401 \(a key is read from PREFERO_API_KEY\): 'the reason'"),
        (500, "refused with 500"),
        ("<html>", "did not answer as chat completions do, but with '<html>'"),
        ('{"choices": []}', "did not answer as chat completions do"),
        ("[" * 100_000, "did not answer as chat completions do"),
    ],
)
def test_a_server_that_fails_stops_the_search_with_the_reason(
    server: Server, reply: str | int, reason: str
) -> None:
    server.replies.append(reply)
    with pytest.raises(PreferoError, match=reason):
        ask(server)


def test_a_search_goes_on_once_the_server_is_back(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.says('{"loss": "softplus(0.3 - z)"}')
    server.replies += [503, 503]
    output = tmp_path / "search"
    proposer = Endpoint(server.url, "a-model", waits=[0.01])
    kept = (
        r"after 2 attempts, .* refused with 503: 'the reason'\. .*archive.jsonl keeps 2 attempts: .*--resume"
    )
    with pytest.raises(PreferoError, match=kept):
        discover(output, proposer, BANDIT, rounds=2, known=KNOWN[:1])
    assert "refused with 503: 'the reason'; next attempt in 0.01 seconds" in caplog.text
    server.says('{"loss": "relu(0.3 - z)"}')
    archive = discover(output, proposer, BANDIT, rounds=2, known=KNOWN[:1], resume=True)
    assert [entry.objective["loss"] for entry in archive.entries] == [
        "softplus(-z)",
        "softplus(0.3 - z)",
        "relu(0.3 - z)",
    ]


def test_nobody_there_and_no_address_are_told_apart(server: Server) -> None:
    with pytest.raises(PreferoError, match="is its server running"):
        Endpoint("http://127.0.0.1:9", "a-model", waits=())([], random.Random(0))
    for address in ("localhost:8000", "file:///etc/passwd", "http://"):
        with pytest.raises(PreferoError, match=r"is no http\(s\) address"):
            Endpoint(address, "a-model")
