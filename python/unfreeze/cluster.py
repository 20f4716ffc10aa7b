"""A job in a cluster, by the package kubernetes: submitted, waited for, its logs, its end."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.building import manifest, require_job
from unfreeze.results import JobFailed, Result, of_status
from unfreeze_api.contracts.names import GROUP, INDEX_ANNOTATION, JOB_LABEL, PLURAL, VERSION
from unfreeze_api.job import FineTuneJob

_CONTAINER = "trainer"
_WATCHED_SECONDS = 60
"""After which the API server ends a watch, which is begun again then."""
_LATE_SECONDS = 10
"""How long an answer is waited for, and the end of a watch after its time: of a connection that has died without a word none comes."""
_PAUSE_SECONDS = 1.0
"""Before a watch is begun again whose connection has broken."""
_GONE, _NOT_FOUND = 410, 404
Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Submitted:
    """A job in a cluster, by its name: also one that somebody else has submitted."""

    name: str
    """Of the job."""
    namespace: str = "default"
    """Of the job."""
    client: Any = None
    """The ApiClient of the package kubernetes that reaches the cluster; None for that of the kubeconfig, or of the pod."""


def submit(job: FineTuneJob, namespace: str | None = None, *, client: Any = None) -> Submitted:
    """Create a job in a cluster.

    Parameters
    ----------
    job
        Its sources lie on volume claims, since pods see no folder of this machine.
    namespace
        Where; else the job's own.
    client
        An ApiClient of the package kubernetes. Default: the context of the kubeconfig, and in a pod its ServiceAccount.

    Raises
    ------
    JobFailed
        The API server refuses it, in its words.
    """
    require_job(job)
    _warn_of_paths(job)
    body, place = manifest(job), namespace or job.metadata.namespace
    body["metadata"] = {**body["metadata"], "namespace": place}
    submitted = Submitted(job.metadata.name, place, client or _client())
    with _in_words():
        _objects(submitted).create_namespaced_custom_object(GROUP, VERSION, place, PLURAL, body)
    return submitted


def _warn_of_paths(job: FineTuneJob) -> None:
    """Warn of sources that lie on this machine: pods have other folders."""
    spec = job.spec
    held_out = [part.source for part in (spec.data.validation, spec.data.test) if part and part.source]
    anchor = [spec.anchor.source] if spec.anchor else []
    for source in (*spec.model.sources, spec.data.train.source, *held_out, *anchor):
        if source.startswith("file://") and Path(source.removeprefix("file://")).exists():
            warnings.warn(
                f"{source} lies on this machine, and the job's pods look for it in their container: put it on a volume claim,"
                " pvc://CLAIM/PATH, or into the trainer's image",
                stacklevel=3,
            )


def wait(job: Submitted, *, timeout: float | None = None, progress: bool = True) -> Result:
    """Wait for the end of a job and return what came out.

    Parameters
    ----------
    job
        In the cluster.
    timeout
        Seconds; as long as it takes where None.
    progress
        Whether a bar shows how far it is.

    Raises
    ------
    JobFailed
        It has failed, or it is gone.
    TimeoutError
        It has not ended in that time, and goes on.
    """
    _require_submitted(job)
    end = None if timeout is None else time.monotonic() + timeout
    with _bar(job.name) if progress else _nothing() as show:
        for found in _states(job, end):
            show(found.get("status") or {})
            phase = (found.get("status") or {}).get("phase")
            if phase == "Succeeded":
                return of_status(found)
            if phase == "Failed":
                failure = found["status"].get("failure") or {}
                raise JobFailed(failure.get("reason", "Failed"), failure.get("message", ""))
    raise TimeoutError(f"{job.namespace}/{job.name} has not ended within {timeout:g} seconds; it goes on")


def logs(job: Submitted, *, lines: int | None = None) -> str:
    """Return the log of a job's first pod, which speaks for all; its last lines alone where a number is given."""
    from kubernetes import client

    _require_submitted(job)
    core = client.CoreV1Api(job.client or _client())
    with _in_words():
        pods = core.list_namespaced_pod(job.namespace, label_selector=f"{JOB_LABEL}={job.name}").items
        leaders = [pod for pod in pods if (pod.metadata.annotations or {}).get(INDEX_ANNOTATION) == "0"]
        if not leaders:
            return ""
        newest = max(leaders, key=lambda pod: pod.metadata.creation_timestamp)
        options = {} if lines is None else {"tail_lines": lines}
        text: str = core.read_namespaced_pod_log(newest.metadata.name, job.namespace, container=_CONTAINER, **options)
    return text


