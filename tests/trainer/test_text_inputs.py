"""Tokenizers, positions, padding and labels as they come: right, or refused by name before anything is trained."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tests.trainer.jobs import WORDS, bert_folder, decoder_folder, make_job, seq2seq_folder, write_csv
from unfreeze_trainer.data.tokens import TextError, Tokens
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.models.text import Limits, text_limits, usable_length
from unfreeze_trainer.objectives.targets.labels import encode_labels
from unfreeze_trainer.tasks import open_task

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
FAMILIES = {
    "bert": SMALL | {"max_position_embeddings": 24},
    "roberta": SMALL | {"max_position_embeddings": 24},
    "mpnet": SMALL | {"max_position_embeddings": 24},
    "camembert": SMALL | {"max_position_embeddings": 24},
    "nystromformer": SMALL | {"max_position_embeddings": 22, "segment_means_seq_len": 22, "num_landmarks": 22},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24},
    "opt": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    | {"word_embed_proj_dim": 16, "max_position_embeddings": 24},
    "bart": BART | {"max_position_embeddings": 24},
}


def configured(folder: Path, family: str, **options) -> Path:
    """Write a model of random weights with the vocabulary of `jobs`."""
    from transformers import CONFIG_MAPPING, AutoModel

    bert_folder(folder)
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**({"vocab_size": len(WORDS) + 5} | options))
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def without_limit(folder: Path, **change) -> Path:
    """Change what a tokenizer's configuration says; most of the hub's have no length there."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | change
    config.pop("model_max_length", None)
    file.write_text(json.dumps(config))
    return folder


def first_batch(job) -> None:
    task = open_task(job)
    task.build_model()
    list(task.batches("train", [range(task.splits["train"])]))


def text_error(*arguments, **change) -> JobError:
    with pytest.raises(JobError) as raised:
        first_batch(make_job(*arguments, **change))
    assert raised.value.reason in ("InvalidModel", "InvalidData")
    return raised.value


# Positions


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_tokens_as_a_model_takes_and_not_one_more(tmp_path, family):
    """The longest length runs through the model; one token more does not."""
    from transformers import AutoModel

    folder = without_limit(configured(tmp_path / "m", family, **FAMILIES[family]))
    limit = text_limits(str(folder), "here").positions
    model = AutoModel.from_pretrained(folder).eval()

    def forward(length: int) -> None:
        ids = torch.full((2, length), 7)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    forward(limit)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        forward(limit + 1)
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{'river ' * 60},{label}\n" for label in "aabbaabb"))
    task = open_task(make_job(folder, path))
    [batch] = task.batches("train", [[0, 1]])
    assert batch["input_ids"].shape[1] == limit
    task.forward(task.build_model().module, batch)


@pytest.mark.slow
def test_an_export_whose_outputs_depend_on_the_padding_beside_a_text_is_the_trained_model(tmp_path, loaded_here):
    options = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 64}
    task = open_task(make_job(configured(tmp_path / "m", "fnet", **options), write_csv(tmp_path / "t.csv")))
    module = task.build_model().module
    task.export(module, tmp_path / "out", "Model")
    task.verify_export(tmp_path / "out", "Model", module)


def test_a_tokenizer_limits_only_models_without_positions(caplog):
    class Tokenizer:
        model_max_length = 10

    assert usable_length(20, Tokenizer, Limits(None, None)) == 10
    assert usable_length(20, Tokenizer, Limits(16, None)) == 16
    assert usable_length(20, Tokenizer, Limits(16, None), prompt=5) == 11
    with pytest.raises(JobError, match="leave no room"):
        usable_length(20, Tokenizer, Limits(16, None), prompt=16)


def test_a_length_that_the_model_does_not_take_is_said(tmp_path, caplog):
    folder, table = bert_folder(tmp_path / "m"), write_csv(tmp_path / "t.csv")
    open_task(make_job(folder, table, task={"textClassification": {"maxLength": 500}}))
    assert "takes 64 tokens of a text: longer ones are cut there" in caplog.text


