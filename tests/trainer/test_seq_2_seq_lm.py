"""Sequence-to-sequence language modelling: what is read and learned of sources and targets, and what plain transformers says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import yaml
from click.testing import CliRunner
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tests.trainer.jobs import WORDS, bert_folder, decoder_folder, make_job, seq2seq_folder, write_sequences
from tests.trainer.whole_worker import ends_as_undisturbed
from unfreeze_api.cli import main
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_trainer.commands.asked import SPLIT
from unfreeze_trainer.commands.finished import find_model
from unfreeze_trainer.commands.generated import generated
from unfreeze_trainer.commands.guess import guess
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.exports.seal import seal
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.modalities.base import Question
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.base import IGNORED
from unfreeze_trainer.objectives.texts import TextScores
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow

TASK = {"type": "Seq2SeqLM"}
FAMILIES = ("t5", "bart", "mt5")
STILL = {
    "t5": {"dropout_rate": 0.0},
    "mt5": {"dropout_rate": 0.0},
    "bart": {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
}


def of(**options) -> dict:
    return TASK | {"seq2SeqLm": options}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in FAMILIES:
        seq2seq_folder(folder / kind, kind, **STILL[kind])
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequences(tmp_path_factory.mktemp("data") / "t.jsonl")


def ask(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(source: str | None = "how far", target: str | None = "the city") -> dict:
    return {"source": source, "target": target}


# What is read, and what is learned


@pytest.mark.parametrize("kind", FAMILIES)
def test_targets_are_learned_whole_and_the_decoder_reads_them_one_place_behind(
    folders: Path, table: Path, kind: str
) -> None:
    task = open_task(make_job(folders / kind, table, task=TASK))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [range(5)])
    learned = batch["labels"] != IGNORED
    assert learned.sum(dim=1).tolist() == task.units("train")[:5].tolist()
    assert len(set(task.units("train")[:5])) > 1, "some are padded"
    decode = task.modality.tokenizer.decode
    begin = "<s>" if kind == "bart" else ""
    for row, (ids, kept) in enumerate(zip(batch["labels"], learned, strict=True)):
        source = decode(batch["input_ids"][row][batch["attention_mask"][row].bool()])
        words = source.removeprefix(begin).removesuffix("</s>").split(" ")
        assert decode(ids[kept]) in {f"{begin}{' '.join(words[::step])}</s>" for step in (-1, -2)}
    before = module.prepare_decoder_input_ids_from_labels(batch["labels"])  # as transformers does
    assert torch.equal(batch["decoder_input_ids"][learned], before[learned])
    losses = task.loss(task.forward(module, batch), batch)
    own = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    torch.testing.assert_close(losses.sum() / task.units("train")[:5].sum(), own, rtol=1e-5, atol=1e-6)


def test_a_source_is_cut_with_its_end_kept_and_a_target_without(folders: Path, tmp_path: Path, caplog) -> None:
    path = lines(tmp_path / "t.jsonl", pair(" ".join(WORDS), "the " * 9), *[pair()] * 7)
    options = of(maxSourceLength=8, maxTargetLength=6)
    task = open_task(make_job(folders / "bart", path, task=options, data={"validation": {"fraction": 0.125}}))
    rows = task._splits["train"].rows.tolist()
    [batch] = task.batches("train", [[rows.index(0)]])
    ids, learned = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert (len(ids), ids[0], ids[-1]) == (8, 2, 1), "<s> and </s> stay"
    assert (learned[0], len(learned), 1 in learned) == (2, 6, False), "what is cut does not end"
    first, second = task.warnings
    assert "1 of 8 sources are cut: they are longer than 8 tokens" in first
    assert "spec.task.seq2SeqLm.maxSourceLength" in first
    assert "1 of 8 targets are cut" in second
    assert "do not teach the model to stop: raise spec.task.seq2SeqLm.maxTargetLength" in second
    assert first in caplog.text


def test_characters_without_a_token_and_ends_that_stand_in_targets_are_said(tmp_path: Path, caplog) -> None:
    from transformers import AutoTokenizer

    folder = seq2seq_folder(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.unk_token = "Z"
    tokenizer.save_pretrained(folder)
    path = lines(tmp_path / "t.jsonl", pair(target="Z the Z"), pair(target="ZZ"), pair(target="who</s>"), *[pair()] * 5)
    ends, warning = open_task(make_job(folder, path, task=TASK)).warnings
    assert "1 of 8 targets hold a token that ends the model's texts (</s>)" in ends
    assert "2 of 8 targets hold characters that the model's tokenizer has no token for" in warning
    assert "it learns to write Z in their place" in warning
    assert warning in caplog.text


@pytest.mark.parametrize(
    ("row", "options", "says"),
    [
        (pair(target=None), {}, "no text in column 'target' of row 2; fill in or remove it"),
        (pair(target=" "), {}, "no text in column 'target' of row 2"),
        (pair(source=""), {}, "no text in column 'source' of row 2; fill in or remove it"),
        (
            pair(target="<s>the city"),  # what the tokenizer takes for its own
            {"maxTargetLength": 2},
            r"row 2, column 'target': it has \d+ tokens, and the 2 that are kept hold special ones alone: raise .*maxTargetLength",
        ),
        (
            pair(source="<s>how far"),
            {"maxSourceLength": 3},
            r"row 2, column 'source': it has \d+ tokens, and the 3 that are kept hold special ones alone: raise .*maxSourceLength",
        ),
    ],
)
def test_rows_of_which_nothing_is_left_are_named(
    folders: Path, tmp_path: Path, row: dict, options: dict, says: str
) -> None:
    model, good = folders / "bart", pair("how", "who")
    path = lines(tmp_path / "t.jsonl", good, row, *[good] * 3)
    job = make_job(model, path, task=of(**options))
    with pytest.raises(JobError, match=says) as caught:
        open_task(job)
    assert caught.value.reason == "InvalidData"
    skipping = open_task(make_job(model, path, task=of(**options), data={"onError": "Skip"}))
    assert skipping.left_out == {"train": 1}
    assert sum(skipping.splits.values()) == 4
    if not options:
        with pytest.raises(JobError, match=says):
            look(job)


def test_columns_are_named_and_must_hold_texts(folders: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", *[{"de": "how far", "en": "the city", "n": 3}] * 4)
    with pytest.raises(JobError, match=r"no column 'source'.*The columns are 'de', 'en', 'n'"):
        open_task(make_job(folders / "t5", path, task=TASK))
    columns = {"train": {"columns": {"source": "de", "target": "n"}}}
    with pytest.raises(JobError, match="column 'n' holds int64, not text; name another one"):
        open_task(make_job(folders / "t5", path, task=TASK, data=columns))
    columns["train"]["columns"]["target"] = "en"
    assert open_task(make_job(folders / "t5", path, task=TASK, data=columns)).splits == {"train": 3, "validation": 1}


def test_models_of_other_kinds_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"transformers has no encoder-decoder of the kind 'llama', .* such as T5, BART"):
        open_task(make_job(decoder_folder(tmp_path / "d"), table, task=TASK)).build_model()
    folder = seq2seq_folder(tmp_path / "m", decoder_start_token_id=None, bos_token_id=None)
    (folder / "generation_config.json").unlink()
    task = open_task(make_job(folder, table, task=TASK))
    with pytest.raises(JobError, match="nothing says which token its decoder reads first: set decoder_start_token_id"):
        next(iter(task.batches("train", [[0]])))
    with pytest.raises(JobError, match="encoder-decoder of the kind 'bert'"):
        open_task(make_job(bert_folder(tmp_path / "b"), table, task=TASK)).build_model()


# How it weighs


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_padding_has_no_loss_and_no_gradient(folders: Path, table: Path, kind: str) -> None:
    task = open_task(make_job(folders / kind, table, task=TASK))
    module = task.build_model().module
    [empty] = task.batches("train", [[]])
    outputs = task.forward(module, empty)
    loss = task.loss(outputs, empty)
    assert loss.tolist() == [0]
    loss.sum().backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters() if p.grad is not None)
    state = task.metrics.new_state()
    task.metrics.update(state, outputs, empty)
    assert not state.any()
    assert task.tokens(empty) == 0
    assert task.metrics.compute(state) == {}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_token_of_a_step_weighs_the_same_however_it_is_divided(
    folders: Path, table: Path, accumulate: int
) -> None:
    task = open_task(make_job(folders / "t5", table, task=TASK))
    module = task.build_model().module.eval()

    def gradients() -> torch.Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])

    [(_, [micro])] = [
        (step, list(micros))
        for step, micros in Feed(task, seed=0, batch_size=4, accumulate=1, rank=0, world_size=1).steps(4, 5)
    ]
    batch = micro.tensors
    expected = module(**batch).loss  # transformers' own, a mean over the tokens
    expected.backward()
    whole = gradients()
    for world in (1, 2, 3):
        module.zero_grad()
        total = 0.0
        for rank in range(world):
            feed = Feed(task, seed=0, batch_size=4, accumulate=accumulate, rank=rank, world_size=world)
            for _, micros in feed.steps(4, 5):  # the last of the epoch: two samples, so that a rank may have none
                for micro in micros:
                    loss = task.loss(task.forward(module, micro.tensors), micro.tensors).sum() * micro.scale / world
                    loss.backward()
                    total += loss.item()
        assert total == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(gradients(), whole, rtol=1e-4, atol=1e-7)


def test_uneven_shards_measure_as_transformers_does(folders: Path, table: Path) -> None:
    data = {"validation": {"fraction": 0.5}}
    task = open_task(make_job(folders / "bart", table, task=TASK, data=data, training={"batchSize": 3}))
    module = task.build_model().module.eval()
    losses, hits, count = 0.0, 0, 0
    for index in range(task.splits["validation"]):
        [batch] = task.batches("validation", [[index]])
        found, targets = module(**batch), batch["labels"][0]
        kept = targets != IGNORED
        losses += found.loss.item() * int(kept.sum())
        hits += int((found.logits[0].argmax(-1) == targets)[kept].sum())
        count += int(kept.sum())
    assert count == task.units("validation").sum()
    for world in (1, 2, 3):
        sums = task.metrics.new_state()
        for rank in range(world):
            feed = Feed(task, seed=0, batch_size=3, accumulate=1, rank=rank, world_size=world)
            for batch in feed.evaluation("validation"):
                assert len(batch["input_ids"]) <= 3, "no more logits at a time than in a step"
                task.metrics.update(sums, task.forward(module, batch), batch)
        found = task.metrics.compute(sums)
        assert found["loss"] == pytest.approx(losses / count, rel=1e-6)
        assert found["perplexity"] == pytest.approx(math.exp(losses / count), rel=1e-6)
        assert found["tokenAccuracy"] == hits / count


@pytest.mark.parametrize("kind", FAMILIES)
def test_blocks_go_from_the_encoder_to_the_decoder(folders: Path, table: Path, kind: str) -> None:
    loaded = open_task(make_job(folders / kind, table, task=TASK)).build_model()
    blocks = {block.name: block.parameters for block in loaded.blocks}
    assert [name for name in blocks if name.startswith("layer.")] == [f"layer.{n}" for n in range(4)]
    for number in range(4):
        side = "encoder" if number < 2 else "decoder"
        own = [name for name in blocks[f"layer.{number}"] if ".final_layer_norm" not in name]
        assert all(f"{side}." in name for name in own if "encoder_attn" not in name and "EncDec" not in name)
    assert any("shared" in name for name in blocks["embeddings"]), "with tied weights the output layer is there, too"
    assert blocks["head"] == ()


# What is written


@pytest.mark.parametrize("adapter", [None, "LoRA", "Merged", "PrefixTuning", "PromptTuning", "Bottleneck"])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_plain_libraries_load_what_is_exported(
    folders: Path, table: Path, tmp_path: Path, adapter: str | None, family: str
) -> None:
    spec = {} if adapter is None else {"adapter": {"type": "LoRA" if adapter == "Merged" else adapter}}
    kind = "Model" if adapter is None else "Merged" if adapter == "Merged" else "Adapter"
    task = open_task(make_job(folders / family, table, task=TASK, **spec))
    loaded = task.build_model()
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if adapter is None or name in loaded.adapter_parameters:
                parameter.add_(torch.randn_like(parameter) / 8)
    task.export(loaded.module, tmp_path / "out", kind)
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", kind, loaded.module)
    usage = task.usage(kind, str(tmp_path / "out"), str(folders / family))
    assert "AutoModelForSeq2SeqLM" in usage
    if adapter != "PrefixTuning":  # PEFT's own generation with a prefix is none of ours
        exec(usage, {})  # what people are shown runs as it stands


def test_fixed_positions_stay_and_a_translation_is_made_in_the_language_that_was_learned(
    table: Path, tmp_path: Path
) -> None:
    from transformers import NllbTokenizer

    folder = seq2seq_folder(tmp_path / "m", "marian")
    ids = {
        token: place
        for place, token in enumerate(["<pad>", "</s>", "<s>", "<unk>", "\u2581", *map(chr, range(97, 123))])
    }
    languages = {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}
    tokenizer = NllbTokenizer(vocab=ids, additional_special_tokens=list(languages.values()), **languages)
    tokenizer.save_pretrained(folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"src_lang": None}))
    with pytest.raises(
        JobError, match=r"of several languages .eng_Latn, deu_Latn., .* set src_lang in its tokenizer_con"
    ):
        open_task(make_job(folder, table, task=TASK))
    tokenizer.save_pretrained(folder)
    english, german = tokenizer.convert_tokens_to_ids(list(languages.values()))
    options = {"decoder_start_token_id": 1, "eos_token_id": 1, "forced_bos_token_id": english}
    (folder / "generation_config.json").write_text(json.dumps(options | {"temperature": 0.5, "min_length": 12}))
    task = open_task(make_job(folder, table, task=TASK))
    [batch] = task.batches("train", [range(4)])
    assert set(batch["labels"][:, 0].tolist()) == {german}
    assert "targets have fewer than 12 tokens, and the model says no shorter text" in task.warnings[0]
    module = task.build_model().module
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            assert "embed_positions" not in name
            parameter.add_(torch.randn_like(parameter) / 8)
    task.export(module, tmp_path / "out", "Model")
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", "Model", module)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (written["forced_bos_token_id"], written["temperature"]) == (german, 0.5)


def test_a_decoder_begins_with_the_language_that_targets_end_with(table: Path, tmp_path: Path) -> None:
    from transformers import MBartTokenizer

    folder = seq2seq_folder(tmp_path / "m", "mbart", decoder_start_token_id=None)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(97, 123))]
    tokenizer = MBartTokenizer(vocab=[(token, -1.0) for token in letters], src_lang="en_XX", tgt_lang="ro_RO")
    tokenizer.save_pretrained(folder)
    task = open_task(make_job(folder, table, task=TASK))
    start = tokenizer.convert_tokens_to_ids("ro_RO")
    [batch] = task.batches("train", [range(4)])
    assert set(batch["decoder_input_ids"][:, 0].tolist()) == {start}
    assert task.build_model().module.generation_config.decoder_start_token_id == start


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("marian", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 320}),
        ("fsmt", {"langs": ["en", "de"], "src_vocab_size": 320, "tgt_vocab_size": 320}),
    ],
)
def test_an_output_layer_stays_tied_to_the_decoder_s_own_embeddings_and_a_cache_shows_nothing_ahead(
    table: Path, tmp_path: Path, family: str, config: dict[str, Any]
) -> None:
    folder = seq2seq_folder(tmp_path / "m", family, **config)
    task = open_task(make_job(folder, table, task=TASK, adapter={"type": "LoRA"}))
    loaded = task.build_model()
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if name in loaded.adapter_parameters:
                parameter.add_(torch.randn_like(parameter) / 8)
    task.export(loaded.module, tmp_path / "out", "Merged")
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", "Merged", loaded.module)


def test_a_fresh_process_with_plain_transformers_gives_equal_logits(folders: Path, table: Path, tmp_path: Path) -> None:
    task = open_task(make_job(folders / "t5", table, task=TASK))
    module = task.build_model().module
    task.export(module, tmp_path / "out", "Model")
    task.verify_export(tmp_path / "out", "Model", module)
    with torch.no_grad():
        module.lm_head.weight.mul_(2)
    with pytest.raises(RuntimeError, match="gives other outputs"):
        task.verify_export(tmp_path / "out", "Model", module)


@pytest.mark.parametrize(
    ("family", "target"),
    # BART has one module for both embeddings, which is found by its first name.
    [*(("t5", name) for name in ("lm_head", "shared", "embed_tokens")), ("bart", "lm_head"), ("bart", "shared")],
)
def test_an_adapter_on_tied_weights_is_refused(folders: Path, table: Path, family: str, target: str) -> None:
    adapter = {"type": "LoRA", "lora": {"targetModules": [target]}}
    with pytest.raises(JobError, match=f"'{target}' matches .*, and .* have the same weights") as caught:
        open_task(make_job(folders / family, table, task=TASK, adapter=adapter)).build_model()
    assert caught.value.reason == "InvalidAdapter"


def test_an_adapter_on_an_output_layer_of_its_own_is_right(table: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = seq2seq_folder(tmp_path / "m", "mt5")
    weights = load_file(folder / "model.safetensors")
    own = torch.randn_like(weights["shared.weight"])  # as mT5's files have it, and transformers tells it by that alone
    save_file(weights | {"lm_head.weight": own}, folder / "model.safetensors", metadata={"format": "pt"})
    adapter = {"type": "LoRA", "lora": {"targetModules": ["lm_head", "q"], "initLoraWeights": "Gaussian"}}
    task = open_task(make_job(folder, table, task=TASK, adapter=adapter))
    loaded = task.build_model()
    assert any("lm_head" in name for name in loaded.adapter_parameters)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) / 4)
    task.export(loaded.module, tmp_path / "out", "Merged")
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", "Merged", loaded.module)


def test_two_workers_of_uneven_shares_end_as_undisturbed_after_a_kill(
    ranks, folders: Path, table: Path, tmp_path: Path
) -> None:
    def job_in(name: str):
        training = {"epochs": 2, "batchSize": 5, "checkpoint": {"everySteps": 2}, "gradientAccumulationSteps": 2}
        output = {"destination": f"file://{tmp_path}/{name}"}
        return make_job(
            folders / "t5", table, task=TASK, training=training, distribution={"numNodes": 2}, output=output
        )

    report = ends_as_undisturbed(job_in, tmp_path)
    assert set(report["results"]["validation"]) == {"loss", "perplexity", "tokenAccuracy"}
    assert report["metric"] == "loss"


# What commands say of it


@pytest.mark.parametrize("kind", ["Model", "Adapter"])
def test_a_finished_model_is_measured_as_its_run_was_and_predicts_nothing(
    folders: Path, table: Path, tmp_path: Path, kind: str
) -> None:
    adapter = {"adapter": {"type": "LoRA", "lora": {"initLoraWeights": "Gaussian"}}} if kind == "Adapter" else {}
    job = make_job(folders / "bart", table, task=TASK, **adapter)
    task = open_task(job)
    module = task.build_model().module
    task.export(module, tmp_path / "out", kind)
    seal(tmp_path / "out", fingerprint="f", kind=kind, found=described(job, task))
    state = task.metrics.new_state()
    module.eval()
    with torch.no_grad():
        [batch] = task.batches("validation", [range(task.splits["validation"])])
        task.metrics.update(state, task.forward(module, batch), batch)
    rows = table.read_text().splitlines()
    path = tmp_path / "held-out.jsonl"
    path.write_text("".join(rows[row] + "\n" for row in task._splits["validation"].rows))
    done = ask("evaluate", tmp_path / "out", path, "--output", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"] == pytest.approx(task.metrics.compute(state), rel=1e-5)
    done = ask("predict", tmp_path / "out", path)
    assert done.exit_code == 2
    assert "its answers are texts" in done.stderr


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_what_a_model_says_by_itself_is_measured_where_it_is_asked_for(
    folders: Path, table: Path, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    job = make_job(folders / kind, table, task=TASK)
    task = open_task(job)
    module = task.build_model().module
    torch.manual_seed(1)
    with torch.no_grad():  # as it is drawn, T5 says nothing but padding
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    task.export(module, tmp_path / "out", "Model")
    seal(tmp_path / "out", fingerprint="f", kind="Model", found=described(job, task))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = [json.loads(row) for row in table.read_text().splitlines()[:4]]
    expected = TextScores()
    for number, row in enumerate(rows):  # the right answers of half of them are what the model says
        ids = model.generate(**tokenizer(row["source"], return_tensors="pt"), max_new_tokens=5, do_sample=False)[0]
        said = tokenizer.decode(ids, skip_special_tokens=True)
        row["target"] = said if number < 2 else row["target"]
        expected.add(said, row["target"])
    path = lines(tmp_path / "t.jsonl", *rows)
    found = [ask("evaluate", tmp_path / "out", path, "--generate", 5, "--output", "json") for _ in range(2)]
    assert [done.exit_code for done in found] == [0, 0], found[0].output
    first, again = (json.loads(done.stdout)["metrics"] for done in found)
    assert first == again
    assert set(first) == {"loss", "perplexity", "tokenAccuracy", "exactMatch", "rougeL", "chrF"}
    assert first["exactMatch"] == 0.5
    assert {name: first[name] for name in ("exactMatch", "rougeL", "chrF")} == expected.compute()
    assert "exactMatch" not in json.loads(ask("evaluate", tmp_path / "out", path, "--output", "json").stdout)["metrics"]


def test_a_job_is_drafted_and_its_data_are_surveyed_and_estimated(folders: Path, table: Path, tmp_path: Path) -> None:
    done = ask("init", table, "--task", "Seq2SeqLM", "--model", folders / "t5", "--output", tmp_path / "job.yaml")
    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert manifest["spec"]["task"] == {"type": "Seq2SeqLM", "seq2SeqLm": {"maxSourceLength": 16}}
    assert manifest["spec"]["strategy"]["type"] == "FullFineTuning"
    manifest |= {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}}
    (tmp_path / "job.yaml").write_text(json.dumps(manifest))
    if dist.is_initialized():  # left by a test before
        dist.destroy_process_group()
    for command in ("estimate", "data", "phases"):
        done = ask(command, tmp_path / "job.yaml")
        assert done.exit_code == 0, done.output


def test_columns_called_source_and_target_are_taken_for_it_where_they_hold_texts(tmp_path: Path) -> None:
    from unfreeze_trainer.commands.facts import Facts

    texts = [f"a text of some words with the number {n}" for n in range(60)]
    facts = {name: Facts(name, texts) for name in ("source", "target")}
    assert guess(facts, "t").task == "Seq2SeqLM"
    facts["target"] = Facts("target", ["a", "b"] * 30)
    assert guess(facts, "t").task == "TextClassification"
    with pytest.raises(JobError, match=r"no column is called 'source'.*--column source=NAME"):
        guess({"text": facts["source"], "target": facts["source"]}, "t", task="Seq2SeqLM")


def test_what_an_encoder_decoder_says_counts_whole_where_it_is_its_source_again() -> None:
    source, config = [2, 5, 6, 1], SimpleNamespace(is_encoder_decoder=True)
    module = SimpleNamespace(
        config=config, generation_config=GenerationConfig(), generate=lambda **_: torch.tensor([source])
    )
    question = Question({"input_ids": source}, "5 6", None, lambda ids: " ".join(map(str, ids[1:-1])))
    task = SimpleNamespace(splits={SPLIT: 1}, asked=lambda *_: question, scores=TextScores)
    asked: Any = SimpleNamespace(task=task, module=module, device="cpu")
    assert generated(asked, 8)["exactMatch"] == 1.0


def test_what_a_model_says_keeps_the_blanks_before_its_marks(folders: Path, table: Path) -> None:
    task = open_task(make_job(folders / "t5", table, task=TASK))
    tokenizer = task.modality.tokenizer
    tokenizer.clean_up_tokenization_spaces = True  # as transformers 4 has saved many; others than BPE's still heed it
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    question = task.asked("train", 0)
    assert question is not None
    assert question.decode(tokenizer("how far ?")["input_ids"]) == "how far ?"


def test_a_tokenizer_that_lacks_the_targets_language_is_refused(folders: Path, table: Path) -> None:
    def without_language(**_: object) -> dict:
        raise KeyError(None)

    job = make_job(folders / "t5", table, task=TASK)
    for answer in (without_language, lambda **_: {"input_ids": [None, 1]}):
        with (
            patch.object(PreTrainedTokenizerBase, "__call__", lambda _self, answer=answer, **given: answer(**given)),
            pytest.raises(JobError, match=r"set src_lang and tgt_lang in its tokenizer_config\.json"),
        ):
            open_task(job)


def test_a_model_of_sound_is_not_taken_for_one_of_texts(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="its answers are texts"):
        find_model(folders / "t5", None)
    kind = "Speech2TextForConditionalGeneration"
    config = {"architectures": [kind], "model_type": "speech_to_text", "is_encoder_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JobError, match="Speech2TextForConditionalGeneration in architectures, which has no head"):
        find_model(tmp_path, None)
