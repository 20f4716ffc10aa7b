"""Fifty jobs while everything around them fails: each ends as if nothing had happened, and nothing is left of them.

The faults are drawn with a fixed seed; when they meet what, the machine decides.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections import defaultdict

import pytest

from tests.cluster.api import Api, Store
from tests.cluster.proxy import Answer, Cut, Delay, Expire, Silence
from tests.operator.world import CHILDREN, condition, spec, until

pytestmark = pytest.mark.cluster

SEED = 7
SECONDS = 300
READS = (Answer(410, "Expired"), Answer(429, "TooManyRequests", 1), Answer(500), Cut())
WRITES = (Answer(429, "TooManyRequests", 1), Answer(500), Answer(409, "Conflict"), Cut(), Cut(done=True))
FAULTS = {"watch": (*READS, Expire(), Silence(), Cut(done=True)), "list": READS, "continue": READS, "get": READS}


def failing(code, times, **more):
    return {"at": 2, "exitCode": code, "times": times, **more}


def unschedulable(name):
    body = spec(name, startupTimeoutSeconds=5)
    body["template"]["nodeSelector"] = {"no": "such-node"}
    return body


def accelerated(name):
    body = spec(name, nodes=2, fake={"steps": 20})
    body["distribution"]["resourcesPerNode"] = {"limits": {"nvidia.com/gpu": 1}}
    return body


KINDS = {
    "short": (10, spec),
    "pair": (8, lambda name: spec(name, nodes=2, fake={"steps": 30, "stepSeconds": 0.1})),
    "gpu": (4, accelerated),
    "wrong": (5, lambda name: spec(name, fake={"fail": failing(2, 9, reason="InvalidData")}, backoffLimit=3)),
    "again": (5, lambda name: spec(name, fake={"fail": failing(1, 2)}, backoffLimit=2)),
    "hopeless": (5, lambda name: spec(name, fake={"fail": failing(1, 99)}, backoffLimit=1)),
    "held": (3, lambda name: spec(name, suspend=True)),
    "paused": (5, lambda name: spec(name, fake={"holdAt": 3})),
    "expiring": (3, lambda name: spec(name, ttlSecondsAfterFinished=0)),
    "cleaned": (4, lambda name: spec(name, cleanPodPolicy="All")),
    "late": (2, lambda name: spec(name, fake={"holdAt": 1}, activeDeadlineSeconds=3)),
    "stuck": (2, unschedulable),
}
NAMES = [f"{kind}-{number}" for kind, (count, _) in KINDS.items() for number in range(count)]
ENDS = {
    "wrong": ("Failed", "InvalidData"),
    "hopeless": ("Failed", "WorkerFailed"),
    "late": ("Failed", "DeadlineExceeded"),
    "stuck": ("Failed", "StartupTimeout"),
    "held": ("Suspended", None),
}
"""Phase and reason of the failure; all other kinds succeed."""


class Witness:
    """Sees every pod and every status of a namespace, by watches of its own that nobody disturbs."""

    def __init__(self, cluster, namespace):
        context = ssl.create_default_context(cafile=str(cluster.folder / "pki/ca.crt"))
        context.load_cert_chain(cluster.folder / "pki/admin.crt", cluster.folder / "pki/admin.key")
        self._server, self._context, self._namespace = cluster.server, context, namespace
        self.pods = defaultdict(set)
        self._live = defaultdict(set)
        self._counts = {}
        self.wrong = []
        self.taken = set()
        """Jobs whose leader had succeeded and was taken away before their status said so: its last words may be lost."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._watch(),), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _watch(self):
        self._stop = asyncio.Event()
        api = Api(self._server, self._context)
        pods = Store(api, f"/api/v1/namespaces/{self._namespace}/pods", self._pod)
        jobs = Store(api, f"/apis/unfreeze.dev/v1alpha1/namespaces/{self._namespace}/finetunejobs", self._job)
        tasks = [asyncio.ensure_future(store.run()) for store in (pods, jobs)]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await api.close()

    def _pod(self, kind, pod):
        meta = pod["metadata"]
        place = meta["labels"]["unfreeze.dev/job-name"], meta["annotations"]["batch.kubernetes.io/job-completion-index"]
        self.pods[place].add(meta["uid"])
        told = self._counts.get(f"{place[0]}/status", {}).get("phase") == "Succeeded"
        if kind == "DELETED" and pod["status"]["phase"] == "Succeeded" and place[1] == "0" and not told:
            self.taken.add(place[0])
        over = kind == "DELETED" or pod["status"]["phase"] in ("Succeeded", "Failed")
        (self._live[place].discard if over else self._live[place].add)(meta["uid"])
        if len(self._live[place]) > 1:
            self.wrong.append(f"two pods at once: {place}")

    def _job(self, _kind, job):
        status, name = job.get("status", {}), job["metadata"]["name"]
        counts = [*status.get("restarts", {"inPlace": 0, "pods": 0}).values(), status.get("acceleratorSeconds", 0)]
        old = self._counts.get(name, counts)
        if any(new < before for new, before in zip(counts, old, strict=True)):
            self.wrong.append(f"a count of {name} has fallen: {old} to {counts}")
        if "completionTime" in self._counts.get(f"{name}/status", {}) and status.get("phase") not in (
            "Succeeded",
            "Failed",
        ):
            self.wrong.append(f"{name} had ended and began again")
        self._counts |= {name: counts, f"{name}/status": status}

    def replaced(self, name):
        """Return how many pods of a job took another one's place."""
        return sum(len(uids) - 1 for (job, _), uids in self.pods.items() if job == name)