# Padding


@pytest.mark.parametrize("family", ["gpt2", "roberta", "bert", "opt"])
@pytest.mark.parametrize("pad", [0, 7])
def test_the_logits_of_a_text_do_not_depend_on_its_neighbours(tmp_path, family, pad):
    """Whatever id config.json names for padding: [PAD] has 0 in the tokenizer, and 7 is a word."""
    folder = configured(tmp_path / "m", family, **FAMILIES[family], pad_token_id=pad, eos_token_id=3, bos_token_id=2)
    path = tmp_path / "t.csv"
    path.write_text(write_csv(tmp_path / "s.csv").read_text() + f"{'river ' * 12},a\n{'how ' * 15},b\n")
    task = open_task(make_job(folder, path))
    module = task.build_model().module.eval()
    rows = range(task.splits["train"])
    with torch.no_grad():
        [together] = task.batches("train", [rows])
        alone = torch.cat([task.forward(module, batch) for batch in task.batches("train", [[row] for row in rows])])
        assert torch.allclose(task.forward(module, together), alone, atol=1e-5)


def test_positions_that_are_counted_from_padding_stay_where_they_are(tmp_path):
    """RoBERTa's first position is that of its padding id and one: the tokenizer pads as the model does."""
    folder = configured(tmp_path / "m", "roberta", **FAMILIES["roberta"], pad_token_id=1)
    task = open_task(make_job(folder, write_csv(tmp_path / "t.csv")))
    module = task.build_model().module
    assert module.config.pad_token_id == 1
    assert module.roberta.embeddings.position_embeddings.padding_idx == 1
    [batch] = task.batches("train", [[0]])
    assert batch["input_ids"][0, -1] == 1


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_padding_stands_behind_texts_where_positions_count_from_the_start(tmp_path, family):
    """A tokenizer that was made for generation pads before them, which would shift their positions."""
    folder = configured(tmp_path / "m", family, **FAMILIES[family])
    without_limit(folder, padding_side="left")
    task = open_task(make_job(folder, write_csv(tmp_path / "t.csv")))
    [batch] = task.batches("train", [[0]])
    assert batch["attention_mask"][0, 0] == 1
    assert batch["attention_mask"][0, -1] == 0
    task.modality.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["padding_side"] == "right"


@pytest.mark.parametrize(
    ("family", "options", "positions"),
    [
        ("prophetnet", {"hidden_size": 16, "num_encoder_layers": 2, "num_decoder_layers": 2}, 511),
        ("gemma3n_text", {"hidden_size": 16, "vocab_size": 60, "vocab_size_per_layer_input": 60}, 32768),
    ],
)
def test_models_that_are_not_built_of_one_layer_are_built_of_all(tmp_path, family, options, positions):
    from transformers import CONFIG_MAPPING

    CONFIG_MAPPING[family](**options).save_pretrained(tmp_path)
    assert text_limits(str(tmp_path), "here").positions == positions


@pytest.mark.parametrize(("kind", "stays"), [("MaskedLM", True), ("SequenceClassification", False)])
def test_what_pretraining_has_learned_of_a_head_stays_and_not_what_other_labels_have(tmp_path, kind, stays):
    """The classifiers of ModernBERT read by the layer by which it was pretrained."""
    import transformers

    options = SMALL | {"vocab_size": len(WORDS) + 5, "max_position_embeddings": 24, "num_labels": 7}
    config = transformers.ModernBertConfig(**options, **dict.fromkeys(["pad_token_id", "bos_token_id"], 0))
    before = getattr(transformers, f"ModernBertFor{kind}")(config)
    before.save_pretrained(bert_folder(tmp_path / "m"))
    loaded = open_task(make_job(tmp_path / "m", write_csv(tmp_path / "t.csv"))).build_model()
    assert torch.equal(loaded.module.head.dense.weight, before.head.dense.weight) == stays
    assert "head.dense.weight" in loaded.blocks[-1].parameters
    assert len(loaded.module.classifier.weight) == 3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "albert"])
