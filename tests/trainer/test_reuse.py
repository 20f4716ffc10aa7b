"""Rows that outlive a job: what is taken from a folder is what was computed, whoever else reads, writes or breaks it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer import features_group
from tests.trainer.engine_group import open_run
from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_api.contracts.resolved import ResolvedCache
from unfreeze_trainer.commands.local import _cache_here
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.features import kept
from unfreeze_trainer.features.cut import Cut, Output, Shape
from unfreeze_trainer.features.kept import Kept, digest
from unfreeze_trainer.features.keys import cut_key
from unfreeze_trainer.features.memory import Rows, Scratch, decoded, encoded
from unfreeze_trainer.features.reuse import COMPARED, Place, Reuse
from unfreeze_trainer.features.room import DISK_BYTES, SHARE, available_disk
from unfreeze_trainer.models.pooled_layers import Pool
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.loop import train

KEY, OTHER = "a" * 64, "b" * 64
PLENTY, ROWS = 2**30, 200


@pytest.fixture(autouse=True)
def room_on_the_disk(monkeypatch):
    monkeypatch.setattr(kept, "_SPARED_BYTES", 0)


def key(number):
    return digest(bytes([number]))


def filled(folder, *numbers, cut=KEY, limit=PLENTY, size=100):
    found = Kept(folder, cut, limit)
    for number in numbers:
        found.add(key(number), bytes([number]) * size)
    found.close()
    return found


def files(folder):
    return sorted(folder.glob("*/*.rows"))


def there(folder, *numbers, size=100):
    found = Kept(folder, KEY, PLENTY)
    return [found.get(key(number), size) == bytes([number]) * size for number in numbers]


def test_rows_that_several_have_written_are_read_by_all(tmp_path):
    both = [Kept(tmp_path, KEY, PLENTY), Kept(tmp_path, KEY, PLENTY)]
    for writer, numbers in zip(both, ([1, 2, 3], [3, 4]), strict=True):
        for number in numbers:
            writer.add(key(number), bytes([number]) * 100)
    for writer in both:
        writer.close()
    assert len(files(tmp_path)) == 2
    assert there(tmp_path, 1, 2, 3, 4, 5) == [True] * 4 + [False]
    filled(tmp_path, 9, cut=OTHER)
    assert there(tmp_path, 9) == [False], "another cut's rows are its own"
    assert Kept(tmp_path, KEY, PLENTY).get(key(1), 99) is None


def test_a_row_that_is_not_as_it_was_written_is_absent_and_the_others_are_read(tmp_path):
    filled(tmp_path, 1, 2)
    [file] = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert there(tmp_path, 1, 2) == [True, False]


@pytest.mark.parametrize("broken", ["head", "count", "cut off", "empty", "renamed", "link", "pipe"])
def test_a_file_that_is_not_what_its_name_says_is_taken_away(tmp_path, broken):
    filled(tmp_path, 1)
    [file] = files(tmp_path)
    content = bytearray(file.read_bytes())
    if broken == "head":
        content[40] ^= 1
    elif broken == "count":
        content[len(kept._MAGIC) : len(kept._MAGIC) + 8] = b"\xff" * 8
    elif broken == "cut off":
        del content[-1]
    elif broken == "empty":
        content.clear()
    file.write_bytes(content)
    if broken in ("renamed", "link", "pipe"):
        file = file.rename(file.with_name(f"{'c' * 64}.rows"))
    if broken in ("link", "pipe"):
        elsewhere = tmp_path / "elsewhere"
        file.rename(elsewhere)
        file.symlink_to(elsewhere) if broken == "link" else os.mkfifo(file)
    assert there(tmp_path, 1) == [False]
    assert files(tmp_path) == []
    assert Kept(tmp_path, KEY, PLENTY, looks=True).get(key(1), 100) is None


def test_what_was_used_longest_ago_makes_room_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / KEY).mkdir()
    (tmp_path / KEY / "notes").write_text("mine")
    for number, cut in enumerate((OTHER, KEY, "c" * 64), 1):
        filled(tmp_path, number, cut=cut)
        for file in (tmp_path / cut).glob("*.rows"):
            os.utime(file, (number, number))
    size = files(tmp_path)[0].stat().st_size
    there(tmp_path, 2)  # is used, and so the newest
    filled(tmp_path, 4, cut="d" * 64, limit=3 * size)
    assert {file.parent.name for file in files(tmp_path)} == {KEY, "c" * 64, "d" * 64}
    own = filled(tmp_path, 5, limit=2 * size)
    assert {file.parent.name for file in files(tmp_path)} == {KEY}
    assert own.written == size
    filled(tmp_path, 6, limit=2 * size)
    assert there(tmp_path, 2, 5, 6) == [True, True, False], "what a job itself uses does not make room for more of it"
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / KEY / "notes").exists()


def test_a_folder_that_cannot_be_used_leaves_a_job_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = filled(tmp_path / "file", 1)
    assert found.written == 0
    assert "is left alone" in caplog.text


def test_what_somebody_else_alone_may_read_is_left_alone(tmp_path, monkeypatch):
    filled(tmp_path, 1)
    filled(tmp_path, 2, cut=OTHER)
    theirs, own = tmp_path / OTHER, files(tmp_path)[0]
    listed, opened = Path.iterdir, os.open

    def denied(path, *arguments, **options):
        if Path(path) in (theirs, own):
            raise PermissionError(13, "denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(
        Path, "iterdir", lambda path: (denied(path), listed(path))[1] if path == theirs else listed(path)
    )
    monkeypatch.setattr(os, "open", denied)
    filled(tmp_path, 3)
    assert there(tmp_path, 1, 3) == [False, True], "one file or folder that may not be read does not end the cache"


def test_more_rows_than_memory_can_note_are_left_where_they_are(tmp_path, monkeypatch):
    filled(tmp_path, 1)
    filled(tmp_path, 2, 3)
    room = int(2 * kept._INDEX_BYTES / kept._INDEX_SHARE)
    monkeypatch.setattr(kept, "available_bytes", lambda: room)
    assert len(Kept(tmp_path, KEY, PLENTY)) in (1, 2)
    assert len(files(tmp_path)) == 2


def test_a_disk_that_others_fill_costs_nobody_the_rows(tmp_path, monkeypatch):
    filled(tmp_path, 1, cut=OTHER)
    monkeypatch.setattr(kept, "_SPARED_BYTES", 2**60)
    assert filled(tmp_path, 2).written == 0
    assert len(files(tmp_path)) == 1


def test_rows_of_this_job_are_found_before_and_after_they_are_written(tmp_path):
    found = Kept(tmp_path, KEY, PLENTY)
    found.add(key(1), b"1" * 9)
    assert (found.get(key(1), 9), found.get(key(1), 8), found.get(key(2), 9)) == (b"1" * 9, None, None)
    found.flush(10)
    assert not files(tmp_path)
    found.flush(9)
    assert found.get(key(1), 9) == b"1" * 9
    assert found.added(key(1))
    found.discard()
    assert (found.get(key(1), 9), found.added(key(1)), files(tmp_path)) == (None, False, [])
    found.add(key(1), b"2" * 9)
    found.close()
    assert Kept(tmp_path, KEY, PLENTY).get(key(1), 9) == b"2" * 9, "what was thrown away is written anew"


def test_the_same_sample_has_the_same_bits_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr("random.SystemRandom", None)  # nothing is drawn where nothing is there
    cut = Cut("part", (0,), {"part": [Output([Shape((None, 2), torch.float32)], None)]}, {})
    reuse = Reuse(Place(tmp_path, PLENTY), KEY, cut)
    batch = {"images": torch.tensor([[1.0], [2.0], [1.0]])}
    lists = [[0], [1]]
    reuse.draw(lists)
    assert (lists, reuse.find(batch)) == ([[0], [1]], {})
    rows = {place: (torch.tensor([value, 0.0]),) for place, value in enumerate((1.0, 2.0, 1.0001))}
    assert [row[0][0].item() for row in reuse.keep(rows).values()] == [1, 2, 1]
    assert reuse.find({"images": torch.tensor([[1.0], [3.0]])})[0][0][0] == 1, "nor is it computed again, or compared"
    assert reuse.taken == 0
    reuse.close()


@pytest.mark.parametrize(("computed", "taken"), [(torch.float32, False), (torch.bfloat16, True)])
def test_what_half_precision_has_computed_may_differ_by_its_rounding(tmp_path, computed, taken):
    cut = Cut("part", (0,), {"part": [Output([Shape((None, 2), torch.float32)], None)]}, {})
    batch = {"images": torch.tensor([[1.0]])}
    for value in (1.0, 1.008):  # of another batch
        reuse = Reuse(Place(tmp_path, PLENTY), KEY, cut, computed)
        found, rows = reuse.find(batch), {0: (torch.tensor([value, 0.0]),)}
        held = reuse.holds(found, rows) if reuse.draw_places() else None
        reuse.keep({} if held else rows)
        reuse.close()
    assert held is taken


def test_some_rows_of_a_batch_are_compared_and_the_others_taken(tmp_path):
    cut = Cut("part", (0,), {"part": [Output([Shape((None, 2), torch.float32)], None)]}, {})
    batch = {"images": torch.arange(64.0)[:, None]}
    rows = {place: (torch.full((2,), float(place)),) for place in range(64)}
    for turn in range(2):
        reuse = Reuse(Place(tmp_path, PLENTY), KEY, cut)
        reuse.draw([[0]])
        found, drawn = reuse.find(batch), reuse.draw_places()
        assert (len(found), len(set(drawn)), reuse.draw_places()) == ((64, COMPARED, []) if turn else (0, 0, []))
        if not turn:
            reuse.keep(rows)
            reuse.close()
    assert reuse.taken == 64 - COMPARED
    assert not reuse.holds(found, {place: (found[place][0] + 1,) for place in drawn})
    assert (reuse.taken, reuse.find(batch)) == (0, {})
    reuse.close()


def test_what_repr_does_not_say_of_a_module_is_part_of_the_key():
    module = nn.Sequential(Pool(["Mean"]), nn.Linear(2, 2))
    cut = Cut("0", (0,), {"0": [Output([Shape((None, 2), torch.float32)], None)]}, {})

    def found():
        return cut_key(module, cut, trained={"1.weight", "1.bias"}, computed="cpu", known={})

    first = found()
    module[1] = nn.Linear(2, 2)
    module.num_labels = 7
    module.eval()
    assert found() == first, "the head, and whether it trains, says nothing of what comes before"
    module[0].modes = ["Max"]
    assert found() != first


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"XDG_CACHE_HOME": "/caches of José"}, "/caches of José/unfreeze/features"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/unfreeze/features"),
        ({"XDG_CACHE_HOME": "", "HOME": "home"}, None),
        ({"XDG_CACHE_HOME": "/caches", "UNFREEZE_FEATURES": "0"}, None),
        ({"XDG_CACHE_HOME": "/data"}, None),
    ],
)
def test_a_place_on_this_machine_that_cannot_be_is_none(monkeypatch, environment, place):
    monkeypatch.setenv("UNFREEZE_FEATURES", "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = _cache_here(make_job("/models/bert", "/data"))
    assert (found and found.path) == place


def test_a_look_changes_nothing(tmp_path):
    assert len(Kept(tmp_path / "none", KEY, PLENTY, looks=True)) == 0
    assert not (tmp_path / "none").exists()
    filled(tmp_path, 1, 2)
    [file] = files(tmp_path)
    os.utime(file, (1, 1))
    assert len(Kept(tmp_path, KEY, PLENTY, looks=True)) == 2
    assert file.stat().st_mtime == 1


def test_rows_lie_in_a_file_where_memory_does_not_do():
    shapes = [Shape((None, 0, 3), torch.bfloat16), Shape((None, 2), torch.int64), Shape((None,), torch.bool)]
    rows = [
        (torch.randn(length, 3).bfloat16(), torch.tensor([length, 7]), torch.tensor(length > 2)) for length in (0, 1, 5)
    ]
    found = Rows(3, shapes, Scratch(1000))
    found.add([2, 0, 1], rows)
    assert found.bytes == sum(len(encoded(row)) for row in rows)
    for index, row in zip([2, 0, 1], rows, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found[index], row, strict=True))
    assert decoded(bytearray(encoded(rows[2])), shapes, 4) is None


def test_the_disk_of_a_pod_is_taken_as_far_as_it_may_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    (tmp_path / "proc/self").mkdir(parents=True)
    mounts = tmp_path / "proc/self/mounts"
    mounts.write_text("overlay / overlay rw 0 0\n")
    assert available_disk(1000, tmp_path) == SHARE * 1000 / 2
    assert 0 < available_disk(None, tmp_path) <= DISK_BYTES / 2
    mounts.write_text("overlay / overlay rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    assert available_disk(None, tmp_path) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reuse")
    bert_folder(folder / "bert", num_hidden_layers=2)
    bert_folder(folder / "other", num_hidden_layers=2, hidden_act="relu")
    write_csv(folder / "texts.csv", rows=ROWS)
    lines = (folder / "texts.csv").read_text().splitlines()
    lines += [f"{line.replace(',', ' river,')}" for line in lines[1:9]]
    (folder / "grown.csv").write_text("\n".join(lines) + "\n")
    return folder


def job_of(folder, cache, *, model="bert", data="texts.csv", seed=0):
    """Return a job that trains the head, in a run folder of its own."""
    job = make_job(
        folder / model,
        folder / data,
        strategy={"type": "FeatureExtraction", "learningRate": {"head": 1e-2}},
        training={"epochs": 3, "batchSize": 20, "seed": seed},
        output={"destination": f"file://{cache}-{model}-{data}-{seed}-{len(list(cache.parent.iterdir()))}"},
    )
    place = ResolvedCache(source=f"file://{cache}", path=str(cache), max_bytes=PLENTY)
    return job.model_copy(update={"cache": place})


def trained(folder, cache, **other):
    """Train a job on one rank; return its weights, and what the cache has done."""
    job = job_of(folder, cache, **other)
    run = open_run(job, open_task(job))
    train(run)
    run.saver.wait()
    run.saver.close()
    weights = {name: value.clone() for name, value in run.engine.weights(run.engine.shapes).items()}
    run.engine.end()
    return weights, run.features.saved


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_second_job_computes_what_is_new(folder, tmp_path):
    cache = tmp_path / "cache"
    [before] = preview(job_of(folder, cache)).cached
    assert (before.reused, cache.exists()) == (0, False)
    first, nothing = trained(folder, cache)
    assert nothing.reused <= 0.25 * ROWS, "a validation sample may be the same as one of training"
    second, again = trained(folder, cache)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.reused > 0.5 * ROWS, "all but those that are compared"
    _, other_seed = trained(folder, cache, seed=1)
    assert other_seed.reused > 0.5 * ROWS
    [shown] = preview(job_of(folder, cache)).cached
    assert shown.reused == 1
    before = sum(file.stat().st_size for file in files(cache))
    _, grown = trained(folder, cache, data="grown.csv")
    assert grown.reused > 0.5 * ROWS
    more = sum(file.stat().st_size for file in files(cache)) - before
    assert 0 < more < 0.4 * before
    _, other = trained(folder, cache, model="other")
    assert other.reused <= 0.25 * ROWS
    assert len(list(cache.iterdir())) == 2, "another base has rows of its own"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_rows_that_somebody_has_made_up_are_not_taken(folder, tmp_path, caplog):
    cache = tmp_path / "cache"
    first, _ = trained(folder, cache)
    for cut in cache.iterdir():
        for file in cut.glob("*.rows"):
            entries = kept._entries(file)
            file.unlink()
            forged = Kept(cache, cut.name, PLENTY)
            for entry in entries:
                row = np.random.default_rng(0).standard_normal(int(entry["size"]) // 4).astype(np.float32)
                forged.add(entry["key"].tobytes(), row.tobytes())
            forged.close()
    again, saved = trained(folder, cache)
    assert saved.reused == 0 or "does not have what the frozen blocks compute" in caplog.text
    for name, weight in first.items():
        torch.testing.assert_close(again[name], weight, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["DDP", "ZeRO-3"])
def test_ranks_share_what_each_has_found(ranks, folder, tmp_path, engine):
    (plain, *_), _ = ranks.call(features_group.shared, engine, folder, "Computed")
    for turn in range(2):
        (found, saved, _), (_, other, _) = ranks.call(
            features_group.shared, engine, folder, "Cached", (tmp_path / "cache", turn)
        )
        for name, weight in plain.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)
        assert (saved.reused + other.reused > 0) is bool(turn)
