"""Programs that attack the machine, under each protection: what it promises to stop is stopped.

Each attack is bounded, so that a protection that fails costs 200 MB, 200 processes or some seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from prefero.sandbox import Limits, Protection, Run, run
from prefero.sandbox.supervisor import processes
from tests.sandbox.means import ALL, means as means, without

MIB = 2**20

SMALL = Limits(wall=10, cpu=5, memory=100 * MIB, processes=16, file=4 * MIB, folder=8 * MIB, output=65536)

every_means = pytest.mark.parametrize("means", ALL, indirect=True)
namespaces = pytest.mark.parametrize("means", ALL[:2], indirect=True)
whole = pytest.mark.parametrize("means", ALL[:1], indirect=True)


def attack(program: str, limits: Limits = SMALL, *arguments: str) -> Run:
    done = run(
        ["python3", "-I", "-S", "attack.py", *arguments], {"attack.py": program}, limits, accept="limits"
    )
    print(done)
    return done


def named(marker: str, program: str = "") -> list[int]:
    """The processes with a word on their command line, of any program or of one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words and program.encode() in (b"", words[0]):
            found.append(int(folder.name))
    return found


def gone(marker: str, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while named(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not named(marker)


@every_means
def test_a_fork_bomb_gets_no_more_than_its_processes(means: Protection) -> None:
    done = attack(
        """
import os, time
for started in range(200):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError as error:
        break
print(started)
"""
    )
    assert done.status == "ok"
    assert 8 <= int(done.stdout) <= (16 if means.user != "caller" or means.means != "none" else 199)


@every_means
def test_processes_that_fork_for_ever_end_with_the_clock(means: Protection) -> None:
    marker = f"forking-{os.getpid()}"
    done = attack(
        """
import os, time
children = 0
while children < 12:  # twelve that fork again and again, each within the limit that held before
    try:
        if os.fork() == 0:
            children = 0
            time.sleep(0.01)
        else:
            children += 1
    except OSError:
        time.sleep(0.01)
time.sleep(30)
""",
        Limits(wall=1.5, cpu=5, processes=16),
        marker,
    )
    assert done.status == "timeout"
    assert gone(marker)


@every_means
@pytest.mark.parametrize(
    "bomb",
    ["kept = bytearray(190_000_000)", "kept = []\nwhile len(kept) < 190: kept.append(bytearray(1_000_000))"],
)
def test_a_memory_bomb(means: Protection, bomb: str) -> None:
    assert attack(bomb).status == "memory"


@every_means
def test_memory_of_many_processes_counts_together(means: Protection) -> None:
    done = attack(
        """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = bytearray(30_000_000)
        break
time.sleep(5)
"""
    )
    assert done.status == "memory"
    assert 100 * MIB < done.memory < 200 * MIB


@every_means
def test_memory_shared_by_many_processes_counts_once(means: Protection) -> None:
    done = attack(
        """
import os, time
kept = bytearray(30_000_000)
for _ in range(6):
    if os.fork() == 0:
        break
time.sleep(0.5)
"""
    )
    assert done.status == "ok"


@every_means
def test_memory_in_files_without_a_name(means: Protection) -> None:
    done = attack(
        """
import os, time
for _ in range(45):
    os.write(os.memfd_create("x"), bytes(4_000_000))
time.sleep(5)
"""
    )
    assert done.status == "memory"


@every_means
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(means: Protection, stream: str) -> None:
    done = attack(f"import sys\nwhile True: print('x' * 999, file=sys.{stream})")
    assert done.status == "output"
    assert len(getattr(done, stream)) == SMALL.output


@every_means
def test_a_huge_file(means: Protection) -> None:
    done = attack(
        """
for piece in range(20):
    try:
        with open("huge", "ab") as file:
            file.write(bytes(1_000_000))
    except OSError as error:
        print(error.errno, piece)
        break
"""
    )
    assert done.status == "ok"
    assert done.stdout == "27 4\n"  # EFBIG


@whole
def test_many_files_fill_the_folder_only(means: Protection) -> None:
    done = attack(
        """
for piece in range(20):
    try:
        with open(f"file-{piece}", "wb") as file:
            file.write(bytes(1_000_000))
    except OSError as error:
        print(error.errno, piece)
        break
"""
    )
    assert done.stdout == "28 8\n"  # ENOSPC


@whole
def test_empty_files_cost_memory(means: Protection) -> None:
    done = attack(
        "import os\nfor n in range(1_000_000): os.close(os.open(str(n), os.O_CREAT))",
        Limits(wall=20, cpu=20, memory=30 * MIB, folder=MIB),
    )
    assert done.status == "memory"


@every_means
def test_burning_the_processor(means: Protection) -> None:
    done = attack("while True: pass", Limits(wall=120, cpu=1))
    assert done.status == "timeout"
    assert done.cpu < 3


@every_means
def test_burning_the_processor_in_many_processes(means: Protection) -> None:
    program = """
import os, signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
for _ in range(3):
    os.fork()
while True:
    pass
"""
    done = attack(program, Limits(wall=120, cpu=2))
    assert done.status == "timeout"
    assert done.cpu < 4


@every_means
def test_sleeping_ends_with_the_clock(means: Protection) -> None:
    done = attack("import time\ntime.sleep(60)", Limits(wall=0.5))
    assert done.status == "timeout"
    assert done.wall < 10


@every_means
def test_closing_the_outputs(means: Protection) -> None:
    closing = "import os, time\nos.write(1, b'said')\nos.close(0); os.close(1); os.close(2)\n"
    done = attack(closing)
    assert (done.status, done.stdout) == ("ok", "said")
    done = attack(f"{closing}time.sleep(60)", Limits(wall=0.5))
    assert (done.status, done.stdout) == ("timeout", "said")


@every_means
def test_staying_alive_in_the_background(means: Protection) -> None:
    marker = f"background-{os.getpid()}"
    done = attack(
        """
import os, signal, time
for _ in range(2):
    if os.fork():
        time.sleep(0.1)
        os._exit(0)
    os.setsid()
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
time.sleep(60)
""",
        SMALL,
        marker,
    )
    assert done.status == "ok"
    assert gone(marker, 0.0)


@namespaces
def test_the_network_of_the_machine(means: Protection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        done = attack(
            """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
    print("connected")
except OSError as error:
    print(type(error).__name__)
""",
            SMALL,
            str(listener.getsockname()[1]),
        )
        assert done.stdout in ("ConnectionRefusedError\n", "OSError\n")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_without_namespaces_the_network_is_open_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "bwrap", "unshare")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = attack(
            "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)",
            SMALL,
            str(listener.getsockname()[1]),
        )
    assert done.status == "ok"
    assert "has the network" in done.protection.lacks


CALLER = """
import json, os, signal, sys
from prefero.sandbox import Limits, confinement, run
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in the background
lacking = json.loads(sys.argv[1])
which = confinement.shutil.which
confinement.shutil.which = lambda name: None if name in lacking else which(name)
program = sys.stdin.read()
argv = ["python3", "-I", "-S", "attack.py", str(os.getpid()), *sys.argv[2:]]
done = run(argv, {"attack.py": program}, Limits(wall=20), accept="limits")
print(done.stdout)
print(done.stderr, file=sys.stderr)
"""


def caller(means: Protection, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own that runs a program (its standard input), which gets its process id."""
    lacking = {"bubblewrap": "[]", "unshare": '["bwrap"]', "none": '["bwrap", "unshare"]'}[means.means]
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, lacking, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CALLERS_SECRET": "hunter2"},
        text=True,
    )


def started(marker: str) -> None:
    """Wait until a caller's program runs."""
    deadline = time.monotonic() + 20
    while not named(marker, "python3") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # until it has read its file, and bubblewrap's first process knows that it runs


def skip_if_the_user_is_the_same(means: Protection) -> None:
    if means.means == "none" and means.user == "caller":
        assert "signals and looks into the caller's processes" in means.lacks
        pytest.skip("limits alone do not keep processes of one user apart")


@every_means
def test_the_environment_of_the_caller_is_not_read(means: Protection) -> None:
    skip_if_the_user_is_the_same(means)
    program = """
import os, sys
found = [b"CALLERS_SECRET" in open("/proc/self/environ", "rb").read()]
for name in {sys.argv[1], str(os.getppid()), *filter(str.isdigit, os.listdir("/proc"))}:
    try:
        found.append(b"CALLERS_SECRET" in open(f"/proc/{name}/environ", "rb").read())
    except OSError:
        pass
print(any(found), len(found) > 1)
"""
    process = caller(means)
    out, err = process.communicate(program, timeout=60)
    assert out.split() == ["False", "True"], err


@every_means
def test_the_caller_is_not_killed(means: Protection) -> None:
    skip_if_the_user_is_the_same(means)
    program = """
import os, signal, sys
for pid in (int(sys.argv[1]), os.getppid()):
    try:
        if pid > 1:
            os.kill(pid, signal.SIGKILL)
            print("killed", pid)
    except OSError as error:
        print(type(error).__name__)
"""
    process = caller(means)
    out, err = process.communicate(program, timeout=60)
    assert process.returncode == 0, err
    if means.means != "bubblewrap":  # there, the parent is the first process of its own namespace
        assert "killed" not in out


@every_means
def test_a_program_ends_with_the_process_that_ran_it(means: Protection) -> None:
    marker = f"orphan-{os.getpid()}-{means.means}"
    process = caller(means, marker)
    assert process.stdin
    process.stdin.write("import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(15)")
    process.stdin.close()
    started(marker)
    process.kill()
    process.wait()
    assert gone(marker)


@every_means
def test_an_interrupted_run_leaves_nothing(means: Protection) -> None:
    marker = f"interrupted-{os.getpid()}-{means.means}"
    process = caller(means, marker)
    assert process.stdin and process.stderr
    process.stdin.write("import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(15)")
    process.stdin.close()
    started(marker)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.stderr.read()
    process.wait(10)
    assert gone(marker)


@namespaces
def test_a_program_ends_with_its_supervisor(means: Protection) -> None:
    """Whoever kills that one, the caller is told."""
    marker = f"unsupervised-{os.getpid()}-{means.means}"
    process = caller(means, marker)
    assert process.stdin and process.stderr
    process.stdin.write("import time\ntime.sleep(15)")
    process.stdin.close()
    started(marker)
    supervisors = [pid for pid, child in processes(process.pid).items() if child.parent == process.pid]
    assert len(supervisors) == 1
    os.kill(supervisors[0], signal.SIGKILL)
    assert process.wait(10) == 1
    assert "the sandbox failed" in process.stderr.read()
    assert gone(marker)


@whole
def test_writing_outside_the_folder_and_through_links(means: Protection, tmp_path: Path) -> None:
    victim = Path(tempfile.mkdtemp(prefix="victim-"))
    victim.chmod(0o777)
    try:
        done = attack(
            """
import os, sys
victim, temporary = sys.argv[1:]
os.symlink("/", "root")
os.symlink(victim, "folder")
for target in (victim, "root" + victim, "folder", "..", "../../../../.." + temporary, sys.prefix,
               temporary, "/usr", "/dev/shm", "/proc/1/root" + temporary):
    try:
        with open(target + "/written", "w") as file:
            file.write("x")
        print("written", target)
    except OSError:
        pass
""",
            SMALL,
            str(victim),
            tempfile.gettempdir(),
        )
        assert (done.status, done.stdout) == ("ok", "")
        assert list(victim.iterdir()) == []
    finally:
        victim.rmdir()


@whole
def test_files_of_the_caller_are_not_read(means: Protection, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    done = attack(
        """
import os, sys
for path in (sys.argv[1], "/etc/passwd", "/etc/shadow", os.path.expanduser("~root/.ssh"), "/proc/1/environ"):
    try:
        open(path).read(10) if os.path.isfile(path) else os.listdir(path)
        print("read", path)
    except OSError:
        pass
""",
        SMALL,
        str(secret),
    )
    assert "secret" not in done.stdout and "/etc" not in done.stdout and ".ssh" not in done.stdout


@whole
def test_no_namespace_is_made_inside(means: Protection) -> None:
    """In one, a program could mount memory that nobody counts."""
    done = run(["unshare", "--user", "--map-root-user", "--mount", "true"], accept="limits")
    assert done.status == "error"


@every_means
def test_nothing_is_left_on_the_disk(means: Protection, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        done = attack(
            """
import os
os.symlink("/", "root")
for depth in range(1500):
    os.mkdir("deeper")
    os.chdir("deeper")
os.chmod(".", 0)
"""
        )
        assert done.status == "ok"
        assert os.listdir(folder) == []
