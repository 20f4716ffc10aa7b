"""Where what frozen blocks make of samples is kept beyond a job."""

from __future__ import annotations

from pydantic import Field

from unfreeze_api.grammar.fields import Quantity
from unfreeze_api.grammar.model import Model
from unfreeze_api.grammar.quantities import quantity
from unfreeze_api.sources import forms
from unfreeze_api.spec.source import OutputSource

MAX_SIZE = "20Gi"


class FeatureCacheSpec(Model):
    """A folder in which jobs keep what frozen blocks make of each sample, for later ones on the same base and data."""

    destination: OutputSource = Field(
        description=f"A folder of the cache's own, {forms('Output')}. Jobs may share it; whoever may write there is trusted with what"
        " they learn."
    )
    max_size: Quantity | None = None
    """Of the whole folder; what was used longest ago makes room. Default: 20Gi."""

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return int(quantity(str(self.max_size or MAX_SIZE)) or 0)