class Chaos:
    """Every kind of call meets every fault that fits it, every other time; after that one in thirty does."""

    def __init__(self):
        self._random = random.Random(SEED)
        self._visits = defaultdict(int)
        self.met = defaultdict(set)

    def __call__(self, call):
        faults = FAULTS.get(call.verb, WRITES)
        self._visits[call.site] += 1
        turn, due = divmod(self._visits[call.site], 2)
        if due and turn < len(faults):
            fault = faults[turn]
        elif self._random.random() < 1 / 30:
            fault = self._random.choice([*faults, Delay(0.5)])
        else:
            return None
        self.met[call.site].add(fault)
        return fault


def ready(world):
    return [
        pod["metadata"]["name"]
        for pod in world.children("pods")
        if "deletionTimestamp" not in pod["metadata"] and condition(pod["status"], "Ready").get("status") == "True"
    ]


def evict(world, name):
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    world.cluster.request("POST", world.path("pods", f"{name}/eviction"), eviction)


def cut_the_power(world, node):
    """Let a node be away until its pods are given up."""
    node.kill()
    until(lambda: not node.is_ready(), "the cluster notices")
    path = f"{world.path('pods')}?fieldSelector=spec.nodeName={node.name},status.phase=Running"
    until(lambda: all("deletionTimestamp" in p["metadata"] for p in world.cluster.get(path)["items"]), "pods given up")
    node.start()
    world.cluster.wait_for(f"/api/v1/nodes/{node.name}", lambda found: not found["spec"].get("taints"), what="back")


def wreak(world, operator, proxy, chance):
    """One thing that fails."""
    what = chance.choice(["operator", "evict", "evict", "evict", "cut", "cut"])
    if what == "operator":
        operator.kill()
        operator.launch()
    elif what == "evict":
        pods = ready(world)
        if pods:
            evict(world, chance.choice(sorted(pods)))
    else:
        proxy.cut(chance.choice(["pods", "jobs", "finetunejobs", "configmaps", ""]))


def settled(world, name):
    kind = name.partition("-")[0]
    code, job = world.cluster.request("GET", world.path("finetunejobs", name))
    if kind == "expiring":
        return code == 404
    phase, _ = ENDS.get(kind, ("Succeeded", None))
    status = job.get("status", {})
    assert phase == "Failed" or status.get("phase") != "Failed" or "completionTime" not in status, (name, status)
    return status.get("phase") == phase and (kind == "held" or "completionTime" in status)


