"""What arrives of a picture is what a viewer shows; what cannot be shown is refused by name."""

import errno
import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from tests.trainer.jobs import image_folder, make_job
from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data import pictures
from unfreeze_trainer.data.image_loader import ImageLoader
from unfreeze_trainer.data.images import read_images
from unfreeze_trainer.data.pictures import MAX_PIXELS, PictureError, decode, decode_plainly, open_picture
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.image import timm_input

CONFIG = {
    "input_size": (3, 8, 8),
    "interpolation": "bicubic",
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "crop_pct": 1.0,
    "crop_mode": "center",
}


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes, mode="RGB") -> np.ndarray:
    return np.asarray(decode(content, mode)).astype(int)


eight_bits = st.binary(min_size=48, max_size=48).map(lambda data: np.frombuffer(data, np.uint8).reshape(6, 8))


@pytest.mark.slow
@given(grey=eight_bits)
def test_ranges_are_scaled_to_eight_bits(grey):
    """The same picture in every depth: as 8 bits give it."""
    expected = np.repeat(grey[..., None].astype(int), 3, axis=2)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    for content in (saved(Image.fromarray(grey), "PNG"), saved(wide, "PNG"), saved(wide, "TIFF"), pgm(grey)):
        assert np.array_equal(pixels(content), expected)
        assert np.array_equal(pixels(content, "L"), expected[..., 0])
    for top in (1, 255, 65535):
        floats = grey.astype(np.float32) * (top / 255)
        floats[0, 0] = top  # where none is above 1, the range is 0 to 1
        seen = pixels(saved(Image.fromarray(floats), "TIFF"), "L")
        assert np.array_equal(seen.ravel()[1:], grey.ravel()[1:])


def pgm(grey: np.ndarray) -> bytes:
    return b"P5 8 6 65535\n" + (grey.astype(">u2") * 257).tobytes()


def test_orientation_is_applied():
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, :, 0] = 255  # red above
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        shown = pixels(saved(Image.fromarray(picture), "PNG", exif=exif))
        assert shown.shape[:2] == ((4, 6) if orientation < 5 else (6, 4))
        red = {1: shown[0], 2: shown[0], 3: shown[-1], 4: shown[-1]}.get(orientation)
        red = (
            red if red is not None else {5: shown[:, 0], 6: shown[:, -1], 7: shown[:, -1], 8: shown[:, 0]}[orientation]
        )
        assert (red[:, 0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA", "CMYK"])
def test_a_turned_tiff_is_the_same_from_a_file_and_from_bytes(tmp_path, mode):
    """Pillow maps uncompressed ones of a file into memory, with width and height in each other's place."""
    grey = NOISE[..., 0]
    picture = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    for orientation, turns in ((3, 2), (6, 3), (8, 1)):
        picture.save(tmp_path / "turned.tif", exif=saved_orientation(orientation))
        for content in (str(tmp_path / "turned.tif"), (tmp_path / "turned.tif").read_bytes()):
            assert np.array_equal(np.asarray(decode(content, "L")), np.rot90(grey, turns))


def tiff(data: bytes, shape: tuple[int, int], bits: int, *, zero_is_white: bool = False) -> bytes:
    """Return a grey TIFF without compression, of 12 or 16 bits a pixel."""
    tags = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: int(not zero_is_white), 273: 8, 277: 1}
    tags |= {278: shape[0], 279: len(data)}
    table = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + table + bytes(4)


def test_twelve_bits_and_white_zeros_of_a_tiff_and_the_clear_number_of_a_png():
    grey = NOISE[..., 0].astype(int)
    sixteen = (grey * 257).astype("<u2").tobytes()
    assert np.array_equal(pixels(tiff(sixteen, grey.shape, 16), "L"), grey)
    assert np.array_equal(pixels(tiff(sixteen, grey.shape, 16, zero_is_white=True), "L"), 255 - grey)
    twelve = bytes.fromhex("".join(f"{value * 4095 // 255:03x}" for value in grey.ravel()))
    assert np.abs(pixels(tiff(twelve, grey.shape, 12), "L") - grey).max() <= 1
    keyed = saved(Image.fromarray((grey * 257).astype(np.uint16)), "PNG")
    clear = chunk(b"tRNS", struct.pack(">H", int(grey[0, 0]) * 257))
    seen = pixels(keyed[:33] + clear + keyed[33:], "L")
    assert (seen == np.where(grey == grey[0, 0], 255, grey)).all()


@given(alpha=eight_bits, colour=st.sampled_from([(0, 0, 0), (200, 30, 40)]))
def test_transparency_lies_on_white(alpha, colour):
    clear = np.zeros((6, 8, 4), np.uint8)
    clear[..., :3], clear[..., 3] = colour, alpha
    share = alpha[..., None] / 255
    expected = np.array(colour) * share + 255 * (1 - share)
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        assert np.abs(pixels(saved(Image.fromarray(clear), kind, **options)) - expected).max() <= 1


def test_a_form_in_alpha_alone_is_seen_whatever_its_colour():
    for level in (0, 255):
        for mode, colour in (("RGBA", (level,) * 3), ("LA", (level,))):
            clear = Image.new(mode, (8, 6), (*colour, 0))
            clear.paste((*colour, 255), (2, 2, 5, 4))
            shown = pixels(saved(clear, "PNG"))
            assert (shown[3, 3] == level).all()
            assert (shown[0, 0] == 255 - level).all()


def test_palettes_and_colour_keys_are_transparent_too():
    keyed = Image.new("P", (4, 4), 1)
    keyed.putpalette([10, 20, 30, 40, 50, 60])
    keyed.putpixel((0, 0), 0)
    for content in (saved(keyed, "PNG", transparency=0), saved(keyed, "GIF", transparency=0)):
        assert pixels(content)[0, 0].tolist() == [255, 255, 255]
        assert pixels(content)[1, 1].tolist() == [40, 50, 60]
    rgb = Image.new("RGB", (4, 4), (1, 2, 3))
    assert pixels(saved(rgb, "PNG", transparency=(1, 2, 3)))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "YCbCr"])
