"""What keeps a credential in the process that has it."""

import json
import os
import subprocess
import sys

import pytest

from unfreeze_trainer.sources.secrecy import redacted

CHECK = """
import ctypes, subprocess, sys
from unfreeze_trainer.sources.secrecy import close_to_others
close_to_others()
dumpable = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
subprocess.run([sys.executable, "-c", dumpable])
"""


def test_a_process_that_is_closed_leaves_no_core_file():
    """And others of its user read neither its memory nor its environment: the kernel gives both to root. Its children are open."""
    environment = {"PATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]


def test_messages_have_neither_tokens_nor_signed_addresses():
    said = "403 for url 'https://store.example/a/b?X-Signature=0123&Expires=1', token hf_abc, see https://hub.example/a"
    assert (
        redacted(said, ["hf_abc"])
        == "403 for url 'https://store.example/a/b?...', token ***, see https://hub.example/a"
    )
    said = "http://me:p@ss@hub.example/a cannot be reached by socks5h://u:p@proxy:1, timm://resnet18@main"
    assert (
        redacted(said, [])
        == "http://***@hub.example/a cannot be reached by socks5h://***@proxy:1, timm://resnet18@main"
    )
    assert redacted("did you mean org/name? Yes", []) == "did you mean org/name? Yes"


@pytest.mark.slow
def test_an_error_that_nobody_knows_is_logged_without_credentials():
    wanted = {"field": "f", "source": "planted://b/k", "path": "", "is_model": True, "weights": True, "beside": False}
    request = {"what": "pin", "scheme": "planted", "wanted": [wanted], "cache": "/", "pod": False, "offline": False}
    request |= {"patience": 0, "parent": os.getpid()}
    command = [sys.executable, "-m", "unfreeze_trainer.sources.fetcher"]
    environment = os.environ | {"HF_TOKEN": "planted"}
    done = subprocess.run(
        command, env=environment, input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "No module named 'unfreeze_trainer.sources.schemes.***'" in done.stderr
    assert "planted" not in done.stderr
