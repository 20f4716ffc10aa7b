"""A run on one rank, put together: each part is handed what it needs, and no part knows the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import Progress
from unfreeze_trainer.exports.exporter import Exporter
from unfreeze_trainer.features.cached import CachedTask, worth_it
from unfreeze_trainer.features.reuse import Place
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.link import tell
from unfreeze_trainer.phases.freezer import Freezer
from unfreeze_trainer.runs.choice import read_choice, store_choice
from unfreeze_trainer.runs.stages import read_results
from unfreeze_trainer.training.begin import attach, open_folder, resume, say_start
from unfreeze_trainer.training.decisions import Decisions
from unfreeze_trainer.training.evaluator import Evaluator
from unfreeze_trainer.training.forgetting import Forgetting
from unfreeze_trainer.training.history import CurveFile
from unfreeze_trainer.training.hold import Hold
from unfreeze_trainer.training.ladder import Ladder
from unfreeze_trainer.training.meter import Meter
from unfreeze_trainer.training.milestones import Milestones
from unfreeze_trainer.training.plan import Plan
from unfreeze_trainer.training.predictions import Predictions
from unfreeze_trainer.training.range_test import RangeTest
from unfreeze_trainer.training.replay import Replay
from unfreeze_trainer.training.reporter import Reporter
from unfreeze_trainer.training.rollback import Rollbacks
from unfreeze_trainer.training.saver import Saver
from unfreeze_trainer.training.saying import Saying
from unfreeze_trainer.training.skipped import Skipped
from unfreeze_trainer.training.solver import Solver, require_solvable, with_solver
from unfreeze_trainer.training.spending import Spending
from unfreeze_trainer.training.tracking import Tracking
from unfreeze_trainer.training.trainable import Trainable
from unfreeze_trainer.training.unused import Unused
from unfreeze_trainer.training.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze_api.contracts.decision import Decision
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.runs.folder import RunFolder
    from unfreeze_trainer.runs.rates import ChosenRates
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.reporter import Observer


class Run:
    """The parts of a run, begun or resumed: for the loop, and for what comes after it. Making one is collective.

    Parameters
    ----------
    job, task, loaded
        What is trained, on what, and the model as `task.build_model()` made it.
    engine
        Joined to its process group, without a model.
    link
        To the agent; None without one.
    takes_folder
        Whether the run takes the right to write to its folder, which no agent has taken for it.

    Raises
    ------
    JobError
        The model fails at the data, or the run folder is not this job's.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        loaded: LoadedModel,
        engine: Engine,
        link: Link | None,
        *,
        takes_folder: bool = False,
    ) -> None:
        self.asked = asked = job  # with the rates before a range test, and the solver before one is chosen
        self.job = job = with_solver(job, task, loaded, any_rank=engine.any_rank)
        self.engine, self.link = engine, link
        self.hook = hook = loaded.hook
        self.features = features = CachedTask(task, engine, Place.of(job))
        whole, task = task, cast("Task", features)
        self.task = task
        self.feed = feed = Feed(
            task,
            seed=job.training.seed,
            batch_size=job.training.batch_size,
            accumulate=job.training.gradient_accumulation_steps,
            rank=engine.rank,
            world_size=engine.world_size,
            group_by_length=bool(job.training.group_by_length),
        )
        blocks = [block.name for block in loaded.blocks]
        self.plan = plan = Plan.of(
            job,
            blocks,
            samples=feed.samples,
            steps_per_epoch=feed.steps_per_epoch,
            headless=loaded.headless,
        )
        self.freezer = freezer = Freezer(
            loaded.module,
            loaded.blocks,
            loaded.adapter_parameters,
            loaded.rate_factors,
            locked=loaded.locked,
            frozen_dropout=job.semantics.dropout == "Everywhere",
        )
        head = require_solvable(task, loaded, plan.phases, asked=asked.strategy.solver is not None)
        features.batch = feed.evaluation_size
        evidence, features.cuts, features.keys, plan = attach(
            job, task, loaded, engine, plan=plan, feed=feed, freezer=freezer, link=link
        )
        starts = {
            index: len(cut.blocks(engine.module, loaded.blocks))
            for index, cut in features.cuts.items()
            if "train" in worth_it(task, plan.reads_of(index))
        }
        self.plan = plan = replace(plan, starts=starts, held_out=task.splits["validation"])
        self.forgetting = Forgetting(job, whole, loaded, engine, plan=plan, freezer=freezer)
        if self.forgetting.watches:
            tell(link, "looking at what the base does")
            self.forgetting.look_at_base()
        self.replay = Replay(job, whole, loaded, engine, plan=plan, forgetting=self.forgetting)
        self.hold = Hold(loaded, engine, plan=plan, freezer=freezer, forgetting=self.forgetting)
        self.meter = meter = Meter(engine, link)
        self.folder, found = open_folder(asked, task, engine, link, takes=takes_folder)
        folder, events, keep = self.folder, self.folder.events, job.training.checkpoint.keep
        rates = None
        if job.strategy.learning_rate.rates == "Auto":
            test = RangeTest(job, task, engine, feed=feed, freezer=freezer, plan=plan, evidence=evidence, link=link)
            rates = test.rates(folder)
            self.job = job = job.with_rates(rates.head, rates.backbone)
            self.plan = plan = plan.with_rates(job)
        self.state, moments = resume(job, found, folder, engine, hook=hook, freezer=freezer, plan=plan)
        state = self.state
        self.decisions = Decisions(state, events)
        for decision in _decided_before(job, folder, rates):
            self.decisions.add(decision)
        self.saver = saver = Saver(
            engine, folder, keep=keep, newest=found.checkpoint, hook=hook, evaluated=state.evaluated_step
        )
        self.spending = spending = Spending(
            job, task, plan, state, engine=engine, folder=folder, saver=saver, decisions=self.decisions
        )
        say_start(task, feed, plan, folder, step=state.step, world_size=engine.world_size)
        self.skipped = skipped = Skipped(task, engine, state, events, on=job.data.on_error == "Skip")
        self.trainable = trainable = Trainable(
            engine,
            freezer,
            hook,
            unused=Unused(engine, freezer, state, events, evidence),
            state=state,
            events=events,
            weight_decay=job.training.weight_decay,
            moments=moments,
        )
        tracking = Tracking(job, state.step, enabled=engine.rank == 0)
        self.reporter = reporter = Reporter(
            plan,
            state,
            meter,
            saver,
            skipped,
            spending=spending,
            saved=features.saved,
            events=events,
            history=_history(task, plan, folder, state.step),
            tracking=tracking,
            link=link,
            world_size=engine.world_size,
            observers=_observers(job, tracking, link),
        )
        self.evaluator = evaluator = Evaluator(
            engine, task, feed, metric=job.metric.name, check_stop=meter.check_stop, resume=freezer.train_mode
        )
        self.predictions, self.saying = Predictions(job, task, engine, folder), Saying(job, whole, engine, link)
        self.rollbacks = Rollbacks(
            job,
            task,
            plan,
            state,
            engine=engine,
            hook=hook,
            trainable=trainable,
            saver=saver,
            folder=folder,
            meter=meter,
            reporter=reporter,
            decisions=self.decisions,
        )
        meter.observe = self.rollbacks.observe
        self.ladder = ladder = Ladder(
            job,
            features,
            plan,
            state,
            engine=engine,
            hook=hook,
            trainable=trainable,
            saver=saver,
            folder=folder,
            meter=meter,
            decisions=self.decisions,
            spending=spending,
        )
        self.milestones = milestones = Milestones(
            job,
            plan,
            state,
            decisions=self.decisions,
            engine=engine,
            trainable=trainable,
            evaluator=evaluator,
            predictions=self.predictions,
            saver=saver,
            skipped=skipped,
            reporter=reporter,
            rollbacks=self.rollbacks,
            forgetting=self.forgetting,
            saying=self.saying,
            hold=self.hold,
            ladder=ladder,
            spending=spending,
        )
        self.work = Work(
            plan,
            feed,
            state,
            features=features,
            trainable=trainable,
            milestones=milestones,
            meter=meter,
            saver=saver,
            reporter=reporter,
            rollbacks=self.rollbacks,
            ladder=ladder,
            hold=self.hold,
            spending=spending,
            solver=Solver(
                features,
                engine,
                state,
                trainable=trainable,
                decisions=self.decisions,
                head=head,
                seed=job.training.seed,
            ),
        )
        self.exporter = Exporter(job, task, engine, folder, tell=reporter.tell)


