"""Token classification: the words of a batch, what the model sees of them, how they weigh, and what the plain library says."""

import ast
import json
import shutil
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from seqeval.metrics.sequence_labeling import f1_score, precision_recall_fscore_support
from sklearn.metrics import accuracy_score

from tests.trainer.jobs import WORDS, bert_folder, make_job, write_words
from tests.trainer.whole_worker import ends_as_undisturbed
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.tagging import PLACES
from unfreeze_trainer.tasks import open_task

TASK = {"type": "TokenClassification"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "t.jsonl", rows=40)


def rows_of(table: Path, task, split: str) -> list[dict]:
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    return [rows[row] for row in task._splits[split].rows]


def byte_level(folder: Path, kind: str, **options) -> Path:
    """Write a tiny model whose tokenizer is of bytes, as RoBERTa's and GPT-2's: a leading space is a part of a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    model = json.loads(trained.to_str())["model"]
    parts = {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}
    size = len(model["vocab"])
    torch.manual_seed(0)
    if kind == "roberta":
        RobertaTokenizer(**parts, model_max_length=62).save_pretrained(folder)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        RobertaModel(RobertaConfig(vocab_size=size, max_position_embeddings=64, **shape)).save_pretrained(folder)
    else:
        GPT2Tokenizer(**parts, model_max_length=64, **options).save_pretrained(folder)
        GPT2Model(GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=2, n_head=2)).save_pretrained(folder)
    return folder


def test_words_beyond_the_length_are_counted_and_no_units(bert: Path, table: Path) -> None:
    task = open_task(make_job(bert, table, task=TASK | {"tokenClassification": {"maxLength": 8}}))
    lengths = {split: np.array([len(row["tokens"]) for row in rows_of(table, task, split)]) for split in task.splits}
    for split, words in lengths.items():
        assert task.units(split).tolist() == np.minimum(words, 6).tolist()
    assert task.unseen_words == {split: int((words - 6).clip(0).sum()) for split, words in lengths.items()}
    assert min(task.unseen_words.values()) > 0
    assert open_task(make_job(bert, table, task=TASK)).unseen_words == {}


def test_a_length_that_has_no_room_for_words_is_refused(bert: Path, table: Path) -> None:
    task = open_task(make_job(bert, table, task=TASK | {"tokenClassification": {"maxLength": 2}}))
    with pytest.raises(JobError, match="sees none of the words: with maxLength 2 there is no room for them"):
        task.units("train")


def test_batches_have_places_and_an_empty_one_adds_nothing(bert: Path, table: Path) -> None:
    task = open_task(make_job(bert, table, task=TASK | {"tokenClassification": {"maxLength": 8}}))
    module = task.build_model().module
    [batch, empty] = task.batches("train", [[0, 1], []])
    assert batch[PLACES].shape == batch["labels"].shape
    assert task.forward(module, batch).shape == (*batch["labels"].shape, len(task.labels))
    outputs = task.forward(module, empty)
    task.loss(outputs, empty).sum().backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters() if p.grad is not None)
    state = task.metrics.new_state()
    task.metrics.update(state, outputs, empty)
    assert not state.any()
    assert task.tokens(empty) == 0


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_word_of_a_step_weighs_the_same_however_it_is_divided(bert: Path, table: Path, accumulate: int) -> None:
    task = open_task(make_job(bert, table, task=TASK | {"tokenClassification": {"maxLength": 8}}))
    module = task.build_model().module.eval()

    def gradient(world: int, slices: int) -> torch.Tensor:
        module.zero_grad()
        for rank in range(world):
            feed = Feed(task, seed=0, batch_size=7, accumulate=slices, rank=rank, world_size=world)
            for _, micros in feed.steps(4, 5):  # the last of the epoch: two samples, so that a rank may have none
                for micro in micros:
                    loss = task.loss(task.forward(module, micro.tensors), micro.tensors).sum()
                    (loss * micro.scale / world).backward()
        return torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None])

    whole = gradient(1, 1)
    feed = Feed(task, seed=0, batch_size=7, accumulate=1, rank=0, world_size=1)
    [(_, [micro])] = [(step, list(micros)) for step, micros in feed.steps(4, 5)]
    module.zero_grad()
    logits, seen = task.forward(module, micro.tensors), micro.tensors[PLACES] >= 0
    torch.nn.functional.cross_entropy(logits[seen], micro.tensors["labels"][seen]).backward()  # a mean over words
    expected = torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None])
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-7)
    for world in (1, 2, 3):
        torch.testing.assert_close(gradient(world, accumulate), expected, rtol=1e-4, atol=1e-7)


def test_uneven_shards_measure_as_seqeval_does(bert: Path, table: Path) -> None:
    job = make_job(bert, table, task=TASK | {"tokenClassification": {"maxLength": 8}})
    task = open_task(job)
    module = task.build_model().module.eval()
    rows, predicted = rows_of(table, task, "validation"), []
    for index, row in enumerate(rows):
        [batch] = task.batches("validation", [[index]])
        tags = [task.labels[n] for n in task.forward(module, batch)[0].argmax(-1)]
        predicted.append([*tags[:6], *["O"] * (len(row["tokens"]) - 6)])
    actual = [row["tags"] for row in rows]
    precision, recall, f1, _ = precision_recall_fscore_support(actual, predicted, average="micro", zero_division=0)
    accuracy = accuracy_score(sum(actual, start=[]), sum(predicted, start=[]))  # noqa: RUF017 - ten rows
    for world in (1, 2, 3):
        sums = task.metrics.new_state()
        for rank in range(world):
            feed = Feed(task, seed=0, batch_size=8, accumulate=1, rank=rank, world_size=world)
            for batch in feed.evaluation("validation"):
                task.metrics.update(sums, task.forward(module, batch), batch)
        found = task.metrics.compute(sums)
        assert (found["spanPrecision"], found["spanRecall"], found["spanF1"]) == (precision, recall, f1)
        assert found["tokenAccuracy"] == accuracy


@pytest.mark.parametrize("side", ["right", "left"])
def test_tokens_of_bytes_keep_their_leading_spaces(tmp_path: Path, side: str) -> None:
    folder = byte_level(tmp_path / "gpt2", "gpt2", padding_side=side)
    path = tmp_path / "t.jsonl"
    rows = [
        {"tokens": ["river", "of", "the", "city"], "tags": ["O", "B-X", "I-X", "O"]},
        {"tokens": ["war"], "tags": ["O"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    task = open_task(make_job(folder, path, task=TASK))
    kinds = [len(row["tokens"]) for row in rows_of(path, task, "train")]
    [batch] = task.batches("train", [[kinds.index(4), kinds.index(1)]])
    tokenizer = task.library.tokenizer
    assert tokenizer.padding_side == "right"  # its positions count from the start of a row
    of_text = tokenizer("river of the city")["input_ids"]
    kept = batch["attention_mask"][0].bool()
    assert batch["input_ids"][0][kept].tolist() == of_text
    [shown] = [tokenizer.convert_ids_to_tokens(batch["input_ids"][0][batch[PLACES][0]])]
    assert [word.removeprefix("\u0120")[0] for word in shown] == ["r", "o", "t", "c"]
    assert all(word.startswith("\u0120") for word in shown[1:])
    assert batch[PLACES][1][1:].tolist() == [-1, -1, -1]
    task.forward(task.build_model().module, batch)


def test_words_that_are_nothing_to_the_tokenizer_are_not_seen(bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"tokens": ["the", "\u200b", "city"], "tags": ["O", "B-X", "B-X"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    task = open_task(make_job(bert, path, task=TASK))
    assert task.units("train").tolist() == [2, 2, 2]
    [batch] = task.batches("train", [[0]])
    assert batch[PLACES].tolist() == [[1, -1, 2]]
    assert task.unseen_words == {"train": 3, "validation": 1}


@pytest.mark.slow
def test_a_slow_tokenizer_is_refused(table: Path, tmp_path: Path) -> None:
    from transformers import CanineConfig, CanineModel, CanineTokenizer

    CanineTokenizer(model_max_length=64).save_pretrained(tmp_path)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    CanineModel(CanineConfig(max_position_embeddings=64, **shape)).save_pretrained(tmp_path)
    with pytest.raises(JobError) as caught:
        open_task(make_job(tmp_path, table, task=TASK))
    assert caught.value.reason == "InvalidModel"
    assert "CanineTokenizer is a slow tokenizer, which does not say of which word a token is" in caught.value.message


def test_a_sentence_encoders_pooling_has_no_part_in_it(bert: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "m")
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    task = open_task(make_job(tmp_path / "m", table, task=TASK))
    assert type(task.build_model().module).__name__ == "BertForTokenClassification"
    assert not any("Pooling" in file for file in task.pins["base"]["files"])


def test_a_head_continues_where_the_tags_are_the_same(bert: Path, table: Path, tmp_path: Path) -> None:
    task = open_task(make_job(bert, table, task=TASK, training={"seed": 5}))
    module = task.build_model().module
    task.export(module, tmp_path / "tagger", "Model")
    again = open_task(make_job(tmp_path / "tagger", table, task=TASK)).build_model().module
    assert torch.equal(again.classifier.weight, module.classifier.weight)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta", "spans"])
def test_the_plain_pipeline_says_what_was_trained(bert: Path, tmp_path: Path, kind: str) -> None:
    """`verify_export` loads it in a fresh process; here the pipeline's own answer is looked at, word by word."""
    path, spans = tmp_path / "t.jsonl", kind == "spans"
    row = {"tokens": ["river", "of", "the", "city"], "tags": ["O", "B-X", "I-X", "O"]}
    if spans:
        row = {"text": "river, of the city", "spans": [{"start": 7, "end": 13, "label": "X"}]}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    folder = byte_level(tmp_path / "m", "roberta") if kind == "roberta" else bert
    options = {"annotation": "Spans" if spans else "Tags"}
    task = open_task(make_job(folder, path, task=TASK | {"tokenClassification": options}))
    module = task.build_model().module.eval()
    task.export(module, tmp_path / "out", "Model")
    with patch.object(export, "reload", export.reload if kind == "bert" else plain_outputs):
        task.verify_export(tmp_path / "out", "Model", module)
    lines: dict = {}
    exec(task.plain("Model", str(tmp_path / "out"), "").load, lines)
    assert lines["tag"]("river of the city") is not None
    [batch] = task.batches("train", [[0]])
    logits = task.forward(module, batch)[0]
    [text] = task.modality.samples(task._splits["train"], 1, batch)
    said = {entry["index"]: entry for entry in lines["tag"](text, aggregation_strategy="none", ignore_labels=[])}
    for place, scores in zip(batch[PLACES][0].tolist(), logits.softmax(-1), strict=True):
        assert said[place]["entity"] == task.labels[int(scores.argmax())]
        assert float(said[place]["score"]) == pytest.approx(scores.max().item(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["LoRA", "PromptTuning"])
def test_the_lines_that_load_an_adapter_tag_a_text(
    bert: Path, table: Path, tmp_path: Path, capsys, adapter: str
) -> None:
    task = open_task(make_job(bert, table, task=TASK, adapter={"type": adapter}))
    module = task.build_model().module.eval()
    task.export(module, tmp_path / "out", "Adapter")
    exec(task.usage("Adapter", str(tmp_path / "out"), str(bert)).replace("some text", "how tall"), {})
    said = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert [token for token, _ in said] == ["[CLS]", "how", "tall", "[SEP]"]
    [batch] = [dict(task.library.tokenizer("how tall", return_tensors="pt"))]
    [scores] = task._of_tokens(module, batch)
    assert [tag for _, tag in said] == [task.labels[n] for n in scores.argmax(-1)]


def test_tags_that_the_pipeline_does_not_put_together_are_shown_one_by_one(bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for tags, strategy in ((["S-X", "O"], "none"), (["B-X", "O"], "first"), (["Name", "City"], "first")):
        path.write_text(4 * (json.dumps({"tokens": ["the", "city"], "tags": tags}) + "\n"))
        usage = open_task(make_job(bert, path, task=TASK)).usage("Model", "out", "")
        assert f'aggregation_strategy="{strategy}"' in usage


@pytest.mark.slow
def test_a_killed_run_ends_as_the_undisturbed_one_and_tells_what_was_not_seen(ranks, bert, table, tmp_path) -> None:
    def job_in(name: str):
        return make_job(
            bert,
            table,
            task=TASK | {"tokenClassification": {"maxLength": 8}},
            data={"test": {"fraction": 0.2}},
            strategy={"type": "LinearProbeThenFineTune", "learningRate": {"head": 5e-2, "backbone": 1e-2}},
            training={"epochs": 3, "batchSize": 7, "gradientAccumulationSteps": 2, "checkpoint": {"everySteps": 2}},
            distribution={"numNodes": 2},
            output={"destination": f"file://{tmp_path}/{name}"},
        )

    one = ends_as_undisturbed(job_in, tmp_path)
    assert set(one["results"]["test"]) == {"spanF1", "spanPrecision", "spanRecall", "tokenAccuracy", "loss"}
    for split in ("validation", "test"):
        whole, killed = (tmp_path / name / "predictions" / f"{split}.parquet" for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
        rows = pq.read_table(whole).to_pylist()
        assert {row["prediction"] for row in rows if row["confidence"] is None} == {"O"}
        texts = [[*words] for _, words in groupby(rows, key=lambda row: row["row"])]
        assert [[row["label"] for row in words] for words in texts] == [
            row["tags"] for row in rows_of(table, open_task(job_in("whole")), split)
        ]
        labels, said = ([[row[name] for row in words] for words in texts] for name in ("label", "prediction"))
        assert one["results"][split]["spanF1"] == pytest.approx(f1_score(labels, said))
    assert min(one["data"]["unseenWords"].values()) > 0
    assert one["data"]["unseenWords"] == open_task(job_in("whole")).unseen_words
    assert one["usefulness"]["message"].startswith(f"on {words_of(table, job_in('whole'))} validation words")
    assert "words that the model does not see" in (tmp_path / "log").read_text()
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert 'tag = pipeline("token-classification", model=".", aggregation_strategy="first")' in card


def words_of(table: Path, job) -> int:
    return sum(len(row["tokens"]) for row in rows_of(table, open_task(job), "validation"))
