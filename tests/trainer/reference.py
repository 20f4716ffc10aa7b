"""Training as one would write it by hand for one process: what every engine has to agree with."""

from __future__ import annotations

import torch

from unfreeze_trainer.data.order import epoch_order
from unfreeze_trainer.engines.optimizers import build_optimizer
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.phases.schedule import rate_factor


def train_by_hand(job, task):
    """Return the parameters after every phase, by name, of one process without an engine."""
    loaded = task.build_model()
    module, training = loaded.module.train(), job.training
    n, size = task.splits["train"], training.batch_size
    per_epoch = -(-n // size)
    phases = compile_phases(job, [block.name for block in loaded.blocks], per_epoch)
    total = sum(phase.steps for phase in phases)
    parameters, members = dict(module.named_parameters()), {b.name: b.parameters for b in loaded.blocks}
    carried = {}
    bitfit = job.strategy.type == "BitFit"
    for phase in phases:
        trained = {
            block: [name for name in members[block] if not bitfit or block == "head" or parameters[name].ndim == 1]
            for block in phase.trainable
        }
        names = {name for block in phase.trainable for name in trained[block]}
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in names)
        groups = [
            (
                [parameters[name]],
                phase.learning_rates[block],
                training.weight_decay if parameters[name].ndim > 1 else 0.0,
            )
            for block in phase.trainable
            for name in trained[block]
        ]
        optimizer = build_optimizer(training.optimizer, groups)
        for name, parameter in parameters.items():
            if name in carried and name in names:  # a block that was frozen in between starts anew
                optimizer.state[parameter] = carried[name]
        for step in range(phase.first_step, phase.first_step + phase.steps):
            order = epoch_order(training.seed, step // per_epoch, n)
            batch = order[step % per_epoch * size :][:size]
            factor = rate_factor(job.strategy.learning_rate, phase, step, total)
            for group, (_, rate, _) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * factor
            x, y = task.x["train"][batch], task.y["train"][batch]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
            if training.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
            optimizer.step()
        carried = {name: optimizer.state[p] for name, p in parameters.items() if p in optimizer.state}
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}