def delete(job: Submitted) -> None:
    """Delete a job with its pods; its run folder stays. One that is not there is no error."""
    from kubernetes.client import ApiException

    _require_submitted(job)
    try:
        _objects(job).delete_namespaced_custom_object(GROUP, VERSION, job.namespace, PLURAL, job.name)
    except ApiException as error:
        if error.status != _NOT_FOUND:
            raise


def _require_submitted(job: Submitted) -> None:
    if not isinstance(job, Submitted):
        raise TypeError(
            "a job in a cluster is what unfreeze.submit() returns, or unfreeze.Submitted(NAME, NAMESPACE),"
            f" not {job!r:.80} ({type(job).__name__})"
        )


def _client() -> Any:
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    return client.ApiClient()


def _objects(job: Submitted) -> Any:
    from kubernetes import client

    return client.CustomObjectsApi(job.client or _client())


@contextmanager
def _in_words() -> Iterator[None]:
    """Raise what the API server has against a request as JobFailed: its own words, without headers and body."""
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        try:
            told = json.loads(error.body)
        except (TypeError, ValueError):
            told = {}
        raise JobFailed(told.get("reason") or str(error.reason), told.get("message") or "") from error


def _states(job: Submitted, end: float | None) -> Iterator[dict[str, Any]]:
    """Yield a job as it is, and whenever it has changed, until a time on the monotonic clock."""
    from kubernetes import watch
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    objects = _objects(job)
    while True:
        with _in_words():
            found = objects.get_namespaced_custom_object(
                GROUP, VERSION, job.namespace, PLURAL, job.name, _request_timeout=_LATE_SECONDS
            )
        yield found
        left = _WATCHED_SECONDS if end is None else min(_WATCHED_SECONDS, end - time.monotonic())
        if left <= 0:
            return
        stream, seconds = watch.Watch(), max(1, int(left))
        try:
            for event in stream.stream(
                objects.list_namespaced_custom_object,
                GROUP,
                VERSION,
                job.namespace,
                PLURAL,
                field_selector=f"metadata.name={job.name}",
                resource_version=found["metadata"]["resourceVersion"],
                timeout_seconds=seconds,
                _request_timeout=(_LATE_SECONDS, seconds + _LATE_SECONDS),
            ):
                if event["type"] == "DELETED":
                    raise JobFailed("NotFound", f"{job.namespace}/{job.name} was deleted")
                yield event["object"]
        except ApiException as error:
            if error.status != _GONE:
                raise
        except HTTPError:  # whether the API server is there the next look at the job shows
            time.sleep(_PAUSE_SECONDS)
        finally:
            stream.stop()


@contextmanager
def _nothing() -> Iterator[Show]:
    yield lambda _: None


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    """Show a job's progress as a bar, in a terminal or a notebook."""
    from tqdm.auto import tqdm

    with tqdm(total=100, desc=name, unit="%", bar_format="{desc}: {percentage:3.0f}% |{bar}| {postfix}") as bar:

        def show(status: dict[str, Any]) -> None:
            progress, summary = status.get("progress") or {}, status.get("summary") or {}
            bar.n = 100 if status.get("phase") == "Succeeded" else min(100, progress.get("percent", 0))
            bar.set_postfix_str(
                ", ".join(filter(None, (status.get("phase", "Pending"), summary.get("metric"), summary.get("eta"))))
            )

        yield show
