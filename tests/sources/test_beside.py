"""The container that fetches for a trainer's: it does so for the job's own sources alone, until it is told that they are here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import stores
from tests.hub import serve
from tests.hub.asking import MODEL, WEIGHTS
from tests.trainer.engine_group import pods_job
from unfreeze_api.contracts.progress import FETCHER_ENV, JOB_FILE_ENV
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources import asking
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.schemes import fetch_sources, gs, pin_sources
from unfreeze_trainer.sources.wanted import Bringing, Wanted, sources_of

pytestmark = pytest.mark.slow  # each starts the process itself

TOKEN = "hf_planted0123456789"
WAIT_SECONDS = 60


@pytest.fixture
def hub():
    with serve() as served:
        yield served


def job_of(folder: Path, source: str, path: str):
    job = pods_job(folder / "run", 1024)
    return job.model_copy(update={"model": job.model.model_copy(update={"source": source, "path": path})})


@contextmanager
def beside(folder: Path, job, monkeypatch, **environment: str):
    """Run the container's process; what asks it has no credentials, and no server in its environment."""
    (folder / "job.json").write_text(job.to_json())
    (folder / "tmp").mkdir(exist_ok=True)
    address = str(folder / "socket")
    given = os.environ | {JOB_FILE_ENV: str(folder / "job.json"), FETCHER_ENV: address, "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "unfreeze_trainer.sources"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, env=given | environment, stderr=log)
    monkeypatch.setenv(FETCHER_ENV, address)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0, "it ends at once when it is asked to"


def raw(folder: Path, request) -> list[str]:
    """Return what the process answers to a request."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "socket"))
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as file:
            return file.readlines()


def test_it_fetches_what_the_job_names_tells_how_far_it_is_and_then_answers_no_more(tmp_path, hub, monkeypatch):
    hub.valid_tokens = {TOKEN}
    commit = hub.model("org/bert", MODEL, token=TOKEN).refs["main"]
    hub.model("org/other", MODEL, token=TOKEN)
    cache = tmp_path / "cache"
    job = job_of(tmp_path, "hf://org/bert", f"{cache}/models--org--bert/snapshots/main")
    told = []
    how = Bringing(tell=lambda *one: told.append(one), patience=0)
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN) as process:
        pins = pin_sources(job, how, {})
        brought = fetch_sources(job, how, pins)
        assert brought.model.path == f"{cache}/models--org--bert/snapshots/{commit}"
        assert (Path(brought.model.path) / "model.safetensors").read_bytes() == WEIGHTS
        assert told[-1][0].startswith(("fetching hf://org/bert", "checking hf://org/bert"))
        assert told[-1][2] == pins["hf://org/bert"].size

        (wanted,) = [one for one in sources_of(job) if one.is_model]
        request = {"what": "fetch", "scheme": "hf", "pins": {}, "cache": "/", "pod": True, "patience": 0}
        other = {"field": "f", "source": "hf://org/other", "path": f"{cache}/x/snapshots/y", "is_model": True}
        assert raw(tmp_path, request | {"wanted": [other]}) == [], "it is none of the job's"
        own = request | {"what": "pin", "wanted": [asking.dataclasses.asdict(wanted)]}
        for odd in ([], {"what": "pin"}, own | {"pins": []}, own | {"what": "remove"}, own | {"wanted": []}):
            assert raw(tmp_path, odd) == []
        odd = {
            "source": wanted.source,
            "is_model": True,
            "weights": False,
            "path": "/x/snapshots/y",
            "of_a_later_version": 1,
        }
        (*_, answer) = raw(tmp_path, own | {"scheme": "s3", "wanted": [odd]})
        said = json.loads(answer)["result"]["hf://org/bert"]
        assert Pin.model_validate(said) == pins["hf://org/bert"], "what it says of a source is job.json's to say"
        assert not (cache / "models--org--other").exists()

        asking.release()
        (record,) = (cache / "models--org--bert" / "unfreeze").glob("*.json")
        assert Pin.model_validate_json(record.read_bytes()) == pins["hf://org/bert"]
        until(lambda: (tmp_path / "log").read_text().count("nothing more to do") == 1)
        assert not (tmp_path / "socket").exists()
        assert process.poll() is None, "Kubernetes would start it again"
        monkeypatch.setattr(asking, "_START_SECONDS", 0)
        with pytest.raises(RetryError, match="does not answer"):
            pin_sources(job, how, {})
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN):
        until(lambda: (tmp_path / "log").read_text().count("nothing more to do") == 2)  # started again it remembers
        with pytest.raises(RetryError, match="does not answer"):
            pin_sources(job, how, {})


def test_pins_that_it_has_not_made_itself_are_not_written_down_for_others(tmp_path, hub, monkeypatch):
    """sources.json of a run folder is written by what trains."""
    repository = hub.model("org/bert", MODEL)
    cache = tmp_path / "cache"
    job = job_of(tmp_path, "hf://org/bert", f"{cache}/models--org--bert/snapshots/main")
    how = Bringing(patience=0)
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url):
        old = pin_sources(job, how, {})
        repository.commit(MODEL | {"model.safetensors": WEIGHTS + b"newer"})
        new = pin_sources(job, how, {})
        assert old["hf://org/bert"].revision != new["hf://org/bert"].revision
        fetch_sources(job, how, old)
        assert not list((cache / "models--org--bert" / "unfreeze").glob("*.json"))
        fetch_sources(job, how, new)
        (record,) = (cache / "models--org--bert" / "unfreeze").iterdir()
        assert Pin.model_validate_json(record.read_bytes()) == new["hf://org/bert"]


def test_what_was_looked_up_before_a_container_ended_is_brought_and_written_down_by_the_next(
    tmp_path, hub, monkeypatch
):
    repository = hub.model("org/bert", MODEL)
    cache = tmp_path / "cache"
    job = job_of(tmp_path, "hf://org/bert", f"{cache}/models--org--bert/snapshots/main")
    how = Bringing(patience=0)
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url):
        pins = pin_sources(job, how, {})
    repository.commit(MODEL | {"model.safetensors": WEIGHTS + b"newer"})
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url):
        brought = fetch_sources(job, how, pins)
    assert (Path(brought.model.path) / "model.safetensors").read_bytes() == WEIGHTS
    (record,) = (cache / "models--org--bert" / "unfreeze").iterdir()
    assert Pin.model_validate_json(record.read_bytes()) == pins["hf://org/bert"]
    offline = Bringing(cache=str(cache), offline=True)
    assert pin_sources(job, offline, {}) == pins, "what it stood for when it was last fetched"


def test_a_pin_of_a_run_folder_takes_nothing_from_what_other_jobs_read(tmp_path, hub, monkeypatch):
    """sources.json is written by what trains: one that names other hashes must not have the right files removed."""
    hub.model("org/bert", MODEL)
    cache = tmp_path / "cache"
    job = job_of(tmp_path, "hf://org/bert", f"{cache}/models--org--bert/snapshots/main")
    how = Bringing(patience=0)
    with beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url):
        pins = pin_sources(job, how, {})
        root = Path(fetch_sources(job, how, pins).model.path)
        (pin,) = pins.values()
        file = pin.files["model.safetensors"].model_copy(update={"hash": f"sha256:{'0' * 64}"})
        harm = pin.model_copy(update={"files": pin.files | {"model.safetensors": file}})
        with pytest.raises(
            JobError, match=r"pinned with in sources\.json of the run.*what the cache has was left"
        ) as caught:
            fetch_sources(job, how, {"hf://org/bert": harm})
        assert caught.value.reason == "DataChanged"
        assert (root / "model.safetensors").read_bytes() == WEIGHTS
        hub.corrupt["model.safetensors"] = 9
        (root / "model.safetensors").resolve().write_bytes(b"x" * len(WEIGHTS))
        with pytest.raises(JobError, match=f"the hub lists for it.*removed from {cache}"):
            fetch_sources(job, how, pins)
        assert not (root / "model.safetensors").exists(), "what the hub's own pin does not fit is"


def test_errors_come_in_the_words_of_jobs(tmp_path, hub, monkeypatch):
    hub.model("org/bart", MODEL)
    job = job_of(tmp_path, "hf://org/bert", f"{tmp_path}/cache/models--org--bert/snapshots/main")
    with (
        beside(tmp_path, job, monkeypatch, HF_ENDPOINT=hub.url),
        pytest.raises(JobError, match=r"spec\.model\.source hf://org/bert: ") as caught,
    ):
        pin_sources(job, Bringing(patience=0), {})
    assert caught.value.reason == "NotFound"


def test_a_pin_of_a_store_that_is_not_named_by_its_content_puts_nothing_among_that_of_another(tmp_path, monkeypatch):
    with stores.s3(tmp_path / "s3") as url:
        stores.put(stores.s3_client(url), "models", {"bert/config.json": b"{}", "bert/model.safetensors": WEIGHTS})
        path = str(tmp_path / "cache/s3--models/snapshots/listed/bert")
        job = job_of(tmp_path, "s3://models/bert", path)
        how = Bringing(patience=0)
        with beside(tmp_path, job, monkeypatch, **stores.environment_of("s3", url)):
            (pin,) = pin_sources(job, how, {}).values()
            root = tmp_path / "cache/s3--models/snapshots" / pin.revision
            stores.put(stores.s3_client(url), "models", {"bert/model.safetensors": b"another training"})
            files = pin.files | {"bert/model.safetensors": pin.files["bert/config.json"]}
            with pytest.raises(JobError, match="is not as it was made"):
                fetch_sources(job, how, {"s3://models/bert": pin.model_copy(update={"files": files})})
            assert (root / "bert/model.safetensors").read_bytes() == WEIGHTS


def test_a_configuration_that_a_job_names_has_nothing_started(tmp_path, monkeypatch):
    """The client of S3 runs what `credential_process` names: that of a pod reads no such file."""
    trap = tmp_path / "started"
    config = tmp_path / "home" / ".aws" / "config"
    config.parent.mkdir(parents=True)
    config.write_text(f"[default]\ncredential_process = /usr/bin/touch {trap}\n")
    with stores.s3(tmp_path / "s3") as url:
        stores.put(stores.s3_client(url), "models", {"bert/config.json": b"{}", "bert/model.safetensors": WEIGHTS})
        public = {name: value for name, value in stores.environment_of("s3", url).items() if "KEY" not in name}
        for name, value in (public | {"HOME": str(config.parents[1]), "AWS_CONFIG_FILE": str(config)}).items():
            monkeypatch.setenv(name, value)
        for pod in (False, True):
            trap.unlink(missing_ok=True)
            place = str(tmp_path / "cache" / str(pod) / "s3--models/snapshots/listed/bert")
            how = Bringing(patience=0, stores=None if pod else str(tmp_path / "own"))
            wanted = [Wanted("spec.model.source", "s3://models/bert", place, is_model=True)]
            with pytest.raises(JobError):  # nobody's rights, or those of a command that gives none
                asking.ask("pin", wanted, {}, how, scheme="s3", cache=how.stores)
            assert trap.exists() is not pod


def until(condition):
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_key_file_that_a_job_names_is_not_read_for_google(tmp_path, monkeypatch):
    (login := tmp_path / gs._LOGIN).parent.mkdir(parents=True)
    login.write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
    gs.prepare("", pod=False, offline=False)
    assert os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
    gs.prepare("", pod=True, offline=False)
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
    assert not (Path.home() / gs._LOGIN).exists()
