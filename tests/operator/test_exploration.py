"""plan() from every state that a job can come to by few events: docs/design.md's one property of it.

From any state that can be reached the desired one is reached, and stays. A state is what a job's spec and status say and what
there is of its children; events are what people, the cluster and an operator that is stopped between two writes do.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from functools import cache

import pytest

from tests.operator.fakes import IMAGE, NOW, deleted, job, pod, text
from unfreeze_api.contracts.status import FineTuneJobStatus
from unfreeze_api.job import parse_spec
from unfreeze_operator.decisions import plan as planning
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, service
from unfreeze_operator.objects.actions import Create, Delete, Patch
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.resources import (
    CARRIED_ANNOTATION,
    CONFIG_MAPS,
    JOB_FILE,
    JOBS,
    NETWORK_POLICIES,
    SERVICES,
    GangNames,
)
from unfreeze_operator.objects.views import config_map_view, job_view, network_policy_view, pod_view, service_view
from unfreeze_operator.observed.context import Children, Context
from unfreeze_operator.settings.network import ISOLATED
from unfreeze_operator.settings.options import TrainerImage

EVENTS = 2
"""Events that lie between the beginning and a state, beside what operator and cluster do of themselves."""
NAMES = GangNames.of("job")
LIVE = ("Pending", "Running", "Stopping")
FIELDS = {CONFIG_MAPS: "config", SERVICES: "service", NETWORK_POLICIES: "policy"}
MAKERS = {"config": config_map_view, "service": service_view, "policy": network_policy_view}


@dataclass(frozen=True)
class Child:
    """The child Job."""

    nodes: int
    suspended: bool = False
    outcome: str = ""
    """Complete or Failed."""
    carried: str = Carried().to_json()
    number: int = 0
    """Of the Jobs of this name: a pod belongs to one of them."""


@dataclass(frozen=True)
class State:
    """What there is. A ConfigMap, a Service or a NetworkPolicy is absent (empty), right, edited, somebody else's (alien) or
    going; a right one is of a number of nodes.
    """

    suspend: bool = False
    nodes: int = 1
    gone: bool = False
    """Whether somebody has deleted the FineTuneJob."""
    config: str = ""
    service: str = ""
    policy: str = ""
    child: Child | None = None
    pods: frozenset[tuple[int, int, str]] = frozenset()
    """Number of the Job, index and phase of each."""
    status: str = "{}"


# -- the operator --------------------------------------------------------------------------------------------------


@cache
def _job(suspend, nodes, gone):
    view = replace(job(nodes=nodes, suspend=suspend), deleting=gone)
    return view, parse_spec(json.loads(unpack(view.spec)))


@cache
def _view(field, kind):
    """Return the view of a ConfigMap, a Service or a NetworkPolicy."""
    nodes = int(kind) if kind.isdecimal() else 1
    view, spec = _job(False, nodes, False)
    raw = {
        "config": lambda: config_map(view, spec, NAMES),
        "service": lambda: service(view, NAMES.service),
        "policy": lambda: network_policy(view, ISOLATED),
    }[field]()
    raw = json.loads(json.dumps(raw))
    raw["metadata"] |= {"uid": f"{field}-{kind}", "resourceVersion": "1", "creationTimestamp": text(NOW)}
    if kind == "edited" and field == "config":
        raw["data"] = {JOB_FILE: "{}"}
    elif kind == "edited":
        raw["spec"] |= {"ports": [], "policyTypes": []}
    elif kind == "alien":
        raw["metadata"]["ownerReferences"][0]["uid"] = "u0"
    elif kind == "going":
        raw["metadata"]["deletionTimestamp"] = text(NOW)
    return MAKERS[field](raw)


@cache
def _child_view(child, failed, active):
    view, spec = _job(False, child.nodes, False)
    raw = indexed_job(view, spec, TrainerImage(IMAGE.name), Carried(), NAMES)
    raw = json.loads(json.dumps(raw))
    raw["metadata"] |= {"uid": f"j{child.number}", "resourceVersion": "1", "creationTimestamp": text(NOW)}
    raw["metadata"]["annotations"][CARRIED_ANNOTATION] = child.carried
    raw["spec"]["suspend"] = child.suspended
    raw["status"] = {"failed": failed, "active": active, **({} if child.suspended else {"startTime": text(NOW)})}
    if child.outcome:
        ended = {"type": child.outcome, "status": "True", "reason": "Any", "lastTransitionTime": text(NOW)}
        raw["status"]["conditions"] = [ended]
        raw["spec"]["activeDeadlineSeconds"] = 1 if child.outcome == "Failed" else None
    return job_view(raw)


@cache
def _pod_view(number, index, phase):
    code = {"Failed": 1, "Broken": 2, "Succeeded": 0, "Stopped": 143}.get(phase)
    kubernetes = {"Broken": "Failed", "Stopped": "Failed", "Stopping": "Running"}.get(phase, phase)
    raw = pod(index, kubernetes, owner=f"j{number}", code=code)
    return pod_view(deleted(raw) if phase in ("Stopping", "Stopped") else raw)


@cache
def asked(state):
    """Return the operator's plan for a state."""
    view, spec = _job(state.suspend, state.nodes, state.gone)
    pods = [_pod_view(*one) for one in sorted(state.pods)]
    failed = sum(phase in ("Failed", "Broken") for _, _, phase in state.pods)
    active = sum(phase in LIVE for _, _, phase in state.pods)
    children = Children.of(
        view.uid,
        [_child_view(state.child, failed, active)] if state.child else [],
        *(
            [_view(field, getattr(state, field))] if getattr(state, field) else []
            for field in ("service", "config", "policy")
        ),
        pods=pods,
        departed=[],
    )
    return planning.plan(Context(view, spec, FineTuneJobStatus.read(state.status), children, NOW, IMAGE))


