"""Audio: folders with one sub-folder per label, and tables of paths or of the files' content."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.clips import SUFFIXES, ClipError, read_header
from unfreeze_trainer.data.files import CHECKED_FILES, FileKind, check_headers, file_name, read_files, threads
from unfreeze_trainer.data.samples import LABELS, DataSource, TargetKind
from unfreeze_trainer.errors import JobError

CLIPS = FileKind("audio", "clip", "clips", "audio file", "audio files", SUFFIXES)


def read_audio(
    dataset: Dataset,
    where: str,
    *,
    skip: bool = False,
    head: bool = False,
    checked: int = CHECKED_FILES,
    kind: TargetKind = LABELS,
) -> DataSource:
    """Read a folder of audio files, or a table of paths relative to it or of their content; JobError for broken ones.

    Parameters
    ----------
    dataset, where
        What is read, and what messages start with.
    skip
        Leave out rows of a table without a clip or a label. Clips that cannot be read are left out when it is their turn,
        and not looked at here.
    head
        Read the first rows of a table alone.
    checked
        Files whose header is read; of more, so many at even distances.
    kind
        Of the targets.
    """
    source = read_files(CLIPS, dataset, where, skip=skip, head=head, targets=kind)
    if not skip:
        check_clips(source, checked)
    return source


def check_clips(source: DataSource, checked: int) -> None:
    """Read the headers of some clips, at even distances. JobError InvalidData."""

    def broken(row: int) -> str:
        try:
            read_header(source.content(row))
        except ClipError as error:
            return str(error)
        return ""

    check_headers(CLIPS, source, checked, broken)


def clip_name(source: DataSource, row: int) -> str:
    """Return what a JobError's message calls a clip: its source, and its path, or its row where it stands in a table."""
    return file_name(CLIPS, source, row)


def read_seconds(source: DataSource, *, skip: bool) -> np.ndarray:
    """Return how long each clip of a source lasts by its header, in seconds, float64 of shape (samples,).

    Parameters
    ----------
    source
        Of clips.
    skip
        Give 0 for those that cannot be read; otherwise JobError InvalidData names the first.
    """

    def seconds(row: int) -> float:
        try:
            return read_header(source.content(row)).seconds
        except ClipError as error:
            if skip:
                return 0.0
            raise JobError("InvalidData", f"{clip_name(source, row)}: {error}") from error

    with ThreadPoolExecutor(threads()) as pool:
        found = pool.map(seconds, range(len(source.inputs)), chunksize=64)
        return np.fromiter(found, dtype=np.float64, count=len(source.inputs))
