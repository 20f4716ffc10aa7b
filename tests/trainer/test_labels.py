"""Several labels of a sample: as lists and as texts with a separator, and what is said of those that are wrong."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tests.trainer.jobs import audio_folder, make_job
from unfreeze_api.tasks.labels import LabelOptions
from unfreeze_trainer.commands.asked_data import labelled_data
from unfreeze_trainer.data.audio import read_audio
from unfreeze_trainer.data.held_out import hold_out
from unfreeze_trainer.data.samples import read_splits, read_texts, target_kind
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.objectives.multi_label import MultiLabel
from unfreeze_trainer.objectives.targets.label_sets import LabelSets
from unfreeze_trainer.runs.recipe import as_begun

SETS = [["red", "blue"], [], ["blue"], ["green", "red"]] * 3
WANTED = [[0, 2], [], [0], [1, 2]] * 3


def job_of(path, **options):
    task = {"type": "TextClassification", "textClassification": {"labels": "Multi", **options}}
    return make_job("/nowhere", path, task=task)


def read(path, **options):
    job = job_of(path, **options)
    kind = target_kind(job)
    return read_splits(job, partial(read_texts, kind=kind), kind)


def written(folder, sets, form):
    rows = [{"text": f"text {number}", "label": labels} for number, labels in enumerate(sets)]
    path = folder / f"t.{form}"
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text,label\n" + "".join(f'{row["text"]},"{", ".join(row["label"])}"\n' for row in rows))
    return path


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_lists_and_texts_with_a_separator_are_the_same_labels(form, tmp_path):
    learned, splits = read(written(tmp_path, SETS, form))
    assert learned.labels == ["blue", "green", "red"]
    found = {}
    for split in splits.values():
        found |= {int(row): ids[ids >= 0].tolist() for row, ids in zip(split.rows, split.targets.values, strict=True)}
    assert [found[row] for row in range(len(SETS))] == WANTED
    assert sum(len(split) for split in splits.values()) == len(SETS)


@pytest.mark.parametrize("several", [False, True])
def test_numbers_of_labels_have_the_names_that_their_file_says(several, tmp_path):
    """As `datasets` writes them; held-out data that say nothing have those of the training data, and what has begun has its numbers."""
    names = {"names": ["bad", "good"], "_type": "ClassLabel"}
    said = {"info": {"features": {"label": {"feature": names, "_type": "List"} if several else names}}}
    labels = [[n % 2] for n in range(12)] if several else [n % 2 for n in range(12)]
    table = pa.table({"text": [f"text {n}" for n in range(12)], "label": labels})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), tmp_path / "t.parquet")
    (tmp_path / "v.csv").write_text("text,label\na,1\nb,0\n")
    data = {"validation": {"source": f"file://{tmp_path}/v.csv", "fraction": None}}
    options = {"textClassification": {"labels": "Multi"}} if several else {}
    job = make_job("/nowhere", tmp_path / "t.parquet", task={"type": "TextClassification", **options}, data=data)

    def found(job):
        kind = target_kind(job)
        learned, splits = read_splits(job, partial(read_texts, kind=kind), kind)
        return learned.labels, [len(split) for split in splits.values()]

    assert found(job) == (["bad", "good"], [12, 2])
    earlier = job.model_copy(update={"semantics": job.semantics.model_copy(update={"labels": "Numbered"})})
    assert found(as_begun(earlier)) == (["0", "1"], [12, 2])
    for outputs in (["bad", "good"], ["0", "1"]):  # a model of either kind is asked about such data
        described = SimpleNamespace(outputs=outputs, scale=None)
        finished = SimpleNamespace(described=described, folder="model")
        assert len(labelled_data(job, finished, SimpleNamespace(needs_model=False))[1]) == 12


@pytest.mark.parametrize(
    "cell", ['["a", "b"]', "['a']", "[]", "[1, 2]", " [3] ", "('a',)", "{'a', 'b'}", "[0 1 1]", "[0. 1.]"]
)
def test_lists_that_are_written_out_are_no_labels(cell):
    with pytest.raises(JobError, match="'label' of row 2 holds a list that is written out"):
        LabelSets.read(pa.chunked_array([["a", cell]]), "label", "here")
    assert LabelSets.read(pa.chunked_array([["[draft]", "[a], [b]"]]), "label", "here").names


@pytest.mark.parametrize("cells", [[[0, 1, 1], [0, 0, 0]], [[1.0, 0.0], [0.0, 1.0]], [[True, False], [False, False]]])
def test_yes_or_no_for_each_label_is_no_list_of_labels(cells):
    with pytest.raises(
        JobError, match=r"holds lists of \d times (0|1|true|false).*yes or no for each of as many labels"
    ):
        LabelSets.read(pa.chunked_array([cells]), "label", "here")
    assert LabelSets.read(pa.chunked_array([[[0, 1], [1], [0]]]), "label", "here").names


@pytest.mark.parametrize("cells", [[{"a": 1}], [1.5], [b"a"]])
def test_cells_that_are_no_labels(cells):
    with pytest.raises(JobError, match="labels are text, whole numbers or booleans"):
        LabelSets.read(pa.chunked_array([cells]), "label", "here")
    column = pa.chunked_array([pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))])
    with pytest.raises(JobError, match="holds map"):
        LabelSets.read(column, "label", "here")


def test_another_separator_and_labels_that_are_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "a,10|9\nb,9 | |9\nc,\nd,2\n" * 3)
    learned, _ = read(path, labelSeparator="|")
    assert learned.labels == ["2", "9", "10"]
    column = pa.chunked_array([[[10, 9], [], [2]]])
    assert LabelSets(LabelSets.read(column, "label", "here"), "here").labels == ["2", "9", "10"]


def test_the_targets_of_a_batch_are_one_for_each_label():
    sets = LabelSets.read(pa.chunked_array([SETS]), "label", "here")
    learned = LabelSets(sets, "here")
    objective, targets = MultiLabel(learned, LabelOptions()), learned.encode(sets, "here")
    batch = objective.collate(targets, [0, 1, 3], {3})
    assert batch["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [-100, -100, -100]]
    assert objective.counted(batch).tolist() == [True, True, False]
    assert objective.collate(targets, [])["labels"].tolist() == [[-100] * 3]
    logits = torch.tensor([[2.0, -1.0, 0.5]] * 3, requires_grad=True)
    losses = objective.loss(logits, batch)
    alone = torch.nn.BCEWithLogitsLoss()(logits[:1], batch["labels"][:1])
    assert losses[0] == alone
    assert losses[2] == 0
    losses.sum().backward()
    assert not logits.grad[2].any()


def test_the_answer_names_each_label_above_one_half():
    objective = MultiLabel(SimpleNamespace(labels=["a", "b", "c"]), LabelOptions())
    line = objective.answer("outputs")
    assert eval(line, {"labels": objective.labels, "outputs": torch.tensor([[1.0, -1.0, 0.1]])}) == ["a", "c"]


def test_held_out_parts_keep_the_shares_of_rare_labels():
    sets = [["often", *(["rare"] if number % 10 == 0 else [])] for number in range(200)]
    read_sets = LabelSets.read(pa.chunked_array([sets]), "label", "here")
    targets = LabelSets(read_sets, "here").encode(read_sets, "here")
    parts = hold_out(targets.groups, {"validation": 0.2}, seed=0)
    assert sum("rare" in sets[row] for row in parts["validation"]) == 4
    assert np.array_equal(np.unique(targets.groups), [0, 1])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([["a"], None, ["b"]], r"no label in column 'label' of row 2"),
        ([["a", ""], ["b"]], r"a label without a name in the list in column 'label' of row 1"),
        ([["a", None], ["b"]], r"a label without a name in the list in column 'label' of row 1"),
        ([["a"], ["a"], []], r"the only label of 3 samples is 'a'; a task with labels Multi needs at least two labels"),
        ([[], []], r"no sample has a label"),
        ([[0.5], [1.5]], r"column 'label' holds double \(0\.5\): labels are text"),
        ([{"a": 1}, {"a": 2}], r"column 'label' holds struct<a: int64>"),
    ],
)
def test_what_is_wrong_with_a_column_of_lists_is_said(cells, message):
    with pytest.raises(JobError, match=message):
        LabelSets(LabelSets.read(pa.chunked_array([cells]), "label", "here"), "here")


def test_a_label_that_the_training_data_does_not_have_is_named_with_its_row():
    known = LabelSets(LabelSets.read(pa.chunked_array([SETS]), "label", "train"), "train")
    other = LabelSets.read(pa.chunked_array([[["red"], ["pink", "blue"]]]), "label", "there")
    with pytest.raises(JobError, match=r"there: row 2: label 'pink' does not occur in the training data"):
        known.encode(other, "there")
    with pytest.raises(JobError, match=r"there: row 8: label 'pink'"):
        known.encode(other, "there", np.array([3, 7]))


def test_a_line_whose_list_mixes_types_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["x", 3]}\n')
    with pytest.raises(
        JobError, match=r"line 2, column 'label' has 3, a int where lines before have a str; use one type"
    ):
        read(path)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("jsonl", "line 2, column 'label' is .*A list of labels needs a task"),
        ("parquet", r"column 'label' holds lists of labels, and that of row 2 .*\['red', 'blue'\].* has 2\. For several labels of a sample set"),
    ],
)  # fmt: skip
def test_a_list_of_one_label_is_that_and_of_another_number_says_which_option_is_meant(form, message, tmp_path):
    job = make_job("/nowhere", written(tmp_path, [["blue"], ["red"]] * 6, form))
    learned, splits = read_splits(job, read_texts, target_kind(job))
    assert learned.labels == ["blue", "red"]
    assert splits["train"].targets.values.tolist() == [row % 2 for row in splits["train"].rows]
    job = make_job("/nowhere", written(tmp_path, [["blue"], *SETS], form))
    with pytest.raises(JobError, match=message):
        read_splits(job, read_texts, target_kind(job))


def test_rows_without_any_label_are_kept_where_broken_ones_are_skipped(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + 'one,"a,b"\ntwo,\n,a\nfour,b\n' * 3)
    job = job_of(path)
    job = job.model_copy(update={"data": job.data.model_copy(update={"on_error": "Skip"})})
    source = read_texts(job.data.train, "here", kind=target_kind(job), skip=True)
    assert (len(source.targets), source.left_out) == (9, 3)
    nameless = written(tmp_path, [["a", "b"], None, ["a", ""], [], ["b", None]] + [["b"]] * 3, "parquet")
    source = read_texts(job_of(nameless).data.train, "here", kind=LabelSets, skip=True)
    assert (len(source.targets), source.left_out) == (5, 3)
    assert source.numbers.tolist() == [0, 3, 5, 6, 7]


def test_the_name_of_a_folder_is_one_label_whatever_is_in_it(tmp_path):
    clips = audio_folder(tmp_path / "clips", labels=("red,blue", "green"))
    job = make_job("/nowhere", clips, task={"type": "AudioClassification", "audioClassification": {"labels": "Multi"}})
    learned, splits = read_splits(job, partial(read_audio, kind=target_kind(job)), target_kind(job))
    assert learned.labels == ["green", "red,blue"]
    assert splits["train"].targets.values.shape == (len(splits["train"]), 1)
