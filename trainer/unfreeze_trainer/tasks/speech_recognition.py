"""Speech recognition: a table of audio files and texts; a Whisper of transformers, or an encoder that spells (CTC)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.speech_recognition import SpeechRecognitionSpec
from unfreeze_trainer.data.audio_loader import MASK
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.transformers_ctc import TransformersCtc
from unfreeze_trainer.libraries.transformers_speech import TransformersSpeech
from unfreeze_trainer.modalities.speech import FEATURES, READ, Speech
from unfreeze_trainer.modalities.spelled import Spelled
from unfreeze_trainer.models.ctc import ctc_kinds
from unfreeze_trainer.objectives.base import IGNORED, TARGETS, Objective
from unfreeze_trainer.objectives.ctc import Ctc, CtcMetrics
from unfreeze_trainer.objectives.targets import Encoder
from unfreeze_trainer.objectives.teacher_forcing import TeacherForcing, TeacherForcingMetrics
from unfreeze_trainer.objectives.word_errors import WordErrors
from unfreeze_trainer.tasks.base import Batch
from unfreeze_trainer.tasks.composed import VERIFIED_SAMPLES, ComposedTask


class SpeechRecognition(ComposedTask):
    """Opens the data and the model folder of a job."""

    scores = WordErrors
    library: TransformersSpeech | TransformersCtc

    def __init__(self, job: ResolvedJob) -> None:
        options = job.task.of(SpeechRecognitionSpec)
        assert options is not None
        seconds = options.max_seconds
        spells = kind_of(job) in ctc_kinds()
        self.wide_outputs, self.heavy_samples = not spells, spells
        _require_metric(job, CtcMetrics if spells else TeacherForcingMetrics, spells=spells)
        if not spells:
            library = TransformersSpeech(job, seconds, options.language)
            self._clips: Speech | Spelled = Speech(job, library, seconds, targets=TARGETS, ignored=IGNORED)
            super().__init__(job, TeacherForcing, self._clips, library)
            return
        if options.language is not None:
            raise JobError(
                "InvalidJob",
                f"spec.task.speechRecognition.language {options.language}: spec.model.source {job.model.source} spells what it hears, and"
                " tells no languages apart: remove it",
            )
        speller = TransformersCtc(job, seconds, beside=self.beside)
        self._clips = Spelled(job, speller, seconds, targets=TARGETS, ignored=IGNORED)
        super().__init__(job, partial(_objective, speller), self._clips, speller)

    def read(self) -> tuple[Encoder[Any], dict[str, Split]]:
        """Return what there is to predict, and the splits; a Whisper is made as short as the training clips are."""
        learned, splits = super().read()
        self.job = self._clips.shortened(self.job, splits["train"])
        return learned, splits

    def repeats(self, split: str) -> bool:
        """Return whether the inputs of a split's samples are the same each time, and can do without what masks their padding."""
        return super().repeats(split) and self.wide_outputs

    def units(self, split: str) -> np.ndarray:
        """Return how many tokens, or characters, of each sample are learned, int64 of shape (samples,)."""
        return self._clips.units(self._splits[split])

    def answers_at(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token that each place of the outputs is to give: targets stand where the logits do."""
        return inputs[TARGETS]

    def first_samples(self) -> tuple[Batch, Any]:
        """Return the first validation samples by number, what is heard and what the decoder reads; and as clips, with lists of ids for it."""
        split = self._splits["validation"]
        count = min(VERIFIED_SAMPLES, len(split))
        if isinstance(self._clips, Spelled):
            alone = list(self.batches("validation", [[number] for number in range(count)]))
            batch = {
                f"{name} {number}": tensor
                for number, one in enumerate(alone)
                for name, tensor in one.items()
                if name != TARGETS
            }
            return batch, self._clips.samples(split, count, batch)
        [found] = self.batches("validation", [range(count)])
        samples = self._clips.samples(split, count, found)
        batch = {f"{FEATURES} {number}": found[FEATURES][number : number + 1] for number in range(count)}
        return batch | {f"{READ} {number}": torch.tensor([ids]) for number, (_, ids) in enumerate(samples)}, samples

    def compared(self, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each sample of `first_samples`: its last token, or its first moment; (samples, tokens)."""
        names = dict.fromkeys(name.rpartition(" ")[0] for name in batch)
        found = []
        for number in range(len(batch) // len(names)):
            one = {name: batch[f"{name} {number}"] for name in names}
            logits = self.library.forward(module, one)[0]
            found.append(logits[0 if isinstance(self.library, TransformersCtc) else -1].clone())
        return torch.stack(found)


def kind_of(job: ResolvedJob) -> str:
    """Return the model_type of a job's base; nothing where its folder does not tell, which whoever opens it reports."""
    from unfreeze_trainer.models.folders import check_folder

    random = job.model.initialization == "Random"
    config = check_folder(job.model.weights_path, job.model.source or "", library="transformers", weights=not random)
    return str(config.get("model_type", ""))


def _moments(library: TransformersCtc, batch: Mapping[str, Tensor]) -> Tensor:
    return library.moments(batch[MASK].sum(dim=1))


def _objective(library: TransformersCtc, learned: Encoder[Any]) -> Objective:
    return Ctc(learned, moments=partial(_moments, library), speller=library.spelling)


def _require_metric(job: ResolvedJob, metrics: type[CtcMetrics | TeacherForcingMetrics], *, spells: bool) -> None:
    """Raise InvalidJob for a metric that models of another kind are measured by."""
    if job.metric.name in metrics.names:
        return
    why = (
        "an encoder that spells gives no token after the right ones"
        if spells
        else "a decoder writes by itself once it is trained, which unfreeze evaluate --generate measures"
    )
    raise JobError(
        "InvalidJob",
        f"spec.training.metric {job.metric.name}: spec.model.source {job.model.source} is not measured by it: {why}; choose one of"
        f" {', '.join(metrics.names)}",
    )
