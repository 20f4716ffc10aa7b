"""Training as one would write it by hand for one process: what every engine has to agree with."""

from __future__ import annotations

import torch

from unfreeze_trainer.data.order import epoch_order, shard
from unfreeze_trainer.engines.optimizers import build_optimizer
from unfreeze_trainer.engines.scaling import LossScale
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.phases.schedule import rate_factor
from unfreeze_trainer.seeds import seed_everything


def before_and_after(job, task, *, ranks=1):
    """Return parameters and buffers by name before the training, and after it by `train_by_hand`."""
    module = task.build_model().module
    start = {name: tensor.clone() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    return start, train_by_hand(job, task, ranks=ranks)


def train_by_hand(job, task, *, ranks=1):
    """Return parameters and buffers at the end, by name, of one process without an engine.

    A batch may be given as `ranks` would share it out, one share after the other: BatchNorm takes the statistics of each
    share, and the running ones of the first; dropout and rounding under autocast are those of the share.
    """
    loaded = task.build_model()
    module, training = loaded.module.train(), job.training
    n, size = task.splits["train"], training.batch_size
    per_epoch, units = -(-n // size), task.units("train")
    names = [block.name for block in loaded.blocks]
    phases = compile_phases(job, names, per_epoch, headless=loaded.headless)
    total = sum(phase.steps for phase in phases)
    parameters = dict(module.named_parameters())
    carried, scale = {}, LossScale(torch.device("cpu")) if training.precision == "Float16" else None
    for phase in phases:
        rates = _rates(phase, loaded)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in rates)
        for part in (part for part in module.modules() if isinstance(part, torch.nn.BatchNorm1d)):
            part.train(part.weight.requires_grad)
        groups = _groups(rates, parameters, training.weight_decay)
        loaded.hook.begin(phase.steps)
        optimizer = build_optimizer(training.optimizer, groups)
        for name, parameter in parameters.items():
            if name in carried and name in rates:  # a block that was frozen in between starts anew
                optimizer.state[parameter] = carried[name]
        for step in range(phase.first_step, phase.first_step + phase.steps):
            order = epoch_order(training.seed, step // per_epoch, n)
            batch = order[step % per_epoch * size :][:size]
            factor = rate_factor(job.strategy.learning_rate, phase, step, total)
            for group, (_, rate, _) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad()
            # What couples its samples is computed of all of them at once.
            shares = [batch] if task.couples else [shard(batch, rank, ranks) for rank in range(ranks)]
            for rank, share in enumerate(shares):
                seed_everything(training.seed, step, rank)
                factor = (scale.state()[0] if scale else 1) * ranks / int(units[list(batch)].sum())
                _backward(task, module, share, factor, training.precision, keep=not rank)
            penalty = loaded.hook.penalty() * ranks * (scale.state()[0] if scale else 1)
            if isinstance(penalty, torch.Tensor):
                penalty.backward()
            trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
            trained = [parameter for parameter in trained if parameter.grad is not None]
            skipped = _step(optimizer, trained, ranks, scale, training.max_grad_norm)
            loaded.hook.after_update(step + 1 - phase.first_step, skipped=lambda skipped=skipped: skipped)
        anew = bool(
            phase.rung
        )  # a rung begins with the best weights before it, which are no others here, and nothing else
        carried = {} if anew else {name: optimizer.state[p] for name, p in parameters.items() if p in optimizer.state}
    return {name: tensor.detach().clone() for name, tensor in (parameters | dict(module.named_buffers())).items()}


def _rates(phase, loaded):
    """Return the peak learning rate of each parameter that a phase trains."""
    rates, (*_, head), shapes = {}, loaded.blocks, dict(loaded.module.named_parameters())
    for block in loaded.blocks:
        for name in block.parameters:
            if name in loaded.locked:
                continue
            own, below = name not in loaded.adapter_parameters, block is not head
            rate = phase.learning_rates.get(block.name)
            if not own and below and phase.adapter_rate:
                rate = phase.adapter_rate
            if own and loaded.adapter_parameters and not (below and phase.adapter_rate):
                rate = None
            if phase.part == "BiasesAndNorms" and below and (shapes[name].ndim > 1 or "class_embedding" in name):
                rate = None
            if rate:
                rates[name] = rate * loaded.rate_factors.get(name, 1)
    return rates


def _groups(rates, parameters, weight_decay):
    return [
        ([parameters[name]], rate, weight_decay if parameters[name].ndim > 1 else 0.0) for name, rate in rates.items()
    ]


def _step(optimizer, trained, ranks, scale, max_grad_norm):
    """Take a step; return whether it was skipped, since gradients are not finite."""
    trained = [parameter for parameter in trained if parameter.grad is not None]
    for parameter in trained:
        parameter.grad /= ranks * (scale.state()[0] if scale else 1)
    overflow = not all(parameter.grad.isfinite().all() for parameter in trained)
    if scale:
        scale.update(torch.tensor(overflow))
    if not overflow:
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
        optimizer.step()
    return overflow


def _backward(task, module, share, factor, precision, *, keep):
    """Add the gradient of a share of a batch, times a factor; `keep` the statistics that it leaves in the buffers."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    tensors = next(iter(task.batches("train", [share])))
    reduced = {"BFloat16": torch.bfloat16, "Float16": torch.float16}.get(precision)
    with torch.autocast("cpu", reduced, enabled=reduced is not None):
        loss = task.loss(task.forward(module, tensors), tensors).sum()
    (loss * factor).backward()
    if not keep:
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
