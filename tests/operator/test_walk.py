"""Some fields of the spec are walked in each run, other ones with each commit; `make test-walk` walks all of them."""

import random
import shutil
import subprocess

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.operator.process import OperatorProcess
from tests.operator.walk import OPTIONS, UNCHANGEABLE, walk
from tests.operator.walk_places import Place, without_nodes
from tests.operator.walk_steps import leaves

COUNT = 60
MUTANTS = {
    "template.schedulerName": ("manifests/children.py", '        "schedulerName",\n', ""),
    "tracking.mlflow.experiment": (
        "manifests/children.py",
        '"template", "tracking", "sources"',
        '"template", "sources"',
    ),
}
"""Fields that an operator ignores, each when a text in a file of it becomes another."""


def commit():
    """Return what the fields of this run are drawn by."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:
        return "walk"
    return done.stdout.strip() or "walk"


@pytest.fixture
def places(operator_cluster, worlds):
    with without_nodes(operator_cluster):
        yield tuple(Place(operator_cluster, worlds().namespace) for _ in range(2))


def test_what_cannot_be_walked_is_known():
    names = [str(leaf) for leaf in leaves()]
    assert len(set(names)) == len(names)
    assert set(UNCHANGEABLE) <= set(names)


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_sixty_fields_are_taken_up_or_refused_by_name(lone_operator, operator_cluster, places):
    lone_operator.options = OPTIONS
    lone_operator.start()
    said = []
    found = walk(operator_cluster, places, random.Random(commit()).sample(leaves(), COUNT), said.append)
    assert {leaf: kind for leaf, kind in found.items() if kind.startswith("wrong")} == {}
    assert {leaf for leaf, kind in found.items() if kind == "None"} <= set(UNCHANGEABLE)


class Mutant(OperatorProcess):
    """An operator whose code is a copy that ignores some fields."""

    def _spawn(self, arguments, environment):
        package = self.log.parent / "mutant" / "unfreeze_operator"
        shutil.copytree(REPOSITORY / "operator/unfreeze_operator", package)
        for file, old, new in MUTANTS.values():
            text = (package / file).read_text()
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
            (package / file).write_text(text.replace(old, new))
        return super()._spawn(arguments, environment | {"PYTHONPATH": str(package.parent)})


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_an_operator_that_ignores_a_field_is_caught(
    lone_operator, operator_cluster, operator_kubeconfig, places, tmp_path
):
    mutant = Mutant(operator_kubeconfig, tmp_path, options=OPTIONS)
    mutant.start()
    try:
        chosen = [leaf for leaf in leaves() if str(leaf) in MUTANTS]
        found = walk(operator_cluster, places, chosen, print, seconds=20)
    finally:
        mutant.kill()
    assert found.keys() == MUTANTS.keys()
    assert found["template.schedulerName"] == "wrong: its value is seen in no child of the job"
    assert "it is as a job that was made so" in found["tracking.mlflow.experiment"]
