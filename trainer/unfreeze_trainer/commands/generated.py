"""What a finished model says of data by itself, token by token, and how near that is to what is right."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from unfreeze_trainer.commands.asked import Asked
    from unfreeze_trainer.modalities.base import Question


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
    from unfreeze_trainer.commands.asked import SPLIT

    task, scores = asked.task, asked.task.scores()
    for index in range(task.splits[SPLIT]):
        found = task.asked(SPLIT, index)
        if index in task.unread[SPLIT]:
            continue
        if found is None:
            raise JobError(
                "InvalidJob",
                f"--generate {most}: models of {task.job.task.type} make no texts of what is asked here: leave it out",
            )
        scores.add(said(asked, found, most), found.right)
    return scores.compute()


def said(asked: Asked, question: Question, most: int) -> str:
    """Return what a model says of one sample, so many tokens at most."""
    import torch

    module: Any = asked.module
    inputs = {name: torch.as_tensor(values, device=asked.device)[None] for name, values in question.inputs.items()}
    room = most if question.room is None else min(most, question.room)
    tokens: list[int] = []
    if room > 0:
        with torch.inference_mode():
            tokens = module.generate(**inputs, generation_config=_greedy(module, room))[0].tolist()
    return question.decode(tokens[question.echoed :])


def _greedy(module: Any, most: int) -> Any:
    """Return how the model generates by its own files, but the most probable token each time, and so many at most."""
    options = copy.deepcopy(module.generation_config)
    options.update(do_sample=False, num_beams=1, max_new_tokens=most, max_length=None)
    options.update(temperature=None, top_p=None, top_k=None)
    return options
