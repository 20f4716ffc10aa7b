"""Configs, splits and label names of a data set, by its card or by the names of its files."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.jobs import make_job
from unfreeze_api.sources.hf import parse
from unfreeze_trainer.data.label_names import with_names
from unfreeze_trainer.data.samples import read_texts
from unfreeze_trainer.data.words import read_words
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.sources.card import _glob, files_of, find_config, names_in_features, splits_by_name
from unfreeze_trainer.sources.pins import Pin
from unfreeze_trainer.sources.selection import data_files
from unfreeze_trainer.sources.splits import with_splits

WHERE = "spec.data.train.source hf://datasets/o/n"
NAMES = [
    *("de/train-0.parquet", "de/train-1.parquet", "de/dev.parquet", "fr/train.csv", "fr/more/deep.csv"),
    *("extra/labels.csv", "README.md"),
]
CARD = """---
license: mit
configs:
- config_name: de
  data_files:
  - split: train
    path: de/train-*
  - split: dev
    path: [de/dev.parquet]
- config_name: fr
  data_files: "fr/**/*.csv"
- config_name: both
  data_dir: de
- config_name: lost
  data_files: {test: lost/*.csv}
dataset_info:
- config_name: de
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names: {'1': good, '0': no, '2': best}
  - name: tags
    sequence: {class_label: {names: {'0': O, '1': B-x}}}
---
# Words
"""


def config(path, card=CARD, names=NAMES):
    return find_config(names, card, path, WHERE)


@pytest.mark.parametrize(
    ("path", "split", "splits"),
    [
        ("de", "", {"train": ["de/train-0.parquet", "de/train-1.parquet"], "dev": ["de/dev.parquet"]}),
        ("de/dev", "dev", {"train": ["de/train-0.parquet", "de/train-1.parquet"], "dev": ["de/dev.parquet"]}),
        ("fr", "", {"train": ["fr/more/deep.csv", "fr/train.csv"]}),
        ("both", "", {"train": ["de/train-0.parquet", "de/train-1.parquet"], "validation": ["de/dev.parquet"]}),
        ("extra", "", {"train": ["extra/labels.csv"]}),
    ],
)
def test_configs_are_those_of_the_card(path, split, splits):
    found, named = config(path)
    assert (named, found.splits) == (split, splits)


def test_what_numbers_stand_for_is_the_cards():
    found, _ = config("de")
    assert found.label_names == {"label": ["no", "good", "best"], "tags": ["O", "B-x"]}
    assert config("fr")[0].label_names == {}
    features = {
        "label": {"names": ["a", "b"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O"], "_type": "ClassLabel"}, "_type": "List"},
        "old": [{"names": ["c"], "_type": "ClassLabel"}],
        "text": {"dtype": "string", "_type": "Value"},
    }
    assert names_in_features(features) == {"label": ["a", "b"], "tags": ["O"], "old": ["c"]}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", r"has 4 configs, de, fr, both, lost: name one, as in hf://datasets/o/n/de"),
        (
            "dee",
            r"dee is neither a file, nor a folder, nor a config; did you mean 'de'\? Its configs are de, fr, both, lost",
        ),
        ("de/test", "the config 'de' has no split 'test'; it has train, dev"),
        (
            "lost",
            r"README\.md says that the split 'test' of the config 'lost' lies in lost/\*\.csv, and no table is called so",
        ),
    ],
)
def test_what_the_card_does_not_have_is_told(path, told):
    with pytest.raises(JobError, match=told):
        config(path)


def test_a_split_is_found_by_what_it_is_for():
    found, _ = config("de")
    assert files_of(found, "", "validation", WHERE) == ["de/dev.parquet"]
    with pytest.raises(JobError, match="has no split 'test'; it has train, dev: name one, as CONFIG/SPLIT"):
        files_of(found, "", "test", WHERE)


@pytest.mark.parametrize(
    "card", ["---\nconfigs: [\n---\n", "---\nconfigs: &a [*a]\n---\n", "---\n- configs\n---\n", "configs: none"]
)
def test_broken_cards(card):
    try:
        found = config("", card)
    except JobError as error:
        assert "YAML of its README.md is broken" in error.message  # noqa: PT017 - not all are errors
    else:
        assert found
        assert found[0].name == "default"


def test_of_several_configs_the_default_is_meant():
    card = "---\nconfigs:\n- {config_name: a, data_files: de/*}\n- {config_name: b, data_files: fr/*, default: True}\n---\n"
    assert config("", card)[0].name == "b"
    assert (
        config("", card.replace("config_name: a", "config_name: default").replace(", default: True", ""))[0].name
        == "default"
    )


@pytest.mark.parametrize(
    ("names", "below", "splits"),
    [
        (
            ["data/odd-00000-of-00002.parquet", "data/odd-00001-of-00002.parquet", "data/train.csv"],
            "",
            {"odd": ["data/odd-00000-of-00002.parquet", "data/odd-00001-of-00002.parquet"]},
        ),
        (["x/train/0.csv", "x/validation/0.csv", "y.csv"], "", {"train": ["x/train/0.csv"], "validation": ["x/validation/0.csv"]}),
        (["my_train.csv", "my-val.csv", "eval.csv", "trainers.csv"], "", {"train": ["my_train.csv"], "validation": ["my-val.csv"], "test": ["eval.csv"]}),
        (["a.csv", "b.csv"], "", {"train": ["a.csv", "b.csv"]}),
        (["train/a.csv", "train/b.csv"], "train", {"train": ["train/a.csv", "train/b.csv"]}),
        (["c/train/0000.parquet", "c/test/0000.parquet"], "c", {"train": ["c/train/0000.parquet"], "test": ["c/test/0000.parquet"]}),
    ],
)  # fmt: skip
def test_without_a_card_names_tell_the_splits(names, below, splits):
    assert splits_by_name(names, below) == splits


@given(
    st.lists(st.sampled_from(["train", "dev", "x", "data", "a-test", "0"]), min_size=1, max_size=3)
    .map("/".join)
    .map("{}.csv".format),
    st.text(),
)
def test_every_file_is_in_one_split_at_most(name, card):
    found = find_config([name, "other.csv"], f"---\nconfigs: {card}\n---\n" if card.isalnum() else card, "", WHERE)
    assert found is not None
    files = [file for split in found[0].splits.values() for file in split]
    assert files
    assert len(files) == len(set(files))


def test_of_a_config_all_splits_are_fetched_with_the_card():
    found = data_files(NAMES, parse("datasets/o/n/de"), WHERE, beside=False, read=lambda _: CARD.encode())
    assert found == ["README.md", "de/dev.parquet", "de/train-0.parquet", "de/train-1.parquet"]
    with pytest.raises(JobError, match="4 configs"):
        data_files(NAMES, parse("datasets/o/n"), WHERE, beside=False, read=lambda _: CARD.encode())


def snapshot(folder: Path, card: str = CARD) -> Path:
    root = folder / "datasets--o--n" / "snapshots" / ("0" * 40)
    (root / "de").mkdir(parents=True)
    info = {"info": {"features": {"label": {"names": ["bad", "good", "best"], "_type": "ClassLabel"}}}}
    for name, texts in (("train-0", ["a", "b"]), ("train-1", ["c"]), ("dev", ["d"])):
        rows = pa.table(
            {
                "text": texts,
                "label": [len(text) for text in texts],
                "tokens": [[text] for text in texts],
                "tags": [[1]] * len(texts),
            }
        )
        rows = rows.replace_schema_metadata({"huggingface": json.dumps(info)})
        parquet.write_table(rows, root / "de" / f"{name}.parquet")
    (root / "README.md").write_text(card)
    return root


def placed(tmp_path, card=CARD, path="/de", **columns):
    root = snapshot(tmp_path, card)
    source = f"hf://datasets/o/n{path}"
    names = {
        file: {"size": 1, "hash": f"git:{'0' * 40}"}
        for file in ("README.md", "de/dev.parquet", "de/train-0.parquet", "de/train-1.parquet")
    }
    job = make_job(
        tmp_path / "m",
        tmp_path,
        data={
            "validation": {"source": source, "fraction": None},
            "train": {"source": source, "columns": columns or None},
        },
    )
    data = job.data
    moved = data.train.model_copy(update={"path": f"{root}{path}"})
    held = data.validation.model_copy(
        update={"dataset": data.validation.dataset.model_copy(update={"path": f"{root}{path}"})}
    )
    job = job.model_copy(update={"data": data.model_copy(update={"train": moved, "validation": held})})
    before = job.fingerprint()
    job = with_splits(job, {source: Pin(revision="0" * 40, files=names)})
    assert job.fingerprint() == before
    return job


def test_one_source_is_read_as_the_split_that_a_field_is_for(tmp_path):
    job = placed(tmp_path)
    train = read_texts(job.data.train, WHERE)
    assert (train.inputs.to_pylist(), train.targets.to_pylist()) == (["a", "b", "c"], ["good"] * 3)
    assert read_texts(job.data.validation.dataset, WHERE).inputs.to_pylist() == ["d"]
    words = read_words(job.data.train.model_copy(update={"label_names": {"tags": ["O", "B-x"]}}), WHERE, spans=False)
    assert words.targets.to_pylist() == [["B-x"]] * 3


def test_names_that_a_file_has_serve_where_the_card_has_none(tmp_path):
    job = placed(tmp_path, card="no YAML")
    assert read_texts(job.data.train, WHERE).targets.to_pylist() == ["good"] * 3


def test_a_number_without_a_name_is_a_missing_label(tmp_path):
    dataset = make_job(tmp_path, tmp_path).data.train.model_copy(update={"label_names": {"label": ["x", "y"]}})
    table = pa.table({"label": [0, -1, None, 1, 2], "n": range(5)})
    assert with_names(table, dataset, ["label", "text"])["label"].to_pylist() == ["x", None, None, "y", None]
    lists = pa.table({"label": pa.array([[9], [0, 1], None, [-1]])}).slice(1)
    assert with_names(lists, dataset, ["label"])["label"].to_pylist() == [["x", "y"], None, [None]]


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        (["1", "0", "-1", "", None], ["y", "x", None, None, None]),
        (["[0, 1]", "[-1]", "[]", None], [["x", "y"], [None], [], None]),
        (["x", "0"], ["x", "0"]),
        (["", None], ["", None]),
    ],
)
def test_numbers_that_stand_there_as_text_have_names_too(tmp_path, cells, named):
    dataset = make_job(tmp_path, tmp_path).data.train.model_copy(update={"label_names": {"label": ["x", "y"]}})
    table = pa.table({"label": pa.chunked_array([cells[:1], cells[1:]], pa.string())})
    assert with_names(table, dataset, ["label"])["label"].to_pylist() == named


def test_names_that_are_numbers_themselves_are_names(tmp_path):
    dataset = make_job(tmp_path, tmp_path).data.train.model_copy(update={"label_names": {"label": ["7", "1"]}})
    assert with_names(pa.table({"label": ["1", "7"]}), dataset, ["label"])["label"].to_pylist() == ["1", "7"]
    for cells in (["0", "1"], ["1", "1"]):  # of a split with all labels, and of one with some
        assert with_names(pa.table({"label": cells}), dataset, ["label"])["label"].to_pylist() == cells


@pytest.mark.parametrize(
    "files",
    [
        "[z-a]",
        "**/a/**/b/**/c",
        "**a*b*",
        "x" * 2000,
        "[[train-*]]",
        "[{split: {a: b}, path: a}]",
        "[{split: train, path: [[a]]}]",
    ],
)
def test_patterns_that_are_not_read_name_the_card(files):
    text = files if files.startswith(("[{", "[[")) else json.dumps(files)
    with pytest.raises(JobError, match=r"its README\.md has a (config|pattern)") as error:
        config("", f"---\nconfigs:\n- {{config_name: a, data_files: {text}}}\n---\n")
    assert (error.value.reason, len(error.value.message) < 600) == ("InvalidData", True)


