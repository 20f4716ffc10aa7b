"""Classifiers whose head reads a pooling of all tokens: in each architecture, and equal in the libraries that load them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from tests.trainer.architectures import CLASSES, SEQUENCE, TRANSFORMERS
from tests.trainer.jobs import bert_folder, make_job, write_csv
from tests.trainer.test_text_inputs import BART, configured
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models import pooled_layers as layers
from unfreeze_trainer.models import pooling
from unfreeze_trainer.models.blocks import HEAD, find_blocks
from unfreeze_trainer.models.heads import transformers_head
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

MODES = (*layers.FLAGS, layers.ATTENTION)
WITHOUT = {"bart": "no encoder of texts", "mbart": "no encoder of texts", "perceiver": "reads no texts"}
MIX_PADDING_IN = {"convbert", "fnet", "funnel"}
"""Architectures whose outputs depend on the padding beside a text, whatever reads them."""
TEXTS = {name: (kind, options) for name, (kind, head, options) in TRANSFORMERS.items() if head == SEQUENCE}


def config_of(name):
    import transformers

    kind, options = TEXTS[name]
    config = transformers.AutoConfig.for_model(kind, **options)
    config.num_labels = CLASSES
    config.pad_token_id = getattr(config, "pad_token_id", None) or 0
    return config


def two_texts(padding=0):
    """Return a text of 8 tokens and one of 5."""
    tokens, mask = torch.arange(16).reshape(2, 8) + 10, torch.ones(2, 8, dtype=torch.long)
    tokens[1, 5:], mask[1, 5:] = padding, 0
    return {"input_ids": tokens, "attention_mask": mask}


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
@torch.no_grad()
def test_each_architecture_pools_by_mean_and_is_loaded_again(name, tmp_path):
    config = config_of(name)
    torch.manual_seed(0)
    if name in WITHOUT:
        with pytest.raises(ValueError, match=WITHOUT[name]):
            layers.pooled_class(config, ["mean"])(config)
        return
    model = layers.pooled_class(config, ["mean"])(config).eval()
    inputs = two_texts(config.pad_token_id)
    logits = model(**inputs).logits
    head = transformers_head(model)
    assert head == {"classifier.weight", "classifier.bias"}
    blocks = [block.name for block in find_blocks(model, head)]
    assert blocks[0] == "embeddings"
    assert blocks[-1] == HEAD
    assert "layer.0" in blocks
    if name not in MIX_PADDING_IN:
        alone = model(input_ids=inputs["input_ids"][1:, :5], attention_mask=inputs["attention_mask"][1:, :5]).logits
        torch.testing.assert_close(alone, logits[1:], rtol=1e-4, atol=1e-6)
    layers.save(model, str(tmp_path))
    assert torch.equal(layers.load(str(tmp_path))(**inputs).logits, logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TEXTS if name not in WITHOUT])
@torch.no_grad()
def test_each_architecture_gives_vectors_and_is_loaded_again(name, tmp_path):
    config = config_of(name)
    torch.manual_seed(0)
    model, inputs = layers.encoder_class(config)(config).eval(), two_texts(config.pad_token_id)

    def vectors(encoder):
        hidden = encoder(**inputs).last_hidden_state
        return layers.embed(hidden, inputs["attention_mask"], ["mean"], normalize=True)

    assert vectors(model).shape == (2, layers.encoder_width(config))
    torch.testing.assert_close(vectors(model).norm(dim=1), torch.ones(2))
    blocks = [block.name for block in find_blocks(model, ())]
    assert HEAD not in blocks
    assert blocks[0] == "embeddings"
    layers.save_encoder(model, str(tmp_path), ["mean"], normalize=True)
    assert torch.equal(vectors(layers.load_encoder(str(tmp_path))), vectors(model))


@pytest.mark.parametrize("left", [False, True], ids=["padding right", "padding left"])
@pytest.mark.parametrize("mode", MODES)
def test_padding_counts_for_nothing(mode, left):
    generator = torch.Generator().manual_seed(0)
    hidden, scores = torch.randn(1, 4, 6, generator=generator), torch.randn(1, 4, generator=generator)
    whole = layers.pool(hidden, torch.ones(1, 4), [mode], scores)
    side = (2, 0) if left else (0, 2)
    padded = torch.nn.functional.pad(hidden, (0, 0, *side), value=9.0)
    mask = torch.nn.functional.pad(torch.ones(1, 4), side)
    torch.testing.assert_close(
        layers.pool(padded, mask, [mode], torch.nn.functional.pad(scores, side, value=9.0)), whole
    )


def test_each_mode_is_what_its_name_says():
    hidden = torch.tensor([[[1.0, 8.0], [4.0, 2.0], [4.0, 5.0]]])
    mask = torch.ones(1, 3)

    def pooled(*modes, scores=None):
        return layers.pool(hidden, mask, modes, scores)[0].tolist()

    assert pooled("cls") == [1, 8]
    assert pooled("lasttoken") == [4, 5]
    assert pooled("mean") == [3, 5]
    assert pooled("max") == [4, 8]
    assert pooled("mean_sqrt_len_tokens") == pytest.approx([9 / 3**0.5, 15 / 3**0.5])
    assert pooled("weightedmean") == pytest.approx([(1 + 8 + 12) / 6, (8 + 4 + 15) / 6])
    assert pooled("attention", scores=torch.tensor([[0.0, 0.0, 0.0]])) == pytest.approx([3, 5])
    assert pooled("attention", scores=torch.tensor([[99.0, 0.0, 0.0]])) == pytest.approx([1, 8])
    assert pooled("cls", "mean") == [1, 8, 3, 5]


def pooled_bert(folder, modes):
    from transformers import AutoConfig

    base = str(bert_folder(folder))
    config = AutoConfig.from_pretrained(base)
    config.id2label, config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    return layers.pooled_class(config, modes).from_pretrained(base, config=config).eval()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("modes", [*([mode] for mode in layers.FLAGS), ["max", "mean"]], ids=" ".join)
def test_sentence_transformers_gives_the_same_logits(modes, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    model = pooled_bert(tmp_path / "base", modes)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    layers.save(model, str(tmp_path / "export"))
    tokenizer.save_pretrained(tmp_path / "export")
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    found = SentenceTransformer(str(tmp_path / "export"), device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(found, logits)


@torch.no_grad()
def test_learned_weights_are_loaded_by_the_file_beside_them(tmp_path):
    model = pooled_bert(tmp_path / "base", ["attention"])
    layers.save(model, str(tmp_path / "export"))
    script = tmp_path / "pooled.py"
    script.write_bytes(Path(layers.__file__).read_bytes())
    load = runpy.run_path(str(script))["load"]
    inputs = two_texts()
    loaded = load(str(tmp_path / "export"))
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert loaded.config.id2label == {0: "a", 1: "b"}
    assert not (tmp_path / "export/modules.json").exists(), "sentence-transformers has no such pooling"


# What is chosen


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"embedding_dimension": 384, "pooling_mode": "mean"}, ("mean",)),
        ({"embedding_dimension": 384, "pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": ["mean", "max"]}, ("max", "mean")),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode": "of tomorrow"}, None),
        ({"pooling_mode": 3}, None),
        ({"pooling_mode_mean_tokens": "yes"}, None),
        ({}, None),
        ([], None),
    ],
)
def test_both_forms_of_sentence_transformers_pooling_are_read(tmp_path, config, modes):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    for word in (None, "Auto"):
        assert pooling.chosen(word, str(tmp_path), "spec.model.source x", of_base=True) == modes
    assert pooling.chosen(None, str(tmp_path), "spec.model.source x", of_base=False) is None
    assert pooling.chosen("Max", str(tmp_path), "spec.model.source x", of_base=True) == ("max",)


def test_a_pooling_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "elsewhere.json").write_text(json.dumps({"pooling_mode": "mean"}))
    (tmp_path / "model/1_Pooling").mkdir(parents=True)
    (tmp_path / "model/1_Pooling/config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(JobError, match=r"spec\.model\.source x.*1_Pooling/config\.json"):
        pooling.chosen(None, str(tmp_path / "model"), "spec.model.source x", of_base=True)


def sentence_encoder(folder):
    bert_folder(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def test_auto_takes_the_pooling_of_the_base_and_pins_what_said_so(tmp_path):
    job = make_job(sentence_encoder(tmp_path / "base"), write_csv(tmp_path / "t.csv"))
    task = open_task(job)
    assert type(task.build_model().module).__name__ == "PooledBertModel"
    assert "1_Pooling/config.json" in task.pins["base"]["files"]


def test_a_model_that_reads_no_texts_is_refused_by_name():
    import transformers

    with pytest.raises(ValueError, match="ViTModel reads no texts"):
        layers.pooled_class(transformers.ViTConfig(), ["mean"])


@torch.no_grad()
def test_without_a_mask_padding_counts_for_nothing(tmp_path):
    model = pooled_bert(tmp_path / "base", ["max"])
    tokens = torch.tensor([[7, 8, 9, 0, 0]])
    hidden = model.bert(tokens).last_hidden_state[:, :3]
    torch.testing.assert_close(model(input_ids=tokens).logits, model.classifier(hidden.amax(dim=1)))
    model.config.eos_token_id = 0  # a token of the text may be the same one
    assert not torch.equal(model(input_ids=tokens).logits, model.classifier(hidden.amax(dim=1)))


def classifier_folder(folder, labels):
    from transformers import AutoConfig, BertForSequenceClassification

    config = AutoConfig.from_pretrained(bert_folder(folder))
    config.id2label = dict(enumerate(labels))
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_the_head_of_a_classifier_that_reads_something_else_is_drawn_anew(tmp_path):
    from transformers import BertForSequenceClassification

    folder = classifier_folder(tmp_path / "base", ["a", "b", "c"])
    job = make_job(folder, write_csv(tmp_path / "t.csv"), task={"textClassification": {"pooling": "Mean"}})
    module = open_task(job).build_model().module
    trained = BertForSequenceClassification.from_pretrained(folder)
    assert not torch.equal(module.classifier.weight, trained.classifier.weight)


def test_a_base_with_a_head_for_other_labels_is_loaded_below_an_adapter(tmp_path):
    folder = classifier_folder(tmp_path / "base", ["q", "r", "s", "t", "u"])
    layers.describe(str(tmp_path), ["mean"], ["a", "b", "c"])
    assert layers.load_base(str(folder), str(tmp_path)).classifier.out_features == 3


def test_a_pooling_that_is_nested_too_deeply_is_passed_over(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text("[" * 100_000)
    assert pooling.chosen(None, str(tmp_path), "spec.model.source x", of_base=True) is None


def test_a_run_that_began_with_the_first_token_keeps_it(tmp_path):
    job = make_job(sentence_encoder(tmp_path / "base"), write_csv(tmp_path / "t.csv"))
    before = job.model_copy(update={"semantics": job.semantics.model_copy(update={"pooling": "Architecture"})})
    task = open_task(before)
    assert type(task.build_model().module).__name__ == "BertForSequenceClassification"
    assert "1_Pooling/config.json" not in task.pins["base"]["files"]


def test_an_architecture_without_vectors_of_tokens_is_refused_by_name(tmp_path):
    folder = configured(tmp_path / "bart", "bart", **BART)
    job = make_job(folder, write_csv(tmp_path / "t.csv"), task={"textClassification": {"pooling": "Mean"}})
    with pytest.raises(JobError, match="no pooling of mean for this model: transformers has no encoder of texts") as e:
        open_task(job).build_model()
    assert e.value.reason == "InvalidModel"


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("word", ["Mean", "Attention"])
def test_training_goes_on_from_an_export_with_the_same_labels(word, tmp_path):
    data = write_csv(tmp_path / "t.csv")
    first = open_task(make_job(bert_folder(tmp_path / "base"), data, task={"textClassification": {"pooling": word}}))
    module = first.build_model().module
    for parameter in module.parameters():
        parameter.add_(0.01)
    first.export(module, tmp_path / "export", "Model")
    first.verify_export(tmp_path / "export", "Model", module)
    second = open_task(make_job(tmp_path / "export", data))
    [batch] = second.batches("train", [range(4)])
    again = second.build_model().module.eval()
    assert torch.equal(second.forward(again, batch), first.forward(module.eval(), batch))
    other = write_csv(tmp_path / "other.csv", labels=("d", "e"))
    assert open_task(make_job(tmp_path / "export", other)).build_model().module.classifier.out_features == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "kind"),
    [
        ({"type": "LoRA"}, "Adapter"),
        ({"type": "LoRA"}, "Merged"),
        ({"type": "Bottleneck"}, "Adapter"),
        ({"type": "PrefixTuning"}, "Adapter"),
        ({"type": "PromptTuning"}, "Adapter"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else value,
)
def test_adapters_are_loaded_onto_the_pooled_base(adapter, kind, tmp_path):
    change = {"adapter": adapter, "output": {"exports": [kind]}, "strategy": {"type": "FullFineTuning"}}
    job = make_job(sentence_encoder(tmp_path / "base"), write_csv(tmp_path / "t.csv"), **change)
    task = open_task(job)
    loaded = task.build_model()
    module = loaded.module
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.01 * (name in loaded.adapter_parameters))
    task.export(module, tmp_path / "export", kind)
    task.verify_export(tmp_path / "export", kind, module)
