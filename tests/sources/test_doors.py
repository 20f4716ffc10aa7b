"""A mirror and a proxy as docs/sources.md has them typed on a laptop and set on a cluster, by the real client, unpatched.

Both are of this machine: the mirror has a certificate of an authority of its own, and behind the proxy lies a hub whose certificate
is that of the hub's real name, which nothing but the proxy leads to.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.pki import Authority
from tests.docs.documents import blocks
from tests.hub import serve
from tests.hub.asking import LEADING, MODEL, WEIGHTS, Client, start
from tests.hub.proxy import serve_proxy
from tests.operator.fakes import IMAGE, job
from unfreeze_api.job import parse_spec
from unfreeze_operator.manifests.children import indexed_job
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.packing import pack, unpack
from unfreeze_operator.objects.resources import GangNames
from unfreeze_operator.settings.sources import opened, parse_sources

pytestmark = pytest.mark.slow

NAME, STORE = "huggingface.co", "cdn.example"
"""Where the client asks without an endpoint, and where large files come from."""
SAID = [block for block in blocks() if block.file.name == "sources.md"]
JOB = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: hub}
spec:
  model: {source: hf://org/bert}
  task: {type: TextClassification}
  data: {train: {source: train.csv}}
  strategy: {type: FeatureExtraction}
  output: {destination: out}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def hub(authority):
    pair = authority.issue("hub", user="hub", hosts=("localhost", "127.0.0.1", NAME, STORE))
    with serve(certificate=pair) as served:
        served.model("org/bert", MODEL)
        yield served


@pytest.fixture
def proxied(hub):
    """A proxy before the hub, which sends large files from a host that only the proxy knows."""
    before, hub.store = hub.store, f"https://{STORE}"
    with serve_proxy(int(hub.url.rpartition(":")[2])) as (url, asked):
        yield url, asked
    hub.store = before


def test_what_the_page_has_typed_on_a_laptop(hub, proxied, authority, tmp_path):
    (block,) = [block.text for block in SAID if "HTTPS_PROXY=" in block.text and block.language == "sh"]
    mirror, proxy = block.splitlines()
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    url, asked = proxied
    known = {name: value for name, value in os.environ.items() if not name.startswith(LEADING)}
    known |= {
        "SSL_CERT_FILE": str(authority.certificate),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    commit = hub.models["org/bert"].refs["main"]
    hub.store = hub.url.replace("127.0.0.1", "localhost")
    for number, (line, there) in enumerate(
        [(mirror, ("https://hub.example", hub.url)), (proxy, ("http://proxy.example:3128", url))]
    ):
        assert there[0] in line
        done = subprocess.run(
            ["bash", "-eu", "-c", line.replace(*there)],
            cwd=tmp_path,
            env=known | {"HF_HOME": str(tmp_path / f"home-{number}")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"hf://org/bert: commit {commit}, 3 files" in done.stdout
        assert bool(asked) == (line == proxy)
        hub.store = f"https://{STORE}"
    assert set(asked) == {f"{NAME}:443", f"{STORE}:443"}


def _pod(values, env, **spec):
    """Return the environment of a pod's trainer, and what its job's network policy opens, where the platform has these values."""
    view = job()
    changed = json.loads(unpack(view.spec)) | {"model": {"source": "hf://org/bert"}, "template": {"env": env}} | spec
    view = replace(view, spec=pack(changed))
    made, sources = parse_spec(changed), parse_sources(json.dumps(values["trainer"]["sources"]))
    names = GangNames.of("job")
    pod = indexed_job(view, made, IMAGE, Carried(), names, sources=sources)["spec"]["template"]["spec"]
    (trainer,) = pod["containers"]
    told = {variable["name"]: variable["value"] for variable in trainer["env"] if "value" in variable}
    keep = {"HF_ENDPOINT", *(variable["name"] for variable in env)}
    (rule,) = opened(made, sources)
    return {name: value for name, value in told.items() if name in keep}, rule


def _block(word):
    (text,) = [block.text for block in SAID if word in block.text and block.text.startswith("# values of the chart")]
    return text


def test_what_the_page_has_set_on_a_cluster_for_a_mirror(hub, authority, tmp_path):
    port = hub.url.rpartition(":")[2]
    text = _block("https://hub.example")
    text = (
        text.replace("https://hub.example", hub.url)
        .replace("10.1.2.3", "127.0.0.1")
        .replace("port: 443", f"port: {port}")
    )
    told, rule = _pod(yaml.safe_load(text), [{"name": "SSL_CERT_FILE", "value": str(authority.certificate)}])
    assert told["HF_ENDPOINT"] == hub.url
    assert (rule.to[0].ip_block.cidr, rule.ports[0].port) == ("127.0.0.1/32", int(port))
    _brings(told, hub, tmp_path)


def test_what_the_page_has_set_on_a_cluster_for_a_proxy(hub, proxied, authority, tmp_path):
    url, asked = proxied
    port = url.rpartition(":")[2]
    values = yaml.safe_load(_block("3128").replace("10.1.2.4", "127.0.0.1").replace("3128", port))
    (of_job,) = [block.text for block in SAID if "HTTPS_PROXY" in block.text and block.text.startswith("# of each job")]
    env = yaml.safe_load(of_job.replace("http://10.1.2.4:3128", url))["spec"]["template"]["env"]
    told, rule = _pod(values, [*env, {"name": "SSL_CERT_FILE", "value": str(authority.certificate)}])
    assert "HF_ENDPOINT" not in told
    assert (rule.to[0].ip_block.cidr, rule.ports[0].port) == ("127.0.0.1/32", int(port))
    _brings(told, hub, tmp_path)
    assert set(asked) == {f"{NAME}:443", f"{STORE}:443"}


def _brings(told, hub, folder):
    """A process with what a pod has been told brings the model."""
    before = hub.sent["model.safetensors"]
    process = start(**told)
    try:
        path = Client(process, folder / "cache").fetch("hf://org/bert", pod=True)
    finally:
        process.stdin.close()
        process.wait()
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent["model.safetensors"] - before == len(WEIGHTS)
