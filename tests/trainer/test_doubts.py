"""What is strange about labels is said by whoever reads them: `unfreeze validate`, `run`, `data` and `init`, and the report."""

import json
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


def test_labels_that_stand_with_another_sign_between_them_than_elsewhere():
    (line,) = several_in_one(dict.fromkeys(("red", "blue", "red;blue"), 9), ",")
    assert line.endswith("is learned as one more: if it stands for several, write ',' between them, as elsewhere")
    kind = encoder("LabelSets")
    read = kind.read(pa.chunked_array([["red,blue", "red;blue", "blue"]]), "label", "here")
    assert "the label 'red;blue' is made of" in " ".join(kind(read, "here").doubts())


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


COMPLETIONS = {"type": "CausalLM", "causalLm": {"annotation": "Completions"}}


@pytest.mark.parametrize(
    ("task", "columns", "cell", "said"),
    [
        ("TextEmbedding", {}, lambda n: n % 2, r"column 'COLUMN' \(0, 1\) is not read, and each row is learned as a pair that belongs together.*annotation Scores and columns.score"),
        ("TextEmbedding", {}, lambda n: n % 3, r"column 'COLUMN' \(0, 1, 2\) is not read.*conversions\.md\)$"),
        ("TextEmbedding", {}, lambda n: "ab"[n % 2], ""),
        ("TextEmbedding", {}, lambda n: 1, ""),  # noqa: ARG005
        ("TextEmbedding", {"positive": "COLUMN"}, lambda n: n % 2, ""),
        (COMPLETIONS, {}, lambda n: str(n % 2 > 0), r"column 'COLUMN' \(false, true\) is not read, and each row is learned as an answer that is wanted"),
        (COMPLETIONS, {}, lambda n: n % 3, ""),
        ("TextClassification", {"label": "kind"}, lambda n: n % 2, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["label", "is_duplicate"])
def test_columns_that_say_no_of_rows_and_are_not_read(tmp_path, caplog, task, columns, cell, said, column):  # noqa: PLR0917
    table = tmp_path / "t.csv"
    rows = "".join(f"a{n},b{n},c{n},d{n},e{n},{'xy'[n % 2]},{cell(n)}\n" for n in range(40))
    table.write_text(f"anchor,positive,prompt,completion,text,kind,{column}\n{rows}")
    renamed = {field: column if name == "COLUMN" else name for field, name in columns.items()}
    task = {"type": task} if isinstance(task, str) else task
    job = make_job(tmp_path, table, task=task, data={"train": {"source": f"file://{table}", "columns": renamed}})
    read_splits(job, reader_of(job), target_kind(job))
    told = [record.message for record in caplog.records]
    assert [bool(re.search(said.replace("COLUMN", column), line)) for line in told] == [True] * bool(said)


def test_rows_that_prodigy_has_rejected(tmp_path, caplog):
    def look(answers, **columns):
        table = tmp_path / "t.jsonl"
        rows = ({"text": f"t{n}", "label": "ab"[n % 2], "answer": one} for n, one in enumerate(answers))
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = make_job(tmp_path, table, data={"train": {"source": f"file://{table}", "columns": columns}})
        caplog.clear()
        read_splits(job, reader_of(job), target_kind(job))
        return caplog.text

    assert "column 'answer' says ignore or reject of rows 2, 3," in look(["accept", "reject", "ignore", "accept"] * 5)
    assert not look(["accept"] * 20) + look(["reject", "accepted"] * 10)
    assert not look(["accept", "reject"] * 10, label="answer")


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
