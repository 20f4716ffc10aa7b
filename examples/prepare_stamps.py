"""Brings pictures with their captions, written and spoken, for the examples of Alignment into a folder, without a model hub.

    python examples/prepare_stamps.py FOLDER

writes
- FOLDER/models/minilm (all-MiniLM-L6-v2, MIT) and FOLDER/models/efficientnet-lite0 (Apache-2.0, as a timm folder);
- FOLDER/data/stamps/{train,validation,test}.jsonl and FOLDER/data/stamps/pictures: the drawings and photographs that children
  stamp with in Tux Paint (GPL-2), each with its English caption. They come in Debian's package tuxpaint-stamps-default (161 MB,
  fetched once by apt-get); those that are drawn in SVG become pixels by resvg-py (MPL-2.0, 1.4 MB, fetched by pip);
- FOLDER/models/mobilenet-v2 (ImageNet, a transformers folder) and FOLDER/models/whisper-tiny-en (MIT), each from its package;
- FOLDER/data/stamps/spoken-{train,validation,test}.jsonl and FOLDER/data/stamps/clips: the same pictures, with captions that
  people read aloud in eleven languages. In the first no row has a text and a clip: a picture stands in one row with its English
  caption, and in others with one clip each. In the others each row has all three.

What is held out is a caption with all of its pictures: no picture and no caption of one file stands in another. Pictures that are the
same byte by byte count as one, and captions that differ in blanks, case or the stop at the end. Each caption of
`validation` and `test` stands there once, with one picture. A language is a speaker: those that are heard in one file are in no other one, so what is heard in `test` is a language that was never heard before.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.prepare import prepare, prepare_images
from examples.prepare_audio import STAMPS, STAMPS_FILE, STAMPS_SHA256, fetched, prepare_encoder
from examples.prepare_mobilenet import write_mobilenet

HELD_OUT = {"test": 100, "validation": 77}
"""Captions of each file that is measured on."""
SEED = 0
RENDERER = "resvg-py==0.5.0"
SIZE = 256
"""Pixels that a drawing in SVG is wide."""
SPEAKERS = {"test": ("es", "be"), "validation": ("da",)}
"""Languages that are heard in each file that is measured on, and in no other."""
LEFT_OUT = "symbols"
"""A folder of letters and digits."""


def main() -> None:
    """Write models and data below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_stamps.py FOLDER")
    prepare_all(Path(sys.argv[1]))


def prepare_all(folder: Path) -> None:
    """Write all models and data below a folder; what is there already is kept."""
    prepare(folder)
    prepare_images(folder)
    write_mobilenet(folder / "models" / "mobilenet-v2")
    prepare_encoder(folder)
    prepare_stamps(folder)
    prepare_spoken(folder)


@contextmanager
def unpacked() -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder with the package in it, and the folder of its stamps."""
    with tempfile.TemporaryDirectory() as scratch:
        package = fetched(STAMPS_FILE, ["apt-get", "download", STAMPS], STAMPS_SHA256)
        subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        yield Path(scratch), Path(scratch, "usr", "share", "tuxpaint", "stamps")


def prepare_stamps(folder: Path) -> None:
    """Write FOLDER/data/stamps; what is there already is kept."""
    place = folder / "data" / "stamps"
    if (place / "train.jsonl").exists():
        return
    with unpacked() as (scratch, root):
        stamps = dict(captioned(root))
        rendered = _renderer(scratch / "renderer")
        (place / "pictures").mkdir(parents=True, exist_ok=True)
        contents = {}
        for name in [*stamps]:
            content = (root / name).read_bytes()
            contents[name] = hashlib.sha256(content).hexdigest()
            if picture := rendered(content) if name.endswith(".svg") else content:
                (place / "pictures" / flat(name)).write_bytes(picture)
            else:
                del stamps[name]
    for split, rows in divided(stamps, contents).items():
        lines = [json.dumps({"image": f"pictures/{flat(name)}", "text": stamps[name]}) for name in rows]
        aside = place / f"{split}.part"
        aside.write_text("\n".join(lines) + "\n")
        aside.rename(place / f"{split}.jsonl")


def prepare_spoken(folder: Path) -> None:
    """Write FOLDER/data/stamps/spoken-*.jsonl, of the split that its other files have; what is there already is kept."""
    place = folder / "data" / "stamps"
    if (place / "spoken-train.jsonl").exists():
        return
    with unpacked() as (_, root):
        stamps = dict(captioned(root))
        names = {f"pictures/{flat(name)}": name for name in stamps}
        clips = {name: spoken(root, name) for name in stamps}
        (place / "clips").mkdir(parents=True, exist_ok=True)
        for split in (*HELD_OUT, "train"):
            lines = (place / f"{split}.jsonl").read_text().splitlines()
            rows = [names[json.loads(line)["image"]] for line in lines]
            found = spoken_rows(split, rows, stamps, {name: [*clips[name]] for name in rows})
            for row in found:
                if "audio" in row:
                    name, language = row["audio"]
                    row["audio"] = f"clips/{flat(name).removesuffix('.png')}-{language}.ogg"
                    (place / row["audio"]).write_bytes(clips[name][language].read_bytes())
                row["image"] = f"pictures/{flat(row['image'])}"
            aside = place / f"spoken-{split}.part"
            nothing = dict.fromkeys(("image", "text", "audio"))
            aside.write_text("".join(f"{json.dumps(nothing | row)}\n" for row in found))
            aside.rename(place / f"spoken-{split}.jsonl")


def spoken(root: Path, name: str) -> dict[str, Path]:
    """Return the clips that say a picture's caption, by language."""
    before = str(root / name.rpartition(".")[0]) + "_desc"
    files = sorted(Path(before).parent.glob(f"{glob.escape(Path(before).name)}*.ogg"))
    languages = (str(file).removeprefix(before).removesuffix(".ogg") for file in files)
    found = {one.removeprefix("_") or "en": file for one, file in zip(languages, files, strict=True)}
    return {language: file for language, file in found.items() if "." not in language}


