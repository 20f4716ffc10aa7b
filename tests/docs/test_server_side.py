"""Whoever applies the CRD as the documents say does it server-side: client-side, kubectl would keep all of it in an annotation."""

import re

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from unfreeze_api.generate import crd

ROOMS = ("README.md", "Makefile", "docs", "examples", "charts", "crds", "operator", "cli", "bench")
KIND = "kind: CustomResourceDefinition"


def files():
    """Return the texts of the repository that people read commands in, tests apart, by their names."""
    for room in ROOMS:
        place = REPOSITORY / room
        for path in [place] if place.is_file() else sorted(found for found in place.rglob("*") if found.is_file()):
            try:
                yield str(path.relative_to(REPOSITORY)), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def commands(text):
    """Return the `kubectl apply` commands of a text, each in one line: in blocks, in backticks, in comments."""
    text = re.sub(r"\s*\\\n\s*", " ", text)
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", lambda span: span[0].replace("\n", " "), text)
    return re.findall(r"kubectl[^\n`|;&]*? apply\b[^\n`|;&]*", text)


def holds_the_crd(place):
    """Whether a file, a folder or a kustomization of the repository has the CRD in it."""
    place = re.sub(r"^\w+://.*?//|\?.*$", "", place)  # of another repository's address what lies in it
    path = REPOSITORY / place
    if path.is_file():
        return KIND in path.read_text(encoding="utf-8") or (
            path.name == "kustomization.yaml" and holds_the_crd(str(path.parent.relative_to(REPOSITORY)))
        )
    file = path / "kustomization.yaml"
    if file.is_file():
        resources = yaml.safe_load(file.read_text(encoding="utf-8")).get("resources", ())
        return any(holds_the_crd(str((path / name).resolve().relative_to(REPOSITORY))) for name in resources)
    return path.is_dir() and any(KIND in found.read_text(encoding="utf-8") for found in path.glob("*.yaml"))


def places(command):
    """Return what a command applies."""
    found = re.findall(r"""(?:\s-[fk]|--filename|--kustomize)[ =]?['"]?([^\s'",)]+)""", command)
    return [place.rstrip(".:") for place in found]


def wrong(text):
    """Return the commands of a text that apply the CRD, and not server-side."""
    found = [command for command in commands(text) if any(map(holds_the_crd, places(command)))]
    return [command for command in found if not re.search(r"--server-side(=true)?(\s|$)", command)]


def test_commands_that_apply_the_crd_are_server_side():
    assert [f"{name}: {command}" for name, text in files() for command in wrong(text)] == []


def test_such_commands_are_found():
    found = [command for _, text in files() for command in commands(text) if any(map(holds_the_crd, places(command)))]
    assert len(found) >= 4


@pytest.mark.parametrize(
    "text",
    [
        "kubectl apply -f crds/unfreeze.dev_finetunejobs.yaml",
        "kubectl apply -k crds",
        "(or `kubectl apply -k operator/deploy/leader-election`), which",
        "or by `kubectl\napply -k operator/deploy/namespaced`",
        "$ kubectl --context prod apply \\\n  --kustomize=operator/deploy\n",
        "# kubectl apply -koperator/deploy/cluster-wide: all",
        "kubectl apply --filename charts/unfreeze/files/crd.yaml --server-side=false",
        "kubectl apply -k 'https://git.example.com/unfreeze.git//operator/deploy?ref=main'",
    ],
)
def test_what_would_be_wrong_is_seen(text):
    assert len(wrong(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "kubectl apply -f examples/trec-minilm.yaml",
        "kubectl apply --server-side -k operator/deploy",
        "`kubectl apply` it. crds/unfreeze.dev_finetunejobs.yaml",
        "kubectl create -f crds/unfreeze.dev_finetunejobs.yaml",
        "kubectl create configmap a | kubectl apply --server-side --filename -",
    ],
)
def test_what_is_right_is_not(text):
    assert wrong(text) == []


def test_no_text_asks_for_it_without_a_command():
    """As in `apply crds/...`: whoever reads that types the shortest command that does it."""
    asked = re.compile(r"\b[Aa]pply\s+`?(?:crds/|operator/deploy|charts/unfreeze/files/crd)")
    assert [name for name, text in files() if asked.search(text)] == []


def test_argo_cd_applies_it_server_side():
    """Flux does so by itself, as does Helm 4; Helm 3 keeps no annotation."""
    for path in (REPOSITORY / "examples/gitops/argocd").rglob("*.yaml"):
        for application in yaml.safe_load_all(path.read_text()):
            if application["spec"]["source"]["path"] == "charts/unfreeze":
                assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
                return
    pytest.fail("no Application of the operator")


def test_the_crd_is_where_the_commands_look():
    assert holds_the_crd(str(crd.FILE.relative_to(REPOSITORY)))
