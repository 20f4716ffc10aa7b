"""Pairs of texts: one sequence of both, with the segments that tokenizer and model have, the same in training and export."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pytest
import torch

from tests.trainer.jobs import WORDS, bert_folder, make_job
from tests.trainer.test_text_inputs import FAMILIES, configured
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.commands.preview import preview
from unfreeze_trainer.data.tokens import Tokens, TokensOnDemand
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.base import SAMPLES, TARGETS
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

COLUMNS = {"train": {"columns": {"text": "one", "textPair": "other"}}}
MARKS = {
    "none": None,  # a decoder's: nothing between two texts
    "T5": ("$A:0 </s>:0", "$A:0 </s>:0 $B:0 </s>:0"),
    "RoBERTa": ("<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0"),
    "BERT": ("<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 $B:1 </s>:1"),
    "XLNet": ("$A:0 </s>:0 <s>:2", "$A:0 </s>:0 $B:1 </s>:1 <s>:2"),
}


def words_tokenizer(marks: str, *, names=("input_ids", "attention_mask")):
    """Return a tokenizer of words whose pairs are marked as those of a family."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if MARKS[marks]:
        single, pair = MARKS[marks]
        special = [(name, vocabulary[name]) for name in ("<s>", "</s>")]
        inner.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=list(names),
        model_max_length=64,
    )


TYPED = ("input_ids", "token_type_ids", "attention_mask")
PAIRS = [("how many", "who is"), ("what", "where is the city of the man"), ("how tall is the man in the city", "war")]


def structs(pairs):
    first, second = zip(*pairs, strict=True)
    return pa.table({"one": list(first), "other": list(second)}).to_struct_array()


@pytest.mark.parametrize("names", [TYPED, ("input_ids", "attention_mask")], ids=["segments", "without"])
@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("length", [64, 8])
def test_pairs_are_what_the_tokenizer_makes_of_them(marks, names, length):
    """Whatever its marks are, and whether it gives segments: the longer text is cut first."""
    tokenizer = words_tokenizer(marks, names=names)
    tokens = Tokens(tokenizer, structs(PAIRS), length)
    first, second = map(list, zip(*PAIRS, strict=True))
    told = tokenizer(first, second, truncation="longest_first", max_length=length, padding=True, return_tensors="pt")
    found = tokens.collate(range(len(PAIRS)))
    width = told["input_ids"].shape[1]
    assert tokens.lengths.tolist() == told["attention_mask"].sum(dim=1).tolist()
    assert torch.equal(found["input_ids"][:, :width], told["input_ids"])
    typed = bool(told.get("token_type_ids", torch.zeros(1)).any())
    assert typed == ("token_type_ids" in found)
    if typed:
        assert torch.equal(found["token_type_ids"][:, :width], told["token_type_ids"])
    on_demand = TokensOnDemand(tokenizer, structs(PAIRS), length, lambda *_: None)
    for rows in ([2, 0], [1], [0, 1, 2]):
        same, again = on_demand.collate(rows), tokens.collate(rows)
        assert same.keys() == again.keys()
        assert all(torch.equal(same[name], again[name]) for name in same)
    assert on_demand.lengths.tolist() == [len(one) + len(other) for one, other in PAIRS]


def test_batches_of_texts_without_tokens_are_padding_alone():
    tokenizer, texts = words_tokenizer("none"), pa.chunked_array([["", ""]])
    found = TokensOnDemand(tokenizer, texts, 8, lambda *_: None).collate([0, 1])
    assert torch.equal(found["input_ids"], Tokens(tokenizer, texts, 8).collate([0, 1])["input_ids"])


def test_segments_of_pairs_do_not_follow_from_those_of_a_text():
    tokenizer = words_tokenizer("BERT", names=TYPED)
    assert not any(tokenizer("how")["token_type_ids"])
    alone = Tokens(tokenizer, pa.chunked_array([["how", "who is"]]), 8).collate([0, 1])
    assert "token_type_ids" not in alone
    assert Tokens(tokenizer, structs(PAIRS), 8).collate([0])["token_type_ids"].any()


