"""What a job needs beside what its place has, and whether that fits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.alias_generators import to_camel

from unfreeze_api.grammar.sizes import size
from unfreeze_trainer.judgement.rates import KEPT

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_api.spec.distribution import Offload
    from unfreeze_trainer.estimates.trace import PhaseBytes, Traced

Verdict = Literal["Fits", "MayNotFit", "DoesNotFit", "Unknown"]

SHARE, REST = 0.05, 256 * 2**20
"""What an estimate leaves free beside itself before it says that something fits: of itself, and in bytes."""
AGENT = 64 * 2**20
"""Bytes of an agent, which loads no torch: 35 MiB where it has begun, and room for its server."""


@dataclass(frozen=True)
class Estimate:
    """Memory of one pod of a job, that of rank 0, which also writes checkpoints and exports."""

    traced: Traced
    workers: int
    """In the pod."""
    base: int
    """Bytes of a worker's process without any tensor: interpreter, libraries, and what it has read of the data."""
    accelerated: bool = False
    """Whether the training's tensors lie in accelerators."""
    limit: int | None = None
    """Bytes that the pod may use; None where nobody says."""
    accelerator_limit: int | None = None
    """Bytes of each accelerator; None where nobody says."""
    loads_again: bool = False
    """Whether the base is loaded once more beside the model, after a range test."""
    divides: bool = False
    """Whether the engine divides the weights: accelerators never hold them whole, the host does while they are loaded."""
    offload: Offload = "None"
    """What lies in the host's memory in place of the accelerators'."""

    @property
    def host(self) -> int:
        """Bytes of the pod in the host's memory."""
        first, others, weights = (
            self.traced.peak,
            self.traced.peak_of_others,
            sum(self.traced.weights_by_dtype.values()),
        )
        if self.accelerated:
            phases = self.traced.phases
            held = max(map(self._offloaded, phases), default=0)
            others = max(held, self.traced.loading if self.divides else weights)
            first = max(others, *(self._offloaded(phase) + phase.snapshot for phase in phases), self.traced.exporting)
        if self.traced.solver:
            held = self.traced.solver + (0 if self.accelerated else weights)
            first, others = max(first, held), max(others, held)
        if self.loads_again:
            first, others = max(first, 2 * weights), max(others, 2 * weights)
        return AGENT + self.workers * self.base + first + (self.workers - 1) * others

    @property
    def accelerator(self) -> int:
        """Bytes of tensors in rank 0's accelerator; 0 without one."""
        if not self.accelerated:
            return 0
        most = (max(phase.step, phase.evaluation) - self._offloaded(phase) for phase in self.traced.phases)
        return max(0 if self.divides else self.traced.loading, *most)

    def _offloaded(self, phase: PhaseBytes) -> int:
        weights = phase.weights if self.offload == "OptimizerAndParameters" else 0
        return 0 if self.offload == "None" else phase.optimizer + weights

    @property
    def verdict(self) -> Verdict:
        """Whether all of it fits, as far as limits are known."""
        found = {judge(needed, limit) for needed, limit in self._asked()}
        order: tuple[Verdict, ...] = ("DoesNotFit", "MayNotFit", "Fits")
        return next((verdict for verdict in order if verdict in found), "Unknown")

    def _asked(self) -> list[tuple[int, int]]:
        asked = [(self.host, self.limit), (self.accelerator, self.accelerator_limit)]
        return [(needed, limit) for needed, limit in asked if limit is not None and needed]

    def sentence(self) -> str:
        """Return the verdict for people."""
        needs = f"needs about {size(self.host)} of memory in a pod" + (
            f", and {size(self.accelerator)} of each accelerator" if self.accelerated else ""
        )
        asked = self._asked()
        if not asked:
            return f"The job {needs}; no limit is known to compare that with (resourcesPerNode.limits.memory)."
        needed, limit = min(asked, key=lambda pair: spare(*pair))
        free = spare(needed, limit)
        match judge(needed, limit):
            case "Fits":
                return f"The job fits into {size(limit)} with {size(free)} to spare."
            case "MayNotFit":
                return (
                    f"The job may not fit into {size(limit)}: it needs about {size(needed)}, and less than 5 % and"
                    f" {size(REST)} are free beside that."
                )
            case _:
                return f"The job does not fit into {size(limit)}: it needs about {size(needed)}."

    def beside(self) -> str:
        """Return what the job computes before its first phase, for people; nothing where that is nothing."""
        planned, tested = self.traced.planned_steps, self.traced.test_steps
        solver = self.traced.solver
        solved = (
            f"The head is solved from what the base gives of all samples: {size(solver)} in each worker."
            if solver
            else ""
        )
        if not tested:
            return solved
        again = ", and loads the base once more after each part of it" if self.loads_again else ""
        return (
            f"The range test of the learning rates takes at most {tested} steps before the {planned:,} that are planned ({tested / planned:.1%}),"
            f" and computes their batches once more without gradients{again}.{f' {solved}' if solved else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, in camelCase and bytes."""
        traced = self.traced
        return {
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "hostBytes": self.host,
            "acceleratorBytes": self.accelerator,
            "limitBytes": self.limit,
            "acceleratorLimitBytes": self.accelerator_limit,
            "workersPerPod": self.workers,
            "processBytes": self.base,
            "parameters": traced.parameters,
            "weightsByDtype": traced.weights_by_dtype,
            "peakBytes": traced.peak,
            "loadingBytes": traced.loading,
            "exportingBytes": traced.exporting,
            "checkpointFileBytes": traced.checkpoint,
            "exportFileBytes": traced.export,
            "plannedSteps": traced.planned_steps,
            "rangeTestSteps": traced.test_steps,
            "solverBytes": traced.solver,
            "phases": [{to_camel(name): value for name, value in vars(phase).items()} for phase in traced.phases],
        }


def spare(needed: int, limit: int) -> int:
    """Return the bytes of a limit that are free beside an estimate and what it leaves free."""
    return limit - needed - round(SHARE * needed) - REST


def judge(needed: int, limit: int) -> Verdict:
    """Return whether an estimate fits into a limit: with room beside it, without, or not at all."""
    if needed > limit:
        return "DoesNotFit"
    return "Fits" if spare(needed, limit) >= 0 else "MayNotFit"


def estimate_of(
    job: ResolvedJob, traced: Traced, *, base: int, limit: int | None, accelerator_limit: int | None = None
) -> Estimate:
    """Return the estimate of a job that was traced."""
    place = job.distribution
    most = max((phase.trainable_parameters for phase in traced.phases), default=0)
    divides = place.engine == "FSDP" or place.zero_stage == 3  # noqa: PLR2004
    return Estimate(
        traced,
        workers=place.num_proc_per_node,
        base=base,
        accelerated=place.accelerators_per_node > 0,
        limit=limit,
        accelerator_limit=accelerator_limit,
        divides=divides,
        offload=place.offload,
        loads_again=job.strategy.learning_rate.rates == "Auto" and (divides or most > KEPT * traced.parameters),
    )


def uncounted(job: ResolvedJob) -> list[str]:
    """Return what an estimate has wrong about a job, for people: where it says too much, and where too little."""
    found = []
    if job.model.quantization:
        found.append(
            "The base is counted in float32, as before it is quantised, which is too much: the job may fit all the same."
        )
    if job.evidence and job.evidence.scratch:
        found.append(
            "Not counted is the training of random weights for evidence.scratch: all of them train there, whatever the strategy."
        )
    return found


def resident() -> int:
    """Return the bytes of this process that nobody can take from it: without the pages of files, libraries among them."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024
