"""The plan of a job: its phases, and what falls on which step. Pure; every rank has the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from unfreeze_api.contracts.resolved import LearningRate, ResolvedJob
from unfreeze_trainer.phases.compile import Phase, compile_phases
from unfreeze_trainer.phases.schedule import rate_factor
from unfreeze_trainer.phases.work import shares, step_work


@dataclass(frozen=True)
class Plan:
    """Phases of a job over a model's blocks and the samples of an epoch."""

    phases: Sequence[Phase]
    """One after the other."""
    blocks: Sequence[str]
    """Names of the model's blocks, from input to output."""
    samples: int
    """Of an epoch."""
    steps_per_epoch: int
    evaluate_every: int
    """Steps from one evaluation to the next; the last step of a phase has one too."""
    checkpoint_every: int
    """Steps from one checkpoint to the next; the best evaluation and the end of a phase have one too."""
    learning_rate: LearningRate
    starts: Mapping[int, int] = field(default_factory=dict)
    """By phase, how many of the lowest blocks compute once for each sample, and not in each step."""
    shared: Mapping[int, int] = field(default_factory=dict)
    """By phase, that of the phases whose cut it takes, as of `phases.sharing`; its own where none is named."""
    headless: bool | None = None
    """Whether the head has no parameters; None where the task says so."""
    held_out: int = 0
    """Samples of an evaluation."""

    @classmethod
    def of(
        cls,
        job: ResolvedJob,
        blocks: Sequence[str],
        *,
        samples: int,
        steps_per_epoch: int,
        headless: bool | None = None,
    ) -> Plan:
        """Compile the plan of a job. `headless` is as of `compile_phases`."""
        training = job.training
        return cls(
            phases=compile_phases(job, blocks, steps_per_epoch, headless=headless),
            blocks=blocks,
            samples=samples,
            steps_per_epoch=steps_per_epoch,
            evaluate_every=training.evaluate.every_steps or steps_per_epoch,
            checkpoint_every=training.checkpoint.every_steps,
            learning_rate=job.strategy.learning_rate,
            headless=headless,
        )

    def with_rates(self, job: ResolvedJob) -> Plan:
        """Return the plan with the learning rates of the job that it was compiled from, changed since."""
        phases = compile_phases(job, self.blocks, self.steps_per_epoch, headless=self.headless)
        return replace(self, phases=phases, learning_rate=job.strategy.learning_rate)

    @cached_property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def ends_at(self, step: int, index: int) -> bool:
        """Return whether a phase is over by its steps when so many of the plan are done."""
        phase = self.phases[index]
        return step == phase.first_step + phase.steps

    def evaluates_at(self, step: int, index: int) -> bool:
        """Return whether an evaluation is due when so many steps are done, the last ones in a phase."""
        return step % self.evaluate_every == 0 or self.ends_at(step, index) or self.tries_at(step, index)

    def tries_at(self, step: int, index: int) -> bool:
        """Return whether a rung is judged by its first steps when so many steps are done."""
        phase = self.phases[index]
        return phase.trial > 0 and step == phase.first_step + phase.trial

    def saves_at(self, step: int) -> bool:
        """Return whether a checkpoint is due when so many steps are done, whatever their evaluation says."""
        return step % self.checkpoint_every == 0

    def rate_factor(self, step: int, index: int) -> float:
        """Return what every peak learning rate is multiplied by at a step, counted from 0, in a phase."""
        return rate_factor(self.learning_rate, self.phases[index], step, self.total_steps)

    def reads_left(self, step: int, index: int) -> dict[str, float]:
        """Return how often a sample of each split is still read in a phase when so many steps are done.

        A solver reads the training samples in each of its iterations; it counts as two.
        """
        end = self.phases[index].first_step + self.phases[index].steps
        evaluations = end // self.evaluate_every - step // self.evaluate_every
        if step < end and end % self.evaluate_every:  # the last step has one too
            evaluations += 1
        train = 2 * (end - step) if self.phases[index].solved else (end - step) / self.steps_per_epoch
        return {"train": train, "validation": evaluations}

    def cut_of(self, index: int) -> int:
        """Return that of the phases whose cut a phase takes."""
        return self.shared.get(index, index)

    def reads_of(self, index: int) -> dict[str, float]:
        """Return how often a sample of each split is read in a phase and in those that take the same cut."""
        found: dict[str, float] = {}
        for phase in self.phases:
            if self.cut_of(phase.index) == self.cut_of(index):
                for split, reads in self.reads_left(phase.first_step, phase.index).items():
                    found[split] = found.get(split, 0.0) + reads
        return found

    def spared(self, index: int) -> float:
        """Return how many passes over the training data a cut spares a phase: all but the first one of those that share it."""
        sharing = [phase for phase in self.phases[: index + 1] if self.cut_of(phase.index) == self.cut_of(index)]
        reads = [self.reads_left(phase.first_step, phase.index)["train"] for phase in sharing]
        return max(0.0, sum(reads) - 1) - max(0.0, sum(reads[:-1]) - 1)

    def step_work(self, phase: Phase) -> float:
        """Return the work of a step of a phase (see `phases.work`)."""
        return step_work(phase, self.blocks, self.starts.get(phase.index, 0))

    def share_below(self, start: int) -> float:
        """Return the share of so many of the lowest blocks in a forward pass."""
        return sum(shares(self.blocks)[:start])

    def seconds_of(self, phase: Phase, *, work_seconds: float, evaluation_seconds: float) -> float:
        """Return about how long a phase takes; the times are as of `seconds_left`."""
        evaluations = max(1, phase.steps // self.evaluate_every) + bool(phase.trial)
        return self._training_seconds(phase, phase.steps, work_seconds) + evaluation_seconds * evaluations

    def seconds_left(
        self, step: int, current: int, *, work_seconds: float, evaluation_seconds: float, pass_seconds: float = 0.0
    ) -> int:
        """Return about how long the rest of the plan takes.

        Parameters
        ----------
        step
            Steps that are done.
        current
            Index of the phase that trains now.
        work_seconds
            That a sample takes for a unit of work.
        evaluation_seconds
            That an evaluation takes; 0 before the first one, which counts as a forward pass of each of its samples.
        pass_seconds
            That a sample's forward pass was seen to take; 0 where nobody has seen it. A head's steps, over what was computed
            once, do not tell what later phases cost.
        """
        later = max(work_seconds, pass_seconds)
        left, before = 0.0, self.starts.get(current, 0)
        for phase in self.phases[current:]:
            start, here = self.starts.get(phase.index, 0), phase.index == current
            unit, done = (work_seconds, step) if here else (later, phase.first_step)
            evaluation = evaluation_seconds or self.held_out * unit
            if start != before:  # computed anew in each evaluation, or once for all steps
                evaluation = max(evaluation, self.held_out * (1 - self.share_below(start)) * unit)
                left += self.samples * self.share_below(start) * unit
            left += self._training_seconds(phase, phase.first_step + phase.steps - done, unit)
            left += max(1.0, self.reads_left(done, phase.index)["validation"]) * evaluation
            before = start
        return round(left)

    def _training_seconds(self, phase: Phase, steps: int, work_seconds: float) -> float:
        """Return how long so many steps of a phase take without evaluations."""
        return steps * self.samples / self.steps_per_epoch * self.step_work(phase) * work_seconds
