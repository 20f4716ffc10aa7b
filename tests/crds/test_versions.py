"""What docs/api-versions.md promises, on a real API server: two versions of one shape, a change of the stored version by
re-writing, and jobs that an earlier release has stored under fields' former names.

Each test has a CRD of a group of its own, with the schema that is generated.
"""

import base64
import copy
import json
import os
import re
import subprocess
import urllib.request

import pytest

from tests.cluster.cluster import REPOSITORY, ClusterError
from tests.crds.corpus import load, patched, released
from tests.crds.test_api_server import FULL_STATUS
from tests.operator.process import established
from unfreeze_api.apiserver.validate import defaulted, warnings
from unfreeze_api.contracts.names import PLURAL
from unfreeze_api.generate.crd import definition

pytestmark = pytest.mark.cluster

BASE = load("base.yaml")
OLD, NEW = "v1alpha1", "v1beta1"
STATUS = json.loads(FULL_STATUS.to_json())
PAGE = REPOSITORY / "docs" / "api-versions.md"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FORMER = {"adapter": {"type": "LoRA"}, "output": {"export": ["Adapter", "Merged"]}}


class Definition:
    """A CRD of a group of its own, as it is in the cluster."""

    def __init__(self, cluster, namespace, group, crd):
        self.cluster = cluster
        self.namespace = namespace
        self.group = group
        self.path = f"{CRDS}/{PLURAL}.{group}"
        cluster.create(CRDS, self.of_group(crd))
        self.wait(established)
        for version in crd["spec"]["versions"]:
            self.wait_served(version["name"])

    def of_group(self, crd):
        crd = copy.deepcopy(crd)
        crd["metadata"] = {"name": f"{PLURAL}.{self.group}"}
        crd["spec"]["group"] = self.group
        crd["spec"]["names"] = {key: crd["spec"]["names"][key] for key in ("kind", "listKind", "plural", "singular")}
        return crd

    def wait(self, condition):
        return self.cluster.wait_for(self.path, condition)

    def wait_served(self, version):
        self.cluster.wait_for(self.jobs(version), bool)

    def change(self, edit):
        """Let a function change the CRD; return the answer's code and message."""
        crd = self.cluster.get(self.path)
        edit(crd)
        code, answer = self.cluster.request("PATCH", self.path, {"spec": crd["spec"]})  # its status changes meanwhile
        return code, answer.get("message", "")

    def jobs(self, version, name=""):
        folder = f"/apis/{self.group}/{version}/namespaces/{self.namespace}/{PLURAL}"
        return folder + (f"/{name}" if name else "")

    def create(self, version, name, patch=None):
        manifest = patched(BASE, {"metadata": {"name": name}, "apiVersion": f"{self.group}/{version}"})
        return self.cluster.create(self.jobs(version), patched(manifest, patch or {}))

    def read(self, version):
        """Return all objects by name, but for what names the version."""
        # The API server answers 429 for a moment after a change of the CRD.
        items = self.cluster.wait_for(self.jobs(version), bool)["items"]
        assert all(item["apiVersion"] == f"{self.group}/{version}" for item in items)
        return {item["metadata"]["name"]: plain(item) for item in items}

    def stored(self):
        """Return the version that each object has in etcd."""
        prefix = f"/registry/{self.group}/{PLURAL}/{self.namespace}/".encode()
        ends = {"key": prefix, "range_end": prefix[:-1] + b"0"}
        body = json.dumps({name: base64.b64encode(key).decode() for name, key in ends.items()}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.cluster.etcd}/v3/kv/range", body)) as answer:
            found = json.load(answer)["kvs"]
        return {json.loads(base64.b64decode(one["value"]))["apiVersion"].rpartition("/")[2] for one in found}


