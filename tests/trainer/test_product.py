"""Any two of strategy, adapter, engine and task: they train as a loop by hand, and export, or are refused with a reason.

`make test-matrix` has all combinations.
"""

from __future__ import annotations

import itertools
import json
from functools import cache

import pytest
import torch

from tests.trainer import product
from tests.trainer.covering import Row, cover, pairs_of
from tests.trainer.product import FACTORS, TASKS
from tests.trainer.reference import train_by_hand
from unfreeze_api.spec.adapter import PROMPTS
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # to ask the rules about every pair of values takes seconds, wherever this is imported

# `ROWS` is a covering array: any two values that the rules let meet do so in one of its rows. `EVERY` is all of it.
ROWS, REFUSED = (covering := cover(FACTORS, product.refusal)).rows, covering.refused
_WHOLE = [Row(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
EVERY = [row for row in _WHOLE if REFUSED.keys().isdisjoint(pairs_of(row, FACTORS))]
# Sums over two ranks round in another order than sums over one batch.
TOLERANCE = 1e-5

ADAPTERS = [adapter for adapter in FACTORS["adapter"] if adapter != "none"]
SOME_BLOCKS = ("PartialFineTuning", "GradualUnfreezing", "Auto")
WORDLESS = ("ImageClassification", "PictureTransformer", "AudioClassification", "SpeechRecognition")
HEADLESS = ("TextEmbedding", "CausalLM", "Seq2SeqLM", "SpeechRecognition")
# What the rules say about two values.
SAID = [
    (["FeatureExtraction"], ADAPTERS, "FeatureExtraction trains the head alone, an adapter would never be trained"),
    (["BitFit"], ADAPTERS, "BitFit says what trains in place of the weights, and so does an adapter"),
    (["ChainThaw"], ADAPTERS, "ChainThaw trains each block alone, and not every block has a part of the adapter"),
    (["FullFineTuning"], ["Beside"], "with baseWeights ByStrategy FullFineTuning trains every weight"),
    (SOME_BLOCKS, PROMPTS, "belongs to no block that could be trained alone"),
    (SOME_BLOCKS, ["AdaLoRA"], "AdaLoRA gives ranks to the modules that need them most, so all of them train at once"),
    (["AdaLoRA"], ["FSDP", "ZeRO-1", "ZeRO-2", "ZeRO-3"], "FSDP and DeepSpeed hold gradients in shares"),
    (["NF4"], [engine for engine in FACTORS["engine"] if engine != "DDP"], "quantised ones cannot be: choose"),
    (["NF4"], (*WORDLESS, "ImageText"), "only transformers models of texts can be quantised"),
    (
        ["FeatureExtraction", "LinearProbeThenFineTune", "Auto"],
        ["TextEmbedding"],
        "TextEmbedding gives the base's own vectors and has no head",
    ),
    (
        ["FeatureExtraction", "LinearProbeThenFineTune", "Auto"],
        ["CausalLM", "Seq2SeqLM", "SpeechRecognition"],
        "CausalLM, Seq2SeqLM and SpeechRecognition can go on with the base's own output layer but not have a new head",
    ),
    (PROMPTS, (*WORDLESS, "ImageText"), "stands before the words of a text"),
    (["Bottleneck"], ["ImageText"], "ImageText has layers of two towers side by side"),
    (ADAPTERS, ["Alignment"], "the heads of towers are small, and their encoders take no adapter yet: remove adapter"),
    (["NF4"], ["Captioning"], "only transformers models of texts can be quantised"),
    (
        [name for name in ADAPTERS if name not in ("LoRA", "DoRA", "Beside", "NF4")],
        ["Captioning"],
        "Captioning puts LoRA alone into its language model",
    ),
    (
        [engine for engine in FACTORS["engine"] if engine.startswith("ZeRO")],
        ["Captioning"],
        "Captioning is proven with DDP and FSDP alone",
    ),
]


@pytest.mark.parametrize(("some", "others", "words"), SAID)
def test_what_cannot_go_together_is_refused_with_a_reason(some, others, words):
    said = {(one[1], other[1]): message for (one, other), message in REFUSED.items()}
    for pair in itertools.product(some, others):
        assert words in said[pair], pair


def test_nothing_else_is_refused():
    assert {(one[1], other[1]) for one, other in REFUSED} == {
        pair for some, others, _ in SAID for pair in itertools.product(some, others)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("product")
    product.write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def by_hand(folder, one_thread):
    """A function that returns a combination's weights before the training and after it, whatever the engine."""

    @cache
    def train(strategy, adapter, task):
        job = product.job_of(Row(strategy=strategy, adapter=adapter, engine="DDP", task=task), folder)
        opened = open_task(job)
        start = {name: tensor.detach().clone() for name, tensor in opened.build_model().module.named_parameters()}
        return start, train_by_hand(job, opened, ranks=2)

    return train


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id="-".join(row.values()), marks=[] if row in ROWS else pytest.mark.matrix) for row in EVERY],
)
def test_a_combination_trains_as_one_process_does_and_its_export_loads(ranks, folder, by_hand, row):
    (weights, sums, phases), (_, others, _) = ranks.call(product.trained, row, folder)
    assert torch.equal(sums, others), "the ranks differ"
    start, end = by_hand(row["strategy"], row["adapter"], row["task"])
    assert weights.keys() == start.keys()
    apart = {}
    for name, ours in weights.items():
        if torch.equal(end[name], start[name]):
            assert torch.equal(ours, start[name]), f"frozen {name} has moved"
        apart[name] = (ours - end[name]).abs().max().item()
    assert max(apart.values()) < TOLERANCE, max(apart, key=apart.__getitem__)
    count = {"LinearProbeThenFineTune": 2, "Auto": 2, "GradualUnfreezing": 3, "ChainThaw": 4}.get(row["strategy"], 1)
    assert len(phases) == count - (count > 1 and row["task"] in HEADLESS), "a head that is not there trains alone"
    run = folder / "-".join(row.values())
    report = json.loads((run / "report.json").read_text())
    [export] = report["exports"]
    whole = "Merged" if row["task"] == "Captioning" else "Adapter"
    adapter = {"none": "Model", "Beside": "Merged"}.get(row["adapter"], whole)
    assert (report["outcome"], export["kind"]) == ("Succeeded", adapter)
    assert (run / export["folder"] / "README.md").is_file()


def test_every_task_has_its_inputs():
    assert TASKS.keys() == product.PLACES.keys()
