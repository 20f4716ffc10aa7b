"""Whether a job fits, told before it is loaded: verdicts are pure, figures come from its training on tensors without memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.trainer.jobs import bert_folder, make_job, merge, write_csv
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_trainer.commands.estimate import estimate
from unfreeze_trainer.engines.optimizers import build_optimizer, take_step
from unfreeze_trainer.estimates.aside import Aside, AsideError
from unfreeze_trainer.estimates.duration import duration_of
from unfreeze_trainer.estimates.estimate import Estimate, judge, uncounted
from unfreeze_trainer.estimates.ledger import Ledger
from unfreeze_trainer.estimates.skeleton import plain, skeletons
from unfreeze_trainer.estimates.trace import PhaseBytes, Traced, trace, try_forward
from unfreeze_trainer.estimates.ways import ways_that_fit
from unfreeze_trainer.tasks import open_task

MIB = 2**20
PROGRAM = "from unfreeze_api.cli import main; main()"
PHASE = PhaseBytes("all", 10, 10 * MIB, 20 * MIB, 30 * MIB, 90 * MIB, 50 * MIB, 30 * MIB, 120 * MIB)
TRACED = Traced(10, {"float32": 40}, 15 * MIB, [PHASE], 60 * MIB, 30 * MIB, 10 * MIB)


def test_what_fits_leaves_five_percent_and_256_mib():
    assert judge(1000 * MIB, 1306 * MIB) == "Fits"
    assert judge(1000 * MIB, 1305 * MIB) == "MayNotFit"
    assert judge(1000 * MIB, 999 * MIB) == "DoesNotFit"


def test_a_pod_holds_its_agent_its_processes_and_one_worker_that_writes():
    found = Estimate(TRACED, workers=2, base=100 * MIB, limit=2**30)
    assert found.host == (64 + 2 * 100 + 120 + 90) * MIB
    assert found.sentence() == "The job fits into 1.0 GiB with 270.3 MiB to spare."
    assert (
        replace(found, limit=400 * MIB).sentence() == "The job does not fit into 400.0 MiB: it needs about 474.0 MiB."
    )
    assert "may not fit into 500.0 MiB" in replace(found, limit=500 * MIB).sentence()
    assert replace(found, limit=None).verdict == "Unknown"


def test_with_accelerators_the_host_holds_copies_alone():
    found = Estimate(TRACED, workers=1, base=100 * MIB, accelerated=True, limit=2**30, accelerator_limit=80 * MIB)
    assert (found.host, found.accelerator) == ((64 + 100 + 60) * MIB, 90 * MIB)
    assert found.verdict == "DoesNotFit"


def test_what_is_offloaded_lies_with_the_host():
    """Else a job whose moments fill the host is said to fit, and one that offloads them for want of room in the accelerator not to."""
    place = {"workers": 2, "base": 0, "accelerated": True}
    kept = Estimate(TRACED, **place)
    moved = replace(kept, offload="Optimizer")
    assert (moved.accelerator, moved.host) == (kept.accelerator - 20 * MIB, (64 + 60 + 20) * MIB)
    both = replace(kept, offload="OptimizerAndParameters", divides=True)
    assert (both.accelerator, both.host) == (60 * MIB, (64 + 60 + 30) * MIB)


def test_an_accelerator_never_holds_what_is_divided_whole():
    large = replace(TRACED, loading=500 * MIB)
    found = Estimate(large, workers=1, base=0, accelerated=True, divides=True)
    assert (found.accelerator, found.host) == (90 * MIB, (64 + 500) * MIB)


def test_a_base_that_is_loaded_again_after_a_range_test_counts():
    once, again = (Estimate(TRACED, workers=2, base=0, loads_again=twice).host for twice in (False, True))
    weights = sum(TRACED.weights_by_dtype.values())
    assert again == once - TRACED.peak - TRACED.peak_of_others + sum(
        max(peak, 2 * weights) for peak in (TRACED.peak, TRACED.peak_of_others)
    )


def test_vectors_from_which_a_head_is_solved_count_in_each_worker():
    """Else a million pictures fit into a pod for which the solver refuses them."""
    found = Estimate(replace(TRACED, solver=300 * MIB), workers=2, base=0, limit=600 * MIB)
    assert (found.host, found.verdict) == (64 * MIB + 2 * (300 * MIB + 40), "DoesNotFit")
    assert replace(found, accelerated=True).host == (64 + 2 * 300) * MIB
    assert found.beside() == "The head is solved from what the base gives of all samples: 300.0 MiB in each worker."


def test_what_a_range_test_takes_is_said():
    tested = replace(TRACED, planned_steps=400, test_steps=14)
    assert Estimate(TRACED, 1, 0).beside() == ""
    assert Estimate(tested, 1, 0).beside() == (
        "The range test of the learning rates takes at most 14 steps before the 400 that are planned (3.5%), and computes their batches"
        " once more without gradients."
    )
    assert "loads the base once more" in Estimate(tested, 1, 0, loads_again=True).beside()
    assert Estimate(tested, 1, 0).to_dict()["rangeTestSteps"] == 14


def test_ways_are_the_cheapest_that_the_estimate_lets_pass():
    asked = []

    def ask(job):
        asked.append(job)
        small = job.training.gradient_accumulation_steps >= 4 or job.adapter or job.distribution.zero_stage == 3
        return Estimate(TRACED, 1, 0, limit=2**30 if small else MIB)

    job = make_job("/none", "/none.csv", training={"batchSize": 16}, distribution={"numNodes": 2})
    ways = ways_that_fit(job, ask)
    assert [way.change for way, _ in ways] == [
        "training.gradientAccumulationSteps: 4",
        "training.gradientCheckpointing: true and training.gradientAccumulationSteps: 8",
        "distribution: {engine: FSDP} and training.gradientAccumulationSteps: 8",
    ]
    assert [one.training.gradient_accumulation_steps for one in asked] == [8, 4, 2, 8, 1, 8, 1]


def test_one_worker_is_offered_pods_where_they_have_memory_of_their_own_and_exports_that_suit():
    def ask(job):
        small = job.adapter or job.distribution.num_nodes >= 4
        merged = job.output.export == ["Merged"]
        return Estimate(TRACED, 1, 0, limit=2**30 if small and not merged else MIB)

    job = make_job("/none", "/none.csv", training={"batchSize": 4})
    pods = "distribution: {numNodes: 4, engine: FSDP}"
    lora = "adapter: {type: LoRA} and output.exports: [Adapter]"
    assert [way.change for way, _ in ways_that_fit(job, ask)] == [pods, lora]
    assert [way.change for way, _ in ways_that_fit(job, ask, pods=False)] == [lora]
    assert [way.change for way, _ in ways_that_fit(job, ask, whole=True)] == [pods], "an adapter is no model of its own"
    more = [job for job in _changes(job) if job.distribution.num_nodes > job.training.batch_size]
    assert not more, "each worker needs a sample"


def test_a_skeleton_of_several_models_has_the_adapter_that_is_tried():
    own = make_job("/none", "/none.csv")
    language = SimpleNamespace(_random=False, job=own)
    library = SimpleNamespace(_random=False, job=own, bases=[language])
    tried = SimpleNamespace(model=SimpleNamespace(towers=["one"]), adapter=AdapterSpec.model_validate({"type": "LoRA"}))
    with skeletons(SimpleNamespace(library=library), tried):
        assert language._random
        assert language.job.adapter == tried.adapter
    assert not language._random
    assert language.job is own


@pytest.mark.parametrize(("count", "precision"), [(1, "BFloat16"), (0, "Float16")])
def test_float16_of_accelerators_is_traced_on_a_cpu_in_what_is_as_large(count, precision):
    place = {"resourcesPerNode": {"limits": {"nvidia.com/gpu": count}}}
    job = make_job("/none", "/none.csv", training={"precision": "Float16", "compile": True}, distribution=place)
    assert (plain(job).training.precision, plain(job).training.compile) == (precision, False)


def test_what_is_not_counted_is_said():
    quantised = {"model": {"quantization": {"type": "NF4"}}, "adapter": {"type": "LoRA"}, "evidence": {"scratch": {}}}
    assert uncounted(make_job("/none", "/none.csv")) == []
    base, scratch = uncounted(make_job("/none", "/none.csv", **quantised))
    assert "too much" in base
    assert "evidence.scratch" in scratch


def _changes(job):
    asked = []
    ways_that_fit(job, asked.append)
    return asked


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, {"FSDP", "2", "3", "LoRA"}),
        ({"strategy": {"type": "FeatureExtraction"}}, {"FSDP", "2", "3"}),
        ({"strategy": {"type": "BitFit"}}, {"FSDP", "2", "3"}),
        ({"adapter": {"type": "AdaLoRA"}}, set()),
        ({"evidence": {"scratch": {}}}, {"LoRA"}),
        ({"evidence": {"forgetting": {"guard": "Report"}}}, {"FSDP", "LoRA"}),
        ({"distribution": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 3, "offload": "Optimizer"}}}, {"FSDP", "2", "LoRA"}),
    ],
)  # fmt: skip
def test_only_ways_are_offered_that_the_api_takes(change, left):
    asked = []
    job = make_job("/none", "/none.csv", **merge({"distribution": {"numNodes": 2}}, change))
    assert not ways_that_fit(job, asked.append)
    assert all(one.distribution.offload == "None" for one in asked if one.distribution != job.distribution)
    places = [one.distribution for one in asked if one.distribution != job.distribution]
    found = {str(place.zero_stage) if place.zero_stage else place.engine for place in places}
    assert found | {"LoRA" for one in asked if one.adapter != job.adapter} == left


@pytest.mark.parametrize(("kind", "moments"), [("AdamW", 2), ("SGD", 1)])
def test_steps_on_fake_tensors_are_taken(kind, moments):
    """SGD asks whether a gradient is not finite, and every truth is True there: a job of it seemed to have no moments."""
    with FakeTensorMode(), Ledger() as ledger:
        weight = torch.nn.Parameter(torch.zeros(1000))
        weight.grad = torch.zeros(1000)
        optimizer, before = build_optimizer(kind, [([weight], 0.1, 0.0)]), ledger.live
        take_step(optimizer, ~weight.grad.norm().isfinite())
        assert 4000 * moments <= ledger.live - before < 4000 * moments + 100


WORK = replace(TRACED, forward=1.8e9, passes=3_000_000, planned_steps=1000)


@pytest.mark.parametrize(("precision", "seconds"), [("BFloat16", [10.0, 50.0]), ("Float32", [32.2, 161.2])])
def test_a_job_takes_a_share_of_the_rate_of_its_accelerators_or_the_launches_of_its_steps(precision, seconds):
    place = {"numNodes": 5, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}}}
    job = make_job("/none", "/none.csv", training={"precision": precision}, distribution=place)
    found = duration_of(job, WORK, card="H100", price=2.0, tried=None)
    assert found.to_dict()["trainingSeconds"] == pytest.approx(seconds, rel=0.01)
    assert found.amount == pytest.approx([each / 360 for each in seconds], rel=0.01)
    assert (
        "5.4 PFLOP: 3,000,000 forward passes of a sample, 1.8 GFLOP each. On 5 H100 that takes about"
        in found.sentence()
    )
    unnamed = duration_of(job, WORK, card=None, price=2.0, tried=None)
    assert unnamed.amount is None
    assert unnamed.sentence().endswith("is named, like --accelerator H100.")


def test_a_job_without_accelerators_takes_as_long_as_forward_passes_that_were_tried():
    job = make_job("/none", "/none.csv", distribution={"numNodes": 2}, strategy={"type": "Auto"})
    found = duration_of(job, WORK, card=None, price=3.0, tried=0.001)
    assert found.seconds == pytest.approx((1200, 2700))
    assert found.amount == pytest.approx((2.0, 4.5))
    assert found.sentence().startswith("All phases compute at most 5.4 PFLOP")
    assert found.sentence().endswith("takes about 20m to 45m, without start and export, and costs 2.00 to 4.50.")
    assert duration_of(job, WORK, card=None, price=None, tried=0.001).amount is None
    assert (
        "since the model would take too much of this machine's memory"
        in duration_of(job, WORK, card=None, price=None, tried=None).sentence()
    )
    assert not duration_of(job, TRACED, card=None, price=None, tried=0.001).sentence()


def test_a_function_runs_aside():
    assert Aside(lambda: {"a": 1}, dict[str, int]).result() == {"a": 1}

    def fail():
        raise ValueError("no")

    with pytest.raises(AsideError, match="ValueError: no"):
        Aside(fail, int).result()


def test_a_function_aside_looks_for_garbage_among_what_it_has_made():
    made_before = [[] for _ in range(10_000)]
    assert Aside(lambda: len(gc.get_objects()), int).result() < len(made_before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    bert_folder(folder / "bert")
    write_csv(folder / "texts.csv")
    return folder


def asked(inputs, **spec):
    """Return what `unfreeze estimate` says of a job, in a process that has computed nothing before."""
    spec = {
        "model": {"source": f"file://{inputs}/bert"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": f"file://{inputs}/texts.csv"}},
        "strategy": {"type": "FullFineTuning"},
        "output": {"destination": f"file://{inputs}/run"},
    } | spec
    manifest = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "a"}, "spec": spec}
    (inputs / "job.yaml").write_text(json.dumps(manifest))
    command = [sys.executable, "-c", PROGRAM, "estimate", str(inputs / "job.yaml"), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_phases_of_an_engine_without_weights(inputs):
    """Each phase's moments are those of what it trains; of two FSDP workers each holds half of the weights."""
    (inputs / "bert" / "model.safetensors").rename(inputs / "kept")
    model = {"source": f"file://{inputs}/bert", "initialization": "Random"}
    probe = {"type": "LinearProbeThenFineTune", "linearProbeThenFineTune": {"probeEpochs": 1}}
    job = {"model": model, "strategy": probe, "training": {"epochs": 2}}
    alone = asked(inputs, **job)["phases"]
    shared = asked(inputs, **job, distribution={"engine": "FSDP", "numNodes": 2})["phases"]
    (inputs / "kept").rename(inputs / "bert" / "model.safetensors")
    assert [phase["name"] for phase in alone] == ["head", "all"]
    for phase in alone:
        assert 8 * phase["trainableParameters"] <= phase["optimizer"] <= 8 * phase["trainableParameters"] + 1024
        assert phase["snapshot"] >= 12 * phase["trainableParameters"]
    assert 0.5 * alone[1]["weights"] <= shared[1]["weights"] < 0.6 * alone[1]["weights"]
    assert shared[1]["optimizer"] < 0.6 * alone[1]["optimizer"], "divided weights count as if they were whole"
    assert shared[1]["step"] < alone[1]["step"]