def pairs_csv(folder, rows=24, labels=("same", "other")):
    """Write a table of pairs whose label says whether their first words are the same."""
    lines = []
    for row in range(rows):
        one, other = row % 3, (row if row % 2 else row + 1) % 3
        lines.append(
            f"{WORDS[one]} {WORDS[7 + row % 11]},{WORDS[other]} {WORDS[9 + row % 7]},{labels[one != other]},{row % 5}"
        )
    path = folder / "pairs.csv"
    path.write_text("one,other,label,value\n" + "\n".join(lines) + "\n")
    return path


def model_folder(folder, family, tokenizer):
    configured(folder, family, **FAMILIES.get(family, {}), **({"type_vocab_size": 1} if family == "roberta" else {}))
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "marks", "names", "segments"),
    [
        ("bert", "BERT", TYPED, True),
        ("roberta", "BERT", TYPED, False),  # one row of segments: the tokenizer's would lie beyond it
        ("roberta", "RoBERTa", ("input_ids", "attention_mask"), False),
        ("mpnet", "BERT", TYPED, False),  # its forward has no such argument
        ("opt", "none", TYPED, False),
        ("bart", "RoBERTa", ("input_ids", "attention_mask"), False),
    ],
)
def test_a_model_gets_the_segments_that_it_takes(family, marks, names, segments, tmp_path):
    folder = model_folder(tmp_path / "m", family, words_tokenizer(marks, names=names))
    task = open_task(make_job(folder, pairs_csv(tmp_path), data=COLUMNS))
    module = task.build_model().module.eval()
    batch, samples = task.first_samples()
    assert segments == ("token_type_ids" in batch)
    logits = task.forward(module, batch)
    task.export(module, tmp_path / "out", "Model")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    told = plain(**tokenizer(**samples, truncation=True, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(told, logits, rtol=1e-3, atol=1e-4)
    answers = pipeline("text-classification", model=plain, tokenizer=tokenizer, truncation=True)(
        [{"text": one, "text_pair": other} for one, other in zip(*samples.values(), strict=True)]
    )
    names = [plain.config.id2label[index] for index in logits.argmax(dim=1).tolist()]
    assert [answer["label"] for answer in answers] == names


def test_who_reads_two_texts_as_one_is_told(tmp_path, caplog):
    folder = model_folder(tmp_path / "m", "opt", words_tokenizer("none"))
    with caplog.at_level(logging.WARNING):
        open_task(make_job(folder, pairs_csv(tmp_path), data=COLUMNS))
    assert "its tokenizer puts nothing between the texts of a pair" in caplog.text
    assert "column 'other'" in caplog.text


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("model") / "bert")


def test_a_pair_needs_room_for_both(bert, tmp_path):
    task = {"textClassification": {"maxLength": 4}}
    with pytest.raises(
        JobError, match=r"maxLength: 4 tokens have no room for a pair .* raise it to 5 at least"
    ) as raised:
        open_task(make_job(bert, pairs_csv(tmp_path), data=COLUMNS, task=task))
    assert raised.value.reason == "InvalidJob"
    task = {"textClassification": {"maxLength": 5}}
    opened = open_task(make_job(bert, pairs_csv(tmp_path), data=COLUMNS, task=task))
    assert opened.lengths("train").tolist() == [5] * opened.splits["train"]


def test_a_pair_is_seen_by_each_command(bert, tmp_path):
    job = make_job(bert, pairs_csv(tmp_path), data=COLUMNS)
    assert look(job) == "2 labels, samples: 18 in train, 6 in validation"
    assert preview(job).samples == 18
    assert job.schema_version == 2
    assert json.loads(job.to_json())["data"]["train"]["columns"]["textPair"] == "other"
    alone = make_job(bert, pairs_csv(tmp_path), data={"train": {"columns": {"text": "one"}}})
    assert alone.schema_version == 1
    assert "textPair" not in json.loads(alone.to_json())["data"]["train"]["columns"]
    assert alone.fingerprint() != job.fingerprint()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("how,,a\n", r"no text in column 'other' of row 3; fill in or remove it"),
        (",how,a\n", r"no text in column 'one' of row 3; fill in or remove it"),
    ],
)
def test_a_pair_without_one_of_its_texts_is_named(broken, told, bert, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("one,other,label\n" + "how,who,a\nhow,what,b\n" + broken + "how,where,a\nhow,when,b\nwho,is,a\n")
    with pytest.raises(JobError, match=told):
        look(make_job(bert, path, data=COLUMNS))
    assert open_task(make_job(bert, path, data=COLUMNS | {"onError": "Skip"})).left_out == {"train": 1}


def test_a_column_that_is_not_there_is_named(bert, tmp_path):
    columns = {"train": {"columns": {"text": "one", "textPair": "othr"}}}
    with pytest.raises(JobError, match=r"no column 'othr'; did you mean 'other'\?"):
        look(make_job(bert, pairs_csv(tmp_path), data=columns))


def test_a_pair_is_seen_twice_only_where_both_texts_are(bert, tmp_path):
    (tmp_path / "t.csv").write_text("one,other,label\nhow,who is,a\nhow who,is,b\nwhat,is,a\n")
    (tmp_path / "v.csv").write_text("one,other,label\nhow,who is,a\nwho is,how,b\nwhat,who is,a\nhow,is,a\n")
    data = COLUMNS | {"validation": {"source": f"file://{tmp_path}/v.csv", "fraction": None}}
    assert open_task(make_job(bert, tmp_path / "t.csv", data=data)).overlaps == {"validation in train": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), [("TextClassification", "Mean"), ("TextRegression", "Auto")])
