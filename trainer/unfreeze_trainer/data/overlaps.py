"""Samples whose input stands in more than one split, or in the data of a stage: what is measured on them was seen before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unfreeze_trainer.data.few import shared_rows
from unfreeze_trainer.data.samples import Split
from unfreeze_trainer.data.web_dataset import is_reference
from unfreeze_trainer.objectives.targets import is_text

if TYPE_CHECKING:
    import pyarrow as pa


def overlaps(splits: Mapping[str, Split]) -> dict[str, int]:
    """Count the samples of held-out splits whose input stands in another split too: {"test in train": 12}.

    Texts and paths are compared as they are, pairs of texts as pairs, pictures that lie in a table byte by byte.
    """
    if any(is_reference(split.source.inputs.type) for split in splits.values()):
        return {}  # to read all pictures would cost as much as an epoch
    found = {}
    for name, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        for other in others:
            if name in splits and other in splits and (count := _alike(splits[name], splits[other])):
                found[f"{name} in {other}"] = count
    return found


def learned_before(splits: Mapping[str, Split], name: str, learned: Split) -> dict[str, int]:
    """Count the samples of held-out splits whose input a stage trains on: {"test in stage domain": 12}; as `overlaps` compares."""
    if any(is_reference(split.source.inputs.type) for split in (*splits.values(), learned)):
        return {}
    counts = {split: _alike(splits[split], learned) for split in ("validation", "test") if split in splits}
    return {f"{split} in stage {name}": count for split, count in counts.items() if count}


def _alike(one: Split, other: Split) -> int:
    """Return how many samples of a split have an input that stands in another one; 0 where these cannot be compared."""
    inputs, others = one.source.inputs, other.source.inputs
    if _comparable(inputs.type) != _comparable(others.type):
        return 0
    fields = min(inputs.type.num_fields, others.type.num_fields)  # what is measured on has no negatives
    return int(shared_rows(_first(inputs, fields), one.rows, _first(others, fields), other.rows).sum())


def _comparable(kind: pa.DataType) -> str:
    """Return what two sources have in common whose inputs are compared: a writer of files chooses how texts are stored."""
    return "several texts" if kind.num_fields else "text" if is_text(kind) else "content"


def _first(inputs: pa.ChunkedArray, fields: int) -> pa.ChunkedArray:
    """Return the first texts of each of several."""
    import pyarrow as pa

    if inputs.type.num_fields == fields:
        return inputs
    names = [field.name for field in inputs.type][:fields]
    chunks = [pa.StructArray.from_arrays(chunk.flatten()[:fields], names) for chunk in inputs.chunks]
    return pa.chunked_array(chunks, pa.struct([inputs.type.field(name) for name in names]))


def whole_inputs(inputs: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return inputs that can be compared: of a pair one text, which begins with the length of its first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(inputs.type):
        return inputs
    parts = [part.cast(pa.large_string()) for part in inputs.flatten()]
    return pc.binary_join_element_wise(
        pc.utf8_length(parts[0]).cast(pa.large_string()), *parts, pa.scalar(" ", pa.large_string())
    )
