"""`kubectl ftj suspend`, `resume` and `retry`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from unfreeze_api.contracts.names import API_VERSION, PLURAL
from unfreeze_cli.kubectl import RESOURCE, Json, Kubectl, KubectlError, NotFoundError
from unfreeze_cli.logs import FINISHED

KEPT_METADATA = ("name", "namespace", "labels", "annotations", "ownerReferences", "finalizers")
GONE_SECONDS = 60.0
_EXISTS = "already exists"
"""What the API server says of a name that is taken."""


def set_suspend(kubectl: Kubectl, name: str, *, suspend: bool, timeout: str | None) -> str:
    """Suspend or resume a job; return what to tell the person.

    Parameters
    ----------
    kubectl, name
        The cluster and the job.
    suspend
        Which of the two.
    timeout
        How long to wait until it is so, like 5m; None to return at once.
    """
    job = kubectl.job(name)
    phase = job.get("status", {}).get("phase")
    if phase in FINISHED and "completionTime" in job["status"]:
        raise click.ClickException(f"{name} has {phase.lower()} already: there is nothing to {_word(suspend)}")
    done = job["spec"].get("runPolicy", {}).get("suspend", False) is suspend
    if not done:
        change = json.dumps({"spec": {"runPolicy": {"suspend": suspend}}})
        kubectl.run("patch", RESOURCE, name, "--type=merge", f"--patch={change}")
    if timeout is not None:
        condition = "Suspended" if suspend else "Running"
        kubectl.run("wait", f"{RESOURCE}/{name}", f"--for=condition={condition}", f"--timeout={timeout}")
        return f"{name} is suspended" if suspend else f"{name} runs"
    if done:
        return f"{name} is {'' if suspend else 'not '}to be suspended already"
    return f"{name} is being suspended: its pods write a checkpoint and stop" if suspend else f"{name} is being resumed"


def _word(suspend: bool) -> str:
    return "suspend" if suspend else "resume"


def retry(kubectl: Kubectl, name: str, sleep: Callable[[float], None] = time.sleep) -> str:
    """Recreate a failed job, under its name and with its spec; return what to tell the person.

    Its run folder is known by the fingerprint of the recipe, so that the training resumes from the newest checkpoint. The
    API server is asked first whether it would take the job: nothing is deleted that could not be made again.
    """
    job = kubectl.job(name)
    status = job.get("status", {})
    if status.get("phase") != "Failed":
        raise click.ClickException(
            f"{name} has not failed ({status.get('phase', 'Pending')}): only a job that has failed can be retried"
        )
    manifest = recreated(job)
    trial = {**manifest, "metadata": {**manifest["metadata"], "generateName": "retry-"}}
    del trial["metadata"]["name"]
    kubectl.run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(trial))
    _delete(kubectl, job, sleep)
    try:
        kubectl.run("create", "--filename=-", stdin=json.dumps(manifest))
    except KubectlError as error:
        if _EXISTS in error.message:
            return f"{name} is deleted, and somebody else has made it again meanwhile: `kubectl ftj status {name}` shows that one"
        with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".json", delete=False) as file:
            json.dump(manifest, file, indent=2)
        raise click.ClickException(
            f"{name} is deleted, but could not be created again; its manifest is in {Path(file.name)}: {error.message}"
        ) from error
    step = status.get("checkpoint", {}).get("step")
    return f"{name} is recreated and resumes from {f'step {step}' if step else 'its newest checkpoint, if it has one'}"


def recreated(job: Json) -> Json:
    """Return the manifest of a job as its author wrote it, without what the cluster has added."""
    metadata = {key: job["metadata"][key] for key in KEPT_METADATA if key in job["metadata"]}
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": metadata, "spec": job["spec"]}


def _delete(kubectl: Kubectl, job: Json, sleep: Callable[[float], None]) -> None:
    """Delete this very job, not another one that somebody has made under its name meanwhile, and wait for its end."""
    meta = job["metadata"]
    path = f"/apis/{API_VERSION}/namespaces/{meta['namespace']}/{PLURAL}/{meta['name']}"
    choices = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": meta["uid"]},
    }
    kubectl.run("delete", f"--raw={path}", "--filename=-", stdin=json.dumps(choices))
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        try:
            found = kubectl.job(meta["name"])
        except NotFoundError:
            return
        if found["metadata"]["uid"] != meta["uid"]:
            return
        sleep(0.2)
    raise click.ClickException(f"{meta['name']} is still being deleted: one of its finalizers is not taken away")
