"""What models forget of what their bases could, against what they learn; and guards that keep a budget of it.

    python -m bench.forgetting FOLDER [WORD ...]

Measures the rows whose names have all the words. Needs what bench.pictures does. MiniLM learns 700 of TREC's questions, and is asked which of 256
sentences are near each other, the first lines of what Python's own library says of its functions; torchvision's MobileNetV2 learns 600 pictures of Fashion-MNIST, and is asked, with its head for ImageNet put back, what it sees in 120 pieces of
scikit-learn's two photographs. Curves are of full fine-tuning at several rates, of the uppermost blocks and of a LoRA; then a budget with each guard.
SmolLM2-135M-Instruct learns the answers to 96 questions of chatterbot's English dialogues, and is asked how the same sentences about Python's
library go on after their first words: all ways have the same 12 steps, and adapters as many weights. Its package needs gguf beside the others.
A job ends where its export would begin. Prints the tables, and keeps each row in bench/results/forgetting.jsonl.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.pictures import clothes
from bench.support.outcomes import SEED, record
from bench.support.turns import make_job
from examples.prepare import prepare, prepare_sentences
from examples.prepare_dialogues import prepare_dialogues
from examples.prepare_mobilenet import write_mobilenet

EVERYTHING = 1000.0
"""A budget that nothing breaks: the guard Stop then looks at each evaluation, which makes a curve."""
PHOTOGRAPHS, PIECE, PIECES = ("china.jpg", "flower.jpg"), 160, 120
LEARNED, HELD_OUT, KNOWN, FIRST = 96, 32, 96, 4
"""Questions to learn from and held out, sentences that are asked, and words of each that are given."""
SPLITS = {"train": "train", "validation": "test"}
Job = dict[str, Any]


def full(rate: float) -> Job:
    """Return a strategy that trains all weights."""
    return {"strategy": {"type": "FullFineTuning", "learningRate": {"head": max(rate, 1e-3), "backbone": rate}}}


def top(rate: float, blocks: int) -> Job:
    """Return a strategy that trains the head and the uppermost blocks."""
    rates = {"learningRate": {"head": max(rate, 1e-3), "backbone": rate}}
    return {"strategy": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": blocks}, **rates}}


MLP = ("gate_proj", "up_proj", "down_proj")
SHIRA: Job = {"type": "PEFT", "peft": {"method": "SHIRA", "config": {"r": 8}}}
"""Of each layer as many weights as a LoRA of this rank has."""


def lora(rank: int, *targets: str) -> Job:
    """Return a LoRA of some layers, all linear ones where none is named."""
    named = {"targetModules": list(targets)} if targets else {}
    return {"type": "LoRA", "lora": {"r": rank, "loraAlpha": 2 * rank, "loraDropout": 0.0, **named}}


def adapted(rate: float, adapter: Job | None = None) -> Job:
    """Return a strategy that trains an adapter, or all weights, at one rate."""
    rates = {"head": rate, **({} if adapter else {"backbone": rate})}
    found: Job = {"strategy": {"type": "FullFineTuning", "learningRate": rates}}
    return found | ({"adapter": adapter} if adapter else {})


WAYS: dict[str, dict[str, Job]] = {
    "MiniLM": {
        "all, 2e-5": full(2e-5),
        "all, 2e-4": full(2e-4),
        "all, 1e-3": full(1e-3),
        "uppermost block, 2e-4": top(2e-4, 1),
        "LoRA, 2e-3": full(2e-3) | {"adapter": {"type": "LoRA", "lora": {"r": 8}}},
    },
    "MobileNetV2": {"all, 1e-4": full(1e-4), "all, 1e-3": full(1e-3), "three uppermost blocks, 1e-3": top(1e-3, 3)},
    "SmolLM2": {
        **{f"all weights, {rate:.0e}": adapted(rate) for rate in (2e-5, 1e-4)},
        **{f"LoRA of all layers, {rate:.0e}": adapted(rate, lora(8)) for rate in (5e-4, 2e-3)},
        **{f"LoRA of the MLP alone, {rate:.0e}": adapted(rate, lora(13, *MLP)) for rate in (5e-4, 2e-3)},
        **{f"SHiRA, {rate:.0e}": adapted(rate, SHIRA) for rate in (5e-4, 2e-3)},
    },
}
GUARDED = {"MiniLM": ("all, 2e-4", 0.4), "MobileNetV2": ("all, 1e-3", 0.4)}
"""Which way is guarded, and its budget."""


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]).resolve()
    logging.disable(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: job for name, job in jobs().items() if all(word in name for word in sys.argv[2:])}
    models = {model for model, *_ in asked.values()}
    if "MiniLM" in models and not (folder / "models" / "minilm").is_dir():
        prepare(folder)
    prepare_sentences(folder)
    if "MobileNetV2" in models:
        write_mobilenet(folder / "models" / "mobilenet-v2")
        if not (folder / "clothes").is_dir():
            clothes(folder, 800)
        pieces(folder / "pieces")
    if "SmolLM2" in models:
        answers(folder)
    print(table([record("forgetting", name, partial(measured, folder, *job)) for name, job in asked.items()]))


def jobs() -> dict[str, tuple[str, Job, dict[str, Any]]]:
    """Return what is measured: model, way, and what is asked about forgetting."""
    found: dict[str, tuple[str, Job, dict[str, Any]]] = {}
    for model, ways in WAYS.items():
        for way, spec in ways.items():
            found[f"{model}, {way}"] = (model, spec, {"guard": "Stop", "budget": EVERYTHING})
        if model not in GUARDED:
            continue
        way, budget = GUARDED[model]
        for guard in ("Report", "Interpolate", "Stop", "Hold", "Replay"):
            name = f"{model}, {way}, {guard} with a budget of {budget:g}"
            found[name] = (model, ways[way], {"guard": guard, "budget": budget})
    return found


def pieces(folder: Path) -> None:
    """Write square pieces of two photographs."""
    if folder.is_dir():
        return
    import sklearn.datasets
    from PIL import Image

    folder.mkdir()
    draw = random.Random(SEED)  # noqa: S311
    for name in PHOTOGRAPHS:
        whole = Image.open(Path(sklearn.datasets.__file__).parent / "images" / name)
        for number in range(PIECES // len(PHOTOGRAPHS)):
            left, upper = draw.randrange(whole.width - PIECE), draw.randrange(whole.height - PIECE)
            whole.crop((left, upper, left + PIECE, upper + PIECE)).save(folder / f"{name[:-4]}-{number}.png")


def answers(folder: Path) -> None:
    """Write FOLDER/data/answers-{train,test}.jsonl, questions with answers that share nothing, and known.jsonl, sentences in two parts."""
    if not (folder / "data" / "dialogues-train.jsonl").exists():
        prepare_dialogues(folder)
    seen: set[str] = set()
    for name, most in (("test", HELD_OUT), ("train", LEARNED)):
        rows: list[dict[str, str]] = []
        for line in (folder / "data" / f"dialogues-{name}.jsonl").open():
            asked, said, *_ = (one["content"].strip() for one in json.loads(line)["messages"])
            if not {asked.lower(), said.lower()} & seen and len(rows) < most:
                rows.append({"prompt": f"Q: {asked}\nA:", "completion": f" {said}"})
                seen |= {asked.lower(), said.lower()}
        lines(folder / "data" / f"answers-{name}.jsonl", rows)
    with (folder / "data" / "sentences.csv").open() as file:
        words = [row["sentence"].split(" ") for row in csv.DictReader(file)]
    halves = [(one[:FIRST], one[FIRST:]) for one in words[:KNOWN]]
    lines(
        folder / "data" / "known.jsonl", [{"prompt": " ".join(a), "completion": f" {' '.join(b)}"} for a, b in halves]
    )


def lines(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows of JSON."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec_of(folder: Path, model: str) -> Job:
    """Return task, data and training of a model's job."""
    if model == "SmolLM2":
        return {
            "model": {"source": f"file://{folder}/models/smollm2-135m"},
            "task": {"type": "CausalLM", "causalLm": {"annotation": "Completions", "maxLength": 64}},
            "data": {one: {"source": f"file://{folder}/data/answers-{name}.jsonl"} for one, name in SPLITS.items()},
            "training": {"epochs": 1, "batchSize": 8, "seed": SEED, "evaluate": {"everySteps": 4}},
        }
    if model == "MiniLM":
        return {
            "model": {"source": f"file://{folder}/models/minilm"},
            "task": {"type": "TextClassification", "textClassification": {"maxLength": 32}},
            "data": {
                "train": {"source": f"file://{folder}/data/trec-train-1000.csv", "columns": {"text": "question"}},
                "validation": {"fraction": 0.3},
            },
            "training": {"epochs": 3, "batchSize": 32, "seed": SEED, "evaluate": {"everySteps": 11}},
        }
    return {
        "model": {"source": f"file://{folder}/models/mobilenet-v2"},
        "task": {"type": "ImageClassification", "imageClassification": {"imageSize": 64, "augmentation": "None"}},
        "data": {"train": {"source": f"file://{folder}/clothes/train"}, "validation": {"fraction": 0.25}},
        "training": {"epochs": 3, "batchSize": 32, "seed": SEED, "evaluate": {"everySteps": 9}},
    }


