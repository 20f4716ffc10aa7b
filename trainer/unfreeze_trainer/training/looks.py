"""A look at a model: what it makes of some rows, in batches that are the same on any number of workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.spec.adapter import PROMPTS
from unfreeze_trainer.errors import one_line
from unfreeze_trainer.features.cut import MASK, length_of
from unfreeze_trainer.models.modes import to_evaluation
from unfreeze_trainer.objectives.base import IGNORED, PACKED
from unfreeze_trainer.ranking.layers import pooled_rows, watched
from unfreeze_trainer.ranking.order import READ

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.models import LoadedModel
    from unfreeze_trainer.models.own_head import OwnHead
    from unfreeze_trainer.tasks import Batch, Task

log = logging.getLogger(__name__)

BATCH = 16
_EVERY = 7
"""One word in so many is masked."""
MAX_PLACES = 8
"""Tokens of a row at which outputs are compared."""
MAX_NUMBERS = 2**25
"""Of the base's outputs that are kept in all, 128 MiB, unless one place of each row takes more."""
OUTPUTS = "outputs"
"""What the place of a model's own vectors is called."""


@dataclass
class Seen:
    """What one look at a model gives: all rows on every rank, but for outputs, which stay where they were computed."""

    places: dict[str, np.ndarray] = field(default_factory=dict)
    """Features of each place, float32 of shape (rows, width)."""
    losses: np.ndarray | None = None
    """Of a language model, the sum over each row's tokens; float64 of shape (rows,)."""
    units: np.ndarray | None = None
    """Of these tokens, how many."""
    outputs: dict[int, Tensor] = field(default_factory=dict)
    """Logarithms of the base's own probabilities, by row, (places, outputs); only those of this rank."""
    divergence: np.ndarray | None = None
    """KL divergence from the base of each row, the mean over its places."""
    changed: np.ndarray | None = None
    """Share of each row's places whose most probable output is another than the base's."""