def test_other_modes_arrive(mode):
    kind = "TIFF" if mode in ("YCbCr", "CMYK") else "PNG"
    assert (pixels(saved(Image.new("RGB", (4, 4), "white").convert(mode), kind)) >= 250).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.full((4, 4), np.nan, np.float32), "floats reach from nan to nan"),
        (np.full((4, 4), -0.5, np.float32), "floats reach from -0.5"),
        (np.full((4, 4), 1e6, np.float32), "scale them to 0 to 1"),
        (np.full((4, 4), 70000, np.int32), "numbers have 32 bits"),
    ],
)
def test_what_no_screen_shows_is_refused(values, why):
    with pytest.raises(PictureError, match=why):
        decode(saved(Image.fromarray(values), "TIFF"), "RGB")


def test_a_huge_picture_is_refused_by_its_header():
    """Without a byte of its pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IEND", b"")))
    with pytest.raises(PictureError, match=f"more than {MAX_PIXELS:,} pixels"):
        open_picture(content)


NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def test_a_large_jpeg_is_decoded_at_half_of_its_size(monkeypatch):
    picture = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    whole = saved(picture, "JPEG", quality=95)
    full = pixels(whole)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 32 * 24 - 1)
    halved = pixels(whole)
    assert halved.shape == (12, 16, 3)
    assert np.abs(halved - full.reshape(12, 2, 16, 2, 3).mean((1, 3))).max() < 6
    assert pixels(saved(picture, "JPEG", exif=saved_orientation(6))).shape == (16, 12, 3)
    assert pixels(saved(picture.convert("CMYK"), "JPEG")).shape == (12, 16, 3)
    assert pixels(saved(picture, "MPO", save_all=True, append_images=[picture])).shape == (12, 16, 3)
    assert pixels(saved(picture.convert("L"), "JPEG"), "L").shape == (12, 16)
    assert np.asarray(decode_plainly(whole, "RGB")).shape == (12, 16, 3)


def saved_orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_a_large_picture_that_cannot_be_decoded_smaller_is_refused(monkeypatch):
    picture = Image.fromarray(NOISE)
    whole = saved(picture, "JPEG")
    scan = whole.index(b"\xff\xda")
    of_one_colour = whole[: scan + 2] + b"\x00\x08\x01" + whole[scan + 5 :]
    clear = Image.fromarray(np.dstack([NOISE, NOISE[..., :1]]))
    contents = [(saved(picture, "JPEG", progressive=True), " and is progressive, or has each colour on its own")]
    contents += [(of_one_colour, contents[0][1]), (saved(clear, "PNG"), ""), (saved(picture, "TIFF"), "")]
    webp = saved(picture, "WEBP")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 32 * 24 - 1)
    for content, more in contents:
        with pytest.raises(PictureError, match=f"it has more than 767 pixels{more}; scale it down"):
            open_picture(content)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2 * 32 * 24)
    open_picture(webp).close()
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2 * 32 * 24 - 1)
    with pytest.raises(PictureError, match="more than 767 pixels; scale it down, or save it as a JPEG, which may have"):
        open_picture(webp)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
    with pytest.raises(PictureError, match="more than 40 pixels; scale"):
        open_picture(whole)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 512)
    open_picture(saved(picture, "PNG")).close()
    monkeypatch.setattr(pictures, "MAX_PIXELS", 511)
    with pytest.raises(PictureError, match="more than 511 pixels"):
        open_picture(saved(clear, "PNG"))


def test_a_telephone_s_200_megapixels_are_opened(tmp_path):
    """By the header of a JPEG, above what Pillow opens."""
    whole = saved(Image.fromarray(NOISE), "JPEG")
    place = whole.index(b"\xff\xc0") + 5
    large = whole[:place] + struct.pack(">HH", 12_240, 16_320) + whole[place + 4 :]
    (tmp_path / "large.jpg").write_bytes(large)
    for content in (large, str(tmp_path / "large.jpg")):
        with open_picture(content) as image:
            assert image.size == (8160, 6120)
    with pytest.raises(PictureError, match="more than 268,435,456 pixels; scale it down"):
        open_picture(whole[:place] + struct.pack(">HH", 16_385, 16_385) + whole[place + 4 :])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_large_scan_arrives_at_half_of_its_size(monkeypatch, mode, kind):
    picture = Image.linear_gradient("L").resize((33, 24)).convert("RGB").convert(mode)
    content = saved(picture, kind, exif=saved_orientation(6))
    full, plain = pixels(content), np.asarray(decode_plainly(content, "RGB"))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 33 * 24 - 1)
    monkeypatch.setattr(pictures, "_STRIP", 100)
    if (mode, kind) == ("RGB", "TIFF"):
        with pytest.raises(PictureError, match="more than 791 pixels"):
            pixels(content)
        return
    halved = pixels(content)
    assert halved.shape == (17, 12, 3)
    assert np.abs(halved[:16] - full[:32].reshape(16, 2, 12, 2, 3).mean((1, 3))).max() <= 0.5
    assert np.asarray(decode_plainly(content, "RGB")).size == 17 * 12 * 3
    assert plain.size == 33 * 24 * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F"])
def test_parts_of_a_picture_are_the_whole(monkeypatch, mode):
    values = NOISE[..., 0].astype(np.uint16)
    if mode in ("I;16", "F"):
        content = saved(Image.fromarray(values * 200 if mode == "I;16" else values.astype(np.float32)), "TIFF")
    else:
        clear = Image.fromarray(np.dstack([NOISE, NOISE[..., :1]]))
        content = saved(clear.convert(mode) if mode != "P" else clear.quantize(16), "PNG")
    whole = pixels(content)
    monkeypatch.setattr(pictures, "_STRIP", 100)
    assert (pixels(content) == whole).all()


def test_a_strip_of_a_picture_is_not_scaled_to_gigabytes():
    """A model that wants squares scales the shorter side to its own."""
    thin = saved(Image.new("L", (2_000_000, 1)), "PNG")
    with pytest.raises(PictureError, match=r"it is 2000000 x 1 pixels: .* more than 67,108,864; crop it"):
        ImageLoader(timm_input(CONFIG, (8, 8))).decode(thin)
    assert ImageLoader(timm_input(CONFIG, (8, 8))).decode(saved(Image.new("L", (20_000, 1)), "PNG")).size == (20_000, 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_broken_picture_gives_one_kind_of_error(kind):
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)), kind)
    told = []
    for end in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        for content in (whole[:end], whole[:end] + b"\xff\x00" * 20 + whole[end + 40 :]):
            try:
                decode(content, "RGB")
            except PictureError as error:
                told.append(str(error))
    assert told
    assert all("replace or remove it" in text or "scale it down" in text for text in told)


@pytest.mark.parametrize("error", [KeyError("mode"), ZeroDivisionError(), OSError(errno.ENOENT, "gone")])
def test_whatever_a_decoder_raises_is_about_the_picture(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(Image.Image, "convert", fails)
    for how in (decode, decode_plainly):
        with pytest.raises(PictureError, match="cannot be decoded"):
            how(RED, "L")


def test_a_volume_that_fails_is_not_blamed_on_the_picture(monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Stale"):
        decode(RED, "L")


def test_other_formats_are_not_opened(tmp_path):
    """Whatever a file is called: a decoder that nobody needs is one more that could be attacked."""
    (tmp_path / "a.png").write_bytes(saved(Image.new("RGB", (4, 4)), "PCX"))
    with pytest.raises(PictureError, match="no picture in one of the formats"):
        open_picture(str(tmp_path / "a.png"))


def test_runs_that_began_earlier_decode_as_they_did():
    wide = saved(Image.fromarray(np.full((4, 4), 30000, np.uint16)), "PNG")
    assert (np.asarray(decode_plainly(wide, "L")) == 255).all()
    assert (pixels(wide, "L") == 117).all()


# From tables


def images_job(path, **columns):
    return make_job("/m", path, task={"type": "ImageClassification"}, data={"train": {"columns": columns}}).data.train


def source_of(dataset: Dataset):
    return read_images(dataset, f"spec.data.train.source {dataset.source}")


def loaded(source):
    [(_, batch)] = ImageLoader(timm_input(CONFIG, (8, 8))).batches(source, [([0, 1], np.array([0, 1]))], None)
    return batch


RED, BLUE = (saved(Image.new("RGB", (8, 8), colour), "PNG") for colour in ("red", "blue"))
HUB = pa.struct({"bytes": pa.binary(), "path": pa.string()})
TABLES = {
    "struct of bytes and path": pa.array([{"bytes": RED, "path": "0.png"}, {"bytes": BLUE, "path": None}], HUB),
    "struct of paths": pa.array([{"bytes": None, "path": "red.png"}, {"bytes": None, "path": "blue.png"}], HUB),
    "bytes": pa.array([RED, BLUE]),
    "large bytes": pa.array([RED, BLUE], pa.large_binary()),
    "paths": pa.array(["red.png", "blue.png"]),
    "paths in a dictionary": pa.array(["red.png", "blue.png"]).dictionary_encode(),
}


@pytest.mark.parametrize("form", TABLES)
def test_tables_of_pictures_in_every_form(tmp_path, form):
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    parquet.write_table(pa.table({"image": TABLES[form], "label": [7, 3]}), tmp_path / "t.parquet")
    source = source_of(images_job(tmp_path / "t.parquet"))
    assert source.targets.to_pylist() == [7, 3]
    red, blue = loaded(source)
    assert red[:, 0, 0].tolist() == pytest.approx([1, -1, -1])
    assert blue[:, 0, 0].tolist() == pytest.approx([-1, -1, 1])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, 2]), "column 'image' holds int64, and neither paths of pictures nor their bytes"),
        (pa.array([[1], [2]]), "holds list<"),
        (pa.array([{"a": 1}, {"a": 2}]), "holds struct<"),
        (pa.array([RED, None]), "no picture in column 'image' of row 2"),
        (
            pa.array([{"bytes": RED, "path": ""}, {"bytes": b"", "path": "x"}], HUB),
            "no picture in column 'image' of row 2",
        ),
        (pa.array([b"GIF87a", RED]), "row 1, column 'image': it "),
        (pa.array(["red.png", "green.png"]), "row 2, column 'image': no such image"),
        (pa.array(["red.png", None]), "no picture in column 'image' of row 2"),
    ],
)
def test_tables_of_something_else_are_refused(tmp_path, column, message):
    (tmp_path / "red.png").write_bytes(RED)
    parquet.write_table(pa.table({"image": column, "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(JobError) as raised:
        source_of(images_job(tmp_path / "t.parquet"))
    assert message in raised.value.message
    assert raised.value.reason == "InvalidData"


def test_bytes_that_break_later_are_named_by_their_row(tmp_path):
    cut = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "PNG")[:3000]
    parquet.write_table(pa.table({"image": pa.array([RED, cut]), "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(JobError, match=r"row 2, column 'image': it cannot be decoded"):
        loaded(source_of(images_job(tmp_path / "t.parquet")))


# Folders


@pytest.mark.parametrize(
    "names",
    [("train", "val"), ("Training", "Validation", "test"), ("train",), ("train_set", "dev"), ("seg_train", "seg_test")],
)
def test_splits_are_no_labels(tmp_path, names):
    for name in names:
        image_folder(tmp_path / name, per_label=1)
    with pytest.raises(JobError) as raised:
        source_of(images_job(tmp_path))
    what = "are splits and no labels" if len(names) > 1 else "is a split and no label"
    assert f"{', '.join(sorted(names))} {what}" in raised.value.message
    for name in names:
        field = "test" if "est" in name else "train" if "rain" in name else "validation"
        assert f"spec.data.{field}.source to file://{tmp_path}/{name}" in raised.value.message


@pytest.mark.parametrize("names", [("fold1", "fold2", "fold10"), ("part_1", "part_2"), ("images", "masks")])
def test_parts_of_the_data_are_no_labels(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    said = "and what belongs to each, as masks" if "masks" in names else "are parts of the data"
    with pytest.raises(
        JobError, match=f"{said}.* and are no labels.*write a table|{said} and no labels: write a table"
    ):
        source_of(images_job(tmp_path))


def test_forms_of_the_same_pictures_are_told_from_labels(tmp_path, caplog):
    for name in ("color", "grey"):
        image_folder(tmp_path / name, per_label=1)
    source_of(images_job(tmp_path))
    assert "color, grey were taken for the labels, and each holds the folders blue, red: if those" in caplog.text


def test_splits_beside_another_folder_are_no_labels(tmp_path):
    for name in ("train", "valid", "unlabeled"):
        image_folder(tmp_path / name, per_label=1)
    with pytest.raises(JobError, match="train, valid are splits and no labels"):
        source_of(images_job(tmp_path))


def test_labels_that_are_called_like_splits_are_labels(tmp_path):
    image_folder(tmp_path, labels=("test", "train"))
    assert sorted(set(source_of(images_job(tmp_path)).targets.to_pylist())) == ["test", "train"]
    (tmp_path / "deeper").mkdir()
    image_folder(tmp_path / "deeper", labels=("train", "plane"))
    assert sorted(set(source_of(images_job(tmp_path / "deeper")).targets.to_pylist())) == ["plane", "train"]


def test_what_is_left_out_is_counted_aloud(tmp_path, caplog):
    image_folder(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "__MACOSX" / "red").mkdir(parents=True)  # as archives that a Mac wrote are unpacked elsewhere
    (tmp_path / "__MACOSX" / "red" / "._0.png").touch()
    (tmp_path / "red" / ".thumbnails").mkdir()
    (tmp_path / "red" / ".thumbnails" / "0.png").write_bytes(RED)
    (tmp_path / "red" / "more").symlink_to("../blue")
    for name in ("red/notes.txt", "red/a.heic", "blue/b.heic", "blue/.DS_Store", "README"):
        (tmp_path / name).write_text("")
    assert len(source_of(images_job(tmp_path)).targets) == 12
    assert (
        "left out: 2 files of .heic, 1 files of .txt, 1 files of no suffix, 3 hidden folders, 1 links to folders"
        in caplog.text
    )
    assert "1 files beside the labels' folders" in caplog.text
