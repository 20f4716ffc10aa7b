"""What a finished model says of data by itself, token by token, and how near that is to what is right."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    from unfreeze_trainer.commands.asked import Asked


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
    import torch

    from unfreeze_trainer.commands.asked import SPLIT

    module: Any = asked.module
    task, scores = asked.task, asked.task.scores()
    for index in range(task.splits[SPLIT]):
        if (found := task.asked(SPLIT, index)) is None:
            raise JobError(
                "InvalidJob",
                f"--generate {most}: models of {task.job.task.type} make no texts of what is asked here: leave it out",
            )
        inputs = {name: torch.as_tensor(values, device=asked.device)[None] for name, values in found.inputs.items()}
        room = most if found.room is None else min(most, found.room)
        said: list[int] = []
        if room > 0:
            with torch.inference_mode():
                said = module.generate(**inputs, generation_config=_greedy(module, room))[0].tolist()
        if not module.config.is_encoder_decoder:  # a decoder repeats what it was asked
            said = said[len(found.inputs["input_ids"]) :]
        scores.add(found.decode(said), found.right)
    return scores.compute()


def _greedy(module: Any, most: int) -> Any:
    """Return how the model generates by its own files, but the most probable token each time, and so many at most."""
    options = copy.deepcopy(module.generation_config)
    options.update(do_sample=False, num_beams=1, max_new_tokens=most, max_length=None)
    options.update(temperature=None, top_p=None, top_k=None)
    return options
