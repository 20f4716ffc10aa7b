"""The rendezvous of a gang, without pickles: what lies in the store that all pods write to is JSON, and nothing else is read.

torch's dynamic rendezvous unpickles the state that it finds there, so that whoever reaches the port could run code in every
agent. Here it gets bytes that this process has pickled itself, from fields that were checked one by one.
"""

from __future__ import annotations

import pickle
from datetime import UTC
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt, ValidationError
from torch.distributed.elastic.rendezvous import RendezvousParameters, RendezvousStateError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend, create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousBackend,
    _NodeDesc,
    _RendezvousState,
    create_handler,
)

MAX_BYTES = 1 << 20
"""Of a state; a node takes some 250."""

Node = tuple[str, NonNegativeInt, NonNegativeInt]
"""Address, process id, number of the handler in its process."""


class StoredRendezvous(BaseModel):
    """torch's _RendezvousState, as it stands in the store."""

    model_config = ConfigDict(extra="forbid", strict=True)

    round: NonNegativeInt
    complete: bool
    deadline: AwareDatetime | None
    closed: bool
    participants: list[tuple[Node, NonNegativeInt]]
    wait_list: list[Node]
    redundancy_list: list[Node]
    last_heartbeats: list[tuple[Node, AwareDatetime]]


def encode(state: _RendezvousState) -> bytes:
    """Return the JSON of a rendezvous' state; the same for equal states."""

    def nodes(found: set[_NodeDesc]) -> list[Node]:
        return [(node.addr, node.pid, node.local_id) for node in sorted(found)]

    def entries(found: dict[_NodeDesc, Any]) -> list[tuple[Node, Any]]:
        return [((node.addr, node.pid, node.local_id), value) for node, value in found.items()]

    plain = StoredRendezvous(
        round=state.round,
        complete=state.complete,
        deadline=state.deadline,
        closed=state.closed,
        participants=entries(state.participants),
        wait_list=nodes(state.wait_list),
        redundancy_list=nodes(state.redundancy_list),
        last_heartbeats=entries(state.last_heartbeats),
    )
    return plain.model_dump_json().encode()


def decode(text: bytes) -> _RendezvousState:
    """Return the state that JSON stands for.

    Raises
    ------
    RendezvousStateError
        It is anything else.
    """
    if len(text) > MAX_BYTES:
        raise RendezvousStateError(f"the rendezvous' state has {len(text)} bytes")
    try:
        plain = StoredRendezvous.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise RendezvousStateError(f"what lies in the rendezvous' store is no state of it: {problem}") from error
    state = _RendezvousState()
    state.round, state.complete, state.closed = plain.round, plain.complete, plain.closed
    state.deadline = plain.deadline and plain.deadline.astimezone(UTC)
    state.participants = {_NodeDesc(*node): rank for node, rank in plain.participants}
    state.wait_list = {_NodeDesc(*node) for node in plain.wait_list}
    state.redundancy_list = {_NodeDesc(*node) for node in plain.redundancy_list}
    state.last_heartbeats = {_NodeDesc(*node): time.astimezone(UTC) for node, time in plain.last_heartbeats}
    return state


class JsonBackend(RendezvousBackend):
    """Keeps the state of torch's dynamic rendezvous as JSON.

    Parameters
    ----------
    backend
        What keeps the bytes.
    """

    def __init__(self, backend: C10dRendezvousBackend) -> None:
        self._backend = backend

    @property
    def name(self) -> str:
        """Name of what keeps the bytes."""
        return self._backend.name

    def get_state(self) -> tuple[bytes, Any] | None:
        """Return the state, as the handler wants it, and its token."""
        found = self._backend.get_state()
        return found and (pickle.dumps(decode(found[0])), found[1])

    def set_state(self, state: bytes, token: Any = None) -> tuple[bytes, Any, bool] | None:
        """Store what the handler in this process has pickled, if the token is the newest; return what is there now."""
        mine = encode(pickle.loads(state))  # noqa: S301 - of this very process
        found = self._backend.set_state(mine, token)
        return found and (pickle.dumps(decode(found[0])), found[1], found[2])


def open_rendezvous(parameters: RendezvousParameters) -> DynamicRendezvousHandler:
    """Return a rendezvous; on its host the store is opened that it lies in."""
    backend, store = create_backend(parameters)
    return create_handler(store, JsonBackend(backend), parameters)
