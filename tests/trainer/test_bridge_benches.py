"""The pure parts of the benchmarks of bridges: neighbours, accuracy, contrast; and how four bits become weights."""

import json
import struct

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from bench.alignment import _fewer
from bench.encoders import NEIGHBOURS, neighbours
from bench.languages import translations
from bench.support.frozen import Rows, contrast, hits_of
from bench.words import accuracy, alike, centred
from examples.prepare_multilingual import BLOCK, PREFIX, prefixed, read_weights, renamed, unpacked


def test_neighbours_are_of_the_same_kind_where_kinds_lie_apart():
    rng = np.random.default_rng(0)
    kinds = np.repeat(["animals", "food"], NEIGHBOURS + 1)
    apart = rng.normal(size=(len(kinds), 4)) + np.where(kinds == "food", 100, -100)[:, None]
    assert neighbours(apart, kinds) == 1
    assert neighbours(apart + 1e4, kinds) == pytest.approx(1)  # what all have in common tells nothing
    assert neighbours(apart, rng.permutation(kinds)) == pytest.approx(0.5, abs=0.15)


def test_kinds_are_the_folders_of_stamps():
    assert Rows(["pictures/food-fruit-apple.png", "pictures/town-a.png"], ["", ""]).kinds.tolist() == ["food", "town"]


def test_accuracy_has_an_interval_over_draws_and_pictures():
    figures = accuracy("probe", np.tile([True, False], (3, 50)))
    assert figures["probe"] == 0.5
    low, high = figures["probe 95 %"]
    assert 0.35 < low < 0.5 < high < 0.65


def test_probes_read_rows_that_are_alike_and_centred_by_training():
    values = np.random.default_rng(0).normal(5, 3, (20, 8))
    assert np.allclose(alike(values).std(axis=1), 1)
    probed = centred({"train": values, "test": values[:2] + 1})
    assert np.allclose(probed["train"].mean(axis=0), 0)
    assert probed["train"].std() == pytest.approx(1)
    assert (probed["test"] > probed["train"][:2]).all()


def test_contrast_is_cross_entropy_both_ways_without_what_is_no_negative():
    vectors = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    scores = vectors[:, 0] @ vectors[:, 1].T
    own = torch.arange(3)
    both = (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2
    same = torch.zeros(3, 3, dtype=torch.bool)
    torch.testing.assert_close(contrast(vectors, same), both)
    same[0, 1] = same[1, 0] = True
    assert contrast(vectors, same) < both


def test_what_scores_highest_is_found():
    assert hits_of(np.array([[0.1, 0.9], [0.2, 0.8]]), np.eye(2, dtype=bool)).tolist() == [0, 1]


def test_fewer_clips_leave_each_picture_its_text(tmp_path):
    rows = [{"image": str(n), "text": "a", "audio": None} for n in range(4)]
    rows += [{"image": str(n), "text": None, "audio": f"{n}-{clip}"} for n in range(4) for clip in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    kept = [json.loads(line) for line in _fewer(f"file://{tmp_path}/train.jsonl", 2).read_text().splitlines()]
    assert [row for row in kept if row["text"]] == rows[:4]
    assert sorted(row["image"] for row in kept if row["audio"]) == sorted(2 * ["0", "1", "2", "3"])


def test_blocks_of_four_bits():
    block = np.zeros(1, BLOCK)
    block["scale"], block["quarters"][0, 0], block["quarters"][0, 1] = 0.5, 0x9F, 0x80
    values = unpacked(block.tobytes())
    assert values[[0, 16, 1, 17, 2]].tolist() == [3.5, 0.5, -4, 0, -4]


def test_a_file_of_weights_is_read():
    tensors = {"emb.word": np.zeros(3, BLOCK).tobytes(), "l0.q.b": np.arange(32, dtype="<f4").tobytes()}
    tensors |= {"emb.pos": np.arange(64, dtype="<f4").tobytes()}
    head = struct.pack("<4sI7ifi", b"E5S1", 1, 32, 1, 2, 64, 3, 2, 1, 1e-12, 32)
    head += struct.pack("<5iQ", 2, 0, 2, 1, 3, 5) + 12 * b"\0" + 8 * b"\0" + b"words"
    head += struct.pack("<iI", 1, 5) + 5 * b"\0" + struct.pack("<i", len(tensors))
    place = len(head) + sum(23 + len(name) for name in tensors)
    for name, content in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", 0, 1, place, len(content))
        place += len(content)
    config, weights = read_weights(head + b"".join(tensors.values()))
    assert (config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (32, 64, 3)
    assert {name: values.shape for name, values in weights.items()} == {
        "embeddings.word_embeddings.weight": (3, 32),
        "encoder.layer.0.attention.self.query.bias": (32,),
        "embeddings.position_embeddings.weight": (2, 32),
    }
    assert weights["encoder.layer.0.attention.self.query.bias"].tolist() == [*range(32)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("emb.ln.w", "embeddings.LayerNorm.weight"),
        ("l11.fo.w", "encoder.layer.11.output.dense.weight"),
        ("l2.oln.b", "encoder.layer.2.output.LayerNorm.bias"),
    ],
)
def test_names_of_weights(name, expected):
    assert renamed(name) == expected


def test_the_tokenizer_puts_the_prefix_before_each_text():
    vocabulary = [["<unk>", 0.0], ["▁query:", -1.0], ["▁dog", -1.0], ["▁", -2.0]]
    read = {
        "version": "1.0",
        "normalizer": {"type": "Replace", "pattern": {"String": "DOG"}, "content": "dog"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False},
    }
    assert PREFIX == "query: "
    tokens = Tokenizer.from_str(json.dumps(prefixed(read))).encode("DOG").tokens
    assert tokens == ["▁query:", "▁dog"]


def test_translations_of_a_caption():
    content = "A bassoon.\nfr.utf8=Un basson.\nde.utf8=\nzh_TW.utf8=低音管=\n"
    assert translations(content) == {"fr": "Un basson.", "zh_TW": "低音管="}
