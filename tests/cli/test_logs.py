"""`kubectl ftj logs` against a cluster that is made up."""

import click
import pytest

from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_cli.logs import follow, print_logs

BESIDE = {"name": "mesh", "state": {"running": {}}}


class Cluster:
    """A job that has succeeded, and its pod; asked is what kubectl was called with."""

    def __init__(self):
        self.asked = []
        self.phase = "Succeeded"

    def job(self, _name):
        return {"status": {"phase": self.phase}}

    def pods(self, _name):
        status = {
            "phase": "Succeeded",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 0}}}, BESIDE],
        }
        return [{"metadata": {"name": "job-0", "uid": "u", "annotations": {INDEX_ANNOTATION: "0"}}, "status": status}]

    def stream(self, *arguments):
        self.asked.append(arguments)
        return 0


@pytest.mark.parametrize(("tail", "more"), [(None, ()), (5, ("--tail=5",))])
def test_the_trainers_container_is_asked_whatever_others_a_pod_has(tail, more):
    cluster = Cluster()
    print_logs(cluster, "job", None, tail)
    follow(cluster, "job", None, tail, sleep=lambda _: None)
    pod = ("logs", "job-0", "--container=trainer")
    assert cluster.asked == [(*pod, *more), (*pod, "--follow", *more)]


class Evicted(Cluster):
    """A pod that is taken away before its log is fetched, and another in its place, whose log cannot be had either if `broken`."""

    def __init__(self, *, broken=False):
        super().__init__()
        self.broken = broken

    def pods(self, name):
        (pod,) = super().pods(name)
        number = 1 if self.asked else 0
        return [{**pod, "metadata": pod["metadata"] | {"name": f"job-0-{number}", "uid": f"u{number}"}}]

    def stream(self, *arguments):
        self.asked.append(arguments)
        return int(self.broken or len(self.asked) == 1)


class Early(Cluster):
    """A pod in which another container runs before the trainer does."""

    def pods(self, name):
        (pod,) = super().pods(name)
        pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ContainerCreating"}}
        return [pod]


def test_a_trainer_that_has_not_started_has_no_logs():
    with pytest.raises(click.ClickException, match="no pod 0 of the job has logs: it has not started"):
        print_logs(cluster := Early(), "job", None, None)
    assert cluster.asked == []


class Cut(Cluster):
    """A pod whose stream ends at first though it runs, and that has ended, and its job, when the second one does."""

    def pods(self, name):
        (pod,) = super().pods(name)
        if len(self.asked) < 2:
            pod["status"] = {
                "phase": "Running",
                "containerStatuses": [{"name": "trainer", "state": {"running": {}}}, BESIDE],
            }
        return [pod]

    def job(self, _name):
        return {"status": {"phase": "Succeeded" if len(self.asked) > 1 else "Running"}}


def test_a_pod_that_runs_is_followed_again_when_its_stream_ends(capsys):
    cluster = Cut()
    follow(cluster, "job", None, 5, sleep=lambda _: None)
    pod = ("logs", "job-0", "--container=trainer", "--follow")
    assert cluster.asked == [(*pod, "--tail=5"), (*pod, "--since=1s")]
    assert capsys.readouterr().err.splitlines() == ["==> job-0 (Running, not ready) <==", "The job has succeeded."]


def test_logs_go_on_when_a_pod_is_taken_away():
    cluster = Evicted()
    follow(cluster, "job", None, None, sleep=lambda _: None)
    assert [arguments[1] for arguments in cluster.asked] == ["job-0-0", "job-0-1"]
    with pytest.raises(SystemExit):
        follow(Evicted(broken=True), "job", None, None, sleep=lambda _: None)
    print_logs(Evicted(), "job", None, None)
