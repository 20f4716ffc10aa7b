"""Nothing is read from outside of a source, nothing but regular files, and no code that a model names."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.data.pins import first_pins
from unfreeze_trainer.data.unlabelled import unlabelled
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import check_folder, hash_file, tokenizer_files, weight_files
from unfreeze_trainer.runs.checkpoints import Identity
from unfreeze_trainer.sources.closed import Closed, refuse_code, require_in_claim
from unfreeze_trainer.tasks import open_task

REPOSITORY = Path(__file__).parents[2]
WHERE = "spec.model.source file:///m"


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def model(bert, tmp_path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "model"))


@pytest.fixture
def outside(tmp_path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(b"secret")
    return tmp_path / "outside"


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "deep" / "file").write_bytes(b"own")
    return tmp_path / "root"


def refused(call, *, reason="InvalidModel") -> str:
    with pytest.raises(JobError) as raised:
        call()
    assert raised.value.reason == reason
    return raised.value.message


# The helper


@pytest.mark.parametrize("name", ["../outside/secret.png", "deep/../../outside/secret.png", "{outside}/secret.png"])
def test_a_name_that_leads_out_is_refused(root, outside, name):
    name = name.format(outside=outside)
    message = refused(lambda: Closed(root, WHERE, "InvalidModel").path(name))
    assert message.startswith(f"{WHERE}: {name} leads to {outside}/secret.png, which does not lie below {root}")


@pytest.mark.parametrize("way", ["file", "folder", "chain"])
def test_a_link_that_leads_out_is_refused(root, outside, way):
    target = {"file": outside / "secret.png", "folder": outside, "chain": root / "next"}[way]
    (root / "next").symlink_to(outside / "secret.png")
    (root / "link").symlink_to(target)
    name = "link/secret.png" if way == "folder" else "link"
    assert f"{name} leads to {outside}/secret.png" in refused(lambda: Closed(root, WHERE, "InvalidModel").path(name))


def test_a_neighbour_whose_name_begins_alike_is_outside(root, tmp_path):
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "file").touch()
    refused(lambda: Closed(root, WHERE, "InvalidModel").path("../root-2/file"))


@pytest.mark.parametrize("name", ["deep/file", "deep/../deep/file", "link", "folder/file", "{root}/deep/file"])
def test_what_stays_inside_is_read(root, tmp_path, name):
    (root / "link").symlink_to("deep/file")
    (root / "folder").symlink_to(root / "deep")
    (tmp_path / "door").symlink_to(root)
    for place in (root, tmp_path / "door"):
        path = Closed(place, WHERE, "InvalidModel").path(name.format(root=root))
        assert Path(path).read_bytes() == b"own"


def test_links_to_blobs_in_the_cache_of_a_hub_are_inside(tmp_path, outside):
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "other").symlink_to(outside / "secret.png")
    closed = Closed(snapshot, WHERE, "InvalidModel")
    assert Path(closed.path("config.json")).read_text() == "{}"
    refused(lambda: closed.path("other"))


def test_blobs_that_the_repositories_of_a_cache_share_are_inside(tmp_path):
    """As huggingface_hub 2.4 lays files of Xet down: REPOSITORY/blobs/ETAG is a link to blobs/XX/HASH of the cache."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name" / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "ab12").write_text("weights")
    (tmp_path / "models--org--name" / "blobs" / "1").symlink_to("../../blobs/ab/ab12")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1")
    refused(lambda: Closed(snapshot, WHERE, "InvalidModel").path("model.safetensors"))
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    closed = Closed(snapshot, WHERE, "InvalidModel")
    assert Path(closed.path("model.safetensors")).read_text() == "weights"
    (snapshot / "other").symlink_to(tmp_path / "models--org--other" / "blobs" / "1")
    (tmp_path / "models--org--other" / "blobs").mkdir(parents=True)
    (tmp_path / "models--org--other" / "blobs" / "1").write_text("of another repository")
    refused(lambda: closed.path("other"))


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a folder", "a device"])
def test_what_is_no_regular_file_is_refused(root, kind, monkeypatch):
    if kind == "a named pipe":
        os.mkfifo(root / "x")
    elif kind == "a socket":
        monkeypatch.chdir(root)  # a socket's name is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x")
    elif kind == "a folder":
        (root / "x").mkdir()
    else:
        closed = Closed("/dev", WHERE, "InvalidModel")
        assert "null is a device" in refused(lambda: closed.path("null"))
        return
    assert f"x is {kind}, and no regular file" in refused(lambda: Closed(root, WHERE, "InvalidModel").path("x"))