def act(state, action):
    """Return the state after a write of the operator; one that the API server refuses changes nothing."""
    match action:
        case Create(resource, manifest) if resource in FIELDS:
            kind = str(state.nodes)
            return state if getattr(state, FIELDS[resource]) else replace(state, **{FIELDS[resource]: kind})
        case Patch(resource, _, _) if resource in FIELDS:
            return replace(state, **{FIELDS[resource]: str(state.nodes)})
        case Create(resource, manifest) if resource == JOBS:
            if state.child:
                return state
            spec, number = manifest["spec"], max((0, *(one for one, _, _ in state.pods))) + 1
            carried = manifest["metadata"]["annotations"][CARRIED_ANNOTATION]
            return replace(state, child=Child(spec["completions"], spec["suspend"], "", carried, number))
        case Patch(resource, _, change) if resource == JOBS:
            child, spec = state.child, change.get("spec", {})
            carried = change.get("metadata", {}).get("annotations", {}).get(CARRIED_ANNOTATION, child.carried)
            child = replace(child, suspended=spec.get("suspend", child.suspended), carried=carried)
            if spec.get("activeDeadlineSeconds") == 1:
                child = replace(child, outcome="Failed")
            return replace(state, child=child)
        case Delete(resource, _) if resource == JOBS:
            return replace(state, child=None)
    raise AssertionError(f"the operator does {action}")


def operate(state, writes=None):
    """Return the state after a look of the operator; one that is stopped after some writes says nothing."""
    made = asked(state)
    assert made.problems == (), made.problems
    for action in made.actions[:writes]:
        state = act(state, action)
    if writes is None and made.status is not None:
        state = replace(state, status=made.status.to_json())
    return state


# -- the cluster ---------------------------------------------------------------------------------------------------


