"""Audio: what is heard of a file, and that what a model says of a clip depends on no other."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import soxr
import torch
from pyarrow import parquet
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from tests.trainer.jobs import audio_folder, audio_model, bert_folder, make_job
from unfreeze_api.contracts.resolved import Columns, Dataset, Semantics
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.commands.media import _clip
from unfreeze_trainer.data import clips
from unfreeze_trainer.data.audio import read_audio
from unfreeze_trainer.data.clips import ClipError, decode, read_header
from unfreeze_trainer.errors import JobError, unmarked
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.models.audio import load_audio_model, load_config
from unfreeze_trainer.models.padding import Frames, MaskedGroupNorm
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.ranking.layers import features
from unfreeze_trainer.ranking.order import READ
from unfreeze_trainer.seeds import seed_everything
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

WHERE = "spec.data.train.source x"
RATE = 16_000
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
MODELS = {
    "wav2vec2": {},
    "wav2vec2-layer": LAYER,
    "hubert": {},
    "wavlm": {},
    "unispeech": {},
    "unispeech-sat": {},
    "data2vec-audio": {},
    "wav2vec2-conformer": {},
    "wav2vec2-bert": {},
    "audio-spectrogram-transformer": {},
    "whisper": {},
}


def tone(seconds, rate=RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return audio_folder(tmp_path_factory.mktemp("audio") / "d")


def task_of(model, clips, max_seconds=None, **change):
    options = {"audioClassification": {"maxSeconds": max_seconds}} if max_seconds else {}
    return open_task(make_job(model, clips, task={"type": "AudioClassification"} | options, **change))


def dataset(path):
    return Dataset(source="x", path=str(path), columns=Columns())


# What is heard


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
def test_a_tone_is_heard_in_every_format_and_at_every_rate(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone(0.5, rate), np.zeros(rate // 2)], axis=1), rate)
    values = decode(str(path), RATE, RATE)
    assert values.dtype == np.float32
    assert abs(len(values) - RATE // 2) <= 1
    middle = slice(1_000, 7_000)
    assert np.corrcoef(values[middle], tone(0.5)[middle])[0, 1] > 0.995
    assert values[middle].std() == pytest.approx(tone(0.5).std() / 2, rel=0.02)  # the mean of the channels
    assert np.array_equal(decode(path.read_bytes(), RATE, RATE), values)
    assert len(decode(str(path), RATE, 2_000)) == 2_000
    assert read_header(str(path)).seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.wav", b"", "it is broken, or no clip in one of the formats FLAC, MP3, OGG, WAV"),
        ("a.mp3", b"hello" * 400, "it is broken, or no clip"),
        ("a.raw", b"hello" * 400, "it is broken, or no clip"),
        ("empty", [], "it is empty"),
        ("a.aiff", tone(0.1), "its format is AIFF, and FLAC, MP3, OGG, WAV are read; convert or remove it"),
        ("nan", [0.0, np.nan] * 1000, r"values that are no numbers \(NaN or infinite\)"),
        ("none", None, "it cannot be read .*No such file"),
        ("cut.flac", np.random.default_rng(0).normal(0, 0.1, 40_000), "lost sync"),
    ],
)
def test_what_cannot_be_heard_says_why(tmp_path, name, content, words):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        kind = {"a.aiff": {}, "cut.flac": {}}.get(name, {"format": "WAV", "subtype": "FLOAT"})
        soundfile.write(path, np.array(content), RATE, **kind)
    if name == "cut.flac":
        path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(ClipError, match=words):
        decode(str(path), RATE, RATE * 30)


@pytest.mark.parametrize("value", [3e38, -1e20])
def test_what_is_louder_than_any_sound_is_refused(tmp_path, value):
    soundfile.write(tmp_path / "a.wav", np.full((2_000, 2), value), RATE, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"values up to (3e\+38|1e\+20), and sound lies between -1 and 1"):
        decode(str(tmp_path / "a.wav"), RATE, RATE)


def test_whole_numbers_that_were_written_as_floats_are_said(tmp_path, data):
    """They are heard as they are: what Whisper's and AST's extractors make of them is not what they make of sound."""
    clips = audio_folder(tmp_path / "clips", 4)
    task = task_of(audio_model(tmp_path / "m"), clips)
    task.check_samples(0, 1)
    assert not task.warnings
    for path in clips.rglob("*.wav"):
        values, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path, values.astype(np.float32), rate, subtype="FLOAT")
    task = task_of(tmp_path / "m", clips)
    task.check_samples(0, 1)
    assert re.search(r"clips hold values up to \d.*, and sound lies between -1 and 1", task.warnings[0])


def test_flac_of_a_stream_is_read_to_its_end(tmp_path):
    path, streamed = tmp_path / "a.flac", tmp_path / "streamed.flac"
    soundfile.write(path, tone(0.5), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO: the number of samples and the MD5 of them are not known before the end
    content[22:42] = bytes(20)
    streamed.write_bytes(content)
    for clip in (str(streamed), bytes(content)):
        assert np.array_equal(decode(clip, RATE, RATE), decode(str(path), RATE, RATE))
        assert read_header(clip).seconds == 0.5


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_a_clip_that_is_cut_is_the_beginning_of_the_whole_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, rate), rate)
    whole = soxr.resample(soundfile.read(tmp_path / "a.flac", dtype="float32")[0], rate, RATE)
    assert np.abs(decode(str(tmp_path / "a.flac"), RATE, 8_000) - whole[:8_000]).max() < 1e-6


def test_what_is_too_much_at_once_says_how_much(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "MAX_VALUES", 9_000)
    soundfile.write(tmp_path / "a.wav", tone(1), RATE)
    with pytest.raises(
        ClipError, match="1 seconds of 1 channels at 16000 Hz are more than can be read; mix it down, res"
    ):
        decode(str(tmp_path / "a.wav"), RATE, RATE)


def test_a_look_reads_long_clips_part_by_part(tmp_path, monkeypatch):
    """A job hears the beginning alone: what is too much at once for it is no broken file."""
    monkeypatch.setattr(clips, "MAX_VALUES", 9_000)
    monkeypatch.setattr(clips, "_BLOCK", 4_000)
    values = np.stack([tone(1), tone(1)], axis=1)
    soundfile.write(tmp_path / "a.wav", values, RATE, subtype="FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    assert _clip(str(tmp_path / "a.wav")) == _clip(content)
    assert _clip(content)[:2] == ((1.0, RATE), f"{RATE} Hz")
    values[-1] = np.nan
    soundfile.write(tmp_path / "a.wav", values, RATE, subtype="FLOAT")
    with pytest.raises(ClipError, match="values that are no numbers"):
        _clip(str(tmp_path / "a.wav"))
    clips.check(str(tmp_path / "a.wav"), 0.5)
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 40_000), RATE)
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:-30_000])
    with pytest.raises(ClipError, match=r"lost sync|it ends after"):
        _clip(str(tmp_path / "a.flac"))
    with pytest.raises(ClipError, match="it cannot be read"):
        _clip(str(tmp_path / "none.wav"))


# Sources


def test_clips_lie_in_folders_or_tables(tmp_path, data):
    folder = read_audio(dataset(data), WHERE)
    assert len(folder.inputs) == 12
    assert folder.targets.to_pylist() == ["high"] * 6 + ["low"] * 6
    (data / "t.csv").write_text("audio,label\nhigh/0.wav,high\nlow/1.flac,low\n")
    assert [path.rpartition("/")[2] for path in read_audio(dataset(data / "t.csv"), WHERE).inputs.to_pylist()] == [
        "0.wav",
        "1.flac",
    ]
    content = (data / "high/3.mp3").read_bytes()
    (data / "t.csv").unlink()
    for cells in (pa.array([content] * 2), pa.array([{"bytes": content, "path": None}] * 2)):
        parquet.write_table(pa.table({"audio": cells, "label": ["a", "b"]}), tmp_path / "t.parquet")
        assert read_audio(dataset(tmp_path / "t.parquet"), WHERE).inputs.to_pylist() == [content] * 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("high/none.wav,a", r"row 2, column 'audio': no such audio file: .*high/none\.wav; paths are relative"),
        ("0.wav,a", r"no such audio file: .*/d/0\.wav; .*\. high/0\.wav is there: write the paths so"),
        ("high/0,a", r"no such audio file: .*/d/high/0; .*\. high/0\.wav is there: write the paths so"),
        (
            "/nfs/x/high/0.wav,a",
            r"no such audio file: /nfs/x/high/0\.wav; .*\. high/0\.wav is there: write the paths so",
        ),
        ("high,a", r"row 2, column 'audio': high is a folder, and no regular file"),
        ("../x.wav,a", r"row 2, column 'audio': \.\./x\.wav leads to"),
        (",a", "no clip in column 'audio' of row 2; remove it"),
        ("bad.wav,a", r"row 2, column 'audio': .*bad\.wav: it is broken, or no clip in one of the formats"),
        ("high/0.wav,", "no label in column 'label' of row 2"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, words):
    folder = audio_folder(tmp_path / "d", 1)
    (tmp_path / "x.wav").write_bytes(b"x")
    (folder / "bad.wav").write_bytes(b"no sound")
    (folder / "t.csv").write_text(f"audio,label\nhigh/0.wav,a\n{rows}\n")
    job = make_job(audio_model(tmp_path / "m"), folder / "t.csv", task={"type": "AudioClassification"})
    for read in (open_task, look):
        with pytest.raises(JobError) as raised:
            read(job)
        assert re.search(words, unmarked(raised.value.marked)), raised.value.marked


def test_folders_say_what_they_lack(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("x")
    with pytest.raises(JobError, match=r"no audio files in the label's folder a; they end in \.flac, \.mp3, .*\.wav"):
        read_audio(dataset(tmp_path), WHERE)
    audio_folder(tmp_path / "s/train", 1)
    audio_folder(tmp_path / "s/test", 1)
    with pytest.raises(JobError, match="test, train are splits and no labels"):
        read_audio(dataset(tmp_path / "s"), WHERE)


@pytest.mark.parametrize("label", [b"a", b"\xe9"])
def test_a_name_that_is_no_text_is_named(tmp_path, label):
    folder = tmp_path / os.fsdecode(label)
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.wav")).touch()
    with pytest.raises(JobError, match=r"the name (a/\\xff\.wav|\\xe9) is not UTF-8; rename it"):
        read_audio(dataset(tmp_path), WHERE)


def test_clips_that_are_too_short_or_broken_are_named_or_skipped(tmp_path, data):
    folder, model = audio_folder(tmp_path / "d"), audio_model(tmp_path / "m")
    soundfile.write(folder / "high/0.wav", tone(0.01), RATE)
    with pytest.raises(
        JobError, match=r"high/0\.wav: it lasts 0\.01 seconds, and the model hears nothing in less than 0\.0"
    ):
        task_of(model, folder).check_samples(0, 1)
    (folder / "low/0.wav").write_bytes((folder / "low/0.wav").read_bytes()[:30])
    with pytest.raises(JobError, match=r"low/0\.wav: it is broken, or no clip"):
        task_of(model, folder)
    task = task_of(model, folder, data={"onError": "Skip"})
    task.check_samples(0, 1)
    lengths = {name: task.lengths(name) for name in task.splits}
    assert sum(len(found) for found in lengths.values()) == 12
    for name, samples in task.splits.items():
        for batch in task.batches(name, [range(samples)]):
            assert batch["input_values"].isfinite().all()
    names = {task.name_of(name, index).rpartition("/d/")[2] for name, found in task.unread.items() for index in found}
    assert names == {"high/0.wav", "low/0.wav"}
    task = task_of(model, data, data={"onError": "Skip", "validation": {"source": f"file://{folder}"}})
    batch, samples = task.first_samples()  # what an export is compared on
    for clip, row, mask in zip(samples, batch["input_values"], batch["attention_mask"], strict=True):
        heard = task.modality.loader.prepare(clip.numpy(), 0, None)["input_values"]
        assert torch.equal(row[mask.bool()], heard)


# What the model hears


FEW = ("wav2vec2", "whisper")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in MODELS]
)
def opened(request, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("model") / "m"
    return folder, task_of(audio_model(folder, request.param.removesuffix("-layer"), **MODELS[request.param]), data)


def inputs_of(batch):
    return {name: tensor for name, tensor in batch.items() if name != TARGETS}


def test_what_a_model_says_of_a_clip_does_not_depend_on_its_neighbours(opened):
    folder, task = opened
    module = task.build_model().module.eval()
    clips = task.splits["train"]
    [together] = task.batches("train", [range(clips)])
    with torch.no_grad():
        said = task.forward(module, inputs_of(together))
        alone = torch.cat(
            [task.forward(module, inputs_of(batch)) for batch in task.batches("train", [[i] for i in range(clips)])]
        )
    scale = (alone - alone.mean(0)).abs().max()
    assert scale > 0
    assert (said - alone).abs().max() < 1e-4 * scale
    # The library says the same of each clip alone, without a mask.
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    if task.modality.loader._padded is not None:
        plain = AutoModelForAudioClassification.from_config(module.config).eval()
        plain.load_state_dict(module.state_dict())
        for index, wave in enumerate(task.modality.samples(task._splits["train"], clips, {})):
            with torch.no_grad():
                logits = plain(**extractor(wave.numpy(), sampling_rate=RATE, return_tensors="pt")).logits[0]
            assert (logits - said[index]).abs().max() < 1e-4 * scale


def test_what_a_base_makes_of_a_clip_does_not_depend_on_its_neighbours(opened):
    _, task = opened
    loaded, clips = task.build_model(), task.splits["train"]
    together, alone = (
        features(loaded, task.forward, zip(lists, map(inputs_of, task.batches("train", lists)), strict=True), clips)
        for lists in ([list(range(clips))], [[index] for index in range(clips)])
    )
    places = [place for place in together if place in alone]
    assert READ in places
    for place in places:
        found = together[place]
        scale = np.abs(alone[place] - alone[place].mean(0)).max()
        assert np.abs(found - alone[place]).max() < 1e-3 * scale, place


def test_gradients_reach_what_trains_and_batches_may_be_tiny(opened):
    _, task = opened
    loaded = task.build_model()
    seed_everything(0)
    batches = list(task.batches("train", [[0], [], [1, 2, 3]], epoch_seed=1))
    total = sum(task.loss(task.forward(loaded.module, batch), batch).sum() for batch in batches)
    total.backward()
    assert total.isfinite()
    without = {name for name, parameter in loaded.module.named_parameters() if parameter.grad is None}
    assert all("conformer.encoder.pos_conv_embed" in name for name in without)  # which that class never calls
    names = [block.name for block in loaded.blocks]
    assert names[:3] == ["embeddings", "layer.0", "layer.1"]
    assert names[-1] == "head"
    encoder = [
        name for name, _ in loaded.module.named_parameters() if "feature_extractor" in name or "encoder.conv1" in name
    ]
    assert set(encoder) <= set(loaded.blocks[0].parameters)  # the last that unfreezing from the top opens


def test_lengths_are_those_of_the_batches(opened):
    _, task = opened
    lengths = task.lengths("train")
    for index, batch in enumerate(task.batches("train", [[i] for i in range(task.splits["train"])])):
        if "attention_mask" not in batch:
            assert not lengths.any()
        elif "input_values" in batch:
            assert abs(int(batch["attention_mask"].sum()) - lengths[index]) <= 1200  # an MP3 ends with a whole frame


def test_clips_are_cut_and_it_is_said(tmp_path, data, caplog):
    caplog.set_level("INFO")
    task = task_of(audio_model(tmp_path / "m"), data, 0.25)
    task.check_samples(0, 1)
    assert (
        "8 of 12 clips are longer than 0.25 seconds and are cut there (spec.task.audioClassification.maxSeconds)"
        in caplog.text
    )
    [batch] = task.batches("train", [range(task.splits["train"])])
    assert batch["input_values"].shape[1] == 4_000
    assert task.lengths("train").max() == 4_000
    task = task_of(audio_model(tmp_path / "a", "audio-spectrogram-transformer"), data, 20)
    assert "takes 0.655 seconds of a clip: longer ones are cut there, not at" in caplog.text


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_without_padding_is_torchs_own(dtype, autocast):
    plain, masked = torch.nn.GroupNorm(4, 4), MaskedGroupNorm(4, 4)
    masked.frames, masked.number = Frames(), 0
    masked.frames.after = [torch.tensor([9, 9])]
    values = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        if not autocast:
            plain.to(dtype), masked.to(dtype)
        expected, found = plain(values), masked(values)
    assert found.dtype == expected.dtype
    assert torch.allclose(found.float(), expected.float(), atol=0.02 if dtype == torch.bfloat16 else 1e-5)


# Whisper


def test_whispers_positions_are_fixed_and_cut_to_what_is_kept(tmp_path, data):
    folder = audio_model(tmp_path / "m", "whisper")
    whole, short = task_of(folder, data, 2), task_of(folder, data, 0.8)
    for task, positions in ((whole, 100), (short, 50)):
        loaded = task.build_model()
        assert dict(loaded.module.named_buffers())["encoder.embed_positions.weight"].shape == (positions, 16)
        assert "encoder.embed_positions.weight" not in dict(loaded.module.named_parameters())
        [batch] = task.batches("train", [[0, 1]])
        assert batch["input_features"].shape == (2, 80, 2 * positions)
    plain = AutoModelForAudioClassification.from_pretrained(folder)
    assert torch.equal(loaded.module.encoder.embed_positions.weight, plain.encoder.embed_positions.weight[:50].detach())
    assert plain.encoder.embed_positions.weight.requires_grad  # what would train them


def test_whisper_hears_as_many_seconds_as_the_longest_training_clip_has(tmp_path, data, caplog):
    """The mean over thirty seconds of a word is one of silence; runs that began so go on so."""
    folder = audio_model(tmp_path / "m", "whisper", max_source_positions=150)
    caplog.set_level("INFO")

    def positions(task):
        return task.build_model().module.config.max_source_positions

    task = task_of(folder, data)
    task.check_samples(0, 1)
    assert "is made to hear 1 seconds of each clip, as long as the longest one of the training data" in caplog.text
    assert positions(task) == 50
    assert described(make_job(folder, data), task)["described"]["task"]["audioClassification"]["maxSeconds"] == 1
    assert positions(task_of(folder, data, 2.5)) == 150, "as somebody has said"
    job = make_job(folder, data, task={"type": "AudioClassification"})
    begun = job.model_copy(update={"semantics": Semantics(clips="OfModel")})
    assert positions(open_task(begun)) == 150
    assert positions(task_of(audio_model(tmp_path / "s", "whisper", max_source_positions=50), data)) == 50


def test_a_whisper_of_half_seconds_is_refused(tmp_path, data):
    folder = audio_model(tmp_path / "m", "whisper", max_source_positions=75)
    with pytest.raises(
        JobError, match=r"75 positions \(max_source_positions\), which are 1\.5 seconds.* whole seconds"
    ):
        task_of(folder, data, 1.2)
    assert task_of(folder, data, 1).modality.max_seconds == task_of(folder, data).modality.max_seconds == 1


# Folders


def test_a_folder_of_another_model_is_refused(tmp_path, data):
    with pytest.raises(
        JobError, match="transformers has no audio classifier of model_type bert: name a model of audio"
    ):
        load_config(str(bert_folder(tmp_path / "b")), "spec.model.source x")
    with pytest.raises(
        JobError, match="a model of model_type sew says of a clip depends on the lengths of those beside it"
    ):
        load_config(str(audio_model(tmp_path / "s", "sew")), "spec.model.source x")
    folder = audio_model(tmp_path / "m")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        JobError, match=r"no preprocessor_config\.json, which says how sound becomes what the model reads"
    ):
        task_of(folder, data)
    (folder / "preprocessor_config.json").write_text('{"auto_map": {"AutoFeatureExtractor": "x.Y"}}')
    with pytest.raises(JobError, match=r"preprocessor_config\.json"):
        task_of(folder, data)


@pytest.mark.parametrize(
    ("kind", "extractor", "words"),
    [
        (
            "wav2vec2",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "a row of values, .*input_features of shape",
        ),
        ("wav2vec2", {"feature_extractor_type": "ASTFeatureExtractor"}, r"a row of values, .*of shape \(1024, 128\)"),
        ("whisper", {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "input_features, a spectrum of 80 bands"),
        ("whisper", {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}, r"\(128, 3000\)"),
        ("audio-spectrogram-transformer", {"feature_extractor_type": "ASTFeatureExtractor"}, "a spectrum of 32 bands"),
        ("wav2vec2-bert", {"feature_extractor_type": "WhisperFeatureExtractor"}, "a spectrum of 160 bands"),
    ],
)
def test_a_feature_extractor_of_another_model_is_refused(tmp_path, data, kind, extractor, words):
    folder = audio_model(tmp_path / "m", kind)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    with pytest.raises(JobError, match=words) as error:
        task_of(folder, data)
    assert error.value.reason == "InvalidModel"


def test_no_layer_is_left_out_at_random_and_the_export_says_what_the_base_said(tmp_path, data):
    task = task_of(audio_model(tmp_path / "m", layerdrop=0.3), data)
    loaded = task.build_model()
    assert loaded.module.config.layerdrop == 0
    task.export(loaded.module, tmp_path / "out", "Model")
    assert AutoModelForAudioClassification.from_pretrained(tmp_path / "out").config.layerdrop == 0.3
    assert loaded.module.config.layerdrop == 0


def test_a_classifier_of_the_same_labels_goes_on(tmp_path, data):
    task = task_of(audio_model(tmp_path / "m"), data)
    module = task.build_model().module
    with torch.no_grad():
        module.classifier.bias.fill_(3.0)
    task.export(module, tmp_path / "out", "Model")
    options = {"positions": None, "random": False, "seed": 0, "problem_type": "single_label_classification"}
    again, _ = load_audio_model(str(tmp_path / "out"), "x", ["high", "low"], **options)
    other, head = load_audio_model(str(tmp_path / "out"), "x", ["low", "high"], **options)
    assert torch.equal(again.classifier.bias, module.classifier.bias)
    assert not other.classifier.bias.any()
    assert head == {"projector.weight", "projector.bias", "classifier.weight", "classifier.bias"}
