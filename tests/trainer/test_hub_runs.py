"""`unfreeze run` of the examples whose model and data lie at a hub or in a store, against servers of this machine; then without."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from tests import stores
from tests.docs.documents import blocks
from tests.hub import serve
from tests.trainer.jobs import (
    WORDS,
    audio_folder,
    audio_model,
    bert_folder,
    image_folder,
    image_model,
    make_job,
    timm_folder,
    write_csv,
)
from tests.trainer.ranks import run_gang
from tests.trainer.test_local import write_bert
from tests.trainer.whole_worker import work
from unfreeze_trainer.commands.finished import find_model
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.schemes import fetch_sources, pin_sources
from unfreeze_trainer.sources.wanted import Bringing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "examples/sources"
EXAMPLE = EXAMPLES / "hub.yaml"
MODEL, DATA = "sentence-transformers/all-MiniLM-L6-v2", "stanfordnlp/imdb"
TOKEN = "hf_planted0123456789"
PROGRAM = "from unfreeze_api.cli import main; main()"


def rows(count):
    sink = pa.BufferOutputStream()
    texts = [" ".join((WORDS[n % 2], WORDS[n % 3])) for n in range(count)]
    parquet.write_table(pa.table({"text": texts, "label": [n % 2 for n in range(count)]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "bert"
    write_bert(folder)
    with serve() as served:
        served.valid_tokens = {TOKEN}
        repository = served.model(MODEL, {file.name: file.read_bytes() for file in folder.iterdir()}, token=TOKEN)
        served.first = repository.refs["main"]
        parts = {f"plain_text/train-0000{part}-of-00002.parquet": rows(32) for part in (0, 1)}
        served.dataset(DATA, parts | {"plain_text/test-00000-of-00001.parquet": rows(16)})
        yield served


def unfreeze(folder, hub, *command, example=EXAMPLE, claims=None, **more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "AWS_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN} if hub else {}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")} | more
    name, *options = command
    claims = ("--claims", str(folder)) if claims is None else claims
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(example), *claims, *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_the_example_runs_and_keeps_its_commits(hub, tmp_path):
    nothing = unfreeze(tmp_path, hub, "run", "--offline")
    assert nothing.returncode == 2
    assert f"NotCached: spec.model.source hf://{MODEL}: offline, and it has never been fetched" in nothing.stderr
    assert hub.asked == []

    first = unfreeze(tmp_path, hub, "run")
    assert first.returncode == 0, first.stdout + first.stderr
    run = tmp_path / "results" / "hub"
    report = json.loads((run / "report.json").read_text())
    commit = hub.models[MODEL].refs["main"]
    assert report["base"]["revision"] == commit
    assert report["data"]["splits"] | {} == {"train": 58, "validation": 6, "test": 16}
    pinned = json.loads((run / "sources.json").read_text())["sources"]
    assert pinned[f"hf://{MODEL}"]["revision"] == commit
    assert len(pinned[f"hf://datasets/{DATA}/plain_text/train-*.parquet"]["files"]) == 2
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file

    hub.models[MODEL].commit({"config.json": b"{}"})
    hub.asked.clear()
    again = unfreeze(tmp_path, hub, "run", "--offline")
    assert again.returncode == 0, again.stdout + again.stderr
    assert hub.asked == []

    shutil.rmtree(tmp_path / "home")
    fetched = unfreeze(tmp_path, hub, "run")
    assert fetched.returncode == 0, "the commit of the run is fetched again, not what the branch has now"
    assert json.loads((run / "report.json").read_text()) == report


def test_fetch_fills_the_cache_once(hub, tmp_path):
    hub.models[MODEL].commit({"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    said = unfreeze(tmp_path, hub, "fetch", claims=())  # of what lies on a claim nothing is asked
    assert said.returncode == 0, said.stderr
    assert f"hf://{MODEL}: commit {hub.models[MODEL].refs['main']}, 2 files, 23 B" in said.stdout
    before = hub.sent.copy()
    assert unfreeze(tmp_path, hub, "fetch").returncode == 0
    assert hub.sent == before


def test_what_the_document_has_typed_where_there_is_no_network(hub, tmp_path):
    """Fetch, take along, name by its path; and the cache with its links, for a claim."""
    (job,) = yaml.safe_load_all(EXAMPLE.read_text())
    (tmp_path / "job.yaml").write_text(EXAMPLE.read_text())
    (tmp_path / "claim").mkdir()
    said = [block.text for block in blocks() if block.file.name == "sources.md" and "HF_HOME=cache" in block.text]
    assert len(said) == 2
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "AWS_"))}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def type_in(text):
        done = subprocess.run(
            ["bash", "-eu", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    claim, carried = said
    fetched = type_in(claim.replace("/mnt/claim", "claim"))
    links = [file for file in (tmp_path / "claim").rglob("*") if file.is_symlink()]
    assert len(links) >= len(hub.models[MODEL].commits[hub.models[MODEL].refs["main"]])
    assert all(link.resolve(strict=True).is_relative_to(tmp_path / "claim") for link in links)
    commits = {
        owner.partition("/")[2]: commit
        for owner, commit in re.findall(r"^hf://(?:datasets/)?(\S+?): commit (\w{40}),", fetched, re.MULTILINE)
    }
    assert commits, fetched
    for line in carried.splitlines()[1:]:
        found = [commit for name, commit in commits.items() if f"--{name.split('/')[0]}/" in line]
        type_in(line.replace("COMMIT", found[0]) if "COMMIT" in line else line)
    names = {"model": "minilm", "train": "imdb/train-*.parquet", "test": "imdb/test-*.parquet"}
    job["spec"]["model"]["source"] = f"pvc://carried/{names['model']}"
    for split in ("train", "test"):
        job["spec"]["data"][split]["source"] = f"pvc://carried/{names[split]}"
    (tmp_path / "carried.yaml").write_text(yaml.safe_dump(job))
    assert "valid" in type_in("unfreeze validate carried.yaml --claims .")


def test_the_example_of_a_store_runs_and_knows_what_it_began_with(tmp_path):
    write_bert(tmp_path / "bert")
    with stores.s3(tmp_path / "s3") as url:
        client, known = stores.s3_client(url), stores.environment_of("s3", url)
        stores.put(
            client, "acme-models", {f"minilm/{file.name}": file.read_bytes() for file in (tmp_path / "bert").iterdir()}
        )
        stores.put(client, "acme-data", {f"reviews/train-{part}.parquet": rows(32) for part in (0, 1)})
        example = EXAMPLES / "store.yaml"
        first = unfreeze(tmp_path, None, "run", example=example, **known)
        assert first.returncode == 0, first.stdout + first.stderr
        run = tmp_path / "results" / "store"
        pinned = json.loads((run / "sources.json").read_text())["sources"]
        assert set(pinned["s3://acme-data/reviews/train-*.parquet"]["files"]) == {
            f"reviews/train-{n}.parquet" for n in (0, 1)
        }
        fetched = unfreeze(tmp_path, None, "fetch", example=example, **known)
        assert "s3://acme-models/minilm: 5 files, " in fetched.stdout, fetched.stderr
        shutil.rmtree(tmp_path / "cache")
        stores.put(client, "acme-data", {"reviews/train-1.parquet": rows(30)})
        changed = unfreeze(tmp_path, None, "run", example=example, **known)
    assert changed.returncode == 2
    assert (
        "DataChanged: spec.data.train.source s3://acme-data/reviews/train-*.parquet: reviews/train-1.parquet is no"
        in changed.stderr
    )
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or stores.SECRET.encode() not in file.read_bytes(), file


def test_a_config_of_a_data_set_is_trained_and_measured_by_its_splits(hub, tmp_path):
    card = b"""---
