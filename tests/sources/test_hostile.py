"""Repositories of a hub that mean harm: fetched by the real client, opened as a job does; refused by name, and nothing is run."""

import io
import json
import os
import resource
import struct

import pytest
import torch

from tests import stores
from tests.hub import serve
from tests.hub.asking import Client, start
from tests.trainer.jobs import bert_folder, decoder_folder, make_job, write_csv, write_dialogues
from tests.trainer.test_pictures import chunk
from unfreeze_trainer.data.pictures import PictureError, open_picture
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.models.image import load_image_model
from unfreeze_trainer.sources.closed import Closed
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mknod, (str(self._path),)


def pickled(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub():
    with serve() as served:
        yield served


@pytest.fixture(scope="module")
def process(hub):
    with start(HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1") as begun:
        yield begun
        begun.stdin.close()


@pytest.fixture
def client(process, tmp_path):
    return Client(process, tmp_path / "cache")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = bert_folder(tmp_path_factory.mktemp("bert") / "model")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def opened(folder, tmp_path):
    return open_task(make_job(folder, write_csv(tmp_path / "t.csv"), task={"textClassification": {"maxLength": 32}}))


def test_a_pickle_in_place_of_weights(hub, client, bert, tmp_path):
    trap = tmp_path / "it-ran"
    planted = pickled({"bert.pooler.dense.bias": Trap(trap)})
    files = {name: content for name, content in bert.items() if name != "model.safetensors"}
    hub.model("org/pickle", files | {"pytorch_model.bin": planted})
    folder = client.fetch("hf://org/pickle")
    with pytest.raises(
        JobError, match=r"a pickle that holds more than tensors \(.*mknod\): nothing of it was run"
    ) as caught:
        opened(folder, tmp_path).build_model()
    assert caught.value.reason == "InvalidModel"
    config = {"architecture": "resnet10t", "num_classes": 2, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    hub.model("timm/evil", {"config.json": json.dumps(config).encode(), "pytorch_model.bin": planted})
    with pytest.raises(JobError, match=r"a pickle that holds more than tensors \(.*mknod\): nothing of it was run"):
        load_image_model(
            str(client.fetch("timm://evil")),
            ["a", "b"],
            "spec.model.source timm://evil",
            image_size=None,
            field="",
            random=False,
            seed=0,
        )
    assert not trap.exists()


def test_code_of_a_repository_is_neither_fetched_nor_run(hub, client, bert, tmp_path):
    trap = tmp_path / "it-ran"
    config = json.loads(bert["config.json"]) | {"auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    own = f"open({str(trap)!r}, 'w')".encode()
    hub.model("org/code", bert | {"config.json": json.dumps(config).encode(), "own.py": own})
    folder = client.fetch("hf://org/code")
    assert not list(client.cache.rglob("own.py"))
    with pytest.raises(JobError, match=r"config\.json names code: auto_map") as caught:
        opened(folder, tmp_path)
    assert caught.value.reason == "InvalidModel"
    assert not trap.exists()


def test_a_chat_template_that_calls_out_is_not_rendered(hub, client, bert, tmp_path):
    trap = tmp_path / "it-ran"
    template = f"{{{{ cycler.__init__.__globals__.os.mknod({str(trap)!r}) }}}}"
    told = json.loads(bert["tokenizer_config.json"]) | {"chat_template": template}
    planted = {"tokenizer_config.json": json.dumps(told).encode(), "chat_template.jinja": template.encode()}
    hub.model("org/chat", bert | planted)
    opened(client.fetch("hf://org/chat"), tmp_path).build_model()
    assert not trap.exists()


def test_a_chat_template_that_calls_out_gets_nowhere_where_templates_are_rendered(hub, client, tmp_path):
    trap = tmp_path / "it-ran"
    template = f"{{{{ cycler.__init__.__globals__.os.mknod({str(trap)!r}) }}}}"
    plain = decoder_folder(tmp_path / "decoder", template=template)
    hub.model("org/decoder", {file.name: file.read_bytes() for file in plain.iterdir()})
    job = make_job(client.fetch("hf://org/decoder"), write_dialogues(tmp_path / "t.jsonl"), task={"type": "CausalLM"})
    with pytest.raises(JobError, match=r"row 1.*the chat template refuses it: .*unsafe") as caught:
        open_task(job)
    assert caught.value.reason == "InvalidData"
    assert not trap.exists()


def test_a_picture_of_2500_megapixels_in_a_data_set(hub, client):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    hub.dataset("org/pets", {"train/cat/x.png": content})
    folder = client.fetch("hf://datasets/org/pets/train")
    with pytest.raises(PictureError, match="pixels"):
        open_picture(Closed(folder, "spec.data.train.source", "InvalidData").path("cat/x.png"))


def test_a_link_out_of_a_snapshot_is_replaced_and_never_read(hub, client, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_bytes(b"{}")
    hub.model("org/link", {"config.json": b"{}", "model.safetensors": b"x" * 100})
    pin = client.pin("hf://org/link")
    config = client.fetch("hf://org/link", pin) / "config.json"
    for content in (b"{}", b"[]"):  # with the hash of what is wanted, and with another one
        outside.write_bytes(content)
        config.unlink()
        config.symlink_to(outside)
        folder = client.fetch("hf://org/link", pin)
        assert Closed(folder, "spec.model.source", "InvalidModel").path("config.json")
        assert config.resolve() != outside
        assert outside.read_bytes() == content


def test_a_link_in_place_of_an_index_is_not_read_either(hub, client, tmp_path):
    """The index of sharded weights is read before there is any pin."""
    index = {"weight_map": {"a": "model-1.safetensors"}}
    hub.model(
        "org/sharded",
        {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(), "model-1.safetensors": b"x"},
    )
    pin = client.pin("hf://org/sharded")
    planted = client.fetch("hf://org/sharded", pin) / "model.safetensors.index.json"
    (outside := tmp_path / "outside.json").write_text('{"weight_map": {"a": "elsewhere.safetensors"}}')
    planted.unlink()
    planted.symlink_to(outside)
    assert client.pin("hf://org/sharded") == pin
    assert planted.resolve() != outside
    assert outside.exists()


def test_a_folder_that_leads_out_of_a_snapshot_is_refused_and_left(hub, client, tmp_path):
    hub.dataset("org/deep", {"a/x.csv": b"text,label", "y.csv": b""})
    pin = client.pin("hf://datasets/org/deep")
    folder = client.fetch("hf://datasets/org/deep", pin)
    (folder / "a").rename(tmp_path / "a")
    (folder / "a").symlink_to(tmp_path / "a")
    with pytest.raises(JobError, match=r"a leads to .*nothing is read from outside") as caught:
        client.fetch("hf://datasets/org/deep", pin)
    assert caught.value.reason == "DataChanged"
    assert (tmp_path / "a" / "x.csv").is_symlink()


@pytest.mark.parametrize("scheme", ["hf", "s3"])
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(hub, tmp_path, scheme):
    weights = bytes(range(256)) * 4096
    files = {"config.json": b"{}", "model.safetensors": weights}
    with stores.s3(tmp_path / "s3") as url:
        if scheme == "s3":
            stores.put(stores.s3_client(url), "full", {f"m/{name}": content for name, content in files.items()})
        else:
            hub.model("org/full", files)
        source = {"hf": "hf://org/full", "s3": "s3://full/m"}[scheme]
        with start(HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET="1", **stores.environment_of("s3", url)) as process:
            client = Client(process, tmp_path / "cache")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
            with pytest.raises(RetryError, match=r"cache is full: make room there") as caught:
                client.fetch(source)
            assert caught.value.reason == "DiskFull"
            assert not list(tmp_path.glob("cache/**/model.safetensors"))
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert (client.fetch(source) / "model.safetensors").read_bytes() == weights
            process.stdin.close()
