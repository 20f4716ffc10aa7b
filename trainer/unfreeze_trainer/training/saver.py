"""Saving while the training continues: the loop waits until a copy is in memory, a thread writes that."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from unfreeze_api.contracts.progress import CheckpointInfo
from unfreeze_trainer.engines import Engine
from unfreeze_trainer.engines.base import persistent_buffers
from unfreeze_trainer.models.hook import StepHook
from unfreeze_trainer.runs.checkpoints import Snapshot
from unfreeze_trainer.runs.folder import RunFolder
from unfreeze_trainer.runs.generation import Generation
from unfreeze_trainer.runs.saving import prune, write
from unfreeze_trainer.runs.state import RunState


class Saver:
    """Writes checkpoints on rank 0, one at a time: while one is under way, the next one waits for it.

    Parameters
    ----------
    folder
        Where they go; rank 0 may write there.
    keep
        How many of the newest stay, beside the best one.
    newest
        What the run resumes from.
    hook
        Its state is kept beside the moments.
    evaluated
        Step of the newest evaluation that `newest` knows of.
    """

    def __init__(
        self,
        engine: Engine,
        folder: RunFolder,
        *,
        keep: int,
        newest: CheckpointInfo | None,
        hook: StepHook,
        evaluated: int = -1,
    ) -> None:
        self._engine, self._folder = engine, folder
        self._keep, self._hook = keep, hook
        self._saved = (newest.step, evaluated) if newest else None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self.newest = newest
        """The newest complete checkpoint; rank 0 knows it at once, the others when the next one begins."""

        self.seconds: float | None = None
        """That the newest checkpoint took on rank 0; None before the first."""

    def save(self, state: RunState, names: Collection[str]) -> None:
        """Copy a checkpoint of this step into memory, unless there is one, and begin to write it. Collective.

        Of step 0 there is none: nothing is trained, so that nothing goes on from it, and the folder still takes any recipe. One that a stop wrote before the step was evaluated does not count: an evaluation may change the weights, and decides.
        """
        if not state.step or (state.step, state.evaluated_step) == self._saved:
            return
        began = time.perf_counter()
        self.wait()
        self._engine.sync_buffers()
        weights, moments = self._engine.weights(names), self._engine.optimizer_state()
        if generation := self._folder.generation:
            buffers = {
                name: buffer.to("cpu", copy=True) for name, buffer in persistent_buffers(self._engine.module).items()
            }
            beside = self._hook.state()
            moments = {name: {**moments.get(name, {}), **beside.get(name, {})} for name in {**moments, **beside}}
            snapshot = Snapshot(state.model_copy(deep=True), weights | buffers, moments)
            stall = time.perf_counter() - began
            self._writing = self._thread.submit(self._write, snapshot, generation, stall)
        self._saved = state.step, state.evaluated_step

    def wait(self) -> None:
        """Wait until what is under way is complete; raise on rank 0 what went wrong with it. Collective."""
        if self._writing:
            self._writing.result()
        self.newest = self._engine.broadcast_json(self.newest, CheckpointInfo | None)

    def went_back(self, step: int, evaluated: int = -1) -> None:
        """Take note that the run stands at an earlier checkpoint again, 0 for its start; what was written after it is gone."""
        self._saved = (step, evaluated) if step else None
        found = self._folder.checkpoints.check(step) if step and self._folder.generation else None
        self.newest = self._engine.broadcast_json(found, CheckpointInfo | None)

    def check(self) -> None:
        """Raise on rank 0 if the newest checkpoint could not be written."""
        if self._writing and self._writing.done():
            self._writing.result()

    def close(self) -> None:
        """Wait for what is under way, however that ends."""
        self._thread.shutdown()

    def _write(self, snapshot: Snapshot, generation: Generation, stall: float) -> None:
        began = time.perf_counter()
        self.newest = write(self._folder.checkpoints, snapshot, generation)
        took = time.perf_counter() - began
        self.seconds = stall + took
        self._folder.events.add(
            "checkpoint", step=self.newest.step, stallSeconds=round(stall, 4), writeSeconds=round(took, 4)
        )
        prune(self._folder.checkpoints, snapshot.state, generation, keep=self._keep)
