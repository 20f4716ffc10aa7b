"""Every adapter: it starts from the base, trains within its phase alone, is written, and loads in plain PEFT."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_api.adapters import ADAPTERS
from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.adapters.peft import PeftMethod
from unfreeze_api.spec.adapter import UNMERGEABLE, AdapterSpec
from unfreeze_trainer.engines.optimizers import build_optimizer
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.adapters import peft as adapters
from unfreeze_trainer.models.blocks import Block
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.phases.compile import compile_phases
from unfreeze_trainer.phases.freezer import Freezer
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

IMAGES = {"task": {"type": "ImageClassification", "imageClassification": {"augmentation": "None"}}}
LORA = {
    "lora": {},
    "rslora": {"useRslora": True},
    "dora": {"useDora": True},
    "gaussian": {"initLoraWeights": "Gaussian"},
    "orthogonal": {"initLoraWeights": "Orthogonal"},
    "pissa": {"initLoraWeights": "PiSSA"},
    "pissa-rslora": {"initLoraWeights": "PiSSA", "useRslora": True},
    "olora": {"initLoraWeights": "OLoRA"},
    "lora+": {"loraplusLrRatio": 16},
    "patterns": {"rankPattern": {"layer.0.*query": 2, "key": 6}, "alphaPattern": {"query": 4}},
}
PROMPTS = {
    "prompt": {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3}},
    "prompt-random": {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3, "promptTuningInit": "Random"}},
    "prompt-text": {
        "type": "PromptTuning",
        "promptTuning": {"numVirtualTokens": 3, "promptTuningInit": "Text", "promptTuningInitText": "how far is the"},
    },
    "prefix": {"type": "PrefixTuning", "prefixTuning": {"numVirtualTokens": 3}},
    "prefix-projection": {
        "type": "PrefixTuning",
        "prefixTuning": {"numVirtualTokens": 3, "prefixProjection": True, "encoderHiddenSize": 8},
    },
    "p-tuning": {"type": "PTuning", "pTuning": {"numVirtualTokens": 3}},
    "p-tuning-lstm": {"type": "PTuning", "pTuning": {"encoderReparameterizationType": "LSTM", "encoderHiddenSize": 6}},
}
BOTTLENECKS = {
    "pfeiffer": {"type": "Bottleneck", "bottleneck": {"reductionFactor": 4}},
    "houlsby": {"type": "Bottleneck", "bottleneck": {"placement": "Houlsby", "nonLinearity": "GELU"}},
}
# Defaults of PEFT's that do not fit layers that are 16 wide.
NARROW = {
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "MISS": {"r": 8},
    "OFT": {"oft_block_size": 4, "r": 0},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "UNILORA": {"theta_d_length": 64},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
    "WAVEFT": {"n_frequency": 20},
}
TEXT = {
    **{name: {"type": "LoRA", "lora": {"r": 4, "loraDropout": 0} | options} for name, options in LORA.items()},
    "adalora": {"type": "AdaLoRA", "adaLora": {"initR": 4, "targetR": 2, "loraDropout": 0}},
    "ia3": {"type": "IA3"},
    "ia3-paper": {
        "type": "IA3",
        "ia3": {"targetModules": ["key", "value", "output.dense"], "feedforwardModules": ["output.dense"]},
    },
    **PROMPTS,
    **BOTTLENECKS,
    **{
        name: {"type": "PEFT", "peft": {"method": name, "config": NARROW.get(name, {})}}
        for name in get_args(PeftMethod)
    },
}
IMAGE = {name: adapter for name, adapter in TEXT.items() if name not in (*PROMPTS, "patterns", "ia3-paper")}
CONVOLUTIONS = {
    **BOTTLENECKS,
    "lora": {"type": "LoRA", "lora": {"r": 2, "loraDropout": 0, "targetModules": ["conv1", "conv2"]}},
    "dora": {"type": "LoRA", "lora": {"r": 2, "loraDropout": 0, "useDora": True, "targetModules": ["conv1", "conv2"]}},
    "adalora": {"type": "AdaLoRA", "adaLora": {"initR": 4, "targetR": 2, "targetModules": ["conv1", "conv2"]}},
    "ia3": {"type": "IA3", "ia3": {"targetModules": ["conv2"]}},
    "LOHA": {"type": "PEFT", "peft": {"method": "LOHA", "config": {"target_modules": ["conv1", "conv2"]}}},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    root = tmp_path_factory.mktemp("adapters")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vit = {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 32, "patch_size": 16}
    images = image_folder(root / "images")
    return {
        "text": (bert_folder(root / "bert", **still), write_csv(root / "t.csv")),
        "vit": (timm_folder(root / "vit", "vit_tiny_patch16_224", **vit), images),
        "resnet": (timm_folder(root / "resnet", "resnet10t", zero_init_last=False), images),
    }


def job_of(folders, kind: str, adapter: dict[str, Any], **change: Any):
    return make_job(*folders[kind], adapter=adapter, **({} if kind == "text" else IMAGES), **change)


def train(task, loaded, phase) -> None:
    """Take three steps of a phase."""
    freezer = Freezer(loaded.module, loaded.blocks, loaded.adapter_parameters, loaded.rate_factors)
    freezer.apply(phase)
    parameters = dict(loaded.module.named_parameters())
    groups = freezer.groups(phase, 0.0)
    optimizer = build_optimizer(
        "AdamW", [([parameters[name] for name in group.names], group.lr, group.weight_decay) for group in groups]
    )
    loaded.hook.begin(3)
    for step, batch in enumerate(task.batches("train", [range(4), range(4, 8), range(4)]), 1):
        optimizer.zero_grad()
        (task.loss(task.forward(loaded.module, batch), batch).sum() + loaded.hook.penalty()).backward()
        optimizer.step()
        loaded.hook.after_update(step, skipped=lambda: False)


@torch.no_grad()
def logits_of(task, module) -> torch.Tensor:
    return task.forward(module.eval(), next(task.batches("validation", [range(3)])))


def plain(task, folder: Path, kind="Adapter") -> tuple[torch.Tensor, list[str]]:
    """Load an export by the lines that people are shown; return its logits for three samples, and its labels."""
    lines = task.plain(kind, str(folder), task.job.model.path)
    _, samples = task.first_samples()
    return plain_outputs(lines.load, lines.outputs, lines.names, samples[:3])


CASES = [
    *(("text", name) for name in TEXT),
    *(("vit", name) for name in IMAGE),
    *(("resnet", name) for name in CONVOLUTIONS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_adapter_trains_alone_and_loads_in_plain_libraries(folders, tmp_path, kind, name):
    adapter = {"text": TEXT, "vit": IMAGE, "resnet": CONVOLUTIONS}[kind][name]
    job = job_of(folders, kind, adapter, strategy={"learningRate": {"head": 0.01}})
    task = open_task(job)
    loaded = task.build_model()
    before = {key: tensor.clone() for key, tensor in loaded.module.state_dict().items()}
    [phase] = compile_phases(job, [block.name for block in loaded.blocks], 3)
    train(task, loaded, phase)
    trained = dict(loaded.module.named_parameters())
    places = {trained[key].data_ptr() for key in loaded.adapter_parameters}
    moved = {key for key, tensor in loaded.module.state_dict().items() if not torch.equal(tensor, before[key])}
    # What layers share stands under a name in each.
    assert {loaded.module.state_dict()[key].data_ptr() for key in moved} <= places
    for block in loaded.blocks:
        own = loaded.adapter_parameters.intersection(block.parameters)
        assert not own or moved & own, f"{block.name} has not learnt"
    expected = logits_of(task, loaded.module)
    task.export(loaded.module, tmp_path / "adapter", "Adapter")
    assert torch.allclose(plain(task, tmp_path / "adapter")[0], expected, atol=2e-5)
    if adapter["type"] not in UNMERGEABLE:
        assert torch.allclose(logits_of(task, adapters.merged(loaded.module)), expected, atol=2e-5)
    after = {key: tensor for key, tensor in loaded.module.state_dict().items() if key not in moved}
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items()), "export has changed the model"


@pytest.mark.parametrize(
    "name", ["lora", "adalora", "dora", "orthogonal", "pissa", "olora", "ia3", "LOHA", "VERA", "houlsby"]
)
def test_an_adapter_starts_from_the_base(folders, name):
    task = open_task(job_of(folders, "text", TEXT[name]))
    bare = open_task(make_job(*folders["text"])).build_model().module
    assert torch.allclose(logits_of(task, task.build_model().module), logits_of(task, bare), atol=1e-5)


def test_the_same_seed_gives_the_same_adapter(folders):
    task = open_task(job_of(folders, "text", TEXT["prompt"]))
    one, other = (task.build_model().module.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["lora", "patterns"])
def test_a_layers_input_is_not_copied_for_autocast_which_copies_it_anyway(folders, kind):
    """The same bits as PEFT's own way, and fewer of them kept for the way back."""
    task = open_task(job_of(folders, "text", TEXT[kind]))
    module = task.build_model().module.train()
    batch = next(task.batches("train", [range(4)]))
    found = {}
    for ours in (True, False):
        if not ours:
            for part in module.modules():
                part.__dict__.pop("_cast_input_dtype", None)
        kept = []
        module.zero_grad()
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor) or tensor, lambda tensor: tensor
        ):
            with torch.autocast("cpu", torch.bfloat16):
                loss = task.loss(task.forward(module, batch), batch).sum()
            loss.backward()
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        found[ours] = (
            sum(storages.values()),
            {name: each.grad for name, each in module.named_parameters() if each.grad is not None},
        )
    assert found[True][0] < found[False][0]
    assert found[True][1].keys() == found[False][1].keys() != set()
    assert all(torch.equal(tensor, found[False][1][name]) for name, tensor in found[True][1].items())


