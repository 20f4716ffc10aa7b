"""`unfreeze init`: a job file for some data, with a comment at each choice."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unfreeze_api.commands import whole
from unfreeze_trainer.commands.data import DataPath, column_option, named, task_option
from unfreeze_trainer.commands.local import judged

if TYPE_CHECKING:
    from unfreeze_trainer.commands.draft import Draft
    from unfreeze_trainer.commands.recipe import Chosen
    from unfreeze_trainer.commands.surveyed import Survey

_HUBS = ("hf://", "timm://")


class ModelPlace(click.Path):
    """A folder that is there, or a source at a hub, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it as a path or as text; BadParameter where there is no such folder."""
        text = str(value)
        return text if text.startswith(_HUBS) else super().convert(text.removeprefix("file://"), param, ctx)


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    type=ModelPlace(exists=True, file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Folder of the pretrained model, or its name at a hub, hf://OWNER/NAME or timm://NAME; of Alignment and Captioning several, each by a --model of its own. Default: the first that fits in model/ or"
    " models/ here or beside the data.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="job.yaml",
    show_default=True,
    help="The job file that is written.",
)
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@task_option
@column_option
@click.argument("path", type=DataPath(exists=True, path_type=Path))
def init(
    *, path: Path, models: tuple[Path | str, ...], output: Path, force: bool, task: str | None, columns: tuple[str, ...]
) -> None:
    """Write a FineTuneJob for the data at PATH, with a comment at each choice.

    PATH is a table, a pattern of tables ('train-*.parquet'), or a folder of tables, pictures or audio files. What was chosen among several is said, and how to have it
    otherwise. Where the task has a head, the job starts with feature extraction, and trains more of the model as long as the validation data says that it is worth it.
    """
    if output.exists() and not force:
        raise click.ClickException(f"{output} is there already: --force overwrites it, --output names another file")
    from unfreeze_trainer.commands.data import FILES, logged, token_counter
    from unfreeze_trainer.commands.draft import draft, job_of
    from unfreeze_trainer.commands.recipe import choose
    from unfreeze_trainer.commands.survey import survey

    with judged():
        drafted = draft(path, task=task, columns=named(columns))
        folder, towers, said = _bases(drafted, models, path)
        counter = token_counter(folder) if isinstance(folder, Path) and drafted.reads_text else None
        with logged() as messages:
            found = survey(job_of(drafted), count_tokens=counter, files=FILES)
        if not found.splits:
            raise click.ClickException(f"{found.problem}. No job is written: {path} would end it")
        text = _text(choose(drafted, found, model=folder, towers=towers, output=output), output)
        warnings = _warnings(drafted, found, text)
        with whole(output) as aside:
            aside.write_text(text, encoding="utf-8")
    for line in (*drafted.said, *said):
        click.echo(line)
    for warning in dict.fromkeys((*warnings, *messages)):
        click.echo(f"Warning: {warning}", err=True)
    missing = any(tower is None for _, tower in towers) if towers else folder is None
    first = "write its model's place into it, then " if missing else ""
    click.echo(f"{output} is written. Next: {first}unfreeze run {shlex.quote(str(output))}")


def _bases(
    drafted: Draft, given: Sequence[Path | str], path: Path
) -> tuple[Path | str | None, list[tuple[str, Path | None]], list[str]]:
    """Return the model's folder, or that which reads text, where each of several encoders lies, and what people are shown of it."""
    from unfreeze_api.tasks import task_type
    from unfreeze_api.tasks.alignment import COLUMNS

    if wanted := drafted.modalities:
        folders = [one for one in given if isinstance(one, Path)]
        if len(folders) < len(given):
            raise click.UsageError(
                f"--model: {drafted.guess.task} has several models, of which folders alone tell here what each reads: name folders"
            )
        towers, said = _towers(wanted, folders, path, writes=task_type(drafted.guess.task).writes)
        taken = {COLUMNS[modality].name for modality, _ in towers}
        for name in (
            drafted.guess.columns.keys() & {one.name for one in COLUMNS.values()}
        ) - taken:  # nothing reads it, and rows need not have it
            del drafted.guess.columns[name]
        return next((folder for modality, folder in towers if modality == "Text"), None), towers, said
    if len(given) > 1:
        raise click.UsageError(f"--model: {drafted.guess.task} has one model: name one folder")
    if given and isinstance(given[0], str):
        return given[0], [], [f"{given[0]} is not fetched here: how long texts are is left to it"]
    folder, said = _model(drafted, next((one for one in given if isinstance(one, Path)), None), path)
    return folder, [], said


