"""kubectl's answers as errors for people, and what the commands make of them, with a kubectl that says what it is told."""

import json
import os

import pytest
from click.testing import CliRunner

from unfreeze_cli.kubectl import ForbiddenError, Kubectl, KubectlError, NotFoundError, explained
from unfreeze_cli.life import recreated
from unfreeze_cli.main import cli

NO_CONFIG = """E1124 13:00:00.000000   77 memcache.go:265] "Unhandled Error" err="couldn't get current server API group list"
The connection to the server localhost:8080 was refused - did you specify the right host or port?
"""


@pytest.mark.parametrize(
    ("stderr", "kind", "message"),
    [
        (
            NO_CONFIG,
            KubectlError,
            "no cluster: set KUBECONFIG, or name a file by --kubeconfig and a context by --context",
        ),
        ('error: context "x" does not exist\n', KubectlError, 'context "x" does not exist'),
        (
            'error: the server doesn\'t have a resource type "finetunejobs"\n',
            KubectlError,
            "the cluster has no FineTuneJobs: Unfreeze is not installed there",
        ),
        (
            'Error from server (NotFound): finetunejobs.unfreeze.dev "a" not found\n',
            NotFoundError,
            'there is no FineTuneJob "a" here: `kubectl get ftj -A` lists those of all namespaces',
        ),
        ("Error from server (Forbidden): pods is forbidden: User x\n", ForbiddenError, "pods is forbidden: User x"),
        ("", KubectlError, "kubectl failed without a word"),
    ],
)
def test_what_kubectl_says_becomes_a_sentence(stderr, kind, message):
    error = explained(stderr)
    assert type(error) is kind
    assert error.message == message


def test_without_kubectl_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(cli, ["status", "job"])
    assert result.exit_code == 1
    assert "kubectl is not on the PATH" in result.stderr


def test_logs_on_a_terminal_are_plain_text(monkeypatch, tmp_path, capfd):
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\nprintf 'a\\033[2Jb\\rc\\n'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Kubectl().stream("logs", "pod") == 3
    assert capfd.readouterr().out == "a\x1b[2Jb\rc\n", "a file or a pipe gets it as it is"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert Kubectl().stream("logs", "pod") == 3
    assert capfd.readouterr().out == "a\N{REPLACEMENT CHARACTER}[2Jb\nc\n"


JOB = {
    "apiVersion": "unfreeze.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {
        "name": "job",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "5",
        "generation": 2,
        "managedFields": [],
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"team": "a"},
        "annotations": {"argocd.argoproj.io/tracking-id": "x"},
    },
    "spec": {"model": {"source": "pvc://models/minilm"}},
    "status": {"phase": "Failed", "completionTime": "2026-01-01T00:01:00Z", "checkpoint": {"step": 40}},
}


@pytest.fixture
def kubectl(monkeypatch, tmp_path):
    """A kubectl that answers by its first word, from a function that sets answers, and notes what it was called with."""
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\n"
        f'cd {tmp_path}\necho "$@" >> calls\n'
        'if [ -e "$1.gone" ] && [ -e delete.done ]; then cat "$1.gone" >&2; exit 1; fi\n'
        'if [ -e "$1.again" ] && [ -e delete.done ]; then cat "$1.again"; exit 0; fi\n'
        '[ "$1" = delete ] && touch delete.done\n'
        'case "$*" in *dry-run*) name="$1-dry";; *) name="$1";; esac\n'
        '[ -e "$name.fail" ] && { cat "$name.fail" >&2; exit 1; }\n'
        '[ -e "$name.out" ] && cat "$name.out"\nexit 0\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "get.out").write_text(json.dumps(JOB))
    (tmp_path / "get.gone").write_text('Error from server (NotFound): finetunejobs.unfreeze.dev "job" not found\n')
    return tmp_path


def calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_kubectls_own_options_go_through(kubectl):
    CliRunner().invoke(cli, ["suspend", "job", "-n", "ns", "--context=c", "--kubeconfig=/k", "--as=me"])
    assert calls(kubectl)[0].endswith("--output=json --namespace=ns --context=c --kubeconfig=/k --as=me")


def test_retry_deletes_nothing_that_the_server_would_not_take_again(kubectl):
    (kubectl / "create-dry.fail").write_text("Error from server (Forbidden): quota exceeded\n")
    result = CliRunner().invoke(cli, ["retry", "job"])
    assert (result.exit_code, result.stderr) == (1, "Error: quota exceeded\n")
    assert not any(line.startswith("delete") for line in calls(kubectl))


def test_retry_keeps_the_manifest_of_a_job_that_it_could_not_create_again(kubectl):
    (kubectl / "create.fail").write_text("error: the network is gone\n")
    result = CliRunner().invoke(cli, ["retry", "job"])
    assert result.exit_code == 1
    assert "could not be created again" in result.stderr
    (saved,) = kubectl.glob("job-*.json")
    assert str(saved) in result.stderr
    assert json.loads(saved.read_text()) == recreated(JOB)


def test_retry_leaves_a_job_alone_that_somebody_has_made_again_meanwhile(kubectl):
    """What keeps the cluster as a repository has it makes it within a second."""
    (kubectl / "get.gone").unlink()
    (kubectl / "get.again").write_text(json.dumps(JOB | {"metadata": JOB["metadata"] | {"uid": "other"}}))
    (kubectl / "create.fail").write_text(
        'Error from server (AlreadyExists): finetunejobs.unfreeze.dev "job" already exists\n'
    )
    result = CliRunner().invoke(cli, ["retry", "job"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == "job is deleted, and somebody else has made it again meanwhile: `kubectl ftj status job` shows that one\n"
    )


def test_what_retry_makes_is_what_the_author_wrote():
    again = recreated(JOB)
    assert set(again) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(again["metadata"]) == {"name", "namespace", "labels", "annotations"}
    assert again["spec"] == JOB["spec"]


def test_retry_says_from_where_it_resumes(kubectl):
    result = CliRunner().invoke(cli, ["retry", "job"])
    assert (result.exit_code, result.stdout) == (0, "job is recreated and resumes from step 40\n")


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_a_finished_job_cannot_be_suspended_or_resumed(kubectl, command):
    result = CliRunner().invoke(cli, [command, "job"])
    assert result.exit_code == 1
    assert f"job has failed already: there is nothing to {command}" in result.stderr
    assert not any(line.startswith("patch") for line in calls(kubectl))


def test_a_light_start():
    import subprocess
    import sys

    program = (
        "import sys\nfrom unfreeze_cli.main import cli\n"
        "heavy = {'rich', 'pydantic', 'kubernetes', 'torch'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
