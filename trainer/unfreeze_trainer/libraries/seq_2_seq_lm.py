"""transformers: an encoder and a decoder, which give the next token of a text that is made of another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.models.causal_lm import start_token


class Seq2SeqLanguageModel(CausalLanguageModel):
    """A folder of transformers, with its tokenizer; outputs are (samples, length of the targets, tokens of the vocabulary).

    Parameters
    ----------
    job
        Its model, adapter and seed count.
    """

    auto = "AutoModelForSeq2SeqLM"
    last_logits = (
        '__import__("torch").stack([model(input_ids=__import__("torch").tensor([read]),'
        ' decoder_input_ids=__import__("torch").tensor([said])).logits[0, -1] for read, said in inputs])'
    )
    """Expression for the logits after the last token of each sample: ids of the source, and of what the decoder reads."""

    def __init__(self, job: ResolvedJob) -> None:
        super().__init__(job, answers=False)
        said = (
            f"{self.where}: its tokenizer makes no tokens of targets: where it is of several languages, set src_lang and tgt_lang in its"
            " tokenizer_config.json"
        )
        try:
            ends = self.tokenizer(text_target="")["input_ids"]
        except Exception as error:  # without the target's language each tokenizer has its own error
            raise JobError("InvalidModel", said) from error
        if None in ends:
            raise JobError("InvalidModel", said)

    @cached_property
    def start(self) -> int:
        """Token that the decoder reads first."""
        return start_token(self.path, self.where)

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token of the targets, (samples, length, tokens of the vocabulary)."""
        logits: Tensor = module(**inputs, **self._options).logits
        return logits
