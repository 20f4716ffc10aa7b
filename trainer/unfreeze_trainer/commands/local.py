"""`unfreeze run`: the same file without a cluster. Same resolve, same agents, as processes of this machine."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unfreeze_api.claims import claim_folders, claim_options
from unfreeze_api.commands import explained
from unfreeze_api.contracts.progress import JOB_FILE_ENV, JOB_UID_ENV, ExitCode, Progress, TerminationMessage

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedCache, ResolvedJob
    from unfreeze_api.job import FineTuneJob
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_trainer.sources.pins import Pin

table_or_json = click.option(
    "--output",
    "-o",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="What is printed.",
)
"""Option of commands that print for people or for programs."""
CACHE_ENV = "UNFREEZE_FEATURES"
"""Environment variable that says `off` where this machine keeps nothing of what frozen blocks make of samples."""
_OFF = ("off", "0", "false", "no")
AGENT = ("-m", "unfreeze_trainer.agent.main")


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument FILE and the options that say where volume claims lie; JobError ends it with 2."""

    @wraps(command)
    def decorated(**options: Any) -> None:
        with judged():
            command(**options)

    return click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))(
        claim_options(decorated)
    )


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run's folder, in place of spec.output.destination.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Workers on this machine, in place of what the job asks for. Default: those of the job, at most one for each"
    " accelerator that it asks for and this machine has.",
)
@click.option(
    "--offline", is_flag=True, help="Use of a hub only what is in the cache already (`unfreeze fetch` fills it)."
)
@job_options
def run(
    file: Path,
    output: Path | None,
    workers: int | None,
    *,
    offline: bool,
    claim: tuple[str, ...],
    claims_folder: Path | None,
) -> None:
    """Run the FineTuneJob in FILE on this machine, without a cluster. Paths in it may be relative to it.

    Starts one agent for each of spec.distribution.numNodes. Ctrl-C, SIGTERM and SIGHUP leave a checkpoint; the same
    command resumes from it. The exit code is the job's: 0 done, 2 the job itself is wrong, 143 stopped, 1 anything else.
    """
    name, namespace, spec = _read(file)
    if output is not None:
        spec = spec.model_copy(
            update={"output": spec.output.model_copy(update={"destination": f"file://{output.resolve()}"})}
        )
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.forking import forking
    from unfreeze_trainer.commands.machine import accelerators, fitted

    job = resolved_here(name, namespace, spec, claim_folders(spec, claim, claims_folder, write=True))
    job, pins = bring_here(job, offline=offline)
    job, said = fitted(job, workers=workers, present=accelerators())
    if said:
        click.echo(said, err=True)
    with forking(job) as servers:
        code = run_job(job, pins=pins, servers=servers, said=_look(job))
    sys.exit(code)


def _look(job: ResolvedJob) -> set[str]:
    """Look at what a job reads; print what is strange about it, and return that."""
    from unfreeze_trainer.commands.data import logged
    from unfreeze_trainer.commands.look import look

    with logged(broken_rows=True) as found:
        try:
            look(job)
        finally:
            for line in dict.fromkeys(found):
                click.echo(f"warning: {line}", err=True)
    return {*found}


def read_spec(file: Path) -> FineTuneJobSpec:
    """Return the spec of the job in a file, as it stands there."""
    return _read(file)[2]


def read_job_here(file: Path, claim: tuple[str, ...], claims_folder: Path | None) -> ResolvedJob:
    """Return the job in a file, resolved for this machine; nothing is looked at or written."""
    name, namespace, spec = _read(file)
    return resolved_here(name, namespace, spec, claim_folders(spec, claim, claims_folder, write=False))


def open_job(file: Path, claim: tuple[str, ...], claims_folder: Path | None) -> ResolvedJob:
    """Return the job in a file, resolved for this machine and looked at; nothing is written, and no network asked."""
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.look import look
    from unfreeze_trainer.ranking.candidates import require_chosen

    job = read_job_here(file, claim, claims_folder)
    context = click.get_current_context(silent=True)
    require_chosen(job, f"`unfreeze {context.info_name}`" if context else "a look at it")
    job = bring_here(job, offline=True)[0]
    look(job)
    return job


