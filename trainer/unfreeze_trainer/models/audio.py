"""Audio classifiers from transformers folders: a pretrained body and a new head, and what the body hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from torch import nn

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.folders import PREPROCESSOR_FILES, listing
from unfreeze_trainer.models.loading import be_quiet, check_complete, failed, keep_fixed, load_classifier, open_config
from unfreeze_trainer.models.padding import hide_padding

DEFAULT_SECONDS = 30.0
"""Kept of a clip where nothing in the model limits it."""
_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
"""Of a spectrum, in the models that read spectrograms."""
_LAYER_DROPS = ("layerdrop", "encoder_layerdrop")
_SQUEEZING = frozenset({"sew", "sew-d"})
"""Models that take moments together, by twos: of a clip alone the odd one is lost, of one that is padded it is not."""
UNTRAINED = "masked_spec_embed"
"""What stands in the place of masked moments; checkpoints that were trained without masks lack it."""


@dataclass(frozen=True)
class AudioInput:
    """What a model hears of a clip."""

    extractor: Any
    """transformers' feature extractor."""
    shortest: int
    """Values of the shortest clip that the model hears anything of."""
    longest: int
    """Values that are kept of a clip."""
    own: float | None
    """Seconds that the model takes; None where nothing in it limits them."""
    padded: int | None
    """Length that a batch has at least; None where all clips are made equally long, and the model takes no mask."""
    positions: int | None = None
    """Whisper's, where they are fewer than the folder's."""


def audio_kinds() -> list[str]:
    """Return the model types of transformers' audio classifiers that hear each clip apart from the others of a batch."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES as CLASSES

    return [name for name in CLASSES if name not in _SQUEEZING]


def load_config(path: str, where: str) -> Any:
    """Return transformers' configuration of an audio classifier; InvalidModel for a model that reads something else."""
    config, taken = open_config(path, where), audio_kinds()
    if config.model_type in taken:
        return config
    why = f"transformers has no audio classifier of model_type {config.model_type}"
    if config.model_type in _SQUEEZING:
        why = f"what a model of model_type {config.model_type} says of a clip depends on the lengths of those beside it"
    raise JobError("InvalidModel", f"{where}: {why}: name a model of {', '.join(taken)}")


def audio_input(path: str, where: str, config: Any, max_seconds: float | None, *, field: str) -> AudioInput:
    """Return what a model hears of a clip.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    config
        Of `load_config`.
    max_seconds, field
        Seconds that are to be kept of a clip, None for what the model takes; and the field that says so.

    Raises
    ------
    JobError
        InvalidModel: there is no feature extractor, or it is none of this model's.
    """
    from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor

    be_quiet()
    try:
        extractor: Any = AutoFeatureExtractor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        rate = int(extractor.sampling_rate)
    except Exception as error:
        raise failed(f"{where}: the feature extractor cannot be loaded", error, path, f"; {listing(path)}") from error
    _require_fitting(extractor, where, config)
    window = ceil(_WINDOW_SECONDS * rate)
    if config.model_type == "whisper":
        return _whisper_input(extractor, where, config, max_seconds, field=field)
    if config.model_type == "audio-spectrogram-transformer":
        extractor.max_length = config.max_length
        own = (config.max_length - 1) * _HOP_SECONDS + _WINDOW_SECONDS
        return AudioInput(extractor, window, max(window, round(min(max_seconds or own, own) * rate)), own, None)
    masked = getattr(config, "mask_time_length", 1) if getattr(config, "apply_spec_augment", True) else 1
    longest = round((max_seconds or DEFAULT_SECONDS) * rate)
    if not getattr(config, "conv_kernel", None):  # it reads pairs of spectra
        shortest = window + ceil(_HOP_SECONDS * rate)
        return AudioInput(extractor, shortest, max(shortest, longest), None, masked)
    shortest = _values(1, config)
    return AudioInput(extractor, shortest, max(shortest, longest), None, max(shortest, _values(masked, config)))