def test_exports_of_pairs_are_verified_by_the_lines_that_people_are_shown(kind, pooling, bert, tmp_path, capsys):
    member = f"{kind[0].lower()}{kind[1:]}"
    task = {"type": kind, member: {"pooling": pooling}}
    opened = open_task(make_job(bert, pairs_csv(tmp_path), data=COLUMNS, task=task))
    module = opened.build_model().module.eval()
    opened.export(module, tmp_path / "out", "Model")
    opened.verify_export(tmp_path / "out", "Model", module)
    usage = opened.usage("Model", str(tmp_path / "out"), str(bert))
    assert usage.replace(str(tmp_path / "out"), ".") in (tmp_path / "out" / "README.md").read_text()
    capsys.readouterr()
    exec(usage, {})
    said = capsys.readouterr().out
    inputs = opened.modality.tokenizer("some text", "another text", return_tensors="pt")
    outputs = module(**inputs).logits
    if kind == "TextRegression":
        assert float(said) == pytest.approx(opened.objective.in_units(outputs).item(), rel=1e-5)
        assert '"some text", "another text"' in usage
    else:
        assert opened.labels[int(outputs.argmax())] in said
        assert '{"text": "some text", "text_pair": "another text"}' in usage
    assert {TARGETS, SAMPLES} & opened.first_samples()[0].keys()


def test_pairs_to_measure_on_need_pairs_to_train_on(tmp_path):
    rows = [{"text": "how", "other": "who", "label": label} for label in "ab" * 8]
    for name in ("train", "held"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = {"source": f"file://{tmp_path / 'held.jsonl'}", "fraction": None, "columns": {"textPair": "other"}}
    with pytest.raises(JobError, match=r"textPair names 'other', and spec.data.train.columns has no textPair"):
        open_task(make_job(bert_folder(tmp_path / "m"), tmp_path / "train.jsonl", data={"validation": held}))