def test_adapters_are_loaded_again_on_bases_that_say_less_or_otherwise(tmp_path, monkeypatch, family):
    """GPT-2's config.json names no padding; ALBERT's embeddings are narrower than its layers."""
    monkeypatch.setattr(export, "reload", plain_outputs)
    if family == "gpt2":
        folder, change = decoder_folder(tmp_path / "m", "gpt2"), {"adapter": {"type": "LoRA"}}
    else:
        folder = configured(tmp_path / "m", "albert", **SMALL, embedding_size=8, max_position_embeddings=24)
        prompt = {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 2}}
        change = {"adapter": prompt, "task": {"textClassification": {"pooling": "Mean"}}}
    task = open_task(make_job(folder, write_csv(tmp_path / "t.csv"), **change))
    module = task.build_model().module.eval()
    task.export(module, tmp_path / "out", "Adapter")
    task.verify_export(tmp_path / "out", "Adapter", module)


@pytest.mark.parametrize("pooling", ["Auto", "Mean"])
def test_a_prefix_before_a_model_that_takes_none_is_refused(tmp_path, pooling):
    folder = configured(tmp_path / "m", "mpnet", **FAMILIES["mpnet"])
    change = {"adapter": {"type": "PrefixTuning"}, "task": {"textClassification": {"pooling": pooling}}}
    change["adapter"]["prefixTuning"] = {"numVirtualTokens": 2}
    with pytest.raises(JobError, match="PrefixTuning: MPNetModel takes no keys and values from before a text"):
        open_task(make_job(folder, write_csv(tmp_path / "t.csv"), **change)).build_model()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta"])
def test_a_head_for_the_same_labels_in_another_order_goes_on(tmp_path, kind):
    """Most of the hub's taggers and classifiers do not sort theirs."""
    from transformers import AutoModelForSequenceClassification

    folder = configured(tmp_path / "m", kind, **FAMILIES[kind], pad_token_id=0)
    before = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label={0: "c", 1: "a", 2: "b"}, label2id={"c": 0, "a": 1, "b": 2}
    ).eval()
    before.save_pretrained(folder)
    task = open_task(make_job(folder, write_csv(tmp_path / "t.csv")))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [[0, 1, 2]])
    with torch.no_grad():
        assert torch.allclose(task.forward(module, batch), before(**batch).logits[:, [1, 2, 0]], atol=1e-6)
    assert module.config.id2label == {0: "a", 1: "b", 2: "c"}


# Tokenizers


def test_token_ids_without_an_embedding_are_found_with_their_row(tmp_path):
    folder = configured(tmp_path / "m", "bert", **FAMILIES["bert"], vocab_size=len(WORDS))
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "how is,a\nwho is,b\n" * 4 + "the war,a\n")
    message = text_error(folder, path, data={"validation": {"fraction": 0.3}}).message
    assert f"spec.data.train.source file://{path}: row 9: a token has the id 26 ('war')" in message
    assert f"the model has embeddings for {len(WORDS)} tokens" in message


