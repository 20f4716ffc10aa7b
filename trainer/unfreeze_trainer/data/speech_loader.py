"""The way from a clip in which something is said to what a model reads."""

from __future__ import annotations

import numpy as np

from unfreeze_trainer.data.audio_loader import AudioLoader
from unfreeze_trainer.data.clips import ClipError

_SILENT = 2.0**-15
"""Of values between -1 and 1: what a step of 16 bits is."""


class SpeechLoader(AudioLoader):
    """Makes batches of clips in which something is said."""

    of_texts = True
    """Whether clips have texts: others may be silent."""

    def decode(self, content: str | bytes) -> np.ndarray:
        """Return a clip at the model's rate, float32 of shape (values,); ClipError if it cannot be read, or is silent."""
        values = super().decode(content)
        if self.of_texts and float(np.abs(values).max()) < _SILENT:
            seconds = len(values) / self.rate
            raise ClipError(f"its {seconds:.3g} seconds are silent, and it has a text; replace or remove it")
        return values
