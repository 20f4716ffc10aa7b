"""Speech recognition by encoders that spell (CTC): the loss, the vocabulary, what is refused, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.trainer.jobs import make_job, spelling_folder, write_speech
from tests.trainer.reference import train_by_hand
from tests.trainer.spelling_group import LORA, job_of, trained
from unfreeze_api.cli import main
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.modalities.spelled import needed
from unfreeze_trainer.objectives.base import IGNORED, TARGETS
from unfreeze_trainer.objectives.word_errors import WordErrors
from unfreeze_trainer.tasks import open_task

FEW, OTHERS = ("wav2vec2", "hubert", "wav2vec2-bert"), ("wavlm", "data2vec-audio", "unispeech", "wav2vec2-conformer")
KINDS = [*FEW, *(pytest.param(kind, marks=pytest.mark.matrix) for kind in OTHERS)]
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spelling")
    spelling_folder(folder / "base")
    write_speech(folder / "clips")
    return folder


def opened(folder: Path, model: str = "base", table: str = "clips", **change):
    return open_task(
        make_job(
            folder / model, folder / "clips" / f"{table}.jsonl", **{"task": {"type": "SpeechRecognition"}} | change
        )
    )


def table(folder: Path, name: str, *texts: str) -> str:
    """Write a table whose last clips have other texts, and return its name."""
    rows = [json.loads(line) for line in (folder / "clips" / "clips.jsonl").read_text().splitlines()]
    for row, text in zip(rows[-len(texts) :], texts, strict=True):
        row["text"] = text
    (folder / "clips" / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return name


def refused(folder: Path, **change) -> str:
    with pytest.raises(JobError) as error:
        opened(folder, **change)
    return str(error.value)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Change the weights of a new model, which says the same of every clip."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def test_an_evaluation_takes_no_more_clips_than_two_steps_do(folder):
    def size(batch, accumulate):
        feed = Feed(opened(folder), seed=0, batch_size=batch, accumulate=accumulate, rank=0, world_size=1)
        assert all(len(one[TARGETS]) <= feed.evaluation_size for one in feed.evaluation("validation"))
        return feed.evaluation_size

    assert (size(4, 4), size(4, 1)) == (2, 8)


def test_a_text_needs_a_moment_for_each_character_and_one_between_two_that_are_the_same():
    assert [needed(np.array(ids)) for ids in ([], [1, 2, 1], [1, 1], [3, 3, 3])] == [0, 3, 3, 5]


def test_a_silent_clip_is_refused_with_a_text_and_heard_without(tmp_path):
    import soundfile
    from transformers import Wav2Vec2FeatureExtractor

    from unfreeze_trainer.data.clips import ClipError
    from unfreeze_trainer.data.speech_loader import SpeechLoader

    soundfile.write(tmp_path / "silent.wav", np.zeros(1600), 16000)
    loader = SpeechLoader(Wav2Vec2FeatureExtractor(), shortest=400, longest=16000, padded=400)
    with pytest.raises(ClipError, match="silent, and it has a text"):
        loader.decode(str(tmp_path / "silent.wav"))
    loader.of_texts = False  # as of unfreeze predict
    assert len(loader.decode(str(tmp_path / "silent.wav"))) == 1600


def test_no_blank_is_lost_beside_a_token_of_several_characters(tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    from unfreeze_trainer.models.ctc import Spelling

    known = ["<pad>", "<s>", "</s>", "<unk>", "|", "i", "j", "s", "ij"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(known)}))
    spelling = Spelling(Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")), own=True)
    [ids] = spelling(["sij  is ij"])["input_ids"]
    assert ids == [7, 8, 4, 5, 7, 4, 8]
    assert spelling.text(ids) == "sij is ij"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_transformers_for_its_labels_whatever_clips_are_beside(folder, tmp_path, kind):
    spelling_folder(tmp_path / "m", kind)
    task = open_task(make_job(tmp_path / "m", folder / "clips" / "clips.jsonl", task={"type": "SpeechRecognition"}))
    module = shaken(task.build_model().module)
    [batch] = task.batches("train", [[0, 1, 9]])
    module.config.ctc_loss_reduction = "sum"
    with torch.no_grad():
        losses = task.loss(task.forward(module, batch), batch)
        theirs = module(**batch).loss
    assert torch.allclose(losses.sum(), theirs, rtol=1e-5)
    with torch.no_grad():
        each = [task.loss(task.forward(module, one), one) for one in task.batches("train", [[0], [1], [9], []])]
    assert torch.allclose(losses, torch.cat(each[:3]), rtol=1e-3)
    assert each[3].tolist() == [0.0]
    assert task.units("train")[[0, 1, 9]].sum() == int((batch["labels"] != IGNORED).sum())


@pytest.mark.slow
def test_a_vocabulary_is_made_of_the_training_texts_and_a_base_s_own_is_kept(folder):
    task = opened(folder)
    tokenizer = task.library.spelling.tokenizer
    assert tokenizer.get_vocab() == {name: at for at, name in enumerate(["[PAD]", "[UNK]", "|", *"acefhiortwy"])}
    module = task.build_model().module
    assert (module.config.vocab_size, module.config.pad_token_id) == (14, 0)
    assert task.build_model().blocks[-1].parameters == ("lm_head.weight", "lm_head.bias")
    spelling_folder(folder / "headed", letters=UPPER, headed=True)
    task = opened(folder, "headed")
    split = task._splits["train"]
    assert task.library.spelling.text(task._clips._texts[split.source].of(0).tolist()) == "THE CITY"
    from transformers import AutoModelForCTC

    before = AutoModelForCTC.from_pretrained(folder / "headed").lm_head.weight
    assert torch.equal(task.build_model().module.lm_head.weight, before)
    spelling_folder(folder / "unheaded", letters=UPPER)
    assert len(opened(folder, "unheaded").build_model().module.lm_head.weight) == 5 + len(UPPER)


@pytest.mark.slow
def test_what_cannot_be_learned_is_named_by_its_row(folder):
    said = refused(folder, table=table(folder, "long", "who " * 8))
    assert "row 24, column 'text': the text needs 31 moments" in said
    assert "and the model has 21 for the clip" in said
    spelling_folder(folder / "named", letters=UPPER)
    said = refused(folder, model="named", table=table(folder, "strange", "wh\u00f6?"))
    assert "row 24, column 'text': it holds '\u00d6' '?', which the model's own vocabulary lacks" in said
    said = refused(folder, model="named", table=table(folder, "marks", "who?", "who, who", "what."))
    assert "'?', which the model's own vocabulary lacks" in said
    assert "remove the row. 3 of 24 texts hold such characters, in all ',' '.' '?'" in said
    spelling_folder(folder / "accents", letters=f"{UPPER}\u00c9")
    said = refused(folder, model="accents", table=table(folder, "apart", "we\u0301"))
    assert "it holds '\\u0301', which" in said
    assert "unicodedata.normalize('NFC', text) gives" in said
    said = refused(folder, data={"validation": {"fraction": None, "source": f"file://{folder}/clips/strange.jsonl"}})
    assert "it holds '\u00f6' '?', which the training texts, of which the vocabulary is made, lack" in said
    assert "stands for the blank between words" in refused(folder, table=table(folder, "bar", "who|who"))
    assert "for something else" in refused(folder, table=table(folder, "special", "who [PAD]"))
    assert opened(folder, table="long", data={"onError": "Skip"}).left_out == {"train": 1}
    assert "tells no languages apart" in refused(
        folder, task={"type": "SpeechRecognition", "speechRecognition": {"language": "en"}}
    )
    assert "choose one of loss, wer, cer, exactMatch" in refused(folder, training={"metric": "perplexity"})
    config = json.loads((folder / "headed" / "config.json").read_text()) if (folder / "headed").exists() else None
    if config is None:
        spelling_folder(folder / "headed", letters=UPPER, headed=True)
        config = json.loads((folder / "headed" / "config.json").read_text())
    (folder / "apart").mkdir()
    for file in (folder / "headed").iterdir():
        (folder / "apart" / file.name).write_bytes(file.read_bytes())
    (folder / "apart" / "config.json").write_text(json.dumps(config | {"pad_token_id": 4}))
    assert "config.json says that the head's blank is 4" in refused(folder, model="apart")


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"adapter": LORA}], ids=["whole", "lora"])
def test_two_workers_train_and_measure_as_one_process_and_the_export_writes_the_same(ranks, folder, one_thread, change):
    name = "-".join(["run", *change])
    (weights, sums, metrics), (_, others, also) = ranks.call(trained, folder, name, change)
    assert torch.equal(sums, others)
    assert metrics == also
    task = open_task(job_of(folder, name, **change))
    end = train_by_hand(job_of(folder, name, **change), task, ranks=2)
    assert max((weights[key] - end[key]).abs().max().item() for key in weights) < 1e-5
    report = json.loads((folder / name / "report.json").read_text())
    assert set(report["results"]["validation"]) == {"loss", "wer", "cer", "exactMatch"}
    clips = folder / "clips" / "clips.jsonl"
    done = CliRunner().invoke(main, ["predict", str(folder / name), str(clips), "--inputs"])
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()
    assert rows[0] == "row,file,prediction"
    assert len(rows) == 25
    done = CliRunner().invoke(main, ["evaluate", str(folder / name), str(clips), "--output", "json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["metrics"]
    scores = WordErrors()
    for row, line in zip(rows[1:], clips.read_text().splitlines(), strict=True):
        scores.add(row.split(",", 2)[2].strip('"'), json.loads(line)["text"])
    assert {key: found[key] for key in ("wer", "cer", "exactMatch")} == pytest.approx(scores.compute())


@pytest.mark.slow
def test_a_model_learns_to_write_what_it_hears_as_plain_transformers_reads_it(folder, tmp_path):
    import soundfile
    import soxr
    from transformers import AutoModelForCTC, AutoProcessor

    task = opened(folder)
    module = shaken(task.build_model().module)
    task.export(module, tmp_path / "out", "Model")
    model, processor = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCTC, AutoProcessor))
    split, expected = task._splits["train"], WordErrors()
    with torch.no_grad():
        for row in split.rows:
            sound, rate = soundfile.read(folder / "clips" / f"{row}.wav", dtype="float32")
            wave = sound if rate == 16000 else soxr.resample(sound, rate, 16000)
            inputs = processor(wave, sampling_rate=16000, return_tensors="pt")
            said = processor.batch_decode(model.eval()(**inputs).logits.argmax(-1))[0]
            expected.add(said, split.source.targets[int(row)].as_py())
    state = task.metrics.new_state()
    with torch.no_grad():
        for batch in task.batches("train", [range(9), range(9, len(split))]):
            task.metrics.update(state, task.forward(module, batch), batch)
    found = task.metrics.compute(state)
    assert {name: found[name] for name in ("wer", "cer", "exactMatch")} == pytest.approx(expected.compute())


@pytest.mark.slow
def test_an_export_is_proven_by_clips_whose_last_spectrum_has_no_other_beside_it(folder, tmp_path, monkeypatch):
    import soundfile

    from unfreeze_trainer.models import export
    from unfreeze_trainer.models.plain import plain_outputs

    spelling_folder(tmp_path / "m", "wav2vec2-bert")
    rng, rows = np.random.default_rng(0), []
    for number in range(8):  # 25 spectra each
        soundfile.write(tmp_path / f"{number}.wav", rng.uniform(-0.5, 0.5, 400 + 24 * 160), 16000)
        rows.append(json.dumps({"audio": f"{number}.wav", "text": "ab"}))
    (tmp_path / "odd.jsonl").write_text("\n".join(rows))
    task = open_task(make_job(tmp_path / "m", tmp_path / "odd.jsonl", task={"type": "SpeechRecognition"}))
    module = shaken(task.build_model().module)
    task.export(module, tmp_path / "out", "Model")
    monkeypatch.setattr(export, "reload", plain_outputs)
    task.verify_export(tmp_path / "out", "Model", module)


@pytest.mark.slow
def test_a_job_is_estimated_and_its_phases_begin_with_the_new_head(folder, tmp_path):
    from unfreeze_api.contracts.names import API_VERSION, KIND

    spec = {
        "model": {"source": f"file://{folder}/base"},
        "task": {"type": "SpeechRecognition"},
        "data": {"train": {"source": f"file://{folder}/clips/clips.jsonl"}},
        "strategy": {"type": "GradualUnfreezing", "gradualUnfreezing": {"stepsPerPhase": 1}},
        "training": {"epochs": 2, "batchSize": 4, "metric": "cer"},
        "output": {"destination": f"file://{tmp_path}/run"},
    }
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}, "spec": spec}))
    for command in ("estimate", "data"):
        done = CliRunner().invoke(main, [command, str(job)])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["phases", str(job), "--output", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["phases"][0]["name"] == "head"