def control(state):
    """Return the state after garbage collector, Job controller and nodes have done what they do in a moment."""
    for field in FIELDS.values():
        if getattr(state, field) in ("alien", "going") or state.gone:
            state = replace(state, **{field: ""})
    child = None if state.gone else state.child
    own = {one for one in state.pods if child and one[0] == child.number}
    pods = {one if one in own else (*one[:2], "Stopping") for one in state.pods if one in own or one[2] != "Stopping"}
    if child and not child.outcome:
        phases = [phase for _, _, phase in own]
        done = {index for _, index, phase in own if phase == "Succeeded"}
        if len(done) >= child.nodes:
            child = replace(child, outcome="Complete")
        elif "Broken" in phases or "Failed" in phases:
            child = replace(child, outcome="Failed")
    if child and (child.outcome or child.suspended):
        pods = {
            (*one[:2], "Stopping") if one[2] in ("Pending", "Running") else one for one in pods if one[2] != "Stopping"
        }
    elif child:
        pods = {one for one in pods if one[2] != "Stopping"}
        pods = {(*one[:2], "Running") if one[2] == "Pending" else one for one in pods}
        held = {index for number, index, phase in pods if number == child.number and phase in (*LIVE, "Succeeded")}
        pods |= {(child.number, index, "Pending") for index in set(range(child.nodes)) - held}
    return replace(state, child=child, pods=frozenset(pods))


def events(state):
    """Yield what may happen beside: each by its name, with the state after it."""
    yield "suspend or resume", replace(state, suspend=not state.suspend)
    if state.suspend:
        yield "resize", replace(state, nodes=3 - state.nodes)
    yield "delete the job", replace(state, gone=True)
    for field in FIELDS.values():
        for kind in ("", "edited") if getattr(state, field) else ("alien", "going"):
            yield f"{field} is {kind or 'deleted'}", replace(state, **{field: kind})
    if state.child:
        yield "delete the Job", replace(state, child=None)
    for one in sorted(state.pods):
        if one[2] == "Running":
            for phase in ("Failed", "Broken", "Succeeded", "Stopping"):
                yield phase, replace(state, pods=state.pods - {one} | {(*one[:2], phase)})
    for writes in range(len(asked(state).actions)):
        yield f"the operator is stopped after {writes} writes", operate(state, writes)


# -- the property ----------------------------------------------------------------------------------------------------


def desired(state):
    """Return whether a state is the one that its spec asks for: finished, suspended, or running whole; or the job is gone."""
    status = json.loads(state.status)
    if state.gone:
        return not (state.config or state.service or state.policy or state.child or state.pods)
    if "completionTime" in status:
        return status["phase"] in ("Succeeded", "Failed") and not {phase for _, _, phase in state.pods} & {*LIVE}
    whole = state.config == str(state.nodes) and state.service.isdecimal() and state.policy.isdecimal()
    if not whole or state.child is None or state.child.nodes != state.nodes or state.child.suspended != state.suspend:
        return False
    running = sum(phase in ("Running", "Succeeded") for _, _, phase in state.pods)
    if state.suspend:
        return status["phase"] == "Suspended" and not {phase for _, _, phase in state.pods} & {*LIVE}
    return status["phase"] == "Running" and running == state.nodes


def settled(state, good):
    """Follow a state while nothing happens beside; return the states on the way, or raise an AssertionError."""
    way = [state]
    for _ in range(40):
        if state in good:
            return way
        after = control(operate(state))
        if after == state:
            assert desired(state), f"it rests in {state}"
            assert asked(state).actions == (), f"it does not rest in {state}"
            return way
        way.append(after)
        state = after
    raise AssertionError(f"it does not come to rest: {way[-3:]}")


def explore(most=EVENTS):
    """Return every state that is reached within so many events, each followed to its rest."""
    seen, good = {State(): 0}, set()
    queue = deque([State()])
    while queue:
        state = queue.popleft()
        good |= {*settled(state, good)}
        nexts = [(control(state), 0), (operate(state), 0)]
        nexts += [(after, 1) for _, after in events(state)] if seen[state] < most else []
        for after, cost in nexts:
            if seen.get(after, most + 1) > seen[state] + cost:
                seen[after] = seen[state] + cost
                (queue.append if cost else queue.appendleft)(after)
    return seen


@pytest.mark.slow
def test_from_any_state_the_desired_one_is_reached_and_stays():
    assert len(explore()) > 500


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["service", "config_map", "resume", "suspend", "changed_spec"])
def test_without_one_of_its_policies_it_is_not(policy, monkeypatch):
    rest = tuple(check for check in planning.ORDER if planning.name(check) != policy)
    monkeypatch.setattr(planning, "ORDER", rest)
    asked.cache_clear()
    with pytest.raises(AssertionError):
        explore()
    asked.cache_clear()
