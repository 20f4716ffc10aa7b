"""Weights that get no gradient: how they are told from those that get one at times, and that looking leaves no trace."""

from __future__ import annotations

import random
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer.complete import complete
from tests.trainer.engine_group import open_run
from tests.trainer.idle import NETS, UNUSED, Dropped, IdleTask
from tests.trainer.interrupted import Killed, assert_as_undisturbed, events, finished, kill_at, run_in
from tests.trainer.jobs import make_job
from tests.trainer.mlp import MLPTask, Net
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.training.dry_run import Lots, gradients, traceless
from unfreeze_trainer.training.unused import find_unused


def evidence_of(task, module=None, names=None):
    module = module or task.build_model().module
    names = names or [name for name, _ in module.named_parameters()]
    return find_unused(task, module, names, autocast=nullcontext)


@pytest.mark.parametrize("net", UNUSED)
def test_what_is_not_used_is_found(net):
    evidence = evidence_of(IdleTask(NETS[net]))
    assert sorted(evidence.unused) == UNUSED[net]
    assert not evidence.at_times
    assert not evidence.by_chance


def test_in_a_plain_model_all_is_used():
    evidence = evidence_of(MLPTask(norm=True, tied=True))
    assert (evidence.unused, evidence.at_times, evidence.by_chance) == (frozenset(), frozenset(), False)


def test_experts_are_not_taken_for_unused():
    evidence = evidence_of(IdleTask(NETS["routed"]))
    assert not evidence.unused
    assert {name.partition(".")[0] for name in evidence.at_times} == {"experts"}


@pytest.mark.parametrize("chance", [0.02, 0.5])
def test_layers_that_are_left_out_at_random_are_not_taken_for_unused(chance):
    evidence = evidence_of(IdleTask(lambda: Dropped(chance)))
    assert not evidence.unused
    assert evidence.by_chance
    assert all(name.startswith(("layers.1", "layers.2")) for name in evidence.at_times)


def test_only_what_a_phase_trains_counts():
    evidence = evidence_of(IdleTask(NETS["never"]), names=["head.weight", "head.bias", "pooler.weight"])
    assert evidence.unused == {"pooler.weight"}


def test_a_model_without_any_gradient_is_refused():
    with pytest.raises(JobError, match="none of the weights that the job trains gets a gradient") as caught:
        evidence_of(IdleTask(NETS["never"]), names=["pooler.weight", "other.0.bias"])
    assert caught.value.reason == "InvalidModel"


class Reads(Net):
    """Takes the weights of a layer without calling it, as BEiT's attention."""

    def forward(self, x):
        x = torch.tanh(nn.functional.linear(x, self.layers[0].weight, self.layers[0].bias))
        return self.head(self.norm(torch.tanh(self.layers[2](self.layers[1](x)))))


@pytest.mark.parametrize(
    ("targets", "start", "instead"),
    [
        (["layers.0"], True, r"in targetModules$"),
        (["layers.0", "layers.2"], False, r"in targetModules, such as 2$"),  # a start from which merging tells
        (["layers.0", "layers.2"], True, None),
    ],
)
def test_an_adapter_in_layers_that_are_never_called_is_refused(targets, start, instead):
    from peft import LoraConfig, get_peft_model

    module = get_peft_model(Reads(), LoraConfig(r=2, target_modules=targets, init_lora_weights=start))
    names = [name for name, _ in module.named_parameters() if "lora" in name or "head" in name]
    if instead is None:
        unused = evidence_of(MLPTask(), module, names).unused
        assert unused == {name for name in names if ".layers.0." in name}
        return
    with pytest.raises(JobError, match=rf"goes into 0, layers that this model never calls.*{instead}") as caught:
        evidence_of(MLPTask(), module, names)
    assert caught.value.reason == "InvalidAdapter"


@pytest.mark.parametrize("samples", [1, 2, 3, 22])
def test_any_number_of_samples_will_do(samples):
    task = MLPTask(norm=True)
    task.splits = task.splits | {"train": samples}
    assert not evidence_of(task).unused