def test_a_missing_file_is_no_refusal(root):
    closed = Closed(root, WHERE, "InvalidModel")
    (root / "loop").symlink_to("loop")
    assert not any(closed.exists(name) for name in ("loop", "a\0b", "x" * 300))
    assert not closed.exists("none")
    assert not closed.exists("deep/file/none")
    with pytest.raises(FileNotFoundError):
        closed.path("none")


# Claims


def test_a_source_that_leads_out_of_its_claim_is_refused(tmp_path, outside):
    spec = {
        "model": {"source": "pvc://models/bert"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": "pvc://models/data/x.csv"}, "validation": {"fraction": 0.25}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"epochs": 1, "batchSize": 4},
        "output": {"destination": "pvc://models/run"},
    }
    claim = tmp_path / "claim"
    claim.mkdir()
    (claim / "data").symlink_to(outside)
    job = resolve(
        "j", "n", FineTuneJobSpec.model_validate(spec), rendezvous_host="h", claim_folders={"models": str(claim)}
    )
    train = job.data.train
    told = refused(lambda: require_in_claim("data.train.source", train.source, train.path), reason="InvalidJob")
    assert told.startswith(
        f"spec.data.train.source pvc://models/data/x.csv leads out of its volume claim, to {outside}"
    )
    (claim / "data").unlink()
    (claim / "v1").mkdir()
    (claim / "data").symlink_to("v1")
    require_in_claim("data.train.source", train.source, train.path)
    require_in_claim("data.train.source", "file:///anywhere", "/anywhere")


# Models


def index(folder: Path, *names: object) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}})
    )


@pytest.fixture
def sharded(tmp_path) -> Path:
    folder = tmp_path / "sharded"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for name in ("a.safetensors", "sub/b.safetensors", "not-named.safetensors"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_an_index_names_the_files_that_are_loaded(sharded):
    index(sharded, "sub/b.safetensors", "a.safetensors", "a.safetensors")
    found = weight_files(str(sharded), WHERE, library="transformers")
    assert found == ["model.safetensors.index.json", "a.safetensors", "sub/b.safetensors"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.safetensors", "../outside/secret.png"], "../outside/secret.png leads to"),
        (["a\0b"], "is missing, which model.safetensors.index.json names"),
        (["missing.safetensors"], "missing.safetensors is missing, which model.safetensors.index.json names"),
        (["pipe"], "pipe is a named pipe"),
        ([3], "its weight_map names no files"),
    ],
)
def test_an_index_that_names_something_else_is_refused(sharded, outside, names, told):
    os.mkfifo(sharded / "sub" / "pipe")
    index(sharded, *(f"sub/{name}" if name == "pipe" else name for name in names))
    message = refused(lambda: check_folder(str(sharded), "file:///m", library="transformers", weights=True))
    assert told in message


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_refused(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    told = refused(lambda: weight_files(str(sharded), WHERE, library="transformers"))
    assert "model.safetensors.index.json is no index of weights" in told


def test_weights_that_the_config_names_are_the_ones(sharded):
    (sharded / "config.json").write_text('{"model_type": "bert", "transformers_weights": "a.safetensors"}')
    (sharded / "model.safetensors").touch()
    assert weight_files(str(sharded), WHERE, library="transformers") == ["a.safetensors"]


@pytest.mark.parametrize("name", ["vocab.txt", "config.json", "model.safetensors"])
def test_a_file_of_a_model_that_is_a_link_to_elsewhere_is_refused(model, tmp_path, name):
    (model / name).rename(tmp_path / name)
    (model / name).symlink_to(tmp_path / name)
    told = refused(lambda: check_folder(str(model), "file:///m", library="transformers", weights=True))
    assert f"{name} leads to {tmp_path / name}" in told


def test_a_pipe_among_a_models_files_keeps_nobody_waiting(model):
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    told = refused(lambda: check_folder(str(model), "file:///m", library="transformers", weights=True))
    assert "config.json is a named pipe" in told


def test_an_adapter_beside_a_model_is_refused(model):
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    told = refused(lambda: check_folder(str(model), "file:///m", library="transformers", weights=True))
    assert "an adapter lies beside the model" in told


def test_a_tokenizer_version_that_lies_elsewhere_is_refused(model, tmp_path):
    (tmp_path / "tokenizer.4.0.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../tokenizer.4.0.json"]}')
    assert "leads to" in refused(lambda: tokenizer_files(str(model), WHERE, ()))


