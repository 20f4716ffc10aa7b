"""The plugin `kubectl ftj`; kubectl finds it as the program kubectl-ftj on the PATH."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from unfreeze_api.commands import Commands
from unfreeze_cli.kubectl import RESOURCE, ForbiddenError, Kubectl, options


class _Commands(Commands):
    def extra_of(self, command: str | None) -> str:  # noqa: ARG002 - the same for each
        return "cli"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """FineTuneJobs: how they are, what they say, and what becomes of them."""


@cli.command()
@options
@click.argument("name")
@click.option(
    "--classes",
    is_flag=True,
    help="Figures of the classes too, those with the lowest F1 first, by a pod that mounts the claim of a job that has succeeded.",
)
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(1),
    default=120,
    help="Seconds that this pod may take.",
    show_default=True,
)
def status(kubectl: Kubectl, name: str, *, classes: bool, seconds: float) -> None:
    """Show a job on one page: progress and metrics over time, phases, pods, restarts, failure."""
    from unfreeze_cli.page import figures, page
    from unfreeze_cli.text import console

    job = kubectl.job(name)
    try:
        pods = kubectl.pods(name)
    except ForbiddenError:
        pods = None
    console().print(page(job, pods, datetime.now(UTC)))
    if classes:
        from unfreeze_cli.report import FIGURES, fetch

        console().print(figures(fetch(kubectl, name, FIGURES, seconds=seconds)))


@cli.command()
@options
@click.argument("name")
@click.option(
    "-o", "--output", metavar="FILE", help="Where the page is written; - prints it. Default: NAME-report.html."
)
@click.option(
    "--wait", "seconds", type=click.FloatRange(1), default=120, help="Seconds that the pod may take.", show_default=True
)
def report(kubectl: Kubectl, name: str, output: str | None, seconds: float) -> None:
    """Bring the page of a job that has succeeded, by a pod that mounts its claim to read and prints the file."""
    from pathlib import Path

    from unfreeze_cli.report import fetch, save

    text = fetch(kubectl, name, seconds=seconds)
    if output == "-":
        click.echo(text, nl=False)
        return
    path = Path(output or f"{name}-report.html")
    try:
        save(text, path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(str(path))


@cli.command()
@options
@click.argument("name")
@click.option("-f", "--follow", "following", is_flag=True, help="Follow what is written, through restarts.")
@click.option("--index", type=click.IntRange(0), help="Which pod of the gang. Default: the failed one's, else 0.")
@click.option("--tail", type=click.IntRange(0), help="Last lines of each pod alone.")
def logs(kubectl: Kubectl, name: str, following: bool, index: int | None, tail: int | None) -> None:
    """Print a job's logs: of the pod that failed, else of the leader, and of the pods before it in its place."""
    from unfreeze_cli.logs import follow, print_logs

    (follow if following else print_logs)(kubectl, name, index, tail)


@cli.command()
@options
@click.argument("name")
@click.option("--wait", "timeout", metavar="TIME", help="Wait at most so long, like 5m, until it is suspended.")
def suspend(kubectl: Kubectl, name: str, timeout: str | None) -> None:
    """Stop a job's pods after a checkpoint."""
    from unfreeze_cli.life import set_suspend

    click.echo(set_suspend(kubectl, name, suspend=True, timeout=timeout))


@cli.command()
@options
@click.argument("name")
@click.option("--wait", "timeout", metavar="TIME", help="Wait at most so long, like 5m, until it runs.")
def resume(kubectl: Kubectl, name: str, timeout: str | None) -> None:
    """Resume a suspended job from its checkpoint."""
    from unfreeze_cli.life import set_suspend

    click.echo(set_suspend(kubectl, name, suspend=False, timeout=timeout))


@cli.command()
@options
@click.argument("name")
def retry(kubectl: Kubectl, name: str) -> None:
    """Recreate a failed job; it resumes from its newest checkpoint. Pods and their logs go."""
    from unfreeze_cli.life import retry as again

    click.echo(again(kubectl, name))


@cli.command()
@options
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@click.option("-l", "--selector", help="Jobs with these labels alone, as in kubectl get.")
def top(kubectl: Kubectl, all_namespaces: bool, selector: str | None) -> None:
    """List jobs with progress and throughput, those that run first."""
    from unfreeze_cli.text import console
    from unfreeze_cli.top import table

    choice = [*(["--all-namespaces"] if all_namespaces else []), *([f"--selector={selector}"] if selector else [])]
    jobs = kubectl.json("get", RESOURCE, *choice)["items"]
    if not jobs:
        raise click.ClickException("no FineTuneJobs here: -A lists those of all namespaces")
    console().print(table(jobs, datetime.now(UTC), namespaces=all_namespaces))


def main() -> None:
    """Run as kubectl calls its plugins."""
    cli(prog_name="kubectl ftj")


if __name__ == "__main__":
    main()
