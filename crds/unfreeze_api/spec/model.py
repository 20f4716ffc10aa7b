"""The pretrained model: where it lies, and as what it is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model
from unfreeze_api.sources import described
from unfreeze_api.spec.quantization import QuantizationSpec
from unfreeze_api.spec.source import ModelSource


class ModelSpec(Model):
    """The pretrained model that the job starts from."""

    source: ModelSource = Field(
        description=f"Where the model lies: {described('Model', 'a folder')}. A folder as transformers' save_pretrained writes it, or with"
        " timm's config.json and model.safetensors."
    )
    dtype: Literal["Auto", "Float32"] = "Auto"
    """Type of the loaded weights. Auto keeps float32 weights; mixed precision is training.precision."""
    initialization: Literal["Pretrained", "Random"] = "Pretrained"
    """Random throws the pretrained weights away and keeps only the architecture: the from-scratch baseline that
    transfer has to beat."""
    quantization: QuantizationSpec | None = None
    """Hold the frozen weights in 8 or 4 bits, so that a large model fits beside its adapter. Default: none, float32."""
