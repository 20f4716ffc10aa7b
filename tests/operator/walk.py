"""A walk over every field of the spec, one transition each while a job lives, on a real control plane and the real operator.

The method is that of Acto (Gu et al., SOSP 2023, doi 10.1145/3600006.3613161): from the schema alone, declarations are changed one
field at a time, and what a change leads to is compared with what the same declaration leads to from the start.

python -m tests.operator.walk            # all fields, on a control plane of its own
python -m tests.operator.walk template   # those whose path begins so
"""

from __future__ import annotations

import copy
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tests.cluster.cluster import REPOSITORY, Cluster
from tests.cluster.config import Config
from tests.operator.fakes import IMAGE
from tests.operator.process import ForkedOperator, install
from tests.operator.walk_harm import harm_all
from tests.operator.walk_places import Place, WalkError, bodies, differences, eventually, namespaces
from tests.operator.walk_steps import Json, Leaf, Step, leaves, step
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_api.job import parse_spec
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import CONFIG_MAPS, FINE_TUNE_JOBS, GangNames, named
from unfreeze_operator.objects.views import fine_tune_job_view
from unfreeze_operator.settings.network import ISOLATED
from unfreeze_operator.settings.sources import SCHEMES, SourceAccess, opened

OPTIONS = ("--sources=" + json.dumps({scheme: {} for scheme in SCHEMES}),)
"""Options of an operator that is walked: nothing can be seen of a source that is refused."""
SECONDS = 120.0
AT_ONCE = 8
"""Fields that are walked at a time: most of a walk waits."""
UNSEEN = "its value is seen in no child of the job"
UNCHANGEABLE: dict[str, str] = {
    "model.dtype": "both of its values mean the same today",
    "stages[].adapter.type": "it has one value",
    **{
        f"template.affinity.nodeAffinity.{place}.matchFields[].key": "it has one value"
        for place in (
            "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[]",
            "preferredDuringSchedulingIgnoredDuringExecution[].preference",
        )
    },
}
"""Leaves that cannot be walked, and why."""


# -- one field -----------------------------------------------------------------------------------------------------


