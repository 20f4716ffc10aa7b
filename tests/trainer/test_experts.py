"""Mixtures of experts: adapters reach the experts and say the same in the plain libraries, or are refused with numbers."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from tests.trainer.jobs import MIXTURES, make_job, mixture_folder, write_csv
from tests.trainer.test_adapters import TEXT
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import export
from unfreeze_trainer.models.experts import experts, share
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow

LORA = {"type": "LoRA", "lora": {"r": 2, "loraAlpha": 4, "loraDropout": 0}}
SHARED = "model.layers.1.mlp.shared_experts.down_proj"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a task on a mixture of a kind."""
    folder = tmp_path_factory.mktemp("mixtures")
    table = write_csv(folder / "texts.csv")

    def task(kind="mixtral", adapter=None, before=False, **change):
        if not (folder / kind).exists():
            mixture_folder(folder / kind, kind)
        job = make_job(folder / kind, table, **({"adapter": adapter} if adapter else {}), **change)
        if before:
            job = job.model_copy(update={"semantics": job.semantics.model_copy(update={"experts": "PassedOver"})})
        return open_task(job)

    return task


def lora(**options):
    return {"type": "LoRA", "lora": LORA["lora"] | options}


def adapted(loaded):
    """Return the names of what has an update, without PEFT's own."""
    names = (name for name, _ in loaded.module.named_parameters() if ".lora_A." in name)
    return [name.removeprefix("base_model.model.").partition(".lora_A.")[0] for name in names]


@pytest.mark.parametrize("kind", MIXTURES)
def test_all_linear_reaches_experts_and_the_exports_say_the_same(opened, tmp_path, kind):
    task = opened(kind, LORA)
    loaded = task.build_model()
    plain = opened(kind).build_model()
    stacked = experts(plain.module)
    assert share(plain.module, plain.blocks[-1].parameters) > 0.2
    holders = {name.rpartition(".")[0] for name in stacked}
    reached = {name.replace(".base_layer", "") for name in adapted(loaded)}
    assert holders <= reached
    assert len([name for name in adapted(loaded) if name.replace(".base_layer", "") in holders]) == len(stacked)
    layers = {
        name
        for name, part in plain.module.named_modules()
        if type(part) is torch.nn.Linear and f"{name}.weight" not in plain.blocks[-1].parameters
    }
    assert layers <= reached
    assert not any("router" in name.rpartition(".")[2] for name in reached)
    blocks = {name: block.name for block in loaded.blocks for name in block.parameters}
    assert all(blocks[name].startswith("layer.") for name in blocks if ".lora_A." in name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if name in loaded.adapter_parameters:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    [batch] = task.batches("train", [range(6)])
    task.loss(task.forward(loaded.module, batch), batch).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.module.parameters() if parameter.requires_grad)
    loaded.module.zero_grad()
    for form in ("Adapter", "Merged"):
        task.export(loaded.module, tmp_path / form, form)
        with patch.object(export, "reload", plain_outputs):
            task.verify_export(tmp_path / form, form, loaded.module)


def refused(opened, adapter, kind="mixtral", **change):
    with pytest.raises(JobError) as error:
        opened(kind, adapter, **change).build_model()
    return error.value.message


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"type": "LoRA"}, "spec.adapter.lora.loraDropout 0.05: 82% of the weights below the head are experts'"),
        (
            lora(loraDropout=0.1),
            "set loraDropout to 0, or name in targetModules what of the rest .* (k_proj, o_proj, q_proj, v_proj)",
        ),
        (lora(useDora=True), "spec.adapter.lora.useDora: .* set useDora to false"),
        (lora(initLoraWeights="PiSSA"), "initLoraWeights PiSSA: .* set initLoraWeights to Default or Gaussian"),
        (TEXT["adalora"], "spec.adapter.adaLora.targetModules: AdaLoRA reaches no experts, and 82% of the weights"),
        (TEXT["ia3"], "spec.adapter.ia3.targetModules: IA3 reaches no experts"),
        ({"type": "Bottleneck"}, "spec.adapter.bottleneck.targetModules: Bottleneck reaches no experts"),
        (
            {"type": "PEFT", "peft": {"method": "OFT"}},
            "spec.adapter.peft.config.target_modules: PEFT's OFT reaches no experts",
        ),
    ],
    ids=str,
)
def test_what_cannot_reach_experts_is_refused_with_their_share(opened, adapter, words):
    message = refused(opened, adapter)
    first, _, last = words.partition(" .* ")
    assert first in message
    assert last in message


def test_named_layers_need_no_experts_and_experts_have_names_too(opened):
    named = adapted(opened("mixtral", lora(targetModules=["q_proj"], loraDropout=0.1)).build_model())
    assert named == [f"model.layers.{n}.self_attn.q_proj" for n in range(2)]
    named = adapted(opened("mixtral", lora(targetModules=["experts.down_proj", "v_proj"])).build_model())
    assert len(named) == 4
    assert "model.layers.1.mlp.experts" in named
    assert "matches no module" in refused(opened, lora(targetModules=["w2"]))
    for kind, member in (("IA3", "ia3"), ("Bottleneck", "bottleneck")):
        adapter = {"type": kind, member: {"targetModules": ["v_proj"]}}
        assert opened("mixtral", adapter).build_model().adapter_parameters


def test_a_shared_expert_is_adapted_and_not_the_experts_that_peft_takes_it_for(opened):
    loaded = opened("deepseek_v3", lora(targetModules=["shared_experts.down_proj", "o_proj"])).build_model()
    assert set(adapted(loaded)) == {SHARED, "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"}
    assert dict(loaded.module.named_parameters())[f"base_model.model.{SHARED}.lora_A.default.weight"].shape == (2, 8)


@pytest.mark.parametrize(("kind", "smaller"), [("NF4", "1.14"), ("Int8", "1.11")])
def test_quantised_experts_are_refused_with_how_much_it_would_save(opened, kind, smaller):
    adapter = lora(targetModules=["q_proj"])
    message = refused(opened, adapter, model={"quantization": {"type": kind}})
    assert "82% of its weights are experts', which stand in no layer that bitsandbytes could quantise" in message
    assert f"with spec.model.quantization {kind} it would be {smaller} times smaller" in message
    before, after = (
        sum(
            parameter.nbytes
            for parameter in opened("mixtral", adapter, True, **change).build_model().module.parameters()
        )
        for change in ({}, {"model": {"quantization": {"type": kind}}})
    )
    assert before / after == pytest.approx(float(smaller), rel=0.02)


def test_runs_of_earlier_versions_pass_over_experts_as_they_did(opened):
    loaded = opened("mixtral", lora(loraDropout=0.1), before=True).build_model()
    assert len(adapted(loaded)) == 8
    assert not any("experts" in name for name in adapted(loaded))
    opened("mixtral", TEXT["ia3"], before=True).build_model()
