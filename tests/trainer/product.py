"""Every strategy with every adapter on every engine for every task: what the rules say of each, and a small job of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.trainer.covering import Row
from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import (
    CHANCES,
    WORDS,
    audio_folder,
    audio_model,
    bert_folder,
    decoder_folder,
    dual_encoder_folder,
    image_folder,
    image_model,
    make_job,
    merge,
    seq2seq_folder,
    speech_folder,
    timm_folder,
    write_csv,
    write_dialogues,
    write_sequences,
    write_speech,
    write_words,
)
from tests.trainer.test_adapters import IMAGES, TEXT
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_trainer.engines.deepspeed import DeepSpeedEngine
from unfreeze_trainer.models import export
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.finish import finish
from unfreeze_trainer.training.loop import train

STRATEGIES: dict[str, dict[str, Any]] = {
    "FeatureExtraction": {"type": "FeatureExtraction"},
    "PartialFineTuning": {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 2}},
    "FullFineTuning": {"type": "FullFineTuning", "learningRate": {"layerDecay": 0.8}},
    "LinearProbeThenFineTune": {"type": "LinearProbeThenFineTune", "learningRate": {"rewarmSteps": 2}},
    "GradualUnfreezing": {
        "type": "GradualUnfreezing",
        "gradualUnfreezing": {"groups": [["layer.1"], ["layer.0"]], "stepsPerPhase": 2},
    },
    "ChainThaw": {
        "type": "GradualUnfreezing",
        "gradualUnfreezing": {"order": "ChainThaw", "blocksPerPhase": 2, "stepsPerPhase": 1},
        "learningRate": {"schedule": "SlantedTriangular", "scope": "Phase"},
    },
    "BitFit": {"type": "BitFit"},
    "Auto": {
        "type": "Auto",
        "auto": {"rungs": [{"type": "FeatureExtraction", "epochs": 1}, {"type": "FullFineTuning"}], "minGain": 0},
    },
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "none": {},
    **{
        TEXT[name]["type"]: {"adapter": TEXT[name]}
        for name in ("lora", "adalora", "ia3", "prompt", "prefix", "p-tuning", "pfeiffer", "LOHA")
    },
    # Its vectors begin at 1, where float32 loses the steps of a small loss at a small rate.
    "IA3": {"adapter": TEXT["ia3"], "strategy": {"learningRate": {"head": 1.0}}},
    "DoRA": {"adapter": TEXT["dora"]},
    "Beside": {"adapter": TEXT["lora"] | {"baseWeights": "ByStrategy"}},
    "NF4": {"adapter": TEXT["lora"], "model": {"quantization": {"type": "NF4"}}},
}
TASKS: dict[str, dict[str, Any]] = {
    "TextClassification": {},
    "ImageClassification": IMAGES,
    "PictureTransformer": merge(IMAGES, {"task": {"type": "ImageClassification"}}),
    "AudioClassification": {},
    "TokenClassification": {"task": {"tokenClassification": {"maxLength": 8}}},  # some words lie beyond
    "TextRegression": {"data": {"train": {"columns": {"textPair": "other", "values": ["one", "two"]}}}},
    "TextEmbedding": {"data": {"train": {"columns": {"negative": "negative"}}}},
    "CausalLM": {},
    "Alignment": {"task": {"alignment": {"width": 8, "maxLength": 8}}},
    "Captioning": {"task": {"captioning": {"prefixLength": 2, "maxLength": 16}}},
    "ImageText": {"data": {"train": {"columns": {"className": "kind"}}}},
    "Seq2SeqLM": {},
    "SpeechRecognition": {},
    "MultiLabel": {
        "task": {
            "type": "TextClassification",
            "textClassification": {"labels": "Multi", "classWeights": "Balanced", "focalLoss": {}},
        }
    },
}
FACTORS = {
    "strategy": list(STRATEGIES),
    "adapter": list(ADAPTERS),
    "engine": list(ENGINES),
    "task": list(TASKS),
}
PLACES = {
    "TextClassification": ("bert", "texts.csv"),
    "ImageClassification": ("vit", "images"),
    "PictureTransformer": ("pictures", "images"),
    "AudioClassification": ("speech", "clips"),
    "TokenClassification": ("bert", "words.jsonl"),
    "TextRegression": ("bert", "numbers.csv"),
    "TextEmbedding": ("bert", "pairs.csv"),
    "CausalLM": ("decoder", "dialogues.jsonl"),
    "Alignment": ("", "pairings.jsonl"),
    "Captioning": ("", "pairings.jsonl"),
    "ImageText": ("clip", "pairings.jsonl"),
    "Seq2SeqLM": ("seq2seq", "sequences.jsonl"),
    "SpeechRecognition": ("whisper", "spoken/clips.jsonl"),
    "MultiLabel": ("bert", "sets.csv"),
}


TOWERS = {"Alignment": "bert", "Captioning": "decoder"}
"""The tower of texts of each task that has towers."""


def spec_of(row: Row) -> dict[str, Any]:
    """Return the fields of a row's job that say what it is; what a row does not have is what suits the rest."""
    strategy = "PartialFineTuning" if row.get("adapter") == "Beside" else "FullFineTuning"
    row = Row(strategy=strategy, adapter="none", engine="DDP", task="TextClassification") | row
    spec = {"strategy": STRATEGIES[row["strategy"]], "distribution": {"numNodes": 2, **ENGINES[row["engine"]]}}
    spec["strategy"] = merge({"learningRate": {"head": 5e-2}}, spec["strategy"])
    spec["task"] = {"type": row["task"]}
    spec["training"] = {"epochs": 2, "batchSize": 6, "optimizer": "SGD", "weightDecay": 0}
    spec["training"] |= {"evaluate": {"everySteps": 100}, "checkpoint": {"everySteps": 100}}
    return merge(merge(spec, ADAPTERS[row["adapter"]]), TASKS[row["task"]])