def _towers(
    wanted: Sequence[str], given: Sequence[Path], path: Path, *, writes: bool
) -> tuple[list[tuple[str, Path | None]], list[str]]:
    """Return an encoder of each modality that a table has, or all that were named; None for one that was not found.

    Where a language model `writes`, it stands for texts, and there is one of each.
    """
    from unfreeze_trainer.models.folders import modality_of, writes_texts

    read = {folder: modality_of(folder) for folder in given or _folders(path)}
    if writes and not given:
        read = {folder: reads for folder, reads in read.items() if reads != "Text" or writes_texts(folder)}
    if unknown := next((folder for folder in given if read[folder] not in wanted), None):
        what = f"it reads {read[unknown].lower()}s" if read[unknown] else "nothing in it says what it reads"
        raise click.UsageError(f"--model {unknown}: {what}, and the data have {', '.join(wanted)}: leave it out")
    if writes and (twice := next((one for one in wanted if [*read.values()].count(one) > 1 and given), "")):
        raise click.UsageError(
            f"--model: Captioning has one encoder and one language model, and several read {twice}: name one"
        )
    if given and not writes and len(wanted := [modality for modality in wanted if modality in read.values()]) == 1:
        raise click.UsageError(
            f"--model: encoders of {wanted[0]} alone have nothing to agree with: name one of another modality too"
        )
    found: list[tuple[str, Path | None]] = []
    for modality in wanted:
        fitting = [folder for folder, reads in read.items() if reads == modality]
        found += [(modality, folder) for folder in (fitting if given else fitting[:1])] or [(modality, None)]
    missing = [modality for modality, folder in found if folder is None]
    called = {one: "language model" if writes and one == "Text" else "encoder" for one in wanted}
    said = [
        f"no {called[one]} was found for {one}: name one by --model, or write it into spec.model.towers"
        for one in missing
    ]
    taken = [
        f"{folder} was taken as the {called[modality]} for {modality}"
        for modality, folder in found
        if folder and not given
    ]
    return found, said + taken


def _model(drafted: Draft, given: Path | None, path: Path) -> tuple[Path | None, list[str]]:
    """Return the model's folder, and what people are shown of it.

    Raises
    ------
    JobError
        InvalidModel: a folder that was named holds no model for the task.
    """
    from unfreeze_api.tasks import task_type
    from unfreeze_trainer.commands.look import look_at_model
    from unfreeze_trainer.errors import JobError

    task = task_type(drafted.guess.task)
    check = partial(look_at_model, task, weights=True)

    if given:
        check(str(given), str(given))
        return given, []
    fitting = []
    for folder in _folders(path):
        try:
            check(str(folder), str(folder))
        except JobError:
            continue
        fitting.append(folder)
    if not fitting:
        kind = " or ".join(task.libraries)
        return None, [f"no folder of a {kind} model was found: name one by --model, or write it into spec.model.source"]
    others = ", ".join(str(folder) for folder in fitting[1:])
    more = f"; {others} would do too: --model" if others else ""
    return fitting[0], [f"{fitting[0]} was taken as the model{more}"]


def _folders(path: Path) -> list[Path]:
    """Return folders that may hold a model: model/ and those in models/, here and beside the data."""
    places = dict.fromkeys(place.absolute() for place in (Path(), path.parent, path.parent.parent))
    found = []
    for place in places:
        found += [place / "model", *(sorted((place / "models").iterdir()) if (place / "models").is_dir() else [])]
    return [folder for folder in dict.fromkeys(found) if (folder / "config.json").is_file()]


def _warnings(drafted: Draft, found: Survey, text: str) -> list[str]:
    """Return those of a survey as they are about the job that is written: its lengths are its own."""
    import yaml

    from unfreeze_api.apiserver.validate import load_job
    from unfreeze_trainer.commands.draft import job_of, resolved
    from unfreeze_trainer.commands.remarks import remarks

    before = remarks(job_of(drafted), found)
    others = [warning for warning in found.warnings if warning not in before]
    return remarks(resolved(load_job(yaml.safe_load(text)).spec), found) + others


def _text(chosen: Chosen, output: Path) -> str:
    """Return the job file's text; ClickException where the API would refuse it."""
    import yaml

    from unfreeze_api.apiserver.validate import validate

    text = chosen.to_yaml()
    if causes := validate(yaml.safe_load(text)):
        raise click.ClickException(f"no job can be written into {output}: {'; '.join(map(str, causes))}")
    return text
