"""Captioners: an encoder of pictures or sound, of its own library, and a language model of transformers, with a projector between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.tasks.captioning import CaptioningSpec
from unfreeze_trainer.errors import JobError, one_line
from unfreeze_trainer.libraries.base import ExportKind, Head, Library
from unfreeze_trainer.libraries.causal_lm import CausalLanguageModel
from unfreeze_trainer.libraries.towers import AudioTower, Tower, naming, open_tower, place_of
from unfreeze_trainer.models import LoadedModel, bridge_layers, captioner_layers
from unfreeze_trainer.models.captioner import IDS, CaptionerModel, Reader, captioner_blocks
from unfreeze_trainer.models.captioner_layers import BRIDGE, CONFIG, WEIGHTS, Projector, fewer, places_of
from unfreeze_trainer.models.export import Example, Plain
from unfreeze_trainer.models.folders import hash_files
from unfreeze_trainer.models.loading import not_wrapped, seeded

SCRIPT = "captioner.py"
"""What captioner_layers is called in an export."""
TEXT = "text"
"""Folder of the language model in an export."""
_PLACES, _EMBEDDINGS = 64, 8
"""Places that are kept at most, and embeddings of one vector, where the job says nothing."""
_AXES = 3
"""Of features: samples, places, width."""


class CaptionerLibrary(Library):
    """The two towers of a job.

    Parameters
    ----------
    job
        Its towers, task, adapter and seed count.
    options
        Of the task.

    Raises
    ------
    JobError
        InvalidModel: a folder is none of its kind, or its tokenizer ends no text.
    """

    name = "transformers"

    def __init__(self, job: ResolvedJob, options: CaptioningSpec) -> None:
        self.job, self._options, self._random = job, options, False
        if job.model.initialization == "Random":
            raise JobError(
                "InvalidJob",
                f"spec.model.initialization Random: the encoder of {job.task.type} never trains, and one of random weights would tell"
                " nothing of a picture or a clip, however long the others learn: set it to Pretrained",
            )
        modalities = [tower.modality for tower in job.model.towers]
        self._places = {one == "Text": index for index, one in enumerate(modalities)}
        with naming(job, self.of_encoder):
            self.tower: Tower = open_tower(
                job, self.of_encoder, image_size=options.image_size, max_seconds=options.max_seconds
            )
        with naming(job, self.of_language):
            self.language = CausalLanguageModel(job.of_tower(self.of_language), answers=False)
            self.end = self._end()
        self.language.where = place_of(job, self.of_language)

    @property
    def bases(self) -> list[Any]:
        """Encoder and language model."""
        return [self.tower, self.language]

    @property
    def of_encoder(self) -> int:
        """Which of the towers sees or hears."""
        return self._places[False]

    @property
    def of_language(self) -> int:
        """Which of them writes."""
        return self._places[True]

    def _end(self) -> int:
        """Return the token that ends a text. JobError InvalidModel: there is none."""
        found = self.language.tokenizer.eos_token_id
        if found is None and self.language.stops:
            return self.language.stops[0]
        if found is None:
            raise JobError(
                "InvalidModel",
                f"{self.language.where}: neither its tokenizer nor generation_config.json names a token that ends a text (eos_token),"
                " without which it would write for ever: set eos_token in its tokenizer_config.json",
            )
        return int(found)

    @cached_property
    def stops(self) -> list[int]:
        """Tokens at which the model ends what it writes."""
        return sorted({*self.language.stops, self.end})

    @cached_property
    def lead(self) -> list[int]:
        """Tokens that the tokenizer puts before a text, and that stand before everything here."""
        tokenizer = self.language.tokenizer
        first: list[int] = tokenizer("", add_special_tokens=True)["input_ids"][:1]
        return first if first and first[0] == tokenizer.bos_token_id else []

    @property
    def most_prefix(self) -> int:
        """Embeddings that stand before a text, at most."""
        usual = _EMBEDDINGS if self._options.features == "Pooled" else _PLACES
        return self._options.prefix_length or usual

    def open(self, head: Head) -> None:
        """Look at what turns inputs into tensors."""
        self.head = head
        with naming(self.job, self.of_encoder):
            self.tower.open(head)
        if self._options.features == "Patches" and isinstance(self.tower, AudioTower):
            self._require_alike(self.tower)
        with suppress(Exception):  # `build` says what is wrong
            _ = self._blank  # made here: an estimate builds where extractors of sound cannot compute

    def _require_alike(self, tower: AudioTower) -> None:
        if tower.hears.padded is not None:
            raise JobError(
                "InvalidJob",
                f"spec.task.captioning.features Patches: of clips spec.model.towers[{self.of_encoder}].source gives as many vectors as"
                " they are long, which is built for encoders that make all clips alike, Whisper and AST: set features to Pooled, or name"
                " such an encoder",
            )

    def files(self) -> list[str]:
        """Return the names of the files that are loaded, each below the name of its tower."""
        return [f"{name}/{file}" for name, part in self._parts.items() for file in part.files()]

    def hashes(self) -> dict[str, str]:
        """Return a hash of each of these files."""
        found: dict[str, str] = {}
        for name, part in self._parts.items():
            found |= {f"{name}/{file}": digest for file, digest in hash_files(part.path, part.files()).items()}
        if folder := self._former():
            found |= hash_files(str(folder), [CONFIG, WEIGHTS])
        return found

    @property
    def _parts(self) -> dict[str, Any]:
        return {self.tower.key: self.tower, TEXT: self.language}

    def build(self) -> LoadedModel:
        """Load encoder and language model; the same weights on every rank, the projector is drawn from training.seed."""
        with naming(self.job, self.of_encoder):
            encoder, _ = self.tower.build()
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
            reader = Reader(encoder, self._features)
            shape = self._tried(reader)
        with naming(self.job, self.of_language):
            language = self.language.build()
            writer: Any = language.module
            embed = writer.get_input_embeddings()
            self._require_inputs(writer)
        with seeded(self.job.training.seed):
            projector = self._projector(shape[2], embed)
        model = CaptionerModel(
            reader,
            projector,
            language.module,
            key=self.tower.key,
            lead=self.lead,
            stops=self.stops,
            padding=self.language.tokenizer.pad_token_id,
        )
        return captioner_blocks(model, language)

    def _require_inputs(self, language: Any) -> None:
        import inspect

        bare = language.get_base_model() if hasattr(language, "get_base_model") else language
        both = bare.forward, bare.prepare_inputs_for_generation  # the latter is what generate looks at
        if not all("inputs_embeds" in inspect.signature(one).parameters for one in both):
            raise JobError(
                "InvalidModel",
                f"{self.language.where}: {type(bare).__name__} reads token ids alone, or generates of them alone, and of no embeddings that"
                " could stand for a picture or a clip: choose a decoder such as Llama, Qwen or GPT-2",
            )

    def _features(self, encoder: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        if self._options.features == "Pooled":
            return self.tower.features(encoder, inputs)[:, None]
        given = inputs if isinstance(self.tower, AudioTower) else inputs["images"]
        return fewer(places_of(encoder, given), self.most_prefix)

    @property
    def _one(self) -> str:
        return "clip" if isinstance(self.tower, AudioTower) else "picture"

    def _tried(self, reader: Reader) -> torch.Size:
        """Return the shape of the features of a blank sample. JobError InvalidModel: it has none."""
        said = f"{self.tower.where}: what it is gives no features of a {self._one}"
        try:
            with torch.no_grad():
                found = reader(self._blank)
        except Exception as error:  # each library has its own
            raise JobError("InvalidModel", f"{said}: {one_line(error)}. Name another encoder") from error
        if found.ndim != _AXES or not found.shape[1] or not found.shape[2]:
            raise JobError(
                "InvalidModel",
                f"{said} that stand in a row: their shape is {tuple(found.shape)}. Set spec.task.captioning.features to Pooled, or name"
                " another encoder",
            )
        return found.shape

    @cached_property
    def _blank(self) -> dict[str, Tensor]:
        if not isinstance(self.tower, AudioTower):
            return {"images": self.tower.sees.blank[None]}  # type: ignore[attr-defined]
        extractor = self.tower.hears.extractor
        silence = np.zeros(max(self.tower.hears.shortest, extractor.sampling_rate), dtype=np.float32)
        return dict(extractor(silence, sampling_rate=extractor.sampling_rate, return_tensors="pt"))

    def _described(self, inputs: int, outputs: int) -> dict[str, Any]:
        """Return what `Projector` is made by."""
        spread = self.most_prefix if self._options.features == "Pooled" else 1
        return {"kind": self._options.projection, "inputs": inputs, "outputs": outputs, "spread": spread}

    def _projector(self, inputs: int, embed: nn.Embedding) -> Projector:
        """Return the projector: that of an export of which both towers are, else a new one whose embeddings are as large as those of words."""
        described, dropout = self._described(inputs, embed.weight.shape[1]), self._options.dropout
        if folder := self._former():
            held = json.loads((folder / CONFIG).read_text())["projector"]
            if {name: value for name, value in held.items() if name != "size"} == described:
                from safetensors.torch import load_file

                found = Projector(**held, dropout=dropout)
                found.load_state_dict(load_file(folder / WEIGHTS))
                return found
        if self._random:  # there is nothing that it could be as large as
            return Projector(**described, dropout=dropout)
        with torch.no_grad():
            words = len(embed.weight)  # some embeddings scale what they look up (Gemma 3, BART)
            size = float(embed(torch.arange(0, words, max(1, words // 1024))).float().square().mean().sqrt())
            found = Projector(**described, dropout=dropout, size=size)
            last = found.layers[-1]
            assert isinstance(last, nn.Linear)
            last.weight.div_(last.weight.square().sum(dim=1).mean().sqrt())
            last.bias.zero_()
        return found

    def _former(self) -> Path | None:
        """Return the folder of an export of this kind that both towers lie in; None elsewhere."""
        folders = {Path(part.path).absolute().parent for part in self._parts.values()}
        [folder, *others] = folders
        whole = not others and all((folder / name).is_file() for name in (CONFIG, WEIGHTS))
        return folder if whole and not self._random else None

    def forward(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits by which each token of the texts is chosen, (samples, length, tokens of the vocabulary)."""
        logits: Tensor = module(inputs)
        return logits[:, -inputs[IDS].shape[1] - 1 : -1]

    def own_head(self) -> None:
        """Return None: the projector is none of a base's."""

    def merged(self, module: Any) -> nn.Module:
        """Return a copy of the language model, with its adapter folded in; the module stays as it is."""
        return super().merged(module.language)

    def save(self, module: nn.Module, folder: Path, kind: ExportKind, *, initial: Callable[[], LoadedModel]) -> None:  # noqa: ARG002 - no adapter alone
        """Write encoder, projector, language model and the scripts that load them. Parameters as of Library."""
        with not_wrapped():
            self._save(module, folder)

    def _save(self, module: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        place, text = folder / self.tower.key, folder / TEXT
        place.mkdir(exist_ok=True)
        text.mkdir(exist_ok=True)
        encoder = {"modality": self.tower.modality} | self.tower.save(module.encoder.model, place)
        language: Any = self.merged(module) if self.job.adapter else module.language
        language.save_pretrained(text)
        self.language.tokenizer.save_pretrained(text)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.projector.state_dict().items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        first = module.projector.layers[0]
        outputs = module.language.get_input_embeddings().weight.shape[1]
        described = {
            "encoder": encoder,
            "features": None if self._options.features == "Pooled" else self.most_prefix,
            "projector": self._described(first.in_features, outputs) | {"size": module.projector.size},
            "prompt": self._options.prompt,
            "lead": self.lead,
            "stops": self.stops,
            "padding": self.language.tokenizer.pad_token_id,
        }
        (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
        copyfile(Path(captioner_layers.__file__), folder / SCRIPT)
        copyfile(Path(bridge_layers.__file__), folder / BRIDGE)

    def _plain(self, folder: str, example: Example) -> Plain:
        imports = "\n".join(filter(None, ("from runpy import run_path", example.imports)))
        script = json.dumps(f"{folder}/{SCRIPT}")
        sample = "Image.fromarray(one.squeeze(2).numpy())" if self.tower.modality == "image" else "one.numpy()"
        return Plain(
            "transformers",
            f'{imports}\n\ncaptioner = run_path({script})["load"]({json.dumps(folder)})\n',
            f"{example.before}print(captioner.write([{example.value}]{self._asks}))",
            f'__import__("torch").stack([captioner.logits({sample}, ids)[-1] for one, ids in inputs])',
            "[]",
        )

    @property
    def _asks(self) -> str:
        return ', "some question"' if self._options.annotation == "Answers" else ""

    def _plain_adapter(self, folder: str, base: str, example: Example) -> Plain:
        raise NotImplementedError  # the rules of the API: no adapter is exported alone
