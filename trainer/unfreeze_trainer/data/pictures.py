"""One picture, from a file or from bytes to 8 bits a channel: what arrives is what a viewer shows.

Orientation is applied, ranges are scaled to 8 bits, transparency lies on white. What cannot be shown so is refused.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from unfreeze_trainer.data.unread import FileError
from unfreeze_trainer.errors import is_passing, quoted

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Suffixes of pictures, and Pillow's name of each format; no other one is opened, whatever a file is called."""
MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is opened, as Pillow's own limit: 512 MiB in RGB."""
_SAMPLES_PER_PIXEL = 277  # a tag of TIFF
_SIXTEEN_BITS = 65_535
_WHITE, _BLACK = 255, 0

Mode = Literal["L", "RGB"]


class PictureError(FileError):
    """A picture that cannot be opened, or not be shown; the message says why, without its name, for that of a JobError."""


def open_picture(content: str | bytes) -> Image:
    """Return a picture by path or content, with its header read alone.

    Raises
    ------
    PictureError
        It is no picture of a known format, or larger than any that is opened.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(
            BytesIO(content) if isinstance(content, bytes) else content, formats=sorted(set(FORMATS.values()))
        )
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has more than {MAX_PIXELS:,} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(sorted(set(FORMATS.values())))
        raise PictureError(
            f"it is no picture in one of the formats {formats}; convert, replace or remove it"
        ) from error
    except Exception as error:  # each of Pillow's decoders has its own
        if is_passing(error):
            raise
        raise PictureError(f"it cannot be read ({_text(error)}); replace or remove it") from error
    return image


def spare_channels(image: Image) -> int:
    """Return how many channels of a TIFF Pillow leaves out: those that are neither colour nor alpha, as of satellites."""
    tags = getattr(image, "tag_v2", {})
    return max(0, int(tags.get(_SAMPLES_PER_PIXEL, 1)) - len(image.getbands()))


def decode(content: str | bytes, mode: Mode) -> Image:
    """Return a picture as a viewer shows it, in grey or in colours of 8 bits.

    Raises
    ------
    PictureError
        It is broken, or holds what has no meaning on a screen.
    """
    with open_picture(content) as image:
        try:
            return _shown(image, mode)
        except PictureError:
            raise
        except Exception as error:
            if is_passing(error):
                raise
            raise PictureError(f"it cannot be decoded ({_text(error)}); replace or remove it") from error


def decode_plainly(content: str | bytes, mode: Mode) -> Image:
    """Return a picture by Pillow's conversion alone: orientation ignored, 16 bits and floats cut at 255, no ground."""
    with open_picture(content) as image:
        try:
            return image.convert(mode)
        except Exception as error:
            if is_passing(error):
                raise
            raise PictureError(f"it cannot be decoded ({_text(error)}); replace or remove it") from error


def _shown(image: Image, mode: Mode) -> Image:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;"):
        upright = _in_eight_bits(upright, image.format)
    elif upright.has_transparency_data:
        upright = _on_ground(upright)
    return upright if upright.mode == mode else upright.convert(mode)


def _in_eight_bits(image: Image, kind: str | None) -> Image:
    """Scale whole numbers of 16 bits, and floats, to 8 bits.

    Floats have no stated range: up to 1 they count as shares, up to 255 as 8 bits, up to 65,535 as 16 bits.
    """
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if not (np.isfinite(values).all() and low >= 0 and high <= _SIXTEEN_BITS):
            raise PictureError(
                f"its floats reach from {low:g} to {high:g}, and no screen says what that looks like; scale them to 0 to 1"
            )
        top = 1 if high <= 1 else _WHITE if high <= _WHITE else _SIXTEEN_BITS
    elif image.mode == "I" and kind != "PPM":  # Pillow scales a PPM's to 16 bits
        raise PictureError(
            "its numbers have 32 bits, and no screen says what they look like; save it with 8 or 16 bits"
        )
    else:
        top = _SIXTEEN_BITS
    return Image.fromarray(np.rint(values * (_WHITE / top)).astype(np.uint8))


def _on_ground(image: Image) -> Image:
    """Lay a transparent picture on white; on black where it is white itself, so that its form is in alpha alone."""
    from PIL import Image

    clear = image.convert("RGBA")
    ground = Image.new("RGBA", clear.size, (_WHITE, _WHITE, _WHITE, _WHITE))
    flat = Image.alpha_composite(ground, clear).convert("RGB")
    low, high = clear.getchannel("A").getextrema()
    if low != high and all(band == (_WHITE, _WHITE) for band in flat.getextrema()):
        ground = Image.new("RGBA", clear.size, (_BLACK, _BLACK, _BLACK, _WHITE))
        flat = Image.alpha_composite(ground, clear).convert("RGB")
    return flat


def _text(error: BaseException) -> str:
    """Return what went wrong: a decoder may quote the picture or its path, the system does not."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return quoted(" ".join(str(error).split())[:200] or type(error).__name__)