def _decided_before(job: ResolvedJob, folder: RunFolder, rates: ChosenRates | None) -> Iterator[Decision]:
    """Yield what was decided before the first step: on the base, on the stages, on the rates."""
    fingerprint = folder.identity.fingerprint
    if job.model.candidates and (choice := read_choice(folder.path, fingerprint)):
        train = folder.identity.pins.get("data", {}).get("train")
        if choice.train is None and folder.generation:
            store_choice(choice.model_copy(update={"train": train}), folder.generation, folder.path)
        yield choice.beside(train)
    if job.stages:
        yield from (stage.decision for stage in read_results(folder.path, fingerprint) if stage.decision)
    if rates:
        yield rates.decision


def _history(task: Task, plan: Plan, folder: RunFolder, step: int) -> CurveFile:
    blocks = dict.fromkeys(block for phase in plan.phases for block in phase.learning_rates)
    return CurveFile(
        folder.path,
        folder.generation,
        step=step,
        total_steps=plan.total_steps,
        blocks=list(blocks),
        metrics=task.metrics.names,
    )


def _observers(job: ResolvedJob, tracking: Tracking, link: Link | None) -> list[Observer]:
    if link is None:
        return [tracking.progress]

    def write(progress: Progress) -> None:
        link.write_progress(budget.bounded(progress, job.metric.name))

    return [tracking.progress, write]
