"""What pictures and clips have in common: files that are read in threads as they are needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from unfreeze_trainer.data.file_loader import READ_SECONDS, FileLoader
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.modalities.base import Modality


class Files(Modality):
    """Files of a folder or a table."""

    loader: FileLoader[Any, Any, Any]
    """Reads them; `open` makes it."""

    def check(self, splits: Mapping[str, Split], rank: int, world_size: int) -> None:
        """Read this rank's share of the files, for READ_SECONDS at most; the others are read when it is their turn."""
        end = time.monotonic() + READ_SECONDS
        for source in dict.fromkeys(split.source for split in splits.values()):
            self.loader.check(source, rank, world_size, skip=self._skips, seconds=end - time.monotonic())