# What differs from PEFT's name, and what PEFT's configuration does not have.
OURS = {"loraplus_lr_ratio"}


@pytest.mark.parametrize("kind", list(adapters.METHODS))
def test_options_are_those_of_peft(kind):
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    fields = {field.name: field for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[adapters.METHODS[kind]])}
    own = next(declared.options for declared in ADAPTERS if declared.name == kind).model_fields
    assert own.keys() - OURS <= fields.keys()
    for name, words in adapters._WORDS.items():
        if name in own:
            assert set(words) == set(get_args(own[name].annotation))


def test_methods_are_those_of_peft():
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    assert set(get_args(PeftMethod)) <= set(PEFT_TYPE_TO_CONFIG_MAPPING)
    assert not set(get_args(PeftMethod)) & set(adapters.METHODS.values())


REFUSED = {
    "a typo": (
        {"type": "PEFT", "peft": {"method": "LOHA", "config": {"rang": 4}}},
        "spec.adapter.peft.config.rang: PEFT's LoHaConfig has no such option; it has alpha, ",
    ),
    "what follows from the job": (
        {"type": "PEFT", "peft": {"method": "LOHA", "config": {"modules_to_save": ["x"]}}},
        "spec.adapter.peft.config.modules_to_save: it follows from the job",
    ),
    "target modules as a text": (
        {"type": "PEFT", "peft": {"method": "LOHA", "config": {"target_modules": "query"}}},
        "spec.adapter.peft.config.target_modules: must be a list of names",
    ),
    "what PEFT refuses": (
        {"type": "PEFT", "peft": {"method": "LOHA", "config": {"r": 0}}},
        "spec.adapter PEFT: PEFT refuses it: ValueError: `r` should be a positive integer",
    ),
    "a name that matches nothing": (
        {"type": "IA3", "ia3": {"targetModules": ["q_proj"]}},
        "spec.adapter.ia3.targetModules: 'q_proj' matches no module",
    ),
    "a feed-forward module that is no target": (
        {"type": "IA3", "ia3": {"targetModules": ["key"], "feedforwardModules": ["output.dense"]}},
        "output.dense is not among targetModules",
    ),
    "a module without an output to adapt": (
        {"type": "Bottleneck", "bottleneck": {"targetModules": ["LayerNorm"]}},
        "spec.adapter.bottleneck.targetModules: 'LayerNorm' matches no module",
    ),
    "a pattern that matches nothing": (
        {"type": "LoRA", "lora": {"rankPattern": {"q_proj": 4}}},
        "spec.adapter.lora.rankPattern: 'q_proj' matches none of the modules that get an update",
    ),
    "a pattern that is none": (
        {"type": "LoRA", "lora": {"alphaPattern": {"(": 4}}},
        "spec.adapter.lora.alphaPattern: '(' is no pattern",
    ),
    "a prompt as long as the model": (
        {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 64}},
        "64 virtual tokens leave no room for a text in the model's 64 positions",
    ),
}