class Walk:
    """Walks fields on one cluster with a running operator.

    Parameters
    ----------
    place
        Where jobs are changed.
    fresh
        Where jobs of the same names are made with the specs that the others are changed to.
    seconds
        How long anything may take.
    """

    def __init__(self, place: Place, fresh: Place, seconds: float) -> None:
        self._place, self._fresh, self._seconds = place, fresh, seconds

    def __call__(self, name: str, found: Step) -> str:
        """Take one step with one job; return what it was: Fixed, Suspended or Free.

        Raises
        ------
        WalkError
            With what is wrong.
        """
        top = found.leaf.path[0]
        if top == "runPolicy" and found.leaf.path[1] in LIVES:
            LIVES[found.leaf.path[1]](self, name, found)
            return "Free"
        before, after = self._own(name, found, suspend=True)
        stored = self._place.create(name, before)
        code, answer = self._place.patch(name, found.change, "?dryRun=All")
        if code == 200:
            self._fresh.create(name, after)
            kind = self._while_it_runs(name, found)
        else:
            kind = "Fixed"
            _names(found.leaf, code, answer)
            if not any(found.leaf.path[:length] in FIXED for length in range(1, 4)):
                raise WalkError(f"it cannot be changed while the job is suspended: {answer.get('message')}")
            self._is_given(name, stored, seen(after))
        self._clear(name)
        return kind

    def _is_given(self, name: str, stored: Json, other: str) -> None:
        """Wait for what the trainers of a job are given: what is made of its spec, and not of the other one."""
        if seen(stored["spec"]) == other:
            raise WalkError(UNSEEN)
        wanted = config_map(fine_tune_job_view(stored), parse_spec(stored["spec"]), GangNames.of(name))["data"]
        found: list[Any] = []

        def there() -> bool:
            found[:] = [self._place.read(CONFIG_MAPS, named(CONFIG_MAPS, name))]
            return found[0] is not None

        self._until(there, "it has a ConfigMap")
        if found[0]["data"] != wanted:
            raise WalkError(f"its job.json is another one: {'; '.join(differences(found[0]['data'], wanted))}")

    def _while_it_runs(self, name: str, found: Step) -> str:
        first, wanted = self._settled(self._place, name), self._settled(self._fresh, name)
        if bodies(first) == bodies(wanted):
            raise WalkError(UNSEEN)
        for place in (self._place, self._fresh):
            place.changed(name, {"runPolicy": {"suspend": False}})
        self._until(lambda: self._runs(name), "both jobs are resumed")
        pods = self._place.pods(name)
        code, answer = self._place.patch(name, found.change)
        if code == 200:
            self._until_same(name)
            if self._place.pods(name) != pods:
                raise WalkError("its pods are others after a change that needs no restart")
            return "Free"
        _names(found.leaf, code, answer)
        self._place.changed(name, {"runPolicy": {"suspend": True}})
        self._until(lambda: self._place.told(name)["phase"] == "Suspended", "it is suspended")
        self._place.changed(name, found.change)
        self._place.changed(name, {"runPolicy": {"suspend": False}})
        self._until_same(name)
        return "Suspended"

    def _runs(self, name: str) -> bool:
        told = [place.told(name) for place in (self._place, self._fresh)]
        return all(one["seen"] and one["phase"] != "Suspended" for one in told)

    def _own(self, name: str, found: Step, *, suspend: bool) -> tuple[Json, Json]:
        """Return both specs with a destination of the job's own, as far as that is not what is walked."""
        specs = copy.deepcopy((found.before, found.after))
        for spec in specs:
            if found.leaf.path[:2] != ("output", "destination"):
                spec["output"]["destination"] = f"pvc://runs/{name}"
            spec["runPolicy"]["suspend"] = suspend
        return specs

    def _settled(self, place: Place, name: str) -> Json:
        """Wait until the operator has seen a job and made what it makes; return its state."""
        last: list[Json] = []

        def settled() -> bool:
            last[:] = [place.told(name)]
            return bool(last[0].get("seen") and last[0]["phase"])

        self._until(settled, "the operator has seen it", last)
        self._until(lambda: last[0]["failure"] or place.state(name)["Job"], "its Job is made", last)
        return place.state(name)

    def _until_same(self, name: str) -> None:
        """Wait until a job that was changed is as one that was made so."""
        last: list[str] = []

        def same() -> bool:
            told = self._place.told(name)
            last[:] = differences(told, self._fresh.told(name))
            if last or not told["seen"]:
                return False
            last[:] = differences(self._place.state(name), self._fresh.state(name))
            return not last

        self._until(same, "it is as a job that was made so", last)

    def _until(self, condition: Callable[[], Any], what: str, last: Sequence[Any] = ()) -> None:
        eventually(condition, what, self._seconds, last)

    def _clear(self, name: str) -> None:
        for place in (self._place, self._fresh):
            body = {"propagationPolicy": "Background"}
            place.cluster.request("DELETE", place.path(FINE_TUNE_JOBS, name), body)

    # -- fields of runPolicy that say what comes later ---------------------------------------------------------------

    def _alive(self, name: str, found: Step) -> set[str]:
        """Make a job whose pods exist, and wait for nodes; return them."""
        before, _ = self._own(name, found, suspend=False)
        self._place.create(name, before)
        nodes = before["distribution"]["numNodes"]
        self._until(lambda: len(self._place.pods(name)) == nodes, "its pods are there")
        return self._place.pods(name)

    def _finish(self, name: str) -> None:
        """End a job whose pods find no node."""
        self._place.changed(name, {"runPolicy": {"startupTimeoutSeconds": 1}})
        self._until(lambda: self._place.told(name)["failure"] == "StartupTimeout", "it ends")

    def suspended(self, name: str, found: Step) -> None:
        """Suspend a job and resume it: it is as one that never was suspended."""
        pods = self._alive(name, found)
        self._fresh.create(name, self._own(name, found, suspend=False)[0])
        self._place.changed(name, {"runPolicy": {"suspend": True}})
        self._until(lambda: self._place.told(name)["phase"] == "Suspended", "it is suspended")
        if self._place.pods(name) & pods:
            raise WalkError("its pods are still there")
        self._place.changed(name, {"runPolicy": {"suspend": False}})
        self._until_same(name)
        self._clear(name)

    def given_time(self, name: str, found: Step) -> None:
        """Give a job whose pods find no node less time to start: it fails, and says why; more time changes nothing."""
        pods = self._alive(name, found)
        self._place.changed(name, {"runPolicy": {"startupTimeoutSeconds": 3600}})
        self._until(lambda: self._place.told(name)["seen"], "it is seen")
        if self._place.pods(name) != pods:
            raise WalkError("its pods are others after a change that needs no restart")
        self._finish(name)
        self._clear(name)

    def expired(self, name: str, found: Step) -> None:
        """Have a finished job deleted."""
        self._alive(name, found)
        self._place.changed(name, {"runPolicy": {"ttlSecondsAfterFinished": 3600}})
        self._finish(name)
        self._place.changed(name, {"runPolicy": {"ttlSecondsAfterFinished": 0}})
        self._until(lambda: not self._place.told(name), "it is gone")

    def cleaned(self, name: str, found: Step) -> None:
        """Have the Job of a finished job deleted."""
        self._alive(name, found)
        self._place.changed(name, {"runPolicy": {"cleanPodPolicy": "None"}})
        self._finish(name)
        if self._place.state(name)["Job"] is None:
            raise WalkError("its Job is gone")
        self._place.changed(name, {"runPolicy": {"cleanPodPolicy": "All"}})
        self._until(lambda: self._place.state(name)["Job"] is None, "its Job is gone")
        self._clear(name)


