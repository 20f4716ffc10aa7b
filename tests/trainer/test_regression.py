"""Regression: numbers of a table, metrics that equal scikit-learn's and SciPy's, exports in the units of the data."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats
from sklearn import metrics as sk

from tests.trainer.jobs import WORDS, bert_folder, make_job
from unfreeze_api.tasks.base import REGRESSION
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.objectives.base import SAMPLES, TARGETS
from unfreeze_trainer.objectives.regression import Regression, RegressionMetrics, _r2
from unfreeze_trainer.objectives.targets.numbers import Numbers, Read
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow  # models are built

TASK = {"type": "TextRegression"}


def objective_of(values: np.ndarray, **options) -> Regression:
    """Return the objective of a training split."""
    learned = Numbers(Read(values, [f"v{number}" for number in range(values.shape[1])]), "train")
    learned.fit(learned.encode(Read(values, learned.names), "train"), "train")
    return Regression(learned, **options)


def measured(objective: Regression, actual: np.ndarray, outputs: np.ndarray, workers: int) -> dict[str, float]:
    """Return the metrics of a split that workers share out; one without samples has a row of padding."""
    whole = torch.zeros(())
    for rank in range(workers):
        state = objective.metrics.state_of(len(actual))
        mine = list(range(rank, len(actual), workers))
        for indices in (mine[:2], mine[2:]):
            targets = SimpleNamespace(values=actual)
            rows = torch.from_numpy(outputs[indices] if indices else outputs[:1])
            objective.metrics.update(state, rows, objective.collate(targets, indices))
        whole = whole + state
    return objective.metrics.compute(whole)


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    targets=st.integers(1, 3),
    workers=st.integers(1, 4),
    ties=st.booleans(),
)
def test_metrics_equal_scikit_learns_and_scipys_to_the_last_digit(seed, n, targets, workers, ties):
    rng = np.random.default_rng(seed)
    actual = rng.normal(3, 20, size=(n, targets)) if not ties else rng.integers(4, size=(n, targets)).astype(float)
    actual[0] = actual[1] + 1  # none is constant
    objective = objective_of(actual)
    outputs = rng.normal(size=(n, targets)).astype(np.float32)
    predicted = objective.in_units(torch.from_numpy(outputs)).numpy()
    found = measured(objective, actual, outputs, workers)
    assert found == measured(objective, actual, outputs, 1), "whoever shares the samples out"
    assert found["rmse"] == sk.root_mean_squared_error(actual, predicted)
    assert found["mae"] == sk.mean_absolute_error(actual, predicted)
    assert found["r2"] == sk.r2_score(actual, predicted)
    pairs = list(zip(actual.T, predicted.T, strict=True))
    assert found["pearson"] == np.mean([stats.pearsonr(*pair)[0] for pair in pairs])
    assert found["spearman"] == np.mean([stats.spearmanr(*pair)[0] for pair in pairs])
    standard = (actual - actual.mean(axis=0)) / actual.std(axis=0)
    assert found["loss"] == pytest.approx(np.mean((standard - outputs) ** 2), rel=1e-5)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@torch.no_grad()
def test_uneven_shares_of_a_split_are_measured_as_scikit_learn_measures_the_whole(world_size, bert, tmp_path):
    """13 samples, dealt out as an evaluation deals them out; the predictions are gathered by hand."""
    job = make_job(bert, two_values(tmp_path, rows=52), task=TASK, data=TWO)
    task = open_task(job)
    module, targets = task.build_model().module.eval(), task._splits["validation"].targets.values
    whole, predicted = task.metrics.state_of(len(targets)), np.zeros_like(targets)
    assert len(targets) == 13
    for rank in range(world_size):
        feed = Feed(task, seed=0, batch_size=4, accumulate=1, rank=rank, world_size=world_size)
        state = task.metrics.state_of(len(targets))
        for batch in feed.evaluation("validation"):
            outputs = task.forward(module, batch)
            task.metrics.update(state, outputs, batch)
            kept = task.objective.counted(batch)
            predicted[batch[SAMPLES][kept]] = task.objective.in_units(outputs)[kept]
        whole += state
    found = task.metrics.compute(whole)
    assert found["rmse"] == sk.root_mean_squared_error(targets, predicted)
    assert found["mae"] == sk.mean_absolute_error(targets, predicted)
    assert found["r2"] == sk.r2_score(targets, predicted)
    pairs = list(zip(targets.T, predicted.T, strict=True))
    assert found["pearson"] == np.mean([stats.pearsonr(*pair)[0] for pair in pairs])
    assert found["spearman"] == np.mean([stats.spearmanr(*pair)[0] for pair in pairs])


def test_what_is_not_defined_is_no_number():
    objective = objective_of(np.array([[1.0], [2.0], [3.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(objective, np.full((3, 1), 2.0), np.zeros((3, 1), dtype=np.float32), 1)
    assert found["rmse"] == found["mae"] == found["loss"] == 0
    assert np.isnan([found["r2"], found["pearson"], found["spearman"]]).all()
    assert objective.metrics.compute(objective.metrics.state_of(5)) == {}


def test_the_names_of_the_metrics_are_those_of_the_api():
    assert tuple(metric.name for metric in REGRESSION) == RegressionMetrics.names


def test_padding_has_no_loss_and_no_gradient():
    objective = objective_of(np.array([[1.0, 5.0], [3.0, 9.0]]))
    batch = {TARGETS: torch.tensor([[1.0, 5.0], [torch.nan, torch.nan]]).double(), SAMPLES: torch.tensor([0, -1])}
    outputs = torch.zeros(2, 2, requires_grad=True)
    losses = objective.loss(outputs, batch)
    losses.sum().backward()
    assert losses.tolist() == [1.0, 0.0]
    assert outputs.grad.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_hubers_loss_is_linear_beyond_its_delta():
    objective = objective_of(np.array([[-1.0], [1.0]]), loss="Huber", delta=2.0)
    batch = {TARGETS: torch.tensor([[0.0], [0.0]]).double(), SAMPLES: torch.tensor([0, 1])}
    assert objective.loss(torch.tensor([[1.0], [10.0]]), batch).tolist() == [0.5, 2 * (10 - 1.0)]


# What a table holds


def table(folder, cells, name="t.csv"):
    path = folder / name
    if name.endswith("csv"):
        path.write_text("text,value\n" + "".join(f"how {number},{cell}\n" for number, cell in enumerate(cells)))
    elif name.endswith("jsonl"):
        lines = (f'{{"text": "how {number}", "value": {cell}}}\n' for number, cell in enumerate(cells))
        path.write_text("".join(lines))
    else:
        parquet.write_table(pa.table({"text": [f"how {number}" for number in range(len(cells))], "value": cells}), path)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("model") / "bert")


GOOD = ["1", "2.5", "-3e2", ".5", "7.", " 8 ", "+9", "0"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("t.csv", GOOD),
        ("t.jsonl", ["1", "2.5", "-3e2", "0.5", "7.0", "8", "9", "0"]),
        ("t.jsonl", [f'"{cell}"' for cell in GOOD]),
        ("t.parquet", [1.0, 2.5, -300.0, 0.5, 7.0, 8.0, 9.0, 0.0]),
        ("t.parquet", GOOD),
    ],
)
def test_numbers_are_read_from_each_kind_of_file(name, cells, bert, tmp_path):
    job = make_job(bert, table(tmp_path, cells, name), task=TASK, data={"validation": {"fraction": 0.25}})
    assert look(job) == "samples: 6 in train, 2 in validation"
    task = open_task(job)
    splits = task._splits.values()
    values = np.concatenate([split.targets.values for split in splits])[
        np.argsort(np.concatenate([s.rows for s in splits]))
    ]
    assert values[:, 0].tolist() == [1.0, 2.5, -300.0, 0.5, 7.0, 8.0, 9.0, 0.0]
    trained = task._splits["train"].targets.values
    assert task.objective.scale == (trained.std(axis=0).tolist(), trained.mean(axis=0).tolist())
    assert task.labels == []


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("", r"no number; so has row 5\. Fill in or remove them"),
        ("nan", r"'nan' is no finite number"),
        ("-inf", r"'-inf' is no finite number"),
        ("1e39", r"'1e39' is no finite number, or one beyond float32's 3\.4e\+38"),
        ("1_000", r"'1_000' is no number; so has row 5\. Correct or remove them"),
        ("tall", r"'tall' is no number; so has row 5"),
        ('"3,5"', r"'3,5' is no number: decimals have a point"),
        ("0x10", r"'0x10' is no number"),
    ],
)
def test_a_cell_without_a_number_is_named(cell, told, bert, tmp_path):
    path = table(tmp_path, ["1", "2", cell, "3", cell, "4", "5", "6"])
    with pytest.raises(
        JobError, match=rf"spec\.data\.train\.source file://.*t\.csv: row 3, column 'value': {told}"
    ) as error:
        look(make_job(bert, path, task=TASK))
    assert error.value.reason == "InvalidData"
    skipping = open_task(make_job(bert, path, task=TASK, data={"onError": "Skip"}))
    assert skipping.left_out == {"train": 2}
    assert skipping.splits == {"train": 4, "validation": 2}


@pytest.mark.parametrize(
    ("name", "cells", "told"),
    [
        ("t.jsonl", ["1", "NaN", "2"], r"row 2, column 'value': nan is no finite number"),
        ("t.jsonl", ["1", "1" + "0" * 400, "2"], r"row 2, column 'value': inf is no finite number"),
        ("t.jsonl", ["1", "null", "2"], r"row 2, column 'value': no number\. Fill in or remove it"),
        ("t.jsonl", ["1", '"tall"', "2"], r"line 2, column 'value' is \"tall\", a str where lines before have a float"),
        ("t.jsonl", ["true", "false"], r"column 'value' holds bool \(True\), not numbers"),
        ("t.parquet", [1.0, float("inf")], r"row 2, column 'value': inf is no finite number"),
        ("t.parquet", [[1.0], [2.0]], r"column 'value' holds list<.*> \(\[1\.0\]\), not numbers"),
        ("t.csv", ["7"] * 8, r"column 'value': all 6 training samples have the value 7: there is nothing to learn"),
        (
            "t.csv",
            [str(10**9 + n) for n in range(8)],
            r"all 6 training samples have values between 1000000000 and 1000000007",
        ),
    ],
)
def test_columns_that_cannot_be_learned_are_named(name, cells, told, bert, tmp_path):
    with pytest.raises(JobError, match=told):
        look(make_job(bert, table(tmp_path, cells, name), task=TASK))


def test_a_metric_that_has_no_value_on_the_validation_data_is_refused(bert, tmp_path):
    train, held = table(tmp_path, GOOD), table(tmp_path, ["2", "2"], "v.csv")
    data = {"validation": {"source": f"file://{held}", "fraction": None}}
    job = make_job(bert, train, task=TASK, data=data, training={"metric": "pearson"})
    with pytest.raises(
        JobError, match=r"spec\.data\.validation: all 2 samples have the same 'value', for which .* pearson"
    ):
        open_task(job)
    open_task(make_job(bert, train, task=TASK, data=data))


# Several numbers


def two_values(folder, rows=16):
    lines = [f"{WORDS[row % 3]} {WORDS[7 + row % 11]},{2000 + row % 3},{-0.001 * (row % 3)}" for row in range(rows)]
    path = folder / "two.csv"
    path.write_text("text,year,share\n" + "\n".join(lines) + "\n")
    return path


TWO = {"train": {"columns": {"values": ["year", "share"]}}}


def test_held_out_data_needs_as_many_columns(bert, tmp_path):
    path = two_values(tmp_path)
    other = tmp_path / "other.csv"
    other.write_bytes(path.read_bytes())
    data = {"validation": {"source": f"file://{other}", "fraction": None, "columns": {"values": ["year"]}}}
    with pytest.raises(JobError, match=r"the columns to predict are year, and those of the training data year, share"):
        look(make_job(bert, path, task=TASK, data=TWO | data))


def test_held_out_data_names_the_same_columns_in_the_same_order(bert, tmp_path):
    path = two_values(tmp_path)
    other = tmp_path / "other.csv"
    other.write_bytes(path.read_bytes())
    data = {"validation": {"source": f"file://{other}", "fraction": None, "columns": {"values": ["share", "year"]}}}
    with pytest.raises(JobError, match=r"those of the training data year, share: name them in the same order"):
        look(make_job(bert, path, task=TASK, data=TWO | data))


def test_the_one_column_of_held_out_data_takes_the_place_of_several(bert, tmp_path):
    path = two_values(tmp_path)
    other = tmp_path / "other.csv"
    other.write_bytes(path.read_bytes())
    data = {"validation": {"source": f"file://{other}", "fraction": None, "columns": {"value": "share"}}}
    with pytest.raises(JobError, match=r"the columns to predict are share, and those of the training data year, share"):
        look(make_job(bert, path, task=TASK, data=TWO | data))


def exported(job, folder, kind="Model"):
    """Return a task and its module, drawn and exported; the export is verified."""
    task = open_task(job)
    module = task.build_model().module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    task.export(module, folder, kind)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()), "it is as it was"
    task.verify_export(folder, kind, module)
    return task, module


def said(task, folder, kind, base, capsys):
    """Return what the lines that people are shown print."""
    capsys.readouterr()
    exec(task.usage(kind, str(folder), str(base)), {})
    return capsys.readouterr().out.strip()


@pytest.mark.slow
def test_an_export_gives_numbers_in_the_units_of_the_data(bert, tmp_path, capsys):
    path = two_values(tmp_path)
    task, module = exported(make_job(bert, path, task=TASK, data=TWO), tmp_path / "out")
    batch, _ = task.first_samples()
    expected = task.objective.in_units(task.forward(module, batch).detach())
    import transformers

    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert plain.config.problem_type == "regression"
    assert plain.config.id2label == {0: "year", 1: "share"}
    inputs = {name: tensor for name, tensor in batch.items() if name not in (TARGETS, SAMPLES)}
    torch.testing.assert_close(plain(**inputs).logits.double(), expected, rtol=1e-6, atol=1e-6)
    answer = eval(said(task, tmp_path / "out", "Model", bert, capsys))
    assert list(answer) == ["year", "share"]
    assert 1990 < answer["year"] < 2010
    again = open_task(make_job(tmp_path / "out", path, task=TASK, data=TWO)).build_model().module.eval()
    torch.testing.assert_close(again(**inputs).logits, module(**inputs).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "pooling"), [("LoRA", "Auto"), ("Bottleneck", "Mean")])
def test_an_adapter_gives_them_too(adapter, pooling, bert, tmp_path, capsys):
    task = {"type": "TextRegression", "textRegression": {"pooling": pooling}}
    data = {"train": {"columns": {"value": "year"}}}
    job = make_job(bert, two_values(tmp_path), task=task, data=data, adapter={"type": adapter})
    opened, _ = exported(job, tmp_path / "out", "Adapter")
    assert 1990 < float(said(opened, tmp_path / "out", "Adapter", bert, capsys)) < 2010


def test_a_pooled_export_is_trained_further_from_where_it_was(bert, tmp_path):
    path, task = two_values(tmp_path), {"type": "TextRegression", "textRegression": {"pooling": "Mean"}}
    first = open_task(make_job(bert, path, task=task, data=TWO))
    module = first.build_model().module.eval()
    first.export(module, tmp_path / "out", "Model")
    again = open_task(make_job(tmp_path / "out", path, task=TASK, data=TWO))
    batch, _ = again.first_samples()
    torch.testing.assert_close(
        again.forward(again.build_model().module.eval(), batch), first.forward(module, batch), rtol=1e-3, atol=1e-3
    )
    described = json.loads((tmp_path / "out" / "pooled_config.json").read_text())
    assert described["problem_type"] == "regression"


def test_a_head_without_a_bias_is_refused_with_the_way_out(bert, tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=30, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    GPT2Model(config).save_pretrained(tmp_path / "gpt")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "gpt")
    path = table(tmp_path, GOOD)
    with pytest.raises(JobError, match=r"textRegression\.pooling to LastToken"):
        open_task(make_job(tmp_path / "gpt", path, task=TASK)).build_model()
    task = {"type": "TextRegression", "textRegression": {"pooling": "LastToken"}}
    open_task(make_job(tmp_path / "gpt", path, task=task)).build_model()


def test_a_number_that_is_always_the_same_has_no_variance_to_explain():
    """The mean of seven times .1 is not .1."""
    same = np.full((7, 1), 0.1)
    assert np.isnan(_r2(same, same + 1e-3)).all()
