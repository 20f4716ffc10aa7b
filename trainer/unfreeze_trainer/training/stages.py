"""The stages of a job, trained one after the other before the job itself, by the same workers.

Each is a run of its own (`runs.stages`), whose export the next one starts from: it stops, resumes and evaluates as any other.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter

from unfreeze_api.contracts.progress import Progress
from unfreeze_api.tasks import task_type
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.report import read_report
from unfreeze_trainer.judgement.stages import Probed, stage_helps
from unfreeze_trainer.link import Link, tell
from unfreeze_trainer.runs.folder import RunFolder
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.runs.stages import (
    EXPORT,
    FOLDER,
    LAST,
    StageResult,
    after_stages,
    base_of,
    folder_of,
    naming,
    read_results,
    stage_jobs,
    staged_model,
    store_results,
)
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.beside import on_first
from unfreeze_trainer.training.compared import compared
from unfreeze_trainer.training.decisions import Decisions
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.run import Run

if TYPE_CHECKING:
    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.progress import PhaseResult
    from unfreeze_api.contracts.report import Report
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.ranking.order import Ranking
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

OpenTask = Callable[["ResolvedJob"], "Task"]
_RESULTS = TypeAdapter(list[StageResult])


class StageLink(Link):
    """The link of a stage, or of the job after its stages: what it says of itself is said of the whole job."""

    def __init__(self, link: Link, number: int, count: int, name: str, before: Sequence[StageResult]) -> None:
        super().__init__(link.folder)
        self._link, self._last = link, number == count
        self._newest = Progress(activity="Evaluating")
        self._stage = f"{number} of {count}: {name}"
        self._name = name
        self._phases = [phase for result in before for phase in _of_stage(result.name, result.phases)]
        self._decisions = [result.decision.info() for result in before if result.decision]

    def write_progress(self, progress: Progress) -> None:
        """Say how far the job is: at the end of a stage it is not done."""
        phases = (
            progress.phases if self._last else _of_stage(self._name, progress.phases)
        )  # as they are called later on
        update: dict[str, Any] = {"stage": self._stage, "phases": [*self._phases, *phases]}
        if not self._last:
            own = "Exporting" if progress.activity == "Done" else progress.activity
            update |= {"activity": own, "decisions": self._decisions or None, "results": {}}
        self._newest = progress
        self._link.write_progress(progress.model_copy(update=update))

    def write_activity(self, text: str) -> None:
        """Say what goes on."""
        self._link.write_activity(text)

    def beat(self) -> None:
        """Say again how far the job is, or that this stage has come: nothing hangs."""
        if os.environ.get("LOCAL_RANK", "0") == "0":
            self.write_progress(self._newest)


def _of_stage(name: str, phases: Sequence[PhaseResult]) -> list[PhaseResult]:
    """Return the phases of a stage as the whole job calls them."""
    return [phase.model_copy(update={"name": f"{name}.{phase.name}"}) for phase in phases]


def check_stages(job: ResolvedJob, open_task: OpenTask) -> dict[str, int]:
    """Open the data of every stage and of the job itself, before anything is trained.

    Returns
    -------
    dict
        How many of the samples that the job is measured on a stage learns from, like {"test in stage domain": 12}.

    Raises
    ------
    JobError
        With the field of the stage.
    """
    from unfreeze_trainer.ranking.rank import MIN_ROWS

    _require_projectors(job)
    own, seen, heard = open_task(job), dict[str, int](), list[int | None]()
    for index, stage in enumerate(stage_jobs(job)):
        with naming(job, index):
            open_recipe(stage)
            task = open_task(stage)
            seen |= own.learned_before(job.stages[index].name, task)  # type: ignore[index]
            heard.append(task.made_to_hear)
    _require_heard(job, [*heard, own.made_to_hear])
    rows = own.splits["train"]
    for index, asked in enumerate(job.stages or ()):
        if asked.keep == "IfHelps" and rows < MIN_ROWS:
            raise JobError(
                "InvalidJob",
                f"spec.stages[{index}].keep: {rows} rows in spec.data.train are too few to tell whether a stage helps, at least"
                f" {MIN_ROWS} are needed: give more data, or set keep to Always",
            )
    return seen


def _require_projectors(job: ResolvedJob) -> None:
    """Raise JobError where an encoder would change after a projector has learned to hand on what it sees: that would be thrown away."""
    before = list[str]()
    for index, stage in enumerate(job.stages or ()):
        if stage.text_encoder and before:
            raise JobError(
                "InvalidJob",
                f"spec.stages[{index}].task: Alignment changes the encoder, and the projector that stage {before[-1]} has trained on it"
                " would be thrown away: put stages of Alignment before those of Captioning",
            )
        before += [] if stage.text_encoder else [stage.name]


def _require_heard(job: ResolvedJob, heard: Sequence[int | None]) -> None:
    """Raise JobError where a stage would have a model hear less of a clip than what follows has: it stays as short."""
    for index, seconds in enumerate(heard[:-1]):
        longer = [one for one in heard[index + 1 :] if seconds is not None and (one is None or one > seconds)]
        if longer:
            raise JobError(
                "InvalidJob",
                f"spec.stages[{index}].data.train: its longest clip has the model hear {seconds} seconds of each, and what follows has longer"
                f" clips, which would be cut there: set spec.task.{job.task.kind.member}.maxSeconds, which holds for all of them",
            )


class Chain:
    """The stages of a job on one rank.

    Parameters
    ----------
    job
        With the recipe that its run began with.
    engine
        Joined to its process group, without a model.
    link
        To the agent; None without one.
    open_task
        Opens the task of a job.
    """

    def __init__(self, job: ResolvedJob, engine: Engine, link: Link | None, open_task: OpenTask) -> None:
        self._job, self._engine, self._link, self._open_task = job, engine, link, open_task
        self._folder = RunFolder.open(job, writes=engine.rank == 0, pins=dict)
        self._folder.keep_recipe()
        found = read_results(self._folder.path, self._fingerprint) if engine.rank == 0 else []
        self._results: list[StageResult] = _RESULTS.validate_python(
            engine.broadcast_object([one.model_dump() for one in found])
        )

    @property
    def _fingerprint(self) -> str:
        return self._folder.identity.fingerprint

    @property
    def job(self) -> ResolvedJob:
        """The job as it is after the stages so far."""
        return after_stages(self._job, self._results)

    @property
    def link(self) -> StageLink | None:
        """The link of what comes next."""
        count, number = len(self._job.stages or ()) + 1, len(self._results) + 1
        name = LAST if number == count else (self._job.stages or [])[number - 1].name
        return StageLink(self._link, number, count, name, self._results) if self._link else None

    def train(self) -> None:
        """Train the stages that are left. Collective.

        Raises
        ------
        StopRequested
            All ranks have agreed to stop; a later start resumes.
        JobError
            As of a run, with the fields of the stage; of whether it helps with those of the job.
        """
        assert self._job.stages is not None
        jobs = stage_jobs(self._job)
        while len(self._results) < len(jobs):
            index, link = len(self._results), self.link
            if link:
                link.beat()
            with naming(self._job, index):
                result = self._stage(index, jobs[index], link)
            if self._job.stages[index].keep == "IfHelps":
                with naming(self._job, index, of_job=True):
                    decision = self._decide(result, link)
                result = result.model_copy(update={"kept": decision.answer == "Yes", "decision": decision})
            self._add(result)

    def _add(self, result: StageResult) -> None:
        self._results.append(result)
        if generation := self._folder.generation:
            store_results(self._results, generation, self._folder.path, self._fingerprint)
        self._folder.events.add("stageEnded", name=result.name, kept=result.kept, steps=result.steps)

    def _stage(self, index: int, job: ResolvedJob, link: StageLink | None) -> StageResult:
        """Train a stage, unless that was done before. Collective."""
        assert self._job.stages is not None
        stage = self._job.stages[index]
        encodes = stage.text_encoder is not None
        job = job.model_copy(update={"model": staged_model(self._job, job.model, self._results, encodes=encodes)})
        report = self._report(job)
        if report is None:
            self._folder.events.add("stage", name=stage.name, number=index + 1, count=len(self._job.stages) + 1)
            self._train(job, link)
            report = self._report(job)
            assert report is not None  # finish() has written it
        steps = sum(phase.steps for phase in report.phases)
        return StageResult(name=stage.name, kept=True, steps=steps, phases=report.phases)

    def _report(self, job: ResolvedJob) -> Report | None:
        """Return the report of a stage that is finished, on every rank as the first one sees it. Collective."""
        from unfreeze_api.contracts.report import Report as Kind

        found = None
        if self._engine.rank == 0:
            found, fingerprint = read_report(Path(job.output.path)), open_recipe(job).fingerprint
            if found and (found.fingerprint != fingerprint or not (Path(job.output.path) / EXPORT).is_dir()):
                raise JobError(
                    "ForeignRunFolder",
                    f"{job.output.path} holds the finished run of another recipe, or one without its {EXPORT}: choose another"
                    " output.destination, or delete that folder",
                )
        return self._engine.broadcast_json(found, Kind | None)

    def _train(self, job: ResolvedJob, link: StageLink | None) -> None:
        engine = self._engine
        if engine.dtype is torch.float16:
            engine.loss_scale = LossScale(engine.device)  # as in a process that begins with this stage
        tell(link, "reading the data")
        task = self._open_task(job)
        task.check_samples(engine.rank, engine.world_size)
        run = Run(job, task, task.build_model(), engine, link, takes_folder=True)
        try:
            train(run)
            finish(run)
        except StopRequested:
            run.milestones.save()
            run.saver.wait()
            run.reporter.stopped()
            raise
        finally:
            run.saver.close()
        engine.module.to("cpu")  # its place is the next one's
        del run, task
        gc.collect()

    def _decide(self, result: StageResult, link: StageLink | None) -> Decision:
        """Return whether a stage helps, as the first rank finds it. Collective."""
        from unfreeze_api.contracts.decision import Decision as Kind

        tell(link, "comparing what the model with and without it tells of the job's own rows")
        step = result.steps + sum(one.steps for one in self._results)
        seconds = sum(phase.seconds for phase in result.phases)

        def decide() -> Decision:
            return stage_helps(self._probed(result), name=result.name, step=step, seconds=seconds)

        def look() -> None:
            if self._engine.any_rank(link is not None and link.stop_requested()):
                raise StopRequested
            if link:
                link.beat()

        done = on_first(self._engine, "probe", decide, look)
        found = self._engine.broadcast_json(done.result() if self._engine.rank == 0 else None, Kind | None)
        assert found is not None
        Decisions(RunState(), self._folder.events).add(found)
        return found

    def _probed(self, result: StageResult) -> Probed:
        """Compare the models with and without a stage, on this rank alone."""
        job = self._job
        if task_type(job.task.type).joins:
            return compared(self.job, after_stages(job, [*self._results, result]), self._open_task)
        after = (f"{FOLDER}/{result.name}/{EXPORT}", str(folder_of(job, result.name) / EXPORT))
        return _probe(job, base_of(job, self._results), after)


def _probe(job: ResolvedJob, before: tuple[str, str], after: tuple[str, str]) -> Probed:
    """Compare the features of two models on training rows of the job itself: (what it is called, its folder) of each."""
    from unfreeze_trainer.ranking.rank import rank

    sources, paths = zip(before, after, strict=True)
    model = {"source": "", "path": "", "candidates": list(sources), "candidate_paths": list(paths)}
    asked = {"model": job.model.model_copy(update=model), "stages": None, "evidence": None}
    return probed_of(rank(job.model_copy(update=asked)), after[0])


def probed_of(ranking: Ranking, after: str) -> Probed:
    """Return what a ranking of two says of one of them."""
    first, second = ranking.bases
    low, high = second.behind_interval
    one, other = (first, second) if first.source == after else (second, first)
    return Probed(
        with_stage=one.scores.knn,
        without=other.scores.knn,
        low=low if one is first else -high,
        high=high if one is first else -low,
        rows=ranking.rows,
        seconds=first.seconds + second.seconds,
        figure="knn" if ranking.share_of == "Rows" else "variance",
    )
