"""transformers: models that read text, with a head that gives each token logits of its own."""

from __future__ import annotations

import json

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.libraries.transformers import NAMED, Transformers
from unfreeze_trainer.models.export import Example, Plain

_UNGROUPED = ("E-", "S-", "L-", "U-")
"""Beginnings of tags that transformers' pipeline does not put together to spans."""


class TokenClassifier(Transformers):
    """A folder of transformers, with its tokenizer; outputs are (samples, tokens, outputs).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    """

    auto = "AutoModelForTokenClassification"
    reads_one_place = False

    def __init__(self, job: ResolvedJob) -> None:
        super().__init__(job)
        # What pools the tokens of a text has no part in it.
        self._pooling, self._pooling_files = None, []

    def _plain(self, folder: str, example: Example) -> Plain:
        strategy = "none" if any(tag.startswith(_UNGROUPED) for tag in self.head.outputs) else "first"
        return Plain(
            self.name,
            "from transformers import pipeline\n\n"
            f'tag = pipeline("token-classification", model={json.dumps(folder)}, aggregation_strategy="{strategy}")',
            f"print(tag({example.value}))",
            _of_tokens("tag.model", "tag.tokenizer"),
            NAMED.format(model="tag.model"),
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        plain = super()._plain_adapter(folder, base, example)
        return Plain(plain.library, plain.load, plain.predict, _of_tokens("model", "tokenizer"))

    def _predict(self, example: Example) -> str:
        outputs = "model(**inputs).logits[:, -inputs.input_ids.shape[1] :]"  # a prompt stands before the text
        return (
            f'inputs = tokenizer({example.value}, truncation=True, return_tensors="pt")\n'
            f"tags = {self.head.answer(outputs)}\n"
            "print(list(zip(inputs.tokens(), tags)))"
        )


def _of_tokens(model: str, tokenizer: str) -> str:
    """Return an expression for the outputs of all tokens of the samples, (tokens, outputs), without padding and prompt."""
    inputs = f'(given := {tokenizer}(inputs, truncation=True, padding=True, return_tensors="pt"))'
    return f'{model}(**{inputs}).logits[:, -given["input_ids"].shape[1] :][given["attention_mask"].bool()]'
