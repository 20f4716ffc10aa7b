"""One clip, from a file or from bytes to what a model hears: one channel, at the model's rate, of a length that is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.data.files import FileError
from unfreeze_trainer.errors import is_passing, quoted

if TYPE_CHECKING:
    from soundfile import SoundFile

SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
"""libsndfile's names of the formats that are read, whatever a file is called, and how people call them."""
MAX_VALUES = 1 << 27
"""Values of the largest part of a file that is read, of all channels: 512 MiB."""


class ClipError(FileError):
    """A clip that cannot be read, or is none; the message says why, without its name, for that of a JobError."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    frames: int
    """Values of each channel."""
    rate: int
    """Of them, in hertz."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.rate


def read_header(content: str | bytes) -> Header:
    """Return how long a clip is, by path or content; ClipError if it is none of a known format, or empty."""
    with _opened(content) as sound:
        return Header(sound.frames, sound.samplerate)


def decode(content: str | bytes, rate: int, most: int) -> np.ndarray:
    """Return the beginning of a clip: the mean of its channels, resampled.

    Parameters
    ----------
    content
        Path or content of a file.
    rate
        Values a second, in hertz.
    most
        Values that are kept.

    Returns
    -------
    np.ndarray
        float32 of shape (values,), mostly between -1 and 1.

    Raises
    ------
    ClipError
        It is no clip of a known format, broken, empty, or holds what is no number.
    """
    with _opened(content) as sound:
        wanted = min(sound.frames, -(-most * sound.samplerate // rate))
        if wanted * sound.channels > MAX_VALUES:
            raise ClipError(f"its {sound.channels} channels are more than can be read; mix them down")
        values = sound.read(wanted, dtype="float32", always_2d=True)
        own_rate, whole = sound.samplerate, sound.format == "MP3" or len(values) == wanted  # an MP3's length is a guess
    if not whole or not len(values):
        raise ClipError(f"it ends after {len(values)} of {wanted} values; replace or remove it")
    if not np.isfinite(values).all():
        raise ClipError("it holds values that are no numbers (NaN or infinite); replace or remove it")
    mono = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)
    if own_rate != rate:
        import soxr

        mono = soxr.resample(mono, own_rate, rate)
    return np.ascontiguousarray(mono[:most])


@contextmanager
def _opened(content: str | bytes) -> Iterator[SoundFile]:
    """Open a clip; whatever its decoder says within is a ClipError."""
    import soundfile

    in_memory = isinstance(content, bytes)
    try:
        # By its descriptor, and not by its name, which libsndfile would take for the format of what it does not know.
        with (
            BytesIO(content) if isinstance(content, bytes) else Path(content).open("rb") as file,
            soundfile.SoundFile(file if in_memory else file.fileno(), closefd=False) as sound,
        ):
            _require_sound(sound)
            yield sound
    except ClipError:
        raise
    except soundfile.LibsndfileError as error:
        text = quoted(" ".join(error.error_string.split())[:200])
        raise ClipError(
            f"it is broken, or no clip in one of the formats {_known()} ({text}); replace or remove it"
        ) from error
    except Exception as error:
        if is_passing(error) or isinstance(error, MemoryError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
        raise ClipError(f"it cannot be read ({quoted(reason)}); replace or remove it") from error


def _require_sound(sound: SoundFile) -> None:
    if sound.format not in FORMATS:
        raise ClipError(f"its format is {sound.format}, and {_known()} are read; convert or remove it")
    if not sound.frames:
        raise ClipError("it is empty; replace or remove it")


def _known() -> str:
    return ", ".join(sorted(set(FORMATS.values())))