def test_texts_too_many_to_keep_their_tokens_give_the_same_batches(tmp_path, monkeypatch):
    folder = configured(tmp_path / "m", "bert", **FAMILIES["bert"])
    table = write_csv(tmp_path / "t.csv")
    job, plan = make_job(folder, table), [[3, 1, 2], [], [0], [7, 5], [4], [6]]
    kept = [list(open_task(job).batches("train", plan))]
    monkeypatch.setattr("unfreeze_trainer.modalities.text.KEPT_BYTES", 0)
    task = open_task(job)
    kept.append(list(task.batches("train", plan)))
    for one, other in zip(*kept, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert next(task.batches("train", plan)).keys() == kept[0][0].keys()  # and the others are let go
    folder = configured(tmp_path / "small", "bert", **FAMILIES["bert"], vocab_size=8)
    with pytest.raises(JobError, match=r"row \d+: a token has the id"):
        list(open_task(make_job(folder, table)).batches("train", plan))


def test_a_padding_token_without_an_embedding_is_found(tmp_path):
    folder = configured(tmp_path / "m", "bert", **FAMILIES["bert"])
    table = write_csv(tmp_path / "t.csv")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(dict(tokenizer["added_tokens"][0], id=99, content="[MORE]"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    without_limit(folder, pad_token="[MORE]")
    assert "the padding token has the id" in text_error(folder, table).message


@pytest.mark.parametrize("task", ["TextClassification", "CausalLM"])
def test_the_end_of_a_text_pads_where_padding_was_added_to_the_tokenizer_alone(tmp_path, task):
    """As in copies of Llama 2 whose tokenizer has got a <pad> that the embeddings lack."""
    from transformers import AutoTokenizer

    folder = decoder_folder(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "how is the city,a\nwho,b\n" * 4)
    job = make_job(folder, path, task={"type": task, "causalLm": {"annotation": "Text"}} if task == "CausalLM" else {})
    [batch] = open_task(job).batches("train", [[0, 1]])
    assert batch["input_ids"].max() < len(tokenizer) - 1
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.eos_token_id).all()


def test_a_text_with_the_mark_that_its_model_looks_for_is_named(tmp_path, monkeypatch):
    """T5's classes, and BART's, read the last token that ends a text, and fail at a batch whose texts have several or one."""
    folder, path = seq2seq_folder(tmp_path / "m"), tmp_path / "t.csv"
    path.write_text("text,label\n" + "how is,a\nwho is,b\n" * 4 + "<s>the war</s> is,a\n" * 4)
    for kept in (1 << 20, 0):
        monkeypatch.setattr("unfreeze_trainer.modalities.text.KEPT_BYTES", kept)
        message = text_error(folder, path).message
        assert re.search(
            r"row (9|10|11|12): the text holds '</s>', by which the model finds the end of a text", message
        )
    first_batch(make_job(folder, path, task={"textClassification": {"pooling": "Mean"}}))


@pytest.mark.parametrize(
    ("task", "remedy"),
    [
        ("TextClassification", r"set spec\.task\.textClassification\.pooling to LastToken \(decoders\) or Mean"),
        ("TokenClassification", "choose another model$"),
    ],
)
def test_an_architecture_without_a_classifier_is_named_with_what_to_do(tmp_path, task, remedy):
    folder = configured(tmp_path / "m", "granite", **SMALL)
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": w, "label": w, "tokens": [w], "tags": [w]}) + "\n" for w in "ab" * 4))
    with pytest.raises(JobError, match=rf"transformers has no For\w+ of the kind 'granite': .*{remedy}"):
        open_task(make_job(folder, path, task={"type": task}))
    options = {"type": "TextClassification", "textClassification": {"pooling": "LastToken"}}
    assert open_task(make_job(folder, path, task=options)).build_model().module.modes == ["lasttoken"]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    """transformers 5 makes one of special tokens alone, to which every word is unknown."""
    folder = bert_folder(tmp_path / "m")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    message = text_error(folder, write_csv(tmp_path / "t.csv")).message
    assert "no tokenizer: BertTokenizer needs one of vocab.txt, tokenizer.json; the folder holds config.json" in message


@pytest.mark.parametrize(("text", "said"), [("how \u0e01\u0e32 \u0e02 \u0e04", "75%"), (f"{'how far ' * 6}\u0e01", "")])
def test_texts_that_the_tokenizer_does_not_know_are_said(tmp_path, text, said):
    """As Thai is to bert-base-uncased: its words are [UNK], and all texts are the same to the model."""
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{text},{'ab'[n % 2]}\n" for n in range(16)))
    task = open_task(make_job(bert_folder(tmp_path / "m"), tmp_path / "t.csv"))
    task.lengths("train")
    assert len(task.warnings) == bool(said)
    assert not said or f"makes of the texts {said} is [UNK]" in task.warnings[0]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory) -> Path:
    import sentencepiece

    folder = tmp_path_factory.mktemp("spm")
    (folder / "words.txt").write_text("\n".join(" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))) * 4)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"),
        model_prefix=str(folder / "spm"),
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
    )
    return folder / "spm.model"


@pytest.mark.parametrize(
    ("family", "file"),
    [("deberta-v2", "spm.model"), ("xlm-roberta", "sentencepiece.bpe.model"), ("mt5", "spiece.model")],
)
def test_a_sentencepiece_file_alone_is_a_tokenizer(tmp_path, sentencepiece_model, family, file):
    small = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32} if family == "mt5" else SMALL
    folder = configured(tmp_path / "m", family, **small, vocab_size=400)
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(sentencepiece_model, folder / file)
    task = open_task(make_job(folder, write_csv(tmp_path / "t.csv")))
    [batch] = task.batches("train", [[0, 1]])
    assert len(set(batch["input_ids"][0].tolist())) > 4
    assert task.forward(task.build_model().module, batch).shape == (2, 3)