# Code


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ({"auto_map": ["tokenization.Tokenizer", None]}, "auto_map"),
        ({"text_config": {"auto_map": {"AutoConfig": "org/name--configuration.C"}}}, "text_config.auto_map"),
        ({"layers": [{"auto_map": {"A": "b.C"}}]}, "layers[0].auto_map"),
        ({"attn_implementation": "org/kernel"}, "attn_implementation"),
        ({"_attn_implementation": "flash_attention_2"}, "_attn_implementation"),
        ({"attn_implementation": {"": "sdpa", "vision_config": "org/kernel@v1:f"}}, "attn_implementation"),
        ({"experts_implementation": "org/experts"}, "experts_implementation"),
        ({"use_kernels": True}, "use_kernels"),
        ({"kernel_config": {"RMSNorm": "org/kernel:RMSNorm"}}, "kernel_config"),
        ({"norm_kernel": "org/kernel"}, "norm_kernel"),
        ({"attn_implementation": ["sdpa"]}, "attn_implementation"),
        ({"model_args": {"pretrained_cfg_overlay": {"file": "/elsewhere"}}}, "model_args.pretrained_cfg_overlay"),
    ],
)
def test_code_that_a_config_names_is_refused(config, field):
    told = refused(lambda: refuse_code(config, "config.json", WHERE))
    assert told.startswith(f"{WHERE}: config.json names code: {field} is ")
    assert "choose another model" in told


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": None, "use_kernels": False},
        {"attn_implementation": "sdpa", "_attn_implementation": None, "experts_implementation": {"": "eager"}},
        {"label2id": {"auto_map": 1, "use_kernels": 2, "attn_implementation": 0.5}},
        {"conv_kernel": [10, 3], "kernel_size": 3, "use_mamba_kernels": True, "id2label": {"0": "auto_map"}},
        {"pretrained_cfg": {"custom_load": False, "tag": "a1_in1k"}, "model_args": {"img_size": 224}},
    ],
)
def test_what_is_no_code_is_taken(config):
    refuse_code(config, "config.json", WHERE)


def test_a_config_that_is_nested_too_deeply_is_one_clear_error():
    deep = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert "nested too deeply" in refused(lambda: refuse_code(deep, "config.json", WHERE))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_job_on_a_model_with_code_ends_before_it_is_run(model, tmp_path, file):
    trap = tmp_path / "it-ran"
    (model / "own.py").write_text(f"open({str(trap)!r}, 'w')")
    config = json.loads((model / file).read_text())
    kind = "AutoConfig" if file == "config.json" else "AutoTokenizer"
    (model / file).write_text(json.dumps(config | {"auto_map": {kind: "own.Own"}}))
    told = refused(lambda: open_task(make_job(model, write_csv(tmp_path / "t.csv"))))
    assert f"{file} names code: auto_map" in told
    assert not trap.exists()


