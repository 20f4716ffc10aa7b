"""What is strange about labels is said by whoever reads them: `unfreeze validate`, `run`, `data` and `init`, and the report."""

import re
from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import csv

from tests.trainer.jobs import make_job
from unfreeze_trainer.commands.look import reader_of
from unfreeze_trainer.data.samples import DataSource, read_splits, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.objectives.targets.doubts import doubts, few_of_each, several_in_one


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("Caf\u00e9", "caf\u00e9 "), "'Caf\u00e9' and 'caf\u00e9 ' differ in blanks or capitals alone"),
        (("a", "A", " a"), r"'a' and 'A' differ in blanks or capitals alone.* \(so it is with 1 more\)$"),
        (("yes", "_background_noise_"), "9 have the label '_background_noise_', which reads like what is kept aside"),
        (("caf\u00e9", "cafe\u0301"), r"'caf\\xe9' and 'cafe\\u0301' differ in how their accents are stored alone"),
        (("entailment", "neutral", "-"), "9 have the label '-', which reads like a missing one"),
    ],
)
def test_labels_that_look_alike_or_aside_or_missing(labels, said):
    (line,) = doubts(dict.fromkeys(labels, 9))
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("0", "7", "0,7"), "the label '0,7' is made of '0' and '7', .*labels to Multi$"),
        (("0", "0|7", "4|7", "4"), r"the label '0\|7' is made of '0' and '7', .* and labelSeparator to '\|'$"),
        (("yes", "yes, but no"), ""),
        (
            ("red", "blue", "red blue"),
            "the label 'red blue' is made of 'red' and 'blue', .* and labelSeparator to ' '$",
        ),
        (("shark", "tiger", "tiger shark", "brown bear"), ""),
        (("cat", "cat ", " cat"), ""),
        (("a;b", "c;d"), ""),
    ],
)
def test_labels_that_are_made_of_others(labels, said):
    found = list(several_in_one(dict.fromkeys(labels, 9)))
    assert [bool(re.search(said, line)) for line in found] == [True] * bool(said)


def test_labels_of_one_sample_each():
    assert list(few_of_each({str(n): 2 for n in range(40)})) == []
    (line,) = few_of_each({str(n): 1 + n // 30 for n in range(40)})
    assert line.startswith("30 of the 40 labels stand at one sample alone")


def test_texts_none_of_which_has_several_labels():
    def said(cells):
        kind = encoder("LabelSets")
        return list(kind(kind.read(pa.chunked_array([cells]), "label", "here"), "here").doubts())

    (line,) = said(["red blue", "blue", ""])
    assert line.startswith(
        "no sample has more than one label: if something else than ',' stands between them, as in 'red blue', set"
    )
    assert said(["red, blue", "blue"]) == said([["red"], ["blue"]]) == []


def test_they_are_said_before_anything_is_trained(tmp_path, caplog):
    def look(labels, text="how far is {}"):
        table = tmp_path / "t.csv"
        table.write_text("text,label\n" + "".join(f"{text.format(n)},{label}\n" for n, label in enumerate(labels)))
        job = make_job(tmp_path, table)
        read_splits(job, reader_of(job), target_kind(job))

    look(["cat", "cat ", "dog", "dog"] * 5)
    assert (
        f"spec.data.train.source file://{tmp_path}/t.csv: the labels 'cat' and 'cat ' differ in blanks" in caplog.text
    )
    assert "texts are 'nan'" not in caplog.text
    look(["cat", "dog"] * 5, text="nan")
    assert "10 texts are 'nan', 'None' or 'null', as programs write a missing one" in caplog.text
    with pytest.raises(JobError, match="leaves none to measure on, as 20 of them alone have their label"):
        look([f"2024-01-{n:02}" for n in range(20)])


def test_pictures_with_several_labels_in_several_rows_are_told(tmp_path, caplog):
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{n // 2}.png,{'ab'[n % 2]}\n" for n in range(40)))
    job = make_job(tmp_path, tmp_path / "t.csv", task={"type": "ImageClassification"})

    def read(dataset, where):
        return replace(read_table_of_paths(dataset), where=where)

    read_splits(job, read, target_kind(job))
    assert "rows share their file with a row of another label" in caplog.text


def read_table_of_paths(dataset):
    table = csv.read_csv(dataset.path)
    return DataSource(dataset, "", table["image"], table["label"], files=True)
