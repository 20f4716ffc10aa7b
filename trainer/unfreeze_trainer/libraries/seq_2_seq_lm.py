"""transformers: an encoder and a decoder, which give the next token of a text that is made of another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.causal_lm import as_published, generation_options, start_token


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
        ' decoder_input_ids=__import__("torch").tensor([said]), use_cache=False).logits[0, -1] for read, said in inputs])'
    )
    """Expression for the logits after the last token of each sample: ids of the source, and of what the decoder reads. FSMT reads all of it with a cache."""

    def __init__(self, job: ResolvedJob) -> None:
        super().__init__(job, answers=False)
        said = (
            f"{self.where}: its tokenizer makes no tokens of targets: where it is of several languages, set src_lang and tgt_lang in its"
            " tokenizer_config.json"
        )
        try:
            source, target = (self.tokenizer(**{field: ""})["input_ids"] for field in ("text", "text_target"))
        except Exception as error:  # without the target's language each tokenizer has its own error
            raise JobError("InvalidModel", said) from error
        if None in target:
            raise JobError("InvalidModel", said)
        self._begins, self._ends = self._languages(source, target)
        """Token of the language that each target begins with, and the one that it ends with; None where none does."""

    def _languages(self, source: list[int], target: list[int]) -> tuple[int | None, int | None]:
        """Return the tokens of a language around targets, of all that is put around texts; JobError InvalidModel where no language is said."""
        tokenizer = self.tokenizer
        if not hasattr(tokenizer, "tgt_lang"):
            return None, None
        own = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
        around = {"src_lang": {*source} - own, "tgt_lang": {*target} - own}
        if unsaid := [name for name, marks in around.items() if marks and not tokenizer.init_kwargs.get(name)]:
            marks = ", ".join(tokenizer.convert_ids_to_tokens(sorted({*source, *target} - own)))
            raise JobError(
                "InvalidModel",
                f"{self.where}: its tokenizer is of several languages ({marks}), and nothing says which ones source and target are: set"
                f" {' and '.join(unsaid)} in its tokenizer_config.json",
            )
        first, last = (next((token for token in end if token not in own), None) for end in (target[:1], target[-1:]))
        return first, last

    def _build(self, quantization: QuantizationSpec | None) -> LoadedModel:
        loaded = super()._build(quantization)
        options: Any = loaded.module.generation_config
        if self._begins not in (None, options.forced_bos_token_id):  # its files may say another one
            options.forced_bos_token_id = self._begins
            as_published(options)
        if self._ends is not None and options.decoder_start_token_id is None:
            options.decoder_start_token_id = self.start
            as_published(options)
        return loaded

    @cached_property
    def start(self) -> int:
        """Token that the decoder reads first."""
        return start_token(self.path, self.where, language=self._ends)

    @cached_property
    def least(self) -> int:
        """Tokens that a target has at least which the model can say by its own files, its end among them."""
        return generation_options(self.path, self.where).min_length or 0

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each token of the targets, (samples, length, tokens of the vocabulary)."""
        logits: Tensor = module(**inputs, **self._options).logits
        return logits
