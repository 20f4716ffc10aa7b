"""`unfreeze data`: what a job would read, and what to look at before it trains."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.trainer.jobs import audio_folder, image_folder, write_csv, write_speech, write_words
from unfreeze_api.cli import main


def ask(*arguments):
    done = CliRunner().invoke(main, ["data", "--output", "json", *map(str, arguments)])
    assert done.exit_code in (0, 2), done.output
    return json.loads(done.stdout), done.exit_code, done.stderr


def table(path, header, rows):
    lines = [",".join(f'"{cell}"' for cell in row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = [
    f"{part}: pictures are as small as 4 x 4 pixels: they are scaled up to what the model takes"
    for part in ("train", "validation")
]


def texts(count, start=0):
    return [f"here are several words, and the number {n}" for n in range(start, start + count)]


def test_a_table_is_shown_as_a_job_would_divide_it(tmp_path):
    found, code, _ = ask(write_csv(tmp_path / "words.csv", rows=60))
    assert code == 0
    assert found["decided"] == ["taken as TextClassification with the columns text 'text', label 'label'"]
    train, validation = found["splits"]["train"], found["splits"]["validation"]
    assert (train["samples"], validation["samples"]) == (54, 6)
    assert (train["labels"], validation["labels"]) == ({"a": 18, "b": 18, "c": 18}, {"a": 2, "b": 2, "c": 2})
    assert {one["name"]: (one["holds"], one["readAs"]) for one in found["sources"]["train"]["columns"]} == {
        "text": ("text", "text"),
        "label": ("category", "label"),
    }


def test_repeated_samples_and_their_conflicts_are_counted(tmp_path):
    one, other = texts(40), texts(10, 100)
    rows = [(text, "ab"[n % 2]) for n, text in enumerate(one)] + [(one[0], "a"), (one[1], "a"), (one[2], "a")]
    table(tmp_path / "train.csv", ("text", "label"), rows)
    table(tmp_path / "val.csv", ("text", "label"), [(one[3], "a"), (one[4], "a"), (other[0], "b"), (other[0], "b")])
    found, code, _ = ask(tmp_path)
    assert code == 0
    assert found["splits"]["train"]["repeated"] == {"samples": 3, "conflicting": 1}
    assert found["splits"]["validation"]["repeated"] == {"samples": 1, "conflicting": 0}
    assert found["repeated"] == {"validation in train": {"samples": 2, "conflicting": 1}}
    said = "\n".join(found["warnings"])
    assert "train: 3 samples repeat one before them, 1 of them with another label" in said
    assert "2 samples stand twice, validation in train" in said


def test_broken_rows_are_named_in_the_words_of_the_job(tmp_path):
    path = table(tmp_path / "t.csv", ("text", "label"), [(text, "ab"[n % 2]) for n, text in enumerate(texts(20))])
    with path.open("a") as file:
        file.write('"",a\nfour,cells,are,many\nmore words than one here,\n')
    found, code, err = ask(path)
    source = found["sources"]["train"]
    assert (code, source["leftOut"], source["rows"]) == (2, 3, 20)
    assert [line.partition("t.csv: ")[2] for line in source["broken"]] == [
        "row 22 has 4 cells, the header 2: 'four,cells,are,many'; quote cells that hold commas",
        "no text in column 'text' of row 21; fill in or remove it",
        "no label in column 'label' of row 23; fill in or remove it",
    ]
    assert "Error: InvalidData: spec.data.train.source" in err


def test_what_ends_a_job_is_an_error_and_the_rest_is_shown(tmp_path):
    table(tmp_path / "train.csv", ("text", "label"), [(text, "ab"[n % 2]) for n, text in enumerate(texts(20))])
    table(tmp_path / "test.csv", ("text", "label"), [("some other words here", "z")])
    found, code, err = ask(tmp_path / "train.csv")
    assert (code, found["splits"], found["sources"]["test"]["rows"]) == (2, {}, 1)
    assert "label 'z' does not occur in the training data" in err


@pytest.mark.parametrize(
    ("column", "cells", "how"),
    [
        ("file", lambda n: f"{'good' if n % 2 else 'bad'}_{n:03}", "its cells without their digits do"),
        ("site", lambda n: f"site {n % 2 + 2 * (n % 6 // 2)}", "the rows with one value have one label"),
        ("number", lambda n: n // 2 + 50 * (n % 2), "rows that follow each other in its order have one label"),
    ],
)
def test_a_column_that_tells_the_label_is_named(tmp_path, column, cells, how):
    rows = [(text, "no" if n % 2 else "yes", cells(n), n % 7) for n, text in enumerate(texts(100))]
    table(tmp_path / "t.csv", ("text", "label", column, "weekday"), rows)
    said = [line for line in ask(tmp_path / "t.csv")[0]["warnings"] if "tells the label" in line]
    assert [line.partition(":")[0] for line in said] == [
        f"column '{column}' tells the label of {said[0].split()[6]} % of the samples by itself"
    ]
    assert how in said[0]


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [("split", ["train", "restval", "val", "test"], True), ("use", ["Train", "test"], True), ("use", ["test", "x"], False)],
)  # fmt: skip
def test_a_table_of_several_splits_is_warned_of(tmp_path, column, cells, said):
    rows = [(text, "ab"[n % 2], cells[n % len(cells)]) for n, text in enumerate(texts(40))]
    found = ask(table(tmp_path / "t.csv", ("text", "label", column), rows))[0]["warnings"]
    wanted = f"column {column!r} says which split a row is of ({', '.join(cells)}), and all rows are read"
    assert any(line.startswith(wanted) for line in found) == said, found


def test_parts_of_recordings_are_warned_of(tmp_path):
    rows = [json.loads(line) for line in write_speech(tmp_path / "spoken").read_text().splitlines()]
    rows += [rows[0] | {"text": "war", "offset": 0.1}, dict(rows[1])]
    path = tmp_path / "spoken" / "manifest.jsonl"
    path.write_text("".join(json.dumps(row | {"audio_filepath": row.pop("audio")}) + "\n" for row in rows))
    found, code, _ = ask(path, "--task", "SpeechRecognition")
    assert code == 0
    [said] = [line for line in found["warnings"] if "share their clip" in line]
    assert said.startswith("train: 2 of 26 rows share their clip with a row of another text")


def test_labels_that_stand_in_their_texts_are_named(tmp_path):
    rows = [
        (f"{text} in sport" if n % 2 else f"{text} sports", "sport" if n % 2 else "music")
        for n, text in enumerate(texts(60))
    ]
    said = ask(table(tmp_path / "t.csv", ("text", "label"), rows))[0]["warnings"]
    assert any("labels stand in their own texts ('sport' in 100 %)" in line for line in said), said


def test_imbalance_and_rare_labels_are_said(tmp_path):
    labels = ["most"] * 196 + ["few"] * 4
    path = table(tmp_path / "t.csv", ("text", "label"), zip(texts(200), labels, strict=True))
    said = "\n".join(ask(path)[0]["warnings"])
    assert "98.3 % have the label 'most', and always guessing it is right as often" in said
    assert "macroF1 and balancedAccuracy count labels alike" in said
    assert "fewer than 5 samples of 'few'" in said


def test_words_numbers_and_several_labels(tmp_path):
    found = ask(write_words(tmp_path / "words.jsonl"))[0]
    assert (found["task"], found["splits"]["train"]["lengths"]["words"]["most"]) == ("TokenClassification", 9)
    rows = [(text, n / 8) for n, text in enumerate(texts(40))]
    found = ask(table(tmp_path / "n.csv", ("text", "score"), rows), "--column", "value=score")[0]
    assert (found["task"], list(found["splits"]["train"]["values"])) == ("TextRegression", ["score"])
    lines = [json.dumps({"text": text, "labels": ["x", "y"][: n % 3]}) for n, text in enumerate(texts(40))]
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    found = ask(tmp_path / "m.jsonl")[0]
    whole = {split: found["splits"][split] for split in ("train", "validation")}
    assert sum(one["labels"]["x"] for one in whole.values()) == 26
    assert sum(one["withoutLabel"] for one in whole.values()) == 14


@pytest.mark.slow
def test_a_picture_with_several_captions_is_repeated_nowhere(tmp_path):
    for n in range(10):
        Image.new("L", (4, 4), n).save(tmp_path / f"{n}.png")
    rows = (f"{n // 3}.png,what is said is {n} of them\n" for n in range(30))
    (tmp_path / "t.csv").write_text("image,text\n" + "".join(rows))
    found, code, _ = ask(tmp_path / "t.csv", "--task", "Captioning")
    assert (code, found["splits"]["train"]["samples"] > 20, found["warnings"]) == (0, True, SMALL)


def test_pictures_are_read_whole(tmp_path):
    folder = image_folder(tmp_path / "train", per_label=10)
    image_folder(tmp_path / "test", per_label=1)
    content = (folder / "red" / "0.png").read_bytes()
    (folder / "red" / "1.png").write_bytes(content[: len(content) // 2])
    (folder / "blue" / "copy.png").write_bytes(content)
    found, code, err = ask(tmp_path)
    train = found["splits"]["train"]
    assert (found["task"], code, found["sources"]["train"]["leftOut"]) == ("ImageClassification", 2, 1)
    assert "red/1.png: it cannot be decoded" in err
    assert train["lengths"]["width"]["most"] == 46
    assert list(train["kinds"]) == ["RGB"]
    assert found["repeated"]["test in train"]["samples"] == 1  # the first picture of each folder is the same
    assert train["repeated"]["samples"] + found["repeated"].get("validation in train", {"samples": 0})["samples"] == 1


@pytest.mark.slow
def test_clips_have_seconds_and_rates(tmp_path):
    found, code, _ = ask(audio_folder(tmp_path / "clips"))
    train = found["splits"]["train"]
    assert (found["task"], code) == ("AudioClassification", 0)
    assert train["lengths"]["seconds"]["least"] == pytest.approx(0.2, abs=0.02)
    assert set(train["kinds"]) <= {"16000 Hz", "22050 Hz", "44100 Hz"}


@pytest.mark.slow
def test_a_job_is_read_with_its_splits_and_columns_without_torch(tmp_path):
    rows = [(text, "ab"[n % 2]) for n, text in enumerate(texts(40))]
    table(tmp_path / "t.csv", ("question", "kind"), rows)
    (tmp_path / "job.yaml").write_text(
        """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: words}
