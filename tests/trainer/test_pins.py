"""What a run started from is known by its hashes: a run does not go on from anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import hash_file, revision
from unfreeze_trainer.runs.checkpoints import Identity
from unfreeze_trainer.tasks import open_task

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def texts(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "model")
    write_csv(tmp_path / "texts.csv")
    return make_job(tmp_path / "model", tmp_path / "texts.csv")


@pytest.fixture
def images(tmp_path):
    image_folder(tmp_path / "images")
    timm_folder(tmp_path / "model")
    return make_job(tmp_path / "model", tmp_path / "images", task={"type": "ImageClassification"})


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def refused(job, before) -> str:
    after = open_task(job).pins
    with pytest.raises(JobError, match="was trained on other files") as told:
        Identity("job", after).require({"fingerprint": "job", "pins": before}, Path("/run"))
    assert told.value.reason == "DataChanged"
    return told.value.message.partition(": ")[2].partition(" changed since")[0]


def test_every_file_that_matters_has_its_hash(texts, tmp_path):
    pins = open_task(texts).pins
    assert pins["base"]["files"]["model.safetensors"] == hash_file(tmp_path / "model" / "model.safetensors")
    assert {"config.json", "tokenizer.json"} <= pins["base"]["files"].keys()
    assert pins["data"]["train"]["sha256"] == hash_file(tmp_path / "texts.csv")
    Identity("job", pins).require({"fingerprint": "job", "pins": open_task(texts).pins}, Path("/run"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_changed_bit_of_the_base_model_is_seen(texts, tmp_path, file):
    before = open_task(texts).pins
    if file == "model.safetensors":
        flip(tmp_path / "model" / file)
    else:
        (tmp_path / "model" / file).write_text((tmp_path / "model" / file).read_text() + "\n")
    assert refused(texts, before) == "base"


def test_changed_data_are_seen(texts, tmp_path):
    before = open_task(texts).pins
    text = (tmp_path / "texts.csv").read_text()
    (tmp_path / "texts.csv").write_text(text.replace("how", "who", 1))
    assert refused(texts, before) == "data"


def test_images_that_were_added_renamed_or_cut_short_are_seen(images, tmp_path):
    before = open_task(images).pins
    first, second, *_ = sorted((tmp_path / "images" / "red").iterdir())
    content = first.read_bytes()
    first.rename(first.with_name("x.png"))
    assert refused(images, before) == "data"
    shutil.copy(second, first)
    assert refused(images, before) == "data"
    first.with_name("x.png").unlink()
    first.write_bytes(content + b"\0")
    assert refused(images, before) == "data"
    first.write_bytes(content)
    assert open_task(images).pins == before


def test_the_revision_is_told_where_the_folder_knows_it(bert, tmp_path):
    assert revision(str(bert)) is None
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    shutil.copytree(bert, snapshot)
    (tmp_path / "link").symlink_to(snapshot)
    assert revision(str(tmp_path / "link")) == COMMIT
    plain = tmp_path / "plain"
    shutil.copytree(bert, plain)
    notes = plain / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "config.json.metadata").write_text(f"{COMMIT}\netag\n1700000000.0\n")
    assert revision(str(plain)) == COMMIT
    job = make_job(plain, tmp_path / "texts.csv")
    write_csv(tmp_path / "texts.csv")
    pins = open_task(job).pins
    assert pins["base"]["revision"] == COMMIT
    shutil.rmtree(plain / ".cache")
    Identity("job", open_task(job).pins).require({"fingerprint": "job", "pins": pins}, Path("/run"))
