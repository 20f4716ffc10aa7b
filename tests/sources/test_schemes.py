"""A scheme is a file in the API, and one in the trainer where its content has to be brought: nothing else is edited."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crds.corpus import load, patched
from unfreeze_api.contracts.progress import CLAIM_FOLDER
from unfreeze_api.resolve import claims
from unfreeze_api.sources import SOURCES, _grouped, described, locate, needs, rule
from unfreeze_api.sources.base import Places
from unfreeze_api.sources.hf import parse
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.schemes import oci
from unfreeze_trainer.sources.wanted import Bringing, Wanted

FILE = Path(__file__).with_name("with_mem.py")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What follows from the two files of mem://."""
    folder = tmp_path_factory.mktemp("mem")
    manifest = patched(load("base.yaml"), {"spec": {"data": {"train": {"source": "mem://words"}}}})
    (folder / "job.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, "-m", "tests.sources.with_mem", str(folder / "job.json")],
        env={"PATH": "", "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"},
        cwd=FILE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"folder": str(folder)}


def test_what_ends_alike_stands_once_in_the_rule():
    given = ["a(b)*(/(x|y)z)+", "c(/(x|y)z)+", "d", "e(/f)*", "g+"]
    found = _grouped(given)
    assert found == ["(a(b)*|c)(/(x|y)z)+", "d", "g+", "e(/f)*"]
    for text in ("a/xz", "abb/xz/yz", "c/xz", "d", "e", "e/f", "g", "a", "c", "b/xz", "d/f", "g/f"):
        whole, grouped = ("|".join(patterns) for patterns in (given, found))
        assert bool(re.fullmatch(whole, text)) == bool(re.fullmatch(grouped, text))


def test_the_crd_takes_it_for_what_it_holds(seen):
    (first,) = seen["data"]["x-kubernetes-validations"]
    assert "|mem://[a-z]+)" in first["rule"]
    assert first["message"].startswith("must be pvc://CLAIM/PATH or file:///PATH or mem://NAME or hf://datasets/")
    assert "mem://NAME" in seen["data"]["description"]
    assert "mem://" not in json.dumps(seen["model"])


def test_the_command_line_judges_it(seen):
    assert 'spec.output.destination: Invalid value: "mem://words": must be pvc://CLAIM/PATH' in seen["told"]
    assert "mem://NAME" not in seen["told"]


def test_pods_mount_what_it_needs(seen):
    assert seen["claims"] == {"models": False, "results": True}


def test_the_trainer_reads_what_is_brought(seen):
    assert seen["path"] == f"{seen['folder']}/mem/words.csv"
    assert seen["texts"] == ["good", "bad"]
    assert seen["refused"] == "mem://none: there is no such table"


# The schemes that there are.


def test_each_scheme_says_where_it_lies():
    assert [source.scheme for source in SOURCES] == ["pvc", "file", "hf", "hf", "timm", "s3", "gs", "az", "oci"]
    assert locate("pvc://c/a/b.csv", Places(mounts=CLAIM_FOLDER)) == "/mnt/claims/c/a/b.csv"
    assert locate("pvc://c", Places(mounts="", claims={"c": "/x"})) == "/x"
    assert locate("file:///a/b", Places(mounts=CLAIM_FOLDER)) == "/a/b"
    assert locate("timm://r.a_1@v1", Places(mounts="", sources="/s")) == "/s/models--timm--r.a_1/snapshots/v1"
    snapshot = "/s/datasets--o--n/snapshots/refs%2Fpr%2F3/a/b.csv"
    assert locate("hf://datasets/o/n@refs/pr/3/a/b.csv", Places(mounts="", sources="/s")) == snapshot


def test_an_image_is_read_where_it_is_mounted_and_nowhere_else(tmp_path):
    reference = f"registry.example/models/bert@sha256:{'0123456789abcdef' * 4}"
    assert locate(f"oci://{reference}/m", Places(mounts="", images="/i")) == "/i/0123456789ab/m"
    assert needs(f"oci://{reference}/m").images == (reference,)
    root = tmp_path / "image"
    wanted = Wanted("spec.model.source", f"oci://{reference}/m", str(root / "m"), is_model=True)
    with pytest.raises(
        JobError, match=r"none is mounted here\. On this machine take the files out of registry"
    ) as caught:
        oci.fetch([wanted], {}, Bringing())
    assert caught.value.reason == "InvalidModel"
    (root / "models").mkdir(parents=True)
    with pytest.raises(JobError, match="the image has no folder m; there are models"):
        oci.fetch([wanted], {}, Bringing())
    (root / "m").mkdir()
    assert oci.fetch([wanted], {}, Bringing()) == {}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("o/n", ("model", "o/n", "main", "")),
        ("o/n@feature/x", ("model", "o/n", "feature/x", "")),
        ("datasets/o/n", ("dataset", "o/n", "main", "")),
        ("datasets/o/n/data/p-*.parquet", ("dataset", "o/n", "main", "data/p-*.parquet")),
        ("datasets/o/n@v1.0/a@b.csv", ("dataset", "o/n", "v1.0", "a@b.csv")),
        ("datasets/o/n@refs/convert/parquet/x/0.parquet", ("dataset", "o/n", "refs/convert/parquet", "x/0.parquet")),
    ],
)
def test_parts_of_what_a_hub_has(text, parts):
    found = parse(text)
    assert (found.kind, found.repository, found.revision, found.path) == parts
    held = "Data" if found.kind == "dataset" else "Model"
    assert re.fullmatch("|".join(source.pattern for source in SOURCES if held in source.holds), text)


@pytest.mark.parametrize("text", ["", "pvc", "s3://bucket/key", "file:///a"])
def test_what_lies_on_no_claim_needs_none(text):
    assert needs(text).claims == ()


def test_descriptions_name_all_of_them():
    assert described("Model", "a folder").startswith(
        "pvc://CLAIM/PATH for a folder on a volume claim, file:///PATH for"
    )
    assert "hf://" not in rule("Output").message


def test_a_claim_that_is_read_and_written_is_written():
    spec = load("base.yaml")["spec"] | {"output": {"destination": "pvc://data/run"}}
    assert claims(FineTuneJobSpec.model_validate(spec))["data"] is True
