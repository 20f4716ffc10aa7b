"""The text of each audio file: Whisper, an encoder of sound beside a decoder of text, or an encoder of wav2vec2's kind that spells (CTC)."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.model import Model
from unfreeze_api.tasks.base import AUDIO, TEXT, Metric, TaskType
from unfreeze_api.tasks.causal_lm import LANGUAGE, NO_NEW_HEAD


class SpeechRecognitionSpec(Model):
    """Options of speech recognition."""

    max_seconds: float | None = Field(default=None, gt=0, le=600)
    """Seconds kept of each file, from its beginning; longer ones are cut. Whisper's encoder, which pads every clip to one
    length, is made so short for good, in whole seconds. Default: as many whole seconds as the longest training clip has, and
    at most what the model takes; 30 of an encoder that spells (CTC)."""
    language: str | None = Field(default=None, min_length=2, max_length=32)
    """Language of the texts, as a model of several languages knows it (es, spanish). Default: the one that its
    generation_config.json names; one that names none has to be told. Models of English alone take none, and encoders that
    spell (CTC) neither."""


WRITTEN = (Metric("wer", "Lower"), Metric("cer", "Lower"), Metric("exactMatch"))
"""Metrics of texts that a model writes by itself."""

TASK = TaskType(
    "SpeechRecognition",
    "needs a transformers model of Whisper's or wav2vec2's kind",
    SpeechRecognitionSpec,
    library="transformers",
    reads=(AUDIO, TEXT),
    metrics=(*LANGUAGE, *WRITTEN),
    pipeline="automatic-speech-recognition",
    one_answer=False,
    targets="Transcripts",
    writes=True,
    no_head=NO_NEW_HEAD,
)
