"""Models and data in object stores, by pyarrow's clients against real servers: whole, pinned, or an error that says why."""

import base64
import hmac
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import stores
from tests.hub.asking import MODEL, WEIGHTS, Client, names_in, start
from unfreeze_trainer.errors import JobError, RetryError

pytestmark = pytest.mark.slow


def below(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def served(request, tmp_path_factory):
    scheme = request.param
    folder = tmp_path_factory.mktemp(scheme)
    server = stores.gs() if scheme == "gs" else getattr(stores, scheme)(folder)
    with server as url, start(**stores.environment_of(scheme, url)) as process:
        yield scheme, url, stores.client_of(scheme, url), process
        process.stdin.close()


@pytest.fixture
def store(served, tmp_path, request):
    """A bucket of the test's own: its source, what puts files there, and a client of the trainer."""
    scheme, _, client, process = served
    bucket = f"b{abs(hash(request.node.name)) % 10**12}"
    return f"{scheme}://{bucket}", lambda files: stores.put(client, bucket, files), Client(process, tmp_path / "cache")


def test_a_model_comes_whole_in_one_format_and_without_code(store):
    root, put, client = store
    put(below("models/bert", MODEL) | {"models/other.txt": b"x"})
    folder = client.fetch(f"{root}/models/bert")
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert client.told[-1]["text"] == f"checking {root}/models/bert"


def test_of_data_the_object_the_folder_or_what_fits_the_pattern_comes(store):
    root, put, client = store
    names = ["train.parquet", "parts/p-0.parquet", "parts/p-1.parquet", "parts/notes.txt", "parts/load.py", "t.csv"]
    put({name: name.encode() for name in names})
    parts = ["parts/p-0.parquet", "parts/p-1.parquet"]
    for path, found in {
        "train.parquet": ["train.parquet"],
        "parts/p-*.parquet": parts,
        "parts": ["parts/notes.txt", *parts],
    }.items():
        pin = client.pin(f"{root}/{path}", model=False)
        assert sorted(pin["files"]) == found
        assert str(client.fetch(f"{root}/{path}", pin, model=False)).endswith(f"/{path}")
    assert len(client.pin(f"{root}/parts/notes.txt", model=False, beside=True)["files"]) == 3
    with pytest.raises(JobError, match=r"trian\.parquet is not among its files; there are train\.parquet") as caught:
        client.pin(f"{root}/trian.parquet", model=False)
    assert caught.value.reason == "NotFound"


def test_what_is_pinned_is_the_content(store):
    root, put, client = store
    source = f"{root}/words.csv"
    put({"words.csv": b"text,label\na,1\n"})
    pin = client.pin(source, model=False)
    file = client.fetch(source, pin, model=False)
    digest = sha256(b"text,label\na,1\n").hexdigest()
    assert pin["files"]["words.csv"]["hash"] == f"sha256:{digest}"
    assert pin["files"]["words.csv"]["etag"]
    put({"words.csv": b"text,label\nb,1\n"})
    assert client.fetch(source, pin, model=False).read_bytes() == b"text,label\na,1\n", "the cache has it"
    assert client.pin(source, model=False)["revision"] != pin["revision"]
    file.unlink()
    with pytest.raises(JobError, match=r"words\.csv is no longer what it was when the run began") as caught:
        client.fetch(source, pin, model=False)
    assert caught.value.reason == "DataChanged"
    assert not file.exists()
    put({"words.csv": b"text,label\na,1\n"})
    assert client.fetch(source, pin, model=False) == file


def test_what_is_not_there(store):
    root, put, client = store
    with pytest.raises(JobError, match=r"nothing below models/bert|no bucket") as caught:
        client.pin(f"{root}/models/bert")
    assert caught.value.reason == "NotFound"
    put(below("models/bert", MODEL))
    with pytest.raises(JobError, match="has nothing below models/brt; there are models/bert") as caught:
        client.pin(f"{root}/models/brt")
    assert caught.value.reason == "NotFound"
    with pytest.raises(JobError, match=r"no config\.json") as caught:
        client.pin(f"{root}/models")
    assert caught.value.reason == "InvalidModel"


def test_what_has_been_harmed_in_the_cache_is_fetched_again_and_offline_said(store):
    root, put, client = store
    put(below("m", MODEL))
    with pytest.raises(JobError, match="has never been fetched into the cache") as caught:
        client.pin(f"{root}/m", offline=True)
    assert caught.value.reason == "NotCached"
    pin = client.pin(f"{root}/m")
    folder = client.fetch(f"{root}/m", pin)
    for harm in (lambda file: file.write_bytes(b"x" * len(WEIGHTS)), lambda file: file.unlink()):
        harm(folder / "model.safetensors")
        with pytest.raises(JobError, match=r"lacks m/model\.safetensors as they were pinned, 100\.0 KiB") as caught:
            client.fetch(f"{root}/m", pin, offline=True)
        assert caught.value.reason == "NotCached"
        assert (client.fetch(f"{root}/m", pin) / "model.safetensors").read_bytes() == WEIGHTS
    assert client.fetch(f"{root}/m", client.pin(f"{root}/m", offline=True), offline=True) == folder


def test_a_pattern_of_folders_and_no_weights(store):
    root, put, client = store
    put(below("m", MODEL))
    assert set(client.pin(f"{root}/m", weights=False)["files"]) == {"m/config.json", "m/tokenizer.json"}
    with pytest.raises(JobError, match="stand in the file's name alone"):
        client.pin(f"{root}/*/config.json", model=False)


def test_a_server_that_nobody_hears(tmp_path):
    with start(**stores.environment_of("s3", "http://127.0.0.1:9")) as process:
        with pytest.raises(RetryError, match=r"http://127\.0\.0\.1:9 cannot be reached, or breaks off") as caught:
            Client(process, tmp_path).pin("s3://bucket/m")
        process.stdin.close()
    assert caught.value.reason == "StoreUnreachable"


REFUSED = {
    "s3": [{"AWS_ACCESS_KEY_ID": "NOBODY"}, {"AWS_SECRET_ACCESS_KEY": "planted-and-wrong"}, {"AWS_ACCESS_KEY_ID": ""}],
    "az": [{"AZURE_STORAGE_ACCOUNT_KEY": "cGxhbnRlZA=="}, {"AZURE_STORAGE_ACCOUNT_KEY": ""}],
}


def test_credentials_that_the_store_refuses(served, tmp_path):
    scheme, url, client, _ = served
    stores.put(client, "closed", below("m", MODEL))
    with ExitStack() as stack:
        environments = [stores.environment_of(scheme, url) | change for change in REFUSED.get(scheme, ())]
        if scheme == "gs":  # the server of the tests takes everybody
            environments = [stores.environment_of(scheme, stack.enter_context(refusing()))]
        for environment in environments:
            process = stack.enter_context(start(HOME=str(tmp_path), **environment))
            with pytest.raises(JobError, match=r"credentials.*by the Secret in spec\.sources\.secretRef") as caught:
                Client(process, tmp_path).pin(f"{scheme}://closed/m")
            process.stdin.close()
            assert caught.value.reason == "Unauthorized"
            assert not [
                name for name in ("planted-and-wrong", stores.SECRET, stores.ACCOUNT_KEY) if name in str(caught.value)
            ]


@contextmanager
def refusing(seen=None):
    """Serve what lets nobody in; `seen` gets what each request shows."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.headers.get("Authorization") or "")
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_key_of_a_service_account_signs_and_lies_on_no_disk(tmp_path):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "a@p.iam.example", "private_key_id": "1"}
    key = json.dumps(account | {"private_key": private.decode(), "token_uri": "http://127.0.0.1:9"})
    seen = []
    with (
        refusing(seen) as url,
        start(STORAGE_EMULATOR_HOST=url, GOOGLE_SERVICE_ACCOUNT_KEY=key, HOME=str(tmp_path)) as process,
    ):
        with pytest.raises(JobError, match="refuses the credentials"):
            Client(process, tmp_path / "cache").pin("gs://closed/m")
        process.stdin.close()
    assert seen
    assert all(authorization.startswith("Bearer ey") for authorization in seen)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"PRIVATE" in file.read_bytes()]


def test_a_shared_access_signature_opens_a_container(tmp_path):
    fields = {
        "sv": "2021-06-08",
        "ss": "b",
        "srt": "sco",
        "sp": "rl",
        "se": "2099-01-01T00:00:00Z",
        "spr": "https,http",
    }
    signed = [
        stores.ACCOUNT,
        fields["sp"],
        fields["ss"],
        fields["srt"],
        "",
        fields["se"],
        "",
        fields["spr"],
        fields["sv"],
        "",
        "",
    ]
    mac = hmac.digest(base64.b64decode(stores.ACCOUNT_KEY), "\n".join(signed).encode(), "sha256")
    signature = urlencode(fields | {"sig": base64.b64encode(mac).decode()})
    with stores.az(tmp_path / "az") as url:
        stores.put(stores.client_of("az", url), "open", below("m", MODEL))
        known = stores.environment_of("az", url)
        del known["AZURE_STORAGE_ACCOUNT_KEY"]
        for sign in ("", "?"):  # with and without its mark
            with start(**known, AZURE_STORAGE_SAS_TOKEN=sign + signature) as process:
                folder = Client(process, tmp_path / f"cache{len(sign)}").fetch("az://open/m")
                process.stdin.close()
            assert (folder / "model.safetensors").read_bytes() == WEIGHTS


# Whatever the store: by S3.


@pytest.fixture(scope="module")
def relayed(tmp_path_factory):
    with stores.s3(tmp_path_factory.mktemp("relayed")) as url:
        relay = stores.Relay(url)
        yield relay, stores.s3_client(url)
        relay.close()


@pytest.fixture(scope="module")
def processes(relayed):
    environment = stores.environment_of("s3", relayed[0].url)
    with start(**environment) as one, start(**environment) as other:
        yield one, other
        one.stdin.close()
        other.stdin.close()


@pytest.fixture
def pair(processes, tmp_path):
    return [Client(process, tmp_path / "cache") for process in processes]


def test_what_is_there_is_not_fetched_again(relayed, pair):
    relay, client = relayed
    stores.put(client, "again", below("m", MODEL))
    pin = pair[0].pin("s3://again/m")
    assert relay.sent > len(WEIGHTS)
    relay.sent = 0
    pair[0].fetch("s3://again/m", pin)
    assert relay.sent == 0
    assert pair[1].pin("s3://again/m") == pin
    assert relay.sent < len(WEIGHTS) / 10


def test_a_connection_that_breaks_off_is_made_again(relayed, pair):
    relay, client = relayed
    stores.put(client, "broken", below("m", MODEL))
    relay.cut += [100, 5000, len(WEIGHTS) // 2, 200]
    folder = pair[0].fetch("s3://broken/m", pair[0].pin("s3://broken/m", patience=30))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not relay.cut


def test_two_processes_with_one_cache_fetch_once(relayed, pair):
    relay, client = relayed
    stores.put(client, "once", below("m", MODEL))
    relay.sent = 0
    with ThreadPoolExecutor(2) as pool:
        pins = list(pool.map(lambda one: one.pin("s3://once/m"), pair))
    assert pins[0] == pins[1]
    assert relay.sent < 1.5 * len(WEIGHTS)


def test_a_process_that_was_killed_leaves_nothing_that_is_used(relayed, pair, tmp_path):
    relay, client = relayed
    stores.put(client, "killed", {"big.csv": WEIGHTS * 200})
    relay.hold.clear()
    with start(**stores.environment_of("s3", relay.url)) as process, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(Client(process, tmp_path / "cache").pin, "s3://killed/big.csv", model=False)
        relay.hold.set()
        while not list(tmp_path.glob("cache/s3--killed/incoming/*")):
            assert not asked.done()
            time.sleep(0.001)
        process.kill()
        with pytest.raises(ValueError, match="Expecting value"):
            asked.result()
    assert not list(tmp_path.rglob("big.csv"))
    for left in tmp_path.glob("cache/s3--killed/incoming/**/*"):
        os.utime(left, (0, 0))
    for left in tmp_path.glob("cache/s3--killed/incoming/*"):
        os.utime(left, (0, 0))
    assert pair[0].fetch("s3://killed/big.csv", model=False).read_bytes() == WEIGHTS * 200
    assert not list(tmp_path.glob("cache/s3--killed/incoming/*"))


def test_another_region_is_said(relayed, tmp_path):
    relay, client = relayed
    stores.put(client, "region", {"t.csv": b"x"})
    with start(**stores.environment_of("s3", relay.url), AWS_REGION="eu-west-1") as process:
        with pytest.raises(JobError, match="name its region by AWS_REGION") as caught:
            Client(process, tmp_path).pin("s3://region/t.csv", model=False)
        process.stdin.close()
    assert caught.value.reason == "NotFound"


def test_nothing_of_the_credentials_lies_in_the_cache(relayed, pair):
    stores.put(relayed[1], "planted", below("m", MODEL))
    pair[0].fetch("s3://planted/m")
    for file in pair[0].cache.rglob("*"):
        assert not file.is_file() or stores.SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize("key", ["a\\b.csv", "a\nb.csv"])
def test_a_key_that_is_no_path_is_refused(relayed, pair, key):
    stores.put(relayed[1], "keys", {f"{len(key)}{ord(key[1])}/{key}": b"x"})
    with pytest.raises(JobError, match="which is no path below a folder"):
        pair[0].pin(f"s3://keys/{len(key)}{ord(key[1])}", model=False)
