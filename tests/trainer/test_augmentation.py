"""How training pictures are varied and mixed: as timm does it, and by seed, epoch and index alone."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import timm.data.auto_augment as plain
import torch
from PIL import Image
from timm.data import random_erasing
from timm.data.mixup import Mixup, cutmix_bbox_and_lam, mixup_target
from timm.loss import SoftTargetCrossEntropy

from tests.trainer.audio_group import work_until
from tests.trainer.jobs import image_folder, image_model, make_job, timm_folder
from tests.trainer.ranks import run_gang
from unfreeze_api.tasks.image_classification import ImageClassificationSpec
from unfreeze_trainer.data.augmentation import Variation, erased
from unfreeze_trainer.data.mixing import SHARES, Mix, Mixing, mixed
from unfreeze_trainer.data.policies import _ImageOps, open_policy
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.models.image import timm_input
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.runs.checkpoints import Checkpoints, Identity
from unfreeze_trainer.tasks import open_task

POLICIES = {
    "rand-m7-mstd0.5-n3-inc1": {"randAugment": {"magnitude": 7, "numLayers": 3}},
    "rand-m5-mstd0.0-n2-inc0": {"randAugment": {"magnitude": 5, "magnitudeStd": 0, "increasing": False}},
    "original": {"autoAugment": {}},
    "originalr-mstd0.5": {"autoAugment": {"policy": "OriginalR", "magnitudeStd": 0.5}},
    "v0": {"autoAugment": {"policy": "V0"}},
    "v0r": {"autoAugment": {"policy": "V0R"}},
    "3a": {"autoAugment": {"policy": "ThreeAugment"}},
    "augmix-m3-w3": {"augMix": {}},
    "augmix-m5-w2-d2": {"augMix": {"magnitude": 5, "width": 2, "depth": 2}},
}
ALL = {"randAugment": {}, "randomErasing": {"probability": 0.5}, "mixUp": {}, "cutMix": {}}


def sees(channels=3):
    config = {"input_size": (channels, 24, 20), "interpolation": "bicubic", "crop_pct": 0.9}
    return timm_input(config | {"mean": (0.4, 0.5, 0.6)[:channels], "std": (0.2,) * channels}, (24, 20))


def picture(seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 28, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def options(**given):
    return ImageClassificationSpec.model_validate(given)


# Policies


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_timms_own(name, monkeypatch):
    monkeypatch.setattr(plain, "ImageOps", _ImageOps())  # without it timm fails at pictures of no bits
    policy = open_policy(options(**POLICIES[name]), sees())
    given = {"translate_const": 9, "img_mean": (102, 128, 153), "interpolation": Image.Resampling.BICUBIC}
    kind = {"r": plain.rand_augment_transform, "a": plain.augment_and_mix_transform}
    make = plain.auto_augment_transform if name[0] in "ov3" else kind[name[0]]
    own = make(name, given | ({"translate_pct": 0.3} if name.startswith("aug") else {}))
    varied = set()
    for seed in range(25):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - timm's own
        expected = np.array(own(picture()))
        assert np.array_equal(np.array(policy(picture(), seed)), expected), seed
        varied.add(expected.tobytes())
    assert len(varied) > 3


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_takes_grey_pictures(name):
    policy = open_policy(options(**POLICIES[name]), sees(1))
    for seed in range(25):
        found = policy(picture(mode="L"), seed)
        assert (found.mode, found.size) == ("L", (28, 30))


def generators():
    """The state of those that the whole process draws from."""
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize(
    "given", [*POLICIES.values(), {"randomErasing": {}}, ALL, {"augmentation": "None"} | ALL], ids=str
)
def test_what_a_picture_becomes_depends_on_epoch_and_index_alone(given):
    """Whatever thread varies it, in whatever order; and nobody else's lots are drawn."""
    vary = Variation(options(**given), sees())
    before = generators()
    alone = [vary(picture(index), index, 7) for index in range(20)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda index: vary(picture(index), index, 7), reversed(range(20))))
    assert all(torch.equal(one, other) for one, other in zip(alone, reversed(together), strict=True))
    assert not all(torch.equal(one, vary(picture(index), index, 8)) for index, one in enumerate(alone))
    assert generators() == before


