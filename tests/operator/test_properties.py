"""Whatever happens to a job in whatever order: the operator touches nothing of others, loses no count, and comes to rest.

Hypothesis draws the histories; the cluster is the one of simulation.py, the reconcile is the real one.
"""

from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.operator.fakes import pod, text, unheard
from tests.operator.simulation import CHILDREN, Simulation
from unfreeze_api.contracts.progress import Progress
from unfreeze_operator.objects.resources import JOB_LABEL, MANAGED_BY_LABEL, MANAGER, PODS
from unfreeze_operator.objects.views import parse_time

LONGEST_WAIT = 4 * 1.5 * 600
"""Seconds: the patience of a gang that has given way often."""
STATES = ("pending", "queued", "starting", "training", "recovering", "suspended")
WRITES = ("create", "patch", "apply", "delete")


class History(Simulation):
    """A simulation with everything that may happen, and what must hold all the time."""

    def __init__(self, **options):
        super().__init__(**options)
        self._foreign = {}
        self._last = {}
        self._uid = ""

    # -- what may happen -------------------------------------------------------------------------------------

    def look(self):
        self.sync()
        self._check_pause(self.reconcile())

    def look_at_stale_caches(self):
        self._check_pause(self.reconcile())

    def second(self):
        self.now += timedelta(seconds=1)

    def minutes(self):
        self.now += timedelta(seconds=100)

    def suspend(self):
        if self.job:
            self.change(runPolicy={"suspend": True})

    def resume(self):
        if self.job:
            self.change(runPolicy={"suspend": False})

    def grow(self):
        if self.job and self.job["spec"]["runPolicy"].get("suspend"):
            self.change(distribution={"numNodes": self.job["spec"]["distribution"]["numNodes"] % 3 + 1})

    def finish(self):
        for raw in self.running():
            self.end(raw, 0)

    def crash(self):
        for raw in self.running()[:1]:
            self.end(raw, 1)

    def fail(self):
        for raw in self.running()[:1]:
            self.end(raw, 2)

    def stop_unasked(self):
        for raw in self.running()[:1]:
            self.end(raw, 143)

    def delete_pod(self):
        for raw in self.pods()[:1]:
            raw["metadata"].setdefault("deletionTimestamp", text(self.now))
            self.server.touch(raw)

    def evict(self):
        for raw in self.running()[:1]:
            raw["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
            self.delete_pod()

    def preempt(self):
        """The scheduler takes the whole gang away."""
        for raw in self.running():
            raw["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
            raw["metadata"].setdefault("deletionTimestamp", text(self.now))
            self.server.touch(raw)

    def serve(self):
        """PodGroups are switched on, or off."""
        self.served = not self.served
        self.restart()

    def lose_node(self):
        for raw in self.running()[:1]:
            raw["status"] = unheard(raw)["status"]
            self.server.touch(raw)

    def hear_of_nodes(self):
        for raw in self.running():
            raw["status"]["conditions"] = pod(0)["status"]["conditions"]
            self.server.touch(raw)

    def fall_silent(self):
        self.poller.is_silent = True

    def answer(self):
        self.poller.said = Progress(activity="Training", step=3)
        self.poller.is_silent = False

    def lose_child(self):
        for resource in CHILDREN[:-1]:
            for raw in self.server.of(resource.plural):
                if raw["metadata"]["name"] != "alien":
                    self.server.remove(resource.plural, raw["metadata"]["name"])

    def lose_job(self):
        if self.server.get_now("jobs", "job-train"):
            self.server.remove("jobs", "job-train")

    def drift(self):
        for raw in self.server.of("configmaps"):
            if raw["metadata"].get("ownerReferences"):
                raw["data"] = {"job.json": "{}"}
                self.server.touch(raw)

    def begin_anew(self):
        if self.job:
            self.server.remove("finetunejobs", "job")
        self.create(nodes=1, backoffLimit=1)

    def meddle(self):
        """Somebody labels objects of their own as the operator's."""
        labels = {MANAGED_BY_LABEL: MANAGER, JOB_LABEL: "job"}
        alien = pod(0, "Running", owner="somebody", name="alien")
        for plural, raw in (("pods", alien), ("configmaps", {"metadata": {"name": "alien", "namespace": "ns"}})):
            if not self.server.get_now(plural, "alien"):
                raw["metadata"]["labels"] = labels
                made = self.server.add(plural, raw)
                self._foreign[plural] = made["metadata"]["resourceVersion"]

    # -- what must hold --------------------------------------------------------------------------------------

    def check(self):
        for plural, version in self._foreign.items():
            assert self.server.objects[plural, "alien"]["metadata"]["resourceVersion"] == version, (
                "an alien was touched"
            )
        for plural in ("jobs", "services", "networkpolicies", "podgroups"):
            assert len(self.server.of(plural)) <= 1
        job = self.job
        if job is None:
            return
        if job["metadata"]["uid"] != self._uid:
            self._uid, self._last = job["metadata"]["uid"], {}
        old, new = self._last, self.status
        for name in ("inPlace", "pods"):
            assert old.get("restarts", {}).get(name, 0) <= new.get("restarts", {}).get(name, 0), "a count has fallen"
        assert old.get("acceleratorSeconds", 0) <= new.get("acceleratorSeconds", 0)
        if spent := new.get("stateSeconds"):
            began, since = (parse_time(at) for at in (job["metadata"]["creationTimestamp"], spent["since"]))
            assert sum(spent[name] for name in STATES) == (since - began).total_seconds(), "a second is lost, or twice"
            assert ("completionTime" not in new) or since == parse_time(new["completionTime"]), "a second after the end"
        if "completionTime" in old:
            assert {**old, "observedGeneration": 0} == {**new, "observedGeneration": 0}, "an outcome has changed"
        self._last = new

    def _check_pause(self, seconds):
        assert seconds is None or 0 <= seconds <= LONGEST_WAIT

    def come_to_rest(self):
        """Let everything go well from now on."""
        self.hear_of_nodes()
        self.answer()
        for plural in self._foreign:
            self.server.remove(plural, "alien")
        self._foreign = {}
        if not self.job:
            self.create(nodes=1)
        self.resume()
        for _ in range(80):
            self.round()
            self.check()
            if self.status.get("phase") in ("Succeeded", "Failed") and "completionTime" in self.status:
                break
            self.finish()
        assert "completionTime" in self.status, f"it does not come to an end: {self.status}"
        for _ in range(3):
            self.round()
        before = len(self.server.calls)
        self.look()
        assert [call for call in self.server.calls[before:] if call.verb in WRITES] == [], "it does not come to rest"
        assert self._caches[PODS].departed(("ns", "job")) == [], "pods that are gone take memory"


HAPPENINGS = (
    sorted(name for name in vars(History) if not name.startswith("_") and name not in ("check", "come_to_rest"))
    + ["look", "round", "control", "node", "restart"] * 2
)


@settings(max_examples=60)
@example(
    nodes=2,
    backoff=0,
    clean="Running",
    served=False,
    history=["answer", "round", "look", "crash", "control", "second"],
)
@given(
    nodes=st.integers(1, 3),
    backoff=st.integers(0, 2),
    clean=st.sampled_from(["Running", "All", "None"]),
    served=st.booleans(),
    history=st.lists(st.sampled_from(HAPPENINGS), max_size=30),
)
def test_any_history_ends_well(nodes, backoff, clean, served, history):
    world = History(nodes=nodes, backoffLimit=backoff, cleanPodPolicy=clean, served=served)
    for happening in history:
        getattr(world, happening)()
        world.check()
    world.come_to_rest()