def test_a_pattern_of_many_stars_is_matched_at_once():
    card = f"---\nconfigs:\n- {{config_name: a, data_files: '{'*a' * 200}z'}}\n---\n"
    with pytest.raises(JobError, match="no table is called so"):
        config("", card, ["a" * 250 + ".csv"])


@given(
    pattern=st.text("ab*?/", min_size=1, max_size=8).filter(lambda text: "**" not in text and text.strip("/") == text),
    name=st.text("ab/", min_size=1, max_size=8).filter(lambda text: "/" not in (text[0], text[-1])),
)
def test_patterns_fit_what_those_of_a_shell_do(pattern, name):
    whole = "/".join(part.replace("*", "[^/]*").replace("?", "[^/]") for part in pattern.split("/"))
    assert bool(_glob(pattern, WHERE).fullmatch(name)) == bool(re.fullmatch(f"{whole}(/.*)?", name))


@pytest.mark.parametrize(
    "names", ["{'0': no, '2': yes}", f"{{? '{'1' * 5000}' : no}}", "{'0': no, '1': [yes]}", "[no, [yes]]"]
)
def test_names_with_gaps_name_nothing(names):
    found, _ = config("de", CARD.replace("{'1': good, '0': no, '2': best}", names))
    assert found.label_names == {"tags": ["O", "B-x"]}


def test_what_aliases_make_endless_has_no_names():
    deep = "".join(f"x{n}: &x{n} {{dtype: *x{n - 1}, list: *x{n - 1}, feature: *x{n - 1}}}\n" for n in range(1, 60))
    card = f"---\nx0: &x0 {{}}\n{deep}dataset_info: {{features: [{{name: class_label, dtype: *x59}}]}}\n---\n"
    assert config("", card)[0].label_names == {}


@pytest.mark.parametrize("kind", ["Numbers", "Labels"])
def test_names_replace_labels_and_no_numbers_to_predict(tmp_path, kind):
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": 1, "value": 1}\n{"text": "b", "label": 0, "value": 0}\n')
    data = {"train": {"source": f"file://{tmp_path}/t.jsonl"}}
    dataset = make_job(tmp_path, tmp_path, data=data).data.train.model_copy(
        update={"label_names": {"label": ["x", "y"], "value": ["x", "y"]}}
    )
    wanted = [1, 0] if kind == "Numbers" else ["y", "x"]
    assert read_texts(dataset, WHERE, kind=encoder(kind)).targets.to_pylist() == wanted