def test_without_options_pictures_are_varied_as_ever():
    """By the draws of the first version, in its order."""
    vary, given = Variation(options(), sees()), Variation(options(mixUp={}), sees())
    rng = np.random.default_rng([3, 5])
    assert torch.equal(vary(picture(), 5, 3), given(picture(), 5, 3))
    assert rng.uniform(0.08, 1) == np.random.default_rng([3, 5]).uniform(0.08, 1)


class Lots:
    """Python's `random` by numpy's generator."""

    def __init__(self, rng):
        self._rng = rng
        self.uniform = rng.uniform

    def randint(self, low, high):
        return int(self._rng.integers(high - low + 1)) + low

    def random(self):
        return 0.0


def test_an_erased_rectangle_is_timms(monkeypatch):
    one = random_erasing.RandomErasing(1, mode="const", device="cpu")
    for seed in range(50):
        monkeypatch.setattr(random_erasing, "random", Lots(np.random.default_rng(seed)))
        timms, pixels = one(torch.ones(3, 24, 20)), torch.full((3, 24, 20), 9.0)
        ours = erased(pixels, np.random.default_rng(seed))
        assert torch.equal(ours != 9, timms == 0)
        assert (pixels == 9).all()
        assert 0.005 < (ours != 9).float().mean() < 0.45


# Mixtures


def test_a_mixture_is_timms_for_the_same_share(monkeypatch):
    first, second = torch.randn(2, 3, 24, 20)
    for share in (0.0, 0.3, 0.99):
        mixer = Mixup(mode="elem")
        monkeypatch.setattr(mixer, "_params_per_elem", lambda n: (np.full(n, share), np.zeros(n, dtype=bool)))  # noqa: B023
        pair = torch.stack([first, second])
        mixer._mix_elem(pair)
        assert torch.equal(mixed(first, second, Mix(1, share, cut=False))[0], pair[0])
        for middle in ((0.0, 0.0), (0.5, 0.99), (0.31, 0.77)):
            lots = iter((int(middle[0] * 24), int(middle[1] * 20)))
            monkeypatch.setattr(np.random, "randint", lambda *_, **__: next(lots))  # noqa: B023
            (top, bottom, left, right), left_of = cutmix_bbox_and_lam((3, 24, 20), share)
            ours, told = mixed(first, second, Mix(1, share, cut=True, middle=middle))
            expected = first.clone()
            expected[:, top:bottom, left:right] = second[:, top:bottom, left:right]
            assert torch.equal(ours, expected)
            assert told == left_of


