"""Alignment of pictures, texts and sound: rows that lack one, several encoders of a modality, an export with embed_audio."""

from __future__ import annotations

import json
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn import functional

from tests.trainer.engine_group import open_run
from tests.trainer.jobs import WORDS, audio_model, bert_folder, image_model, make_job, merge, timm_folder
from unfreeze_api.contracts.resolved import Columns, Dataset
from unfreeze_trainer.commands.estimate import estimated
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.data.pairings import absent, read_pairings
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import bridge_layers, export
from unfreeze_trainer.models.bridge import Encoders
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.agreement import Agreement, AgreementOfThree
from unfreeze_trainer.objectives.base import SAMPLES, TARGETS
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.objectives.targets.pairings import ABSENT, connected
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

THREE = ["image", "text", "audio"]
RATE = 16000


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models, and twelve pictures: each has a row with a text and one with a clip; the last four rows have all three."""
    folder = tmp_path_factory.mktemp("places")
    timm_folder(folder / "timm", "resnet10t", num_classes=3)
    image_model(folder / "vit")
    bert_folder(folder / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    audio_model(folder / "whisper", "whisper")
    audio_model(folder / "wav2vec2")
    rng = np.random.default_rng(0)
    rows = []
    for n in range(12):
        pixels = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
        pixels[: 3 * n] += 150
        Image.fromarray(pixels).save(folder / f"{n}.png")
        time = np.arange(RATE // 4 + 400 * n) / RATE
        soundfile.write(folder / f"{n}.wav", 0.3 * np.sin(2 * np.pi * (300 + 100 * n) * time), RATE)
        cells = {"image": f"{n}.png", "text": f"{WORDS[n]} {WORDS[n // 2]}", "audio": f"{n}.wav"}
        parts = (("image", "text"), ("image", "audio")) if n < 8 else (THREE,)
        rows += [{name: cells[name] if name in part else None for name in THREE} for part in parts]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_of(places, run, towers=("timm", "bert", "whisper"), data="rows.jsonl", **change):
    reads = {"timm": "Image", "vit": "Image", "bert": "Text"}
    spec = {
        "model": {
            "source": None,
            "towers": [{"modality": reads.get(one, "Audio"), "source": f"file://{places / one}"} for one in towers],
        },
        "task": {"type": "Alignment", "alignment": {"width": 8}},
        "strategy": {"type": "FeatureExtraction", "learningRate": {"head": 1e-2}},
        "training": {"epochs": 2, "batchSize": 10},
        "output": {"destination": f"file://{run}"},
    }
    return make_job("none", places / data, **merge(spec, change))


# What is learned


def test_two_modalities_are_compared_over_rows_that_have_both_and_each_two_count_alike():
    vectors = torch.randn(7, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    no = ABSENT
    cells = torch.tensor([[0, 0, no], [1, 1, no], [2, 2, no], [2, no, 5], [3, no, 6], [4, no, 7], [5, no, 8]])
    found = Agreement(encoder("Pairings")(cells.numpy(), "train"), THREE, 8).losses(vectors, cells)
    means = []
    for rows, other in ((slice(0, 3), 1), (slice(3, 7), 2)):
        scores = vectors[rows, 0] @ vectors[rows, other].T
        own = torch.arange(len(scores))
        means += [functional.cross_entropy(way, own) for way in (scores, scores.T)]
    assert found.mean().item() == pytest.approx(float(sum(means)) / 4)


def test_what_a_row_lacks_is_no_cell_in_common():
    cells = np.array([[0, ABSENT, 0], [1, ABSENT, 1], [1, 3, ABSENT], [ABSENT, 4, 2], [ABSENT, 4, 3]])
    assert connected(cells).tolist() == [0, 1, 1, 2, 2]


def test_recall_is_of_each_direction_over_the_rows_that_have_both():
    vectors = functional.normalize(torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors[:3, 1] = vectors[:3, 0]
    cells = torch.tensor([[0, 0, 0], [1, 1, ABSENT], [2, 2, ABSENT], [3, ABSENT, 1], [4, ABSENT, 2], [5, ABSENT, 3]])
    metrics = AgreementOfThree(THREE, 4)
    rows = metrics.rows(vectors, {TARGETS: cells, SAMPLES: torch.arange(6)})
    found = metrics.compute(metrics.new_state(), rows)
    assert set(found) == set(AgreementOfThree.names)
    assert found["imageToTextRecallAt1"] == found["textToImageRecallAt1"] == 1
    both = [0, 3, 4, 5]
    nearest = (vectors[both, 2] @ vectors[both, 0].T).argmax(dim=1)
    assert found["audioToImageRecallAt1"] == pytest.approx(float((nearest == torch.arange(4)).double().mean()))
    assert found["textToAudioRecallAt1"] == 1, "one row has both"


def test_encoders_compute_what_there_is_alone():
    seen = []

    def features(module, inputs):
        seen.append(len(inputs["x"]))
        return module(inputs["x"])

    made = Encoders({"image": torch.nn.Identity()}, {"image": features}, {"image": "image"})
    values = torch.arange(8.0).view(4, 2) + 1
    present = torch.tensor([True, False, False, True])
    [found] = made({"image.x": values, "image.present": present})
    assert torch.equal(found, values * present[:, None])
    [found] = made({"image.x": values, "image.present": torch.zeros(4, dtype=torch.bool)})
    assert torch.equal(found, torch.zeros(4, 2))
    assert seen == [2, 1]


# What is read


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"image": "0.png", "text": "a", "audio": "0.wav"}, {"image": "1.png", "text": "", "audio": None}],
            "filled in row 2: fill in another one",
        ),
        ([{"image": "0.png", "text": "a", "audio": None}], "column 'audio' is empty in all rows"),
        ([{"image": "0.png", "text": "a", "audio": "none.wav"}], "row 1, column 'audio': no such audio file"),
        ([{"image": "0.png", "text": "a", "audio": "1.png"}], "1.png"),
    ],
)
def test_what_cannot_be_read_is_named(places, tmp_path, rows, said):
    table = places / f"broken-{abs(hash(said))}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(JobError) as error:
        look(job_of(places, tmp_path, data=table.name))
    assert said in str(error.value)


def test_the_first_rows_of_a_table_may_lack_a_modality(places):
    lines = (places / "rows.jsonl").read_text().splitlines()
    table = places / "sorted.jsonl"
    table.write_text("\n".join(sorted(lines, key=lambda line: json.loads(line)["audio"] is not None)[:8]) + "\n")
    dataset = Dataset(source="", path=str(table), columns=Columns())
    source = read_pairings(dataset, "here", modalities=THREE, kind=encoder("Pairings"), head=True)
    assert absent(source, "audio").all()
    assert not absent(source, "text").any()


def test_a_line_without_a_key_lacks_that_cell_and_a_key_that_no_line_has_is_named(places):
    rows = [json.loads(line) for line in (places / "rows.jsonl").read_text().splitlines()]
    lines = [json.dumps({key: cell for key, cell in row.items() if cell}) for row in rows]
    (places / "keys.jsonl").write_text("\n".join(lines) + "\n")
    options = {"modalities": THREE, "kind": encoder("Pairings")}
    found, expected = (
        read_pairings(Dataset(source="", path=str(places / name), columns=Columns()), "here", **options)
        for name in ("keys.jsonl", "rows.jsonl")
    )
    assert found.inputs.to_pylist() == expected.inputs.to_pylist()
    wrong = Dataset(source="", path=str(places / "keys.jsonl"), columns=Columns(audio="sound"))
    with pytest.raises(JobError, match=r"here: no column 'sound'. The columns are 'image', 'text', 'audio'"):
        read_pairings(wrong, "here", **options)


def test_what_a_row_of_bytes_lacks_stays_absent(places, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = [json.loads(line) for line in (places / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {name: (places / row[name]).read_bytes() for name in ("image", "audio") if row[name]}
    table = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), table)
    dataset = Dataset(source="", path=str(table), columns=Columns())
    source = read_pairings(dataset, "here", modalities=THREE, kind=encoder("Pairings"))
    for modality in THREE:
        assert absent(source, modality).tolist() == [not row[modality] for row in rows]


# Whole jobs


@pytest.mark.slow
@pytest.mark.parametrize("towers", [("timm", "vit", "bert", "whisper"), ("wav2vec2", "bert", "vit")])
def test_three_modalities_agree_and_their_export_is_loaded_by_its_script(places, tmp_path, towers):
    job = job_of(places, tmp_path / "run", towers)
    run = open_run(job, open_task(job))
    train(run)
    with patch.object(export, "reload", plain_outputs):
        finish(run)
    run.saver.close()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["results"]["validation"].keys() <= {*AgreementOfThree.names}
    assert "loss" in report["results"]["validation"]
    if towers[0] == "timm":
        assert run.task.saved.hits > 0, "frozen encoders compute once"
        assert (tmp_path / "run" / "model" / "image2" / "config.json").exists()
    loaded = bridge_layers.load(str(tmp_path / "run" / "model"))
    assert loaded.audio_rate == RATE
    clip, _ = soundfile.read(places / "3.wav", dtype="float32")
    with Image.open(places / "3.png") as picture:
        found = loaded.embed_audio([clip]), loaded.embed_image([picture]), loaded.embed_text(["how", "what"])
    assert [tuple(one.shape) for one in found] == [(1, 8), (1, 8), (2, 8)]
    for one in found:
        torch.testing.assert_close(one.norm(dim=1), torch.ones(len(one)))


@pytest.mark.slow
def test_what_rows_lack_is_estimated_as_if_it_was_there(places, tmp_path):
    found, _ = estimated(job_of(places, tmp_path / "run"), limit=None)
    assert [phase.name for phase in found.traced.phases] == ["head"]
    assert found.traced.peak > 4 * found.traced.parameters
