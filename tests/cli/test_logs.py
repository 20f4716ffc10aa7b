"""`kubectl ftj logs` against a cluster that is made up."""

import pytest

from unfreeze_api.contracts.names import INDEX_ANNOTATION
from unfreeze_cli.logs import follow, print_logs


class Cluster:
    """A job that has succeeded, and its pod; asked is what kubectl was called with."""

    def __init__(self):
        self.asked = []

    def job(self, _name):
        return {"status": {"phase": "Succeeded"}}

    def pods(self, _name):
        status = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]}
        return [{"metadata": {"name": "job-0", "uid": "u", "annotations": {INDEX_ANNOTATION: "0"}}, "status": status}]

    def stream(self, *arguments):
        self.asked.append(arguments)
        return 0


@pytest.mark.parametrize(("tail", "more"), [(None, ()), (5, ("--tail=5",))])
def test_the_trainers_container_is_asked_whatever_others_a_pod_has(tail, more):
    cluster = Cluster()
    print_logs(cluster, "job", None, tail)
    follow(cluster, "job", None, tail, sleep=lambda _: None)
    pod = ("job-0", "--container=trainer", *more)
    assert cluster.asked == [("logs", *pod), ("logs", "--follow", *pod)]