LIVES: dict[str, Callable[[Walk, str, Step], None]] = {
    "suspend": Walk.suspended,
    "startupTimeoutSeconds": Walk.given_time,
    "ttlSecondsAfterFinished": Walk.expired,
    "cleanPodPolicy": Walk.cleaned,
}
"""Fields that are seen in what becomes of a job, and in none of its children."""
FIXED = {
    *((name,) for name in ("model", "task", "data", "strategy", "adapter", "training", "output", "stages")),
    *(("distribution", name) for name in ("engine", "deepSpeed")),
    ("runPolicy", "backoffLimit"),
    ("evidence", "forgetting"),  # of a guard that trains
}
"""What cannot be changed at all, as docs/design.md says."""


def _names(leaf: Leaf, code: int, answer: Json) -> None:
    """Complain when a refusal does not say which field is meant: by its place, or by the one beside it that decides whether it counts."""
    if code != 422:
        raise WalkError(f"it is not refused as invalid: {code} {answer.get('message')}")
    path = [*leaf.said]
    for cause in answer["details"]["causes"]:
        place = [part.partition("[")[0] for part in cause.get("field", "").split(".")][1:]
        if place == path[: len(place)] and place and any(part in cause["message"] for part in path):
            return
        beside = len(place) - 1
        if 0 < beside < len(path) and place[:-1] == path[:beside] and path[beside] in cause["message"].lower():
            return
    raise WalkError(f"its refusal names another field: {answer.get('message')}")


# -- all of them -----------------------------------------------------------------------------------------------------


@cache
def _names_of_children() -> GangNames:
    return GangNames.of("job")


def seen(spec: Json) -> str:
    """Return what is made of a spec, as the operator at hand makes it."""
    meta = {"name": "job", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1}
    view = fine_tune_job_view({"metadata": meta | {"creationTimestamp": "2026-01-01T12:00:00Z"}, "spec": spec})
    parsed = parse_spec(spec)
    sources = {scheme: SourceAccess() for scheme in SCHEMES}
    names = _names_of_children()
    made = (
        config_map(view, parsed, names)["data"],
        indexed_job(view, parsed, IMAGE, Carried(), names, sources=sources)["spec"],
        network_policy(view, ISOLATED, opened(parsed, sources)),
    )
    return json.dumps(made)


def walk(
    cluster: Cluster,
    places: tuple[Place, Place],
    chosen: Sequence[Leaf],
    tell: Callable[[str], object],
    *,
    seconds: float = SECONDS,
) -> dict[str, str]:
    """Walk leaves; return what was found of each: the kind of step, or what is wrong, or that there is no step.

    Parameters
    ----------
    tell
        Is told of each that was walked.
    seconds
        How long each thing that is waited for may take.
    """
    judge = places[1]

    def takes(spec: Json) -> bool:
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "asked"}, "spec": spec}
        code, _ = cluster.request("POST", f"{judge.path(FINE_TUNE_JOBS)}?dryRun=All&fieldValidation=Strict", manifest)
        return code == 201

    def one(number: int, leaf: Leaf) -> tuple[str, str]:
        try:
            found = None if str(leaf) in UNCHANGEABLE else step(leaf, takes, seen)
            kind = Walk(*places, seconds)(f"w-{number}", found) if found is not None else "None"
        except Exception as error:  # noqa: BLE001 - what becomes of the others is worth knowing too
            kind = f"wrong: {error if isinstance(error, WalkError) else repr(error)}"
        tell(f"{leaf}: {kind}")
        return str(leaf), kind

    with ThreadPoolExecutor(AT_ONCE) as together:
        return dict(together.map(one, range(len(chosen)), chosen))


def main(start: str = "") -> int:
    """Walk all leaves whose path begins with a text; return 1 when something is wrong."""
    chosen = [leaf for leaf in leaves() if str(leaf).startswith(start)]
    with Cluster(Config(nodes=0)) as cluster, tempfile.TemporaryDirectory() as folder:
        operator = ForkedOperator(install(cluster, REPOSITORY), Path(folder), options=OPTIONS)
        operator.start()
        try:
            places, tell = namespaces(cluster), functools.partial(print, flush=True)
            found = walk(cluster, places, chosen, tell)
            harmed = {} if start else harm_all(places[0], tell, SECONDS)
        finally:
            operator.stop()
    wrong, undone = (
        {what: kind for what, kind in all_.items() if kind.startswith("wrong")} for all_ in (found, harmed)
    )
    missed = [leaf for leaf, kind in found.items() if kind == "None"]
    kinds = [kind for kind in found.values() if kind in ("Fixed", "Suspended", "Free")]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("Fixed", "Suspended", "Free"))
    print(f"\nwalked {len(kinds) + len(wrong)} of {len(found)} leaf fields of the CRD: {counts}, {len(wrong)} wrong")
    for leaf in missed:
        print(
            f"not walked, {UNCHANGEABLE.get(leaf, 'as no two valid specs were found that differ in it alone')}: {leaf}"
        )
    if harmed:
        print(f"did harm to children in {len(harmed)} ways, {len(undone)} are not mended")
    for what, kind in {**wrong, **undone}.items():
        print(f"{what}: {kind}")
    return bool(wrong or undone)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