class Restless(nn.Module):
    """Changes whatever a pass may change: buffers in place and anew, caches, attributes, parts, generators, modes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("newest", torch.zeros(2))
        self.kind, self.seen, self.activation = "sparse", [], nn.Identity()

    def forward(self, x):
        self.kind, self.activation, self.part = "full", nn.GELU(), nn.Linear(1, 1)
        self.seen.append(len(x))
        self.calls += 1
        self.newest = x[:, 0].detach().clone()
        self.register_buffer("cache", torch.arange(5), persistent=False)
        self.linear.train()
        random.random()
        np.random.rand(3)  # noqa: NPY002 - the global generator is the point
        return nn.functional.dropout(self.linear(self.norm(x)), 0.5).sum()


def state_of(module):
    return {
        "tensors": {name: tensor.clone() for name, tensor in [*module.named_parameters(), *module.named_buffers()]},
        "identity": [id(tensor) for tensor in [*module.parameters(), *module.buffers()]],
        "modes": [part.training for part in module.modules()],
        "required": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [parameter.grad for parameter in module.parameters()],
        "saved": list(module.state_dict()),
        "parts": {name: (id(part), sorted(vars(part))) for name, part in module.named_modules()},
        "plain": repr({key: value for key, value in vars(module).items() if isinstance(value, str | int | list)}),
        "generators": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    }


def assert_same(before, after):
    tensors, others = before.pop("tensors"), after.pop("tensors")
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert before == after


def test_passes_leave_no_trace():
    module = Restless()
    module.linear.eval()
    before = state_of(module)
    with traceless(module):
        module.requires_grad_(True)
        module.train()
        found = gradients(module, lambda: module(torch.randn(2, 3)))
    assert found == {"norm.weight", "norm.bias", "linear.weight", "linear.bias"}
    assert_same(before, state_of(module))


@pytest.mark.slow
def test_a_bigbird_that_meets_a_short_text_stays_sparse():
    from transformers import BigBirdConfig, BigBirdForSequenceClassification

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    module = BigBirdForSequenceClassification(BigBirdConfig(vocab_size=60, attention_type="block_sparse", **shape))
    kinds = [type(part) for part in module.modules()]
    before = state_of(module)
    with traceless(module):
        gradients(module, lambda: module(torch.full((2, 8), 5)).logits.sum())  # noqa: PLW0108 - within the hooks
        assert module.bert.attention_type == "original_full"
    assert module.bert.attention_type == "block_sparse"
    assert [type(part) for part in module.modules()] == kinds
    assert_same(before, state_of(module))


def test_a_pass_that_fails_leaves_no_trace_either():
    module = Restless()
    before = state_of(module)
    with pytest.raises(RuntimeError), traceless(module):
        gradients(module, lambda: module(torch.randn(2, 3)) + module.linear(torch.randn(4)).sum())
    assert_same(before, state_of(module))


@pytest.mark.parametrize("net", NETS)
def test_looking_leaves_no_trace(net):
    task = IdleTask(NETS[net])
    module = task.build_model().module
    before = state_of(module)
    evidence_of(task, module)
    assert_same(before, state_of(module))


DRAWS = {
    "a number of torch": (lambda: torch.rand([]) < 0.5, True),
    "a number in place": (lambda: torch.empty(1).uniform_() < 0.5, True),
    "Python's": (random.random, True),
    "numpy's": (lambda: np.random.rand(4), True),  # noqa: NPY002 - the global generator is the point
    "a mask": (lambda: torch.rand(3, 2) < 0.5, False),
    "dropout": (lambda: nn.functional.dropout(torch.ones(4)), False),
    "no draw": (lambda: torch.zeros([]) < 0.5, False),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_single_numbers_are_lots(draw):
    act, expected = DRAWS[draw]
    with Lots() as lots:
        act()
    assert lots.drawn is expected


FULL = {"type": "FullFineTuning", "learningRate": {"head": 1e-2, "backbone": 5e-3}}
KIND = {"never": None, "later": 20}


def later_or_never(folder, net):
    task = IdleTask(NETS[net], kind=KIND[net])
    return run_in(folder, task=task, strategy=FULL, epochs=3, batchSize=3, checkpoint={"everySteps": 1})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_thread):
    """Runs that nothing disturbs."""
    folders = {net: tmp_path_factory.mktemp(net) for net in KIND}
    for net, folder in folders.items():
        complete(later_or_never(folder, net))
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "at", "behind"])
def test_a_run_goes_on_with_the_same_weights_left_out(whole, tmp_path, moment):
    """It is killed around the step in which a weight gets its first gradient."""
    (late,) = events(whole["later"], "lateGradients")
    assert late["step"] > 1
    cut = late["step"] + {"before": -2, "at": -1, "behind": 3}[moment]
    for number in range(2):
        run = later_or_never(tmp_path, "later")
        if number:
            assert run.state.step == cut
        else:
            kill_at(run, cut)
        with suppress(Killed):
            complete(run)
        run.saver.close()
    assert_as_undisturbed(tmp_path, finished(whole["later"]))


@pytest.mark.slow
def test_it_tells_of_them_once(whole, tmp_path):
    for cut in (5, 9, None):
        run = later_or_never(tmp_path, "never")
        if cut:
            kill_at(run, cut)
        with suppress(Killed):
            complete(run)
        run.saver.close()
    assert len(events(tmp_path, "start")) == 3
    (event,) = events(tmp_path, "unusedParameters")
    assert event["parameters"] == UNUSED["never"]
    assert event["count"] == 6
    assert_as_undisturbed(tmp_path, finished(whole["never"]))
    weights, report = finished(tmp_path)
    assert report["unusedParameters"] == UNUSED["never"]
    assert not [name for name in weights if name.startswith(tuple(UNUSED["never"]))], "they are the base's"
    assert report["phases"][0]["trainableParameters"] == sum(
        parameter.numel() for name, parameter in run.engine.module.named_parameters() if name not in UNUSED["never"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_phase_without_anything_to_train_is_left_out(tmp_path):
    thaw = FULL | {"type": "GradualUnfreezing", "gradualUnfreezing": {"order": "ChainThaw", "stepsPerPhase": 3}}
    run = run_in(tmp_path, task=IdleTask(NETS["never"]), strategy=thaw, epochs=8)
    assert [phase.name for phase in run.plan.phases] == ["head", "layer.0", "layer.1", "layer.2", "neck", "norm", "all"]
    complete(run)
    assert [phase.name for phase in run.state.phases] == ["head", "layer.0", "layer.1", "layer.2", "norm", "all"]
    assert [phase.first_step for phase in run.plan.phases[:7]] == [0, 3, 6, 9, 12, 15, 18], (
        "what follows keeps its place"
    )


@pytest.mark.slow
def test_a_run_that_an_older_version_began_looks_for_them(whole, tmp_path):
    run = later_or_never(tmp_path, "never")
    kill_at(run, 6)
    run.state.unused = None  # as in its state.json
    with suppress(Killed):
        complete(run)
    run.saver.close()
    complete(later_or_never(tmp_path, "never"))
    assert len(events(tmp_path, "unusedParameters")) == 2
    assert_as_undisturbed(tmp_path, finished(whole["never"]))


@pytest.mark.slow
@pytest.mark.parametrize("net", ["routed", "later"])
def test_deepspeed_does_not_take_a_missing_gradient_for_zero(tmp_path, net):
    place = {"numNodes": 1, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}}
    job = make_job(
        "/none",
        "/none.csv",
        strategy=FULL,
        training={"epochs": 2},
        distribution=place,
        output={"destination": f"file://{tmp_path}"},
    )
    with pytest.raises(JobError, match=r"need every gradient in every step.*: ex.*\. Choose DDP"):
        complete(open_run(job, IdleTask(NETS[net], kind=4)))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_deepspeed_names_scalars(tmp_path, stage):
    place = {"numNodes": 1, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": stage}}
    job = make_job("/none", "/none.csv", distribution=place, output={"destination": f"file://{tmp_path}"})
    with pytest.raises(
        JobError, match=r"DeepSpeed cannot divide parameters without dimensions.* has temperature: choose"
    ):
        open_run(job, IdleTask(NETS["scalar"]))
