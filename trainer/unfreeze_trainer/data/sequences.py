"""Texts, and what is to be made of each: two columns of a table."""

from __future__ import annotations

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.samples import DataSource, TargetKind, read_targets, read_texts


def read_sequences(
    dataset: Dataset, where: str, *, kind: TargetKind, skip: bool = False, head: bool = False
) -> DataSource:
    """Read a table, or its first rows: inputs are its sources, targets the texts that they are to become.

    Parameters
    ----------
    dataset, where
        The table, and what messages start with.
    kind
        Of the targets.
    skip
        Whether rows without source or target are left out.
    head
        Read the first rows alone.

    Raises
    ------
    JobError
        InvalidData: a text is missing or empty, or a column holds none.
    """
    source = read_texts(dataset, where, kind=kind, skip=skip, head=head, texts=[dataset.columns.source])
    read_targets(source, kind)
    return source