@pytest.mark.parametrize(("adapter", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(folders, adapter, message):
    with pytest.raises(JobError) as caught:
        open_task(job_of(folders, "text", adapter)).build_model()
    assert caught.value.reason == "InvalidAdapter"
    assert message in caught.value.message


@pytest.mark.parametrize("kind", ["text", "vit"])
def test_an_adapter_everywhere_and_the_top_beside_it(folders, loaded_here, tmp_path, kind):
    adapter = {"type": "LoRA", "lora": {"r": 4, "loraDropout": 0}, "baseWeights": "ByStrategy"}
    strategy = {"type": "GradualUnfreezing", "learningRate": {"head": 0.01}, "gradualUnfreezing": {"stepsPerPhase": 3}}
    job = job_of(folders, kind, adapter, strategy=strategy, training={"epochs": 9})
    task = open_task(job)
    loaded = task.build_model()
    place = {name: block.name for block in loaded.blocks for name in block.parameters}
    phases = compile_phases(job, [block.name for block in loaded.blocks], 2)
    first, _, third = phases[:3]
    for phase in (first, third):
        before = {name: tensor.detach().clone() for name, tensor in loaded.module.named_parameters()}
        train(task, loaded, phase)
        moved = {name for name, tensor in loaded.module.named_parameters() if not torch.equal(tensor, before[name])}
        assert {place[name] for name in moved & loaded.adapter_parameters} == {
            place[n] for n in loaded.adapter_parameters
        }
        own = moved - loaded.adapter_parameters
        assert {place[name] for name in own} == set(phase.trainable) - {"head"}
    freezer = Freezer(loaded.module, loaded.blocks, loaded.adapter_parameters)
    rates = {name: group.lr for group in freezer.groups(third, 0.0) for name in group.names}
    assert {rates[name] for name in loaded.adapter_parameters} == {0.01}
    assert {rates[name] for name in own} == {0.001}
    task.export(loaded.module, tmp_path / "model", "Merged")
    task.verify_export(tmp_path / "model", "Merged", loaded.module)


def test_lora_plus_lets_one_matrix_learn_faster(folders):
    job = job_of(folders, "text", TEXT["lora+"], strategy={"learningRate": {"head": 0.01, "layerDecay": 0.5}})
    loaded = open_task(job).build_model()
    [phase] = compile_phases(job, [block.name for block in loaded.blocks], 3)
    freezer = Freezer(loaded.module, loaded.blocks, loaded.adapter_parameters, loaded.rate_factors)
    groups = freezer.groups(phase, 0.1)
    rates = {name: group.lr / phase.learning_rates[group.block] for group in groups for name in group.names}
    assert {name: round(rate, 9) for name, rate in rates.items()} == {
        name: 16 if ".lora_B." in name else 1 for name in loaded.adapter_parameters
    }


def test_a_prompt_belongs_below_the_head(folders):
    loaded = open_task(job_of(folders, "text", TEXT["prompt"])).build_model()
    assert loaded.blocks[-2].name == "pooler"
    assert "prompt_encoder.default.embedding.weight" in loaded.blocks[-2].parameters


def test_a_head_of_several_layers_stays_the_head():
    """RoBERTa's: PEFT wraps all of it, and it has no parameters but those of its parts."""
    head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module = nn.ModuleDict({"layer": nn.Linear(4, 4), "classifier": head})
    own = tuple(f"classifier.{name}" for name, _ in head.named_parameters())
    blocks = [Block("layer.0", ("layer.weight", "layer.bias")), Block("head", own)]
    loaded = adapters.add_peft(module, blocks, AdapterSpec(type="LoRA", lora=LoraSpec()), seed=0, base="")
    found = {block.name: [name for name in block.parameters if ".classifier." in name] for block in loaded.blocks}
    assert (found["layer.0"], len(found["head"])) == ([], 2 * len(own))


def test_completed_fills_in_what_is_left_out():
    spec = AdapterSpec.model_validate({"type": "LoRA"}).completed()
    lora = spec.of(LoraSpec)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.05)
    assert copy.deepcopy(spec).completed() == spec


class Standardised(nn.Conv2d):
    """As in BiT and NFNet."""


UNFOLDABLE = {
    "patches that overlap": (nn.Conv2d(4, 4, 3), "OFT", "convolution of 3 x 3, of which PEFT's OFT adds up"),
    "circles": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "LOHA", "pads with circular values"),
    "standardised weights": (Standardised(4, 4, 1), "LOHA", "is a Standardised, which is not the plain"),
    "one pixel": (nn.Conv2d(4, 4, 1), "OFT", None),
    "as most are": (nn.Conv2d(4, 4, 3, padding=1), "LOHA", None),
}


