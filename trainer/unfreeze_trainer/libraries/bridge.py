"""Bridges: the encoders of several modalities, each of its own library, with heads that bring them together."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.alignment import AlignmentSpec
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.libraries.base import ExportKind, Head, Library
from unfreeze_trainer.libraries.towers import AudioTower, ImageTower, TextTower, Tower, naming, open_towers
from unfreeze_trainer.models import LoadedModel, bridge_layers
from unfreeze_trainer.models.bridge import Bridge, Encoders, Told, bridge_blocks
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import hash_files
from unfreeze_trainer.models.loading import not_wrapped, seeded

log = logging.getLogger(__name__)

TEMPERATURE = 0.07
"""What cosines are divided by at first where the job says nothing, as in CLIP."""
SCRIPT = "bridge.py"
"""What bridge_layers is called in an export."""


class Former(NamedTuple):
    """The heads of an export that a job goes on with."""

    weights: Mapping[str, Tensor]
    temperature: float
    told: Mapping[str, Told]


class BridgeLibrary(Library):
    """The towers of a job.

    Parameters
    ----------
    job
        Its towers, task and seed count.
    options
        Of the task.

    Raises
    ------
    JobError
        InvalidModel: a folder is none of its modality.
    """

    name = "transformers"

    def __init__(self, job: ResolvedJob, options: AlignmentSpec) -> None:
        self.job, self._options, self._random = job, options, job.model.initialization == "Random"
        self._classifiers: dict[str, Told] | None = None
        self.towers = open_towers(job, image_size=options.image_size, max_seconds=options.max_seconds)

    @property
    def bases(self) -> list[Tower]:
        """The towers."""
        return self.towers

    def open(self, head: Head) -> None:
        """Look at what turns inputs into tensors. JobError InvalidModel where encoders of sound hear other rates."""
        self.head = head
        for index, tower in enumerate(self.towers):
            with naming(self.job, index):
                tower.open(head)
        rates = {tower.hears.extractor.sampling_rate for tower in self.towers if isinstance(tower, AudioTower)}
        if len(rates) > 1:
            said = " and ".join(map(str, sorted(rates)))
            raise JobError(
                "InvalidModel",
                f"spec.model.towers: its encoders of sound hear {said} values a second: name such as hear alike",
            )

    def files(self) -> list[str]:
        """Return the names of the files that are loaded, each below the name of its tower."""
        return [f"{tower.key}/{name}" for tower in self.towers for name in tower.files()]

    def hashes(self) -> dict[str, str]:
        """Return a hash of each of these files."""
        found: dict[str, str] = {}
        for tower in self.towers:
            hashes = hash_files(tower.path, tower.files())
            found |= {f"{tower.key}/{name}": digest for name, digest in hashes.items()}
        if folder := self._former():
            found |= hash_files(str(folder), [bridge_layers.CONFIG, bridge_layers.WEIGHTS])
        return found

    def encoders(self) -> tuple[Encoders, dict[str, int]]:
        """Load the encoders, in training mode; return them with how many numbers each gives of a sample."""
        modules, widths = {}, {}
        for index, tower in enumerate(self.towers):
            with naming(self.job, index):
                modules[tower.key], widths[tower.key] = tower.build()
        features, modalities = (
            {one.key: getattr(one, part) for one in self.towers} for part in ("features", "modality")
        )
        return Encoders(modules, features, modalities), widths

    def build(self) -> LoadedModel:
        """Load the encoders; the same weights on every rank, the heads are drawn from training.seed."""
        encoders, widths = self.encoders()
        options = self._options
        former = self._former_heads(widths)
        told = self._told(encoders, widths) if options.class_names and not former else None
        with seeded(self.job.training.seed):
            bridge = Bridge(
                encoders,
                widths,
                kind=options.projection,
                width=options.width,
                dropout=options.dropout,
                temperature=former.temperature if former else options.temperature or TEMPERATURE,
                told=former.told if former else told,
            )
        if former:
            bridge.heads.load_state_dict(former.weights)
        return LoadedModel(bridge.train(), bridge_blocks(bridge), frozenset())

    def _former(self) -> Path | None:
        """Return the folder of an export of this kind that all towers lie in, each at its own place; None elsewhere."""
        places = {Path(tower.path).absolute() for tower in self.towers}
        folder = Path(self.towers[0].path).absolute().parent
        whole = places == {folder / tower.key for tower in self.towers} and not self._random
        files = bridge_layers.CONFIG, bridge_layers.WEIGHTS
        return folder if whole and all((folder / name).is_file() for name in files) else None

    def _former_heads(self, widths: Mapping[str, int]) -> Former | None:
        """Return the heads of the export that all towers lie in, if they are of the kind that the job asks for."""
        if not (folder := self._former()):
            return None
        from safetensors.torch import load_file

        held, options = json.loads((folder / bridge_layers.CONFIG).read_text()), self._options
        named = held.get("told", {})
        there = {key: tower["width"] for key, tower in held["towers"].items()}
        kind = held["projection"], held["width"], there, bool(named)
        if kind != (options.projection, options.width, dict(widths), bool(options.class_names)):
            log.info("%s: its heads are of another kind than this job's, which are new", folder)
            return None
        weights, told = load_file(folder / bridge_layers.WEIGHTS), dict[str, Told]()
        for modality, shapes in named.items():
            keys = [tower.key for tower in self.towers if tower.modality == modality]
            for number, (place, *_) in enumerate(shapes):
                parts = (weights[f"{modality}.0.{name}{number}"] for name in Told._fields)
                told[keys[place]] = Told(*parts)
        return Former(weights, 1 / held["factor"], told)

    def _told(self, encoders: Encoders, widths: Mapping[str, int]) -> Mapping[str, Told]:
        """Return the classifiers that encoders of pictures bring along, their names read by all encoders of texts; read once."""
        if self._classifiers is None:
            texts = [one for one in self.towers if isinstance(one, TextTower)]
            known = {one.key: one.classifier() for one in self.towers if isinstance(one, ImageTower)}
            named = {key: one for key, one in known.items() if one and one.weight.shape[1] == widths[key]}
            if why := self._nameless(texts=bool(texts), named=bool(named)):
                raise JobError("InvalidModel", f"spec.task.alignment.classNames: {why}, or remove it")
            for index, one in enumerate(self.towers):
                if one.key in known.keys() - named.keys():
                    source = self.job.model.towers[index].source
                    log.warning(
                        "spec.model.towers[%d].source %s brings no linear classifier whose classes have names: classNames does nothing"
                        " for it",
                        index,
                        source,
                    )
            self._classifiers = {}
            for key, (weight, bias, names) in named.items():
                each = [tower.words(encoders.towers[tower.key], names, self._options.max_length) for tower in texts]
                self._classifiers[key] = Told(weight, bias, torch.cat([unit(one) for one in each], dim=1))
        return self._classifiers

    def _nameless(self, *, texts: bool, named: bool) -> str:
        """Return why no names of classes can be read, and what to do; nothing where they can."""
        if not texts:
            return "no encoder of texts reads the names: add one to spec.model.towers"
        if self.job.model.initialization == "Random":
            return "random weights tell no classes: set spec.model.initialization to Pretrained"
        if named:
            return ""
        return (
            "no encoder of pictures in spec.model.towers brings a linear classifier whose classes have names: take one whose folder has"
            " them, of transformers in id2label, of timm in label_names, or one for the 1,000 classes of ImageNet"
        )

    def own_head(self) -> None:
        """Return None: heads are new."""

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a vector of each modality of each sample, (samples, modalities, width)."""
        vectors: Tensor = module(inputs)
        return vectors

    def save(self, module: nn.Module, folder: Path, kind: ExportKind, *, initial: Callable[[], LoadedModel]) -> None:  # noqa: ARG002 - no adapter
        """Write encoders, heads and the script that loads them. Parameters as of Library."""
        with not_wrapped():
            self._save(module, folder)

    def _save(self, module: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        towers = {}
        for tower in self.towers:
            place = folder / tower.key
            place.mkdir(exist_ok=True)
            described = tower.save(module.encoders.towers[tower.key], place)
            towers[tower.key] = {"modality": tower.modality} | described
        for modality, [first, *_] in module.heads.items():  # Named knows the encoders alone, Alike all that it is given
            own = (one for one in towers.values() if one["modality"] == modality)
            for described, width in zip(own, first.widths, strict=True):
                described["width"] = width
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.heads.state_dict().items()}
        save_file(weights, folder / bridge_layers.WEIGHTS, {"format": "pt"})
        described = {"projection": self._options.projection, "width": self._options.width, "factor": module.factor}
        described |= {"told": module.told} if module.told else {}
        described["towers"] = towers
        (folder / bridge_layers.CONFIG).write_text(json.dumps(described, indent=2) + "\n")
        copyfile(Path(bridge_layers.__file__), folder / SCRIPT)

    def _plain(self, folder: str, example: Example) -> Plain:
        script = json.dumps(f"{folder}/{SCRIPT}")
        imports = "\n".join(filter(None, ("from runpy import run_path", example.imports)))
        modalities = dict.fromkeys(tower.modality for tower in self.towers)
        one, other = (f"bridge.embed_{name}({_EXAMPLES[name]})" for name in [*modalities][:2])
        found = ", ".join(f"bridge.embed_{name}({_from_tensors(name)})" for name in modalities)
        return Plain(
            "transformers",
            f'{imports}\n\nbridge = run_path({script})["load"]({json.dumps(folder)})\n',
            f"{example.before}print({one} @ {other}.T)",
            f'__import__("torch").stack([{found}], dim=1)',
            "[]",
        )

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        raise NotImplementedError  # the rules of the API: towers take no adapter


_EXAMPLES = {"image": '[Image.open("picture.png")]', "text": '["some text", "another text"]', "audio": "[wave]"}


def _from_tensors(modality: str) -> str:
    """Return an expression for a modality's part of `inputs`, as the modality gives them."""
    if modality == "image":
        return '[Image.fromarray(one.squeeze(2).numpy()) for one in inputs["image"]]'
    if modality == "audio":
        return '[wave.numpy() for wave in inputs["audio"]]'
    return f'inputs["{modality}"]'


def unit(vectors: Tensor) -> Tensor:
    """Return vectors as an export gives them, each as long as 1, of the shape that they have."""
    return torch.nn.functional.normalize(vectors, dim=-1)