@pytest.mark.timeout(1200)
def test_fifty_jobs_end_as_if_nothing_had_happened(faulty_operator, proxy, world, operator_cluster):
    chance, chaos = random.Random(SEED), Chaos()
    order = chance.sample(NAMES, len(NAMES))
    with Witness(operator_cluster, world.namespace) as witness:
        proxy.chaos = chaos
        faulty_operator.launch()
        for name in order:
            world.create(name, KINDS[name.partition("-")[0]][1](name))
            if chance.random() < 0.3:
                wreak(world, faulty_operator, proxy, chance)
        paused = [name for name in NAMES if name.startswith("paused")]
        for name in paused:
            world.wait(lambda s: s.get("progress", {}).get("step", 0) >= 3, name, seconds=SECONDS)
            world.suspend(True, name)
        cut_the_power(world, operator_cluster.nodes[1])
        for name in paused:
            wreak(world, faulty_operator, proxy, chance)
            world.wait(lambda s: s.get("phase") == "Suspended", name, seconds=SECONDS)
            world.suspend(False, name)
            world.go(name)
        for _ in range(10):
            wreak(world, faulty_operator, proxy, chance)
        proxy.heal()
        for name in order:
            until(lambda name=name: settled(world, name), f"{name} ends as it should", SECONDS)
        check_the_ends(world, witness)
        for name in order:
            world.cluster.request("DELETE", world.path("finetunejobs", name), {"propagationPolicy": "Background"})
        until(lambda: not world.list("finetunejobs"), "no job is left", SECONDS)
        for plural in CHILDREN:
            until(lambda plural=plural: not world.children(plural), f"no {plural} are left", SECONDS)
        assert witness.wrong == []
    needed = {("apply", "finetunejobs/status"), ("create", "jobs"), ("create", "events"), ("patch", "jobs")}
    for site in needed:
        assert chaos.met[site] >= {*WRITES}, f"each fault at {site}"
    assert all(("watch", plural) in chaos.met for plural in ("finetunejobs", *CHILDREN))


def owners(world, plural):
    return {child["metadata"]["ownerReferences"][0]["uid"] for child in world.children(plural)}


def check_the_ends(world, witness):
    """Compare everything that is left with what an undisturbed run gives."""
    jobs = {job["metadata"]["name"]: job for job in world.list("finetunejobs")}
    counted = {job["metadata"]["labels"]["unfreeze.dev/job-name"]: job["status"] for job in world.children("jobs")}
    for name, job in jobs.items():
        kind, status = name.partition("-")[0], job["status"]
        phase, reason = ENDS.get(kind, ("Succeeded", None))
        assert (status["phase"], status.get("failure", {}).get("reason")) == (phase, reason), (name, status)
        # A pod that fails in the moment that it is evicted may be gone before anybody has counted it.
        least = {"again": min(2, counted[name].get("failed", 0)), "hopeless": 1}.get(kind, 0) if name in counted else 0
        restarts = status.get("restarts", {"inPlace": 0, "pods": 0})
        assert restarts["inPlace"] == 0
        assert least <= restarts["pods"] <= max(least, witness.replaced(name)), (name, restarts, witness.replaced(name))
        if phase == "Succeeded":
            results = status.get("results")
            assert results == {"test.accuracy": 0.93} or (results is None and name in witness.taken), (name, status)
    uids = {job["metadata"]["uid"] for job in jobs.values()}
    for plural in ("jobs", "services", "configmaps"):
        # Of jobs that are gone the garbage collector takes away what is left, in its own time.
        until(lambda plural=plural: owners(world, plural) <= uids, f"no orphan of {plural}", SECONDS)
        names = [child["metadata"]["name"] for child in world.children(plural)]
        assert len(names) == len(set(names))
    told = [
        (e["regarding"]["name"], e["reason"]) for e in world.list("events") if e["regarding"]["kind"] == "FineTuneJob"
    ]
    for name in NAMES:
        ends = [reason for job, reason in told if job == name and reason in ("Succeeded", "Failed")]
        assert len(ends) == (name.partition("-")[0] != "held"), f"the end of {name} is told once: {ends}"
