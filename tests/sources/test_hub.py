"""Models and data of a hub, by the real huggingface_hub against the small hub of tests/hub: whole, pinned, or an error that says why."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub import serve
from tests.hub.asking import MODEL, WEIGHTS, names_in
from tests.hub.asking import Client as Asking
from tests.hub.asking import start as begin
from unfreeze_trainer.errors import JobError, RetryError
from unfreeze_trainer.sources.schemes import hf
from unfreeze_trainer.sources.wanted import Bringing, Wanted

pytestmark = pytest.mark.slow
TOKEN = "hf_planted0123456789"


class Client(Asking):
    """Knows the hub that it asks."""

    def __init__(self, hub, process, cache):
        super().__init__(process, cache)
        self.hub = hub

    def asked(self):
        return [(method, path) for method, path, _ in self.hub.asked]


def start(url, *, token=None):
    return begin(HF_ENDPOINT=url, HF_HUB_DISABLE_TELEMETRY="1", **({"HF_TOKEN": token} if token else {}))


@pytest.fixture(scope="module")
def served():
    with serve() as hub:
        yield hub


@pytest.fixture(scope="module")
def processes(served):
    with start(served.url) as anonymous, start(served.url, token=TOKEN) as known:
        yield anonymous, known
        anonymous.stdin.close()
        known.stdin.close()


@pytest.fixture
def hub(served):
    served.__dict__.update(type(served)(url=served.url, store=served.store, valid_tokens={TOKEN}).__dict__)
    return served


@pytest.fixture
def client(hub, processes, tmp_path):
    return Client(hub, processes[0], tmp_path / "hub")


@pytest.fixture
def known(hub, processes, tmp_path):
    return Client(hub, processes[1], tmp_path / "hub")


def test_a_model_comes_whole_in_one_format_and_without_code(hub, client):
    hub.model("org/bert", MODEL)
    folder = client.fetch("hf://org/bert")
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.name == hub.models["org/bert"].refs["main"]


def test_a_branch_that_moves_changes_nothing_of_what_is_pinned(hub, client):
    repository = hub.model("org/bert", MODEL)
    pin = client.pin("hf://org/bert")
    repository.commit(MODEL | {"model.safetensors": b"another training"})
    assert (client.fetch("hf://org/bert", pin) / "model.safetensors").read_bytes() == WEIGHTS
    assert client.pin("hf://org/bert")["revision"] != pin["revision"]


def test_what_is_there_is_not_asked_for_again(hub, client):
    hub.model("org/bert", MODEL)
    pin = client.pin("hf://org/bert")
    client.fetch("hf://org/bert", pin)
    hub.asked.clear()
    client.fetch("hf://org/bert", pin)
    assert hub.asked == []


def test_a_model_of_timm_by_its_name(hub, client):
    commit = hub.model("timm/resnet18.a1_in1k", MODEL).refs["main"]
    assert client.fetch("timm://resnet18.a1_in1k").name == commit
    with pytest.raises(
        JobError, match=r"source timm://resnet18: the hub has no .*; did you mean timm/resnet18\.a1_in1k\?"
    ):
        client.pin("timm://resnet18")


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", "feature/x"])
def test_revisions(hub, client, revision):
    repository = hub.model("org/bert", MODEL)
    commit = repository.commit(MODEL | {"config.json": b'{"v": 1}'}, revision)
    assert client.fetch(f"hf://org/bert@{revision}").name == commit
    assert client.fetch(f"hf://org/bert@{commit}").name == commit


def test_only_the_shards_that_the_index_names_come(hub, client):
    index = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).encode()
    shards = {f"model-{number}-of-2.safetensors": WEIGHTS for number in (1, 2)}
    hub.model(
        "org/large", {"config.json": b"{}", "model.safetensors.index.json": index, "x.safetensors": b"x"} | shards
    )
    folder = client.fetch("hf://org/large")
    assert names_in(folder) == ["config.json", *sorted(shards), "model.safetensors.index.json"]


def test_random_weights_are_not_fetched(hub, client):
    hub.model("org/bert", MODEL)
    client.fetch("hf://org/bert", weights=False)
    assert not hub.sent["model.safetensors"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("train.parquet", ["train.parquet"]),
        ("parts/p-*.parquet", ["parts/p-0.parquet", "parts/p-1.parquet"]),
        ("parts", ["parts/p-0.parquet", "parts/p-1.parquet"]),
    ],
)
def test_of_data_the_file_the_folder_or_what_fits_the_pattern_comes(hub, client, path, found):
    names = ["train.parquet", "parts/p-0.parquet", "parts/p-1.parquet", "parts/notes.txt", "parts/load.py", ".git/x"]
    hub.dataset("org/words", {name: name.encode() for name in names})
    source = f"hf://datasets/org/words/{path}"
    assert sorted(client.pin(source)["files"]) == found
    place = client.fetch(source)
    assert str(place).endswith(f"/{path}")


def test_a_table_brings_the_pictures_beside_it(hub, client):
    hub.dataset("org/pets", {"a/t.csv": b"image,label\nx.png,1\n", "a/x.png": b"x", "b/y.png": b"y"})
    assert sorted(client.pin("hf://datasets/org/pets/a/t.csv", beside=True)["files"]) == ["a/t.csv", "a/x.png"]


# What goes wrong.


def test_a_connection_that_breaks_off_goes_on_where_it_was(hub, client):
    large = WEIGHTS * 240  # the client keeps what is broken off in blocks of 10 MiB
    hub.model("org/bert", MODEL | {"model.safetensors": large})
    hub.drops["model.safetensors"] = 1
    folder = client.fetch("hf://org/bert")
    assert (folder / "model.safetensors").read_bytes() == large
    assert len(large) < hub.sent["model.safetensors"] < 1.2 * len(large)


def test_a_file_that_ends_early_is_fetched_again(hub, client):
    hub.model("org/bert", MODEL)
    hub.short["model.safetensors"] = 1
    folder = client.fetch("hf://org/bert", patience=30)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert any(said["text"].startswith("waiting for the hub") for said in client.told)


def test_a_file_that_always_ends_early_is_no_file(hub, client):
    hub.model("org/bert", MODEL)
    hub.short["model.safetensors"] = 9
    with pytest.raises(RetryError, match="breaks off") as caught:
        client.fetch("hf://org/bert")
    assert caught.value.reason == "HubUnreachable"
    assert not list(client.cache.rglob("model.safetensors"))


def test_other_content_of_the_same_size_is_fetched_again(hub, client):
    hub.model("org/bert", MODEL)
    hub.corrupt["model.safetensors"] = 1
    assert (client.fetch("hf://org/bert") / "model.safetensors").read_bytes() == WEIGHTS


def test_an_address_that_is_no_longer_good_is_asked_for_again(hub, client):
    hub.model("org/bert", MODEL)
    hub.expired["model.safetensors"] = 1
    assert (client.fetch("hf://org/bert", patience=30) / "model.safetensors").read_bytes() == WEIGHTS
    hub.model("org/other", MODEL | {"model.safetensors": b"others"})
    hub.expired["model.safetensors"] = 9
    with pytest.raises(RetryError) as caught:
        client.fetch("hf://org/other")
    assert caught.value.reason == "HubUnreachable"


def test_a_cache_behind_a_link(hub, client, tmp_path):
    hub.model("org/bert", MODEL)
    (tmp_path / "disk").mkdir()
    client.cache.symlink_to(tmp_path / "disk")
    assert (client.fetch("hf://org/bert") / "model.safetensors").read_bytes() == WEIGHTS


def test_content_that_never_fits_its_hash_is_refused_and_removed(hub, client):
    hub.model("org/bert", MODEL)
    hub.corrupt["model.safetensors"] = 9
    with pytest.raises(JobError, match=r"model\.safetensors of commit .* differs from the hash") as caught:
        client.fetch("hf://org/bert")
    assert caught.value.reason == "DataChanged"
    assert not list(client.cache.rglob("model.safetensors"))


@pytest.mark.parametrize(
    "harm", [lambda file: file.resolve().write_bytes(b"short"), lambda file: file.resolve().unlink()]
)
def test_what_has_been_harmed_in_the_cache_is_fetched_again(hub, client, harm):
    hub.model("org/bert", MODEL)
    pin = client.pin("hf://org/bert")
    harm(client.fetch("hf://org/bert", pin) / "model.safetensors")
    assert (client.fetch("hf://org/bert", pin) / "model.safetensors").read_bytes() == WEIGHTS


def test_two_processes_with_one_cache_fetch_once(hub, client, known):
    hub.model("org/bert", MODEL)
    pin = client.pin("hf://org/bert")
    with ThreadPoolExecutor(2) as pool:
        places = list(pool.map(lambda one: one.fetch("hf://org/bert", pin), (client, known)))
    assert places[0] == places[1]
    assert hub.sent["model.safetensors"] == len(WEIGHTS)


def test_a_second_job_with_the_same_cache_fetches_no_byte_of_weights(hub, client, known):
    hub.model("org/bert", MODEL)
    client.fetch("hf://org/bert")
    before = hub.sent.copy()
    assert (known.fetch("hf://org/bert") / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent == before


def test_a_process_that_was_killed_leaves_nothing_that_is_used(hub, client, tmp_path):
    hub.model("org/bert", MODEL)
    pin = client.pin("hf://org/bert")
    hub.drops["model.safetensors"] = 1  # the client waits a second before it goes on
    with start(hub.url) as process:
        other = Client(hub, process, client.cache)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(other.fetch, "hf://org/bert", pin)
            while not hub.sent["model.safetensors"]:
                time.sleep(0.01)
            process.kill()
            with pytest.raises(ValueError, match="Expecting value"):
                asked.result()
    assert not list(client.cache.rglob("model.safetensors"))
    assert (client.fetch("hf://org/bert", pin) / "model.safetensors").read_bytes() == WEIGHTS


def test_not_found_has_the_nearest_names(hub, client):
    hub.model("org/bert-base", MODEL)
    with pytest.raises(
        JobError, match=r"has no http.*org/bert-bse; did you mean org/bert-base\? If it is private"
    ) as caught:
        client.pin("hf://org/bert-bse")
    assert caught.value.reason == "NotFound"
    assert caught.value.message.startswith("spec.model.source hf://org/bert-bse: ")


def test_a_file_that_is_not_there_has_the_nearest_names(hub, client):
    hub.dataset("org/words", {"train.csv": b"x"})
    with pytest.raises(JobError, match=r"trian.csv is not among its files; there are train.csv") as caught:
        client.pin("hf://datasets/org/words/trian.csv")
    assert caught.value.reason == "NotFound"


def test_a_revision_that_there_is_not(hub, client):
    hub.model("org/bert", MODEL).commit(MODEL, "v2")
    with pytest.raises(JobError, match=r"has no v3; there are main, v2\.$") as caught:
        client.pin("hf://org/bert@v3")
    assert caught.value.reason == "RevisionNotFound"
    with pytest.raises(JobError, match="written with all of its 40 digits"):
        client.pin("hf://org/bert@0123abc")


def test_a_gated_repository(hub, client, known):
    hub.model("org/gated", MODEL, gated="hf_of_somebody_else")
    for one in (client, known):
        with pytest.raises(JobError, match=r"accept its conditions at http.*/org/gated, and give a token") as caught:
            one.fetch("hf://org/gated")
        assert caught.value.reason == "Gated"
    hub.models["org/gated"].gated = TOKEN
    assert known.fetch("hf://org/gated").is_dir()


def test_a_token_that_is_not_valid(hub, known):
    hub.model("org/bert", MODEL)
    hub.valid_tokens = set()
    with pytest.raises(JobError, match="refuses the token") as caught:
        known.pin("hf://org/bert")
    assert caught.value.reason == "Unauthorized"
    assert TOKEN not in caught.value.message


def test_a_private_repository_and_where_its_token_goes(hub, client, known):
    hub.model("org/secret", MODEL, token=TOKEN)
    with pytest.raises(JobError, match="If it is private, give a token") as caught:
        client.pin("hf://org/secret")
    assert caught.value.reason == "NotFound"
    hub.asked.clear()
    folder = known.fetch("hf://org/secret")
    assert {authorization for _, path, authorization in hub.asked if path.startswith("/lfs/")} == {None}
    assert {authorization for _, path, authorization in hub.asked if not path.startswith("/lfs/")} == {
        f"Bearer {TOKEN}"
    }
    for file in folder.parents[2].rglob("*"):
        assert TOKEN not in str(file)
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_does_not_answer_is_asked_again(hub, client, status):
    hub.model("org/bert", MODEL)
    hub.status += [status]
    with pytest.raises(RetryError) as caught:
        client.pin("hf://org/bert")
    assert caught.value.reason == "HubUnreachable"
    hub.status += [status]
    assert client.pin("hf://org/bert", patience=30)["files"]


def test_nobody_listens(hub, processes, tmp_path):
    with start("http://127.0.0.1:9") as process:
        with pytest.raises(RetryError, match="cannot be reached") as caught:
            Client(hub, process, tmp_path).pin("hf://org/bert")
        process.stdin.close()
    assert caught.value.reason == "HubUnreachable"


def test_what_does_not_fit_on_the_disk_is_not_begun(hub, client):
    hub.model("org/huge", MODEL)
    hub.sizes["model.safetensors"] = 1 << 60
    with pytest.raises(RetryError, match=r"1,073,741,824\.0 GiB are to be fetched, and .* left") as caught:
        client.fetch("hf://org/huge")
    assert caught.value.reason == "DiskFull"
    assert not hub.sent


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/../../b", "a\\b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(hub, client, name):
    hub.model("org/evil", MODEL)
    hub.names["tokenizer.json"] = name
    with pytest.raises(JobError, match="which is no path below a folder"):
        client.pin("hf://org/evil")


# Without a network.


def test_offline_takes_what_was_fetched(hub, client):
    repository = hub.model("org/bert", MODEL)
    folder = client.fetch("hf://org/bert")
    repository.commit(MODEL | {"config.json": b"newer"})
    hub.asked.clear()
    assert client.fetch("hf://org/bert", offline=True) == folder
    assert hub.asked == []


def test_offline_says_what_is_missing(hub, client):
    hub.model("org/bert", MODEL)
    with pytest.raises(JobError, match="has never been fetched into the cache") as caught:
        client.pin("hf://org/bert", offline=True)
    assert caught.value.reason == "NotCached"
    (client.fetch("hf://org/bert") / "tokenizer.json").unlink()
    with pytest.raises(JobError, match=r"lacks tokenizer\.json of commit [0-9a-f]{40}, 2 B: run `unfreeze fetch FILE`"):
        client.fetch("hf://org/bert", offline=True)


def test_a_config_of_the_card_comes_with_all_of_its_splits(hub, client):
    card = b"---\nconfigs:\n- {config_name: de, data_files: [{split: train, path: de/t*}, {split: test, path: de/e*}]}\n- {config_name: fr, data_files: fr/*}\n---\n"
    files = {"README.md": card, "de/t.parquet": b"1", "de/e.parquet": b"2", "de/notes.txt": b"", "fr/t.parquet": b"3"}
    hub.dataset("org/words", files)
    pin = client.pin("hf://datasets/org/words/de")
    assert sorted(pin["files"]) == ["README.md", "de/e.parquet", "de/t.parquet"]
    assert names_in(client.fetch("hf://datasets/org/words/de", pin)) == ["e.parquet", "t.parquet"]
    with pytest.raises(JobError, match="has 2 configs, de, fr: name one, as in hf://datasets/org/words/de"):
        client.pin("hf://datasets/org/words")


def test_through_a_proxy_comes_what_cannot_be_reached_otherwise(hub, tmp_path, monkeypatch):
    """The hub is the proxy too: it takes no note of the host that a request names."""
    hub.model("org/bert", MODEL)
    monkeypatch.setattr(hub, "store", "http://store.example")
    through = {"HTTP_PROXY": hub.url, "NO_PROXY": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with begin(HF_ENDPOINT="http://hub.example", **through) as process:
        folder = Client(hub, process, tmp_path / "hub").fetch("hf://org/bert")
        process.stdin.close()
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


HARMS = {
    "other content": lambda file, _: file.resolve().write_bytes(WEIGHTS[::-1]),
    "half of it": lambda file, _: file.resolve().write_bytes(WEIGHTS[:9]),
    "not there": lambda file, _: file.unlink(),
    "a link that leads out": lambda file, outside: (file.unlink(), file.symlink_to(outside)),
    "not written down": lambda file, _: [one.unlink() for one in (file.parents[2] / "unfreeze").iterdir()],
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_lies_in_the_cache_as_it_is_pinned_is_taken_without_a_process(hub, tmp_path, monkeypatch, harm):
    (tmp_path / "outside").write_bytes(WEIGHTS)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    hub.model("org/there", MODEL)
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    how, wanted = Bringing(cache=str(tmp_path / "link"), patience=0), [Wanted("m", "hf://org/there", "", is_model=True)]
    pins = hf.pin(wanted, how)
    first = hf.fetch(wanted, pins, how)
    asked = []
    monkeypatch.setattr(hf, "ask", lambda what, some, *_, **__: asked.append((what, *some)) or {"hf://org/there": "x"})
    assert hf.fetch(wanted, pins, how) == first
    assert asked == []
    HARMS[harm](Path(first["hf://org/there"], "model.safetensors"), tmp_path / "outside")
    assert hf.fetch(wanted, pins, how) == {"hf://org/there": "x"}
    assert asked == [("fetch", *wanted)]
