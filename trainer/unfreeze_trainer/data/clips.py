"""One clip, from a file or from bytes to what a model hears: one channel, at the model's rate, of a length that is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfreeze_trainer.data.unread import FileError
from unfreeze_trainer.errors import is_passing, quoted

if TYPE_CHECKING:
    from soundfile import SoundFile

SUFFIXES = (".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
"""libsndfile's names of the formats that are read, whatever a file is called, and how people call them."""
MAX_VALUES = 1 << 27
"""Values of the largest part of a file that is read, of all channels: 512 MiB."""
MAX_PEAK = float(1 << 31)
"""Of a value, whichever whole numbers somebody took for 1: squares and sums of louder ones are no numbers in float32."""
_UNKNOWN = 1 << 62
"""So many frames or more say that the header does not tell: FLAC that was written into a pipe. libsndfile's is 2^63 - 1."""
_BLOCK = 1 << 16
_BEYOND = 512
"""Values at the lower rate that are resampled beyond the end of what is kept, so that it is what resampling the whole gives."""


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
        frames = sound.frames if sound.frames < _UNKNOWN else _count(sound)
        return Header(frames, sound.samplerate)


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
        It is no clip of a known format, broken, empty, or holds what is no number or no sound.
    """
    with _opened(content) as sound:
        beyond = 0 if sound.samplerate == rate else _BEYOND * max(1, -(-sound.samplerate // rate))
        wanted = min(sound.frames, -(-most * sound.samplerate // rate) + beyond)
        if wanted * sound.channels > MAX_VALUES:
            raise ClipError(
                f"{wanted / sound.samplerate:.3g} seconds of {sound.channels} channels at {sound.samplerate} Hz are more than"
                " can be read; mix it down, resample it, or set maxSeconds to less"
            )
        values = sound.read(wanted, dtype="float32", always_2d=True)
        own_rate = sound.samplerate
        _require_whole(sound, len(values), wanted)
    _require_numbers(values)
    mono = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)
    if own_rate != rate:
        import soxr

        mono = soxr.resample(mono, own_rate, rate)
    return np.ascontiguousarray(mono[:most])


def check(content: str | bytes, most: float) -> None:
    """Read the beginning of a clip, a part at a time, so that it takes little memory however long it is.

    Parameters
    ----------
    content
        As of `decode`.
    most
        Seconds that are read.

    Raises
    ------
    ClipError
        As of `decode`.
    """
    with _opened(content) as sound:
        wanted, read = min(sound.frames, int(most * sound.samplerate)), 0
        while read < wanted and len(part := sound.read(min(_BLOCK, wanted - read), dtype="float32", always_2d=True)):
            _require_numbers(part)
            read += len(part)
        _require_whole(sound, read, wanted)


def _require_whole(sound: SoundFile, read: int, wanted: int) -> None:
    """Raise ClipError where a file ends before what it says of itself; what is guessed of an MP3 is no promise."""
    guessed = sound.format == "MP3" or sound.frames >= _UNKNOWN
    if not read or (read < wanted and not guessed):
        raise ClipError(f"it ends after {read} of {wanted} values; replace or remove it")


def _require_numbers(values: np.ndarray) -> None:
    if not (peak := float(max(values.max(), -values.min()))) <= MAX_PEAK:
        what = f"values up to {peak:.3g}, and sound lies between -1 and 1"
        if not np.isfinite(peak):
            what = "values that are no numbers (NaN or infinite)"
        raise ClipError(f"it holds {what}; replace or remove it")


@contextmanager
def _opened(content: str | bytes) -> Iterator[SoundFile]:
    """Open a clip; whatever its decoder says within is a ClipError."""
    import soundfile

    in_memory = isinstance(content, bytes)
    try:
        # By its descriptor, and not by its name, which libsndfile would take for the format of what it does not know.
        with (
            BytesIO(content) if isinstance(content, bytes) else Path(content).open("rb") as file,
            _forward()(file if in_memory else file.fileno(), closefd=False) as sound,
        ):
            _require_sound(sound)
            yield sound
    except ClipError:
        raise
    except soundfile.LibsndfileError as error:
        text = quoted(" ".join(error.error_string.split())[:200])
        raise ClipError(
            f"it is broken, or no clip in one of the formats {_known()} ({text}); convert, replace or remove it"
        ) from error
    except Exception as error:
        if is_passing(error) or isinstance(error, MemoryError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
        raise ClipError(f"it cannot be read ({quoted(reason)}); replace or remove it") from error


@cache
def _forward() -> type[SoundFile]:
    """Return a SoundFile that reads from the beginning on: after each part the plain one seeks to where it is, which fails
    at the end of FLAC of an unknown length.
    """
    import soundfile

    class Forward(soundfile.SoundFile):  # type: ignore[misc] # it has no types
        def seekable(self) -> bool:
            return False

    return Forward


def _count(sound: SoundFile) -> int:
    frames = 0
    while found := len(sound.read(_BLOCK, dtype="float32", always_2d=True)):
        frames += found
    return frames


def _require_sound(sound: SoundFile) -> None:
    if sound.format not in FORMATS:
        raise ClipError(f"its format is {sound.format}, and {_known()} are read; convert or remove it")
    if not sound.frames:
        raise ClipError("it is empty; replace or remove it")


def _known() -> str:
    return ", ".join(sorted(set(FORMATS.values())))
