"""What a model says by itself of held-out samples, token by token: in a job, and of a finished model."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.training.looks import evaluating
from unfreeze_trainer.training.meter import StopRequested

if TYPE_CHECKING:
    from collections.abc import Callable

    from unfreeze_api.contracts.resolved import ResolvedJob
    from unfreeze_trainer.engines import Engine
    from unfreeze_trainer.link import Link
    from unfreeze_trainer.modalities.base import Question
    from unfreeze_trainer.tasks import Task

TOKENS, ROWS = 64, 100
"""That are said, and that are asked, where nobody says how many."""


def rounds_of(job: ResolvedJob, task: Task, split: str, world_size: int) -> int:
    """Return how many samples of a split each rank asks about; 0 where the job asks for no texts, or has no such split."""
    spec = job.training.evaluate.generate
    return math.ceil(min(task.splits.get(split, 0), spec.rows or ROWS) / world_size) if spec else 0


def say(
    module: Any,
    question: Question,
    most: int,
    device: torch.device,
    stops: Callable[[], bool] | None = None,
    *,
    together: bool = False,
    whole: bool = False,
) -> str:
    """Return what a model says of a sample, the most probable token each time.

    Parameters
    ----------
    module
        In evaluation mode.
    question
        Of the sample.
    most
        Tokens that it may say.
    device
        Where the module is.
    stops
        Asked at each token whether to say no more.
    together
        Whether all ranks run the module at once, each with a sample, until the last one has an end: where they hold it in shares. All have
        the same room then, since who has an end goes on beside the others.
    whole
        Whether it says as many tokens as it may, past those that end a text.
    """
    inputs = {name: torch.as_tensor(values, device=device)[None] for name, values in question.inputs.items()}
    room = most if question.room is None else min(most, question.room)
    if room < 1:
        return question.decode([])
    with torch.no_grad():
        config = greedy(module, room)
        if whole:
            config.update(min_new_tokens=room)
        options: dict[str, Any] = {"generation_config": config, "synced_gpus": together}
        ends = [config.stop_strings] if isinstance(config.stop_strings, str) else config.stop_strings or []
        if ends:  # it knows them by the texts of tokens
            options["tokenizer"] = question.tokenizer
        if stops:
            options["stopping_criteria"] = [_Stop(stops)]
        said: list[int] = module.generate(**inputs, **options)[0].tolist()
    text = question.decode(said[question.echoed :])
    for end in filter(None, ends):
        text = text.partition(end)[0]
    return text


class _Stop:
    """A criterion of transformers that ends all samples of a batch where somebody wants no more."""

    def __init__(self, stops: Callable[[], bool]) -> None:
        self._stops = stops

    def __call__(self, ids: Tensor, scores: object, **_: Any) -> Tensor:  # noqa: ARG002 - of its interface
        return torch.full((len(ids),), self._stops(), dtype=torch.bool, device=ids.device)


def greedy(module: Any, most: int) -> Any:
    """Return how the model generates by its own files, but the most probable token each time, and so many at most."""
    options = copy.deepcopy(module.generation_config)
    # What is None is filled up from the model's own file: what would be refused, or give more than a row of tokens, is said.
    own = {"num_return_sequences": 1, "penalty_alpha": 0.0, "return_dict_in_generate": False}
    options.update(do_sample=False, num_beams=1, max_new_tokens=most, max_length=None, **own)
    options.update(temperature=None, top_p=None, top_k=None)
    return options


class Saying:
    """Has the model of a run say by itself what it makes of some held-out samples.

    Parameters
    ----------
    job, task, engine, link
        Of the run.

    Raises
    ------
    JobError
        InvalidJob: there is nothing to ask.
    """

    def __init__(self, job: ResolvedJob, task: Task, engine: Engine, link: Link | None = None) -> None:
        self._spec, self._task, self._engine = job.training.evaluate.generate, task, engine
        self._link = link
        if self._spec and task.asked("validation", 0) is None:
            raise JobError(
                "InvalidJob",
                "spec.training.evaluate.generate: this model is asked nothing that it would answer token by token (texts alone, or an"
                " encoder that spells, whose wer is measured anyway): remove it",
            )

    def measure(
        self, split: str, beat: Callable[[], None] = lambda: None, *, rounds: int | None = None
    ) -> dict[str, float]:
        """Return how near what the model says is to the right texts of a split's first samples, by name; nothing unless asked for. Collective.

        The texts of all ranks are compared in the order of the samples, so that the figures are the same on any number of workers.
        `beat` is called before each question: who says nothing for long is taken for one that hangs. `rounds` are the samples that each
        rank asks about, None for all; with them it is the time that is wanted, and the model says as many tokens as it may.

        Raises
        ------
        StopRequested
            On every rank, when any was asked to stop.
        """
        if self._spec is None:
            return {}
        engine, task = self._engine, self._task
        rows = np.arange(min(task.splits[split], self._spec.rows or ROWS))[: rounds and rounds * engine.world_size]
        mine = rows[engine.rank :: engine.world_size].tolist()
        together = engine.divides and engine.world_size > 1
        one = partial(say, stops=self._stops, whole=rounds is not None)
        found: list[tuple[int, str, str]] = []
        engine.sync_buffers()
        with evaluating(engine.module), engine.autocast(), engine.whole():
            for number in range(math.ceil(len(rows) / engine.world_size)):
                self._check_stop()
                if number >= len(mine) and not together:
                    break
                beat()
                index = mine[number] if number < len(mine) else 0
                question = task.asked(split, index)
                assert question is not None  # as of the first sample
                if not question.readable and not together:
                    continue
                most = self._spec.max_tokens or TOKENS
                if together and self._differ(question, most):  # so near the model's last place all are asked the same
                    for same in rows[number * engine.world_size :][: engine.world_size].tolist():
                        question = task.asked(split, same)
                        assert question is not None
                        said = one(engine.module, question, most, engine.device, together=True)
                        if number < len(mine) and same == index and question.readable:
                            found.append((index, said, question.right))
                    continue
                said = one(engine.module, question, most, engine.device, together=together)
                if number < len(mine) and question.readable:
                    found.append((index, said, question.right))
            self._check_stop()  # it may have cut the last ones short
        scores = task.scores()
        for _, said, right in sorted(
            each for part in engine.gather_json(found, list[tuple[int, str, str]]) for each in part
        ):
            scores.add(said, right)
        return scores.compute()

    def _stops(self) -> bool:
        return self._link is not None and self._link.stop_requested()

    def _check_stop(self) -> None:
        if self._engine.any_rank(self._stops()):
            raise StopRequested

    def _differ(self, question: Question, most: int) -> bool:
        """Return whether some rank's question leaves room for fewer tokens than another's. Collective."""
        own = most if question.room is None else min(most, question.room)
        return len({room for part in self._engine.gather_json([own], list[int]) for room in part}) > 1