def _require_fitting(extractor: Any, where: str, config: Any) -> None:
    """Raise InvalidModel unless the extractor makes of a second of silence what a model of this config reads."""
    if config.model_type == "whisper":
        wanted, axis, width = "input_features", 0, config.num_mel_bins
    elif config.model_type == "audio-spectrogram-transformer":
        wanted, axis, width = "input_values", 1, config.num_mel_bins
    elif not getattr(config, "conv_kernel", None):
        wanted, axis, width = "input_features", 1, config.feature_projection_input_dim
    else:
        wanted, axis, width = "input_values", 0, None
    rate = int(extractor.sampling_rate)
    try:
        made = extractor(np.zeros(rate, dtype=np.float32), sampling_rate=rate, return_tensors="np")
        shapes = {name: np.shape(values)[1:] for name, values in made.items()}
    except Exception as error:  # as above
        raise failed(f"{where}: the feature extractor fails at a second of silence", error, "") from error
    shape = shapes.get(wanted, ())
    if len(shape) == (1 if width is None else 2) and width in (None, shape[axis]):
        return
    reads = f"{wanted}, {'a row of values' if width is None else f'a spectrum of {width} bands'}"
    makes = ", ".join(f"{name} of shape {tuple(shape)}" for name, shape in shapes.items())
    raise JobError(
        "InvalidModel",
        f"{where}: the folder's {type(extractor).__name__} is none of this model: {config.model_type} reads {reads}, and"
        f" of a second it makes {makes}. Copy the {PREPROCESSOR_FILES[0]} there that the model was pretrained with",
    )


def _values(moments: int, config: Any) -> int:
    """Return how many values of a clip give the encoder so many moments."""
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        moments = (moments - 1) * stride + kernel
    return moments


def _whisper_input(extractor: Any, where: str, config: Any, max_seconds: float | None, *, field: str) -> AudioInput:
    """Return what Whisper's encoder hears: always as much as it has positions, two hops of the extractor for each."""
    rate, hop, positions = int(extractor.sampling_rate), int(extractor.hop_length), int(config.max_source_positions)
    own = positions * 2 * hop / rate
    seconds = min(ceil(max_seconds or own), own)
    needed = seconds * rate / (2 * hop)
    if seconds != int(seconds) or needed != int(needed):
        raise JobError(
            "InvalidModel",
            f"{where}: config.json has {positions} positions (max_source_positions), which are {own:g} seconds, and"
            f" Whisper's feature extractor knows whole seconds alone: set {field} to fewer, or name another model",
        )
    seconds, needed = int(seconds), int(needed)
    extractor.chunk_length, extractor.n_samples = seconds, seconds * rate
    extractor.nb_max_frames = extractor.n_samples // hop
    kept = round(min(max_seconds or seconds, seconds) * rate)
    shortest = ceil(_WINDOW_SECONDS * rate)
    return AudioInput(extractor, shortest, max(shortest, kept), own, None, needed if needed < positions else None)


def load_audio_model(
    path: str,
    where: str,
    labels: Sequence[str],
    *,
    positions: int | None,
    random: bool,
    seed: int,
    problem_type: str,
) -> tuple[nn.Module, frozenset[str]]:
    """Load an AutoModelForAudioClassification in float32 and give it a head for these labels.

    The head is new, drawn from `seed`, unless the checkpoint is a classifier for exactly these labels: then training
    continues. What the class itself never trains (Whisper's sinusoidal positions) becomes buffers of the same names. No
    layer is left out at random (layerdrop), since a phase says which of them train, on all ranks alike.

    Parameters
    ----------
    path, where
        The folder, and what messages start with.
    labels
        In the order of class ids; they become the config's id2label.
    positions
        Rows that are kept of Whisper's positions; None for all.
    random
        Keep the architecture only: all weights are drawn from `seed`.
    seed
        Seed of new weights.
    problem_type
        What the labels are to each other, in transformers' words.

    Returns
    -------
    tuple
        The model in training mode, and the head's parameters by name.
    """
    from transformers.models.auto.modeling_auto import AutoModelForAudioClassification

    be_quiet()
    config = load_config(path, where)
    for name in layer_drops(config):
        setattr(config, name, 0.0)
    module, head, fresh = load_classifier(
        AutoModelForAudioClassification,
        path,
        where,
        config,
        labels,
        random=random,
        seed=seed,
        problem_type=problem_type,
    )
    check_complete(module, head, {name for name in fresh if not name.endswith(UNTRAINED)}, where)
    if positions is not None:
        shorten(module.encoder, positions)
        module.config.max_source_positions = positions
    keep_fixed(module)
    hide_padding(module)
    names = frozenset(name for name, _ in module.named_parameters())
    return module.train(), head | (fresh & names)


def layer_drops(config: Any) -> dict[str, float]:
    """Return how often a config leaves out layers at random, by its fields that say so."""
    return {name: getattr(config, name) for name in _LAYER_DROPS if getattr(config, name, None) is not None}


def shorten(encoder: Any, positions: int) -> None:
    """Keep the first of the positions of Whisper's encoder; its config has to say so too."""
    weight = encoder.embed_positions.weight[:positions].detach().clone()
    encoder.embed_positions = nn.Embedding(*weight.shape)
    encoder.embed_positions.weight = nn.Parameter(weight)
    encoder.max_source_positions = positions
