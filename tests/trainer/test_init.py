"""`unfreeze init`: a job file for the data that people have, which validates, and says what was decided."""

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml
from click.testing import CliRunner
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.trainer.jobs import audio_folder, image_folder, write_csv, write_words
from tests.trainer.test_look import model_folder
from unfreeze_api.cli import main
from unfreeze_trainer.commands.draft import draft
from unfreeze_trainer.commands.facts import Facts, facts_of
from unfreeze_trainer.commands.guess import guess
from unfreeze_trainer.commands.layout import find_layout
from unfreeze_trainer.commands.recipe import _scalar
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.samples import text_cells
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError


def _picture() -> bytes:
    buffer = BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _clip() -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, np.full(160, 0.1), 16000, format="FLAC")
    return buffer.getvalue()


PICTURE, CLIP = _picture(), _clip()
TEXTS = [f"some words that are a text, number {n}" for n in range(60)]


def ask(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(path: Path, **columns):
    """Write a table of columns, each a function of the row's number; text by itself where it is TEXTS."""
    rows = [{name: cell(n) if callable(cell) else cell[n] for name, cell in columns.items()} for n in range(60)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [list(columns), *([str(cell) for cell in row.values()] for row in rows)]
        path.write_text("\n".join(separator.join(f'"{cell}"' for cell in line) for line in lines) + "\n")
    return path


def guessed(path: Path, **options):
    return guess(facts_of(read_cells(str(path), str(path))), str(path), **options)


WORDS = ["one", "two", "three"]


@pytest.mark.parametrize(
    ("name", "columns", "task", "found", "options"),
    [
        ("t.csv", {"id": int, "question": TEXTS, "kind": lambda n: "xyz"[n % 3]}, "TextClassification", {"text": "question", "label": "kind"}, {}),
        ("t.tsv", {"sentence": TEXTS, "sentiment": lambda n: n % 2}, "TextClassification", {"text": "sentence", "label": "sentiment"}, {}),
        ("t.csv", {"text": TEXTS, "stars": lambda n: n / 7}, "TextRegression", {"text": "text", "value": "stars"}, {}),
        (
            "t.csv",
            {"premise": TEXTS, "hypothesis": lambda n: f"an entirely different claim {n}", "gold_label": lambda n: "ab"[n % 2]},
            "TextClassification",
            {"text": "premise", "textPair": "hypothesis", "label": "gold_label"},
            {},
        ),
        (
            "t.jsonl",
            {"sentence2": TEXTS, "sentence1": lambda n: f"an entirely different claim {n}", "score": lambda n: n / 60},
            "TextRegression",
            {"text": "sentence2", "textPair": "sentence1", "value": "score"},
            {},
        ),
        ("t.jsonl", {"text": TEXTS, "labels": lambda n: WORDS[: n % 3]}, "TextClassification", {"text": "text", "label": "labels"}, {"labels": "Multi"}),
        ("t.tsv", {"text": TEXTS, "labels": lambda n: ("0", "7", "4", "5", "0,7" if n < 30 else "4,5")[n % 5]}, "TextClassification", {"text": "text", "label": "labels"}, {"labels": "Multi"}),
        ("t.csv", {"Path": ["1.png"] * 60, "ClassId": lambda n: n % 3}, "ImageClassification", {"image": "Path", "label": "ClassId"}, {}),
        (
            "t.csv",
            {"text": TEXTS, "tags": lambda n: f"{WORDS[n % 3]};{WORDS[(n + 1) % 3]}"},
            "TextClassification",
            {"text": "text", "label": "tags"},
            {"labels": "Multi", "labelSeparator": ";"},
        ),
        ("t.jsonl", {"tokens": lambda n: [*WORDS, str(n)], "ner": [["O", "B-x", "I-x", "O"]] * 60}, "TokenClassification", {"tokens": "tokens", "tags": "ner"}, {}),
        (
            "t.jsonl",
            {"text": TEXTS, "entities": [[{"start": 0, "end": 4, "label": "x"}]] * 60},
            "TokenClassification",
            {"text": "text", "spans": "entities"},
            {"annotation": "Spans"},
        ),
        (
            "t.csv",
            {"anchor": TEXTS, "positive": lambda n: f"an entirely different text {n}", "negative": lambda n: f"no {n} at all"},
            "TextEmbedding",
            {"anchor": "anchor", "positive": "positive", "negative": "negative"},
            {"annotation": "Pairs"},
        ),
        (
            "t.csv",
            {"anchor": TEXTS, "positive": lambda n: f"an entirely different text {n}", "score": lambda n: n % 6},
            "TextEmbedding",
            {"anchor": "anchor", "positive": "positive", "score": "score"},
            {"annotation": "Scores", "loss": "CoSENT"},
        ),
        (
            "t.jsonl",
            {"talk": [[{"role": "user", "content": "who"}, {"role": "assistant", "content": "war"}]] * 60, "topic": lambda n: "ab"[n % 2]},
            "CausalLM",
            {"messages": "talk"},
            {"annotation": "Messages"},
        ),
        (
            "t.csv",
            {"prompt": TEXTS, "completion": lambda n: f"an entirely different text {n}"},
            "CausalLM",
            {"prompt": "prompt", "completion": "completion"},
            {"annotation": "Completions"},
        ),
        (
            "t.jsonl",
            {"instruction": TEXTS, "input": [""] * 60, "output": lambda n: f"an entirely different text {n}", "category": lambda n: "ab"[n % 2]},
            "CausalLM",
            {"prompt": "instruction", "completion": "output"},
            {"annotation": "Completions"},
        ),
        (
            "t.jsonl",
            {"sentence1": TEXTS, "sentence2": lambda n: f"an entirely different claim {n}", "label": lambda n: n / 12},
            "TextRegression",
            {"text": "sentence1", "textPair": "sentence2", "value": "label"},
            {},
        ),
        ("t.jsonl", {"text": TEXTS, "label": lambda n: [WORDS[n % 3]]}, "TextClassification", {"text": "text", "label": "label"}, {}),
        (
            "t.csv",
            {"title": TEXTS, "tags": lambda n: " ".join(dict.fromkeys((WORDS[n % 3], WORDS[n % 2], f"t{n % 7}", f"u{n % 5}")))},
            "TextClassification",
            {"text": "title", "label": "tags"},
            {"labels": "Multi", "labelSeparator": " "},
        ),
        (
            "t.csv",
            {"image_name": lambda n: f"{n}.jpg", "tags": lambda n: WORDS[n % 3] + " water" * (n % 2)},
            "ImageClassification",
            {"image": "image_name", "label": "tags"},
            {"labels": "Multi", "labelSeparator": " "},
        ),
        ("t.csv", {"text": TEXTS, "sentiment": lambda n: f"{('very', '')[n % 2]} {('good', 'bad')[n % 3 > 0]}".strip()}, "TextClassification", {"text": "text", "label": "sentiment"}, {}),
        (
            "t.csv",
            {"anchor": TEXTS, "positive": lambda n: f"an entirely different text {n}", "is_duplicate": lambda n: n % 2},
            "TextEmbedding",
            {"anchor": "anchor", "positive": "positive", "score": "is_duplicate"},
            {"annotation": "Scores"},
        ),
        ("t.csv", {"file": lambda n: f"pictures/{n}.png", "class": lambda n: "ab"[n % 2]}, "ImageClassification", {"image": "file", "label": "class"}, {}),
        ("t.csv", {"clip": lambda n: f"{n}.wav", "speaker": lambda n: "ab"[n % 2]}, "AudioClassification", {"audio": "clip", "label": "speaker"}, {}),
    ],
)  # fmt: skip
def test_task_and_columns_follow_from_the_table(tmp_path, name, columns, task, found, options):  # noqa: PLR0917
    told = guessed(write(tmp_path / name, **columns))
    assert (told.task, told.columns, told.options) == (task, found, options)


def test_vectors_are_learned_where_somebody_says_so(here):
    path = write(here / "questions.csv", question=TEXTS, label=lambda n: "ab"[n % 2])
    done = ask("init", path, "--task", "TextEmbedding", "--column", "anchor=question")
    assert done.exit_code == 0, done.output
    spec = yaml.safe_load((here / "job.yaml").read_text())["spec"]
    assert spec["task"] == {"type": "TextEmbedding", "textEmbedding": {"annotation": "Labels", "maxLength": 8}}
    assert (spec["data"]["train"]["columns"], spec["strategy"]["type"]) == ({"anchor": "question"}, "FullFineTuning")


def test_of_several_columns_one_is_taken_and_the_others_are_named(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, topic=lambda n: "ab"[n % 2], sentiment=lambda n: "xyz"[n % 3])
    told = guessed(path)
    assert told.said == [
        "column 'sentiment' was taken for what is predicted; 'topic' could be it too: set columns.label"
    ]
    assert guessed(path, given={"label": "topic"}).columns == {"text": "text", "label": "topic"}


def test_dates_and_ids_are_not_predicted(tmp_path):
    path = write(
        tmp_path / "t.csv",
        user_id=lambda n: n % 4,
        text=TEXTS,
        when=lambda n: f"2020-01-0{n % 9 + 1}",
        stars=lambda n: n % 5 + 1,
        verified=lambda n: bool(n % 2),
    )
    told = guessed(path)
    assert told.columns == {"text": "text", "label": "stars"}
    assert "'verified' could be it too" in told.said[-1]
    assert "to predict how large they are use task TextRegression" in told.said[0]


def test_what_somebody_says_is_taken(tmp_path):
    path = write(tmp_path / "t.csv", text=TEXTS, other=TEXTS[::-1], rating=lambda n: n % 5)
    assert guessed(path).task == "TextClassification"
    told = guessed(path, given={"text": "other", "textPair": "text"}, task="TextRegression")
    assert (told.task, told.columns) == ("TextRegression", {"text": "other", "textPair": "text", "value": "rating"})
    done = ask("init", path, "--column", "lable=rating", "--output", tmp_path / "job.yaml")
    assert (done.exit_code, "columns have no field 'lable'" in done.stderr) == (2, True)
    done = ask("init", path, "--column", "label=ratings", "--output", tmp_path / "job.yaml")
    assert "did you mean 'rating'?" in done.stderr
    assert not (tmp_path / "job.yaml").exists()


def test_files_that_are_called_alike_are_splits(tmp_path):
    for name in ("a-train.csv", "a-train-1000.csv", "a-dev.csv", "a-test.csv", "b-test.csv", "train.txt"):
        (tmp_path / name).write_text("text,label\n")
    found = find_layout(tmp_path / "a-train-1000.csv")
    assert {name: path.name for name, path in found.splits.items()} == {
        "train": "a-train-1000.csv",
        "validation": "a-dev.csv",
        "test": "a-test.csv",
    }
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "validation-00000-of-00001.parquet"):
        (hub / name).touch()
    assert list(find_layout(tmp_path / "hub").splits) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            [
                "train-00000-of-00002.parquet",
                "train-00001-of-00002.parquet",
                "test-00000-of-00001.parquet",
                "README.md",
            ],
            {"train": "train-*.parquet", "test": "test-00000-of-00001.parquet"},
        ),
        (["part-0.csv.gz", "part-1.csv.gz", "part-10.csv.gz"], {"train": "part-*.csv.gz"}),
        (["a_train.jsonl.zst", "a_test.jsonl.zst"], {"train": "a_train.jsonl.zst", "test": "a_test.jsonl.zst"}),
        (["train/0.arrow", "train/1.arrow", "val/0.arrow"], {"train": "*.arrow", "validation": "0.arrow"}),
    ],
)
def test_splits_in_several_files_are_patterns(tmp_path, names, splits):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {name: path.name for name, path in find_layout(tmp_path).splits.items()} == splits


