"""What a model is tried on before it trains, and what is said of a batch that it fails at."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.trainer.complete import complete
from tests.trainer.interrupted import run_in
from tests.trainer.jobs import bert_folder, image_folder, make_job, timm_folder, write_csv
from tests.trainer.mlp import CLASSES, FEATURES, MLPTask, Net
from tests.trainer.test_unused import assert_same, state_of
from unfreeze_trainer.data import file_loader
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.models import LoadedModel
from unfreeze_trainer.models.batch_norm import accept_single_values
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.trials import trial_batches
from unfreeze_trainer.training.unused import find_unused


def feed_of(samples, batch_size, accumulate, rank=0, world_size=1):
    task = MLPTask()
    task.splits = task.splits | {"train": samples}
    return Feed(task, seed=0, batch_size=batch_size, accumulate=accumulate, rank=rank, world_size=world_size)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 5), st.integers(1, 5))
def test_the_sizes_of_all_micro_batches_are_known(samples, batch_size, accumulate, world_size):
    def on_rank(rank):
        feed = feed_of(samples, batch_size, accumulate, rank, world_size)
        batches = [np.arange(samples)[i : i + batch_size] for i in range(0, samples, batch_size)]
        return {max(1, len(micro)) for batch in batches for micro, *_ in feed._micro_batches(batch)}

    found = set().union(*map(on_rank, range(world_size)))
    assert feed_of(samples, batch_size, accumulate, 0, world_size).sizes() == found


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.sets(st.integers(1, 8), min_size=1, max_size=3))
def test_the_longest_samples_are_the_largest_batch(lengths, sizes):
    batches = trial_batches(np.array(lengths), sizes)
    assert sorted(map(len, batches)) == sorted(sizes)
    if len(lengths) >= sum(sizes):
        assert sorted(lengths)[-len(batches[0]) :] == sorted(lengths[i] for i in batches[0])
        assert max(Counter(i for batch in batches for i in batch).values()) == 1
        if len(batches) > 1:
            assert lengths[batches[-1][-1]] <= min(lengths[i] for i in batches[0])


class Picky(Net):
    """Fails where it is told to."""

    def __init__(self, fails):
        super().__init__(dropout=0.0)
        self.fails = fails

    def forward(self, x):
        if self.fails(x):
            raise IndexError("index out of range")
        return super().forward(x)


class PickyTask(MLPTask):
    def __init__(self, fails, net=Picky):
        super().__init__()
        self.fails, self.net = fails, net
        self.x["train"][:, 0] = torch.arange(22)

    def build_model(self):
        module = self.net(self.fails)
        return LoadedModel(module, [], frozenset())


def tried(fails, sizes=(8, 3), net=Picky):
    task = PickyTask(fails, net)
    module = task.build_model().module
    before, names = state_of(module), [name for name, _ in module.named_parameters()]
    with pytest.raises(JobError) as raised:
        find_unused(task, module, names, autocast=nullcontext, sizes=sizes)
    assert_same(before, state_of(module))
    return raised.value


@pytest.mark.parametrize("culprit", [0, 3, 7, 8, 10])
def test_a_sample_that_fails_alone_is_named(culprit):
    error = tried(lambda x: bool((x[:, 0] == culprit).any()))
    assert error.reason == "InvalidData"
    assert f"train, row {culprit + 1}: the model fails at this sample, not at others" in error.message
    assert "IndexError: index out of range" in error.message


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        (lambda _: True, "a batch of 8 training samples, the first of which is train, row 1: IndexError"),
        (lambda x: len(x) == 8, "a batch of 8 training samples"),
        (lambda x: len(x) == 3, "a batch of 3 training samples, the first of which is train, row 9"),
    ],
)
def test_a_model_that_fails_at_others_too_is_to_blame(fails, words):
    error = tried(fails)
    assert error.reason == "InvalidModel"
    assert words in error.message
    assert error.message.endswith("Choose another one")


def test_a_model_that_takes_no_batch_of_one_is_told_where_the_job_makes_one():
    error = tried(lambda x: len(x) == 1, sizes=(8, 1))
    assert error.reason == "InvalidModel"
    assert "the model takes no batch of one sample" in error.message
    assert "spec.training.batchSize" in error.message
    task = PickyTask(lambda x: len(x) == 1)
    module = task.build_model().module
    find_unused(task, module, ["head.weight"], autocast=nullcontext, sizes=(8, 6))


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), torch.OutOfMemoryError("out of memory")]
)
def test_what_another_machine_may_bear_is_not_blamed_on_the_input(error):
    def fails(_):
        raise error

    task = PickyTask(fails)
    with pytest.raises(type(error)):
        find_unused(task, task.build_model().module, ["head.weight"], autocast=nullcontext)


# BatchNorm


def test_a_single_value_meets_the_running_statistics():
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(8, 3))
    module = nn.Sequential(norm, nn.BatchNorm2d(2))
    accept_single_values(module)
    x = torch.randn(1, 3)
    before = state_of(module)["tensors"]
    assert torch.equal(
        norm(x), nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    module[1](torch.randn(1, 2, 1, 1))
    after = state_of(module)
    assert all(after["modes"])
    assert all(torch.equal(tensor, after["tensors"][name]) for name, tensor in before.items())
    many, plain = torch.randn(4, 3), nn.BatchNorm1d(3)
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm(many), plain(many)), "several are what they always were"
    assert torch.equal(norm.running_var, plain.running_var)
    assert module[1](torch.randn(1, 2, 3, 3)).std() > 0.9, "so are the places of one picture"


def test_one_without_statistics_still_refuses():
    module = nn.BatchNorm1d(FEATURES, track_running_stats=False)
    accept_single_values(module)
    with pytest.raises(ValueError, match="more than 1 value"):
        module(torch.randn(1, FEATURES))


@pytest.mark.parametrize("samples", [1, 2, 22])
def test_a_batch_of_one_before_a_batch_norm_is_tried(samples):
    task = MLPTask(norm=True)
    task.splits = task.splits | {"train": samples}
    module = task.build_model().module
    accept_single_values(module)
    names = [name for name, _ in module.named_parameters()]
    before = state_of(module)
    assert not find_unused(task, module, names, autocast=nullcontext, sizes=(min(samples, 7), 1)).unused
    assert_same(before, state_of(module))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "training",
    [
        {"batchSize": 7},  # 22 samples: an epoch's last batch has one
        {"batchSize": 4, "gradientAccumulationSteps": 4},  # each slice has one
        {"batchSize": 1},
    ],
)
def test_a_model_with_batch_norm_trains_on_batches_of_one(tmp_path, training):
    run = run_in(tmp_path, task=MLPTask(norm=True, dropout=0.0), epochs=2, **training)
    statistics = run.engine.module.norm.running_mean.clone()
    complete(run)
    assert run.state.step == run.plan.total_steps
    assert torch.equal(run.engine.module.norm.running_mean, statistics) == (training["batchSize"] < 7)


# Real models


def test_the_longest_text_is_tried_and_named(tmp_path):
    table = write_csv(tmp_path / "t.csv")
    table.write_text(table.read_text() + f"{'river ' * 30},a\n")
    task = open_task(make_job(bert_folder(tmp_path / "m"), table, data={"validation": {"fraction": 0.1}}))
    module = task.build_model().module
    lengths = task.lengths("train")
    assert lengths.max() == 32
    module.bert.embeddings.position_embeddings.weight.data = torch.zeros(16, 16)  # fewer than config.json says
    module.bert.embeddings.position_embeddings.num_embeddings = 16
    with pytest.raises(JobError, match=r"t\.csv: row 25: the model fails at this sample, not at others") as raised:
        find_unused(task, module, ["classifier.weight"], autocast=nullcontext, sizes=(4,))
    assert raised.value.reason == "InvalidData"


def test_a_picture_size_that_a_model_does_not_take_is_told(tmp_path):
    model = timm_folder(
        tmp_path / "m", "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=1, num_classes=CLASSES
    )
    config = model / "config.json"  # such as older versions of timm wrote
    config.write_text(config.read_text().replace('"fixed_input_size": true', '"fixed_input_size": false'))
    size = {"type": "ImageClassification", "imageClassification": {"imageSize": 48}}
    job = make_job(model, image_folder(tmp_path / "d"), task=size)
    task = open_task(job)
    with pytest.raises(JobError) as raised:
        find_unused(task, task.build_model().module, ["head.weight"], autocast=nullcontext, sizes=(4,))
    assert raised.value.reason == "InvalidModel"
    assert ".png: AssertionError: Input height (48) doesn't match model (32)" in raised.value.message
    assert "Pictures reach it with 48 x 48 pixels: set spec.task.imageClassification.imageSize" in raised.value.message


def test_a_picture_size_that_a_model_cannot_be_built_for_is_told(tmp_path):
    model = timm_folder(tmp_path / "m", "xcit_nano_12_p16_224", embed_dim=32, depth=1, num_heads=2, num_classes=CLASSES)
    size = {"type": "ImageClassification", "imageClassification": {"imageSize": 100}}
    with pytest.raises(
        JobError, match=r"cannot be loaded with spec\.task\.imageClassification\.imageSize 100, which"
    ) as raised:
        open_task(make_job(model, image_folder(tmp_path / "d"), task=size)).build_model()
    assert raised.value.reason == "InvalidModel"


# Reading


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    data = image_folder(folder / "data")
    whole = (data / "red" / "3.png").read_bytes()
    (data / "red" / "3.png").write_bytes(whole[:2000])
    return open_task(make_job(timm_folder(folder / "m"), data, task={"type": "ImageClassification"}))


def test_pictures_are_read_before_the_training(pictures):
    with pytest.raises(JobError, match=r"red/3\.png: it cannot be decoded") as raised:
        pictures.check_samples(0, 1)
    assert raised.value.reason == "InvalidData"


def test_what_there_was_no_time_to_read_is_said(pictures, monkeypatch, caplog):
    monkeypatch.setattr("unfreeze_trainer.modalities.files.READ_SECONDS", 0.0)
    caplog.set_level("INFO")
    pictures.check_samples(0, 1)
    assert "0 of 12 pictures, evenly spread, were read before the training" in caplog.text


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_reading(pictures, monkeypatch, world_size):
    read = []
    monkeypatch.setattr(pictures.modality.loader, "open", lambda _, row: read.append(row))
    for rank in range(world_size):
        pictures.check_samples(rank, world_size)
    assert sorted(read) == list(range(12))


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_beginning_of_the_order_is_evenly_spread(count, most):
    order = file_loader.spread(count)
    assert sorted(order) == list(range(count))
    part = np.sort(order[: min(most, count)])
    gaps = np.diff(np.concatenate([[-1], part, [count]]))
    assert gaps.max() <= 2.7 * count / len(part) + 1
