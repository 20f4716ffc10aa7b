"""What tools that apply manifests again and again see of FineTuneJobs: kstatus, Argo CD's health, drift, pruning."""

import json

import pytest
import yaml

from charts.generate import REPOSITORY
from tests.charts.argocd import health
from tests.charts.render import NAMESPACE
from tests.cluster.cluster import ClusterError
from tests.crds.corpus import load, patched
from tests.operator.world import spec, until
from unfreeze_api.apiserver.manifest import Loader

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# What Argo CD and Flux mark their objects with, to find those that are no longer wanted.
TRACKING = {
    "labels": {"app.kubernetes.io/instance": "app", "kustomize.toolkit.fluxcd.io/name": "jobs"},
    "annotations": {"argocd.argoproj.io/tracking-id": "app:unfreeze.dev/FineTuneJob:ns/job"},
}


@pytest.fixture(scope="module")
def cluster(released):
    return released


def manifest(world, name="job", **options):
    return {
        "apiVersion": "unfreeze.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": spec(name, **options),
    }


@pytest.fixture
def helm_wait(cluster, world, tmp_path):
    """A function that installs a job by a chart of its own and waits as helm does: by kstatus."""

    def wait(job, seconds=60):
        (tmp_path / "templates").mkdir(exist_ok=True)
        (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: app, version: 0.1.0}")
        (tmp_path / "templates/job.yaml").write_text(json.dumps(job))
        into = ("--namespace", world.namespace, "--wait", "--timeout", f"{seconds}s")
        cluster.helm("upgrade", "--install", "app", str(tmp_path), *into)

    return wait


def test_helm_waits_until_all_pods_run(helm_wait, world):
    helm_wait(manifest(world, nodes=2, fake={"holdAt": 1}))
    status = world.status()
    assert status["phase"] == "Running"
    assert not [c for c in status["conditions"] if c["type"] == "Reconciling" and c["status"] == "True"]


def test_helm_tells_of_a_job_that_failed(helm_wait, world):
    job = manifest(world, startupTimeoutSeconds=1)
    job["spec"]["template"]["nodeSelector"] = {"no": "such-node"}
    with pytest.raises(ClusterError, match=r"FineTuneJob/\S*job not ready. status: Failed"):
        helm_wait(job)


def test_helm_does_not_take_a_job_that_waits_for_one_that_is_ready(helm_wait, world):
    job = manifest(world)
    job["spec"]["template"]["nodeSelector"] = {"no": "such-node"}
    with pytest.raises(ClusterError, match=r"FineTuneJob/\S*job not ready. status: InProgress"):
        helm_wait(job, seconds=3)


def test_helm_does_not_take_a_job_that_nobody_has_seen_for_one_that_is_ready(cluster, helm_wait, world):
    deployment = ("deployment/unfreeze-operator", "--namespace", NAMESPACE)
    cluster.kubectl("scale", "--replicas=0", *deployment)
    until(lambda: not cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"], "the operator has gone")
    with pytest.raises(ClusterError, match=r"FineTuneJob/\S*job not ready. status: InProgress"):
        helm_wait(manifest(world), seconds=2)
    cluster.kubectl("scale", "--replicas=1", *deployment)
    cluster.kubectl("rollout", "status", *deployment)


def test_argo_cds_health_of_jobs_that_run(cluster, world):
    cluster.kubectl("apply", "--filename=-", stdin=manifest(world, fake={"holdAt": 1}))
    world.wait(lambda status: "progress" in status)
    assert health(world.get())[0] == "Progressing"
    assert "%" in health(world.get())[1]
    world.suspend(True)
    world.wait_phase("Suspended")
    assert health(world.get()) == ("Suspended", "runPolicy.suspend is true")
    world.suspend(False)
    world.go()
    world.wait_phase("Succeeded")
    assert health(world.get()) == ("Healthy", "the job has succeeded")


@pytest.mark.parametrize(
    "apply", [("apply",), ("apply", "--server-side", "--field-manager=gitops")], ids=["client", "server"]
)
def test_nothing_drifts_however_often_the_operator_looked(cluster, world, apply):
    job = manifest(world, nodes=2, fake={"holdAt": 1})
    job["metadata"] |= TRACKING
    file = world.folder / "job.json"
    file.write_text(json.dumps(job))
    more = tuple(flag for flag in apply if flag.startswith("--"))
    cluster.kubectl(*apply, "--filename", str(file))
    before = world.get()

    def same():
        try:
            cluster.kubectl("diff", "--filename", str(file), *more)  # fails where there is a difference
        except ClusterError:
            return False
        return True

    def unchanged():
        until(same, "no difference")  # kubectl reads twice, and a status between looks like one
        now = world.get()
        assert now["spec"] == before["spec"]
        assert now["metadata"]["labels"] == TRACKING["labels"]
        assert now["metadata"]["annotations"].items() >= TRACKING["annotations"].items()
        assert now["metadata"].get("finalizers") is None

    unchanged()
    world.wait(lambda status: "progress" in status)
    unchanged()
    # Else the tools would take the operator's objects for theirs, and prune them.
    for plural in ("jobs", "pods", "services", "configmaps"):
        for child in world.children(plural):
            marks = {**child["metadata"]["labels"], **child["metadata"].get("annotations", {})}
            assert not set(marks) & {*TRACKING["labels"], *TRACKING["annotations"]}
    world.go()
    world.wait_phase("Succeeded")
    unchanged()
    assert world.get()["metadata"]["generation"] == 1


def test_what_git_no_longer_has_is_pruned_with_all_that_belongs_to_it(cluster, world, monkeypatch):
    monkeypatch.setenv("KUBECTL_APPLYSET", "true")
    sets = ("apply", "--namespace", world.namespace, "--applyset=jobs", "--prune", "--filename=-")
    both = [manifest(world, name, fake={"holdAt": 1}) for name in ("kept", "gone")]
    cluster.kubectl(*sets, stdin=both)
    world.wait_phase("Running", "kept")
    world.wait_phase("Running", "gone")
    before = world.children("pods")
    cluster.kubectl(*sets, stdin=both[:1])
    until(lambda: len(world.children("pods")) == 1, "the pods of one job have gone")
    (left,) = world.children("pods")
    assert left["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in before}
    assert world.status("kept")["phase"] == "Running"
    for plural in ("jobs", "services", "configmaps"):
        until(lambda plural=plural: len(world.children(plural)) == 1, f"{plural} of one job have gone")


def contains(part, whole):
    """Whether everything that a manifest says stands in the stored object."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(contains, part, whole))
    return part == whole


def test_the_server_stores_every_manifest_as_it_was_written(cluster, world):
    """Argo CD compares what is in git with what is stored: nothing may be rewritten, rounded or dropped."""
    files = (REPOSITORY / "examples").glob("**/*.yaml")
    jobs = [each for path in files for each in yaml.load_all(path.read_text(), Loader) if each["kind"] == "FineTuneJob"]
    jobs += [patched(load("base.yaml"), case["patch"]) for case in load("good.yaml")]
    for number, job in enumerate(jobs):
        job["metadata"] = {
            **job["metadata"],
            "name": f"job-{number}",
            "namespace": world.namespace,
        }
        code, stored = cluster.request("POST", world.path("finetunejobs") + "?dryRun=All", job)
        assert code == 201, stored
        assert contains(job, stored), job["metadata"]["name"]
