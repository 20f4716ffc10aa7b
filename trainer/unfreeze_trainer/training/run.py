"""One run on one rank: what the loop in `worker` calls between its steps."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unfreeze_api.contracts import budget
from unfreeze_api.contracts.progress import PhaseResult, Progress
from unfreeze_api.contracts.report import Results
from unfreeze_trainer.data.pins import first_pins
from unfreeze_trainer.engines import Engine, OptimizerState
from unfreeze_trainer.engines.base import load_whole
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.report import build_report, export_folder, flat_results, write_report
from unfreeze_trainer.feed import Feed, MicroBatch
from unfreeze_trainer.link import tell
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.batch_norm import accept_single_values
from unfreeze_trainer.phases.compile import Phase, compile_phases
from unfreeze_trainer.phases.freezer import Freezer
from unfreeze_trainer.phases.remaining import remaining_work, step_work
from unfreeze_trainer.phases.schedule import rate_factor
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity, readable
from unfreeze_trainer.runs.destination import write_marker
from unfreeze_trainer.runs.events import Events
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.ownership import Owner, generation_of_worker
from unfreeze_trainer.runs.recipe import open_recipe
from unfreeze_trainer.runs.recovery import Found, find
from unfreeze_trainer.runs.saving import clear
from unfreeze_trainer.runs.state import Best, State
from unfreeze_trainer.training.guard import Guard, count_skipped
from unfreeze_trainer.training.meter import Meter
from unfreeze_trainer.training.saver import Saver
from unfreeze_trainer.training.skipped import Skipped
from unfreeze_trainer.training.tracking import Tracking
from unfreeze_trainer.training.unused import Unused, agree_on_unused

if TYPE_CHECKING:
    from unfreeze_api.resolve import ResolvedJob
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.tasks import Task

log = logging.getLogger(__name__)

_STOP_CHECK_BATCHES = 4


class Run:
    """A job's training on this rank, begun or gone on with.

    Parameters
    ----------
    job, task, loaded
        What is trained, on what, and the model as `task.build_model()` made it.
    engine
        Joined to its process group, without a model.
    link
        To the agent; None without one.
    """

    def __init__(self, job: ResolvedJob, task: Task, loaded: LoadedModel, engine: Engine, link: Link | None) -> None:
        self.job, self.task, self.engine, self._link = job, task, engine, link
        self.folder = Path(job.output.path)
        training = job.training
        self.feed = Feed(
            task,
            seed=training.seed,
            batch_size=training.batch_size,
            accumulate=training.gradient_accumulation_steps,
            rank=engine.rank,
            world_size=engine.world_size,
        )
        self._blocks = [block.name for block in loaded.blocks]
        self.phases = compile_phases(job, self._blocks, self.feed.steps_per_epoch)
        self.total_steps = sum(phase.steps for phase in self.phases)
        self.state = State()
        self._moments: OptimizerState | None = {}
        """Moments of a checkpoint, until a phase has taken them; None after it: the engine carries them on."""
        self._results: dict[str, float] = {}
        self._activity = "Starting"
        self.hook = loaded.hook
        self.freezer = Freezer(loaded.module, loaded.blocks, loaded.adapter_parameters, loaded.rate_factors)
        if training.gradient_checkpointing:
            checkpoint_activations(loaded.module)
        chosen = {name for phase in self.phases for name in self.freezer.chosen_names(phase)}
        sizes = self.feed.sizes()
        if min(sizes) == 1:
            accept_single_values(loaded.module)
        tell(link, "trying the longest batch, and looking for weights that get no gradient")
        evidence = agree_on_unused(engine, task, loaded.module, chosen, sizes)
        self.engine.attach(loaded.module, loaded.blocks, evidence.unused)
        self.meter = Meter(engine, link)
        self._open_folder()
        self._skipped = Skipped(task, engine, self.state, self.events, on=job.data.on_error == "Skip")
        self._unused = Unused(engine, self.freezer, self.state, self.events, evidence)
        self.tracking = Tracking(job, self.state.step, enabled=engine.rank == 0)

    def _open_folder(self) -> None:
        """Take the run folder, find the newest whole checkpoint and go on from it. Collective."""
        engine = self.engine
        start = open_recipe(self.job)
        owner = Owner.of(self.job, start.fingerprint)
        self._generation = generation_of_worker(self.folder, owner) if engine.rank == 0 else None
        self.events = Events(self.folder, self._generation)
        tell(self._link, "hashing model and data")
        self._after_success = start.after_success
        self.pins = engine.broadcast_object(self.task.pins if engine.rank == 0 else {})
        self.identity = Identity(start.fingerprint, self.pins, partial(first_pins, self.job, self.pins))
        self.checkpoints = Checkpoints(self.folder, self.identity)
        found = find(self.checkpoints, self._generation) if self._generation else Found()
        found = engine.broadcast_json(found, Found)
        if self._generation:
            start.store(self._generation)
        if found.checkpoint:
            self._resume(found.checkpoint.step)
        if found.best_lost:
            self.state.forget_best(self.job.metric.name)
        if found.recovery:
            self.state.recovery = found.recovery
            self.events.add("brokenCheckpoint", step=found.recovery.step, message=found.recovery.message)
        self.saver = Saver(
            engine,
            self.checkpoints,
            self._generation,
            self.events,
            keep=self.job.training.checkpoint.keep,
            newest=found.checkpoint,
            hook=self.hook,
        )
        for warning in self.feed.warnings if self._generation else ():
            self.events.add("warning", step=self.state.step, message=warning)
            log.warning("%s", warning)
        if self._generation and self.task.overlaps:
            log.warning("samples stand in more than one split: %s", self.task.overlaps)
        self.events.add(
            "start",
            step=self.state.step,
            generation=self._generation.number if self._generation else 0,
            host=socket.gethostname(),
            worldSize=self.engine.world_size,
            totalSteps=self.total_steps,
            phases=[phase.name for phase in self.phases],
        )

    def _resume(self, step: int) -> None:
        folder = self.checkpoints.path(step)
        if not folder.is_dir():
            raise JobError(
                "OutputNotShared",
                f"rank {self.engine.rank} does not see {folder}, which rank 0 wrote: output.destination must lie on a"
                " volume that all pods share (access mode ReadWriteMany)",
            )
        snapshot = self.checkpoints.load(step)
        self.state, self._moments = snapshot.state, self.hook.load_state(snapshot.moments)
        if self.engine.loss_scale and self.state.loss_scale:
            self.engine.loss_scale = LossScale(*self.state.loss_scale)
        self.engine.load_weights(snapshot.weights)
        phase = self.phases[self.state.phase_index]
        if self.state.trainable_hash != self._trainable_hash(phase):
            raise JobError(
                "ForeignRunFolder",
                f"{folder} trained other parameters in phase {phase.name} than this version of the libraries would:"
                " go on with the versions that wrote it, or choose another output.destination",
            )
        log.info("going on from step %d of %d, phase %s", self.state.step, self.total_steps, phase.name)

    def _trainable_hash(self, phase: Phase) -> str:
        return hashlib.sha256("\n".join(self.freezer.chosen_names(phase)).encode()).hexdigest()[:16]

    # Phases

    def phases_left(self) -> Iterator[Phase]:
        """Yield the phases that are not over, but for those that have nothing to train."""
        left = self.phases[self.state.phase_index + self.state.phase_ended :]
        yield from (phase for phase in left if self.freezer.trainable_names(phase))

    def begin(self, phase: Phase) -> None:
        """Freeze, hand the phase to the engine, make up for what a stop left undone."""
        state = self.state
        if phase.index != state.phase_index or state.phase_ended:
            state.phase_index, state.step, state.phase_ended = phase.index, phase.first_step, False
            state.phase_steps, state.phase_seconds, state.phase_best, state.bad_evaluations = 0, 0.0, None, 0
        left = self._hand_over(phase)
        state.trainable_hash = self._trainable_hash(phase)
        self._mark = time.perf_counter()
        self.events.add(
            "phase", index=phase.index, name=phase.name, step=state.step, trainableParameters=self._trainable
        )
        log.info("phase %s: %d parameters train, %d steps left", phase.name, self._trainable, left)
        tell(self._link, "")
        self.publish("Training")
        if state.phase_steps:
            self._settle()  # an evaluation that a stop cut short
        self.meter.step_work = step_work(phase, self._blocks)
        self.meter.resume()

    def _hand_over(self, phase: Phase) -> int:
        """Have the engine train a phase, under guard; return the steps that are left."""
        self.freezer.apply(phase)
        groups = self.freezer.groups(phase, self.job.training.weight_decay)
        self.engine.begin(groups, self._moments)
        self.hook.begin(phase.steps)
        self.engine.after_update = self._after_update
        self._moments, self._phase = None, phase
        self._unused.watch(phase)
        self._trainable = sum(self.engine.shapes[name].numel() for group in groups for name in group.names)
        left = phase.first_step + phase.steps - self.state.step
        self._guard = Guard(self.engine, phase.name, groups, left, self._at_rest) if left else None
        return left

    def _at_rest(self) -> set[str]:
        return {*self.hook.at_rest(), *self.state.gradients_at_times}

    def _after_update(self) -> None:
        self.hook.after_update(self.state.step + 1 - self._phase.first_step, skipped=self.engine.skipped)

    def steps(self, phase: Phase) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """Yield what is left of a phase, (step, micro batches), until its end or until it no longer improves."""
        if self.state.phase_ended:
            return
        for step, micro_batches in self.feed.steps(self.state.step, phase.first_step + phase.steps):
            yield step, micro_batches
            if self.state.phase_ended:
                return

    def factor(self, step: int) -> float:
        """Return what every peak learning rate is multiplied by at a step."""
        self._factor = rate_factor(self.job.strategy.learning_rate, self._phase, step, self.total_steps)
        return self._factor

    def after_step(self, step: int) -> None:
        """Take note of a step that is done; evaluate and write a checkpoint when it is time.

        Raises
        ------
        StopRequested
            All ranks have agreed to stop here.
        JobError
            The guard has found something, or too many steps in a row were skipped.
        """
        self.state.step = step + 1
        self.state.phase_steps += 1
        if self.engine.skipped:
            count_skipped(self.state, self.events, self._phase.name)
        else:
            self.state.skipped_in_a_row = 0
            if self._guard:
                self._guard.after_step()
        if late := self._unused.late():
            self._unused.take_in(late)
            self._hand_over(self._phase)
        if self.meter.after_step():
            self.saver.check()
            self.state.loss = self.meter.loss
            self.publish("Training")
        if self._evaluation_due() or self.state.step % self.job.training.checkpoint.every_steps == 0:
            self.meter.pause()
            self._settle()
            self.meter.resume()

    # Evaluations and checkpoints

    def _evaluation_due(self) -> bool:
        step, every = self.state.step, self.job.training.evaluate.every_steps or self.feed.steps_per_epoch
        return step % every == 0 or step == self._phase.first_step + self._phase.steps

    def _settle(self) -> None:
        """Evaluate and write a checkpoint, whichever is due at this step and not done yet."""
        state = self.state
        improved = False
        if self._evaluation_due() and state.evaluated_step != state.step:
            self.publish("Evaluating")
            began = time.perf_counter()
            state.metrics = self.evaluate("validation")
            state.evaluation_seconds, state.evaluated_step = time.perf_counter() - began, state.step
            self._skipped.gather()
            improved = self._compare()
            self.events.add("evaluation", step=state.step, metrics=state.metrics, seconds=state.evaluation_seconds)
            self.tracking.metrics("validation", state.metrics, state.step)
            log.info("step %d: %s", state.step, ", ".join(f"{key} {value:.4g}" for key, value in state.metrics.items()))
        if state.phase_ended:
            self._close_phase()
        if improved or state.phase_ended or state.step % self.job.training.checkpoint.every_steps == 0:
            self.save()
        self.publish("Training")

    def _compare(self) -> bool:
        """Compare the newest evaluation with the best; return whether it is the best of the run."""
        training, phase = self.job.training, self._phase
        end = self.state.step == phase.first_step + phase.steps
        return self.state.compare(self.job.metric, stopping=phase.plateau or training.early_stopping, end=end)

    def _close_phase(self) -> None:
        self._count_time()
        done = PhaseResult(
            name=self._phase.name,
            steps=self.state.phase_steps,
            seconds=self.state.phase_seconds,
            trainable_parameters=self._trainable,
            metrics=self.state.metrics,
        )
        self.state.phases = [*self.state.phases, done]

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.state.phase_seconds += now - self._mark
        self._mark = now

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        """Return the metrics of a split, exact over all ranks: sums are added, each sample counts once. Collective."""
        engine, task = self.engine, self.task
        engine.sync_buffers()
        engine.module.eval()
        sums = task.metrics.new_state()
        for number, here in enumerate(self.feed.evaluation(split), 1):
            batch = engine.to_device(here)
            with engine.autocast():
                logits = task.forward(engine.module, batch)
            task.metrics.update(sums, logits, batch)
            if number % _STOP_CHECK_BATCHES == 0:
                self.meter.check_stop()
        self.freezer.train_mode()
        if not (metrics := task.metrics.compute(engine.all_reduce(sums))):
            raise JobError(
                "InvalidData", f"spec.data.{split}: none of the {task.splits[split]} samples can be read: correct them"
            )
        if split == "validation":
            self.state.usefulness = task.metrics.usefulness(sums, task.labels, self.job.metric.name)
        return metrics

    def save(self) -> None:
        """Begin to write a checkpoint of this step unless there is one. Collective."""
        self._count_time()
        if scale := self.engine.loss_scale:
            self.state.loss_scale = scale.value, scale.good_steps
        phases = self.phases[: self._phase.index + 1]
        self.saver.save(self.state, {name for phase in phases for name in self.freezer.trainable_names(phase)})

    # The end

    def finish(self) -> None:
        """Take the best weights, measure them once on the test data, export, write the report. Collective."""
        tell(self._link, "taking the best weights")
        self.publish("Exporting")
        self.saver.wait()
        best = self.state.best
        assert best is not None  # the end of a phase always evaluates
        if self._moments is not None:  # it had stopped between its last phase and this
            self._hand_over(self.phases[self.state.phase_index])
        if self.engine.rank == 0:
            self.checkpoints.check(best.step)
        if best.step != self.state.step:
            self._take_best(best.step)
        tell(self._link, "measuring the best weights on the test data")
        test = self.evaluate("test") if "test" in self.task.splits else {}
        self._skipped.gather()
        self.engine.end()
        results = Results(validation=best.metrics, test=test)
        if self._generation:
            self._export(best, flat_results(results), self._generation)
            report = build_report(
                self.job,
                self.task,
                self.engine,
                self.state,
                identity=self.identity,
                results=results,
                skipped=self._skipped.counts(),
                warnings=self.feed.warnings,
            )
            write_report(self.folder, report, self._generation)
            if gone := clear(self.checkpoints, self._after_success, best=best.step, generation=self._generation):
                self.events.add("checkpointsDeleted", steps=gone)
        self._results = flat_results(results) | (best.usefulness.figures() if best.usefulness else {})
        self.events.add("done", results=self._results)
        self.tracking.metrics("test", test, self.state.step)
        self.tracking.close()
        self.publish("Done")
        self.engine.barrier()

    def _take_best(self, step: int) -> None:
        """Load the best checkpoint over the pinned base: what later phases changed goes back to the base's weights."""
        weights = self.checkpoints.load_weights(step)
        trained = set(self.freezer.trainable_names(self.phases[self.state.phase_index]))
        if later := trained - weights.keys():
            base = self.task.build_model().module.named_parameters()
            weights |= {name: parameter for name, parameter in base if name in later}
        self.engine.load_weights(weights)

    def _export(self, best: Best, metrics: dict[str, float], generation: Generation) -> None:
        """Write the best checkpoint over a base of its own, which no engine has seen."""
        tell(self._link, "loading the model to write it with the best weights")
        loaded = self.task.build_model()
        loaded.hook.begin(self._phase.steps)
        module = loaded.module
        load_whole(module, self.checkpoints.load_weights(best.step))
        module.eval()
        for kind in self.job.output.export:
            final = self.folder / export_folder(self.job, kind)
            aside = generation.aside(final.name)
            exported = self.task.exportable(module, kind)
            tell(self._link, f"writing {kind} to {final}")
            self.task.export(exported, aside, kind, metrics=metrics, usefulness=best.usefulness)
            tell(self._link, f"loading {kind} in a fresh process, as you will, to compare what it predicts")
            self.task.verify_export(aside, kind, exported)
            write_marker(aside, fingerprint=self.identity.fingerprint, kind=kind)
            readable(aside)
            open_recipe(self.job)  # what has come to lie there meanwhile stays
            generation.commit(aside, final)

    # Progress

    def publish(self, activity: str) -> None:
        """Tell this pod's agent, and the trackers, how far the training is."""
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        state, meter = self.state, self.meter
        done = activity in ("Exporting", "Done")
        phase = self.phases[state.phase_index]
        factor = getattr(self, "_factor", 0.0)
        progress = Progress(
            percent=100 if done else min(99, 100 * state.step // self.total_steps),
            step=state.step,
            total_steps=self.total_steps,
            epoch=round(state.step / self.feed.steps_per_epoch, 3),
            phase_index=phase.index,
            phase_count=len(self.phases),
            phase_name=phase.name,
            loss=state.loss,
            metrics=state.metrics,
            samples_per_second=meter.samples_per_second,
            eta_seconds=0 if done else self._eta(),
            state=activity,
            tokens_per_second=meter.tokens_per_second,
            learning_rates={block: rate * factor for block, rate in phase.learning_rates.items()},
            checkpoint=self.saver.newest,
            recovery=state.recovery,
            world_size=self.engine.world_size,
            skipped_steps=state.skipped_steps,
            phases=state.phases,
            results=self._results,
            skipped_samples=self._skipped.total,
        )
        self.tracking.progress(progress)
        if self._link is not None:
            self._link.write_progress(budget.bounded(progress, self.job.metric.name))

    def _eta(self) -> int | None:
        if self.meter.work_seconds is None:
            return None
        step, current = self.state.step, self.state.phase_index
        work = remaining_work(self.phases, self._blocks, step, current) * self.feed.samples / self.feed.steps_per_epoch
        every = self.job.training.evaluate.every_steps or self.feed.steps_per_epoch
        evaluations = (self.total_steps - step) // every + len(self.phases) - current
        return round(work * self.meter.work_seconds + evaluations * self.state.evaluation_seconds)
