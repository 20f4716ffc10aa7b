"""What comes from other processes of a gang, or from strangers, is never unpickled."""

from __future__ import annotations

import ast
import base64
import dataclasses
import io
import json
import pickle
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore, distributed_c10d
from torch.distributed.elastic.rendezvous import RendezvousStateError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import _NodeDesc, _RendezvousState

from tests.trainer.engine_group import forget_accelerate
from tests.trainer.jobs import make_job
from unfreeze_api.contracts.progress import CheckpointInfo
from unfreeze_trainer.agent.rendezvous import MAX_BYTES, JsonBackend, StoredRendezvous, decode, encode
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.runs.recovery import Found
from unfreeze_trainer.training.unused import Evidence

TRAINER = Path(__file__).parents[2] / "trainer"


class Trap:
    """Sets a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def some_state(seed: int) -> _RendezvousState:
    lots = random.Random(seed)
    nodes = [_NodeDesc(f"job-{lots.randrange(99)}.job", lots.randrange(1 << 22), number) for number in range(5)]
    now = datetime.now(UTC)
    state = _RendezvousState()
    state.round, state.complete, state.closed = lots.randrange(9), lots.random() < 0.5, lots.random() < 0.5
    state.deadline = now + timedelta(seconds=lots.random()) if lots.random() < 0.5 else None
    state.participants = {node: rank for rank, node in enumerate(lots.sample(nodes, lots.randrange(5)))}
    state.wait_list, state.redundancy_list = set(nodes[:2]), set(nodes[4:])
    state.last_heartbeats = {node: now - timedelta(seconds=lots.random()) for node in nodes}
    return state


@pytest.mark.parametrize("seed", range(10))
def test_a_state_of_the_rendezvous_is_the_same_after_json(seed):
    state = some_state(seed)
    again = decode(encode(state))
    assert vars(again) == vars(state)
    assert list(again.participants) == list(state.participants)
    assert encode(again) == encode(state)


def test_every_field_of_the_state_is_carried():
    """A newer torch may have more."""
    assert set(StoredRendezvous.model_fields) == set(vars(_RendezvousState())) == set(_RendezvousState.__annotations__)
    assert [field.name for field in dataclasses.fields(_NodeDesc)] == ["addr", "pid", "local_id"]


def backends(count: int = 1):
    store = HashStore()
    return store, [JsonBackend(C10dRendezvousBackend(store, "job")) for _ in range(count)]


def test_the_store_holds_json_and_its_tokens_fence():
    store, (first, second) = backends(2)
    assert first.get_state() is None
    state = pickle.dumps(some_state(1))
    stored, token, has_set = first.set_state(state, None)
    assert has_set
    assert vars(pickle.loads(stored)) == vars(pickle.loads(state))
    assert base64.b64decode(store.get("torch.rendezvous.job")).startswith(b'{"round":')
    newer = pickle.dumps(some_state(2))
    assert second.set_state(newer, None)[2] is False, "there is one"
    assert second.set_state(newer, token)[2] is True
    seen, _, has_set = first.set_state(state, token)
    assert not has_set
    assert vars(pickle.loads(seen)) == vars(some_state_of(newer))
    assert vars(pickle.loads(first.get_state()[0])) == vars(some_state_of(newer))


def some_state_of(pickled: bytes) -> _RendezvousState:
    return pickle.loads(pickled)


def test_a_pickle_that_a_stranger_puts_into_the_store_is_not_loaded(tmp_path):
    store, (backend,) = backends()
    bomb = pickle.dumps(Trap(tmp_path / "it-ran"))
    store.set("torch.rendezvous.job", base64.b64encode(bomb).decode())
    for look in (backend.get_state, lambda: backend.set_state(pickle.dumps(some_state(1)), b"old")):
        with pytest.raises(RendezvousStateError, match="is no state of it"):
            look()
    assert not (tmp_path / "it-ran").exists()
    pickle.loads(bomb)
    assert (tmp_path / "it-ran").exists(), "the trap works"


@pytest.mark.parametrize(
    "change",
    [
        {"round": -1},
        {"round": "1"},
        {"more": 1},
        {"wait_list": [["a", 1]]},
        {"wait_list": [["a", 1, 2, 3]]},
        {"deadline": "2026-01-01T00:00:00"},
        {"participants": {"a": 1}},
    ],
)
def test_what_is_no_state_is_refused(change):
    plain = StoredRendezvous.model_validate_json(encode(some_state(3))).model_dump(mode="json")
    decode(json.dumps(plain).encode())
    with pytest.raises(RendezvousStateError):
        decode(json.dumps(plain | change).encode())


@pytest.mark.parametrize("text", [b"", b"null", b"[" * 10_000, b"\xff", b'"' + b"x" * MAX_BYTES + b'"'])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(RendezvousStateError):
        decode(text)


def exchange(folder: Path) -> None:
    """Be a worker that exchanges values, and meets a rank that sends a pickle."""
    forget_accelerate()
    engine = open_engine(make_job("/none", "/none.csv", distribution={"numNodes": 2}))
    rank, time = engine.rank, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    value = {"a": torch.arange(3.0), "b": [1, "ü", None, {"c": 0.5}]} if rank == 0 else None
    got = engine.broadcast_object(value)
    assert torch.equal(got["a"], torch.arange(3.0))
    assert got["b"] == [1, "ü", None, {"c": 0.5}]
    found = Found(CheckpointInfo(step=3, time=time), None, best_lost=True)
    assert engine.broadcast_json(found if rank == 0 else Found(), Found) == found
    evidence = Evidence(frozenset({"a", "b"}), frozenset(), by_chance=True)
    nothing = Evidence(frozenset(), frozenset(), by_chance=False)
    assert engine.broadcast_json(evidence if rank == 0 else nothing, Evidence) == evidence
    with pytest.raises(pickle.UnpicklingError):
        engine.broadcast_object(Trap(folder / "ours") if rank == 0 else None)
    box = [Trap(folder / "theirs") if rank == 0 else None]
    if rank == 0:
        torch.distributed.broadcast_object_list(box, src=0)
    else:
        with pytest.raises(RuntimeError, match="nothing is unpickled"):
            torch.distributed.broadcast_object_list(box, src=0)
    engine.barrier()


def test_workers_exchange_plain_values_and_refuse_pickles(ranks, tmp_path):
    assert ranks.call(exchange, tmp_path) == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_all_collectives_of_objects_come_together_where_pickles_are_refused():
    """A newer torch may unpickle elsewhere."""
    tree = ast.parse(Path(distributed_c10d.__file__).read_text())
    loads = [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and re.search(r"^_unpickler$|^pickle\.", ast.unparse(node.func))
    ]
    assert loads == ["_tensor_to_object"]


@pytest.mark.slow
def test_nothing_of_ours_unpickles():
    """But the handler's own bytes in its own process; and tensors alone are loaded."""
    found = set()
    for file in sorted(TRAINER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.search(r"pickle\.loads?$|dill|joblib|(gather|list|scatter)_object(_list)?$|_object_list$", call):
                found.add((file.name, call))
            if call == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", file
    assert found == {("rendezvous.py", "pickle.loads")}


def test_a_saved_value_with_code_is_not_read(tmp_path):
    file = io.BytesIO()
    torch.save(Trap(tmp_path / "it-ran"), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    assert not (tmp_path / "it-ran").exists()
