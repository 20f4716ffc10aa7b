"""One picture, from a file or from bytes to 8 bits a channel: what arrives is what a viewer shows.

Orientation is applied, ranges are scaled to 8 bits, transparency lies on white. What cannot be shown so is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Literal

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
MAX_PIXELS = 1 << 26
"""Pixels of the largest picture that arrives whole, 8192 x 8192: 256 MiB in RGB, since Pillow takes four bytes for each. JPEG of up
to four times as many, as telephones write it, arrives at half of its width and height, and so do scans."""
_LARGE = 1 << 24
"""Pixels of a picture beyond which no other such one is decoded at the same time."""
_ONE_LARGE = threading.Lock()
_STRIP = 1 << 20
"""Pixels of a part that is turned into others at a time."""
_SEQUENTIAL, _SCAN = (0xC0, 0xC1), 0xDA
"""Markers of JPEG: a frame that is not progressive, and the first of its scans."""
_SAMPLES_PER_PIXEL, _ORIENTATION, _BITS, _MEANING = 277, 274, 258, 262  # tags of TIFF
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations by which width and height change places."""
_SIXTEEN_BITS = 65_535
_WHITE, _BLACK = 255, 0

Mode = Literal["L", "RGB"]


class PictureError(FileError):
    """A picture that cannot be opened, or not be shown; the message says why, without its name, for that of a JobError."""


def open_picture(content: str | bytes) -> Image:
    """Return a picture by path or content, with its header read alone; a large JPEG is set to be decoded smaller.

    Raises
    ------
    PictureError
        It is no picture of a known format, or larger than any that is decoded.
    """
    from PIL import UnidentifiedImageError

    try:
        image = _opened(content)
        if getattr(image, "tag_v2", {}).get(_ORIENTATION) in _ON_ITS_SIDE:
            # Pillow maps the file, where there is one, with width and height in each other's place.
            image.filename = ""  # type: ignore[attr-defined] # of all that are opened
        _bound(image)
    except PictureError:
        raise
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


def _opened(content: str | bytes) -> Image:
    """Open a picture; of more pixels than the 178,956,970 that Pillow opens a JPEG alone."""
    from PIL import Image
    from PIL.JpegImagePlugin import jpeg_factory

    def given() -> Any:
        return BytesIO(content) if isinstance(content, bytes) else content

    try:
        return Image.open(given(), formats=sorted(set(FORMATS.values())))
    except Image.DecompressionBombError as error:
        try:
            return jpeg_factory(given(), content if isinstance(content, str) else None)
        except SyntaxError:
            raise _too_large(MAX_PIXELS) from error


