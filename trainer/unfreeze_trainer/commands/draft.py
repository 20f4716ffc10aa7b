"""A job for some data: what lies at a path, which task it is for, and the spec that follows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unfreeze_api.grammar.columns import MAX_NAME
from unfreeze_api.tasks import task_type
from unfreeze_api.tasks.alignment import COLUMNS
from unfreeze_trainer.commands.facts import Facts, facts_of
from unfreeze_trainer.commands.guess import guess, of_folder
from unfreeze_trainer.commands.guessed import Guess
from unfreeze_trainer.commands.hints import require_no_transcripts
from unfreeze_trainer.commands.layout import Layout, find_layout
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.delimited import SEPARATED
from unfreeze_trainer.data.json_lines import of_one_object
from unfreeze_trainer.data.suffixes import JSON, suffixes
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.data.web_dataset import serves
from unfreeze_trainer.errors import JobError, some_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.spec.job import FineTuneJobSpec
    from unfreeze_trainer.data.files import FileKind

_TRIED = 3
"""Files of a column of names that are looked for."""
_LOOKED_ROWS = 50_000
"""Rows of a table that its columns are guessed from."""
_ONE_OBJECT = (
    "the file is one object, and so one row. Rows are the objects of one list, or one on each line of a .jsonl file: pandas"
    ' writes these by to_json(PATH, orient="records", lines=True)'
)


@dataclass(frozen=True)
class Draft:
    """What was found out of some data."""

    layout: Layout
    guess: Guess

    @property
    def said(self) -> list[str]:
        """What was decided, for people."""
        columns = ", ".join(f"{name} {column!r}" for name, column in self.guess.columns.items())
        taken = f"taken as {self.guess.task}" + (f" with the columns {columns}" if columns else "")
        return [taken, *self.layout.said, *self.guess.said]

    @property
    def reads_text(self) -> bool:
        """Whether words go into the model."""
        return task_type(self.guess.task).reads_text

    @property
    def modalities(self) -> list[str]:
        """What is read by an encoder each, in the manifest's words; nothing where one model reads all."""
        if not task_type(self.guess.task).towers:
            return []
        return [modality for modality, column in COLUMNS.items() if column.name in self.guess.columns]

    def task(self) -> dict[str, Any]:
        """Return spec.task."""
        member = task_type(self.guess.task).member
        return {"type": self.guess.task} | ({member: self.guess.options} if self.guess.options else {})

    def data(self) -> dict[str, Any]:
        """Return spec.data, with absolute paths; a tenth of the training data is held out where no other lies there."""
        own = {name: {"source": f"file://{absolute(path)}"} for name, path in self.layout.splits.items()}
        renamed = self.guess.renamed()
        return (
            {"validation": {"fraction": 0.1}}
            | own
            | {"train": own["train"] | ({"columns": renamed} if renamed else {})}
        )


def draft(path: Path, *, task: str | None, columns: Mapping[str, str]) -> Draft:
    """Return what a job would read at a path, and as what.

    Parameters
    ----------
    path
        A table or a folder.
    task, columns
        What somebody has said of it: the task's type, and columns by their fields.

    Raises
    ------
    JobError
        InvalidData or InvalidJob, with what to say.
    """
    layout = find_layout(path)
    if layout.kind != "Table":
        require_no_transcripts(path)
        guessed = of_folder(layout.kind)
        if task not in (None, guessed.task):
            raise JobError(
                "InvalidJob",
                f"{path}: a folder of labels' folders is for {guessed.task} alone: leave out --task {task}, or name a table",
            )
        return Draft(layout, guessed)
    where = str(layout.train)
    cells = read_cells(where, where, rows=_LOOKED_ROWS)
    if not len(cells.numbers) and cells.rows:  # whoever trains says what is wrong with the first one
        read_table(where, [*cells.texts], where)
    if not len(cells.numbers):
        raise JobError("InvalidData", f"{where}: no samples; the file has no rows")
    called = some_of([repr(name) for name in cells.repeated])
    aside = f"several columns are called {called}: they are left aside, rename all of them but one"
    try:
        guessed = guess(_with_named_files(facts_of(cells), layout.train), where, columns, task)
    except JobError as error:
        if cells.texts and suffixes(where)[0] in SEPARATED:  # a quote may have swallowed the labels
            read_table(where, [*cells.texts], where, Unread(where, skip=True))
        if suffixes(where)[0] in JSON and cells.rows == 1:
            record = {name: column[0].as_py() for name, column in cells.texts.items()}
            raise JobError(error.reason, f"{where}: {of_one_object(record) or _ONE_OBJECT}") from error
        if not cells.repeated:
            raise
        raise JobError(error.reason, f"{error.marked}. Also, {aside}") from error
    if cells.repeated:
        guessed.said.append(aside)
    guessed.columns |= {
        name: name for name in _serving(where, cells.names) if name in guessed.columns.keys() - columns.keys()
    }
    _require_names(guessed, where)
    return Draft(_with_targets(layout, guessed), guessed)


