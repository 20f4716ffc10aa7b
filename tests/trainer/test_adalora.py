"""AdaLoRA: ranks and weights of a loop by hand over plain PEFT, a run that is cut off anywhere, what has no rank left."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.complete import complete
from tests.trainer.engine_group import open_run
from tests.trainer.interrupted import Killed, kill_at
from tests.trainer.jobs import bert_folder, make_job, merge, write_csv
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.phases.freezer import ParamGroup
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.guard import Guard
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

pytestmark = pytest.mark.slow

RANKS = {"initR": 4, "targetR": 2, "tinit": 2, "tfinal": 3, "deltaT": 2, "loraDropout": 0}
STEPS = 10


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("adalora")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return bert_folder(folder / "bert", num_hidden_layers=1, **still), write_csv(folder / "texts.csv", rows=20)


def job_of(inputs, folder="/tmp/run", **change):
    spec = {
        "strategy": {"learningRate": {"head": 0.02, "schedule": "Constant", "warmupRatio": 0}},
        "adapter": {"type": "AdaLoRA", "adaLora": RANKS},
        "training": {"epochs": 2, "batchSize": 3, "weightDecay": 0},
        "output": {"destination": f"file://{folder}"},
    }
    # The only evaluation is at the end, so that what is exported is what is left then.
    spec["training"] |= {"checkpoint": {"everySteps": 1, "keep": 2}, "evaluate": {"everySteps": 1000}}
    return make_job(*inputs, **merge(spec, change))


def run_of(job) -> Run:
    return open_run(job, open_task(job))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory, loaded_here):
    folder = tmp_path_factory.mktemp("whole")
    run = run_of(job_of(inputs, folder, output={"exports": ["Adapter", "Merged"]}))
    complete(run)
    return folder, run


def by_hand(job):
    """Train with PEFT, torch and the same batches; return the model and its ranks."""
    task = open_task(job)
    module = task.build_model().module
    tuner = module.base_model
    tuner.rankallocator.set_total_step(STEPS)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02, weight_decay=0)
    feed = Feed(task, seed=0, batch_size=3, accumulate=1, rank=0, world_size=1)
    module.train()
    for step, micros in feed.steps(0, STEPS):
        for micro in micros:
            module(**micro.tensors).loss.backward()  # PEFT adds the regularisation
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        tuner.update_and_allocate(step + 1)
        optimizer.zero_grad()
    return module, tuner.peft_config["default"].rank_pattern


def test_it_is_what_a_loop_by_hand_over_peft_gives(inputs, undisturbed):
    folder, run = undisturbed
    module, pattern = by_hand(job_of(inputs))
    assert run.plan.total_steps == STEPS
    assert run.engine.module.peft_config["default"].rank_pattern == pattern
    ranks = [sum(kept) for kept in pattern.values()]
    assert sum(ranks) == 2 * len(ranks)
    assert len(set(ranks)) > 1, "every module has the same rank: nothing was shown"
    weights = load_file(folder / "checkpoints" / f"step-{STEPS}" / "weights.safetensors")
    expected = dict(module.named_parameters())
    trained = [name for name in weights if name in expected]
    assert len(trained) > 3 * len(ranks)
    assert max((weights[name] - expected[name]).abs().max().item() for name in trained) < 1e-6


def test_what_is_left_is_exported_and_loads(undisturbed):
    folder, run = undisturbed
    report = json.loads(
        (folder / "report.json").read_text()
    )  # the run has compared the logits of both in plain libraries
    assert [export["kind"] for export in report["exports"]] == ["Adapter", "Merged"]
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    best = load_file(folder / "checkpoints" / f"step-{run.state.best.step}" / "weights.safetensors")
    assert config["total_step"] == STEPS
    assert not all(all(kept) for kept in config["rank_pattern"].values()), "the best evaluation is of all ranks"
    for name, kept in config["rank_pattern"].items():
        whole = best[f"base_model.model.{name}.default"].flatten()
        assert kept == [bool(value) for value in whole]
        left = weights[f"base_model.model.{name}"].flatten()
        assert torch.equal(left, whole[whole != 0])


@pytest.mark.parametrize("step", [1, 4, 6, 7, 9])
def test_a_run_that_is_cut_off_goes_on_bit_for_bit(inputs, undisturbed, tmp_path, step):
    whole = undisturbed[0] / "checkpoints" / f"step-{STEPS}"
    for attempt in range(2):
        run = run_of(job_of(inputs, tmp_path, output={"exports": ["Adapter", "Merged"]}))
        assert run.state.step == attempt * step
        if not attempt:
            kill_at(run, step)
        with suppress(Killed):
            train(run)
        run.saver.close()
    for file in ("weights.safetensors", "moments.safetensors"):
        assert (tmp_path / "checkpoints" / f"step-{STEPS}" / file).read_bytes() == (whole / file).read_bytes()


def test_accumulation_adds_the_regularisation_once(inputs, undisturbed, tmp_path):
    folder, _ = undisturbed
    run = run_of(job_of(inputs, tmp_path, training={"gradientAccumulationSteps": 3}))
    train(run)
    run.saver.close()
    one, other = (load_file(f / "checkpoints" / f"step-{STEPS}" / "weights.safetensors") for f in (folder, tmp_path))
    assert max((one[name] - other[name]).abs().max().item() for name in one) < 1e-5


def test_the_head_first_takes_no_ranks_away(inputs, tmp_path):
    probe = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 1}}
    run = run_of(job_of(inputs, tmp_path, strategy=probe, adapter={"adaLora": {"tinit": 0, "tfinal": 1}}))
    config = run.engine.module.peft_config["default"]
    patterns = []
    after = run.work.after_step
    run.work.after_step = lambda step: (patterns.append(config.rank_pattern), after(step))
    train(run)
    run.saver.close()
    probing = run.plan.phases[0].steps
    assert patterns[:probing] == [None] * probing
    assert patterns[-1] is not None
    assert config.total_step == run.plan.phases[1].steps
    assert sum(map(sum, config.rank_pattern.values())) == 2 * len(config.rank_pattern)


def test_a_schedule_that_does_not_fit_is_refused(inputs):
    for ranks in ({"tinit": 7}, {"tinit": 0, "tfinal": STEPS - 1}):
        with pytest.raises(
            JobError, match=r"adaLora: the phase that trains it has 10 steps, and none .*training.epochs"
        ):
            preview(job_of(inputs, adapter={"adaLora": ranks}))
    assert compile_phases(job_of(inputs, adapter={"adaLora": {"tinit": 0, "tfinal": STEPS - 2}}), ["a", "head"], 5)


def test_a_layer_without_ranks_may_rest(inputs):
    run = run_of(job_of(inputs))
    loaded_names = [name for name in run.engine.shapes if ".lora_" in name and "query" in name]
    groups = [ParamGroup("layer.0", True, tuple(loaded_names), 0.1, 0.0)]
    run.engine.module.requires_grad_(False)
    with pytest.raises(JobError, match="query") as caught:
        Guard(run.engine, "all", groups, 1, run.hook.at_rest).after_step()
    assert caught.value.reason == "SilentFreeze"
    config = run.engine.module.peft_config["default"]
    name = next(name for name in loaded_names if "lora_E" in name).removeprefix("base_model.model.")
    config.rank_pattern = {name: [True, False, False, False]}
    with pytest.raises(JobError):
        Guard(run.engine, "all", groups, 1, run.hook.at_rest).after_step()
    config.rank_pattern = {name: [False] * 4}
    Guard(run.engine, "all", groups, 1, run.hook.at_rest).after_step()


def test_steps_that_are_skipped_count_for_nothing(inputs):
    hook = open_task(job_of(inputs)).build_model().hook
    hook.begin(STEPS)
    for step in range(1, STEPS - 3):
        hook.after_update(step, skipped=lambda: True)  # there are no gradients to look at
    with pytest.raises(JobError, match=r"no step before the last allocation of ranks, at step 7 .*adaLora.tfinal"):
        hook.after_update(STEPS - 3, skipped=lambda: True)