def calls() -> list[tuple[str, ast.Call]]:
    """Calls of everything that loads a model, a configuration or a tokenizer, in all that is shipped."""
    found = []
    for folder in ("trainer", "cli", "operator", "python", "crds", "bench"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            text = file.read_text()
            for node in ast.walk(ast.parse(text)) if re.search("from_pretrained|from_config|pipeline", text) else ():
                if isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    if name in {"from_pretrained", "from_config", "pipeline"}:
                        found.append((f"{file.relative_to(REPOSITORY)}:{node.lineno}", node))
    return found


def test_every_call_that_loads_a_model_says_that_no_code_is_trusted():
    found = calls()
    assert len(found) >= 7
    for place, call in found:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if (
            ast.unparse(call.func) == "PeftModel.from_pretrained"
        ):  # it has no such argument, and its base is loaded already
            continue
        trusted = given.get("trust_remote_code")
        assert isinstance(trusted, ast.Constant), place
        assert trusted.value is False, place


def test_the_trainers_image_never_asks_the_hub():
    stage = re.split(r"^FROM ", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)[-1]
    assert stage.startswith("python AS trainer")
    assert "HF_HUB_OFFLINE=1" in re.findall(r"^ENV (.*)$", stage, flags=re.MULTILINE)[0].split()


# Pictures and tables


@pytest.fixture
def images(tmp_path):
    image_folder(tmp_path / "images")
    timm_folder(tmp_path / "model")
    return make_job(tmp_path / "model", tmp_path / "images", task={"type": "ImageClassification"})


def named(tmp_path, *names: str):
    """A job whose table of pictures has these names, after some of its folder's own."""
    own = [f"images/{label}/{number},{label}" for label in ("blue", "red") for number in ("0.png", "1.png", "2.png")]
    (tmp_path / "t.csv").write_text("image,label\n" + "\n".join([*own, *(f"{name},red" for name in names)]) + "\n")
    return make_job(tmp_path / "model", tmp_path / "t.csv", task={"type": "ImageClassification"})


def test_a_picture_that_leads_out_is_refused(images, outside, tmp_path):
    link = tmp_path / "images" / "red" / "x.png"
    link.symlink_to(outside / "secret.png")
    assert "red/x.png leads to" in refused(lambda: open_task(images), reason="InvalidData")
    link.unlink()
    os.mkfifo(link)
    assert "red/x.png is a named pipe" in refused(lambda: open_task(images), reason="InvalidData")
    link.unlink()
    (tmp_path / "images" / "green").symlink_to(outside)
    assert "green leads to" in refused(lambda: open_task(images), reason="InvalidData")
    (tmp_path / "images" / "green").unlink()
    link.symlink_to("../blue/0.png")
    assert open_task(images).splits["train"] + open_task(images).splits["validation"] == 13


def test_a_folder_without_labels_is_closed_too(outside, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("b.png", "a.PNG", "._a.png", "notes.txt"):
        (flat / name).write_bytes(b"")
    job = make_job(tmp_path / "model", flat, task={"type": "ImageClassification"})

    def files():
        return unlabelled(job, job.data.train, "here")[0].inputs.to_pylist()

    assert files() == [f"{flat}/a.PNG", f"{flat}/b.png"]
    (flat / "c.png").symlink_to(outside / "secret.png")
    assert "c.png leads to" in refused(files, reason="InvalidData")
    (flat / "c.png").unlink()
    os.mkfifo(flat / "c.png")
    assert "c.png is a named pipe" in refused(files, reason="InvalidData")


@pytest.mark.parametrize("name", ["../secret.png", "{outside}/secret.png", "images/pipe"])
def test_a_table_names_pictures_below_its_own_folder(images, tmp_path, name):
    outside = tmp_path.parent
    shutil.copy(tmp_path / "images" / "red" / "0.png", outside / "secret.png")
    os.mkfifo(tmp_path / "images" / "pipe")
    told = refused(lambda: open_task(named(tmp_path, name.format(outside=outside))), reason="InvalidData")
    assert "row 7, column 'image': " in told
    assert ("is a named pipe" if name == "images/pipe" else f"leads to {outside}/secret.png") in told


def test_a_table_that_is_no_regular_file_keeps_nobody_waiting(model, tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    told = refused(lambda: open_task(make_job(model, tmp_path / "t.csv")), reason="InvalidData")
    assert "t.csv is a named pipe" in told


# Pins


def test_the_pins_of_a_text_model_are_the_files_that_are_loaded(model, tmp_path):
    job = make_job(model, write_csv(tmp_path / "t.csv"))
    (model / "README.txt").write_text("of no matter")
    (model / "other.safetensors").write_bytes(b"of no matter")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    files = open_task(job).pins["base"]["files"]
    loaded = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert set(files) == loaded | ({"vocab.txt"} & set(files))
    assert files["model.safetensors"] == hash_file(model / "model.safetensors")
    random = make_job(model, tmp_path / "t.csv", model={"initialization": "Random"})
    assert "model.safetensors" not in open_task(random).pins["base"]["files"]


def test_the_pins_of_pictures_are_the_pictures_that_are_read(images, tmp_path):
    before = open_task(images).pins
    assert set(before["base"]["files"]) == {"config.json", "model.safetensors"}
    (tmp_path / "images" / "Thumbs.db").write_text("x")
    (tmp_path / "images" / "red" / ".hidden.png").write_text("x")
    assert open_task(images).pins == before
    table = open_task(named(tmp_path)).pins
    assert table["data"]["train"]["sha256"] == hash_file(tmp_path / "t.csv")
    with (tmp_path / "images" / "red" / "1.png").open("ab") as file:
        file.write(b"\0")
    assert open_task(named(tmp_path)).pins != table


def test_a_run_of_an_earlier_version_resumes_on_what_it_pinned(images, tmp_path):
    (tmp_path / "model" / "README.txt").write_text("pinned then, not loaded")
    (tmp_path / "images" / "Thumbs.db").write_text("x")
    now = open_task(images).pins
    then = first_pins(images, now)
    assert "README.txt" in then["base"]["files"]
    identity = Identity("job", now, lambda: first_pins(images, now))
    identity.require({"fingerprint": "job", "pins": then}, Path("/run"))
    identity.require({"fingerprint": "job", "pins": now}, Path("/run"))
    (tmp_path / "images" / "Thumbs.db").write_text("xy")
    refused(lambda: identity.require({"fingerprint": "job", "pins": then}, Path("/run")), reason="DataChanged")
    identity.require({"fingerprint": "job", "pins": now}, Path("/run"))
