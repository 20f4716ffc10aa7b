"""`unfreeze predict` and `unfreeze evaluate` say of data what the run said of it."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from tests.trainer.jobs import (
    WORDS,
    audio_folder,
    audio_model,
    bert_folder,
    image_folder,
    image_model,
    make_job,
    timm_folder,
)
from unfreeze_api.cli import main
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.exports.seal import seal
from unfreeze_trainer.objectives.answers import ANSWERED
from unfreeze_trainer.tasks import Task, open_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LORA = {"adapter": {"type": "LoRA", "lora": {"r": 2}}}
BOTTLENECK = {"adapter": {"type": "Bottleneck"}}
QUANTIZED = {"model": {"quantization": {"type": "NF4"}}}
PREFIX = {"adapter": {"type": "PrefixTuning", "prefixTuning": {"numVirtualTokens": 3}}}


def lines(count: int, seed: int) -> list[str]:
    """Return texts of one to thirty words."""
    rng = np.random.default_rng(seed)
    return [" ".join(WORDS[n] for n in rng.integers(len(WORDS), size=rng.integers(1, 30))) for _ in range(count)]


def rows(kind: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of a table."""
    texts, others = lines(count, seed), lines(count, seed + 100)
    made = []
    for n, (text, other) in enumerate(zip(texts, others, strict=True)):
        label = "abc"[n % 3]
        made.append(
            {
                "single": {"question": text, "label": label},
                "pairs": {"text": text, "other": other, "label": label},
                "multi": {"text": text, "label": [label, "d"][: n % 3]},
                "numbers": {"text": text, "price": 100 + n % 7, "size": n / 3},
                "tags": {"tokens": text.split(), "tags": [("O", "B-x", "I-x")[len(word) % 3] for word in text.split()]},
                "spans": {"text": text, "spans": [{"start": 0, "end": len(text.split()[0]), "label": "x"}] * (n % 2)},
            }[kind]
        )
    return made


def table(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@dataclass
class Run:
    """An export, and what the run that wrote it would say of its test data."""

    folder: Path
    test: Path
    bare: Path
    """The same data, without what is right."""
    base: Path
    rows: dict[str, pa.Array]
    metrics: dict[str, float]


def moved(task: Task) -> torch.nn.Module:
    """Return the task's model with weights as after training; a base below an adapter stays as it is."""
    loaded = task.build_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if not loaded.adapter_parameters or name in loaded.adapter_parameters:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return loaded.module.eval()


@torch.no_grad()
def of_run(task: Task, module: torch.nn.Module) -> tuple[dict[str, pa.Array], dict[str, float]]:
    """Return rows and metrics as a run has them, by its own parts, in batches of five in the order of the data."""
    total = task.splits["test"]
    counts = task.rows_of("test")
    state, outputs, states, all_rows = task.metrics.state_of(total), [], [], []
    order = [list(range(start, min(total, start + 5))) for start in range(0, total, 5)]
    for samples, batch in zip(order, task.batches("test", order), strict=True):
        found = task.forward(module, batch)
        task.metrics.update(state, found, batch)
        if task.metrics.gathers(total):
            all_rows.append(task.metrics.rows(found, batch))
        values, kept = task.keep(found, batch)
        own = torch.arange(values.shape[1]) < torch.from_numpy(counts[samples])[:, None]
        outputs.append(values[own])
        states.append(kept[own])
    seen = torch.cat(states).numpy() == ANSWERED
    told = task.answers.columns(torch.cat(outputs).numpy(), None if seen.all() else seen)
    metrics = task.metrics.compute(state, torch.cat(all_rows) if all_rows else None)
    return task.known("test", np.arange(total), inputs=False) | told, metrics


def exported(root: Path, base: Path, train: Path, test: Path, bare: Path, kind="Model", **change: Any) -> Run:  # noqa: PLR0917
    change.setdefault("data", {})
    change["data"] = {"test": {"source": f"file://{test}"}} | change["data"]
    job = make_job(base, train, **change)
    task = open_task(job)
    module = moved(task)
    found, metrics = of_run(task, module)
    task.export(task.exportable(module, kind), root / "model", kind)
    seal(root / "model", fingerprint="f", kind=kind, found=described(job, task))
    return Run(root / "model", test, bare, base, found, metrics)


def of_texts(root: Path, base: Path, kind: str, export="Model", **change: Any) -> Run:
    asked = {"single": ["question"], "pairs": ["text", "other"], "tags": ["tokens"]}.get(kind, ["text"])
    test = rows(kind, 23, 1)
    bare = table(root / "bare.jsonl", [{name: row[name] for name in asked} for row in test])
    return exported(
        root,
        base,
        table(root / "train.jsonl", rows(kind, 40, 0)),
        table(root / "test.jsonl", test),
        bare,
        export,
        **change,
    )


QUESTION = {"data": {"train": {"columns": {"text": "question"}}}}
SETS = {"task": {"textClassification": {"labels": "Multi"}}}
NUMBERS = {"task": {"type": "TextRegression"}, "data": {"train": {"columns": {"values": ["price", "size"]}}}}
TAGS = {"task": {"type": "TokenClassification", "tokenClassification": {"maxLength": 20}}}
SPANS = {"task": {"type": "TokenClassification", "tokenClassification": {"annotation": "Spans"}}}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "single": ("single", "Model", QUESTION),
    "pooled": ("single", "Model", QUESTION | {"task": {"textClassification": {"pooling": "Mean", "maxLength": 12}}}),
    "lora": ("single", "Adapter", QUESTION | LORA),
    "pooled lora": ("single", "Adapter", QUESTION | LORA | {"task": {"textClassification": {"pooling": "Mean"}}}),
    "merged": ("single", "Merged", QUESTION | LORA),
    "quantized lora": ("single", "Adapter", QUESTION | LORA | QUANTIZED),
    "quantized and merged": ("single", "Merged", QUESTION | LORA | QUANTIZED),
    "bottleneck": ("single", "Adapter", QUESTION | BOTTLENECK),
    "pairs": ("pairs", "Model", {"data": {"train": {"columns": {"textPair": "other"}}}}),
    "several labels": ("multi", "Model", SETS),
    "numbers": ("numbers", "Model", NUMBERS),
    "numbers by lora": ("numbers", "Adapter", NUMBERS | LORA),
    "tags": ("tags", "Model", TAGS),
    "tags by a prefix": ("tags", "Adapter", TAGS | PREFIX),
    "spans": ("spans", "Model", SPANS),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=[*CASES, "pictures", "pictures by lora", "pictures by transformers", "clips"])
