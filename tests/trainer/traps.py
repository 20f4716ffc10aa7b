"""What would happen to phases without what the engines do about it: the library raises, or the guard sees it."""

from __future__ import annotations


def wrapped_once(run):
    """DDP that is not wrapped anew: what is unfrozen later has no hook, so that its gradient stays local."""
    engine, begin = run.engine, run.engine.begin

    def begin_once(groups, moments=None):
        if not engine._trained:
            begin(groups, moments)
            return
        parameters = dict(engine.module.named_parameters())
        engine._new_optimizer(groups, parameters)
        engine._trained = {name: parameters[name] for group in groups for name in group.names}

    engine.begin = begin_once


def initialized_once(run):
    """ZeRO that is not initialized anew: what is unfrozen later has no partition."""
    engine, begin = run.engine, run.engine.begin

    def begin_once(groups, moments=None):
        if not engine._masters:
            begin(groups, moments)

    engine.begin = begin_once


def initialized_whole(run):
    """ZeRO that is initialized with all that will ever train: what is frozen meanwhile decays all the same."""
    engine, begin = run.engine, run.engine.begin
    everything = run.freezer.groups(run.plan.phases[-1], run.job.training.weight_decay)

    def begin_once(groups, moments=None):
        if engine._masters:
            return
        now = {name: parameter.requires_grad for name, parameter in engine.module.named_parameters()}
        engine.module.requires_grad_(True)
        begin(everything, moments)
        for name, parameter in engine.module.named_parameters():
            parameter.requires_grad_(now[name])

    engine.begin = begin_once


def with_a_frozen_group(run):
    """ZeRO with a group for what does not train in this phase."""
    engine, initialize = run.engine, run.engine._initialize

    def initialize_all(model, optimizer, config):
        if frozen := [parameter for parameter in model.parameters() if not parameter.requires_grad]:
            optimizer.add_param_group({"params": frozen})
        return initialize(model=model, optimizer=optimizer, config=config)

    engine._initialize = initialize_all


def checkpointed_by_deepspeed(run):
    """ZeRO whose own checkpoint carries the optimizer from one phase to the next."""
    engine, begin, folder = run.engine, run.engine.begin, run.folder.path / "deepspeed"

    def begin_and_load(groups, moments=None):
        later = engine._engine is not None
        if later:
            engine._engine.save_checkpoint(folder)
        begin(groups, moments)
        if later:
            engine._engine.load_checkpoint(folder)

    engine.begin = begin_and_load


TRAPS = {
    "wrapped once": (wrapped_once, ("DDP",)),
    "initialized once": (initialized_once, ("ZeRO-1", "ZeRO-2", "ZeRO-3")),
    "initialized whole": (initialized_whole, ("ZeRO-1", "ZeRO-2", "ZeRO-3")),
    "frozen group": (with_a_frozen_group, ("ZeRO-1", "ZeRO-2")),
    "DeepSpeed's checkpoint": (checkpointed_by_deepspeed, ("ZeRO-1", "ZeRO-2", "ZeRO-3")),
}
