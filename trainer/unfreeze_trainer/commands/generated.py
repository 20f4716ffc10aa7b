"""What a finished model says of data by itself, token by token, and how near that is to what is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.commands.asked import Asked
    from unfreeze_trainer.modalities.base import Question

_UNBOUNDED = 1 << 30
"""Tokens, where only the model's own places bound what it says."""


def generated(asked: Asked, most: int) -> dict[str, float]:
    """Return the scores of what a model says of each sample, the most probable token each time: wer and cer of speech, else rougeL and chrF.

    Parameters
    ----------
    asked
        A model with labelled data; it is asked for one sample at a time, so that no other one's length counts.
    most
        Tokens that it may say of each.

    Raises
    ------
    JobError
        InvalidJob: models of this task make no texts, or the samples are no questions.
    """
    scores = asked.task.scores()
    for _, said, found in spoken(asked, most):
        scores.add(said, found.right)
    return scores.compute()


def spoken(asked: Asked, most: int) -> Iterator[tuple[int, str, Question]]:
    """Yield the index of each sample that can be read, what a model says of it, and what it was asked. Parameters and errors as of `generated`.

    Of equal questions, as a picture with several texts is in each of its rows, the first is asked.
    """
    import torch

    from unfreeze_trainer.commands.asked import SPLIT
    from unfreeze_trainer.features.keys import row_keys
    from unfreeze_trainer.training.saying import say

    task, known = asked.task, dict[bytes, str]()
    for index in range(task.splits[SPLIT]):
        if (found := task.asked(SPLIT, index)) is None:
            raise JobError(
                "InvalidJob",
                f"--generate {most}: models of {task.job.task.type} make no texts of what is asked here, or without being told how long:"
                " leave it out",
            )
        if not found.readable:
            task.unread[SPLIT].add(index)
            continue
        [key] = row_keys({name: torch.as_tensor(values)[None] for name, values in found.inputs.items()})
        if key not in known:
            known[key] = say(asked.module, found, most, asked.device)
        yield index, known[key], found


def written(asked: Asked, batch_size: int, *, inputs: bool) -> Iterator[dict[str, pa.Array]]:
    """Yield a row of each picture or clip that can be read, some hundred at a time, in the order of the data: where it stands, and what a model writes.

    Parameters
    ----------
    asked
        A model of SpeechRecognition or Captioning, with data.
    batch_size
        Clips that go through an encoder that spells at once; a decoder is asked for one at a time.
    inputs
        Whether what is read is among it.
    """
    import numpy as np
    import pyarrow as pa

    from unfreeze_api.tasks.captioning import CaptioningSpec
    from unfreeze_trainer.commands.asked import SPLIT, chunks

    task: Any = asked.task
    each: Iterator[tuple[np.ndarray, list[str]]]
    if task.wide_outputs:
        captioning = task.job.task.of(CaptioningSpec)
        most = captioning.max_length if captioning else _UNBOUNDED
        each = ((np.array([index]), [said]) for index, said, _ in spoken(asked, most))
    else:
        each = ((samples, task.metrics.texts(outputs, batch)) for samples, outputs, batch in asked.outputs(batch_size))
    texts: dict[int, str] = {}
    for samples in chunks(task):
        while not texts.keys() >= {*samples.tolist()} - task.unread[SPLIT]:
            if (found := next(each, None)) is None:
                break
            texts.update(zip(found[0].tolist(), found[1], strict=True))
        read = np.array([index for index in samples.tolist() if index not in task.unread[SPLIT]], dtype=np.int64)
        if len(read):
            known = task.rows(SPLIT, read, inputs=inputs)
            yield known | {"prediction": pa.array([texts.pop(index) for index in read.tolist()], pa.string())}
        # Where the last ones cannot be read, what follows them has been said already.
        texts = {index: said for index, said in texts.items() if index > samples[-1]}
