"""What a finished run leaves behind: its best checkpoint as folders that the plain libraries load, and report.json."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from unfreeze_trainer.engines.base import load_whole
from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.exports.evaluation import FILE, read_evaluation, use_of, write_evaluation
from unfreeze_trainer.exports.page import FILE as PAGE
from unfreeze_trainer.exports.page import write_page
from unfreeze_trainer.exports.report import build_report, export_folder, write_report
from unfreeze_trainer.exports.seal import seal
from unfreeze_trainer.models.folders import changed, hash_file
from unfreeze_trainer.models.own_type import rewritten
from unfreeze_trainer.runs.checkpoints import readable

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze_api.contracts.report import Results
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.runs.state import Best, RunState
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)


def require_unchanged(folder: RunFolder, base: str) -> None:
    """Raise JobError where a file of the base has been written to: frozen weights may lie in it, and exports take them from there."""
    pinned = folder.identity.pins.get("base", {}).get("files", {})
    for file in map(Path, rewritten()):
        if file.parent == Path(base) and file.name in pinned and hash_file(file) != pinned[file.name]:
            raise JobError(
                "DataChanged",
                f"{file} was written to while the job was running, and its frozen weights are read from there: what was trained"
                f" after that is worth nothing. Restore the file, delete {folder.path}, and start again",
            )
    for file in changed(pinned.values()):
        raise JobError(
            "DataChanged",
            f"{file} was written to while the job was running, and exports take from there what has not trained: they would be another"
            " model than the one that was measured. Restore the file, and start again: the training is kept",
        )


class Exporter:
    """Writes exports and report, on the process that may write to the run folder; elsewhere it does nothing.

    Parameters
    ----------
    job, task
        What was trained.
    engine
        What trained it, for the report.
    folder
        Where the best checkpoint lies, and where the exports go.
    tell
        Called with what it does, for people.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        engine: Engine,
        folder: RunFolder,
        *,
        tell: Callable[[str], None],
    ) -> None:
        self._job, self._task, self._engine = job, task, engine
        self._folder, self._tell = folder, tell

    def evaluate(self) -> None:
        """Write what the predictions say in detail."""
        if generation := self._folder.generation:
            self._tell("looking at the predictions")
            self._beside(FILE, lambda: write_evaluation(self._folder.path, generation))

    def write(
        self,
        best: Best,
        *,
        metrics: dict[str, float],
        phase_steps: int,
        instead: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """Write the best checkpoint over a base of its own, which no engine has seen, in each kind that the job asks for.

        Parameters
        ----------
        metrics
            Of this checkpoint, for the model card.
        phase_steps
            Steps of the phase that the run ended in, after which an adapter may have another shape.
        instead
            What stands in the place of the checkpoint's weights, by name: those that were mixed with the base's.

        Raises
        ------
        JobError
            DataChanged: a file of the base is another one than at the start.
        RuntimeError
            A fresh process does not load an export, or it predicts otherwise there.
        """
        if not (generation := self._folder.generation):
            return
        require_unchanged(self._folder, self._job.model.weights_path)
        self._tell("loading the model to write it with the best weights")
        loaded = self._task.build_model()
        loaded.hook.begin(phase_steps)
        module, found = loaded.module, use_of(read_evaluation(self._folder.path))
        load_whole(module, self._folder.checkpoints.load_weights(best.step) | dict(instead))
        module.eval()
        for kind in self._job.output.export:
            final = self._folder.path / export_folder(self._job, kind)
            aside = generation.aside(final.name)
            exported = self._task.exportable(module, kind)
            self._tell(f"writing {kind} to {final}")
            self._task.export(exported, aside, kind, metrics=metrics, usefulness=best.usefulness)
            self._tell(f"loading {kind} in a fresh process, as you will, to compare what it predicts")
            self._task.verify_export(aside, kind, exported)
            facts = {**described(self._job, self._task), **(found or {})}
            seal(aside, fingerprint=self._folder.identity.fingerprint, kind=kind, found=facts)
            readable(aside)
            self._folder.require_own()  # what has come to lie there meanwhile stays
            generation.commit(aside, final)

    def report(self, state: RunState, results: Results, *, skipped: dict[str, int], warnings: list[str]) -> None:
        """Write report.json, which makes the run a finished one.

        Parameters
        ----------
        state
            That the run ended in.
        skipped
            Samples of each split that were left out.
        warnings
            What of the job makes little sense.
        """
        if not (generation := self._folder.generation):
            return
        report = build_report(
            self._job,
            self._task,
            self._engine,
            state,
            identity=self._folder.identity,
            results=results,
            skipped=skipped,
            warnings=warnings,
        )
        # The page first: the report makes the run a finished one, to which nothing is added.
        self._beside(PAGE, lambda: write_page(self._folder.path, report, generation))
        write_report(self._folder.path, report, generation)

    def _beside(self, name: str, write: Callable[[], object]) -> None:
        """Write a file that a model does not depend on: what was trained is not lost where that fails, and the run says so."""
        try:
            write()
        except (JobError, OSError):  # the folder is lost, or full, for what comes after it too
            raise
        except Exception as error:
            log.exception("%s could not be written", name)
            self._folder.events.add("warning", message=f"{name} could not be written: {one_line(error)}")