def spoken_rows(
    split: str, names: Sequence[str], stamps: Mapping[str, str], languages: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return the rows of one file: pictures, texts, and clips as pairs of picture and language.

    Parameters
    ----------
    split
        Which file.
    names
        Pictures of the split.
    stamps, languages
        Caption of each picture, and in which languages there is a clip of it.
    """
    others = {one for part in SPEAKERS.values() for one in part}
    heard = {
        name: [one for one in languages[name] if (one in SPEAKERS[split] if split in SPEAKERS else one not in others)]
        for name in names
    }
    if split in SPEAKERS:
        return [{"image": name, "text": stamps[name], "audio": (name, one)} for name in names for one in heard[name]]
    written = [{"image": name, "text": stamps[name]} for name in names]
    return [*written, *({"image": name, "audio": (name, one)} for name in names for one in heard[name])]


def _renderer(folder: Path) -> Callable[[bytes], bytes | None]:
    """Return what makes a PNG of an SVG, both as bytes, or None of one without a size; the package is put into a folder for this alone."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
        str(folder),
    ]
    subprocess.run([*pip, RENDERER], check=True)
    sys.path.insert(0, str(folder))
    resvg_py = importlib.import_module("resvg_py")

    def rendered(content: bytes) -> bytes | None:
        try:
            return bytes(resvg_py.svg_to_bytes(svg_string=content.decode("utf-8", errors="replace"), width=SIZE))
        except ValueError:
            return None

    return rendered


def captioned(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each picture below a folder, by its path there, with its English caption."""
    for file in sorted([*root.rglob("*.png"), *root.rglob("*.svg")]):
        name, text = str(file.relative_to(root)), file.with_suffix(".txt")
        if name.startswith(LEFT_OUT) or not text.exists():
            continue
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines and lines[0].strip():
            yield name, lines[0].strip()


def divided(stamps: Mapping[str, str], contents: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the pictures of each file, by name.

    Parameters
    ----------
    stamps
        Caption of each picture.
    contents
        A hash of each picture.
    """
    groups = _connected(stamps, contents)
    random.Random(SEED).shuffle(groups)  # noqa: S311 - a split, not a secret
    found: dict[str, list[str]] = {}
    for split, captions in HELD_OUT.items():
        found[split] = []
        while len(found[split]) < captions:
            first = {key(stamps[name]): name for name in sorted(groups.pop(), reverse=True)}
            found[split] += sorted(first.values())[: captions - len(found[split])]
    return {"train": sorted(name for group in groups for name in group), **found}


def _connected(stamps: Mapping[str, str], contents: Mapping[str, str]) -> list[list[str]]:
    """Return groups of pictures such that no two groups have a picture or a caption in common."""
    group_of: dict[str, int] = {}
    members: dict[int, list[str]] = {}
    for number, (name, caption) in enumerate(stamps.items()):
        keys = (f"caption {key(caption)}", f"content {contents[name]}")
        joined = sorted({group_of[key] for key in keys if key in group_of})
        members[number] = [name, *(other for group in joined for other in members.pop(group))]
        for other in members[number]:
            group_of[f"caption {key(stamps[other])}"] = group_of[f"content {contents[other]}"] = number
    return [sorted(group) for group in members.values()]


def key(caption: str) -> str:
    """Return what a caption has in common with those that say the same."""
    return " ".join(caption.casefold().split()).rstrip(" .!")


def flat(name: str) -> str:
    """Return what a picture is called below FOLDER/data/stamps/pictures."""
    return f"{name.rpartition('.')[0].replace('/', '-')}.png"


if __name__ == "__main__":
    main()
