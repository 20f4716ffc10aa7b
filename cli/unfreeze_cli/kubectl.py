"""The cluster as kubectl reaches it: contexts, credentials, exec plugins and proxies are kubectl's own business."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from unfreeze_api.contracts.names import GROUP, JOB_LABEL, PLURAL

Json = dict[str, Any]

RESOURCE = f"{PLURAL}.{GROUP}"


class KubectlError(click.ClickException):
    """What kubectl, or the cluster through it, has against a request, with what to do about it."""


class NotFoundError(KubectlError):
    """There is no such object."""


class ForbiddenError(KubectlError):
    """The person may not do this."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the options that say which cluster, and which namespace, is meant."""

    options: tuple[str, ...] = ()

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises
        ------
        KubectlError
            It failed; the message says why.
        """
        result = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, check=False, errors="replace"
        )
        if result.returncode != 0:
            raise explained(result.stderr)
        return result.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Json:
        """Run kubectl and return the object that it printed; KubectlError where it fails or prints none."""
        text = self.run(*arguments, "--output=json", stdin=stdin)
        try:
            answer: Json = json.loads(text)
        except ValueError as error:
            raise KubectlError(f"kubectl has answered something other than JSON: {text[:200]!r}") from error
        return answer

    def stream(self, *arguments: str) -> int:
        """Run kubectl with its output on ours and return its exit code; what a terminal gets is plain text."""
        if not sys.stdout.isatty():
            return subprocess.run(self.command(*arguments), check=False).returncode
        from unfreeze_cli.text import plain  # rich takes longer to import than most commands to run

        with subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        ) as running:
            for text in running.stdout or ():
                sys.stdout.write(plain(text))
                sys.stdout.flush()
        return running.returncode

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a kubectl command; KubectlError without a kubectl."""
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlError("kubectl is not on the PATH: https://kubernetes.io/docs/tasks/tools/")
        return [program, *arguments, *self.options]

    def job(self, name: str) -> Json:
        """Return a FineTuneJob."""
        return self.json("get", RESOURCE, name)

    def pods(self, name: str) -> list[Json]:
        """Return the pods of a job, oldest first."""
        found: list[Json] = self.json("get", "pods", f"--selector={JOB_LABEL}={name}")["items"]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def explained(stderr: str) -> KubectlError:
    """Return what kubectl says as an error for people."""
    lines = [line for line in stderr.splitlines() if line and not re.match(r"^[EWI]\d{4} ", line)]  # klog's
    text = "\n".join(lines) or "kubectl failed without a word"
    if "doesn't have a resource type" in text and PLURAL in text:
        return KubectlError("the cluster has no FineTuneJobs: Unfreeze is not installed there")
    if "localhost:8080" in text:
        return KubectlError("no cluster: set KUBECONFIG, or name a file by --kubeconfig and a context by --context")
    if found := re.search(rf'\(NotFound\): {PLURAL}\.{GROUP} "([^"]+)" not found', text):
        return NotFoundError(
            f'there is no FineTuneJob "{found[1]}" here: `kubectl get ftj -A` lists those of all namespaces'
        )
    kind = ForbiddenError if "(Forbidden)" in text else NotFoundError if "(NotFound)" in text else KubectlError
    return kind(re.sub(r"^(Error from server \(\w+\)|error): ", "", text))


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command kubectl's options; it is called with a Kubectl first."""

    @click.option("-n", "--namespace", help="Namespace of the job. Default: that of the context.")
    @click.option("--context", help="Context of the kubeconfig.")
    @click.option("--kubeconfig", help="Path of the kubeconfig.")
    @click.option("--as", "as_", metavar="USER", help="User to act as.")
    @wraps(command)
    def with_kubectl(
        *, namespace: str | None, context: str | None, kubeconfig: str | None, as_: str | None, **rest: Any
    ) -> Any:
        given = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig, "as": as_}
        return command(Kubectl(_flags(given.items())), **rest)

    return with_kubectl


def _flags(given: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in given if value is not None)