class Look:
    """How a model is looked at.

    Parameters
    ----------
    job, task, loaded, engine
        Of the run; the engine has taken the model over.
    split
        Of the rows, anchor or validation.
    rows
        Indices into it, int64 of shape (rows,), the same on every rank.
    head
        The base's own one, on the device; None where it has none, or where it cannot be put onto this model.
    """

    def __init__(
        self,
        job: ResolvedJob,
        task: Task,
        loaded: LoadedModel,
        engine: Engine,
        *,
        split: str,
        rows: np.ndarray,
        head: OwnHead | None,
    ) -> None:
        self._job, self._task, self._loaded, self._engine = job, task, loaded, engine
        self.split, self.rows, self.head = split, rows, head
        self._unread: set[int] = set()
        self._headless = False

    def at_base(self) -> Seen:
        """Return what the model gives while it still is the base. Collective."""
        with _without_prompt(self._engine.module, self._job):
            base = self.at(None)
            if self._engine.any_rank(self._headless):
                self.head = None
                base = self.at(None)
        return base

    def read(self) -> np.ndarray:
        """Return which rows could be read, bool of shape (rows,). Collective."""
        unread = self._engine.gather_json(sorted(self._unread), list[int])
        found: np.ndarray = ~np.isin(self.rows, [row for rows in unread for row in rows])
        return found

    def _batches(self) -> tuple[list[np.ndarray], list[list[int]]]:
        """Return the places, among the rows, of this rank's batches, and the indices of their samples; as many on every rank."""
        size = 1 if self._task.wide_outputs else BATCH
        order = np.arange(len(self.rows))
        lists = [order[low : low + size] for low in range(0, len(order), size)]
        mine = lists[self._engine.rank :: self._engine.world_size]
        rounds = -(-len(lists) // self._engine.world_size)
        return mine, [self.rows[places].tolist() for places in mine] + [[]] * (rounds - len(mine))

    @torch.no_grad()
    def at(self, base: Seen | None) -> Seen:
        """Run the model on the rows. `base` is what the base gave, None for the base itself. Collective."""
        engine, task = self._engine, self._task
        module = engine.module
        places, indices = self._batches()
        seen, gathered, lost = Seen(), dict[str, np.ndarray](), set[str]()
        engine.sync_buffers()
        with evaluating(module), self.watching() as kept:
            for number, here in enumerate(task.unlabelled(self.split, iter(indices), self._unread)):
                own = places[number] if number < len(places) else np.zeros(0, dtype=np.int64)
                masked = self.masked(here)
                inputs = engine.to_device(here)
                kept.clear()
                if task.joins:
                    self._take(gathered, self._of_towers(module, inputs), own)
                    continue
                with engine.autocast():
                    outputs = task.outputs(module, inputs)
                    said = self._tried(kept, inputs, outputs, masked, trying=base is None)
                given = dict(self.pooled(kept, inputs, outputs))
                lost |= kept.keys() - given.keys()  # where tokens come first, but for as many rows as tokens
                self._take(gathered, given, own)
                if said is not None:
                    self._take_outputs(seen, base, gathered, said, own)
                if task.wide_outputs:
                    self._take_losses(gathered, inputs, outputs, own)
        for name in {name for names in engine.gather_json(sorted(lost), list[str]) for name in names}:
            gathered.pop(name, None)
        for name, values in gathered.items():
            found = engine.all_reduce(torch.from_numpy(values)).cpu().numpy()
            if name.startswith("."):
                setattr(seen, name[1:], found[:, 0])
            else:
                seen.places[name] = found
        names = [block.name for block in self._loaded.blocks if block.is_layer] + [READ, OUTPUTS]
        if not task.joins:
            seen.places = {name: seen.places[name] for name in names if name in seen.places}
        return seen

    def _of_towers(self, module: nn.Module, inputs: Batch) -> dict[str, Tensor]:
        with self._engine.autocast():
            return self._task.of_towers(module, inputs)

    def _take(self, gathered: dict[str, np.ndarray], given: Mapping[str, Tensor], own: np.ndarray) -> None:
        """Lay the features of some rows, whose places are given, in those of all."""
        for name, pooled in given.items():
            whole = gathered.setdefault(name, np.zeros((len(self.rows), pooled.shape[1]), dtype=np.float32))
            whole[own] = pooled[: len(own)].float().cpu().numpy()

    @contextmanager
    def watching(self) -> Iterator[dict[str, Tensor]]:
        """Yield what is filled in each forward pass, as of `watched`; what the base's own head reads is noted beside it."""
        module = self._engine.module
        with ExitStack() as stack:
            if self.head:
                stack.enter_context(self.head.watching(module))
            yield {} if self._task.joins else stack.enter_context(watched(module, self._loaded.blocks))

    def masked(self, batch: Batch) -> Tensor | None:
        """Mask one word in `_EVERY` of each row, in place; return their places, (samples, places), -1 where a row has fewer.

        None where the base's own head says nothing of masked words.
        """
        found = self._task.words(batch) if self.head and self.head.masks else None
        if found is None:
            return None
        words, mask = found
        chosen = [row.nonzero().flatten()[_EVERY // 2 :: _EVERY][:MAX_PLACES] for row in words]
        chosen = [one if len(one) else row.nonzero().flatten()[:1] for one, row in zip(chosen, words, strict=True)]
        batch["input_ids"] = batch["input_ids"].clone()
        places = torch.full((len(chosen), max(1, *map(len, chosen))), -1)
        for row, own in enumerate(chosen):
            places[row, : len(own)] = own
            batch["input_ids"][row, own] = mask
        return places

    def _tried(self, *of_pass: Any, trying: bool) -> list[Tensor] | None:
        """Return what `said` does; None where the base's head, as it turns out, reads what the trained body does not give."""
        if self.head is None or not trying:
            return self.said(*of_pass)
        if self._headless:
            return None
        try:
            return self.said(*of_pass)
        except Exception as error:  # noqa: BLE001 - the base is measured without it
            log.warning("the base's own head cannot be put onto this model, and is not measured: %s", one_line(error))
            self._headless = True
            return None

    def said(
        self, kept: Mapping[str, Tensor], inputs: Batch, outputs: Tensor, masked: Tensor | None
    ) -> list[Tensor] | None:
        """Return the logits of the base's own outputs, for each sample (places, outputs); None where it has none.

        Parameters
        ----------
        kept, inputs, outputs
            Of the newest forward pass.
        masked
            What `masked` returned of the batch.
        """
        head = self.head
        if self._task.wide_outputs:
            learned = (self._task.answers_at(inputs)[0] != IGNORED).nonzero().flatten()
            if not len(learned):
                return [outputs[0, :0]]
            most = max(1, min(MAX_PLACES, MAX_NUMBERS // (len(self.rows) * outputs.shape[2])))
            chosen = torch.linspace(0, len(learned) - 1, min(most, len(learned))).round().long()
            return [outputs[0, learned[chosen.to(learned.device)]]]
        if head is None:
            return None
        if head.masks:
            if masked is None:
                return None
            places = masked.to(outputs.device)
            logits = head.outputs(kept.get(READ), inputs, places.clamp(min=0))
            return [own[there] for own, there in zip(logits, places >= 0, strict=True)]
        return list(head.outputs(kept.get(READ), inputs, None))

    def pooled(self, kept: Mapping[str, Tensor], inputs: Batch, outputs: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each place of the newest forward pass that has one vector for each sample, (samples, width). Parameters as of `said`."""
        found = {**kept, OUTPUTS: outputs} if outputs.ndim == 2 and READ not in kept else dict(kept)  # noqa: PLR2004
        known = dict(inputs)
        if PACKED in inputs:
            known[MASK] = (inputs[PACKED] >= 0).long()
        samples = len(next(iter(inputs.values())))
        prompt = self._job.adapter.virtual_tokens if self._job.adapter else 0
        for name, value in found.items():
            if prompt and value.ndim == 3 and MASK in known and value.shape[1] == length_of(known) + prompt:  # noqa: PLR2004 - tokens
                value = value[:, prompt:]  # noqa: PLW2901 - the text, which a prompt stands before
            pooled = pooled_rows(value, known, samples)
            if pooled is not None:
                yield name, pooled

    def _take_outputs(
        self,
        seen: Seen,
        base: Seen | None,
        gathered: dict[str, np.ndarray],
        said: Sequence[Tensor],
        own: np.ndarray,
    ) -> None:
        """Keep the base's outputs, or compare others with them."""
        if base is not None:
            for name in (".divergence", ".changed"):
                gathered.setdefault(name, np.zeros((len(self.rows), 1)))
        for row, logits in zip(own.tolist(), said, strict=False):
            logs = logits.float().log_softmax(dim=-1)
            if base is None:
                seen.outputs[row] = logs.cpu()
                continue
            before = base.outputs[row].to(logs.device)
            if len(before):
                each = (before.exp() * (before - logs)).sum(dim=-1)
                gathered[".divergence"][row] = float(each.double().mean())
                gathered[".changed"][row] = float((before.argmax(-1) != logs.argmax(-1)).double().mean())

    def _take_losses(self, gathered: dict[str, np.ndarray], inputs: Batch, outputs: Tensor, own: np.ndarray) -> None:
        for name in (".losses", ".units"):
            gathered.setdefault(name, np.zeros((len(self.rows), 1)))
        losses = self._task.loss(outputs, inputs)
        for row, loss in zip(own.tolist(), losses, strict=False):
            gathered[".losses"][row] = float(loss)
            gathered[".units"][row] = int((self._task.answers_at(inputs) != IGNORED).sum())


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and all parts back into their own."""
    modes = [(part, part.training) for part in module.modules()]
    to_evaluation(module)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _without_prompt(module: Any, job: ResolvedJob) -> Iterator[None]:
    """Switch off an adapter that is not the base itself at first: prompts begin at random, all others without effect."""
    if not job.adapter or job.adapter.type not in PROMPTS:
        yield
        return
    module.forward = module.base_model.forward  # PEFT's own disable_adapter asks classifiers how they generate
    try:
        yield
    finally:
        del module.forward
