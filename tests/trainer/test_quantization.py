"""A quantised base: it stays as it is, every adapter trains on it, goes on bit for bit, and its exports load."""

from __future__ import annotations

import importlib.util
import json
from contextlib import suppress

import pytest
import torch

from tests.trainer.complete import complete
from tests.trainer.engine_group import open_run
from tests.trainer.interrupted import Killed, kill_at
from tests.trainer.jobs import bert_folder, make_job, merge, write_csv
from tests.trainer.test_adapters import plain
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.engines.bits import bit_sum
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import quantized as models
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.run import Run

pytestmark = pytest.mark.slow

LORA = {"type": "LoRA", "lora": {"r": 4, "loraDropout": 0}}
TYPES = {
    "Int8": {"type": "Int8"},
    "NF4": {"type": "NF4", "doubleQuantization": True},
    "FP4": {"type": "FP4"},
}
ADAPTERS = {
    "lora": LORA,
    "loftq": {"type": "LoRA", "lora": {"r": 4, "loraDropout": 0, "initLoraWeights": "LoftQ"}},
    "dora": {"type": "LoRA", "lora": {"r": 4, "useDora": True}},
    "adalora": {"type": "AdaLoRA", "adaLora": {"initR": 4, "targetR": 2}},
    "ia3": {"type": "IA3"},
    "bottleneck": {"type": "Bottleneck", "bottleneck": {"reductionFactor": 4}},
    "prompt": {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3}},
}
# DoRA on Int8 is refused; what differs in options of the base alone is tried once.
CASES = [("Int8", "lora"), ("FP4", "lora"), ("Int8", "adalora"), ("Int8", "ia3"), *(("NF4", name) for name in ADAPTERS)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("quantized")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    # Widths that are no multiples of 32, which bitsandbytes' layers for bfloat16 on CPUs need.
    return bert_folder(folder / "bert", num_hidden_layers=1, **still), write_csv(folder / "texts.csv", rows=16)


def job_of(inputs, folder="/tmp/run", adapter=LORA, **change):
    spec = {
        "model": {"quantization": TYPES["NF4"]},
        "strategy": {"learningRate": {"head": 0.02}},
        "training": {"epochs": 2, "batchSize": 4, "checkpoint": {"everySteps": 1}},
        "output": {"destination": f"file://{folder}"},
    }
    return make_job(*inputs, adapter=adapter, **merge(spec, change))


def trained(job, cut: int | None = None) -> Run:
    run = open_run(job, open_task(job))
    if cut:
        kill_at(run, cut)
    with suppress(Killed):
        train(run)
    run.saver.close()
    return run


def is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_adapter_trains_on_it_and_loads_in_plain_libraries(inputs, tmp_path, kind, name):
    job = job_of(inputs, tmp_path, model={"quantization": TYPES[kind]}, adapter=ADAPTERS[name])
    task = open_task(job)
    start = {key: bit_sum(tensor) for key, tensor in task.build_model().module.named_parameters() if is_integer(tensor)}
    assert len(start) == 7, "six linear layers of a layer, and the pooler: not the head"
    run = trained(job)  # with the guard, evaluations in between
    module = run.engine.module.eval()
    ends = dict(module.named_parameters())
    assert all(bit_sum(ends[key]) == before for key, before in start.items())
    batch = next(task.batches("validation", [range(3)]))
    with torch.no_grad():
        expected = task.forward(module, batch)
    task.export(module, tmp_path / "adapter", "Adapter")
    logits, _ = plain(task, tmp_path / "adapter")
    assert torch.allclose(logits, expected, atol=1e-5)
    if name not in ("bottleneck", "prompt"):
        floats = task.exportable(module, "Merged")
        with torch.no_grad():
            given = task.forward(floats, batch)
        # Int8 rounds the inputs of its layers too.
        assert torch.allclose(given, expected, atol=2e-2 if kind == "Int8" else 1e-5)
        task.export(floats, tmp_path / "merged", "Merged")
        merged, labels = plain(task, tmp_path / "merged", "Merged")
        assert torch.allclose(merged, given, atol=1e-5)
        assert labels == task.labels


def test_a_run_goes_on_bit_for_bit_and_writes_its_export(inputs, loaded_here, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = trained(job_of(inputs, whole))
    assert trained(job_of(inputs, cut), cut=3).state.step == 3
    trained(job_of(inputs, cut))
    for file in ("weights.safetensors", "moments.safetensors"):
        end = f"checkpoints/step-{run.plan.total_steps}/{file}"
        assert (whole / end).read_bytes() == (cut / end).read_bytes()
    job = job_of(inputs, tmp_path / "exported", output={"exports": ["Adapter"]})
    complete(open_run(job, open_task(job)))
    report = json.loads((tmp_path / "exported" / "report.json").read_text())
    assert [export["kind"] for export in report["exports"]] == ["Adapter"]
    assert "bitsandbytes" in report["versions"]
    card = (tmp_path / "exported" / "model" / "README.md").read_text()
    assert "quantised by bitsandbytes to NF4" in card
    assert "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True" in card


@pytest.mark.parametrize("kind", TYPES)
def test_features_of_it_train_a_head(inputs, tmp_path, kind):
    job = job_of(
        inputs,
        tmp_path,
        model={"quantization": TYPES[kind]},
        strategy={"type": "FeatureExtraction"},
        adapter=None,
    )
    run = trained(job)
    exported = run.task.exportable(run.engine.module, "Model")
    assert not any(is_integer(tensor) for tensor in exported.parameters())
    run.task.export(exported, tmp_path / "model", "Model")
    batch = next(run.task.batches("validation", [range(3)]))
    logits, labels = plain(run.task, tmp_path / "model", "Model")
    with torch.no_grad():
        expected = run.task.forward(run.engine.module.eval(), batch)
    assert torch.allclose(logits, expected, atol=2e-2 if kind == "Int8" else 1e-5)
    assert labels == run.task.labels


@pytest.mark.parametrize("kind", TYPES)
def test_loftq_starts_closer_to_the_whole_weights(inputs, kind):
    from peft.utils.loftq_utils import _low_rank_decomposition

    def query(module):
        return module.bert.encoder.layer[0].attention.self.query

    whole = query(open_task(make_job(*inputs)).build_model().module).weight
    job = job_of(inputs, model={"quantization": TYPES[kind]}, adapter=ADAPTERS["loftq"])
    layer = query(open_task(job).build_model().module.base_model.model)
    rounded = models._whole_weights(layer.base_layer) - whole
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    parts = _low_rank_decomposition(-rounded, reduced_rank=4)
    assert torch.allclose(update, parts["L"] @ parts["R"], atol=1e-6), "as PEFT decomposes it"
    assert (rounded + update).norm() < 0.9 * rounded.norm()


def test_bfloat16_leaves_it_alone(inputs, tmp_path):
    run = trained(job_of(inputs, tmp_path, training={"precision": "BFloat16"}))
    assert {p.dtype for p in run.engine.module.parameters()} == {torch.float32, torch.uint8}


def test_its_weights_are_counted_one_by_one(inputs):
    whole = preview(make_job(*inputs, adapter=LORA))
    assert preview(job_of(inputs)).blocks == whole.blocks
    assert preview(job_of(inputs)).optimizer_bytes == whole.optimizer_bytes


def test_a_missing_library_is_told(inputs, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(
        JobError, match=r"spec.model.quantization: bitsandbytes is not .*'\.\[quantization\]'"
    ) as caught:
        open_task(job_of(inputs)).build_model()
    assert caught.value.reason == "QuantizationMissing"


def test_a_type_that_the_device_cannot_compute_with_is_told(inputs, monkeypatch):
    real = models._try

    def without_nf4(kind, device):
        if kind == "NF4":
            raise RuntimeError("no kernel")
        real(kind, device)

    monkeypatch.setattr(models, "_try", without_nf4)
    with pytest.raises(JobError) as caught:
        open_task(job_of(inputs)).build_model()
    assert caught.value.reason == "QuantizationNotSupported"
    assert caught.value.message == (
        "spec.model.quantization.type NF4: bitsandbytes cannot compute with it on this worker's cpu (RuntimeError: no"
        " kernel): choose Int8, or choose FP4, or remove quantization"
    )


def test_a_model_that_cannot_be_loaded_so_is_told(inputs, monkeypatch):
    task = open_task(job_of(inputs))
    monkeypatch.setattr(models, "config_options", lambda *_: {"no_such_option": 1, "load_in_8bit": "yes"})
    with pytest.raises(JobError, match=r"cannot be loaded with spec.model.quantization") as caught:
        task.build_model()
    assert caught.value.reason == "InvalidModel"
