"""Forks do what fresh processes do, and none outlives whoever has asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unfreeze_trainer import forks

PROGRAM = """
import json, os, sys
print(json.dumps([sys.argv[1:], dict(os.environ), os.getpid() == os.getsid(0), sorted(set(sys.modules) & {"wave", "unfreeze_trainer"})]))
raise SystemExit(3)
"""


pytestmark = pytest.mark.slow  # each starts a Python or two


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted")
    process, ways = forks.start(["wave", "no_such_module"])
    yield forks.ForkServer(ways[0])
    ways[0].close()
    assert process.wait(60) == 0, "it ends when nobody can ask any more"


def script(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    return str(folder / "program.py")


def test_a_fork_is_given_what_it_is_asked_with_and_nothing_else(server, tmp_path):
    with (tmp_path / "out").open("w") as out:
        fork = server.spawn([script(tmp_path, PROGRAM), "a"], {"GIVEN": "1"}, name="unfreeze-test", out=out.fileno())
    assert fork.wait(60) == 3
    arguments, environment, leads, modules = json.loads((tmp_path / "out").read_text())
    assert (arguments, leads, modules) == (["a"], True, ["wave"])
    assert environment.pop("GIVEN") == "1"
    assert environment.keys() <= {forks.ENV, "LC_CTYPE"}


def test_a_fork_is_told_by_its_name_and_killed_by_a_signal(server, tmp_path):
    fork = server.spawn([script(tmp_path, "import time; time.sleep(1e6)")], {}, name="unfreeze-test")
    assert Path(f"/proc/{fork.pid}/comm").read_text() == "unfreeze-test\n"
    assert fork.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.01)
    fork.kill()
    assert fork.wait(60) == -signal.SIGKILL


def test_no_fork_outlives_whoever_has_asked_for_it(tmp_path):
    _, (way,) = forks.start([])
    fork = forks.ForkServer(way).spawn([script(tmp_path, "import time; time.sleep(1e6)")], {}, name="unfreeze-test")
    way.close()
    assert fork.wait(60) == -signal.SIGKILL


def test_the_fork_of_a_fork_ends_with_it(server, tmp_path):
    program = """
from unfreeze_trainer.forks import ForkServer
import os, sys, time
print(ForkServer.inherited().spawn([sys.argv[1]], {}, name="inner").pid, flush=True)
time.sleep(1e6)
"""
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import time; time.sleep(1e6)")
    with (tmp_path / "out").open("w") as out:
        command = [script(tmp_path, program), str(sleeper)]
        fork = server.spawn(command, {"PYTHONPATH": ":".join(sys.path)}, name="outer", out=out.fileno())
    while not (inner := (tmp_path / "out").read_text().strip()):
        time.sleep(0.01)
    fork.kill()
    while Path(f"/proc/{inner}").exists():
        time.sleep(0.01)


def test_where_the_server_has_gone_a_process_is_started_afresh(tmp_path):
    process, (way,) = forks.start([])
    process.kill()
    process.wait()
    program = script(tmp_path, "import sys; sys.exit(4)")
    assert forks.spawn([program], os.environ, forks.ForkServer(way), name="unfreeze-test").wait(60) == 4


def test_a_server_that_a_thread_runs_in_forks_nothing(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process, (way,) = forks.start(["threaded"])
    with pytest.raises(OSError, match=r"gone|pipe"):
        forks.ForkServer(way).spawn([script(tmp_path, "")], {}, name="unfreeze-test")
    assert process.wait(60) == 1


@pytest.mark.parametrize("forked", [True, False])
def test_what_is_run_has_no_input_and_its_last_words_are_told(tmp_path, monkeypatch, forked):
    """transformers asks there whether to run a folder's code."""
    _, ways = forks.start([])
    monkeypatch.setattr(forks.ForkServer, "inherited", lambda: forks.ForkServer(ways[0]) if forked else None)
    program = "import sys; print(sys.stdin.read() or 'nothing'); sys.exit('the last words')"
    code, out, err = forks.run([script(tmp_path, program)], {}, name="unfreeze-test", seconds=60)
    assert (code, out, err) == (1, "nothing\n", "the last words\n")
    ways[0].close()


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(forks.ENV, "off")
    assert forks.start([]) == (None, [])


def test_libraries_get_their_settings_and_no_secret():
    given = {
        "HF_HOME": "/cache",
        "HF_TOKEN": "x",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_API_KEY": "x",
        "OMP_PROC_BIND": "1",
    }
    assert forks._settings(given) == {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/cache",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_PROC_BIND": "1",
    }
