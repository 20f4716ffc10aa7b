"""Frozen weights in the type of their files: the results of float32 bit for bit, until they train, and in what is exported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer import own_type_group
from tests.trainer.jobs import bert_folder, decoder_folder, make_job, write_csv, write_dialogues
from tests.trainer.own_type_group import LORA, halve, job_of
from tests.trainer.ranks import run_gang
from tests.trainer.whole_worker import work
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.exporter import require_unchanged
from unfreeze_trainer.models.folders import hash_file, hash_files
from unfreeze_trainer.models.own_type import as_in_files, held, own_types
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own-type")
    write_csv(folder / "texts.csv")
    sizes = {"num_hidden_layers": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    halve(bert_folder(folder / "bert", **sizes))
    return folder


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        ("gradual", "DDP"),
        ("lora-bfloat16", "DDP"),
        pytest.param("lora-checkpointing", "DDP", marks=pytest.mark.matrix),
        pytest.param("bitfit", "ZeRO-2", marks=pytest.mark.matrix),
        pytest.param("gradual", "ZeRO-2", marks=pytest.mark.matrix),
        ("probe-lora", "FSDP"),
        pytest.param("gradual", "FSDP", marks=pytest.mark.matrix),
        pytest.param("lora-bfloat16", "FSDP", marks=pytest.mark.matrix),
        ("probe-lora", "ZeRO-3"),
        pytest.param("lora-bfloat16", "ZeRO-3", marks=pytest.mark.matrix),
        pytest.param("gradual", "ZeRO-3", marks=pytest.mark.matrix),
    ],
)
def test_a_base_in_half_precision_trains_as_in_float32(ranks, folder, case, engine):
    kept, _ = ranks.call(own_type_group.trained_kept, case, engine, folder)
    whole, _ = ranks.call(own_type_group.trained_whole, case, engine, folder)
    assert whole["before"] == []
    assert kept["before"], "nothing was held in half precision"
    assert set(kept["after"]) <= set(kept["before"])
    assert engine != "DDP" or kept["moved"] == [], "copied out of the file that the workers of a node share"
    assert kept["sent"] == 0, "what arrives is written over pages of the file, each of them a copy then"
    apart = [name for name, tensor in whole["weights"].items() if not torch.equal(kept["weights"][name], tensor)]
    assert apart == []
    assert kept["metrics"] == whole["metrics"]


def test_a_run_that_began_in_float32_goes_on_with_the_type_of_its_files(ranks, folder):
    ranks.call(own_type_group.resumed, "gradual", "DDP", folder)
    [whole] = [ranks.call(own_type_group.trained_whole, "gradual", "DDP", folder)[0]["weights"]]
    ends = sorted(
        (folder / "DDP-gradual-resumed" / "checkpoints").glob("step-*"), key=lambda place: int(place.name[5:])
    )
    last = load_file(ends[-1] / "weights.safetensors")
    assert {tensor.dtype for tensor in last.values() if tensor.is_floating_point()} == {torch.float32}
    assert all(torch.equal(last[name], whole[name]) for name in last.keys() & whole.keys())


def exported(job, folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    log = folder / "log"
    assert run_gang(1, work, job, log) == [0], log.read_text()
    model = Path(job.output.path) / "model"
    return load_file(model / "model.safetensors"), json.loads((model / "config.json").read_text())


@pytest.mark.usefixtures("ranks")  # begins the process that gangs are forked from
def test_an_export_has_the_bytes_of_what_has_not_moved(folder, tmp_path):
    change = {"strategy": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}}}
    change |= {"output": {"destination": f"file://{tmp_path / 'run'}"}}
    tensors, config = exported(make_job(folder / "bert", folder / "texts.csv", **change), tmp_path)
    base = load_file(folder / "bert" / "model.safetensors")
    same = {
        name for name in base if torch.equal(tensors[f"bert.{name}"].view(torch.uint8), base[name].view(torch.uint8))
    }
    trained = {name for name in base if name.startswith("pooler")}
    assert trained
    assert all(tensors[f"bert.{name}"].dtype is torch.float32 for name in trained)
    assert same == {name for name in base if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert config["dtype"] == "float32"


@pytest.mark.usefixtures("ranks")
def test_a_lora_is_merged_in_float32(tmp_path):
    base = halve(decoder_folder(tmp_path / "llama"))
    change = {
        "task": {"type": "CausalLM"},
        **LORA,
        "output": {"export": ["Merged"], "destination": f"file://{tmp_path / 'run'}"},
    }
    tensors, config = exported(make_job(base, write_dialogues(tmp_path / "t.jsonl"), **change), tmp_path)
    before = load_file(base / "model.safetensors")
    assert config["dtype"] == "float32"
    for name, tensor in tensors.items():
        adapted = "_proj" in name
        assert tensor.dtype is (torch.float32 if adapted else torch.bfloat16), name
        assert adapted or torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))


@pytest.mark.usefixtures("ranks")
def test_preview_and_estimate_show_where_weights_become_float32(folder, tmp_path):
    job = job_of("gradual", "ZeRO-2", folder, "estimate")
    weights = preview(job).weight_bytes
    assert weights == sorted(set(weights))
    file = tmp_path / "traced"
    assert run_gang(1, own_type_group.trace_to, job, file) == [0]
    held_by_phase, types = json.loads(file.read_text())
    assert held_by_phase == sorted(set(held_by_phase))
    assert set(types) == {"bfloat16", "float32"}
    whole = job_of("gradual", "ZeRO-2", folder, "estimate", model={"dtype": "Float32"})
    assert preview(whole).weight_bytes is None
    assert run_gang(1, own_type_group.trace_to, whole, file) == [0]
    assert set(json.loads(file.read_text())[1]) == {"float32"}


def test_a_file_of_both_types_keeps_what_is_float32(tmp_path):
    base = halve(bert_folder(tmp_path / "bert"), but="layer.1")
    with own_types(wanted=True):
        module = open_task(make_job(base, write_csv(tmp_path / "t.csv"))).build_model().module
    names = held(module)
    assert not any("layer.1" in name or "classifier" in name for name in names)
    assert any("layer.0" in name for name in names)
    parameters = dict(module.named_parameters())
    for name, tensor in load_file(base / "model.safetensors").items():
        assert torch.equal(parameters[f"bert.{name}"].float(), tensor.float())


@pytest.mark.parametrize("damage", ["short", "overlap", "length"])
def test_a_damaged_file_is_refused_as_ever(tmp_path, damage):
    base = halve(bert_folder(tmp_path / "bert", num_hidden_layers=1))
    file = base / "model.safetensors"
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    one, other = (header[f"encoder.layer.0.attention.self.{name}.weight"] for name in ("query", "key"))
    one["data_offsets"] = other["data_offsets"]
    text = json.dumps(header).encode()
    file.write_bytes(
        {
            "short": whole[: len(whole) // 2],
            "overlap": len(text).to_bytes(8, "little") + text + whole[end:],
            "length": (1 << 40).to_bytes(8, "little") + whole[8:],
        }[damage]
    )
    job = make_job(base, write_csv(tmp_path / "t.csv"))
    with own_types(wanted=True), pytest.raises(JobError, match="SafetensorError: Error while deserializing header"):
        open_task(job).build_model()


def test_a_module_comes_out_of_an_export_as_it_went_in(tmp_path):
    base = halve(bert_folder(tmp_path / "bert", num_hidden_layers=1))
    module = open_task(make_job(base, write_csv(tmp_path / "t.csv"))).build_model().module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with as_in_files(module, str(base), tmp_path):
        assert held(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("adapter", [{"type": "Bottleneck"}, LORA["adapter"]], ids=["bottleneck", "lora"])
def test_the_lines_of_an_adapter_load_its_base_in_float32(folder, tmp_path, adapter):
    said = {}
    for base in (folder / "bert", bert_folder(tmp_path / "bert", num_hidden_layers=1)):
        task = open_task(make_job(base, folder / "texts.csv", adapter=adapter))
        said[base] = 'dtype="float32"' in task.plain("Adapter", ".", str(base)).load
    assert [*said.values()] == [True, False]


def test_nor_does_one_whose_weights_are_in_memory(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"before")
    pins = {"base": {"files": hash_files(str(tmp_path), [file.name])}}
    folder = SimpleNamespace(identity=SimpleNamespace(pins=pins), path=tmp_path / "run")
    os.utime(file, (1, 1))
    require_unchanged(folder, str(tmp_path))  # the same bytes are no change
    file.write_bytes(b"after")
    with pytest.raises(JobError, match=r"model.safetensors was written to while the job was running"):
        require_unchanged(folder, str(tmp_path))


def test_a_base_that_is_written_to_meanwhile_gives_no_export(tmp_path):
    base = halve(bert_folder(tmp_path / "bert", num_hidden_layers=1))
    with own_types(wanted=True):
        module = open_task(make_job(base, write_csv(tmp_path / "t.csv"))).build_model().module
    file = base / "model.safetensors"
    pins = {"base": {"files": {file.name: hash_file(file)}}}
    folder = SimpleNamespace(identity=SimpleNamespace(pins=pins), path=tmp_path / "run")
    os.utime(file)
    require_unchanged(folder, str(base))  # the same bytes are no change
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    with file.open("r+b") as opened:
        opened.seek(-256, os.SEEK_END)
        opened.write(b"?" * 256)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    with pytest.raises(JobError, match=r"model.safetensors was written to while the job was running"):
        require_unchanged(folder, str(base))