@pytest.mark.slow
def test_dropout_of_frozen_blocks_counts_where_it_is_on(inputs):
    job = make_job(inputs / "bert", inputs / "texts.csv", strategy={"type": "FeatureExtraction"})
    before = job.model_copy(update={"semantics": job.semantics.model_copy(update={"dropout": "Everywhere"})})
    off, on = (Aside(lambda one=one: trace(one, open_task(one)), Traced).result() for one in (job, before))
    assert off.loading < on.loading


@pytest.mark.slow
def test_the_command_says_whether_it_fits(inputs):
    solved = {"type": "FeatureExtraction", "solver": "Closed"}
    found = asked(inputs, strategy=solved, distribution={"resourcesPerNode": {"limits": {"memory": "64Gi"}}})
    rows = len((inputs / "texts.csv").read_text().splitlines()) - 1
    assert 0 < found["solverBytes"] <= 3 * 8 * 16 * rows
    assert (found["verdict"], found["limitBytes"]) == ("Fits", 64 * 2**30)
    assert found["sentence"].startswith("The job fits into 64.0 GiB with ")
    assert found["phases"][0]["peak"] <= found["peakBytes"] < found["hostBytes"]
    low, high = found["trainingSeconds"]
    assert 0 < low <= high
    assert found["forwardOperations"] > 0 < found["forwardPasses"]


def test_an_accelerator_is_named_for_a_job_that_asks_for_one(inputs):
    asked(inputs)
    done = CliRunner().invoke(estimate, [str(inputs / "job.yaml"), "--accelerator", "h100"])
    assert done.exit_code == 2
    assert "set spec.distribution.resourcesPerNode.limits to {nvidia.com/gpu: 1}" in done.output


@pytest.mark.slow
def test_operations_and_passes_are_those_of_all_steps_and_evaluations(inputs):
    job = make_job(inputs / "bert", inputs / "texts.csv", strategy={"type": "FullFineTuning"}, training={"epochs": 2})
    task = open_task(job)
    traced = Aside(lambda: trace(job, task), Traced).result()
    rows, held = task.splits["train"], task.splits["validation"]
    assert traced.passes == 2 * (4 * rows + held)
    [batch] = list(task.batches("train", [[0]], epoch_seed=0))
    tokens = batch["input_ids"].numel()
    layer = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 16 * tokens
    assert traced.forward == pytest.approx(tokens * 3 * layer, rel=0.3)
    assert 0 < try_forward(job, task, threads=1) < 1
