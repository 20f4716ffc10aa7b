"""What README and docs tell a newcomer to type runs as it stands, in a fresh environment, block by block, in their order.

pip takes the packages from the tests' own environment, and the example is shortened.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.docs.documents import FILES, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LOCAL = {".", "cat", "cp", "mkdir", "pip", "python", "python3", "unfreeze"}
"""Programs that need no cluster, no container engine and no root."""
SHORTER = {
    "epochs: 3": "epochs: 0.2",
    "epochsPerPhase: 0.5": "epochsPerPhase: 0.05",
    "numNodes: 2": "numNodes: 1",
}


def commands(block: Block) -> str:
    """Return what of a block is typed: console blocks show answers too."""
    if block.language == "sh":
        return block.text
    return "".join(f"{line[2:]}\n" for line in block.text.splitlines() if line.startswith("$ "))


def programs(text: str) -> set[str]:
    """Return the programs that are called at the beginnings of lines and behind &&."""
    text = re.sub(r"<<'END'\n.*?\nEND$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {part.split()[0] for line in text.splitlines() for part in line.split("&&") if part.strip()}


ALONE = [block for block in blocks() if block.language in ("sh", "console") and programs(commands(block)) <= LOCAL]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A function that types a block into a terminal of a machine on which nothing is installed; it returns what is shown."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("repository")
    shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    pip = f'pip() {{ {sys.executable} {REPOSITORY}/tests/docs/offline_pip.py "$VIRTUAL_ENV" "$@"; }}\n'
    environment = {
        "HOME": str(home),
        "XDG_CACHE_HOME": cache,
        "UNFREEZE_FEATURES": "off",
        "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
    }
    environment |= {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "LANG") if name in os.environ}

    def type_in(text: str) -> str:
        again = ". ~/unfreeze/bin/activate\n" if (home / "unfreeze").exists() else ""
        done = subprocess.run(
            ["bash", "-e"],
            input=f"{pip}{again}{text}",
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    type_in.folder = folder
    return type_in


def test_the_blocks_that_need_no_cluster():
    assert [str(block.file.relative_to(REPOSITORY)) for block in ALONE] == [
        "README.md",
        "README.md",
        "docs/own-data.md",
        "docs/own-data.md",
        "docs/predictions.md",
        "docs/predictions.md",
    ]
    assert FILES[0] == REPOSITORY / "README.md"


def test_a_newcomers_lines_run_in_their_order(machine):
    install, phases, own_data, classify, predict, features = ALONE
    example = machine.folder / "examples" / "trec-minilm.yaml"
    whole = example.read_text()
    for long, short in SHORTER.items():
        assert whole.count(long) == 1
        example.write_text(example.read_text().replace(long, short))
    shown = machine(commands(install))
    assert 'FineTuneJob "trec-minilm" is valid; 6 labels, samples: 900 in train, 100 in validation' in shown
    assert '["classifier"](' in shown
    with pytest.raises(AssertionError, match="No module named 'pytest'"):
        machine("python -c 'import pytest'")

    example.write_text(whole)
    shown = machine(commands(phases))
    answer = [line for line in phases.text.splitlines() if not line.startswith("$ ")]
    assert [line.split() for line in shown.splitlines()] == [line.split() for line in answer]

    shown = machine(commands(own_data))
    assert "is valid on this machine (no cluster takes relative paths); 3 labels" in shown
    assert f'["classifier"]("{machine.folder}/tickets/run/model")' in shown
    assert "'label': 'billing'" in machine(commands(classify))
    assert "accuracy" in machine(commands(predict))
    assert (machine.folder / "tickets" / "said.parquet").is_file()
    machine(commands(features))
    assert all((machine.folder / "tickets" / f"{name}.parquet").is_file() for name in ("train", "validation", "new"))
