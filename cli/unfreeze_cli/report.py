"""`kubectl ftj report` and `status --classes`: files of a job that has succeeded, from the volume claim where its run lies.

A pod that mounts the claim to read, and nothing else, prints the file; its log is the file. The job's own pods have ended by
then, and nothing can be run in them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unfreeze_api.commands import whole
from unfreeze_api.contracts.names import API_VERSION, GROUP, JOB_LABEL, KIND
from unfreeze_cli.kubectl import Json, Kubectl

FILE, FIGURES = "report.html", "evaluation.json"
CLAIM = "/claim"
_SCHEME = "pvc://"
_BEGIN = {FILE: "<!DOCTYPE html>", FIGURES: "{"}
_WHAT = {FILE: "page", FIGURES: "figures of classes"}
_READER = f"{GROUP}/reads-report-of"
"""Label of the pod; not the job's own, by which the operator would take it for a trainer."""
_LIFE_SECONDS = 300
_PULL_ERRORS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")
_OF_POD = ("securityContext", "nodeSelector", "tolerations", "imagePullSecrets", "schedulerName", "runtimeClassName")
_OF_CONTAINER = ("image", "imagePullPolicy", "securityContext")


def fetch(
    kubectl: Kubectl, name: str, file: str = FILE, *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Return a file of a job's run.

    Parameters
    ----------
    kubectl, name
        The cluster and the job.
    file
        FILE, the page, or FIGURES.
    seconds
        How long the pod may take.
    sleep
        Waits between two looks.

    Raises
    ------
    click.ClickException
        There is none, or it cannot be read; the message says what to do.
    """
    job = kubectl.job(name)
    claim, path = _place(job, file)
    pod = reader(job, _template(kubectl, job), claim, path)
    pod_name = pod["metadata"]["name"]
    kubectl.run("create", "--filename=-", stdin=json.dumps(pod))
    try:
        ended = _wait(kubectl, pod_name, seconds, sleep)
        text = kubectl.run("logs", pod_name)
    finally:
        kubectl.run("delete", "pod", pod_name, "--wait=false", "--ignore-not-found")
    if ended != "Succeeded" or not text.lstrip().startswith(_BEGIN[file]):
        raise click.ClickException(
            f"claim {claim} has no {_WHAT[file]} at {path}: {text.strip()[:200]!r}. A run of an earlier version has none: `unfreeze"
            " report` writes it where the claim is mounted"
        )
    return text


def _place(job: Json, file: str) -> tuple[str, str]:
    """Return claim and path of a file of a job's run."""
    name, phase = job["metadata"]["name"], job.get("status", {}).get("phase", "Pending")
    if phase != "Succeeded":
        raise click.ClickException(f"{name} is {phase}: the report is written when a job has succeeded")
    destination = job["spec"]["output"]["destination"]
    if not destination.startswith(_SCHEME):
        raise click.ClickException(f"the run lies at {destination}, on no volume claim: look for {file} there")
    claim, _, path = destination.removeprefix(_SCHEME).partition("/")
    return claim, f"{path}/{file}".lstrip("/")


def _template(kubectl: Kubectl, job: Json) -> Json:
    """Return the pod template of a job's trainers: image, user and place of the pod are theirs."""
    name = job["metadata"]["name"]
    found = kubectl.json("get", "jobs.batch", f"--selector={JOB_LABEL}={name}")["items"]
    if not found:
        raise click.ClickException(
            f"{name} has no Job any more, whose image would read its claim: look for {FILE} where the claim is mounted"
        )
    template: Json = found[0]["spec"]["template"]["spec"]
    return template


def reader(job: Json, template: Json, claim: str, path: str) -> Json:
    """Return the manifest of a pod that prints a file of a claim, as the trainers' pods are in image, user and place.

    Parameters
    ----------
    job
        The FineTuneJob, with which the pod goes.
    template
        Spec of its trainers' pods.
    claim, path
        Where the file lies.
    """
    meta, trainer = job["metadata"], template["containers"][0]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": meta["name"], "uid": meta["uid"]}
    container: dict[str, Any] = {
        **{field: trainer[field] for field in _OF_CONTAINER if field in trainer},
        "name": "reader",
        "command": ["cat", "--", f"{CLAIM}/{path}"],
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "volumeMounts": [{"name": "claim", "mountPath": CLAIM, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][:40].rstrip('-.')}-report-{secrets.token_hex(3)}",
            "namespace": meta["namespace"],
            "labels": {_READER: meta["name"]},
            "ownerReferences": [owner],
        },
        "spec": {
            **{field: template[field] for field in _OF_POD if field in template},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIFE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        },
    }


def _wait(kubectl: Kubectl, pod: str, seconds: float, sleep: Callable[[float], None]) -> str:
    """Return how the pod has ended: Succeeded or Failed."""
    end = time.monotonic() + seconds
    while True:
        status = kubectl.json("get", "pod", pod).get("status", {})
        if (phase := status.get("phase")) in ("Succeeded", "Failed"):
            return str(phase)
        waiting = [one.get("state", {}).get("waiting", {}) for one in status.get("containerStatuses", ())]
        why = next(
            (f"{one['reason']}: {one.get('message', '')}" for one in waiting if one.get("reason") in _PULL_ERRORS), ""
        )
        if why or time.monotonic() > end:
            told = [one.get("message", "") for one in status.get("conditions", ()) if one.get("status") == "False"]
            raise click.ClickException(
                f"the pod {pod}, which reads the claim, does not run: {why or next(filter(None, told), phase or 'Pending')}"
            )
        sleep(0.5)


def save(text: str, path: Path) -> None:
    """Write the page whole or not at all."""
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