def look_at(job: FineTuneJob, claim: tuple[str, ...], claims_folder: Path | None) -> str:
    """Look at what a job reads; return what was seen. `unfreeze validate --claims` finds it by its entry point."""
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.look import look

    spec = job.spec
    folders = claim_folders(spec, claim, claims_folder, write=False)
    with judged():
        resolved = resolved_here(job.metadata.name or "job", job.metadata.namespace, spec, folders)
        return look(bring_here(resolved, offline=True)[0])


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """Tell of what is wrong with a job as an error of the command line."""
    from unfreeze_trainer.errors import JobError, RetryError

    try:
        yield
    except JobError as error:
        raise _Invalid(f"{error.reason}: {error.message}") from error
    except RetryError as error:
        raise click.ClickException(f"{error.reason}: {error.message}") from error


def _read(file: Path) -> tuple[str, str, FineTuneJobSpec]:
    from unfreeze_api.apiserver.manifest import ManifestError, read
    from unfreeze_api.apiserver.validate import InvalidManifest, hints, load_job, warnings
    from unfreeze_api.contracts.names import KIND
    from unfreeze_api.relative import absolute

    try:
        documents = list(read(file.read_text(encoding="utf-8-sig")))
        jobs_found = (document.manifest for document in documents if document.manifest.get("kind") == KIND)
        manifests = [absolute(manifest, file.parent) for manifest in jobs_found]
        jobs = [load_job(manifest) for manifest in manifests]
    except UnicodeDecodeError as error:
        raise _Invalid(f"{file}: not UTF-8 text: {error}") from error
    except ManifestError as error:
        raise _Invalid(f"{file}: {error}") from error
    except InvalidManifest as error:
        lines = [f"{file}: {error}", *(hint for manifest in manifests for hint in hints(manifest, error.causes))]
        raise _Invalid("\n  ".join(lines)) from error
    if any("schemaVersion" in found.manifest and "kind" not in found.manifest for found in documents):
        raise _Invalid(f"{file}: {_about_job_file(file)}")
    if len(jobs) != 1:
        raise _Invalid(f"{file} holds {len(jobs)} objects of kind {KIND}; run takes a file with exactly one")
    for warning in warnings(manifests[0]):
        click.echo(f"{file}: Warning: {warning}", err=True)
    return jobs[0].metadata.name or file.stem, jobs[0].metadata.namespace, jobs[0].spec


def _about_job_file(file: Path) -> str:
    from unfreeze_api.contracts.job_file import JobFileError, read_job

    try:
        job = read_job(file.read_bytes())
    except JobFileError as error:
        return f"{error.reason}: {error}"
    return f"this is the job.json of {job.namespace}/{job.name}, which an operator made for its pods; run takes the manifest"


class _Invalid(click.ClickException):
    exit_code = int(ExitCode.JOB_ERROR)


def resolved_here(name: str, namespace: str, spec: FineTuneJobSpec, folders: Mapping[str, str]) -> ResolvedJob:
    """Return the job as this machine has it; what lies at a hub is not fetched yet."""
    from unfreeze_api.resolve import resolve

    job = resolve(name, namespace, spec, rendezvous_host="127.0.0.1", claim_folders=folders)
    # The job's own port may be held by the same job in another terminal.
    distribution = job.distribution.model_copy(update={"rendezvous_port": _free_port("127.0.0.1")})
    return job.model_copy(update={"distribution": distribution, "cache": job.cache or _cache_here(job)})


def _cache_here(job: ResolvedJob) -> ResolvedCache | None:
    """Return where what frozen blocks make of samples is kept on this machine.

    None where that is switched off, where nobody has a home, and where a job reads or writes around that place: it has not asked for it.
    """
    from unfreeze_api.contracts.resolved import ResolvedCache
    from unfreeze_api.spec.feature_cache import FeatureCacheSpec
    from unfreeze_trainer.errors import JobError
    from unfreeze_trainer.runs.destination import check_cache_apart

    if os.environ.get(CACHE_ENV, "").strip().lower() in _OFF:
        return None
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (caches if caches.is_absolute() else Path.home() / ".cache") / "unfreeze" / "features"
        place = folder.as_uri()
        cache = ResolvedCache(source=place, path=str(folder), max_bytes=FeatureCacheSpec(destination=place).max_bytes)
        check_cache_apart(job, cache)
    except (RuntimeError, ValueError, JobError):  # no home, or one that is no absolute path
        return None
    return cache