def plain(item):
    """Return an object without what may differ between two versions of it."""
    meta = {key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return item | {"apiVersion": "", "metadata": meta}


@pytest.fixture
def install(cluster, namespace):
    made = []

    def make(group, crd):
        made.append(Definition(cluster, namespace, group, crd))
        return made[-1]

    yield make
    for crd in made:
        cluster.request("DELETE", crd.path)


def with_two_versions(crd):
    crd = copy.deepcopy(crd)
    (old,) = crd["spec"]["versions"]
    crd["spec"]["versions"].append(copy.deepcopy(old) | {"name": NEW, "storage": False})
    crd["spec"]["conversion"] = {"strategy": "None"}
    return crd


def store(version):
    def change(crd):
        for each in crd["spec"]["versions"]:
            each["storage"] = each["name"] == version

    return change


def without_the_old_version(crd):
    crd["spec"]["versions"] = [each for each in crd["spec"]["versions"] if each["name"] != OLD]


def as_the_page_says(crd):
    """Run what docs/api-versions.md has people do once the stored version has changed."""
    (text,) = re.findall(r"```sh\n(kubectl get ftj[^`]*?)```", PAGE.read_text(), re.DOTALL)
    text = text.replace("ftj", f"{PLURAL}.{crd.group}").replace("unfreeze.dev/", f"{crd.group}/")
    text = text.replace(f"{PLURAL}.unfreeze.dev", f"{PLURAL}.{crd.group}")
    folder = crd.cluster.folder
    own = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "KUBECONFIG": str(crd.cluster.kubeconfig)}
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_versions_have_one_shape_and_the_stored_one_changes_by_re_writing(cluster, namespace, install):
    crd = install("versions.unfreeze.dev", with_two_versions(definition()))
    assert len(json.dumps(cluster.get(crd.path))) < 1.5 * 2**20 / 2, "half of what etcd takes"
    cases = load("good.yaml")[::3]
    for number, case in enumerate(cases):
        crd.create(OLD if number % 2 else NEW, f"job-{number}", case["patch"])
    crd.create(OLD, "former", {"spec": FORMER})
    for name, written, other in (("job-0", OLD, NEW), ("job-1", NEW, OLD)):
        body = cluster.get(crd.jobs(written, name)) | {"status": STATUS}
        assert cluster.request("PUT", crd.jobs(written, name) + "/status", body)[0] == 200
        assert cluster.get(crd.jobs(other, name))["status"] == STATUS
    before = crd.read(OLD)
    assert before == crd.read(NEW)
    assert len(before) == len(cases) + 1

    # The rules of both versions hold in both.
    for version in (OLD, NEW):
        code, answer = cluster.request("PATCH", crd.jobs(version, "job-0"), {"spec": {"training": {"seed": 1}}})
        assert (code, "training cannot be changed" in answer["message"]) == (422, True)
        with pytest.raises(ClusterError, match="both set: remove export"):
            crd.create(version, "both", {"spec": {"output": {"exports": ["Model"], "export": ["Model"]}}})

    # The stored version changes for what is written from now on; what lies there stays readable, and in the way.
    assert crd.stored() == {OLD}
    assert crd.change(store(NEW))[0] == 200
    crd.wait(lambda found: found["status"]["storedVersions"] == [OLD, NEW])
    assert crd.read(OLD) == crd.read(NEW) == before
    assert crd.stored() == {OLD}
    code, message = crd.change(without_the_old_version)
    assert (code, "storedVersions" in message) == (422, True)

    # Each object is written again as it is, and the old version goes: from those that are stored, then from those served.
    as_the_page_says(crd)
    assert crd.stored() == {NEW}
    assert crd.read(OLD) == crd.read(NEW) == before
    assert cluster.get(crd.path)["status"]["storedVersions"] == [NEW]
    assert crd.change(without_the_old_version) == (200, "")
    cluster.wait_for(f"/apis/{crd.group}", lambda served: [each["version"] for each in served["versions"]] == [NEW])
    assert crd.read(NEW) == before
    crd.create(NEW, "later")
    for name in ("job-0", "job-1", "former"):
        body = {
            "apiVersion": f"{crd.group}/{NEW}",
            "kind": BASE["kind"],
            "metadata": {"name": name, "namespace": namespace},
        }
        suspended = body | {"spec": {"runPolicy": {"suspend": True}}}
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=suspended)
        after = cluster.get(crd.jobs(NEW, name))
        assert after["spec"] == patched(before[name]["spec"], suspended["spec"])
        assert after.get("status") == before[name].get("status")


def test_what_an_earlier_release_has_stored_is_valid_and_goes_on(cluster, install):
    crd = install("stored.unfreeze.dev", released("0.1.0"))
    plain_job, former = crd.create(OLD, "plain"), crd.create(OLD, "former", {"spec": FORMER})
    assert former["spec"]["output"]["export"] == FORMER["output"]["export"]
    assert crd.change(lambda found: found.update(spec=crd.of_group(definition())["spec"]))[0] == 200
    knows = f"/openapi/v3/apis/{crd.group}/{OLD}"
    cluster.wait_for(knows, lambda answer: '"exports"' in json.dumps(answer), what="the new schema")

    for name, stored in (("plain", plain_job), ("former", former)):
        assert cluster.get(crd.jobs(OLD, name))["spec"] == defaulted(stored)["spec"]
        # Nobody can do without this: the rules about changes are judged each time.
        for suspend in (True, False):
            change = {"spec": {"runPolicy": {"suspend": suspend}}}
            code, answer = cluster.request("PATCH", crd.jobs(OLD, name), change)
            assert code == 200, answer
            code, answer = cluster.request("PATCH", crd.jobs(OLD, name), {"spec": {"training": {"seed": 9}}})
            assert (code, "training cannot be changed" in answer["message"]) == (422, True)
    assert warnings(cluster.get(crd.jobs(OLD, "plain"))) == []
    assert len(warnings(cluster.get(crd.jobs(OLD, "former")))) == 1

    # A default that the server stored then, and does not know today: no change if it is left out.
    assert plain_job["spec"]["training"]["metric"] == "accuracy"
    for metric, expected in ((None, 200), ("loss", 422), ("accuracy", 200)):
        change = {"spec": {"training": {"metric": metric}}}
        assert cluster.request("PATCH", crd.jobs(OLD, "plain"), change)[0] == expected

    # Today's name with the same value is no change; another value is one.
    other = {"output": {"export": None, "exports": ["Merged"]}}
    assert cluster.request("PATCH", crd.jobs(OLD, "former"), {"spec": other})[0] == 422
    renamed = {"output": {"export": None, "exports": ["Merged", "Adapter"]}}
    code, answer = cluster.request("PATCH", crd.jobs(OLD, "former"), {"spec": renamed})
    assert code == 200, answer
    assert warnings(answer) == []
