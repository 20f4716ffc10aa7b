"""Jobs in a cluster from Python: the API server is a real one, what an operator would say is written by the tests."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes import config

import unfreeze
from tests.crds.corpus import PATH
from tests.crds.test_api_server import crd  # noqa: F401 - installs it

pytestmark = pytest.mark.cluster
PARTS = {
    "model": "pvc://models/bert",
    "task": "TextClassification",
    "train": "pvc://data/t.csv",
    "output": "pvc://results/run",
}


@pytest.fixture
def client(cluster):
    with config.new_client_from_config(config_file=str(cluster.kubeconfig)) as made:
        yield made


@pytest.fixture
def submitted(client, namespace):
    return unfreeze.submit(unfreeze.job("words", **PARTS), namespace=namespace, client=client)


def say(cluster, job, **status):
    """Be the operator."""
    path = f"{PATH.format(namespace=job.namespace)}/{job.name}/status"
    code, answer = cluster.request("PATCH", path, {"status": status})
    assert code == 200, answer


def test_what_was_built_is_what_is_stored(cluster, submitted):
    stored = cluster.get(f"{PATH.format(namespace=submitted.namespace)}/words")
    assert stored["spec"]["data"]["validation"] == {"fraction": 0.1}
    assert stored["spec"]["training"]["batchSize"] == 32
    assert unfreeze.logs(submitted) == ""
    with pytest.raises(unfreeze.JobFailed, match=r'AlreadyExists: .*"words" already exists'):
        unfreeze.submit(unfreeze.job("words", **PARTS), namespace=submitted.namespace, client=submitted.client)


def test_a_job_is_waited_for_from_its_progress_to_its_end(cluster, submitted, capsys):
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: (begun.set(), unfreeze.wait(submitted))[1])
        begun.wait()
        say(cluster, submitted, phase="Running", progress={"percent": 41, "step": 4, "totalSteps": 10, "phaseCount": 1})
        say(cluster, submitted, phase="Succeeded", results={"test.accuracy": 0.93})
        found = waiting.result()
    assert (found.name, found.metrics["test"], found.destination) == ("words", {"accuracy": 0.93}, "pvc://results/run")
    assert "words: 100%" in capsys.readouterr().err


def test_a_job_that_fails_says_why(cluster, submitted):
    say(cluster, submitted, phase="Failed", failure={"reason": "InvalidData", "message": "row 3 has no text"})
    with pytest.raises(unfreeze.JobFailed, match="row 3 has no text") as raised:
        unfreeze.wait(submitted, progress=False)
    assert raised.value.reason == "InvalidData"


def test_waiting_ends_in_time_and_where_the_job_is_gone(submitted):
    with pytest.raises(TimeoutError, match="words has not ended within 0 seconds; it goes on"):
        unfreeze.wait(submitted, timeout=0, progress=False)
    unfreeze.delete(submitted)
    unfreeze.delete(submitted)
    with pytest.raises(unfreeze.JobFailed, match="not found"):
        unfreeze.wait(submitted, progress=False)


def test_paths_of_this_machine_are_warned_of(client, namespace, tmp_path):
    (tmp_path / "t.csv").touch()
    job = unfreeze.job("words", **(PARTS | {"train": tmp_path / "t.csv"}))
    with pytest.warns(
        UserWarning, match=r"t\.csv lies on this machine, and the job's pods look for it in their container"
    ):
        unfreeze.submit(job, namespace=namespace, client=client)