def run(request, tmp_path, bert) -> Run:
    if request.param in CASES:
        kind, export, change = CASES[request.param]
        return of_texts(tmp_path, bert, kind, export, **json.loads(json.dumps(change)))
    if request.param == "clips":
        train = audio_folder(tmp_path / "train")
        test = audio_folder(tmp_path / "test", per_label=3)
        task = {"type": "AudioClassification", "audioClassification": {"maxSeconds": 0.3}}
        base = audio_model(tmp_path / "base")
        return exported(tmp_path, base, train, test, test, task=task)
    train, test = image_folder(tmp_path / "train"), image_folder(tmp_path / "test", per_label=3)
    if request.param.endswith("transformers"):
        base = image_model(tmp_path / "base", "vit")
        return exported(tmp_path, base, train, test, test, task={"type": "ImageClassification"})
    vit = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 16}
    base = timm_folder(tmp_path / "base", "vit_tiny_patch16_224", **vit)
    task = {"type": "ImageClassification", "imageClassification": {"imageSize": 48}}
    lora = request.param.endswith("lora")
    return exported(
        tmp_path, base, train, test, test, "Adapter" if lora else "Model", task=task, **(LORA if lora else {})
    )


def ask(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def close(found: pa.ChunkedArray, wanted: pa.Array) -> bool:
    """Return whether two columns are the same, floats but for the rounding of sums in another order."""
    one, other = found.to_pylist(), wanted.to_pylist()
    if "float" not in str(wanted.type) and "double" not in str(wanted.type):
        return one == other
    flat = [[np.ravel(cell if cell is not None else np.nan) for cell in cells] for cells in (one, other)]
    return np.allclose(np.concatenate(flat[0]), np.concatenate(flat[1]), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_predictions_and_metrics_are_those_of_the_run(run, tmp_path):
    output = tmp_path / "said.parquet"
    done = ask("predict", run.folder, run.bare, "--output", output, "--batch-size", 4, "--no-inputs")
    assert done.exit_code == 0, done.output
    found = pq.read_table(output)
    assert found.column_names == [name for name in run.rows if name != "label"]
    assert [name for name in found.column_names if not close(found[name], run.rows[name])] == []
    done = ask("evaluate", run.folder, run.test, "--output", "json", "--batch-size", 4)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"] == pytest.approx(run.metrics, rel=1e-5, abs=1e-7)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, bert) -> Run:
    return of_texts(tmp_path_factory.mktemp("asked"), bert, "single", **json.loads(json.dumps(QUESTION)))


def test_csv_and_json_lines_hold_the_same_rows(asked, tmp_path):
    lines = [
        json.loads(line) for line in ask("predict", asked.folder, asked.bare, "--format", "jsonl").stdout.splitlines()
    ]
    ask("predict", asked.folder, asked.bare, "--output", tmp_path / "said.csv", "--inputs")
    with (tmp_path / "said.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0]) == ["row", "text", "prediction", "confidence", "probabilities"]
    assert [json.loads(row["probabilities"]) for row in cells] == [row["probabilities"] for row in lines]
    assert [row["prediction"] for row in cells] == asked.rows["prediction"].to_pylist()
    assert [row["text"] for row in cells] == [
        row["question"] for row in map(json.loads, asked.bare.read_text().splitlines())
    ]
    done = ask("predict", asked.folder, asked.bare, "--output", tmp_path / "said.csv")
    assert (done.exit_code, "is there already: --force overwrites it" in done.stderr) == (1, True)


def test_broken_rows_end_it_or_are_left_out(asked, tmp_path):
    data = tmp_path / "data-*.jsonl"
    (tmp_path / "data-0.jsonl").write_text('{"question": "how far"}\n{"question": ""}\n')
    (tmp_path / "data-1.jsonl").write_text('{"question": "what man"}\n')
    done = ask("predict", asked.folder, data, "--output", tmp_path / "said.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no text in column 'question' of row 2" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data-0.jsonl", "data-1.jsonl"]
    done = ask("predict", asked.folder, data, "--format", "jsonl", "--on-error", "skip")
    assert [json.loads(line)["row"] for line in done.stdout.splitlines()] == [1, 3]
    assert "1 rows of" in done.stderr


def test_what_cannot_be_computed_or_written_is_said_before(asked, tmp_path):
    done = ask("predict", asked.folder, asked.bare, "--device", "abacus")
    assert (done.exit_code, "--device abacus: nothing can be computed there" in done.stderr) == (2, True), done.output
    before = asked.bare.read_bytes()
    for data in (asked.bare, asked.bare.with_name(f"{asked.bare.stem[:-1]}*{asked.bare.suffix}")):
        done = ask("predict", asked.folder, data, "--output", asked.bare, "--force")
        assert (done.exit_code, "--output has to name another file" in done.stderr) == (1, True), done.output
        assert asked.bare.read_bytes() == before


def test_columns_of_other_names_are_named(asked, tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("words\nhow far\n")
    done = ask("predict", asked.folder, data)
    assert done.exit_code == 2
    assert "no column 'question'" in done.stderr
    assert "name the right one by --column FIELD=NAME" in done.stderr
    assert ask("predict", asked.folder, data, "--column", "text=words").exit_code == 0


def test_several_numbers_are_named_together_and_no_number_is_null(tmp_path, bert):
    run = of_texts(tmp_path, bert, "numbers", **json.loads(json.dumps(NUMBERS)))
    known = [json.loads(line) for line in run.test.read_text().splitlines()]
    data = table(tmp_path / "d.jsonl", [{"text": row["text"], "p": row["price"], "q": row["size"]} for row in known])
    done = ask("evaluate", run.folder, data, "--column", "values=p,q", "--output", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"] == pytest.approx(run.metrics, rel=1e-5, abs=1e-7)
    done = ask("evaluate", run.folder, table(tmp_path / "one.jsonl", known[:1]), "--output", "json")
    assert json.loads(done.stdout)["metrics"]["r2"] is None, "of one row there is none, and JSON has no NaN"


def test_what_an_export_does_not_say_its_config_does(asked, tmp_path):
    marker = asked.folder / "unfreeze.json"
    before = marker.read_text()
    marker.unlink()
    try:
        done = ask("predict", asked.folder, asked.bare, "--column", "text=question", "--format", "jsonl")
    finally:
        marker.write_text(before)
    found = [json.loads(line)["prediction"] for line in done.stdout.splitlines()]
    assert found == asked.rows["prediction"].to_pylist()


def test_what_is_no_finished_model_is_said(asked, tmp_path, bert):
    assert "no config.json lies here" in ask("predict", tmp_path, asked.bare).stderr
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "the run has not ended well yet" in ask("predict", tmp_path / "run", asked.bare).stderr
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "/gone"}')
    assert "an adapter that does not say what it is of" in ask("predict", adapter, asked.bare).stderr
    (adapter / "unfreeze.json").write_text((asked.folder / "unfreeze.json").read_text())
    assert "no adapter_model.safetensors beside" in ask("predict", adapter, asked.bare).stderr
    (adapter / "adapter_model.safetensors").touch()
    assert "its base does not lie in /gone: say where, by --base DIR" in ask("predict", adapter, asked.bare).stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", {"type": "Divination"}), ("task", {}), ("semantics", {"later": 1}), ("quantization", {"type": "x"})],
)
def test_what_a_newer_version_says_of_an_export_is_no_riddle(asked, tmp_path, field, value):
    found = json.loads((asked.folder / "unfreeze.json").read_text())
    (tmp_path / "unfreeze.json").write_text(json.dumps(found | {"described": found["described"] | {field: value}}))
    done = ask("predict", tmp_path, asked.bare)
    assert (done.exit_code, "cannot be read: a newer version of Unfreeze wrote it" in done.stderr) == (2, True), (
        done.output
    )


def test_a_field_that_the_task_has_not_is_said(asked):
    done = ask("predict", asked.folder, asked.bare, "--column", "price=question")
    assert (done.exit_code, "--column price: TextClassification has no such field" in done.stderr) == (2, True), (
        done.output
    )


def test_a_base_with_names_of_labels_but_no_head_predicts_nothing(asked, tmp_path, bert):
    config = json.loads((bert / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text("[]")
    assert "its answers are vectors of texts" in ask("predict", tmp_path, asked.bare).stderr
    (tmp_path / "modules.json").unlink()
    done = ask("predict", tmp_path, asked.bare)
    assert (done.exit_code, "says BertModel in architectures, which has no head" in done.stderr) == (2, True), (
        done.output
    )


def test_a_flat_folder_of_pictures_is_asked(tmp_path, caplog):
    train, test = image_folder(tmp_path / "train"), image_folder(tmp_path / "test", per_label=3)
    base = timm_folder(tmp_path / "base")
    run = exported(
        tmp_path,
        base,
        train,
        test,
        test,
        task={"type": "ImageClassification", "imageClassification": {"imageSize": 48}},
    )
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted(test.rglob("*.png"))):
        file.rename(flat / f"{number}.png")
    (flat / "0.png").write_bytes(b"nothing")
    assert "flat/0.png: it is no picture" in ask("predict", run.folder, flat).stderr
    (flat / "7.jfif").write_bytes(b"another")
    done = ask("predict", run.folder, flat, "--format", "jsonl", "--on-error", "skip")
    assert "left out: 1 files of .jfif" in caplog.text
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in found] == [f"{number}.png" for number in range(1, 6)]
    bare = ask("predict", run.folder, flat, "--format", "jsonl", "--no-inputs", "--on-error", "skip").stdout
    assert not any("file" in json.loads(line) for line in bare.splitlines())
    assert [row["prediction"] for row in found] == run.rows["prediction"].to_pylist()[1:]


def sealed(folder: Path, **change: Any) -> None:
    """Change what an export says of itself."""
    marker = folder / "unfreeze.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | change))


def test_several_labels_are_predicted_from_the_thresholds_of_the_export_on(tmp_path, bert):
    run = of_texts(tmp_path, bert, "multi", **json.loads(json.dumps(SETS)))
    names = json.loads((run.folder / "unfreeze.json").read_text())["described"]["outputs"]
    chances = np.array(run.rows["probabilities"].to_pylist(), dtype=np.float32)

    def said(*options: Any) -> list[list[str]]:
        done = ask("predict", run.folder, run.bare, "--format", "jsonl", *options)
        assert done.exit_code == 0, done.output
        return [json.loads(line)["prediction"] for line in done.stdout.splitlines()]

    def wanted(least: np.ndarray) -> list[list[str]]:
        return [[name for name, has in zip(names, row, strict=True) if has] for row in chances >= least]

    # Between two probabilities, so that rounding in another order changes nothing.
    ranked = np.sort(chances, axis=0)
    least = (ranked[10] + ranked[11]) / 2
    sealed(run.folder, thresholds={name: float(value) for name, value in zip(names, least, strict=True)})
    assert said() == wanted(least) != wanted(np.full(len(names), 0.5))
    assert said("--threshold", 0.5) == wanted(np.full(len(names), 0.5)), "an option says otherwise"
    sealed(run.folder, thresholds={names[0]: float(least[0])})
    assert said() == wanted(np.array([least[0], *[0.5] * (len(names) - 1)])), "the others have the usual one"
    done = ask("evaluate", run.folder, run.test, "--output", "json")
    assert json.loads(done.stdout)["metrics"] == pytest.approx(run.metrics, rel=1e-5), "as the report has it"
    sealed(run.folder, thresholds={"a": "much"})
    assert "thresholds is no map of labels to probabilities" in ask("predict", run.folder, run.bare).stderr


def test_a_threshold_of_a_model_with_one_label_is_refused(asked):
    done = ask("predict", asked.folder, asked.bare, "--threshold", 0.3)
    assert (done.exit_code, "--threshold 0.3" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("export", ["Model", "Adapter"])
def test_outputs_that_the_head_does_not_have_are_said(tmp_path, bert, export):
    run = of_texts(
        tmp_path, bert, "single", export, **json.loads(json.dumps(QUESTION | (LORA if export == "Adapter" else {})))
    )
    whole = json.loads((run.folder / "unfreeze.json").read_text())["described"]
    others = [["a", "b", "c", "d"], ["a", "b"], *([["x", "y", "z"]] if export == "Model" else [])]
    for outputs in others:
        sealed(run.folder, described=whole | {"outputs": outputs})
        done = ask("predict", run.folder, run.bare)
        assert (done.exit_code, f"{len(outputs)} outputs" in done.stderr) == (2, True), done.output
        assert "described.outputs" in done.stderr


@pytest.mark.parametrize("kind", ["single", "multi", "tags"])
def test_labels_that_the_model_does_not_have_are_left_out_of_an_evaluation(tmp_path, bert, kind):
    changes = {"single": QUESTION, "multi": SETS, "tags": TAGS}[kind]
    run = of_texts(tmp_path, bert, kind, **json.loads(json.dumps(changes)))
    known = [json.loads(line) for line in run.test.read_text().splitlines()]
    field = "tags" if kind == "tags" else "label"
    strange = known[4] | {field: "x" if kind == "single" else ["x", *known[4][field][1:]]}
    data = table(tmp_path / "strange.jsonl", [*known[:5], strange, *known[5:]])
    done = ask("evaluate", run.folder, data)
    assert done.exit_code == 2
    assert "row 6" in done.stderr
    done = ask("evaluate", run.folder, data, "--output", "json", "--on-error", "skip")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["samples"], found["skipped"]) == (len(known), 1)
    assert found["metrics"] == pytest.approx(run.metrics, rel=1e-5, abs=1e-7)
    done = ask("evaluate", run.folder, table(data, [known[0], strange, strange]), "--on-error", "skip")
    assert (done.exit_code, "2 of 3 rows cannot be read" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize("export", ["Model", "Adapter"])
def test_of_a_model_of_vectors_is_said_what_to_use(tmp_path, bert, export):
    path = table(tmp_path / "train.jsonl", [{"anchor": text, "positive": text + " a"} for text in lines(20, 3)])
    task = {"type": "TextEmbedding", "textEmbedding": {"maxLength": 12}}
    strategy = {"type": "FullFineTuning"}
    job = make_job(bert, path, task=task, strategy=strategy, **(LORA if export == "Adapter" else {}))
    opened = open_task(job)
    opened.export(opened.build_model().module, tmp_path / "model", export)
    seal(tmp_path / "model", fingerprint="f", kind=export, found=described(job, opened))
    for command in ("predict", "evaluate"):
        done = ask(command, tmp_path / "model", path)
        assert done.exit_code == 2, done.output
        assert (
            "its answers are vectors of texts, and no labels or numbers: load it as its README.md says" in done.stderr
        )