def test_shares_and_partners_are_drawn_as_asked():
    mixing = Mixing(options(mixUp={"alpha": 0.2}, cutMix={"alpha": 1}))
    mixes = [mixing.of(index, 3, 10) for index in range(4000)]
    assert {mix.partner for mix in mixes} == set(range(10))
    assert np.mean([mix.cut for mix in mixes]) == pytest.approx(0.5, abs=0.03)
    for cut, alpha in ((False, 0.2), (True, 1)):
        shares = np.array([mix.share for mix in mixes if mix.cut == cut])
        assert shares.mean() == pytest.approx(0.5, abs=0.04)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    chances = np.array([0.0, 0.9, 0.1]).cumsum()
    drawn = np.bincount([mixing.of(index, 3, 3, chances).partner for index in range(4000)], minlength=3) / 4000
    assert drawn == pytest.approx([0, 0.9, 0.1], abs=0.03)
    assert {Mixing(options(cutMix={})).of(index, 3, 9).cut for index in range(50)} == {True}
    assert {Mixing(options(mixUp={})).of(index, 3, 9).cut for index in range(50)} == {False}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a task with options."""
    folder = tmp_path_factory.mktemp("mixed")
    model, data = timm_folder(folder / "m"), image_folder(folder / "d", 10, ("blue", "green", "red"))

    @cache
    def task(given, workers=1):
        return open_task(
            make_job(
                model,
                data,
                task={"type": "ImageClassification", "imageClassification": {"imageSize": 16} | json.loads(given)},
                training={"batchSize": 5},
                distribution={"numNodes": workers},
            )
        )

    return task


@pytest.mark.slow
def test_mixed_labels_are_timms_soft_targets(opened):
    task = opened(json.dumps({"mixUp": {"alpha": 2}, "labelSmoothing": 0.1}))
    [batch] = task.batches("train", [[0, 5, 9, 12]], epoch_seed=4)
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ours = task.loss(outputs, batch)
    for i, loss in enumerate(ours):
        both = torch.stack([batch[TARGETS][i], batch["other_labels"][i]])  # timm pairs a batch with itself turned round
        soft = mixup_target(both, 3, batch[SHARES][i].item(), smoothing=0.1)[:1]
        assert loss.item() == pytest.approx(SoftTargetCrossEntropy()(outputs[i : i + 1], soft).item(), rel=1e-5)
    [held] = task.batches("validation", [[0, 1]])
    assert set(held) == {"images", TARGETS}
    [blank] = task.batches("train", [[]], epoch_seed=4)
    assert task.loss(torch.randn(1, 3), blank).tolist() == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", [ALL, {"cutMix": {}, "sampling": "Balanced"}, {"mixUp": {}, "labels": "Multi"}], ids=str
)
def test_workers_and_where_a_run_resumes_change_no_picture(opened, given):
    def seen(workers, first):
        found = {}
        for rank in range(workers):
            task = opened(json.dumps(given))
            feed = Feed(task, seed=3, batch_size=5, accumulate=2, rank=rank, world_size=workers)
            for number, micros in feed.steps(first, 8):
                for micro in micros:
                    keys = [key for key in micro.tensors if key != "samples"]
                    for row in range(micro.samples):
                        cells = tuple(micro.tensors[key][row].numpy().tobytes() for key in keys)
                        found.setdefault(number, []).append(cells)
        return {number: sorted(cells) for number, cells in found.items()}

    whole = seen(1, 0)
    assert len(whole) == 8
    assert seen(2, 0) == whole
    assert seen(3, 5) == {number: cells for number, cells in whole.items() if number >= 5}


@pytest.mark.slow
def test_a_partner_that_cannot_be_read_leaves_a_picture_as_it_is(tmp_path):
    data = image_folder(tmp_path / "d", 10)
    for label in ("blue", "red"):
        for number in (1, 3, 5, 7):
            (data / label / f"{number}.png").write_bytes(b"no picture")
    task = open_task(
        make_job(
            timm_folder(tmp_path / "m"),
            data,
            task={"type": "ImageClassification", "imageClassification": {"imageSize": 16, "mixUp": {"alpha": 2}}},
            data={"onError": "Skip"},
        )
    )
    [batch] = task.batches("train", [range(task.splits["train"])], epoch_seed=4)
    unread = task.unread["train"]
    assert unread
    losses = task.loss(torch.randn(len(batch[TARGETS]), 2), batch)
    for index in range(task.splits["train"]):
        assert (losses[index] == 0) == (index in unread)
        if index in unread or batch["other_labels"][index] == -100:
            assert batch[SHARES][index] == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory, ranks):
    """A function that returns the folder of a run by so many workers, killed once after a step."""
    folder = tmp_path_factory.mktemp("augmented")
    model, train = image_model(folder / "m", drop_path_rate=0.1), image_folder(folder / "d", 8, ("a", "b", "c"))

    @cache
    def run(world, killed=None):
        place = folder / f"run-{world}-{killed}"
        job = make_job(
            model,
            train,
            task={"type": "ImageClassification", "imageClassification": ALL},
            training={"epochs": 2, "batchSize": 6, "checkpoint": {"everySteps": 2}},
            distribution={"numNodes": world, "engine": "DDP"},
            output={"destination": f"file://{place}"},
        )
        if killed is not None:
            assert -9 in run_gang(world, work_until, job, folder / "log", killed)
        assert run_gang(world, work_until, job, folder / "log", None) == [0] * world, (folder / "log").read_text()[
            -3000:
        ]
        checkpoints = Checkpoints(place, Identity("", {}))
        return checkpoints.load(checkpoints.steps()[0])

    return run


@pytest.mark.slow
def test_a_killed_run_ends_as_the_undisturbed_one_bit_for_bit(runs):
    whole, killed = runs(2), runs(2, 3)
    assert whole.weights.keys() == killed.weights.keys()
    assert all(torch.equal(tensor, killed.weights[name]) for name, tensor in whole.weights.items())


@pytest.mark.slow
def test_workers_change_a_run_by_rounding_alone(runs):
    one, two = runs(1), runs(2)
    for name, tensor in one.weights.items():
        assert (tensor - two.weights[name]).abs().max() < 2e-4, name
