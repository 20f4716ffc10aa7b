"""What frozen encoders give of Tux Paint's stamps and their captions, computed once and kept; and heads that are trained on it in seconds.

The encoders are read as an export's bridge.py reads them, and encoders' outputs, heads and their start are those of a job of Alignment
(`unfreeze_trainer.models.bridge`); its trainer, its checkpoints and its export have no part in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.support.outcomes import SEED
from unfreeze_trainer.models.bridge import Bridge, Encoders, Told
from unfreeze_trainer.models.bridge_layers import of_pictures, seeing
from unfreeze_trainer.models.class_names import classifier_of, timm_names, transformers_names
from unfreeze_trainer.models.loading import seeded

PICTURES = {"efficientnet-lite0": "timm", "mobilenet-v2": "transformers"}
"""Encoders of pictures, with the library of each."""
EPOCHS = 120
LINEAR: dict[str, Any] = {"width": 256, "rate": 1e-3}
"""Of heads, as in examples/tasks/alignment.yaml."""


class Rows(NamedTuple):
    """A split: picture and caption of each row."""

    pictures: list[str]
    texts: list[str]

    @property
    def kinds(self) -> np.ndarray:
        """The folder of stamps that each picture lies in."""
        return np.array([Path(picture).name.partition("-")[0] for picture in self.pictures])


def splits_of(folder: Path) -> dict[str, Rows]:
    """Return the splits of FOLDER/data/stamps, which `prepare_all` has written."""
    return {split: _rows(folder, split) for split in ("train", "validation", "test")}


def _rows(folder: Path, split: str) -> Rows:
    lines = (folder / "data" / "stamps" / f"{split}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return Rows([row["image"] for row in rows], [row["text"] for row in rows])


def seen(
    folder: Path, splits: Mapping[str, Rows], pictures: Sequence[str], text: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what encoders of pictures and one of texts give of the rows of `train`, then those of `validation`, as `bridged` takes it."""
    parts = [splits["train"], splits["validation"]]
    return (
        {name: features(folder, name, [cell for rows in parts for cell in rows.pictures]) for name in pictures},
        features(folder, text, [cell for rows in parts for cell in rows.texts]),
    )


def features(folder: Path, model: str, cells: Sequence[str]) -> np.ndarray:
    """Return what an encoder of FOLDER/models gives of pictures or texts, float32 of shape (cells, width); FOLDER/frozen keeps it."""
    file = folder / "frozen" / f"{model}.npz"
    kept: dict[str, np.ndarray] = {}
    if file.exists():
        with np.load(file) as found:
            kept = dict(zip(found["cells"].tolist(), found["values"], strict=True))
    if lacking := [cell for cell in dict.fromkeys(cells) if cell not in kept]:
        read = _pictures if model in PICTURES else _texts
        kept |= dict(zip(lacking, read(folder, model, lacking), strict=True))
        file.parent.mkdir(exist_ok=True)
        np.savez(file, cells=np.array([*kept]), values=np.stack([*kept.values()]))
    return np.stack([kept[cell] for cell in cells])


@torch.no_grad()
def _pictures(folder: Path, model: str, cells: Sequence[str]) -> np.ndarray:
    from PIL import Image

    encoder, read = seeing(str(folder / "models" / model), {"library": PICTURES[model], "mode": "RGB"})
    found = []
    for cell in cells:
        with Image.open(folder / "data" / "stamps" / cell) as picture:
            found.append(of_pictures(encoder, read(picture)))
    return torch.cat(found).numpy()


