"""`kubectl ftj report`: the pod that reads a claim, and what becomes of its answer, with a cluster that says what it is told."""

import json

import click
import pytest
from rich.console import Console

from unfreeze_cli.kubectl import KubectlError
from unfreeze_cli.page import figures
from unfreeze_cli.report import FIGURES, fetch, reader, save

PAGE = "<!DOCTYPE html>\n<html>\u2026</html>\n"
JOB = {
    "metadata": {"name": "job", "namespace": "ns", "uid": "u"},
    "spec": {"output": {"destination": "pvc://results/team/job"}},
    "status": {"phase": "Succeeded"},
}
TEMPLATE = {
    "containers": [
        {
            "name": "trainer",
            "image": "registry/trainer:1",
            "env": [{"name": "WANDB_API_KEY", "valueFrom": {}}],
            "securityContext": {"readOnlyRootFilesystem": True},
            "resources": {"limits": {"nvidia.com/gpu": "8"}},
        }
    ],
    "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
    "tolerations": [{"key": "gpu"}],
    "volumes": [{"name": "claim-0"}],
}


class Cluster:
    """Answers as kubectl would; the pod goes through the given states."""

    def __init__(self, *states, log=PAGE, job=JOB, jobs=1):
        self.states, self.log, self.found, self.jobs = list(states), log, job, jobs
        self.pod, self.deleted = None, []

    def job(self, _):
        return self.found

    def json(self, verb, kind, *_):
        assert verb == "get"
        if kind == "jobs.batch":
            return {"items": [{"spec": {"template": {"spec": TEMPLATE}}}] * self.jobs}
        return {"status": self.states.pop(0) if len(self.states) > 1 else self.states[0]}

    def run(self, verb, *arguments, stdin=None):
        if verb == "create":
            self.pod = json.loads(stdin)
        elif verb == "logs":
            return self.log
        elif verb == "delete":
            self.deleted.append(arguments[1])
        return ""


def fetched(cluster, seconds=60):
    return fetch(cluster, "job", seconds=seconds, sleep=lambda _: None)


def test_a_pod_reads_the_page_and_goes():
    cluster = Cluster({}, {"phase": "Running"}, {"phase": "Succeeded"})
    assert fetched(cluster) == PAGE
    assert cluster.deleted == [cluster.pod["metadata"]["name"]]


def test_the_pod_has_no_more_rights_than_it_needs():
    pod = reader(JOB, TEMPLATE, "results", "team/job/report.html")
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["cat", "--", "/claim/team/job/report.html"]
    assert container["image"] == "registry/trainer:1"
    assert container["securityContext"] == {"readOnlyRootFilesystem": True}
    assert pod["spec"]["securityContext"] == TEMPLATE["securityContext"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"]] == [
        {"claimName": "results", "readOnly": True}
    ]
    text = json.dumps(pod)
    assert "WANDB" not in text
    assert 'gpu": "8' not in text
    assert "unfreeze.dev/job-name" not in text, "the operator would take it for a trainer"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "u"


@pytest.mark.parametrize("length", [1, 52, 63])
def test_its_name_is_one_whatever_the_jobs(length):
    named = JOB | {"metadata": JOB["metadata"] | {"name": "a" * (length - 1) + "b"}}
    assert len(reader(named, TEMPLATE, "c", "p")["metadata"]["name"]) <= 63


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"job": JOB | {"status": {"phase": "Running"}}},
            "job is Running: the report is written when a job has succeeded",
        ),
        ({"job": JOB | {"status": {}}}, "job is Pending"),
        (
            {"job": JOB | {"spec": {"output": {"destination": "file:///runs/x"}}}},
            "lies at file:///runs/x, on no volume claim",
        ),
        ({"jobs": 0}, "has no Job any more"),
    ],
)
def test_without_a_page_no_pod_is_made(change, told):
    cluster = Cluster({"phase": "Succeeded"}, **change)
    with pytest.raises(click.ClickException, match=told):
        fetched(cluster)
    assert cluster.pod is None


@pytest.mark.parametrize(
    ("state", "log", "told"),
    [
        (
            {"phase": "Failed"},
            "cat: /claim/team/job/report.html: No such file",
            "claim results has no page at team/job/report.html",
        ),
        ({"phase": "Succeeded"}, "<script>", "has no page"),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such"}}}],
            },
            "",
            "does not run: ErrImagePull: no such",
        ),
    ],
)
def test_what_goes_wrong_is_told_and_the_pod_goes(state, log, told):
    cluster = Cluster(state, log=log)
    with pytest.raises(click.ClickException, match=told):
        fetched(cluster)
    assert cluster.deleted == [cluster.pod["metadata"]["name"]]


def test_it_waits_no_longer_than_it_may():
    waiting = {"phase": "Pending", "conditions": [{"status": "False", "message": "0/3 nodes are available"}]}
    cluster = Cluster(waiting)
    with pytest.raises(click.ClickException, match="0/3 nodes are available"):
        fetched(cluster, seconds=0)
    assert cluster.deleted


def test_the_pod_goes_where_its_log_cannot_be_read():
    cluster = Cluster({"phase": "Succeeded"})

    def run(verb, *arguments, stdin=None):
        if verb == "logs":
            raise KubectlError("pods/log is forbidden")
        return Cluster.run(cluster, verb, *arguments, stdin=stdin)

    cluster.run = run
    with pytest.raises(KubectlError, match="forbidden"):
        fetched(cluster)
    assert cluster.deleted


def test_a_page_is_written_whole(tmp_path):
    save(PAGE, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == PAGE
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_figures_of_classes_come_the_same_way():
    cluster = Cluster({"phase": "Succeeded"}, log='{"schemaVersion": 1}')
    assert fetch(cluster, "job", FIGURES, seconds=60, sleep=lambda _: None) == '{"schemaVersion": 1}'
    assert cluster.pod["spec"]["containers"][0]["command"][-1] == "/claim/team/job/evaluation.json"
    with pytest.raises(click.ClickException, match="has no figures of classes at team"):
        fetch(Cluster({"phase": "Failed"}, log="cat: no such"), "job", FIGURES, seconds=60, sleep=lambda _: None)


def shown(text: str) -> list[list[str]]:
    console = Console(width=100)
    with console.capture() as said:
        console.print(figures(text))
    return [line.split() for line in said.get().splitlines() if line.strip()]


def test_the_worst_classes_are_shown():
    def of(label: str, f1: float) -> dict:
        return {"label": label, "precision": 0.5, "recall": 0.25, "f1": f1, "support": 1200, "predicted": 3}

    classes = [of("good", 0.9), of("\x1b[31mbad\n", 0.1), *(of(f"c{n}", 0.95) for n in range(30))]
    one = {"rows": 5, "classes": classes, "classesLeftOut": 8}
    text = json.dumps({"kind": "OneOf", "splits": {"validation": one | {"classes": []}, "test": one}, "later": 1})
    title, head, first, second, *_, last = shown(text)
    assert " ".join(title) == "Classes of the test data, the lowest F1 first"
    assert head == ["CLASS", "PRECISION", "RECALL", "F1", "ROWS"]
    assert first[-4:] == ["0.500", "0.250", "0.100", "1,200"]
    assert "\x1b" not in "".join(first)
    assert second[0] == "good"
    assert " ".join(last) == "and 20 more in evaluation.json"
    assert "numbers" in " ".join(shown(json.dumps({"kind": "Amounts", "splits": {}}))[0])
    with pytest.raises(click.ClickException, match="cannot be read"):
        figures("{")
