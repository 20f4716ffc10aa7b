"""Data in forms that are usual elsewhere: `unfreeze init` and `unfreeze data` say what to do about each, and guess nothing wrong."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.trainer.test_init import TEXTS, WORDS, ask, guessed, write
from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.commands.draft import draft
from unfreeze_trainer.commands.facts import facts_of
from unfreeze_trainer.commands.layout import find_layout
from unfreeze_trainer.data.audio import read_audio
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
        ("t.csv", {"text": TEXTS, "price": lambda n: f"${n}.50"}, "'price' holds numbers with signs of percent or money"),
        ("t.csv", {"audio": lambda n: f"clips/{n}.M4A", "text": TEXTS}, r"'audio' names clips of a format that is not read \(.m4a\)"),
        ("t.csv", {TEXTS[0]: TEXTS, "good": lambda n: ("good", "bad")[n % 2]}, "most likely the file has no header"),
        ("t.csv", {TEXTS[0]: TEXTS, "un autre texte que le premier": lambda n: f"le texte est {n}"}, "what. The first line reads like a row: if the file has no header"),
        ("t.jsonl", {"query": TEXTS, "pos": lambda n: [f"what belongs there is {n}"], "neg": lambda n: [f"what does not is {n}"]}, "'pos' and 'neg' hold texts that belong to another"),
        ("t.jsonl", {"text": TEXTS, "entities": [[{"label": "X", "start_offset": 0, "end_offset": 4}]] * 60, "Comments": [[]] * 60}, "'entities' holds spans as doccano writes them"),
        ("t.jsonl", {"text": TEXTS, "labels": [["O", "B-X", "O"]] * 60}, "'labels' holds a tag for each word"),
        ("t.jsonl", {"text": TEXTS, "entities": [[{"start": 0, "end": 4, "type": "X"}]] * 60}, "spans whose label is called type"),
        ("t.jsonl", {"text": TEXTS, "label": [[{"start": 0, "end": 4, "labels": ["X"]}]] * 60}, "'label' holds spans as Label Studio writes them"),
        ("t.csv", {"emotion": lambda n: n % 3, "pixels": lambda n: " ".join(map(str, range(n, n + 64)))}, "column 'pixels' holds pixels as numbers"),
        ("t.csv", {"label": lambda n: n % 3, **{f"pixel{n}": int for n in range(64)}}, "columns label, pixel0, pixel1 and 62 more hold pixels as numbers"),
        ("t.csv", {"image": lambda n: f"{n}.jpg", **{name: lambda n: 2 * (n % 2) - 1 for name in ("bald", "hat", "young")}}, "columns 'bald', 'hat', 'young' hold yes or no alone"),
        ("t.jsonl", {"question": TEXTS, "choices": [WORDS] * 60, "answer": lambda n: n % 3}, "columns 'choices' hold answers to choose from"),
        ("t.csv", {"question": TEXTS, **{letter: lambda n: f"number {n}" for letter in "ABCD"}, "answer": lambda n: "ABCD"[n % 4]}, "columns 'A', 'B', 'C', 'D' hold answers"),
        ("t.jsonl", {"message_id": lambda n: f"m{n}", "text": TEXTS, "role": lambda n: ("prompter", "assistant")[n % 2]}, "'role' says who speaks, and each row is one message"),
        ("t.jsonl", {"question": TEXTS, "answer": lambda n: [f"it {n}", f"so {n}"]}, "'answer' holds several texts in a row: write a row for each"),
        ("t.csv", {"text": TEXTS, "genres": lambda n: str([{"id": n, "name": "x"}])}, "'genres' holds objects with a name each: write lists of the names"),
        ("t.jsonl", {"summary": TEXTS, "dialogue": lambda n: f"A: is it {n}?"}, "--column source=dialogue --column target=summary"),
        ("t.csv", {"Title": TEXTS, "Tags": lambda n: f"<{WORDS[n % 3]}><t{n}>"}, "'Tags' holds labels in angle brackets"),
        ("t.csv", {"question": TEXTS, "answer": lambda n: f"le texte est {n}"}, "--task CausalLM --column prompt=question --column completion=answer"),
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
    for name in (
        "mls/train/transcripts.txt",
        "mls/train/audio/1.flac",
        "timit/DR1/SA1.WAV",
        "timit/DR1/SA1.TXT",
        "timit/DR2/1.WAV",
    ):
        (tmp_path / "more" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "more" / name).touch()
    for name, file in (("mls", "train/transcripts.txt"), ("timit", "DR1/SA1.TXT")):
        assert f"stands in files like {file}, as in" in ask("data", tmp_path / "more" / name).output
    shutil.rmtree(tmp_path / "more")
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


def test_questions_are_prompts_where_answers_are_asked_for(tmp_path):
    path = write(tmp_path / "t.jsonl", question=TEXTS, answer=lambda n: f"it is {n}")
    assert guessed(path, task="CausalLM").columns == {"prompt": "question", "completion": "answer"}


def test_folders_of_speakers_and_of_texts_beside_clips_are_told(tmp_path, caplog):
    def make(*names):
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def read(folder):
        return read_audio(Dataset(source="clips", path=str(folder), columns=Columns()), "here", checked=0)

    assert len(read(make("Actor_01/03-01-05.wav", "Actor_02/03-01-06.wav")).inputs) == 2
    assert "here: the labels Actor_01, Actor_02 are called like speakers, so who speaks is learned" in caplog.text
    with pytest.raises(JobError, match=r"txt, wav48 hold clips and what belongs to each, as masks, boxes and texts"):
        read(make("wav48/p225/p225_001.wav", "txt/p225/p225_001.txt"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "reviews_5.json.gz").touch()
    with pytest.raises(JobError, match=r"reviews_5\.json\.gz: JSON that is called neither like a split nor"):
        find_layout(tmp_path / "x")
    with pytest.raises(JobError, match="in its only folder 'AudioWAV' 2 audio files lie side by side"):
        find_layout(make("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_SAD_XX.wav"))


@pytest.mark.parametrize("name", ["ids/7", "../clips/fold1/7"])
def test_names_without_folder_and_suffix_are_told_where_the_files_lie(tmp_path, name):
    table = tmp_path / "meta" / "t.csv"
    for n in range(60):
        file = Path(os.path.normpath(table.parent / name.replace("7", f"{n}.wav")))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    table.parent.mkdir(exist_ok=True)
    write(table, fname=int, category=lambda n: "ab"[n % 2])
    assert draft(table, task=None, columns={}).guess.columns == {"audio": "fname", "label": "category"}
    dataset = Dataset(source="t.csv", path=str(table), columns=Columns(audio="fname", label="category"))
    written = (
        rf"a table's files lie below its folder, so write a table into {tmp_path}, with clips/fold1/0\.wav"
        if name[0] == "."
        else "write the paths so"
    )
    with pytest.raises(JobError, match=rf"{name.replace('7', '0')}\.wav is there: {written}"):
        read_audio(dataset, "t.csv")


def test_classes_and_numbers_that_are_called_like_files_by_chance_name_none(tmp_path):
    for folder in ("other", "meta/im"):
        (tmp_path / folder).mkdir(parents=True)
        for n in range(60):
            (tmp_path / folder / f"{n}.png").touch()
    path = write(tmp_path / "meta" / "t.csv", text=TEXTS, kind=lambda n: n % 7)
    assert draft(path, task=None, columns={}).guess.columns == {"text": "text", "label": "kind"}
    shutil.rmtree(tmp_path / "meta" / "im")
    path = write(tmp_path / "meta" / "t.csv", text=TEXTS, number=int, label=lambda n: "ab"[n % 2])
    assert draft(path, task=None, columns={}).guess.columns == {"text": "text", "label": "label"}


@pytest.mark.parametrize("cell", ["1 \u00e9.jpg", " 1 \u00e9.JPG ", "1 e\u0301.JPG", "1%20%C3%A9.JPG", "1 \u00e9"])
def test_names_that_are_written_otherwise_are_told_as_they_are(tmp_path, cell):
    (tmp_path / "im").mkdir()
    (tmp_path / "im" / "1 \u00e9.JPG").touch()
    for name in (cell, f"im\\{cell.strip()}"):
        (tmp_path / "t.csv").write_text(f"image,label\n{name},a\n{name},b\n")
        dataset = Dataset(source="t.csv", path=str(tmp_path / "t.csv"), columns=Columns())
        with pytest.raises(JobError, match=re.escape("im/1 \u00e9.JPG is there: write the paths so")):
            read_images(dataset, "t.csv")


def test_what_says_which_part_a_row_is_of_is_not_read(tmp_path):
    path = write(tmp_path / "t.csv", file=lambda n: f"{n}.wav", start=int, end=int, label=lambda n: "ab"[n % 2])
    assert "columns 'start', 'end' say which part of the clip a row is of, and are not read" in guessed(path).said[0]


def test_texts_that_are_compared_are_asked_for(tmp_path):
    path = write(tmp_path / "t.csv", sent0=TEXTS, sent1=lambda n: f"le texte est {n}")
    with pytest.raises(JobError, match=r"no column is called 'anchor'.*--column anchor=NAME --column positive=NAME"):
        guessed(path, task="TextEmbedding")
    path = write(tmp_path / "t.csv", anchor=TEXTS, positive=TEXTS, negative_1=TEXTS)
    assert guessed(path).said[0].startswith("column 'negative_1' is not read")


def test_pictures_without_folders_of_labels_are_told(tmp_path):
    (tmp_path / "cat.1.png").touch()
    for read in (find_layout, lambda path: read_images(Dataset(source="x", path=str(path), columns=Columns()), "x")):
        with pytest.raises(JobError, match="1 images lie side by side, and no folder says their labels"):
            read(tmp_path)


def test_pictures_without_labels_are_no_held_out_data(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/2.png", "test/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_layout(tmp_path)
    assert (found.validation, found.test) == (tmp_path / "val", None)
    assert f"{tmp_path}/test has no folders of labels, and is not taken as test data" in found.said


def test_a_table_that_lacks_the_labels_is_no_held_out_data(tmp_path):
    write(tmp_path / "train.csv", text=TEXTS, target=lambda n: n % 2)
    write(tmp_path / "test.csv", text=TEXTS)
    found = draft(tmp_path / "train.csv", task=None, columns={})
    assert (found.layout.test, found.layout.said) == (
        None,
        [f"{tmp_path}/test.csv lacks the column 'target', and is not taken as test data"],
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("SMSSpamCollection", "ham\thow far\nspam\tcall now\n", "not nothing; it looks like .tsv: rename it so"),
        ("captions.txt", "image,caption\n1.jpg,A dog , which runs .\n", "it looks like .csv"),
        ("t.txt", '{"text": "a"}\n', "it looks like .jsonl"),
        ("book.txt", "It was, by then, late.\nNobody knew.\n", "not .txt; convert it"),
        ("t.xlsx", "PK", "save its sheet as CSV"),
    ],
)
def test_a_file_whose_suffix_tells_nothing_is_told_by_its_lines(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(JobError, match=re.escape(said)):
        find_layout(tmp_path / name)


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