configs:
- config_name: short
  data_files: [{split: train, path: parts/a-*}, {split: dev, path: parts/dev.parquet}]
- {config_name: long, data_files: "*.csv"}
dataset_info:
  config_name: short
  features: [{name: label, dtype: {class_label: {names: {'0': no, '1': 'yes'}}}}]
---
"""
    files = {
        "README.md": card,
        "parts/a-0.parquet": rows(24),
        "parts/a-1.parquet": rows(8),
        "parts/dev.parquet": rows(10),
    }
    hub.dataset("org/words", files | {"other.csv": b"text,label\n"})
    source = {"source": "hf://datasets/org/words/short"}
    job = yaml.safe_load(EXAMPLE.read_text())
    job["spec"]["data"] = {"train": source, "validation": source}
    job["spec"]["model"] = {"source": f"hf://{MODEL}@{hub.first}"}
    job["spec"]["output"] = {"destination": "run"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = unfreeze(tmp_path, hub, "run", example=tmp_path / "job.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["data"]["splits"] == {"train": 32, "validation": 10}
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"}
    pinned = json.loads((tmp_path / "run" / "sources.json").read_text())["sources"]
    assert sorted(pinned[source["source"]]["files"]) == [
        "README.md",
        "parts/a-0.parquet",
        "parts/a-1.parquet",
        "parts/dev.parquet",
    ]


def files_of(folder, below=""):
    """Return what a repository of a folder's files has."""
    return {f"{below}{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def sharded_bert(folder):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(bert_folder(folder))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    assert (folder / "model.safetensors.index.json").exists()


PICTURES = {"task": {"type": "ImageClassification", "imageClassification": {"imageSize": 32}}}
CLIPS = {"task": {"type": "AudioClassification", "audioClassification": {"maxSeconds": 0.4}}}
LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
KINDS = {
    "ViT with its processor": ("hf://org/kind", image_model, image_folder, PICTURES, "preprocessor_config.json"),
    "timm": ("timm://kind", timm_folder, image_folder, PICTURES, "config.json"),
    "Whisper": (
        "hf://org/kind",
        lambda folder: audio_model(folder, "whisper"),
        audio_folder,
        CLIPS,
        "preprocessor_config.json",
    ),
    "sharded safetensors": ("hf://org/kind", sharded_bert, None, {}, "tokenizer.json"),
    "a LoRA adapter on a base": ("hf://org/kind", bert_folder, None, LORA, "adapter_config.json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_of_each_kind_is_fetched_trained_and_exported(ranks, tmp_path, monkeypatch, kind):
    source, write_model, write_data, change, file = KINDS[kind]
    write_model(tmp_path / "model")
    (write_data or (lambda folder: (folder.mkdir(), write_csv(folder / "t.csv"))))(tmp_path / "data")
    job = make_job(
        "/none",
        "/none",
        model={"source": source},
        data={"train": {"source": f"hf://datasets/org/kind/train{'' if write_data else '/t.csv'}"}},
        output={"destination": f"file://{tmp_path}/run"},
        **change,
    )
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    how = Bringing(cache=str(tmp_path / "cache"), patience=0)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.model("timm/kind" if source.startswith("timm") else "org/kind", files_of(tmp_path / "model"))
        hub.dataset("org/kind", files_of(tmp_path / "data", "train/"))
        brought = fetch_sources(job, how, pin_sources(job, how, {}))
    shutil.rmtree(tmp_path / "model")
    assert run_gang(1, work, brought, tmp_path / "log") == [0], (tmp_path / "log").read_text()[-3000:]
    [export] = json.loads((tmp_path / "run/report.json").read_text())["exports"]
    assert export["kind"] == ("Adapter" if "adapter" in change else "Model")
    assert (tmp_path / "run" / export["folder"] / file).is_file()
    if export["kind"] == "Adapter":
        commit, adapter = hub.models["org/kind"].refs["main"], tmp_path / "run" / export["folder"]
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("org/kind", commit)
        assert "org/kind" in (adapter / "README.md").read_text()
        assert str(tmp_path / "cache") not in (adapter / "README.md").read_text()
        with pytest.raises(JobError, match=f"org/kind, commit {commit} of a hub, whose cache here lacks it"):
            find_model(adapter, None)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        assert find_model(adapter, None).base == tmp_path / "cache/models--org--kind/snapshots" / commit