def _with_named_files(facts: dict[str, Facts], table: Path) -> dict[str, Facts]:
    """Return facts of columns whose cells name pictures or clips that lie below a table, without their suffix, or beside its folder.

    Most rows have one of their own: classes and folds may be called like files too. Beside the folder of a table with texts may lie what is none of its.
    """
    from unfreeze_trainer.data.audio import CLIPS
    from unfreeze_trainer.data.files import meant
    from unfreeze_trainer.data.images import PICTURES
    from unfreeze_trainer.data.shards import folder_of

    looks: tuple[tuple[Literal["picture", "audio"], FileKind], ...] = (("picture", PICTURES), ("audio", CLIPS))
    folder, found = folder_of(str(table)), dict(facts)
    if any(one.look in ("picture", "audio") for one in facts.values()):
        return found
    beside = all(one.look != "text" for one in facts.values())
    for name, one in facts.items():
        names = list(dict.fromkeys(one.values))
        if 2 * len(names) < len(one.values):
            continue
        names = names[:_TRIED]
        if one.look in ("id", "whole number", "category", "text") and all(len(value) <= MAX_NAME for value in names):
            for look, kind in looks:
                if len(names) == _TRIED and all(meant(kind, folder, value.strip(), beside=beside) for value in names):
                    found[name] = replace(one, names=look)
                    break
    return found


def _with_targets(layout: Layout, guessed: Guess) -> Layout:
    """Return a layout without held-out tables that lack a column which is read, as those that are handed in without labels."""
    for name in ("validation", "test"):
        path = layout.splits.get(name)
        if path is None:
            continue
        try:
            names = read_cells(str(path), str(path), rows=_LOOKED_ROWS).names
        except JobError:  # whoever reads it says so
            continue
        present = {*names, *_serving(str(path), names)}
        if lacks := [column for column in guessed.columns.values() if column not in present]:
            said = [line for line in layout.said if not line.startswith(f"{path} ")]
            said.append(
                f"{path} lacks the column {some_of([repr(column) for column in lacks])}, and is not taken as {name} data"
            )
            layout = replace(layout, said=said)
            layout = replace(layout, validation=None) if name == "validation" else replace(layout, test=None)
    return layout


def _serving(where: str, names: Sequence[str]) -> list[str]:
    """Return which of image and audio stand for one column of a WebDataset, whose samples may be .jpg and .png."""
    return [name for name in ("image", "audio") if suffixes(where)[0] == ".tar" and serves(name, names)]


def absolute(path: Path) -> Path:
    """Return a path from the root on without the `..` that no source may have: where it leads, also behind a link."""
    found = path.absolute()
    return Path(os.path.realpath(found)) if ".." in found.parts else found


def _require_names(guessed: Guess, where: str) -> None:
    """Raise JobError InvalidData for a column without a name, or with one that is too long for a job."""
    for field, name in guessed.columns.items():
        if not 0 < len(name) <= MAX_NAME:
            what = f"with a name of {len(name):,} characters" if name else "without a name"
            raise JobError(
                "InvalidData",
                f"{where}: a column {what} was taken for columns.{field}: give it one of 1 to {MAX_NAME} characters in the table, or"
                f" name another column by --column {field}=NAME",
            )


def job_of(drafted: Draft) -> ResolvedJob:
    """Return a job of which the data alone count."""
    from unfreeze_api.spec.job import FineTuneJobSpec

    towers = [{"modality": one, "source": f"file:///none/{one}"} for one in drafted.modalities]
    spec = {
        "model": {"towers": towers} if towers else {"source": "file:///none"},
        "task": drafted.task(),
        "data": drafted.data(),
        "strategy": {"type": "FeatureExtraction"},
        "output": {"destination": "file:///nowhere"},
    }
    return resolved(FineTuneJobSpec.model_validate(spec))


def resolved(spec: FineTuneJobSpec) -> ResolvedJob:
    """Return a job whose sources lie on this machine."""
    from unfreeze_api.resolve import resolve

    return resolve("data", "default", spec, rendezvous_host="localhost")