def _model_of(row: Row, folder: str) -> dict[str, Any]:
    if row.get("task") not in TOWERS:
        return {"source": f"file://{folder}/{PLACES[row.get('task', 'TextClassification')][0]}"}
    towers = (("Image", "vit"), ("Text", TOWERS[row["task"]]))
    return {"towers": [{"modality": kind, "source": f"file://{folder}/{name}"} for kind, name in towers]}


def refusal(row: Row) -> str:
    """Return what the rules of the API say against a row, "" when it is allowed."""
    folders = {
        "model": _model_of(row, "/models"),
        "data": {"train": {"source": "file:///data"}, "validation": {"fraction": 0.25}},
        "output": {"destination": "file:///run"},
    }
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}}
    return "; ".join(str(cause) for cause in validate(manifest | {"spec": merge(folders, spec_of(row))}))


def write_inputs(folder: Path) -> None:
    bert_folder(folder / "bert", num_hidden_layers=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    decoder_folder(folder / "decoder", tie_word_embeddings=True)
    write_dialogues(folder / "dialogues.jsonl")
    seq2seq_folder(folder / "seq2seq", dropout_rate=0.0, num_layers=1, num_decoder_layers=1, initializer_factor=1.0)
    write_sequences(folder / "sequences.jsonl")
    write_csv(folder / "texts.csv")
    write_words(folder / "words.jsonl")
    write_csv(folder / "sets.csv", labels=('"a,b"', "b", '"c,a"', '""'))
    rows = "".join(f"{WORDS[n % 7]} {WORDS[n % 5]},{WORDS[n % 3]},{n % 7}.5,{-n % 5}\n" for n in range(24))
    (folder / "numbers.csv").write_text(f"text,other,one,two\n{rows}")
    rows = "".join(f"{WORDS[n % 7]} {WORDS[n % 5]},{WORDS[n]},{WORDS[n % 11]} {WORDS[n % 3]}\n" for n in range(22))
    (folder / "pairs.csv").write_text(f"anchor,positive,negative\n{rows}")
    vit = {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 32, "patch_size": 16}
    timm_folder(folder / "vit", "vit_tiny_patch16_224", **vit)
    dual_encoder_folder(folder / "clip")
    image_model(folder / "pictures", num_hidden_layers=2)
    images = image_folder(folder / "images", per_label=8, labels=("blue", "green", "red"))
    pictures = sorted(str(file.relative_to(folder)) for file in images.rglob("*.png"))
    lines = [
        {"image": name, "text": f"{WORDS[n % 7]} {WORDS[n // 2]}", "kind": name.split("/")[1]}
        for n, name in enumerate([*pictures, *pictures[:4]])
    ]
    (folder / "pairings.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    audio_model(folder / "speech", **dict.fromkeys(CHANCES, 0.0))
    speech_folder(folder / "whisper", encoder_layers=1, decoder_layers=1)
    write_speech(folder / "spoken")
    audio_folder(folder / "clips", per_label=8, labels=("high", "low", "lower"))


def job_of(row: Row, folder: Path):
    model, data = PLACES[row["task"]]
    spec = spec_of(row)
    if not model:
        spec["model"] = {"source": None} | _model_of(row, str(folder))
    place = {"destination": f"file://{folder}/{'-'.join(row.values())}"}
    return make_job(folder / model, folder / data, output=place, **spec)


@patch.object(DeepSpeedEngine, "persistence_threshold", 32)  # biases stay whole between steps, weights do not
@patch.object(export, "reload", plain_outputs)
def trained(row: Row, folder: Path):
    """Train, export and load it; return the weights before the export on rank 0, sums of all bits on each rank, the phases."""
    job = job_of(row, folder)
    run = open_run(job, open_task(job))
    train(run)
    weights = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    sums = run.engine.checksums()
    finish(run)
    run.saver.close()
    return weights, sums, [phase.name for phase in run.state.phases]