def run_job(
    job: ResolvedJob,
    agent: tuple[str, ...] = AGENT,
    pins: Mapping[str, Pin] | None = None,
    servers: Sequence[socket.socket] = (),
    said: set[str] | None = None,
) -> int:
    """Run a resolved job with its agents as local processes, show its progress and its end, return its exit code.

    Parameters
    ----------
    pins
        Of the sources that have been brought for it.
    servers
        What `forking` yields; closed here.
    said
        Warnings that have been printed, and are not again; those that are printed here are added.
    """
    from unfreeze_trainer.commands.show import closing_table

    said = set() if said is None else said
    with judged():
        code, messages = _run(job, agent, pins, servers, said)
    if code == ExitCode.DONE:
        with judged():
            closing_table(job, said)
    elif code == ExitCode.STOPPED:
        step = max((message.checkpoint.step for message in messages if message.checkpoint), default=None)
        kept = (
            f"a checkpoint of step {step} is kept, the same command resumes from it"
            if step is not None
            else "nothing was trained yet"
        )
        click.echo(f"\nStopped: {kept}.")
    else:
        _explain(messages, code, _logs(job))
    return code


def run_agents(job: ResolvedJob, pins: Mapping[str, Pin]) -> tuple[int, TerminationMessage | None]:
    """Run a resolved job as `run_job` does; return its exit code, and what speaks for it where it failed.

    Raises
    ------
    JobError
        It cannot be begun: its run folder belongs to another job, or is in use.
    """
    from unfreeze_trainer.commands.forking import forking

    with forking(job) as servers:
        code, messages = _run(job, AGENT, pins, servers, set())
    return code, next(iter(_failed(messages, code)), None)


def _run(
    job: ResolvedJob,
    agent: tuple[str, ...],
    pins: Mapping[str, Pin] | None,
    servers: Sequence[socket.socket],
    said: set[str],
) -> tuple[int, list[TerminationMessage]]:
    from unfreeze_trainer.commands.interrupts import Interrupts
    from unfreeze_trainer.commands.show import show_progress
    from unfreeze_trainer.runs.ownership import Owner, process_uid, require_free
    from unfreeze_trainer.runs.recipe import open_recipe

    run_folder, logs = Path(job.output.path), _logs(job)
    start = open_recipe(job)  # before anything is written
    owner = Owner(uid=process_uid(os.getpid()), job=f"{job.namespace}/{job.name}", fingerprint=start.fingerprint)
    require_free(run_folder, owner)
    try:
        logs.mkdir(parents=True, exist_ok=True)
        for index in range(job.distribution.num_nodes):
            _log(logs, index).touch()
    except OSError as error:
        raise click.ClickException(f"the run's folder {run_folder} cannot be written: {explained(error)}") from error
    nodes: list[_Node] = []
    interrupts = Interrupts()
    with interrupts.heard(), tempfile.TemporaryDirectory(prefix="unfreeze-run-") as folder:
        try:
            with interrupts.held():  # an agent that nobody knows of could not be stopped
                nodes.extend(_start(job, Path(folder), logs, agent, servers, uid=owner.uid, pins=pins or {}))
            show_progress(job, nodes[0].progress, lambda: _wait(nodes), nodes[0].activity, said)
        except OSError as error:
            if len(nodes) < job.distribution.num_nodes:
                raise click.ClickException(f"the agents cannot be started: {explained(error)}") from error
            _say(f"{error.strerror}: stopping")  # a terminal that was closed; the run goes its way
        except KeyboardInterrupt:  # before there was anything to show
            pass
        finally:
            _end(nodes)
        messages = [message for node in nodes if (message := node.message())]
        return _exit_code([node.process.wait() for node in nodes]), messages


def _logs(job: ResolvedJob) -> Path:
    return Path(job.output.path) / "logs"


def _say(text: str) -> None:
    """Print a line, unless the terminal is gone."""
    with contextlib.suppress(OSError):
        click.echo(text)


