"""A job on this machine, as `unfreeze run` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from unfreeze.building import require_job
from unfreeze.results import JobFailed, Result, result
from unfreeze_api.job import FineTuneJob


def run(
    job: FineTuneJob, *, workers: int | None = None, claims: Mapping[str, str | PathLike[str]] | None = None
) -> Result:
    """Run a job on this machine, show its progress, and return what came out.

    Interrupting leaves a checkpoint, and the same call resumes from it; in a thread other than the main one nothing interrupts it. A run that has ended is not trained again.

    Parameters
    ----------
    job
        To run.
    workers
        Workers on this machine; those of the job where nothing is said, at most one for each accelerator.
    claims
        Folder that stands for each volume claim of the job.

    Raises
    ------
    JobFailed
        The job is wrong, or it has failed.
    TypeError, ValueError
        `job` is no job, `claims` are no folders by claim, or `workers` is no number from 1 on.
    KeyboardInterrupt
        It was stopped.
    """
    import click

    from unfreeze_api.claims import claim_folders
    from unfreeze_api.contracts.progress import ExitCode
    from unfreeze_trainer.commands.fetch import bring_here
    from unfreeze_trainer.commands.local import resolved_here, run_agents
    from unfreeze_trainer.commands.look import look
    from unfreeze_trainer.commands.machine import accelerators, fitted
    from unfreeze_trainer.errors import JobError, RetryError

    require_job(job)
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers is a number from 1 on, not {workers!r}")
    given = tuple(f"{name}={Path(folder)}" for name, folder in _folders(claims).items())
    try:
        folders = claim_folders(job.spec, given, None, write=True)
        resolved = resolved_here(job.metadata.name, job.metadata.namespace, job.spec, folders)
        resolved, pins = bring_here(resolved, offline=False)
        resolved, _ = fitted(resolved, workers=workers, present=accelerators())
        look(resolved)
        code, failed = run_agents(resolved, pins)
    except (JobError, RetryError) as error:
        raise JobFailed(error.reason, error.message) from error
    except click.ClickException as error:
        raise JobFailed("InvalidJob", error.message) from error
    if code == ExitCode.STOPPED:
        raise KeyboardInterrupt
    if code != ExitCode.DONE:
        logs = Path(resolved.output.path) / "logs"
        reason, message = (failed.reason, failed.message) if failed else ("Killed", "an agent was killed")
        raise JobFailed(str(reason), f"{message}\nLogs: {logs}")
    return result(resolved.output.path)


def _folders(claims: Mapping[str, str | PathLike[str]] | None) -> Mapping[str, str | PathLike[str]]:
    """Return the folders by claim; TypeError where they are something else."""
    found: object = {} if claims is None else claims
    if not isinstance(found, Mapping):
        raise TypeError(
            f'claims are folders by claim, like {{"data": "DIR"}}, not {found!r:.80} ({type(found).__name__})'
        )
    for name, folder in found.items():
        if not isinstance(name, str) or not isinstance(folder, str | PathLike):
            raise TypeError(f"claims name a folder for each claim, and not {folder!r:.80} for {name!r:.80}")
    return found
