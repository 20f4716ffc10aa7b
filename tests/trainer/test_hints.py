"""Data in forms that are usual elsewhere: `unfreeze init` and `unfreeze data` say what to do about each, and guess nothing wrong."""

import re

import pytest

from tests.trainer.test_init import TEXTS, WORDS, ask, guessed, write
from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.commands.facts import facts_of
from unfreeze_trainer.commands.layout import find_layout
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.images import read_images
from unfreeze_trainer.data.unlabelled import Unlabelled
from unfreeze_trainer.errors import JobError

JOB = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: lists}
spec:
  model: {source: model}
  task: {type: TextClassification}
  data: {train: {source: t.csv}, validation: {fraction: 0.2}}
  strategy: {type: FullFineTuning}
  training: {epochs: 1, batchSize: 6}
  output: {destination: run}
"""
SHARED = [[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]] * 60


@pytest.mark.parametrize(
    ("name", "columns", "said"),
    [
        ("t.jsonl", {"conversations": SHARED}, r"'conversations' holds messages in the form of ShareGPT.*'value' as content"),
        ("t.json", {"instruction": TEXTS, "input": lambda n: "x" * (n % 2), "output": lambda n: f"another text is this {n}"}, "column 'input' holds what belongs into the prompt.*--column prompt=instruction"),
        ("t.csv", {"text": TEXTS, **{name: lambda n: n % 2 for name in ("toxic", "threat", "insult")}}, r"columns 'toxic', 'threat', 'insult' hold yes or no alone.*docs/conversions\.md"),
        ("t.csv", {"Word": lambda n: f"w{n}", "Tag": lambda n: ("O", "B-X")[n % 2]}, "'Tag' holds a tag of one word in each row"),
        ("t.csv", {"sentence": TEXTS, "word_labels": ["O B-X I-X O O O O O"] * 60}, "'word_labels' holds tags with blanks between"),
        ("t.jsonl", {"file_name": lambda n: f"{n}.png", "text": TEXTS}, "--task Captioning, --task ImageText or --task Alignment, with --column text=text"),
        ("t.csv", {"en": TEXTS, "fr it": lambda n: f"le texte est {n}"}, "--task Seq2SeqLM --column source=en --column target='fr it'"),
        ("t.csv", {"quote": TEXTS}, "--task CausalLM --column text=quote"),
        ("t.jsonl", {"text": TEXTS, "label": [[[0, 4, "x"]]] * 60}, r"spans as \[start, end, label\]: TokenClassification reads"),
        ("t.jsonl", {"tokens": [WORDS] * 60, "ner_tags": [[0, 1, 0]] * 60}, "'ner_tags' holds tags as numbers: write their names"),
        ("t.jsonl", {"data": [{"text": text} for text in TEXTS], "id": int}, "Column 'data' holds objects"),
        ("t.jsonl", {"prompt": TEXTS, "chosen": lambda n: f"it is {n} of them", "rejected": lambda n: f"it is no {n}"}, "--column prompt=prompt --column completion=chosen"),
        ("t.csv", {"text": TEXTS, "price": lambda n: f"{n / 7:.2f}".replace(".", ",")}, "'price' holds numbers with a decimal comma"),
        ("t.csv", {"text": TEXTS, "price": lambda n: f"{n * 999 / 7:,.2f}"}, "'price' holds numbers with commas between thousands"),
        ("t.csv", {"audio": lambda n: f"clips/{n}.M4A", "text": TEXTS}, r"'audio' names clips of a format that is not read \(.m4a\)"),
        ("t.csv", {TEXTS[0]: TEXTS, "good": lambda n: ("good", "bad")[n % 2]}, "most likely the file has no header"),
    ],
)  # fmt: skip
def test_each_form_is_named_with_what_to_do(tmp_path, name, columns, said):
    path = tmp_path / name
    write(path.with_suffix(".jsonl") if path.suffix == ".json" else path, **columns)
    if path.suffix == ".json":
        path.with_suffix(".jsonl").rename(path)
    with pytest.raises(JobError, match=said):
        guessed(path)


def test_transcripts_beside_clips_are_no_folder_of_labels(tmp_path):
    for speaker in ("84", "174"):
        chapter = tmp_path / speaker / "121"
        chapter.mkdir(parents=True)
        (chapter / f"{speaker}-121-0000.flac").touch()
        (chapter / f"{speaker}-121.trans.txt").write_text(f"{speaker}-121-0000 GO\n")
    said = ask("data", tmp_path).output
    assert re.search(
        r"stands in files like \d+/121/\d+-121.trans.txt, as in LibriSpeech, which are not read: write a table", said
    )


def test_a_table_in_a_folder_beside_clips_is_named(tmp_path):
    for name in ("audio/1.wav", "meta/esc50.csv", "meta/about.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for path, said in (
        (tmp_path, "its folder 'meta' holds a table, and is no label: name meta/esc50.csv"),
        (tmp_path / "meta/about.txt", "docs/conversions.md"),
    ):
        assert said in ask("data", path).output


def test_a_translation_whose_columns_are_called_by_languages_is_said_how_to_name(tmp_path):
    path = write(tmp_path / "t.csv", en=TEXTS, fr=lambda n: f"le texte est {n}")
    with pytest.raises(JobError, match=r"no column is called 'source'.*--column source=en --column target=fr"):
        guessed(path, task="Seq2SeqLM")


def test_folds_and_lists_of_splits_are_not_read_unsaid(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, fold=lambda n: n % 5 + 1, label=lambda n: "ab"[n % 2])
    assert "column 'fold' says which fold a row is of (1, 2, 3, 4, 5)" in ask("data", path).output
    for name in ("yes/1.wav", "no/1.wav", "validation_list.txt", "words.txt"):
        (tmp_path / "speech" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "speech" / name).touch()
    assert find_layout(tmp_path / "speech").said[0].startswith("validation_list.txt beside the folders")


def test_an_instruction_alone_is_never_the_text_and_what_is_left_out_is_said(tmp_path):
    path = write(tmp_path / "t.jsonl", instruction=TEXTS, context=TEXTS, response=lambda n: f"another text is {n}")
    with pytest.raises(JobError, match="column 'context' holds what belongs into the prompt"):
        guessed(path, task="CausalLM")
    told = guessed(path, given={"prompt": "instruction", "completion": "response"})
    assert told.said == ["column 'context' holds what belongs into the prompt, behind the instruction, and is not read"]


def test_of_several_numbers_one_is_taken_and_the_others_are_named(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, syntax=lambda n: n / 7, grammar=lambda n: n / 9)
    assert guessed(path).said == [
        "column 'grammar' was taken for what is predicted; 'syntax' could be it too: set columns.value"
    ]


@pytest.mark.parametrize(("labels", "said"), [((0, 1, 2, -1), True), ((-1, 0, 1), False), ((-2, -1, 1, 2), False)])
def test_a_label_of_minus_one_beside_classes_reads_like_a_missing_one(tmp_path, labels, said):
    path = write(tmp_path / "t.csv", text=TEXTS, label=lambda n: labels[n % len(labels)])
    assert ("have the label '-1', which reads like a missing one" in ask("data", path).output) == said


def test_a_column_that_is_called_by_a_label_is_taken_where_it_is_named(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, spam=lambda n: ("spam", "ham")[n % 2])
    assert guessed(path, given={"label": "spam"}).columns["label"] == "spam"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": TEXTS, "": lambda n: "ab"[n % 2]}, "a column without a name was taken for columns.label"),
        ({"t" * 300: TEXTS, "label": lambda n: "ab"[n % 2]}, "a column with a name of 300 characters was taken for columns.text"),
    ],
)  # fmt: skip
def test_columns_that_no_job_can_name_are_refused(tmp_path, columns, said):
    path = write(tmp_path / "t.csv", **columns)
    for command in ("init", "data"):
        found = ask(command, path, *["--output", tmp_path / "job.yaml"] * (command == "init"))
        assert found.exit_code == 2
        assert said in found.output


def test_names_that_pandas_gives_are_a_header(tmp_path):
    path = write(tmp_path / "t.csv", **{"0": TEXTS, "1": lambda n: n % 2})
    assert guessed(path).columns == {"text": "0", "label": "1"}


def test_lists_as_python_writes_them_are_no_label(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, labels=lambda n: str(WORDS[: n % 3]))
    assert facts_of(read_cells(str(path), ""))["labels"].lists[:3] == [[], ["one"], ["one", "two"]]
    assert guessed(path).options == {"labels": "Multi"}
    said = ask("init", path, "--output", tmp_path / "job.yaml")
    assert "holds a list that is written out" in said.output


def test_a_list_that_is_one_label_is_warned_of(tmp_path):
    write(tmp_path / "t.csv", text=TEXTS, label=lambda n: str([WORDS[n % 3]]))
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    assert "is a list that is written out, and is learned as one name" in ask("data", job).output


def test_a_quote_that_swallows_the_labels_is_named(tmp_path):
    rows = [f"{text}\t{'abc'[n % 3]}\n" for n, text in enumerate(TEXTS)]
    (tmp_path / "t.tsv").write_text("".join(["text\tlabel\n", *rows[:5], '"', *rows[5:]]))
    for command in ("init", "data"):
        found = ask(command, tmp_path / "t.tsv", *["--output", tmp_path / "job.yaml"] * (command == "init"))
        assert "row 6, on line 7, has a quote that is not closed" in found.output


def test_numbers_of_sentences_are_no_text(tmp_path):
    path = write(
        tmp_path / "t.csv", sentence_id=lambda n: n // 2, word=lambda n: WORDS[n % 3], tag=lambda n: "xy"[n % 2]
    )
    assert guessed(path).columns == {"text": "word", "label": "tag"}


@pytest.mark.parametrize("there", [0, 1])
def test_a_table_none_of_whose_pictures_is_there_is_refused_although_some_may_be_gone(tmp_path, there):
    for row in range(there):
        (tmp_path / f"x\\{row}.png").touch()
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"x\\{row}.png,{row % 2}\n" for row in range(6)))
    dataset = Dataset(source="t.csv", path=str(tmp_path / "t.csv"), columns=Columns())
    if there:
        assert len(read_images(dataset, "t.csv", skip=True).inputs) == 6
        return
    with pytest.raises(
        JobError,
        match=r"none of the 6 images .* is there.*x\\0.png; paths are relative to the table and have / between",
    ):
        read_images(dataset, "t.csv", skip=True)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "https://pictures.example/x.png",
            r"https://pictures\.example/x\.png is an address, .*: fetch them, and write",
        ),
        ("iVBOR" + "A" * 5000, r"the cell has 5,005 characters, iVBORA{195} \.\.\.; it takes a path"),
    ],
)
def test_a_cell_that_is_no_path_is_told(tmp_path, cell, said):
    (tmp_path / "t.csv").write_text(f"image,label\n{cell},a\n{cell},b\n")
    dataset = Dataset(source="t.csv", path=str(tmp_path / "t.csv"), columns=Columns())
    with pytest.raises(JobError, match=rf"row 1, column 'image': .*{said}"):
        read_images(dataset, "t.csv")


def test_paths_to_one_picture_are_one(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("image,label\n./a.png,a\na.png,b\nx/..//b.png,a\n.//b.png,b\n")
    (tmp_path / "x").mkdir()
    dataset = Dataset(source="t.csv", path=str(tmp_path / "t.csv"), columns=Columns())
    found = read_images(dataset, "t.csv", checked=0).inputs.to_pylist()
    assert found == [f"{tmp_path}/{name}" for name in ("a.png", "a.png", "x/../b.png", "b.png")]


def test_the_one_folder_around_those_of_the_labels_is_told(tmp_path):
    """As archives are unpacked; asked without labels its pictures are read."""
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        (tmp_path / "pets" / label / "1.png").touch()
    dataset = Dataset(source="pets", path=str(tmp_path), columns=Columns())
    with pytest.raises(
        JobError, match="in it lie cat, dog: name pvc://data/pets as the source, if these are the labels"
    ):
        read_images(dataset, "spec.data.train.source pvc://data")
    assert len(read_images(dataset, "x", checked=0, kind=Unlabelled).inputs) == 2
    (tmp_path / "pets" / "2.png").touch()
    assert len(read_images(dataset, "x", checked=0).inputs) == 3


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["1.HEIC", "2.jfif"],
            r"\.webp, and what lies there in \.heic, \.jfif: convert it, add some, or remove the folder",
        ),
        ([".hidden/1.png"], r"\.webp\. Add some, or remove the folder"),
    ],
)
def test_a_label_without_pictures_is_told_what_lies_there(tmp_path, names, said):
    for name in ("a/1.png", *(f"b/{name}" for name in names)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    dataset = Dataset(source="pets", path=str(tmp_path), columns=Columns())
    with pytest.raises(JobError, match=f"no images in the label's folder b; they end in .*{said}"):
        read_images(dataset, "x", checked=0)
