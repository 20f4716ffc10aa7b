"""What is said in each clip: who tokenises it says how much of it is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_trainer.objectives.targets.target_texts import TargetTexts

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Columns


class Transcripts(TargetTexts):
    """Texts of the column text."""

    @staticmethod
    def columns(names: Columns) -> list[str]:
        """Return the column of the texts."""
        return [names.text]
