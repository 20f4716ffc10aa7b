"""What comes before the first step, on all ranks together: the model is tried and attached, the run folder opened, read."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.features.cached import worth_it
from unfreeze_trainer.features.keys import computes
from unfreeze_trainer.features.reuse import Place
from unfreeze_trainer.link import tell
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.batch_norm import accept_single_values, count_once
from unfreeze_trainer.models.keeping import widen_first
from unfreeze_trainer.runs.folder import RunFolder
from unfreeze_trainer.runs.recovery import Found
from unfreeze_trainer.runs.state import RunState
from unfreeze_trainer.training.cuts import agreed, find_cuts, keys_of, share_cuts
from unfreeze_trainer.training.trainable import trainable_hash
from unfreeze_trainer.training.unused import Evidence, agree_on_unused

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine, OptimizerState
    from unfreeze_trainer.features.cut import Cut
    from unfreeze_trainer.feed import Feed
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.models.hook import StepHook
    from unfreeze_trainer.phases.freezer import Freezer
    from unfreeze_trainer.tasks import Task
    from unfreeze_trainer.training.plan import Plan

log = logging.getLogger(__name__)


def attach(
    job: ResolvedJob,
    task: Task,
    loaded: LoadedModel,
    engine: Engine,
    *,
    plan: Plan,
    feed: Feed,
    freezer: Freezer,
    link: Link | None,
) -> tuple[Evidence, dict[int, Cut], dict[int, str], Plan]:
    """Try a model on the data and hand it to the engine; return what the trial says of its weights, its cuts, their keys, and the plan with them. Collective.

    Raises
    ------
    JobError
        The model fails at the data, or none of the weights that the job trains gets a gradient.
    """
    module, sizes = loaded.module, feed.sizes()
    if job.training.gradient_checkpointing:
        checkpoint_activations(module)
    if job.training.gradient_checkpointing or task.couples:
        count_once(module)
    if min(sizes) == 1:
        accept_single_values(module)
    tell(link, "trying the longest batch, and looking for weights that get no gradient")
    chosen = {name for phase in plan.phases for name in freezer.chosen_names(phase)}
    evidence = agree_on_unused(engine, task, module, chosen, sizes)
    tell(link, "looking for blocks that need to compute once only")
    cuts = agreed(find_cuts(job, task, loaded, phases=plan.phases, freezer=freezer, autocast=engine.autocast), engine)
    cuts, plan = share_cuts(cuts, plan, task, module, loaded.blocks, place=Place.of(job), any_rank=engine.any_rank)
    filled = {
        phase.index: cuts[phase.index]
        for phase in plan.phases
        if phase.index in cuts and worth_it(task, plan.reads_of(phase.index))
    }  # hashes of weights take their time, and say nothing to whoever keeps nothing
    keys = keys_of(
        job, module, filled, phases=plan.phases, freezer=freezer, computed=computes(engine.device, engine.dtype)
    )
    widen_first(job, module, chosen, divides=engine.divides)
    engine.attach(module, loaded.blocks, evidence.unused)
    return evidence, cuts, keys, plan


def open_folder(
    job: ResolvedJob, task: Task, engine: Engine, link: Link | None, *, takes: bool = False
) -> tuple[RunFolder, Found]:
    """Open the run folder, on rank 0 to write; return it with what there is to resume from. Collective.

    `takes` as of `RunFolder.open`.

    Raises
    ------
    JobError
        The folder is not this job's, or data or base model have changed.
    """

    def pins() -> Mapping[str, Any]:
        tell(link, "hashing model and data")
        found: Mapping[str, Any] = engine.broadcast_object(task.pins if engine.rank == 0 else {})
        return found

    folder = RunFolder.open(job, writes=engine.rank == 0, pins=pins, takes=takes)
    found = engine.broadcast_json(folder.find(), Found)
    folder.keep_recipe()
    return folder, found


def resume(
    job: ResolvedJob, found: Found, folder: RunFolder, engine: Engine, *, hook: StepHook, freezer: Freezer, plan: Plan
) -> tuple[RunState, OptimizerState]:
    """Put engine and hook where a checkpoint was; return its state and moments, new ones where there is none. Collective.

    Raises
    ------
    JobError
        This rank does not see the checkpoint, or it trained other parameters.
    """
    state = RunState()
    moments: OptimizerState = {}
    if found.checkpoint:
        state, moments = _load(found.checkpoint.step, folder, engine, hook=hook, freezer=freezer, plan=plan)
    if found.best_lost:
        state.forget_best(job.metric.name)
    state.rollbacks = max(found.rollbacks, state.rollbacks, key=len)  # a checkpoint knows those before it
    if found.recovery:
        state.recovery = found.recovery
        folder.events.add("brokenCheckpoint", step=found.recovery.step, message=found.recovery.message)
    return state, moments


def _load(
    step: int, folder: RunFolder, engine: Engine, *, hook: StepHook, freezer: Freezer, plan: Plan
) -> tuple[RunState, OptimizerState]:
    place = folder.checkpoints.path(step)
    if not place.is_dir():
        raise JobError(
            "OutputNotShared",
            f"rank {engine.rank} does not see {place}, which rank 0 wrote: output.destination must lie on a"
            " volume that all pods share (access mode ReadWriteMany)",
        )
    snapshot = folder.checkpoints.load(step)
    state, moments = snapshot.state, hook.load_state(snapshot.moments)
    if engine.loss_scale and state.loss_scale:
        engine.loss_scale = LossScale(engine.device, *state.loss_scale)
    engine.load_weights(snapshot.weights)
    phase = plan.phases[state.phase_index]
    if state.trainable_hash != trainable_hash(freezer, phase):
        raise JobError(
            "ForeignRunFolder",
            f"{place} trained other parameters in phase {phase.name} than this version of the libraries would:"
            " resume with the versions that wrote it, or choose another output.destination",
        )
    log.info("resuming from step %d of %d, phase %s", state.step, plan.total_steps, phase.name)
    return state, moments


def say_start(task: Task, feed: Feed, plan: Plan, folder: RunFolder, *, step: int, world_size: int) -> None:
    """Tell of a start, and of what makes little sense in its job, where the run folder is written to."""
    if not (generation := folder.generation):
        return
    for warning in feed.warnings:
        log.warning("%s", warning)
    for warning in (*feed.warnings, *task.warnings):
        folder.events.add("warning", step=step, message=warning)
    if task.overlaps:
        log.warning("samples stand in more than one split: %s", task.overlaps)
    if task.unseen_words:
        log.warning("words that the model does not see, since their texts are cut there: %s", task.unseen_words)
    folder.events.add(
        "start",
        step=step,
        generation=generation.number,
        host=socket.gethostname(),
        worldSize=world_size,
        totalSteps=plan.total_steps,
        phases=[phase.name for phase in plan.phases],
    )
