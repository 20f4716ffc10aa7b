"""Words with tags, and texts with spans: what is read, what is refused and with which words, which token stands for a word."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainer.jobs import make_job
from unfreeze_trainer.commands.facts import facts_of
from unfreeze_trainer.commands.guess import guess
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.samples import read_splits, read_targets, source_name
from unfreeze_trainer.data.word_tokens import first_tokens
from unfreeze_trainer.data.words import joined, read_words, words_in
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.targets.tags import Tags, parts_and_kinds

GOOD = {"tokens": ["New", "York", "calls"], "tags": ["B-LOC", "I-LOC", "O"]}
SPANNED = {"text": "Ann saw New York.", "spans": [{"start": 8, "end": 16, "label": "LOC"}]}


def lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def job_of(path, *, annotation="Tags", **change):
    options = {"type": "TokenClassification", "tokenClassification": {"annotation": annotation}}
    return make_job("/none", path, task=options, **change)


def read(path, *, spans=False, skip=False, **change):
    dataset = job_of(path, **change).data.train
    return read_words(dataset, source_name("train", dataset), spans=spans, skip=skip)


def refusal(path, **options):
    with pytest.raises(JobError) as caught:
        read(path, **options)
    assert caught.value.reason == "InvalidData"
    prefix = f"spec.data.train.source file://{path}: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


def test_the_same_from_json_lines_parquet_and_csv(tmp_path):
    rows = [GOOD, {"tokens": ['"a"', "b, c"], "tags": ["O", "B-LOC"]}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    cells = [",".join('"' + json.dumps(row[name]).replace('"', '""') + '"' for name in row) for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(["tokens,tags", *cells]) + "\n")
    for path in (lines(tmp_path / "t.jsonl", *rows), tmp_path / "t.parquet", tmp_path / "t.csv"):
        source = read(path)
        assert source.targets.to_pylist() == [row["tags"] for row in rows]
        assert [joined(words)[0] for words in source.inputs.to_pylist()] == ["New York calls", '"a" b, c']
    assert joined(source.inputs[1].as_py())[1] == [(0, 3), (4, 8)]


def test_numbers_of_tags_have_the_names_that_their_file_says(tmp_path):
    """As in the Parquet of a data set that `datasets` has written, and somebody has copied."""
    said = {"tags": {"feature": {"names": ["O", "B-x", "I-x"], "_type": "ClassLabel"}, "_type": "List"}}
    metadata = {"huggingface": json.dumps({"info": {"features": said}})}
    table = pa.table({"tokens": [[f"far{n}", "who"] for n in range(9)], "tags": [[0, 1]] * 8 + [[1, 2]]})
    for folder, told in (("with", metadata), ("without", {})):
        (tmp_path / folder).mkdir()
        for part in ("0", "1"):
            parquet.write_table(table.replace_schema_metadata(told), tmp_path / folder / f"part-{part}.parquet")
    assert read(tmp_path / "with" / "part-0.parquet").targets.to_pylist() == [["O", "B-x"]] * 8 + [["B-x", "I-x"]]
    assert len(read(tmp_path / "with").targets) == 18
    cells = read_cells(str(tmp_path / "with" / "part-0.parquet"), "data")
    assert guess(facts_of(cells), "data").columns == {"tokens": "tokens", "tags": "tags"}
    with pytest.raises(JobError, match="tag 1 is the number 0, and tags are text"):
        read(tmp_path / "without")


def test_texts_with_spans(tmp_path):
    rows = [
        SPANNED,
        {"text": "no one", "spans": []},
        {"text": "Ann ", "spans": [{"start": 0, "end": 4, "label": "PER"}]},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for path in (lines(tmp_path / "t.jsonl", *rows), tmp_path / "t.parquet"):
        source = read(path, spans=True)
        assert source.inputs.to_pylist() == [row["text"] for row in rows]
        assert source.targets.to_pylist() == [["O", "O", "B-LOC", "I-LOC", "O"], ["O", "O"], ["B-PER"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't  go!", ["Don", "'", "t", "go", "!"]),
        ("a_1 \u00e9t\u00e9 \u6771\u4eac", ["a_1", "\u00e9t\u00e9", "\u6771\u4eac"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0646\u093e", ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u0646\u093e"]),
        ("\u0645\u06cc\u200c\u062e", ["\u0645\u06cc\u200c\u062e"]),
        ("\U0001f600\U0001f600", ["\U0001f600", "\U0001f600"]),
        (" \t", []),
    ],
)
def test_words_of_a_text(text, words):
    assert [text[start:end] for start, end in words_in(text)] == words


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tokens": ["a", "b"], "tags": ["O"]},
            "row 2 has 2 words in column 'tokens' and 1 tags in column 'tags': give each word one tag",
        ),
        ({"tokens": [], "tags": []}, "row 2: column 'tokens' has no words; fill them in, or remove the row"),
        ({"tokens": None, "tags": ["O"]}, "row 2: column 'tokens' has no words"),
        ({"tokens": ["a"], "tags": None}, "row 2: column 'tags' has no tags"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "row 2, column 'tokens' is 'a b', and no list of words"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "row 2, column 'tokens': entry 2 is ' ', and words are text"),
        ({"tokens": ["a", 3], "tags": ["O", "O"]}, "row 2, column 'tokens': entry 2 is 3, and words are text"),
        ({"tokens": ["a", "b"], "tags": ["O", 7]}, "row 2, column 'tags': tag 2 is the number 7, and tags are text"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "row 2, column 'tags': entry 2 is null, and tags are text"),
        ({"words": ["a"], "tags": ["O"]}, "line 2: no column 'tokens'"),
        ("{\n", "line 2 is not JSON"),
    ],
)
def test_rows_of_words_that_are_refused_or_left_out(tmp_path, row, message):
    path = lines(tmp_path / "t.jsonl", GOOD, row, GOOD)
    assert refusal(path).startswith(message)
    if "no column" not in message:
        source = read(path, skip=True)
        assert (source.left_out, source.targets.to_pylist()) == (1, [GOOD["tags"]] * 2)
        assert [source.number(row) for row in range(2)] == [1, 3]


def test_blanks_around_tags_are_no_part_of_them(tmp_path):
    path = lines(tmp_path / "t.jsonl", {"tokens": ["a", "b"], "tags": [" B-X", "O\t"]})
    assert read(path).targets.to_pylist() == [["B-X", "O"]]


def span(start, end, label="LOC"):
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([span(8, 14)], "row 2, column 'spans': the span 'New Yo' (8 to 14, LOC) cuts the word 'York' (12 to 16)"),
        ([span(9, 16)], "row 2, column 'spans': the span 'ew York' (9 to 16, LOC) cuts the word 'New' (8 to 11)"),
        ([span(9, 10)], "row 2, column 'spans': the span 'e' (9 to 10, LOC) cuts the word 'New' (8 to 11)"),
        (
            [span(8, 16), span(0, 11, "X")],
            "row 2, column 'spans': the span 'New York' (8 to 16, LOC) overlaps the one before it",
        ),
        ([span(8, 16), span(8, 16)], "row 2, column 'spans': the span 'New York' (8 to 16, LOC) overlaps"),
        ([span(8, 99)], "which holds none of the text's 17 characters that are no space, or ends beyond them"),
        ([span(-3, 3)], "start counts from 0"),
        ([span(7, 8)], "which holds none"),
        ([span(3, 3)], "which holds none"),
        ([span(0, 3, "")], "label is text that is not empty"),
        ([span(0.0, 3)], "start and end are whole numbers"),
        ([span(0, True)], "start and end are whole numbers"),
        ([{"start": 0, "end": 3}], "label is text"),
        ([[0, 3, "PER"]], "row 2, column 'spans' has [0, 3, \"PER\"], and spans are {start, end, label}"),
        ({"start": 0}, "and no list of spans: in JSON lines"),
        (None, "row 2: column 'spans' has no spans"),
    ],
)
def test_spans_that_are_refused_or_left_out(tmp_path, spans, message):
    path = lines(tmp_path / "t.jsonl", SPANNED, SPANNED | {"spans": spans}, SPANNED)
    assert message in refusal(path, spans=True)
    assert read(path, spans=True, skip=True).left_out == 1


def test_a_text_with_spans_is_no_list_and_not_empty(tmp_path):
    assert refusal(lines(tmp_path / "t.jsonl", SPANNED | {"text": " "}), spans=True).startswith(
        "row 1: no text in column"
    )
    message = refusal(lines(tmp_path / "t.jsonl", SPANNED | {"text": ["a"]}), spans=True)
    assert "column 'text' is [\"a\"], a list; use one type" in message
    parquet.write_table(pa.Table.from_pylist([SPANNED | {"text": 3}]), tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet", spans=True) == "row 1, column 'text' is 3, and no text"


def test_values_of_rows_stay_in_the_pods_log(tmp_path):
    path = lines(tmp_path / "t.jsonl", SPANNED | {"spans": [span(8, 14, "Secret")]})
    with pytest.raises(JobError) as caught:
        read(path, spans=True)
    assert "Secret" in caught.value.message
    assert not any(word in caught.value.public for word in ("Secret", "New", "York"))


def splits_of(path, **change):
    return read_splits(job_of(path, **change), lambda dataset, where: read_words(dataset, where, spans=False), Tags)


def test_tags_become_class_ids_and_words_are_units(tmp_path):
    path = lines(tmp_path / "t.jsonl", *[GOOD, {"tokens": ["a"], "tags": ["O"]}] * 4)
    learned, splits = splits_of(path)
    assert learned.labels == ["B-LOC", "I-LOC", "O"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "validation": 2}
    for split in splits.values():
        expected = [[[0, 1, 2], [2]][row % 2] for row in split.rows]
        assert [ids.tolist() for ids in split.targets.values] == expected
        assert split.targets.units.tolist() == [len(ids) for ids in expected]


def test_rows_of_as_many_words_stay_rows(tmp_path):
    _, splits = splits_of(lines(tmp_path / "t.jsonl", *[GOOD] * 4))
    assert [ids.tolist() for ids in splits["train"].targets.values] == [[0, 1, 2]] * 3


def test_a_tag_that_training_never_saw(tmp_path):
    train = lines(tmp_path / "t.jsonl", GOOD)
    other = lines(tmp_path / "v.jsonl", GOOD, {"tokens": ["a"] * 3, "tags": ["B-PER", "I-PER", "O"]})
    with pytest.raises(JobError) as caught:
        splits_of(train, data={"validation": {"source": f"file://{other}", "fraction": None}})
    assert f"spec.data.validation.source file://{other}: row 2: label 'B-PER', 'I-PER' does not" in caught.value.message


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O", "O"], "all 2 words have the tag 'O'; token classification needs at least two tags"),
        (["B-LOC", "City"], "like 'B-LOC', others do not: 'City'. Begin all tags but O with B- and I-"),
    ],
)
def test_tags_that_nothing_can_be_learned_from(tmp_path, tags, message):
    path = lines(tmp_path / "t.jsonl", {"tokens": ["a"] * 2, "tags": tags})
    source = read(path)
    with pytest.raises(JobError, match=message):
        Tags(read_targets(source, Tags), source.where)
    with pytest.raises(JobError, match=message):
        splits_of(path)


def test_too_many_tags(tmp_path):
    path = lines(tmp_path / "t.jsonl", {"tokens": ["a"] * 10_001, "tags": [f"t{n}" for n in range(10_001)]})
    with pytest.raises(JobError, match="its 10001 words have 10001 different tags, more than 10000"):
        splits_of(path)


def test_parts_and_kinds():
    assert parts_and_kinds(["B-X", "I-X", "O", "U-a-b", "L-X"]) == (list("BIISE"), ["X", "X", "", "a-b", "X"])
    assert parts_and_kinds(["Name", "O", "I"]) == (list("III"), ["Name", "", "I"])


def test_a_look_reads_words(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_bytes(b"\0" * 16)
    path = lines(tmp_path / "t.jsonl", *[GOOD] * 4)
    assert (
        look(make_job(model, path, task={"type": "TokenClassification"}))
        == "3 labels, samples: 3 in train, 1 in validation"
    )
    lines(path, GOOD, GOOD | {"tags": ["O"]})
    with pytest.raises(JobError, match="row 2 has 3 words in column 'tokens' and 1 tags in column 'tags'"):
        look(make_job(model, path, task={"type": "TokenClassification"}))


@given(st.data())
def test_the_first_token_of_a_word_is_the_first_that_has_a_character_of_it(data):
    def ranges(sizes, gaps):
        starts = np.cumsum(np.array(gaps) + np.array([0, *sizes[:-1]]))
        return [(int(start), int(start + size)) for start, size in zip(starts, sizes, strict=True)]

    def drawn(smallest):
        count = data.draw(st.integers(1, 8))
        sizes, gaps = (
            data.draw(st.lists(st.integers(low, 4), min_size=count, max_size=count)) for low in (smallest, 0)
        )
        return ranges(sizes, gaps)

    tokens, words = [(0, 0), *drawn(0), (0, 0)], drawn(1)
    expected = [
        next((n for n, (low, high) in enumerate(tokens) if low < high and low < end and high > start), -1)
        for start, end in words
    ]
    assert first_tokens(tokens, words).tolist() == expected
