"""Speech recognition: what Whisper hears, which tokens count, what stands before them, and what it writes by itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch.nn import functional

from tests.trainer.jobs import audio_model, make_job, speech_folder, write_speech
from unfreeze_api.cli import main
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_trainer.commands.generated import written
from unfreeze_trainer.commands.guess import guess
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.exports.seal import seal
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.word_errors import WordErrors, edits
from unfreeze_trainer.tasks import open_task

TASK = {"type": "SpeechRecognition"}
ENGLISH, OTHERS = "english", "others"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    speech_folder(folder / ENGLISH)
    speech_folder(folder / OTHERS, languages=True)
    write_speech(folder / "clips")
    return folder


def opened(folder: Path, model: str = ENGLISH, table: str = "clips/clips.jsonl", **change):
    options = change.pop("options", None)
    task = TASK | ({"speechRecognition": options} if options else {})
    return open_task(make_job(folder / model, folder / table, task=task, **change))


def table(folder: Path, name: str, *texts: str | None) -> str:
    """Write a table whose last clips have other texts, and return its name."""
    rows = [json.loads(line) for line in (folder / "clips" / "clips.jsonl").read_text().splitlines()]
    for row, text in zip(rows[-len(texts) :], texts, strict=True):
        row["text"] = text
    (folder / "clips" / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return f"clips/{name}"


def text_of(task, row: int) -> str:
    split = task._splits["train"]
    return split.source.targets[int(split.rows[row])].as_py()


def refused(folder: Path, **change) -> str:
    with pytest.raises(JobError) as error:
        opened(folder, **change).check_samples(0, 1)
    return str(error.value)


def test_edits_are_the_fewest():
    assert [edits("kitten", "sitting"), edits("", "abc"), edits(["a"], []), edits("same", "same")] == [3, 3, 1, 0]
    rng = np.random.default_rng(0)
    for _ in range(200):
        said, right = (rng.integers(3, size=rng.integers(9)).tolist() for _ in range(2))
        table = np.zeros((len(said) + 1, len(right) + 1), dtype=int)
        table[0], table[:, 0] = np.arange(len(right) + 1), np.arange(len(said) + 1)
        for row, column in np.ndindex(len(said), len(right)):
            changed = table[row, column] + (said[row] != right[column])
            table[row + 1, column + 1] = min(table[row, column + 1] + 1, table[row + 1, column] + 1, changed)
        assert edits(said, right) == table[-1, -1]


def test_error_rates_are_of_all_texts_together_as_they_are():
    scores = WordErrors()
    scores.add(" the  city", "the city")
    scores.add("The cat sat down", "the cat sat")
    # One substitution and one insertion among five words; one and five among nineteen characters.
    assert scores.compute() == {"wer": 2 / 5, "cer": 6 / 19, "exactMatch": 0.5}
    assert WordErrors().compute() == {}


@pytest.mark.slow
def test_the_text_and_its_end_count_and_what_stands_before_does_not(folder):
    task = opened(folder)
    tokenizer = task.library.tokenizer
    [batch] = task.batches("train", [[0, 1, 2]])
    start, silent, end = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>"])
    for row, (read, learned) in enumerate(zip(batch["decoder_input_ids"], batch["labels"], strict=True)):
        ids = tokenizer(f" {text_of(task, row)}", add_special_tokens=False)["input_ids"]
        assert read[: 2 + len(ids)].tolist() == [start, silent, *ids]
        assert learned[learned != IGNORED].tolist() == [*ids, end]
        assert learned[0] == IGNORED
        assert learned[1] == ids[0]
        assert task.units("train")[row] == len(ids) + 1


@pytest.mark.slow
def test_the_loss_is_that_of_transformers_for_its_labels(folder):
    task = opened(folder)
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [[0, 1, 2]])
    with torch.no_grad():
        losses = task.loss(task.forward(module, batch), batch)
        theirs = module(**batch).loss
    units = task.units("train")[[0, 1, 2]]
    assert torch.allclose(losses.sum() / units.sum(), theirs, atol=1e-6)
    alone = [next(iter(task.batches("train", [[row]]))) for row in range(3)]
    with torch.no_grad():
        each = torch.cat([task.loss(task.forward(module, one), one) for one in alone])
    assert torch.allclose(losses, each, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), [(ENGLISH, {}), (OTHERS, {"language": "spanish"})])
def test_what_stands_before_a_text_is_what_transformers_generates_after(folder, model, options):
    task = opened(folder, model, options=options)
    module = task.build_model().module.eval()
    module.generation_config.return_timestamps = False  # as generate sets it first
    [batch] = task.batches("train", [[0]])
    with torch.no_grad():
        found = module._retrieve_init_tokens(
            batch["input_features"], 1, module.generation_config, module.config, 100, {}
        )
    assert found[0].tolist() == list(task.library.prompt.tokens)
    assert len(task.library.prompt.tokens) == (4 if options else 2)


@pytest.mark.slow
def test_a_language_has_to_be_one_of_the_models(folder):
    assert "language: none is said for the languages" in refused(folder, model=OTHERS)
    said = refused(folder, model=OTHERS, options={"language": "de"})
    assert "spec.task.speechRecognition.language de is none of the languages" in said
    assert "choose one of en, es" in said
    assert "tells no languages apart" in refused(folder, options={"language": "en"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([None], "no text in column 'text' of row 24"),
        (["  ", "who"], "no text in column 'text' of row 23"),
        (["x" * 70], "row 24, column 'text': it has 71 tokens, and the model's decoder has places for 62"),
        (["who <|endoftext|>"], "row 24, column 'text': it holds the special token <|endoftext|>"),
        (["<|0.00|> who"], "row 24, column 'text': it holds the special token <|0.00|>"),
    ],
)
def test_a_text_that_cannot_be_learned_is_named_by_its_row(folder, texts, words):
    name = table(folder, "wrong.jsonl", *texts)
    assert words in refused(folder, table=name)
    task = opened(folder, table=name, data={"onError": "Skip"})
    assert task.left_out == {"train": 1}


@pytest.mark.slow
def test_a_silent_clip_is_named_and_a_folder_is_no_table(folder):
    import soundfile

    soundfile.write(folder / "clips" / "silent.wav", np.zeros(8000, dtype=np.float32), 16000)
    lines = (folder / "clips" / "clips.jsonl").read_text() + '{"audio": "silent.wav", "text": "who"}\n'
    (folder / "clips" / "silence.jsonl").write_text(lines)
    said = refused(folder, table="clips/silence.jsonl")
    assert "row 25, column 'audio': " in said
    assert "its 0.5 seconds are silent, and it has a text; replace or remove it" in said
    (folder / "labelled" / "who").mkdir(parents=True)
    assert "a folder of audio files says nothing of what is said in them" in refused(folder, table="labelled")
    for name in ("train.tsv", "test.tsv"):
        (folder / "labelled" / name).touch()
    assert "test.tsv, train.tsv lie in it: name one" in refused(folder, table="labelled")
    assert "'said'" in refused(folder, data={"train": {"columns": {"text": "said"}}})


@pytest.mark.slow
def test_clips_that_are_cut_are_said_with_what_it_means(folder):
    task = opened(folder, options={"maxSeconds": 0.3})
    task.check_samples(0, 1)
    [said] = task.warnings
    assert "clips are longer than 0.3 seconds and are cut there (spec.task.speechRecognition.maxSeconds)" in said
    assert "the model learns to write what it does not hear" in said


@pytest.mark.slow
def test_another_model_is_refused(folder):
    audio_model(folder / "ast", "audio-spectrogram-transformer")
    said = refused(folder, model="ast")
    assert "a model of model_type audio-spectrogram-transformer writes no text" in said
    assert "or an encoder of data2vec-audio, hubert, unispeech," in said


@pytest.mark.slow
def test_padding_has_no_loss(folder):
    task = opened(folder)
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [[]])
    with torch.no_grad():
        assert task.loss(task.forward(module, batch), batch).tolist() == [0.0]
    [batch] = task.batches("train", [[3]])
    with torch.no_grad():
        logits = task.forward(module, batch)
    by_hand = functional.cross_entropy(logits[0], batch["labels"][0], ignore_index=IGNORED, reduction="sum")
    assert torch.allclose(task.loss(logits, batch)[0], by_hand, rtol=1e-5)


@pytest.mark.slow
def test_what_the_model_writes_by_itself_is_measured_as_transformers_writes_it(folder, tmp_path):
    import soundfile
    import soxr
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    task = opened(folder, OTHERS, options={"language": "es"})
    module = task.build_model().module
    torch.manual_seed(1)
    with torch.no_grad():  # a new model says the same of every clip
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    task.export(module, tmp_path / "out", "Model")
    seal(tmp_path / "out", fingerprint="f", kind="Model", found=described(task.job, task))
    model = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    rows = [json.loads(row) for row in (folder / "clips" / "clips.jsonl").read_text().splitlines()[:4]]
    expected, short = WordErrors(), []
    for number, row in enumerate(rows):  # the right texts of half of them are what the model says
        sound, rate = soundfile.read(folder / "clips" / row["audio"], dtype="float32")
        wave = sound if rate == 16000 else soxr.resample(sound, rate, 16000)
        inputs = processor(wave, sampling_rate=16000, return_tensors="pt")
        ids = model.generate(inputs.input_features, max_new_tokens=6, do_sample=False)[0]
        said = processor.decode(ids, skip_special_tokens=True)
        short.append(said)
        row["text"] = said if number < 2 and said.strip() else row["text"]
        expected.add(said, row["text"])
    path = folder / "clips" / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(
        main, ["evaluate", str(tmp_path / "out"), str(path), "--generate", "6", "--output", "json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["metrics"]
    assert set(found) == {"loss", "perplexity", "tokenAccuracy", "wer", "cer", "exactMatch"}
    assert {name: found[name] for name in ("wer", "cer", "exactMatch")} == pytest.approx(expected.compute())
    written = CliRunner().invoke(main, ["predict", str(tmp_path / "out"), str(path), "--format", "jsonl"])
    assert written.exit_code == 0, written.output
    texts = [json.loads(line)["prediction"] for line in written.stdout.splitlines()]
    assert len(texts) == len(rows)
    assert all(text.startswith(said) for text, said in zip(texts, short, strict=True))
    assert "longer than" not in written.stderr
    (tmp_path / "long").mkdir()
    soundfile.write(tmp_path / "long" / "a.wav", np.full(24000, 0.1), 16000)
    written = CliRunner().invoke(main, ["predict", str(tmp_path / "out"), str(tmp_path / "long")])
    assert "1 of 1 clips are longer than 1 seconds, and the model does not hear what comes after" in written.stderr


@pytest.mark.slow
def test_a_job_is_drafted_and_its_data_are_surveyed_and_estimated(folder, tmp_path):
    table, job = folder / "clips" / "clips.jsonl", tmp_path / "job.yaml"
    done = CliRunner().invoke(main, ["init", str(table), "--task", "SpeechRecognition", "--output", str(job)])
    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load(job.read_text())
    assert manifest["spec"]["task"] == {"type": "SpeechRecognition"}
    assert manifest["spec"]["strategy"]["type"] == "FullFineTuning"
    manifest["spec"]["model"]["source"] = f"file://{folder / ENGLISH}"
    job.write_text(json.dumps(manifest | {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}}))
    for command in ("estimate", "data", "phases"):
        done = CliRunner().invoke(main, [command, str(job)])
        assert done.exit_code == 0, done.output


def test_clips_beside_texts_are_taken_for_it_where_no_label_is():
    from unfreeze_trainer.commands.facts import Facts

    clips = Facts("audio", [f"{number}.wav" for number in range(60)])
    caption = [f"a text of some words with the number {number}" for number in range(60)]
    texts = Facts("caption", caption)
    found = guess({"audio": clips, "caption": texts}, "t")
    assert (found.task, found.renamed()) == ("SpeechRecognition", {"text": "caption"})
    assert "use --task AudioClassification" in found.said[0]
    titles = Facts("title", caption)
    genres = Facts("genre", ["a", "b"] * 30)
    assert guess({"audio": clips, "title": titles, "genre": genres}, "t").task == "AudioClassification"
    labels = Facts("label", ["a", "b"] * 30)
    assert guess({"audio": clips, "caption": texts, "label": labels}, "t").task == "AudioClassification"
    with pytest.raises(JobError, match=r"no column is called 'text'.*--column text=NAME"):
        guess({"audio": clips, "label": labels}, "t", task="SpeechRecognition")


def test_a_clip_that_cannot_be_read_at_the_end_of_a_chunk_takes_no_text_of_the_next(monkeypatch):
    class Clips:
        wide_outputs, splits, unread = True, {"test": 6}, {"test": set()}
        job = SimpleNamespace(task=SimpleNamespace(type="SpeechRecognition", of=lambda _: None))

        def asked(self, _, index):
            return SimpleNamespace(readable=index != 2, index=index, inputs={"clip": [index]})

        def rows(self, _, read, **__):
            return {"row": pa.array(read + 1)}

    monkeypatch.setattr("unfreeze_trainer.commands.asked._CHUNK", 3)
    monkeypatch.setattr("unfreeze_trainer.training.saying.say", lambda _, question, *__: f"clip {question.index}")
    found = pa.concat_tables(
        pa.table(rows) for rows in written(SimpleNamespace(task=Clips(), module=None, device=None), 1, inputs=False)
    )
    assert found["row"].to_pylist() == [1, 2, 4, 5, 6]
    assert found["prediction"].to_pylist() == [f"clip {n}" for n in (0, 1, 3, 4, 5)]
