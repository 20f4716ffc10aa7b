"""The block cache: where a forward pass can start, what is kept of each sample, and that nothing is learned otherwise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer import features_group
from tests.trainer.jobs import bert_folder, write_csv
from unfreeze_trainer.features import cached
from unfreeze_trainer.features.cached import CachedTask, _Pace
from unfreeze_trainer.features.cut import MASK, Start, padded, rows_of
from unfreeze_trainer.features.find import Probe, find_cut
from unfreeze_trainer.features.memory import Rows
from unfreeze_trainer.features.room import SHARE, available_bytes
from unfreeze_trainer.models.bridge import Encoders

WIDTH = 5
TOLERANCE = 1e-5
"""Between weights that sums over other batches have led to: 80 steps at a rate of 1e-2."""


class Places(nn.Module):
    """Where each token stands, as rotary positions: nothing of a sample."""

    def forward(self, ids):
        return torch.cos(torch.arange(ids.shape[1]))[None, :, None]


class Layer(nn.Linear):
    """Has something to say to whoever calls it: what it is, and what it has seen."""

    share, seen = 1.5, 0.0

    def forward(self, x):
        self.seen = x[:, 0].mean()
        return super().forward(x)


class Encoder(nn.Module):
    """Three layers over tokens, a pooling of those that count, and a head."""

    def __init__(self, skip=False, dropout=0.0, mixes=False, places=False, remembers=False):
        super().__init__()
        self.embeddings = nn.Embedding(20, WIDTH)
        self.places = Places() if places else None
        self.layers = nn.ModuleList(Layer(WIDTH, WIDTH) for _ in range(3))
        self.dropout, self.skip, self.mixes, self.remembers = nn.Dropout(dropout), skip, mixes, remembers
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, ids, mask):
        first = x = self.embeddings(ids)
        turn = self.places(ids) if self.places else 1
        for layer in self.layers:
            x = self.dropout(torch.tanh(layer(layer.share * turn * x)))
            if self.mixes:
                x = x - x.mean(dim=0)
        if self.skip:
            x = x + first
        if self.remembers:
            x = x + self.layers[2].seen
        weights = mask[:, :, None].float()
        return self.head((x * weights).sum(1) / weights.sum(1))


def batches():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (2, 8), generator=generator)
    mask = torch.ones(2, 8, dtype=torch.int64)
    ids[1, 4:] = mask[1, 4:] = 0
    return [{"ids": ids, MASK: mask}, {"ids": ids[1:, :4].expand(3, 4), MASK: mask[1:, :4].expand(3, 4)}]


def cut_of(module, *trained):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    return find_cut(Probe(module, batches(), lambda batch: module(batch["ids"], batch[MASK])))


@pytest.mark.parametrize(
    ("trained", "path"), [(("head",), "layers.2"), (("head", "layers.2"), "layers.1"), (("layers.0",), "embeddings")]
)
def test_a_cut_is_the_last_module_before_what_trains(trained, path):
    torch.manual_seed(0)
    module = Encoder()
    cut = cut_of(module, *trained)
    assert cut.path == path
    assert cut.row_bytes(7) == 7 * WIDTH * 4


@pytest.mark.parametrize("places", [False, True], ids=["", "all layers read places"])
def test_a_pass_that_starts_at_a_cut_gives_what_the_whole_one_gives_and_computes_nothing_below(places):
    torch.manual_seed(0)
    module = Encoder(places=places)
    cut = cut_of(module, "head", "layers.2")
    assert cut.path == "layers.1"
    batch, other = batches()

    def forward():
        return module(batch["ids"], batch[MASK])

    values = cut.capture(module, forward, stop=True)
    alone = rows_of(cut.capture(module, lambda: module(other["ids"], other[MASK]), stop=True), cut.shapes, other)
    rows = [rows_of(values, cut.shapes, batch)[0], alone[0]]
    expected = forward()
    with torch.no_grad():
        module.embeddings.weight.fill_(torch.nan)
        module.layers[0].weight.fill_(torch.nan)
    with Start(module, cut).at(padded(rows, cut.shapes, batch), 8):
        torch.testing.assert_close(forward(), expected)
    assert [name for name, _ in module.named_modules()] == [name for name, _ in Encoder(places=places).named_modules()]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"skip": True}, "embeddings"),
        ({"mixes": True}, "gives all that the blocks that train read"),
        ({"dropout": 0.5}, "layers.0"),
        ({"remembers": True}, "layers.1"),
    ],
    ids=["a skip connection across the cut", "samples that are mixed", "dropout in between", "what a layer remembers"],
)
def test_a_model_that_cannot_start_at_the_top_is_recognised_by_running_it(options, found):
    torch.manual_seed(0)
    cut = cut_of(Encoder(**options).train(), "head")
    assert found in (cut if isinstance(cut, str) else cut.path)


def test_rounding_of_half_precision_is_no_dependence_on_neighbours():
    torch.manual_seed(0)
    module, mixing = Encoder(), Encoder(mixes=True)
    for part in (module, mixing):
        for name, parameter in part.named_parameters():
            parameter.requires_grad_(name.startswith("head"))

    def rounded(part, batch):  # as kernels do that are chosen by the size of a batch
        handle = part.embeddings.register_forward_hook(lambda _, __, output: output * (1 + 0.1 * len(output)))
        try:
            return part(batch["ids"], batch[MASK])
        finally:
            handle.remove()

    for part, found in ((module, "layers.2"), (mixing, "no module")):
        probe = Probe(
            part,
            batches(),
            lambda batch, part=part: rounded(part, batch),
            exact=lambda batch, part=part: part(batch["ids"], batch[MASK]),
        )
        cut = find_cut(probe)
        assert found in (cut if isinstance(cut, str) else cut.path)


def test_what_the_rest_reads_of_inputs_that_are_not_there_any_more_is_missed():
    torch.manual_seed(0)
    module = Encoder()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    wanted = [(["ids"], "layers.2"), (["ids", MASK], "no module")]  # the pooling reads the mask
    for inputs, found in wanted:
        cut = find_cut(Probe(module, batches(), lambda batch: module(batch["ids"], batch[MASK]), inputs))
        assert found in (cut if isinstance(cut, str) else cut.path)


def test_values_are_kept_in_the_type_that_the_cut_says():
    torch.manual_seed(0)
    module = Encoder()
    cut = cut_of(module, "head")
    task = SimpleNamespace(forward=lambda module, batch: module(batch["ids"], batch[MASK]))
    engine = SimpleNamespace(
        divides=True, to_device=lambda batch: batch, autocast=lambda: torch.autocast("cpu", torch.bfloat16)
    )
    with torch.no_grad():
        values, _ = CachedTask(task, engine)._computed(module, cut, batches()[0])
    assert [value.dtype for value in values] == [shape.dtype for shape in cut.shapes] == [torch.float32]


def test_rows_go_from_one_worker_to_another():
    torch.manual_seed(0)
    module = Encoder()
    shapes = cut_of(module, "head").shapes
    rows, others = Rows(6, shapes), Rows(6, shapes)
    for index, length in ((1, 3), (4, 2), (5, 7)):
        rows.add([index], [(torch.randn(length, WIDTH),)])
    for part in rows.packed([1, 4, 5]):
        others.unpack(part)
    assert (others.count, others.bytes) == (3, rows.bytes) == (3, 12 * WIDTH * 4)
    assert all(torch.equal(others[index][0], rows[index][0]) for index in (1, 4, 5))


def test_of_some_samples_all_texts_are_taken():
    """A prompt of each stands behind the texts of all, as in an evaluation of ImageText."""
    batch = {"images": torch.arange(3), "texts": torch.tensor([[0], [1], [2], [10], [11], [12]])}
    part = cached._part(batch, [0, 2])
    assert {name: tensor.flatten().tolist() for name, tensor in part.items()} == {
        "images": [0, 2],
        "texts": [0, 2, 10, 12],
    }


def test_encoders_side_by_side_remember_nothing_that_memory_has_no_room_for(monkeypatch):
    encoders, remembers = Encoders({}, {}, {}), []
    monkeypatch.setattr(CachedTask, "_fill_once", lambda *_: remembers.append(encoders._keys is not None))
    monkeypatch.setattr(cached, "split_bytes", lambda *_: 100)
    task = CachedTask(None, SimpleNamespace(module=nn.Sequential(encoders)))
    for room, scratch in ((200, None), (199, None), (200, object())):
        monkeypatch.setattr(cached, "available_bytes", lambda room=room: room)
        task._fill(None, "train", None, None, scratch)
    assert remembers == [True, False, False], "rows that lie on the disk do so since there is no room"


def test_a_cache_takes_its_share_of_what_machine_and_container_have_free(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_bytes(tmp_path) == SHARE * 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert available_bytes(tmp_path) == SHARE * 4000 * 1024
    (group / "memory.max").write_text("3000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert available_bytes(tmp_path) == SHARE * 2000 / 2
    (group / "memory.stat").write_text("anon 300\ninactive_file 600\n")
    assert available_bytes(tmp_path) == SHARE * 2600 / 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("MASTER_ADDR", "job-train-0.job-trainers")
    assert available_bytes(tmp_path) == SHARE * 2600 / 2
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # `unfreeze run` has two agents here
    assert available_bytes(tmp_path) == SHARE * 2600 / 4


def test_a_limit_of_the_first_version_of_control_groups_counts(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    group = tmp_path / "sys/fs/cgroup/memory"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    (group / "memory.usage_in_bytes").write_text("1000\n")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 600\n")
    for limit, free in ((9223372036854771712, 4000 * 1024), (3000, 2600)):
        (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
        assert available_bytes(tmp_path) == SHARE * free


def test_what_a_sample_takes_goes_with_its_length_as_far_as_batches_tell():
    pace = _Pace()
    assert pace.seconds() == 0.0
    pace.note(40.0, np.array([20, 20]))
    pace.settle(np.array([10, 20]))
    assert pace.seconds() == pytest.approx(15.0), "one batch alone, as if time went with length"
    pace.note(90.0, np.array([9, 9]))
    for length in range(1, 9):
        pace.note(2 * (3.0 + 0.5 * length), np.array([length, length]))
    assert pace.seconds() == pytest.approx(3.0 + 0.5 * 15), "the first one of each split was slow"
    assert pace.seconds(2.0) == pytest.approx(3.0 + 0.5 * 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    bert_folder(folder / "bert", num_hidden_layers=2)
    write_csv(folder / "texts.csv", rows=40)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["DDP", "FSDP", "ZeRO-1", "ZeRO-3"])
def test_a_job_learns_the_same_with_and_without_the_cache_and_after_a_resume(ranks, folder, engine):
    (plain, nothing, _), _ = ranks.call(features_group.trained, engine, folder, "Computed")
    (cached, *saved), (_, *others) = ranks.call(features_group.trained, engine, folder, "Cached")
    assert nothing.hits == 0
    samples = 30
    for found, cuts in (saved, others):
        assert cuts == {0: "bert.encoder", 1: "bert.encoder", 2: "bert.encoder.layer.0"}, (
            "head and top layer share theirs"
        )
        assert found.hits > 2 * samples
        assert found.bytes == 0, "the last phase is read too seldom to keep anything"
    features_group.forget_after(15, folder / f"{engine}-Cached")
    (resumed, again, _), _ = ranks.call(features_group.trained, engine, folder, "Cached", 15)
    assert again.hits > 0
    for name, weight in plain.items():
        torch.testing.assert_close(cached[name], weight, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=TOLERANCE)
