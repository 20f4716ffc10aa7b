"""Where and by whom a job is trained, and where its results go, in job.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from unfreeze_api.contracts.resolved.places import Location
from unfreeze_api.grammar.model import EXECUTION, Model
from unfreeze_api.spec.distribution import DeepSpeedSpec, DistributionSpec, Offload
from unfreeze_api.spec.output import ExportKind, Inputs
from unfreeze_api.spec.run_policy import BudgetSpec
from unfreeze_api.spec.tracking import TrackingSpec

if TYPE_CHECKING:
    pass


class ResolvedDistribution(Model):
    """Pods, workers and engine."""

    num_nodes: int = Field(ge=1)
    num_proc_per_node: int = Field(ge=1)
    accelerators_per_node: int = Field(ge=0)
    threads_per_proc: int | None = Field(default=None, ge=1)
    """Threads of each worker, from the pod's CPUs; without them the agent shares out what it finds. Sums over
    another number of threads differ in their last digits."""
    engine: Literal["DDP", "FSDP", "DeepSpeed"]
    zero_stage: int = Field(default=0, ge=0, le=3)
    """0 for an engine other than DeepSpeed."""
    offload: Offload = "None"
    """None for an engine other than DeepSpeed."""
    rendezvous_host: str
    """Name under which all pods reach pod 0."""
    rendezvous_port: int = Field(ge=1024, le=65535)

    @classmethod
    def resolve(cls, spec: DistributionSpec, *, rendezvous_host: str, rendezvous_port: int) -> Self:
        """Return the workers, and how they find one another."""
        auto = spec.num_proc_per_node == "Auto"
        workers = max(1, spec.accelerators_per_node) if auto else int(spec.num_proc_per_node)
        deep_speed = spec.deep_speed or DeepSpeedSpec()
        return cls(
            num_nodes=spec.num_nodes,
            num_proc_per_node=workers,
            accelerators_per_node=spec.accelerators_per_node,
            threads_per_proc=max(1, spec.cpus_per_node // workers) if spec.cpus_per_node else None,
            engine=spec.engine,
            zero_stage=deep_speed.zero_stage if spec.engine == "DeepSpeed" else 0,
            offload=deep_speed.offload,
            rendezvous_host=rendezvous_host,
            rendezvous_port=rendezvous_port,
        )

    @property
    def world_size(self) -> int:
        """Workers of the whole job."""
        return self.num_nodes * self.num_proc_per_node


class ResolvedOutput(Location):
    """The run's folder and the kinds of export."""

    source: Annotated[str, EXECUTION]
    """The manifest's text, for reports."""
    export: Annotated[list[ExportKind], EXECUTION]
    prediction_inputs: Annotated[Inputs, EXECUTION] = "Omit"
    """Whether predictions have the texts, or paths of files, beside them."""


class ResolvedCache(Location):
    """Where what frozen blocks make of samples is kept beyond the job."""

    max_bytes: int = Field(ge=0)
    """Of the whole folder."""
    scratch_bytes: int | None = Field(default=None, ge=0)
    """What each pod may write to its node's disk, where memory does not do; None where nobody says."""


class ResolvedMlflow(Model):
    """A run in MLflow; its credentials are in the environment."""

    uri: str
    experiment: str


class ResolvedWandb(Model):
    """A run in Weights & Biases; its credentials are in the environment."""

    project: str
    entity: str | None = None
    mode: Literal["Online", "Offline"]


class ResolvedTracking(Model):
    """Experiment trackers; without any when all are left out."""

    tensor_board: bool = False
    mlflow: ResolvedMlflow | None = None
    wandb: ResolvedWandb | None = None

    @classmethod
    def resolve(cls, spec: TrackingSpec | None, namespace: str) -> Self:
        """Return the trackers; what nobody gives a name to is called like the namespace."""
        if spec is None:
            return cls()
        mlflow, wandb = spec.mlflow, spec.wandb
        return cls(
            tensor_board=spec.tensor_board is not None,
            mlflow=mlflow and ResolvedMlflow(uri=mlflow.uri, experiment=mlflow.experiment or namespace),
            wandb=wandb and ResolvedWandb(project=wandb.project or namespace, entity=wandb.entity, mode=wandb.mode),
        )


class ResolvedBudget(Model):
    """What a job may take, all its runs together."""

    unit: Literal["hours", "accelerator hours", "money"]
    limit: float
    """In that unit."""
    per_hour: float | None = None
    """What an hour of the job takes of it; None where no price is known, 0 of accelerator hours without accelerators."""
    currency: str = ""
    """Of money, where it is known."""

    @classmethod
    def of(
        cls, spec: BudgetSpec | None, place: ResolvedDistribution, price: float | None, currency: str
    ) -> Self | None:
        """Return the budget of a job in which an accelerator costs so much an hour."""
        if spec is None:
            return None
        accelerators = place.num_nodes * place.accelerators_per_node
        if spec.hours is not None:
            return cls(unit="hours", limit=spec.hours, per_hour=1.0)
        if spec.accelerator_hours is not None:
            return cls(unit="accelerator hours", limit=spec.accelerator_hours, per_hour=float(accelerators))
        each, known = (spec.price_per_hour, "") if spec.price_per_hour else (price, currency)
        assert spec.amount is not None  # a rule of the API
        per_hour = None if each is None else each * (accelerators or place.num_nodes)
        return cls(unit="money", limit=spec.amount, per_hour=per_hour, currency=known)