def _bound(image: Image) -> None:
    """Raise PictureError for a picture of too many pixels; of a JPEG have a quarter of them decoded."""
    most, jpeg = _most_pixels(image), image.format in ("JPEG", "MPO")
    if image.width * image.height <= most:
        return
    if jpeg and _in_one_scan(image):
        most, whole = 4 * most, image.size
        if whole[0] * whole[1] <= most:
            image.draft(None, (whole[0] // 2, whole[1] // 2))
            return
    fits_jpeg = not jpeg and image.width * image.height <= 4 * MAX_PIXELS
    image.close()
    more = " and is progressive, or has each colour on its own" if jpeg and most == MAX_PIXELS else ""
    raise _too_large(most, more, f", or save it as a JPEG, which may have {4 * MAX_PIXELS:,}" if fits_jpeg else "")


def _most_pixels(image: Image) -> int:
    """Return how many pixels a picture may have by its header, so that it takes no more than about 600 MiB with what is made of it."""
    if image.format == "WEBP":  # its decoder holds a picture thrice
        return MAX_PIXELS // 2
    if image.format in ("PNG", "TIFF") and not image.has_transparency_data:
        if image.mode in ("1", "L", "P"):  # a byte each
            return 4 * MAX_PIXELS
        if image.mode == "RGB" and image.format == "PNG":  # TIFF may hold it twice
            return MAX_PIXELS * 3 // 2
    return MAX_PIXELS


def _in_one_scan(image: Image) -> bool:
    """Return whether a JPEG is decoded row by row: otherwise coefficients of all of it are held, however small it is decoded.

    It is, where it is not progressive and its first scan has all of its colours.
    """
    file: IO[bytes] = image.fp  # type: ignore[attr-defined] # of all that are opened
    at, colours = file.tell(), b""
    try:
        file.seek(2)
        while len(head := file.read(4)) == 4 and head[0] == 0xFF:  # noqa: PLR2004 - a marker, and the length of what follows
            content = file.read(max(0, int.from_bytes(head[2:]) - 2))
            if head[1] in _SEQUENTIAL:
                colours = content[5:6]
            elif head[1] == _SCAN:
                return colours != b"" and content[:1] == colours
    finally:
        file.seek(at)
    return False


def _too_large(most: int, more: str = "", otherwise: str = "") -> PictureError:
    return PictureError(f"it has more than {most:,} pixels{more}; scale it down{otherwise}")


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
    with open_picture(content) as image, turn(image):
        try:
            return _shown(image, mode)
        except PictureError:
            raise
        except Exception as error:
            if is_passing(error):
                raise
            raise PictureError(f"it cannot be decoded ({_text(error)}); replace or remove it") from error


def decode_plainly(content: str | bytes, mode: Mode) -> Image:
    """Return a picture by Pillow's conversion alone: orientation ignored, 16 bits and floats cut at 255, no ground. PictureError."""
    with open_picture(content) as image, turn(image):
        try:
            return _converted(image, mode)
        except Exception as error:
            if is_passing(error):
                raise
            raise PictureError(f"it cannot be decoded ({_text(error)}); replace or remove it") from error


def turn(image: Image) -> AbstractContextManager[object]:
    """Return what is held while a picture is decoded or scaled: threads do that, and a large one may take 600 MiB."""
    return _ONE_LARGE if image.width * image.height > _LARGE else nullcontext()


def _shown(image: Image, mode: Mode) -> Image:
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:  # none of these has what is looked for below
        shown = _converted(image, mode)
        shown.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
        ImageOps.exif_transpose(shown, in_place=True)
        return shown
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        shown = _in_eight_bits(image, image.format)
    elif image.has_transparency_data:
        shown = _on_ground(image)
    else:
        return _converted(image, mode)
    return shown if shown.mode == mode else shown.convert(mode)


def _converted(image: Image, mode: Mode) -> Image:
    """Return a picture in a mode; one of more than MAX_PIXELS at half of its width and height."""
    from PIL import Image

    if image.width * image.height <= MAX_PIXELS:
        return image.convert(mode)
    found = Image.new(mode, ((image.width + 1) // 2, (image.height + 1) // 2))
    for (_, top, _, _), strip in _strips(image):
        found.paste(strip.convert(mode).reduce(2), (0, top // 2))
    return found


def _strips(image: Image) -> Iterator[tuple[tuple[int, int, int, int], Image]]:
    """Yield parts of a picture from top to bottom, each with its place: left, top, right, bottom."""
    rows = max(1, _STRIP // image.width // 2) * 2
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        yield box, image.crop(box)


def _in_eight_bits(image: Image, kind: str | None) -> Image:
    """Scale whole numbers of 12 or 16 bits, and floats, to 8 bits.

    Floats have no stated range: up to 1 they count as shares, up to 255 as 8 bits, up to 65,535 as 16 bits. A TIFF may say that 0
    is white, a PNG which number is transparent: it becomes white.
    """
    from PIL import Image

    tags, clear = getattr(image, "tag_v2", {}), image.info.get("transparency")

    if image.mode == "F":
        ranges = [(float(part.min()), float(part.max())) for part in (np.asarray(strip) for _, strip in _strips(image))]
        low, high = (float(end) for end in (np.min(ranges), np.max(ranges)))
        if not (np.isfinite((low, high)).all() and low >= 0 and high <= _SIXTEEN_BITS):
            raise PictureError(
                f"its floats reach from {low:g} to {high:g}, and no screen says what that looks like; scale them to 0 to 1"
            )
        top = 1 if high <= 1 else _WHITE if high <= _WHITE else _SIXTEEN_BITS
    elif image.mode == "I" and kind != "PPM":  # Pillow scales a PPM's to 16 bits
        raise PictureError(
            "its numbers have 32 bits, and no screen says what they look like; save it with 8 or 16 bits"
        )
    else:
        top = (1 << max(tags.get(_BITS, (16,)))) - 1
    found = Image.new("L", image.size)
    for box, strip in _strips(image):
        values = np.asarray(strip).astype(np.float64)
        if isinstance(clear, int):
            values[values == clear] = top
        if tags.get(_MEANING) == 0:
            values = top - values
        found.paste(Image.fromarray(np.rint(values * (_WHITE / top)).astype(np.uint8)), box)
    return found


def _on_ground(image: Image) -> Image:
    """Lay a transparent picture on white; on black where it is white itself, so that its form is in alpha alone."""
    flat, alphas = _laid(image, _WHITE)
    if min(alphas) != max(alphas) and all(band == (_WHITE, _WHITE) for band in flat.getextrema()):
        flat, _ = _laid(image, _BLACK)
    return flat


def _laid(image: Image, ground: int) -> tuple[Image, list[Any]]:
    """Return a picture on a grey, and the least and the largest alpha of each of its parts."""
    from PIL import Image

    flat, alphas = Image.new("RGB", image.size), list[Any]()
    for box, strip in _strips(image):
        clear = strip.convert("RGBA")
        below = Image.new("RGBA", clear.size, (ground, ground, ground, _WHITE))
        flat.paste(Image.alpha_composite(below, clear).convert("RGB"), box)
        alphas += clear.getchannel("A").getextrema()
    return flat, alphas


def _text(error: BaseException) -> str:
    """Return what went wrong: a decoder may quote the picture or its path, the system does not."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return quoted(" ".join(str(error).split())[:200] or type(error).__name__)
