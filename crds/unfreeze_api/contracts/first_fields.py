"""The fields of job.json that its first readers know: they refuse every other one.

What they do not know is left out of job.json unless it is set, and no fingerprint of theirs covers it. Both can go one
release after every image in use ignores unknown fields.
"""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]
"""Fields by wire name, each with the fields below it; a leaf, or a map with keys of the user's, has none."""


def _leaves(names: str, **nested: Fields) -> Fields:
    return {**{name: {} for name in names.split()}, **nested}


_COLUMNS = _leaves("text image label")
_DATASET = _leaves("source path", columns=_COLUMNS)
_HELD_OUT = _leaves("fraction", dataset=_DATASET)
_PLATEAU = _leaves("patience minDelta")

FIRST_FIELDS = _leaves(
    "schemaVersion name namespace hangTimeoutSeconds",
    model=_leaves("source path dtype initialization", quantization=_leaves("type doubleQuantization")),
    task=_leaves(
        "type", textClassification=_leaves("maxLength"), imageClassification=_leaves("imageSize augmentation")
    ),
    data={"train": _DATASET, "validation": _HELD_OUT, "test": _HELD_OUT},
    strategy=_leaves(
        "type",
        partialFineTuning=_leaves("lastBlocks blocks"),
        linearProbeThenFineTune=_leaves("probeEpochs", untilPlateau=_PLATEAU),
        gradualUnfreezing=_leaves("order blocksPerPhase groups epochsPerPhase stepsPerPhase", untilPlateau=_PLATEAU),
        learningRate=_leaves("head backbone layerDecay schedule scope warmupRatio rewarmSteps"),
    ),
    adapter=_leaves(
        "type baseWeights",
        lora=_leaves(
            "r loraAlpha loraDropout targetModules useRslora useDora initLoraWeights rankPattern alphaPattern"
            " loraplusLrRatio"
        ),
        adaLora=_leaves(
            "initR targetR tinit tfinal deltaT beta1 beta2 orthRegWeight loraAlpha loraDropout targetModules"
        ),
        ia3=_leaves("targetModules feedforwardModules"),
        bottleneck=_leaves("placement reductionFactor nonLinearity targetModules"),
        promptTuning=_leaves("numVirtualTokens promptTuningInit promptTuningInitText"),
        prefixTuning=_leaves("numVirtualTokens prefixProjection encoderHiddenSize"),
        pTuning=_leaves("numVirtualTokens encoderReparameterizationType encoderHiddenSize"),
        peft=_leaves("method config"),
    ),
    training=_leaves(
        "epochs batchSize gradientAccumulationSteps gradientCheckpointing compile precision optimizer weightDecay"
        " maxGradNorm seed metric",
        evaluate=_leaves("everySteps"),
        checkpoint=_leaves("everySteps keep"),
        earlyStopping=_PLATEAU,
    ),
    distribution=_leaves(
        "numNodes numProcPerNode acceleratorsPerNode threadsPerProc engine zeroStage offload rendezvousHost"
        " rendezvousPort"
    ),
    output=_leaves("source path export"),
    tracking=_leaves("tensorBoard", mlflow=_leaves("uri experiment"), wandb=_leaves("project entity mode")),
)

_LATER_TASKS = {
    "alignment": _leaves("width projection dropout temperature maxLength imageSize"),
    "audioClassification": _leaves("maxSeconds"),
    "captioning": _leaves("annotation prompt maxLength features prefixLength projection dropout imageSize maxSeconds"),
    "causalLm": _leaves("maxLength annotation lossOn packing"),
    "imageText": _leaves("maxLength imageTower prompts"),
    "seq2SeqLm": _leaves("maxSourceLength maxTargetLength"),
    "speechRecognition": _leaves("maxSeconds language"),
    "textEmbedding": _leaves("maxLength annotation pooling temperature loss"),
    "textRegression": _leaves("maxLength pooling loss huberDelta"),
    "tokenClassification": _leaves("maxLength annotation"),
}
"""Options that tasks began with which came later: whoever knows the task knows them."""
_LABELS = {"focalLoss": _leaves("gamma")}
_LATER_MEMBERS = {
    "textClassification": _LABELS,
    "audioClassification": _LABELS,
    "imageClassification": {
        **_LABELS,
        "randAugment": _leaves("magnitude magnitudeStd numLayers increasing"),
        "autoAugment": _leaves("policy magnitudeStd"),
        "augMix": _leaves("magnitude width depth"),
        "randomErasing": _leaves("probability"),
        "mixUp": _leaves("alpha"),
        "cutMix": _leaves("alpha"),
    },
}
"""What options that came later began with: whoever knows the option knows it."""
_AUTO = _leaves("target minGain", rungs=_leaves("type lastBlocks blocks epochs"), budget=_leaves("seconds"))
_ANCHOR = FIRST_FIELDS["data"]["train"]
_TASKS = FIRST_FIELDS["task"] | _LATER_TASKS
_ALWAYS_WRITTEN = FIRST_FIELDS | {
    "data": FIRST_FIELDS["data"] | {"anchor": _ANCHOR},
    "task": _TASKS | {name: _TASKS[name] | members for name, members in _LATER_MEMBERS.items()},
    "strategy": FIRST_FIELDS["strategy"] | {"auto": _AUTO},
    "training": FIRST_FIELDS["training"]
    | {"evaluate": FIRST_FIELDS["training"]["evaluate"] | {"generate": _leaves("maxTokens rows")}},
    "evidence": {
        "baseline": _leaves("maxSamples"),
        "scratch": _leaves("maxShare"),
        "forgetting": _leaves("budget guard", anchor=_ANCHOR, replay=_leaves("share")),
    },
    "guard": _leaves("type share budget anchor"),
    "budget": _leaves("unit limit perHour currency"),
    "cache": _leaves("source path maxBytes scratchBytes"),
}
_ALWAYS_WRITTEN["stages"] = _leaves("name keep", textEncoder=_leaves("source path")) | {
    part: _ALWAYS_WRITTEN[part] for part in ("task", "data", "strategy", "adapter", "training")
}


def without_new_defaults(whole: Fields, given: Fields, known: Fields = _ALWAYS_WRITTEN) -> Fields:
    """Return a job's fields without those that first readers refuse, where leaving them out means the same.

    Parameters
    ----------
    whole
        All fields of a job by wire name, or what lies below one of them.
    given
        Those that differ from their defaults.
    known
        Those that first readers know, and the readers of tasks that came later.
    """
    kept: Fields = {}
    for name, value in whole.items():
        if known.get(name) and isinstance(value, dict):
            kept[name] = without_new_defaults(value, given.get(name, {}), known[name])
        elif known.get(name) and isinstance(value, list):
            parts = zip(value, given.get(name, []), strict=True)
            kept[name] = [without_new_defaults(one, part, known[name]) for one, part in parts]
        elif name in known or name in given:
            kept[name] = value
    return kept


def beyond_first(given: Fields, known: Fields = FIRST_FIELDS) -> bool:
    """Return whether any of the fields that differ from their defaults is one that first readers do not know."""
    return any(
        name not in known or (bool(known[name]) and isinstance(value, dict) and beyond_first(value, known[name]))
        for name, value in given.items()
    )
