"""How a run ends and is reported, and when it is refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from prefero.errors import PreferoError
from prefero.sandbox import Limits, Protection, confinement, execution, protection, run, run_twice
from tests.sandbox.means import ALL, means as means, without

every_means = pytest.mark.parametrize("means", ALL, indirect=True)


def program(text: str, **limits: float) -> execution.Run:
    return run(["python3", "-I", "-S", "-c", text], None, Limits(**limits), accept="limits")  # type: ignore[arg-type]


@every_means
def test_files_output_and_exit_status(means: Protection) -> None:
    done = run(
        [
            "sh",
            "-c",
            "cat deep/words; echo no >&2; ./script; echo new > deep/words && cat deep/words; exit 3",
        ],
        {"deep/words": "ä\n", "script": b"#!/bin/sh\necho ran\n"},
        accept="limits",
    )
    assert (done.status, done.code, done.stdout, done.stderr) == ("error", 3, "ä\nran\nnew\n", "no\n")
    assert done.protection == means
    assert 0 < done.cpu < 5 and 0 < done.wall < 10 and done.memory > 0


@every_means
def test_ends_have_names(means: Protection) -> None:
    assert program("").status == "ok"
    assert program("raise SystemExit(1)").status == "error"
    crash = program("import ctypes; ctypes.string_at(0)")
    assert (crash.status, crash.code) == ("killed", -signal.SIGSEGV)
    assert program("raise MemoryError").status == "memory"
    missing = run(["no-such-program"], accept="limits")
    assert missing.status == "error" and "no-such-program" in missing.stderr


@every_means
def test_the_environment_is_the_sandbox_s(means: Protection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLERS_SECRET", "hunter2")
    done = program("import os; print(sorted(os.environ))")
    assert set(eval(done.stdout)) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PWD", "TMPDIR"}


@every_means
def test_use_is_measured(means: Protection) -> None:
    done = program("import time\nkept = bytearray(60_000_000)\nwhile time.process_time() < 0.4: pass")
    assert 0.38 <= done.cpu < 1.5
    assert 60_000_000 < done.memory < 120_000_000


def test_two_runs_tell_what_is_flaky() -> None:
    first, second = run_twice(["python3", "-c", "print(1)"], accept="limits")
    assert first.agrees(second)
    first, second = run_twice(["python3", "-c", "import time; print(time.time_ns())"], accept="limits")
    assert not first.agrees(second)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "", "zero\0byte"])
def test_files_stay_in_the_folder(name: str) -> None:
    with pytest.raises(PreferoError, match="relative path"):
        run(["true"], {name: "x"}, accept="limits")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "1", "a/b": "2"}, "'a' is a file and a folder"),
        ({"a": "1", "./a": "2"}, "the same path"),
        ({"a": "x" * 101}, "limits.folder=100"),
        ({str(number): "" for number in range(501)}, "501 files"),
    ],
)
def test_files_that_cannot_be_handed_over(files: dict[str, str], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        run(["true"], files, Limits(folder=100), accept="limits")


@pytest.mark.parametrize("means", ALL[:1], indirect=True)
def test_a_sandbox_that_cannot_be_arranged_is_no_failure_of_the_program(means: Protection) -> None:
    with pytest.raises(PreferoError, match="the sandbox failed: bwrap: "):
        run(["true"], {"x" * 300: ""})


@every_means
def test_many_files_and_no_descriptors_of_the_caller(means: Protection) -> None:
    done = run(
        [
            "python3",
            "-I",
            "-S",
            "-c",
            "import os; print(len(os.listdir()), len(os.listdir('/proc/self/fd')))",
        ],
        {f"{number}/file": b"x" for number in range(100)},
        accept="limits",
    )
    assert done.stdout == "100 4\n"


def test_limits_and_commands_are_checked() -> None:
    for field in ("wall", "memory"):
        for value in (0, -1, float("nan"), float("inf")):
            with pytest.raises(PreferoError, match=field):
                Limits(**{field: value})
    with pytest.raises(PreferoError, match="command"):
        run([], accept="limits")


def test_a_machine_without_bubblewrap_is_refused_unless_less_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "bwrap")
    with pytest.raises(
        PreferoError, match=r"refused: bubblewrap: the command bwrap is not installed.*accept='limits'"
    ):
        run(["true"])
    done = run(["true"], accept="limits")
    assert done.status == "ok"
    assert done.protection.means in ("unshare", "none")
    assert "bwrap is not installed" in str(done.protection) and "But it reads" in str(done.protection)
    confinement._strongest.cache_clear()


def test_a_machine_that_forbids_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is there and fails."""
    monkeypatch.setattr(confinement, "SYSTEM", ("/no-such-folder",))
    monkeypatch.setattr(confinement, "_view", lambda: ["--ro-bind", "/no-such-folder", "/usr"])
    confinement._strongest.cache_clear()
    with pytest.raises(PreferoError, match="refused: bubblewrap: "):
        protection()
    confinement._strongest.cache_clear()


def test_a_machine_without_limits_is_refused_always(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "bwrap", "unshare", "prlimit")
    with pytest.raises(PreferoError, match=r"cannot run here: bubblewrap: .*none: the command prlimit"):
        run(["true"], accept="limits")
    confinement._strongest.cache_clear()


def test_a_supervisor_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "supervisor.py"
    broken.write_text("raise SystemExit('broken')")
    monkeypatch.setattr(execution.supervisor, "__file__", str(broken))
    with pytest.raises(PreferoError, match="the sandbox failed: broken"):
        run(["true"], accept="limits")