@dataclass
class _Node:
    """An agent that runs as a local process, in place of a pod."""

    process: subprocess.Popen[bytes]
    address: str
    port: int
    termination_log: Path

    def progress(self) -> Progress | None:
        """Return how far it is, None while it does not answer."""
        try:
            return Progress.read(self._get("/progress"))
        except ValueError:
            return None

    def activity(self) -> str:
        """Return what it does beside training."""
        return self._get("/activity").decode(errors="replace")

    def _get(self, path: str) -> bytes:
        """Return what it serves, nothing while it does not answer."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=1)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read() if answer.status == http.client.OK else b""
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()

    def message(self) -> TerminationMessage | None:
        """Return what it left behind."""
        try:
            return TerminationMessage.from_termination_log(self.termination_log.read_text())
        except OSError:
            return None


def _start(
    job: ResolvedJob,
    folder: Path,
    logs: Path,
    agent: tuple[str, ...],
    servers: Sequence[socket.socket],
    *,
    uid: str,
    pins: Mapping[str, Pin],
) -> Iterator[_Node]:
    from unfreeze_trainer import fork_server
    from unfreeze_trainer.agent.bring import PINS_ENV
    from unfreeze_trainer.agent.pod import PARENT_ENV, available_cpus
    from unfreeze_trainer.errors import SHOW_VALUES_ENV
    from unfreeze_trainer.sources.pins import pins_to_json

    job_file, pins_file = folder / "job.json", folder / "pins.json"
    job_file.write_text(job.to_json())
    pins_file.write_text(pins_to_json(pins))
    for index, server in zip_longest(range(job.distribution.num_nodes), servers):
        address = f"127.0.{index // 250}.{index % 250 + 1}"
        port, termination_log = _free_port(address), folder / f"termination-{index}"
        environment = os.environ | {
            JOB_FILE_ENV: str(job_file),
            "JOB_COMPLETION_INDEX": str(index),
            "POD_IP": address,
            "UNFREEZE_HTTP_PORT": str(port),
            "UNFREEZE_TERMINATION_LOG": str(termination_log),
            PARENT_ENV: str(os.getpid()),
            JOB_UID_ENV: uid,
            SHOW_VALUES_ENV: "1",  # all of it stays on this machine
            **({PINS_ENV: str(pins_file)} if pins else {}),
        }
        environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // job.distribution.world_size)))
        if server:
            environment[fork_server.ENV] = str(server.fileno())
        with _log(logs, index).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *agent],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is this command's to handle
                pass_fds=[server.fileno()] if server else [],
            )
        if server:
            server.close()  # it is the agent's alone: forks end with it
        yield _Node(process, address, port, termination_log)


def _log(logs: Path, index: int) -> Path:
    return logs / f"node-{index}.log"


def _wait(nodes: list[_Node]) -> bool:
    """Return whether all agents have ended; when one has ended badly, ask the others to stop."""
    codes = [node.process.poll() for node in nodes]
    if any(code not in (None, 0) for code in codes):
        _signal(nodes, signal.SIGTERM)
    return all(code is not None for code in codes)


def _end(nodes: list[_Node]) -> None:
    """See every agent out: after Ctrl-C they write a checkpoint; a second Ctrl-C does not wait for it."""
    try:
        if any(node.process.poll() is None for node in nodes):
            _signal(nodes, signal.SIGTERM)
            _say("\nStopping: the workers write a checkpoint (Ctrl-C again: without it) ...")
        for node in nodes:
            node.process.wait()
    except KeyboardInterrupt:
        _signal(nodes, signal.SIGKILL)
        for node in nodes:
            node.process.wait()


def _signal(nodes: list[_Node], number: signal.Signals) -> None:
    for node in nodes:
        if node.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                node.process.send_signal(number)


def _exit_code(codes: list[int]) -> int:
    """Return the code that speaks for the job: an error of the job itself, then any failure, then a stop."""
    codes = [int(ExitCode.STOPPED) if code == -signal.SIGTERM else code for code in codes]  # before it could listen
    failures = [code for code in codes if code not in (ExitCode.DONE, ExitCode.STOPPED)]
    if failures:
        return int(ExitCode.JOB_ERROR) if ExitCode.JOB_ERROR in failures else 1
    return max(codes)


def _failed(messages: list[TerminationMessage], code: int) -> list[TerminationMessage]:
    """Return what the agents that failed have left, first those with the job's exit code."""
    failed = [message for message in messages if message.outcome == "Failed"]
    return sorted(failed, key=lambda message: message.exit_code != code)


def _explain(messages: list[TerminationMessage], code: int, logs: Path) -> None:
    if failed := _failed(messages, code):
        rank = f" (rank {failed[0].rank})" if failed[0].rank is not None else ""
        click.echo(f"\nFailed: {failed[0].reason}{rank}: {failed[0].message}", err=True)
    else:
        click.echo("\nFailed: an agent was killed before it could say why", err=True)
    click.echo(f"Logs: {logs}", err=True)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
