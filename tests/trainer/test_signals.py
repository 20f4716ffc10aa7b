"""Whatever ends `unfreeze run` leaves a checkpoint, and no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainer.processes import descendants
from unfreeze_trainer.commands.interrupts import Interrupts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def start(folder: Path, *, forks: str = "on", **options) -> subprocess.Popen:
    environment = os.environ | {
        "UNFREEZE_FORK_SERVER": forks,
        "UNFREEZE_TEST": json.dumps({"sleep": 0.1} | options),
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "tests.trainer.run_mlp", folder / "run"]
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)


def until(condition):
    while not (value := condition()):
        time.sleep(0.02)
    return value


def events(folder: Path) -> list[str]:
    file = folder / "run" / "events.jsonl"
    return [json.loads(line)["event"] for line in file.read_text().splitlines()] if file.exists() else []


def is_agent(pid: int) -> bool:
    try:
        return b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "forks"),
    [(signal.SIGHUP, "on"), (signal.SIGKILL, "on"), (signal.SIGKILL, "off")],
)
def test_a_signal_leaves_a_checkpoint_and_no_orphan(tmp_path, number, forks):
    """Also where each process is a Python of its own. SIGTERM and Ctrl-C go SIGHUP's way: see below, and `test_local`."""
    run = start(tmp_path, forks=forks)
    until(lambda: run.poll() is not None or "evaluation" in events(tmp_path))
    assert run.poll() is None, (tmp_path / "said").read_text()
    below = descendants(run.pid)
    assert len(below) >= 4  # two agents, a worker each
    run.send_signal(number)
    assert run.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 143)
    until(lambda: not any(map(alive, below)))
    assert events(tmp_path)[-1] == "stopped"
    if number != signal.SIGKILL:
        assert "the same command resumes from it" in (tmp_path / "said").read_text()


def test_a_signal_before_anything_trains_ends_it(tmp_path):
    run = start(tmp_path)
    below = until(lambda: [pid for pid in descendants(run.pid) if is_agent(pid)])  # imports start programs of their own
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 143, (tmp_path / "said").read_text()
    until(lambda: not any(map(alive, below)))
    assert "nothing was trained yet" in (tmp_path / "said").read_text()


def test_a_hang_up_that_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().heard():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_waits_for_what_must_not_be_cut_short():
    interrupts, done, before = Interrupts(), [], signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run below nohup
    with interrupts.heard():
        with pytest.raises(KeyboardInterrupt), interrupts.held():  # noqa: PT012 - what comes after is the point
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("all")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert done == ["all"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_thread_runs_without_hearing_signals():
    with ThreadPoolExecutor(1) as pool:

        def within():
            with Interrupts().heard():
                return signal.getsignal(signal.SIGINT)

        assert pool.submit(within).result() == signal.getsignal(signal.SIGINT)