spec:
  model: {source: model}
  task: {type: TextClassification}
  data: {train: {source: t.csv, columns: {text: question, label: kind}}, validation: {fraction: 0.25}}
  strategy: {type: FeatureExtraction}
  output: {destination: run}
"""
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'transformers', 'tokenizers', 'timm', 'accelerate', 'peft', 'safetensors'))\n"
        "from unfreeze_api.cli import main; main()"
    )
    spoken = write_speech(tmp_path / "spoken")
    for path, train, validation in ((tmp_path / "job.yaml", 30, 10), (spoken, 22, 2)):
        command = [sys.executable, "-c", program, "data", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"train ({train})" in done.stdout
        assert f"validation ({validation})" in done.stdout


def test_tokens_are_counted_by_the_tokenizer_of_a_folder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    path = table(tmp_path / "t.csv", ("text", "label"), [(text, "ab"[n % 2]) for n, text in enumerate(texts(20))])
    spread = ask(path, "--tokenizer", tmp_path)[0]["splits"]["train"]["lengths"]["tokens"]
    assert (spread["least"], spread["most"]) == (8, 8)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a.csv": "text,label\n", "b.csv": "text,label\n"},
            "2 tables lie here, a.csv, b.csv: name the one to train on",
        ),
        ({"notes.txt": ""}, "nothing here that a job reads"),
        ({"t.csv": "a,b\n1,2\n3,4\n"}, "it cannot be told what is to be predicted from what"),
        ({"t.csv": "text,label,label\na,b,c\n"}, "Also, several columns are called 'label': they are left aside"),
        ({"t.csv": "text,label\n"}, "t.csv: no samples; the file has no rows"),
        ({"t.jsonl": ""}, "t.jsonl: the file is empty"),
        ({"t.jsonl": '[{"text": "a", "label": "b"}]\n'}, "a list of rows stands in a file that ends in .json"),
    ],
)
def test_what_cannot_be_told_is_asked(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    done = CliRunner().invoke(main, ["data", str(tmp_path)])
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("negative", [False, True])
def test_texts_that_belong_together_are_counted_one_by_one(tmp_path, negative):
    train = table(
        tmp_path / "t.csv", ["anchor", "positive", "no"], zip(texts(20), texts(20, 30), texts(20, 60), strict=True)
    )
    job = {"apiVersion": "unfreeze.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "t"}, "spec": {}}
    columns = {"columns": {"negative": "no"}} if negative else {}
    job["spec"] = {
        "model": {"source": "m"},
        "task": {"type": "TextEmbedding"},
        "data": {"train": {"source": str(train)} | columns, "validation": {"fraction": 0.25}},
        "strategy": {"type": "FullFineTuning"},
        "output": {"destination": "run"},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    found, code, said = ask(tmp_path / "job.json")
    assert (code, found["problem"]) == (0, ""), said
    assert found["splits"]["train"]["values"] == {}
    assert found["splits"]["train"]["lengths"]["characters"]["most"] == len(texts(1, 60)[0])


ROWS = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts(40))]


@pytest.mark.parametrize(
    "content",
    [json.dumps(ROWS, indent=1), "".join(f"{json.dumps(row)}\n" for row in ROWS)],
)
def test_rows_that_are_called_json_are_no_job(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    found, code, said = ask(tmp_path / "t.json", "--column", "label=label", "--column", "text=text")
    assert (code, sum(split["samples"] for split in found["splits"].values())) == (0, 40), said


def test_a_broken_tokenizer_is_said(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    done = CliRunner().invoke(main, ["data", str(write_csv(tmp_path / "t.csv")), "--tokenizer", str(tmp_path)])
    assert (done.exit_code, "tokenizer.json: the tokenizer cannot be loaded" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(("rows", "said"), [(0, "no samples; the file has no rows"), (9, "rename all of them but one")])
def test_parquet_without_rows_or_with_names_that_repeat_is_no_riddle(tmp_path, rows, said):
    columns = [pa.array([f"{n % 3}" for n in range(rows)], pa.string())] * 3
    pq.write_table(pa.table(columns, names=["text", "label", "label"]), tmp_path / "t.parquet")
    done = CliRunner().invoke(main, ["data", str(tmp_path / "t.parquet")])
    assert (done.exit_code, said in done.stderr) == (2, True), done.output


def test_conflicts_of_tags_and_numbers():
    from unfreeze_trainer.commands.repeats import numbered

    tags = np.empty(3, dtype=object)
    tags[:] = [np.array([1, 2]), np.array([1]), np.array([1, 2])]
    assert numbered({"train": tags[:2], "test": tags[2:]})["test"].tolist() == [0]
    sets = numbered({"train": np.array([[0, 1], [0, -1]]), "test": np.array([[0], [1]])})
    assert sets["train"][1] == sets["test"][0]
