"""`kubectl ftj` as a person uses it: found by kubectl on the PATH, against a real control plane and an operator."""

import os
import subprocess
import sysconfig

import pytest

from tests.operator.world import spec, until

pytestmark = pytest.mark.cluster


@pytest.fixture
def ftj(operator_cluster, world):
    """A function that runs kubectl ftj in the test's namespace; `popen` starts it alone."""

    def run(*arguments, kubeconfig=operator_cluster.kubeconfig, popen=False):
        path = f"{operator_cluster.folder / 'bin'}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
        environment = {"PATH": path, "KUBECONFIG": str(kubeconfig), "HOME": "/nonexistent"}
        command = ["kubectl", "ftj", *arguments, f"--namespace={world.namespace}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        return (
            subprocess.Popen(command, **pipes) if popen else subprocess.run(command, **pipes, check=False, timeout=120)
        )

    return run


def answered(result, code=0):
    assert result.returncode == code, (result.stdout, result.stderr)
    return result.stdout if code == 0 else result.stderr


def words(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_status_of_a_job_that_runs_and_ends(operator, world, ftj):
    world.create(nodes=2, fake={"steps": 64, "holdAt": 40})
    world.wait(lambda s: s.get("progress", {}).get("step") == 40 and s["nodes"]["ready"] == 2)
    lines = words(answered(ftj("status", "job")))
    assert lines[0].startswith(f"{world.namespace}/job Running created")
    assert any(line.endswith("62 % step 40/64 100 samples/s 24s left") for line in lines)
    (loss,) = (line for line in lines if line.startswith("loss"))
    assert len(loss.split()[2]) >= 2, "a line of several moments"
    assert "head done 2 0s 7 0.5" in lines
    assert "layer.1 now (2 of 2)" in lines
    assert (
        len([line for line in lines if line.startswith(("0 job-train-0-", "1 job-train-1-")) and " Running " in line])
        == 2
    )
    world.go()
    history = world.wait_phase("Succeeded")["history"]
    assert 2 < len(history) <= 33
    assert history[0]["loss"] > history[-1]["loss"]
    assert "test.accuracy 0.93" in words(answered(ftj("status", "job")))


def test_logs_across_restarts_and_of_the_pod_that_failed(operator, world, ftj):
    fail = {"index": 1, "at": 0, "exitCode": 1, "times": 2, "silent": True}
    world.create(nodes=2, fake={"holdAt": 1, "fail": fail, "say": "hello"}, backoffLimit=1)
    world.wait_phase("Failed")
    lines = answered(ftj("logs", "job")).splitlines()
    assert [line for line in lines if not line.startswith("==>")] == ["hello from 1", "last line of the log"] * 2
    assert [line.rpartition(" (")[2] for line in lines if line.startswith("==>")] == [
        "Failed: Error, exit code 1) <=="
    ] * 2
    assert "hello from 1" not in answered(ftj("logs", "job", "--index=0"), 1).partition("the last lines")[0]
    assert answered(ftj("logs", "job", "--tail=1")).count("last line of the log") == 2
    assert "no pod 7 of the job has logs" in answered(ftj("logs", "job", "--index=7"), 1)


def test_logs_are_followed_through_a_restart_to_the_end(operator, world, ftj):
    fail = {"at": 3, "exitCode": 1, "times": 1, "silent": True}
    body = spec(fake={"holdAt": 3, "fail": fail, "say": "hello"}, backoffLimit=1, suspend=True)
    world.create(body=body)
    world.wait_phase("Suspended")
    world.suspend(False)
    world.wait(lambda s: s.get("phase") == "Running" and s.get("progress", {}).get("step") == 3)
    following = ftj("logs", "-f", "job", popen=True)
    world.go()
    world.wait_phase("Succeeded")
    out, err = following.communicate(timeout=120)
    assert out.splitlines() == ["hello from 0", "last line of the log", "hello from 0"]
    assert err.splitlines()[-1] == "The job has succeeded."
    assert err.count("==> job-train-0-") == 2


def test_suspend_and_resume(operator, world, ftj):
    world.create(fake={"holdAt": 2})
    world.wait(lambda s: s.get("progress", {}).get("step") == 2)
    assert answered(ftj("suspend", "job", "--wait=60s")) == "job is suspended\n"
    assert world.status()["phase"] == "Suspended"
    assert answered(ftj("suspend", "job")) == "job is to be suspended already\n"
    assert "Suspended: runPolicy.suspend is true" in answered(ftj("status", "job"))
    assert answered(ftj("resume", "job", "--wait=60s")) == "job runs\n"
    world.go()
    world.wait_phase("Succeeded")
    assert "job has succeeded already: there is nothing to suspend" in answered(ftj("suspend", "job"), 1)


def test_retry_resumes_from_the_checkpoint(operator, world, ftj):
    fail = {"at": 6, "exitCode": 1, "times": 1, "reason": "WorkerFailed", "message": "a cosmic ray"}
    world.create(fake={"holdAt": 5, "fail": fail})
    world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    assert "has not failed (Running)" in answered(ftj("retry", "job"), 1)
    answered(ftj("suspend", "job", "--wait=60s"))
    world.go()
    answered(ftj("resume", "job"))
    world.wait_phase("Failed")
    assert "WorkerFailed: a cosmic ray" in answered(ftj("status", "job"))
    first = world.get()["metadata"]
    assert answered(ftj("retry", "job")) == "job is recreated and resumes from step 5\n"
    end = world.wait_phase("Succeeded")
    again = world.get()["metadata"]
    assert again["uid"] != first["uid"]
    assert again.get("annotations") == first.get("annotations")
    # Its leader may be asked before the first step after the checkpoint.
    assert end["history"][0]["step"] >= 5


def test_top(operator, world, ftj):
    world.create("one", fake={"holdAt": 5})
    world.create("two", suspend=True)
    world.wait(lambda s: s.get("progress", {}).get("step") == 5 and s["nodes"]["ready"] == 1, "one")
    world.wait_phase("Suspended", "two")
    lines = words(answered(ftj("top")))
    assert lines[1].startswith("one Running 50% (2/2) 5/10 0.1667 accuracy 0.500 100 5s 1/1 0")
    assert lines[2].startswith("two Suspended")
    assert lines[-1] == "1 of 2 jobs running, 100 samples/s on 1 nodes"
    assert "no FineTuneJobs here" in answered(ftj("top", "--selector=no=such"), 1)


def test_what_can_be_in_the_way(operator, world, ftj, tmp_path):
    world.create(suspend=True)
    world.wait_phase("Suspended")
    assert 'there is no FineTuneJob "nobody" here' in answered(ftj("status", "nobody"), 1)
    assert "no cluster: set KUBECONFIG" in answered(ftj("status", "job", kubeconfig=tmp_path / "none"), 1)
    assert 'context "elsewhere" does not exist' in answered(ftj("status", "job", "--context=elsewhere"), 1)
    assert 'User "stranger" cannot get resource "finetunejobs"' in answered(ftj("status", "job", "--as=stranger"), 1)


def test_who_may_see_jobs_but_no_pods_sees_the_job(operator, world, ftj):
    group = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}"
    rules = [{"apiGroups": ["unfreeze.dev"], "resources": ["finetunejobs"], "verbs": ["get", "list"]}]
    world.cluster.create(f"{group}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    world.cluster.create(f"{group}/rolebindings", binding)
    world.create(fake={"holdAt": 1})
    world.wait_phase("Running")
    allowed = until(
        lambda: (result := ftj("status", "job", "--as=reader")).returncode == 0 and result.stdout, "the rights"
    )
    assert "You may not list the pods of this namespace." in allowed
    assert "cannot patch resource" in answered(ftj("suspend", "job", "--as=reader"), 1)