@pytest.mark.parametrize(("layer", "method", "message"), UNFOLDABLE.values(), ids=UNFOLDABLE)
def test_a_convolution_that_would_not_merge_is_refused(layer, method, message):
    module = nn.ModuleDict({"layer": layer, "classifier": nn.Linear(4, 2)})
    blocks = [
        Block("layer.0", ("layer.weight", "layer.bias")),
        Block("head", ("classifier.weight", "classifier.bias")),
    ]
    options = {"r": 0, "oft_block_size": 4} if method == "OFT" else {}
    spec = AdapterSpec.model_validate(
        {"type": "PEFT", "peft": {"method": method, "config": options | {"target_modules": ["layer"]}}}
    )
    if message is None:
        loaded = adapters.add_peft(module, blocks, spec, seed=0, base="")
        assert loaded.adapter_parameters
        return
    with pytest.raises(JobError) as caught:
        adapters.add_peft(module, blocks, spec, seed=0, base="")
    assert caught.value.reason == "InvalidAdapter"
    assert caught.value.message.startswith("spec.adapter.peft.config.target_modules: layer ")
    assert message in caught.value.message


@pytest.mark.parametrize("start", ["PiSSA", "OLoRA", "Orthogonal", "Gaussian"])
def test_a_start_that_lora_finds_in_linear_layers_alone_is_refused_elsewhere(start):
    module = nn.ModuleDict({"layer": nn.Conv2d(4, 4, 3), "classifier": nn.Linear(4, 2)})
    blocks = [
        Block("layer.0", ("layer.weight", "layer.bias")),
        Block("head", ("classifier.weight", "classifier.bias")),
    ]
    options = {"targetModules": ["layer"], "initLoraWeights": start, "r": 2}
    spec = AdapterSpec.model_validate({"type": "LoRA", "lora": options})
    if start == "Gaussian":
        assert adapters.add_peft(module, blocks, spec, seed=0, base="").adapter_parameters
        return
    with pytest.raises(
        JobError, match=f"layer is a convolution, and what initLoraWeights {start} starts from"
    ) as caught:
        adapters.add_peft(module, blocks, spec, seed=0, base="")
    assert caught.value.reason == "InvalidAdapter"


@pytest.mark.parametrize("type_", ["LoRA", "AdaLoRA", "IA3"])
def test_all_linear_leaves_out_of_mamba_what_peft_refuses_there(type_):
    from transformers import MambaConfig, MambaModel

    sizes = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 2}
    module = MambaModel(MambaConfig(**sizes))
    names = tuple(name for name, _ in module.named_parameters())
    blocks = [Block("layer.0", names[1:]), Block("head", names[:1])]
    spec = AdapterSpec.model_validate({"type": type_}).completed()
    found = adapters.add_peft(module, blocks, spec, seed=0, base="").adapter_parameters
    adapted = {name.partition(".mixer.")[2].partition(".")[0] for name in found} - {""}
    assert adapted == {"in_proj", "x_proj"} | ({"out_proj", "dt_proj"} if type_ == "IA3" else set())
