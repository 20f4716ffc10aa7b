"""resolve() is pure and total on valid specs; a fingerprint tells what the outcome depends on, and nothing else."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings

from tests.crds.corpus import load, parameters, patched
from tests.crds.generate import manifests
from unfreeze_api.adapters.ia3 import Ia3Spec
from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.resolve import claims, rendezvous_port, resolve, schemes

BASE = load("base.yaml")
FEW = settings(max_examples=30, suppress_health_check=list(HealthCheck), derandomize=True)


def resolved(manifest, name="job", **options):
    return resolve(name, "default", load_job(manifest).spec, rendezvous_host="host", **options)


def of(patch):
    return resolved(patched(BASE, patch))


@pytest.mark.slow
@FEW
@given(manifests())
def test_resolve_is_total_and_pure_and_round_trips(manifest):
    spec = load_job(manifest).spec
    before = copy.deepcopy(spec)
    job = resolve("job", "default", spec, rendezvous_host="host")
    assert spec == before
    assert job == resolve("job", "default", spec, rendezvous_host="host")
    again = ResolvedJob.model_validate_json(job.to_json())
    assert again == job
    assert again.fingerprint() == job.fingerprint()
    assert job.strategy.learning_rate.backbone <= job.strategy.learning_rate.head
    assert job.training.batch_size >= job.distribution.num_nodes


@pytest.mark.parametrize("case", parameters("good.yaml"))
def test_the_corpus_resolves(case):
    job = of(case["patch"])
    assert ResolvedJob.model_validate_json(job.to_json()) == job


def test_the_member_of_the_type_is_always_there():
    assert of({}).task.text_classification.max_length == 128
    assert of({"spec": {"task": {"type": "ImageClassification"}}}).task.text_classification is None
    gradual = of({"spec": {"strategy": {"type": "GradualUnfreezing"}}})
    options = gradual.strategy.gradual_unfreezing
    assert (options.blocks_per_phase, options.epochs_per_phase) == (1, 1)
    own = {"type": "GradualUnfreezing", "gradualUnfreezing": {"groups": [["pooler"]], "stepsPerPhase": 5}}
    options = of({"spec": {"strategy": own}}).strategy.gradual_unfreezing
    assert (options.blocks_per_phase, options.epochs_per_phase) == (None, None)


BESIDE = {"type": "LoRA", "baseWeights": "ByStrategy"}


def test_backbone_learns_slower_unless_an_adapter_is_there():
    rates = {"spec": {"strategy": {"learningRate": {"head": 0.01}}}}
    assert of(rates).strategy.learning_rate.backbone == pytest.approx(0.001)
    assert of(patched(rates, {"spec": {"adapter": {"type": "LoRA"}}})).strategy.learning_rate.backbone == 0.01
    beside = {"spec": {"strategy": {"type": "GradualUnfreezing"}, "adapter": BESIDE}}
    assert of(patched(rates, beside)).strategy.learning_rate.backbone == pytest.approx(0.001)


def test_biases_learn_as_fast_as_the_head():
    assert of({"spec": {"strategy": {"type": "BitFit"}}}).strategy.learning_rate.backbone == 1e-3


@pytest.mark.parametrize(("schedule", "ratio"), [("Cosine", 0.06), ("OneCycle", 0.3), ("SlantedTriangular", 0.1)])
def test_the_warm_up_follows_the_schedule(schedule, ratio):
    patch = {"spec": {"strategy": {"learningRate": {"schedule": schedule}}}}
    assert of(patch).strategy.learning_rate.warmup_ratio == ratio
    given = {"spec": {"strategy": {"learningRate": {"warmupRatio": 0}}}}
    assert of(patched(patch, given)).strategy.learning_rate.warmup_ratio == 0


def test_what_is_exported_follows_the_adapter():
    assert of({}).output.export == ["Model"]
    assert of({"spec": {"adapter": {"type": "LoRA"}}}).output.export == ["Adapter"]
    assert of({"spec": {"strategy": {"type": "GradualUnfreezing"}, "adapter": BESIDE}}).output.export == ["Merged"]


def test_without_a_metric_it_is_the_first_of_the_tasks():
    assert (of({}).training.metric, of({}).metric.better) == ("accuracy", "Higher")
    chosen = of({"spec": {"training": {"metric": "loss"}}})
    assert (chosen.metric.name, chosen.metric.better) == ("loss", "Lower")
    assert chosen.fingerprint() != of({}).fingerprint()
    assert of({"spec": {"training": {"metric": "accuracy"}}}).fingerprint() == of({}).fingerprint()


def test_an_adapter_has_its_options():
    adapter = of({"spec": {"adapter": {"type": "IA3"}}}).adapter
    assert adapter.of(Ia3Spec).target_modules == ["all-linear"]
    assert adapter.of(LoraSpec) is None


def test_paths_lie_in_claims_or_in_the_folders_given():
    assert of({}).model.path == "/mnt/claims/models/minilm"
    local = {"models": "/a", "data": "/b", "results": "/c"}
    job = resolved(BASE, claim_folders=local)
    assert (job.model.path, job.data.train.path, job.output.path) == ("/a/minilm", "/b/train.csv", "/c/job")
    assert of({"spec": {"model": {"source": "file:///x/y"}}}).model.path == "/x/y"
    assert of({"spec": {"model": {"source": "pvc://whole"}}}).model.path == "/mnt/claims/whole"


def test_columns_of_held_out_data_are_those_of_train():
    columns = {
        "train": {"columns": {"text": "question"}},
        "test": {"source": "pvc://data/t.csv", "columns": {"label": "l"}},
    }
    data = of({"spec": {"data": columns}}).data
    assert (data.test.dataset.columns.text, data.test.dataset.columns.label) == ("question", "l")
    assert data.train.columns.label == "label"


def test_claims_are_written_to_only_for_output():
    spec = load_job(patched(BASE, {"spec": {"data": {"test": {"source": "pvc://more/t.csv"}}}})).spec
    assert claims(spec) == {"models": False, "data": False, "more": False, "results": True}
    shared = load_job(patched(BASE, {"spec": {"output": {"destination": "pvc://models/out"}}})).spec
    assert claims(shared) == {"models": True, "data": False}


def test_candidates_are_sources_like_any_other_and_one_of_them_becomes_the_base():
    found = [{"source": "pvc://more/one"}, {"source": "hf://o/two"}]
    patch = {"spec": {"model": {"source": None, "candidates": found}}}
    assert claims(load_job(patched(BASE, patch)).spec) == {"more": False, "data": False, "results": True}
    assert schemes(load_job(patched(BASE, patch)).spec) == ["hf"]
    job = of(patch)
    (_, one, path), (field, two, _) = job.model.bases
    assert (one, path) == ("pvc://more/one", "/mnt/claims/more/one")
    assert (field, two) == ("model.candidates[1].source", "hf://o/two")
    chosen = job.with_base(one)
    assert chosen.model.bases == [("model.source", one, path)]
    assert chosen.fingerprint() == job.fingerprint()
    assert ResolvedJob.model_validate_json(chosen.to_json()) == chosen


@pytest.mark.parametrize("amount", [8, "8"])
def test_one_worker_for_each_accelerator(amount):
    patch = {"spec": {"distribution": {"resourcesPerNode": {"limits": {"nvidia.com/gpu": amount, "cpu": "4"}}}}}
    assert load_job(patched(BASE, patch)).spec.distribution.accelerators_per_node == 8
    assert of(patch).distribution.num_proc_per_node == 8
    assert of(patched(patch, {"spec": {"distribution": {"numProcPerNode": 2}}})).distribution.num_proc_per_node == 2


@pytest.mark.parametrize(
    ("cpus", "threads"), [(4, 2), ("4", 2), ("2500m", 1), ("500m", 1), (1, 1), (None, None), ("1k", None)]
)
def test_threads_of_a_worker(cpus, threads):
    limits = {} if cpus is None else {"cpu": cpus}
    patch = {"spec": {"distribution": {"numProcPerNode": 2, "resourcesPerNode": {"limits": limits}}}}
    assert of(patch).distribution.threads_per_proc == threads


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"distribution": {"numNodes": 2, "engine": "DeepSpeed"}}},
        {"spec": {"runPolicy": {"suspend": True}}},
        {"spec": {"template": {"image": "other"}}},
        {"spec": {"output": {"destination": "pvc://elsewhere/job"}}},
        {"metadata": {"name": "other"}},
        {"spec": {"training": {"epochs": 3}}},
    ],
)
def test_fingerprint_does_not_depend_on_where_it_runs(patch):
    assert of(patch).fingerprint() == of({}).fingerprint()


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"training": {"seed": 1}}},
        {"spec": {"training": {"epochs": 4}}},
        {"spec": {"model": {"source": "pvc://models/other"}}},
        {"spec": {"model": {"initialization": "Random"}}},
        {"spec": {"data": {"train": {"source": "pvc://data/other.csv"}}}},
        {"spec": {"data": {"train": {"columns": {"label": "other"}}}}},
        {"spec": {"strategy": {"type": "FeatureExtraction"}}},
        {"spec": {"adapter": {"type": "LoRA"}}},
    ],
)
def test_fingerprint_depends_on_the_recipe(patch):
    assert of(patch).fingerprint() != of({}).fingerprint()


@pytest.mark.parametrize(
    ("strategy", "rates"),
    [
        ({"type": "Auto"}, "Auto"),
        ({"type": "Auto", "learningRate": {"head": 1e-3, "layerDecay": 0.8}}, "Auto"),  # as the API server fills it in
        ({"type": "Auto", "learningRate": {"head": 2e-3}}, "Given"),
        ({"type": "Auto", "learningRate": {"backbone": 1e-4}}, "Given"),
        ({"type": "Auto", "learningRate": {"rates": "Given"}}, "Given"),
        ({"type": "Auto", "learningRate": {"head": 2e-3, "rates": "Auto"}}, "Auto"),
        ({"type": "FullFineTuning"}, "Given"),
    ],
)
def test_auto_searches_the_rates_that_nobody_gives(strategy, rates):
    assert of({"spec": {"strategy": strategy}}).strategy.learning_rate.rates == rates


def test_fingerprint_is_the_same_in_a_cluster_and_locally():
    local = resolved(BASE, claim_folders={"models": "/a", "data": "/b", "results": "/c"}, name="local")
    assert local.fingerprint() == resolved(BASE).fingerprint()


def test_ports_differ_between_jobs():
    ports = {rendezvous_port("default", f"job-{number}") for number in range(50)}
    assert len(ports) > 40
    assert all(20000 <= port < 30000 for port in ports)