@pytest.mark.slow
def test_tokenizers_without_files_are_tokenizers(tmp_path):
    for family, small in (
        ("canine", SMALL | {"max_position_embeddings": 64, "local_transformer_stride": 8}),
        ("t5", {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32, "vocab_size": 400}),
    ):
        folder = configured(tmp_path / family, family, **small)
        for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
            (folder / name).unlink(missing_ok=True)
        if family == "t5":
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
        task = open_task(make_job(folder, write_csv(tmp_path / "t.csv")))
        [batch] = task.batches("train", [[0, 1]])
        assert batch["attention_mask"].sum() > 10


# Labels


def test_a_null_inside_of_a_dictionary_is_a_missing_label():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 1]), pa.array(["a", None, "b"]))
    with pytest.raises(JobError, match="no label in column 'label' of rows 2, 4"):
        encode_labels(pa.chunked_array([column]), "label", "here")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["a", None, "b", ""]),
        pa.array(["a", None, "b", " "]).dictionary_encode(),
        pa.array(["a", None, "b", "\t"], pa.large_string()),
        pa.array([1, None, 2, None]),
        pa.array([True, None, False, None]),
    ],
)
def test_missing_labels_are_named_in_every_form(tmp_path, labels):
    parquet.write_table(pa.table({"text": ["how"] * 4, "label": labels}), tmp_path / "t.parquet")
    message = text_error(bert_folder(tmp_path / "m"), tmp_path / "t.parquet").message
    assert "no label in column 'label' of rows 2, 4" in message


def test_missing_labels_of_json_lines_are_named(tmp_path):
    lines = [{"text": "how", "label": label} for label in ("a", None, "b", "a")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (
        "no label in column 'label' of row 2" in text_error(bert_folder(tmp_path / "m"), tmp_path / "t.jsonl").message
    )


@pytest.mark.parametrize("row", [0, 5, 12])
def test_a_text_that_a_tokenizer_fails_at_is_named(row):
    class Fails:
        pad_token_id, pad_token_type_id, padding_side = 0, 0, "right"

        def __call__(self, texts, **_):
            if "bad" in texts:
                raise KeyError("bad")
            return {"input_ids": [[1, 2] for _ in texts]}

    texts = ["bad" if number == row else "good" for number in range(13)]
    with pytest.raises(TextError, match="KeyError: 'bad'") as raised:
        Tokens(Fails(), pa.chunked_array([texts]), 8)
    assert raised.value.row == row
