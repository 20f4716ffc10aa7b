"""Labels of any type as text and class ids, and the split of samples by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.data.tables import some_rows
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LABELS = 10_000
SHOWN = 20
"""Labels that a message lists."""


def encode_labels(column: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Return for each row an index into the distinct labels, int64 of shape (rows,), and these as text.

    Text stays as it is, whole numbers and booleans are shown as text (`3`, `true`).

    Raises
    ------
    JobError
        InvalidData: missing labels, numbers with a fraction, other types, or more than 10,000 labels.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise _not_labels(where, name, f"holds {kind}", column[0].as_py() if len(column) else None)
    if pa.types.is_dictionary(column.type):
        column = column.cast(kind)
    if (missing := missing_rows(column)).size:
        raise no_label(missing.tolist(), name, where)
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > MAX_LABELS:
        raise JobError(
            "InvalidData",
            f"{where}: column {name!r} holds {len(values)} different values in {len(column)} rows, more than {MAX_LABELS}"
            " labels: is it the right column? Name another one in columns.label",
        )
    names = [value if isinstance(value, str) else str(value).lower() for value in values]
    if text and any(_has_fraction(value) for value in names) and all(_is_number(value) for value in names):
        raise _not_labels(where, name, "holds numbers with a fraction", next(v for v in names if _has_fraction(v)))
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), names


def missing_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Return the indices of cells that are null, or text without a word."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    missing = pc.is_null(column)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        missing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True)
    return np.flatnonzero(missing.to_numpy(zero_copy_only=False))


def no_label(rows: Sequence[int], name: str, where: str) -> JobError:
    """Return the error about rows, as indices from 0, without a label in a column."""
    it = "it" if len(rows) == 1 else "them"
    return JobError("InvalidData", f"{where}: no label in column {name!r} of {some_rows(rows)}; fill in or remove {it}")


def _not_labels(where: str, name: str, what: str, example: object) -> JobError:
    return JobError(
        "InvalidData",
        f"{where}: column {name!r} {what} ({quoted(repr(example))}): labels are text, whole numbers or booleans. Name another column"
        " in columns.label, or turn the numbers into classes first",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_fraction(text: str) -> bool:
    return _is_number(text) and not text.strip().lstrip("+-").isdecimal()


def sort_labels(names: Sequence[str]) -> list[str]:
    """Return the labels in the order of class ids: as text, or by value when all are whole numbers."""
    if all(name.lstrip("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def class_ids(
    codes: np.ndarray, names: Sequence[str], labels: Sequence[str], where: str, numbers: np.ndarray | None = None
) -> np.ndarray:
    """Turn codes into class ids, the indices into `labels`; int64 of shape (rows,).

    `numbers` are the rows of the file, where some of them were left out.

    Raises
    ------
    JobError
        InvalidData when there is a label that the training data does not have.
    """
    ids = {label: index for index, label in enumerate(labels)}
    lookup = np.array([ids.get(name, -1) for name in names], dtype=np.int64)
    result = lookup[codes]
    if (unknown := np.flatnonzero(result < 0)).size:
        strange = sorted({names[codes[row]] for row in unknown})
        raise JobError(
            "InvalidData",
            f"{where}: {some_rows((unknown if numbers is None else numbers[unknown]).tolist())}: label {_shown(strange)} does not"
            f" occur in the training data, which has {_shown(labels)}{', ...' if len(labels) > SHOWN else ''};"
            " a model cannot predict what it never saw: correct the label, or add such samples to spec.data.train",
        )
    return result


def _shown(labels: Sequence[str]) -> str:
    return quoted(", ".join(map(repr, labels[:SHOWN])))


def hold_out(
    class_of: np.ndarray, fractions: Mapping[str, float], seed: int, *, of_each: bool = False
) -> dict[str, np.ndarray]:
    """Split samples at random, with the shares of the labels kept (stratified, by largest remainder).

    Each part has its fraction of all samples. It gets a sample of every label where it is large enough for that, and else
    of as many as it has room for, drawn at random; each label keeps at least one sample to train on.

    Parameters
    ----------
    class_of
        Class id of each sample, int64 of shape (samples,).
    fractions
        Share of each held-out part, like {"validation": 0.1}; together below 1.
    seed
        The same seed gives the same split.
    of_each
        Whether a part gets a sample of every label however small it is, as runs of the first version do.

    Returns
    -------
    dict
        Sorted indices of the samples of each part and of "train"; every sample is in exactly one.
    """
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(class_of))
    by_class = [order[class_of[order] == label] for label in range(int(class_of.max(initial=-1)) + 1)]
    sizes = np.array([len(members) for members in by_class], dtype=np.int64)
    taken = np.zeros_like(sizes)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for name, fraction in fractions.items():
        room = np.maximum(sizes - taken - 1, 0)
        wanted = round(len(class_of) * fraction)
        ties = np.arange(len(sizes)) if of_each else rng.permutation(len(sizes))
        counts = _shares(sizes * fraction, wanted, ties)
        if of_each:
            counts = np.minimum(np.clip(counts, 1, None), room)
        else:
            counts = np.minimum(counts, room)
            _fill_up(counts, room, rng)
            _cut_down(counts, sizes * fraction, wanted)
        for label, count in enumerate(counts):
            parts[name].append(by_class[label][taken[label] : taken[label] + count])
        taken += counts
    train = [members[start:] for members, start in zip(by_class, taken, strict=True)]
    return {name: np.sort(np.concatenate(indices)) for name, indices in {"train": train, **parts}.items() if indices}


def _shares(exact: np.ndarray, total: int, ties: np.ndarray) -> np.ndarray:
    """Round shares to whole numbers that add up to a total, by largest remainder; `ties` is who comes first of equals."""
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[ties[np.argsort((counts - exact)[ties], kind="stable")[:rest]]] += 1
    return counts


def _fill_up(counts: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> None:
    """Give labels without a sample one each, at random, as far as others have more than one to spare."""
    empty = rng.permutation(np.flatnonzero((counts == 0) & (room > 0)))
    counts[empty[: int(np.maximum(counts - 1, 0).sum())]] = 1


def _cut_down(counts: np.ndarray, exact: np.ndarray, wanted: int) -> None:
    """Take samples from the labels that are most above their share until there are no more than wanted."""
    while counts.sum() > wanted and counts.max() > 1:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