def _texts(folder: Path, model: str, cells: Sequence[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    found: np.ndarray = SentenceTransformer(str(folder / "models" / model), device="cpu").encode(list(cells))
    return found


def told(folder: Path, model: str, text: str) -> Told:
    """Return the classifier that an encoder of pictures brings along, its classes' names as an encoder of texts reads them."""
    place = str(folder / "models" / model)
    if PICTURES[model] == "timm":
        import timm

        whole = timm.create_model(f"local-dir:{place}", pretrained=True)
        found = classifier_of(whole.get_classifier(), timm_names(whole))
    else:
        from transformers import AutoModelForImageClassification

        whole = AutoModelForImageClassification.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        found = classifier_of(whole.classifier, transformers_names(whole.config))
    assert found
    names = functional.normalize(torch.from_numpy(features(folder, text, found.names)), dim=-1)
    return Told(found.weight, found.bias, names)


def bridged(
    pictures: Mapping[str, np.ndarray],
    texts: np.ndarray,
    splits: Mapping[str, Rows],
    *,
    width: int,
    rate: float,
    classes: Mapping[str, Told] | None = None,
    seed: int = SEED,
) -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Train linear heads on features of the rows of `train`, then those of `validation`; return what embeds pictures and texts.

    All rows make one batch. Of the epochs that with the best recall@1 of validation, the mean of both ways, is taken.

    Parameters
    ----------
    pictures
        What each encoder of pictures gives, float32 of shape (rows, width of the encoder).
    texts
        What the encoder of texts gives, likewise.
    splits
        The rows of both, `train` first.
    width, rate
        Of the common space, and of AdamW.
    classes
        Of encoders of pictures, what their classifiers know by name.
    seed
        Of the weights that are drawn, and of what dropout leaves out.
    """
    names = [*pictures, "texts"]
    kinds = dict.fromkeys(pictures, "image") | {"texts": "text"}
    towers = Encoders(dict.fromkeys(names, torch.nn.Identity()), dict.fromkeys(names, _as_it_is), kinds)
    widths = {name: values.shape[1] for name, values in pictures.items()} | {"texts": texts.shape[1]}
    with seeded(seed):
        bridge = Bridge(towers, widths, kind="Linear", width=width, dropout=0.5, temperature=0.07, told=classes)
        _fit(bridge, {**pictures, "texts": texts}, splits, rate)
    heads = bridge.eval().heads

    @torch.no_grad()
    def embed(kind: str, *values: np.ndarray) -> np.ndarray:
        return functional.normalize(heads[kind](torch.from_numpy(np.concatenate(values, axis=1))), dim=-1).numpy()

    return lambda *values: embed("image", *values), lambda values: embed("text", values)


def _as_it_is(_: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    return inputs["values"]


def _fit(bridge: Bridge, values: Mapping[str, np.ndarray], splits: Mapping[str, Rows], rate: float) -> None:
    train, validation = splits["train"], splits["validation"]
    edge = len(train.texts)
    seen, held = (
        {f"{name}.values": torch.from_numpy(one[part]) for name, one in values.items()}
        for part in (slice(edge), slice(edge, edge + len(validation.texts)))
    )
    same = torch.from_numpy(_shared(train) & ~np.eye(edge, dtype=bool))
    right = _shared(validation)
    optimizer = torch.optim.AdamW(bridge.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, EPOCHS)
    best, kept = -1.0, bridge.state_dict()
    for _ in range(EPOCHS):
        loss = contrast(bridge.train()(seen), same)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            one, other = bridge.eval()(held).unbind(dim=1)
        scores = (one @ other.T).numpy()
        reached = float(np.mean([hits_of(way, right) for way in (scores, scores.T)]))
        if reached > best:
            best, kept = reached, deepcopy(bridge.state_dict())
    bridge.load_state_dict(kept)


def contrast(vectors: Tensor, same: Tensor) -> Tensor:
    """Return the cross-entropy of what belongs together, both ways; `vectors` are (rows, 2, width), `same` says what is no negative."""
    one, other = vectors.unbind(dim=1)
    scores, own = (one @ other.T).masked_fill(same, float("-inf")), torch.arange(len(one))
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def hits_of(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return of each row whether what scores highest is right, float64 of shape (rows,)."""
    hits: np.ndarray = right[np.arange(len(scores)), scores.argmax(axis=1)].astype(float)
    return hits


def _shared(rows: Rows) -> np.ndarray:
    """Return which rows have a picture or a caption in common, bool of shape (rows, rows)."""
    pictures, texts = np.array(rows.pictures), np.array(rows.texts)
    shared: np.ndarray = (pictures[:, None] == pictures) | (texts[:, None] == texts)
    return shared