def test_a_job_for_tables_in_several_files(here):
    for part in range(2):
        write(here / f"train-{part}.csv", text=TEXTS, label=lambda n: "ab"[n % 2])
    write(here / "test-0.csv", text=TEXTS, label=lambda n: "ab"[n % 2])
    done = ask("init", here)
    assert done.exit_code == 0, done.output
    data = job(here / "job.yaml")["data"]
    assert data["train"]["source"].endswith("train-*.csv")
    assert data["test"]["source"].endswith("test-0.csv")
    shown = ask("data", "--output", "json", "train-*.csv")
    assert json.loads(shown.stdout)["sources"]["train"]["rows"] == 120


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which the command is called, with a model that fits texts."""
    folder = tmp_path / "questions"
    folder.mkdir()
    monkeypatch.chdir(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(model_folder(folder / "models" / "bert") / "tokenizer.json"))
    return folder


def job(path: Path):
    return yaml.safe_load(path.read_text())["spec"]


def test_a_job_file_validates_and_names_what_it_took(here):
    write_csv(here / "train.csv", rows=300, labels=("a", "b", "c", "no"))
    write_csv(here / "test.csv", rows=20)
    done = ask("init", "train.csv")
    assert done.exit_code == 0, done.stderr
    assert f"{here / 'models' / 'bert'} was taken as the model" in done.stdout
    assert done.stdout.endswith("job.yaml is written. Next: unfreeze run job.yaml\n")
    spec = job(here / "job.yaml")
    assert spec["model"]["source"] == f"file://{here}/models/bert"
    assert spec["data"]["test"]["source"] == f"file://{here}/test.csv"
    assert (spec["training"]["batchSize"], spec["training"]["epochs"]) == (8, 10)
    assert spec["strategy"] == {"type": "Auto"}
    seen = ask("validate", "job.yaml", "--claims", here)
    assert (seen.exit_code, seen.stdout) == (
        0,
        'job.yaml: FineTuneJob "questions" is valid; 4 labels, samples: 270 in train, 30 in validation, 20 in test\n',
    )


def test_a_model_may_be_named_as_a_hub_or_a_source_has_it(here):
    write_csv(here / "train.csv", rows=60)
    done = ask("init", f"file://{here}/train.csv", "--model", "hf://owner/name@main")
    assert done.exit_code == 0, done.stderr
    assert "hf://owner/name@main is not fetched here" in done.stdout
    assert "Next: unfreeze run" in done.stdout
    assert job(here / "job.yaml")["model"] == {"source": "hf://owner/name@main"}
    assert ask("init", "train.csv", "--force", "--model", f"file://{here}/models/bert").exit_code == 0
    assert job(here / "job.yaml")["model"] == {"source": f"file://{here}/models/bert"}
    wrong = ask("init", "train.csv", "--force", "--model", "hf://owner")
    assert (wrong.exit_code, "spec.model.source" in wrong.stderr) == (1, True)
    assert job(here / "job.yaml")["model"] == {"source": f"file://{here}/models/bert"}


def test_paths_may_lead_up(here, monkeypatch):
    write_csv(here / "words.csv", rows=60)
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    done = ask("init", "../words.csv", "--model", "../models/bert", "--output", "../job.yaml")
    assert done.exit_code == 0, done.stderr
    spec = job(here / "job.yaml")
    assert spec["model"]["source"] == f"file://{here}/models/bert"
    assert spec["data"]["train"]["source"] == f"file://{here}/words.csv"


def test_paths_that_lead_up_behind_a_link_are_those_that_were_read(here):
    (here / "far" / "below").mkdir(parents=True)
    (here / "near").symlink_to(here / "far" / "below")
    for folder in (here, here / "far"):
        write_csv(folder / "words.csv", rows=60)
    assert ask("init", "near/../words.csv", "--model", "models/bert").exit_code == 0
    assert job(here / "job.yaml")["data"]["train"]["source"] == f"file://{(here / 'far').resolve()}/words.csv"


def test_nothing_is_overwritten_unasked(here):
    write_csv(here / "words.csv", rows=60)
    (here / "job.yaml").write_text("mine")
    done = ask("init", "words.csv")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: job.yaml is there already: --force overwrites it, --output names another file\n",
    )
    assert (here / "job.yaml").read_text() == "mine"
    assert ask("init", "words.csv", "--force").exit_code == 0
    assert job(here / "job.yaml")["task"]["textClassification"] == {"maxLength": 8}


@pytest.mark.slow
@pytest.mark.parametrize("make", [image_folder, audio_folder])
def test_folders_of_pictures_and_clips(here, make):
    make(here / "things" / "train")
    make(here / "things" / "val", per_label=2)
    done = ask("init", "things", "--output", "things/train/job.yaml")
    assert done.exit_code == 0, done.stderr
    spec = job(here / "things" / "train" / "job.yaml")
    assert spec["data"]["validation"] == {"source": f"file://{here}/things/val"}
    assert spec["output"]["destination"] == f"file://{here}/things/things-run"  # no run lies in what it reads
    kind = "timm or transformers" if make is image_folder else "transformers"
    assert f"no folder of a {kind} model was found" in done.stdout  # that of texts is none for them


def test_rows_that_cannot_be_read_are_left_out_and_said(here):
    with write_csv(here / "words.csv", rows=60).open("a") as file:
        file.write("too,many,cells\n")
    done = ask("init", "words.csv")
    assert (done.exit_code, job(here / "job.yaml")["data"]["onError"]) == (0, "Skip")
    assert "1 rows or files cannot be read" in done.stderr
    assert ask("validate", "job.yaml", "--claims", here).exit_code == 0


def test_no_job_is_written_for_data_that_would_end_it(here):
    write_csv(here / "train.csv", rows=60)
    write_csv(here / "test.csv", labels=("a", "z"))
    done = ask("init", "train.csv")
    assert (done.exit_code, "label 'z' does not occur" in done.stderr) == (1, True)
    assert not (here / "job.yaml").exists()


def test_a_model_that_does_not_fit_is_refused(here):
    write_words(here / "words.jsonl", rows=60)
    model_folder(here / "timm", architecture="resnet18")
    done = ask("init", "words.jsonl", "--model", "timm")
    assert done.exit_code == 2
    assert "InvalidModel" in done.stderr
    assert not (here / "job.yaml").exists()


@pytest.mark.parametrize(
    "name",
    ["Question:", "a:b", "true", "it's", "naïve", "a\u2028b", "a\x7fb", "a\x85b", "{x}", "a\xa0\U0001f600"],
)
def test_any_name_of_a_column_is_read_back(name):
    assert yaml.safe_load(f"{{text: {_scalar(name)}, label: x}}")["text"] == name


def test_names_of_files_and_columns_end_no_comment_and_no_value(here):
    write(here / "t.csv", **{"yes": TEXTS, "#: {label": lambda n: "ab"[n % 2]})
    (here / "t.csv").rename(here / "odd name.csv")
    done = ask("init", "odd name.csv", "--column", "label=#: {label")
    assert done.exit_code == 0, done.stderr
    assert job(here / "job.yaml")["data"]["train"]["columns"] == {"text": "yes", "label": "#: {label"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no column looks like such. The columns are 'text'; name the right one by --column image=NAME"),
        ({"audio": "text", "image": "text"}, "name image or audio"),
        ({"image": "text"}, "no column looks like text"),
    ],
)
def test_what_is_no_picture_or_clip_with_a_text_of_it_is_said(given, said):
    facts = {"text": Facts("text", ["some words of a picture", "other words of another one"])}
    with pytest.raises(JobError, match=re.escape(said)):
        guess(facts, "t", given, "Captioning")


def dialogue(answer):
    return [{"role": "user", "content": "who"}, {"role": "assistant", "content": answer}]


def test_what_nobody_is_to_learn_is_not_taken_for_the_dialogue(tmp_path):
    path = write(tmp_path / "t.jsonl", rejected=[dialogue("a war of many words")] * 60, chosen=[dialogue("war")] * 60)
    found = guessed(path)
    assert (found.columns, found.said) == (
        {"messages": "chosen"},
        ["column 'rejected' is not read: no task learns preferences"],
    )


@pytest.mark.parametrize("task", ["Alignment", "Captioning", "ImageText", "SpeechRecognition", None])
def test_files_in_a_table_are_taken_before_names_of_them(task):
    picture = task not in ("SpeechRecognition", None)
    (field, end, content) = ("image", "png", PICTURE) if picture else ("audio", "flac", CLIP)
    facts = {
        "url": Facts("url", [f"https://x/{n}.{end}" for n in range(60)]),
        "path": Facts("path", [f"{n}.{end}" for n in range(60)]),
        "text": Facts("text", TEXTS),
        "sound": Facts("sound", [], content),
    }
    found = guess(facts, "t", {}, task)
    assert found.columns[field] == "sound"
    assert not any("could be it too" in line for line in found.said)
    facts.pop("sound")
    facts["thumb"] = Facts("thumb", [f"small/{n}.{end}" for n in range(60)])
    facts["title"] = Facts("title", TEXTS)
    found = guess(facts, "t", {}, task)
    assert found.columns[field] == "path"
    assert found.said[0].endswith(f"'thumb' could be it too: set columns.{field}")
    assert picture == any("'title' could be it too: set columns.text" in line for line in found.said)


@pytest.mark.parametrize("task", ["Alignment", "Captioning", "ImageText"])
def test_an_id_is_no_text_of_a_picture(task):
    lists = [json.dumps([f"a man of {n}", f"the city of {n}"]) for n in range(60)]
    facts = {
        "image": Facts("image", [], PICTURE),
        "caption": Facts("caption", lists),
        "split": Facts("split", ["train", "test"] * 30),
        "img_id": Facts("img_id", [str(n) for n in range(60)]),
    }
    with pytest.raises(JobError, match="Column 'caption' holds several texts in a row"):
        guess(facts, "t", {}, task)


@pytest.mark.parametrize(
    "talk", [dialogue("war"), [{"from": "human", "value": "who"}, {"from": "gpt", "value": "war"}]]
)
def test_dialogues_of_pictures_are_said_to_be_rows(talk):
    facts = {"image": Facts("image", [], PICTURE), "conversations": Facts("conversations", [json.dumps(talk)] * 60)}
    with pytest.raises(
        JobError, match=r"'conversations' holds dialogues: .*write a row for each question, with the answer as text"
    ):
        guess(facts, "t", {}, "Captioning")


@pytest.mark.parametrize("task", ["Alignment", "Captioning", "ImageText"])
def test_several_texts_of_a_picture_in_a_row_are_said_to_be_rows(task, tmp_path):
    rows = [{"image": f"{n}.png", "captions": [f"a man of {n}", f"the city of {n}"]} for n in range(3)]
    said = "Column 'captions' holds several texts in a row: write a row for each"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(JobError, match=re.escape(said)):
        draft(tmp_path / "t.jsonl", task=task, columns={})
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": [{"image_id": 1}]}))
    with pytest.raises(JobError, match="the file is in the form of COCO"):
        draft(tmp_path / "coco.json", task=task, columns={})
    several = pa.chunked_array([pa.array([["a", "b"]])])
    with pytest.raises(JobError, match=r"column 'captions' holds .*, several texts in a row: write a row for each"):
        text_cells(several, "captions", np.arange(1), Unread("t", skip=False), "t")


def test_a_folder_of_labels_is_for_no_other_task_than_its_own(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").touch()
    assert draft(tmp_path, task="ImageClassification", columns={}).guess.task == "ImageClassification"
    with pytest.raises(JobError, match="for ImageClassification alone: leave out --task Captioning, or name a table"):
        draft(tmp_path, task="Captioning", columns={})


def test_clips_are_taken_where_there_are_no_pictures():
    facts = {"clip": Facts("clip", ["a.wav", "b.wav"]), "text": Facts("text", ["some words of a", "other words of b"])}
    found = guess(facts, "t", {}, "Captioning")
    assert (found.columns, found.options) == ({"audio": "clip", "text": "text"}, {})