def measured(folder: Path, model: str, way: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """Train a job up to its export; return its curve, and what there is at the end."""
    from accelerate.state import AcceleratorState, PartialState

    from unfreeze_trainer.engines import open_engine
    from unfreeze_trainer.tasks import open_task
    from unfreeze_trainer.training.finish import take_best
    from unfreeze_trainer.training.guards import keep_base
    from unfreeze_trainer.training.loop import train
    from unfreeze_trainer.training.run import Run

    AcceleratorState._reset_state()  # noqa: SLF001 - it takes one engine per process for granted
    PartialState._reset_state()  # noqa: SLF001
    anchor: dict[str, Any] = {"source": f"file://{folder}/pieces"}
    if model == "MiniLM":
        anchor = {"source": f"file://{folder}/data/sentences.csv", "columns": {"text": "sentence"}}
    if model == "SmolLM2":
        anchor = {"source": f"file://{folder}/data/known.jsonl"}
    scratch = Path(tempfile.mkdtemp(dir=folder))
    forgetting = {"anchor": anchor} | wanted
    job = make_job(f"{scratch}/run", **spec_of(folder, model), **way, evidence={"forgetting": forgetting})
    task = open_task(job)
    run = Run(job, task, task.build_model(), open_engine(job), None)
    metric = job.metric.name
    try:
        untrained = run.evaluator.measure("validation").metrics if metric == "loss" else {}
        train(run)
        run.saver.wait()
        best = run.state.best
        assert best is not None
        if best.step != run.state.step:
            take_best(run, best.step)
        kept, lost = keep_base(run, best)
    finally:
        run.saver.close()
    events = [json.loads(line) for line in (scratch / "run" / "events.jsonl").read_text().splitlines()]
    found = {line["step"]: line["metrics"][metric] for line in events if line["event"] == "evaluation"}
    curve = [
        [line["step"], round(found[line["step"]], 4), round(line["lost"], 4)]
        for line in events
        if line["event"] == "forgetting" and line["step"] in found
    ]
    [decision] = [one for one in run.state.decisions if one.type == "Forgetting"]
    seconds = sum(phase.seconds for phase in run.state.phases)
    run.engine.end()
    shutil.rmtree(scratch)
    return {
        metric: round(kept.metrics[metric], 4),
        **({"untrained": round(untrained[metric], 4)} if untrained else {}),
        "lost": round(lost["forgotten"], 4),
        "answer": decision.answer,
        "said": decision.message,
        "figures": {one.name: one.value and round(one.value, 4) for one in decision.evidence},
        "curve": curve,
        "trained_s": round(seconds, 1),
        "gauges_s": round(decision.seconds, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of all jobs, in Markdown."""
    text = [
        "| job | accuracy, or loss | lost | at evaluations: accuracy or loss, lost | gauges |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        curve = "; ".join(f"{value:.2f}, {lost:.2f}" for _, value, lost in row["curve"])
        share, value = row["gauges_s"] / row["trained_s"], row.get("accuracy", row.get("loss"))
        text.append(f"| {row['row']} | {value:.3f} | {row['lost']:.3f} | {curve} | {share:.1%} |")
    return "\n".join(text)


if __name__ == "__main__":
    main()
