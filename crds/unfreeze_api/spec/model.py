"""The pretrained model: where it lies, and as what it is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule, schema_rules
from unfreeze_api.sources import described
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.spec.source import ModelSource


class CandidateSpec(Model):
    """A pretrained model that the job may start from."""

    source: ModelSource
    """Where it lies, as of model.source."""


Modality = Literal["Image", "Text", "Audio"]


class TowerSpec(Model):
    """A pretrained encoder of one modality."""

    modality: Modality
    """What it reads. Image: the column image, by timm or transformers. Text: the column text, by transformers or
    sentence-transformers; of Captioning it is what writes it. Audio: the column audio, by transformers."""
    source: ModelSource
    """Where it lies, as of model.source."""


_SAME = Rule(
    "self.size() < 2 || self.exists(one, one.modality != self[0].modality)",
    "towers of one modality alone have nothing to agree with: name an encoder of another modality too",
)
_TWICE = Rule(
    "self.all(one, self.exists_one(other, other.source == one.source))",
    "every candidate needs a source of its own: remove the one that stands twice",
)


class ModelSpec(Model):
    """The pretrained model that the job starts from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.source), has(self.candidates), has(self.towers)].filter(p, p).size() == 1",
            "set exactly one of source, candidates and towers: source names the base, of candidates the job chooses one, towers are"
            " encoders that are trained to agree",
        ),
    )

    source: ModelSource | None = Field(
        default=None,
        description=f"Where the model lies: {described('Model', 'a folder')}. A folder as transformers' save_pretrained writes it, or with"
        " timm's config.json and model.safetensors.",
    )
    candidates: Annotated[
        list[CandidateSpec] | None, Field(min_length=1, max_length=16, json_schema_extra=schema_rules(_TWICE))
    ] = None
    """Bases of which the job chooses one before it trains: the one whose features say most of the training data, by the
    labels of each row's nearest neighbours. `unfreeze rank` does that alone. Default: none, source names the base."""
    towers: Annotated[
        list[TowerSpec] | None, Field(min_length=2, max_length=6, json_schema_extra=schema_rules(_SAME))
    ] = None
    """Models of two or three modalities, for Alignment and Captioning, which read the column of each modality. Alignment: encoders;
    what several of one modality say is joined. Captioning: an encoder and a language model. Default: none."""
    dtype: Literal["Auto", "Float32"] = "Auto"
    """Type of frozen weights. Auto: the large ones of a model that reads text keep the type of their files, bfloat16 or float16,
    and become float32 when they train; results are those of float32, bit for bit. Float32: all are float32 from the start. What
    trains is float32 always; the type of the computation is training.precision."""
    initialization: Literal["Pretrained", "Random"] = "Pretrained"
    """Random throws the pretrained weights away and keeps only the architecture: the from-scratch baseline that
    transfer has to beat."""
    quantization: QuantizationSpec | None = None
    """Hold the frozen weights in 8 or 4 bits, so that a large model fits beside its adapter. Default: none, float32."""

    @property
    def sources(self) -> list[str]:
        """Where the base lies, or each of the candidates or towers."""
        return (
            [self.source] if self.source else [part.source for part in (*(self.candidates or ()), *(self.towers or ()))]
        )
