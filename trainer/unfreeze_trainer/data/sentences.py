"""Texts that are compared with each other, in the columns of a table."""

from __future__ import annotations

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.samples import DataSource, TargetKind, read_texts


def read_sentences(
    dataset: Dataset,
    where: str,
    *,
    train: Dataset,
    annotation: str,
    kind: TargetKind,
    skip: bool = False,
    head: bool = False,
) -> DataSource:
    """Read a table of texts and what is said of them, or its first rows.

    Parameters
    ----------
    dataset, where, kind, skip, head
        As of read_texts.
    train
        The training data, whose negatives alone are read: nothing is measured by them.
    annotation
        What the table says, in the API's word: which columns have texts.

    Returns
    -------
    DataSource
        Its inputs are structs of the texts of each row, or single texts.
    """
    names = dataset.columns
    if dataset != train and names.negative:
        names = names.model_copy(update={"negative": None})
        dataset = dataset.model_copy(update={"columns": names})
    texts = {"Labels": [names.anchor], "Scores": [names.anchor, names.positive]}.get(annotation)
    texts = kind.columns(names) if texts is None else texts
    return read_texts(dataset, where, kind=kind, skip=skip, head=head, texts=texts)
