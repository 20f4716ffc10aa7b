"""Hypothesis strategies for manifests: valid ones made from the CRD's own schema, and broken ones made from those."""

from __future__ import annotations

import copy
import struct
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_api.generate.crd import schema
from unfreeze_api.grammar.former import is_deprecated
from unfreeze_api.tasks import task_type

SOURCES = ("pvc://data", "pvc://my.claim/a/b c.csv", "file:///models/x", "pvc://d/.hidden/..x")
EXAMPLES = {
    "must be pvc://CLAIM/PATH or file:///PATH or hf://OWNER": (
        *SOURCES,
        "hf://o/n",
        "hf://o-1/n.2@refs/pr/3",
        "timm://r.a_1",
        f"hf://o/n@{'0' * 40}",
    ),
    "must be pvc://CLAIM/PATH or file:///PATH or hf://datasets": (
        *SOURCES,
        "hf://datasets/o/n@v1/a b-*.csv",
        "hf://datasets/o/n",
    ),
    "must be pvc://": SOURCES,
    "must be the name of an object": ("a-secret", "my.name", "n" * 253),
    "must be the name of a namespace": ("default", "team-a"),
    "must be the value of a label": ("", "a", "B_1.c", "v" * 63),
    "must be the key of a label": ("zone", "kubernetes.io/hostname", "A_b.c", f"{'p' * 253}/{'n' * 63}"),
    "must be the key of a Secret": ("token", ".dockerconfigjson", "A_b"),
    "must be the reference of an image": ("trainer", f"registry.example:5000/a/b@sha256:{'0' * 64}", "[::1]:5000/x:1"),
    "every key": ("zone", "a.example/B_c.d", "A_b", f"{'p' * 253}/{'n' * 63}"),
    "every resource": ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "hugepages-2Mi"),
}
QUANTITIES = (1, 8, "500m", "2", "64Gi", "1.5", "1e3")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
JUNK = (
    0,
    -1,
    1,
    2.5,
    1e-7,
    10**9,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    True,
    "",
    "Auto",
    'ü"\\\n',
    "x" * 300,
    [],
    ["a", "a"],
    [1],
    {},
    {"a": 1},
    None,
)


def values(node: dict[str, Any], texts: SearchStrategy[str]) -> SearchStrategy[Any]:
    """Return a strategy for what a schema allows, without regard to rules between fields; `texts` are free texts."""
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return st.sampled_from([{}, {"weight": 1}])
    if node.get("x-kubernetes-int-or-string"):
        return st.sampled_from(QUANTITIES) if "minimum" not in node else st.sampled_from(["Auto", 1, 2, 8])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    kinds = {"object": _objects, "array": _lists, "integer": _integers, "number": _numbers, "string": _strings}
    return st.booleans() if node["type"] == "boolean" else kinds[node["type"]](node, texts)


def _objects(node: dict[str, Any], texts: SearchStrategy[str]) -> SearchStrategy[Any]:
    if "additionalProperties" in node:
        rules = " ".join(rule["message"] for rule in node.get("x-kubernetes-validations", ()))
        columns = rules.startswith("the keys are those of data.train.columns")
        keys = (
            st.sampled_from(["text", "label"])
            if columns
            else _examples(node, "every")
            if rules
            else st.sampled_from(["a", "layer.0"])
        )
        return st.dictionaries(keys, values(node["additionalProperties"], texts), max_size=3)
    parts = {key: values(part, texts) for key, part in node["properties"].items() if not is_deprecated(part)}
    needed = node.get("required", [])
    optional = {key: part for key, part in parts.items() if key not in needed}
    return st.fixed_dictionaries({key: parts[key] for key in needed}, optional=optional)


def _lists(node: dict[str, Any], texts: SearchStrategy[str]) -> SearchStrategy[Any]:
    unique = {"set": str, "map": lambda item: item.get("name")}.get(node.get("x-kubernetes-list-type", ""))
    return st.lists(
        values(node["items"], texts),
        min_size=node.get("minItems", 0),
        max_size=min(2, node["maxItems"]),
        unique_by=unique,
    )


def _integers(node: dict[str, Any], _: SearchStrategy[str]) -> SearchStrategy[Any]:
    low, high = node["minimum"], node["maximum"]
    return st.integers(low, high) | st.integers(low, min(high, low + 8))


def _numbers(node: dict[str, Any], _: SearchStrategy[str]) -> SearchStrategy[Any]:
    low, high = node["minimum"], node["maximum"]
    lowest, highest = node.get("exclusiveMinimum", False), node.get("exclusiveMaximum", False)
    width = 32 if all(struct.unpack("f", struct.pack("f", bound))[0] == bound for bound in (low, high)) else 64
    floats = st.floats(low, high, width=width, allow_subnormal=False, exclude_min=lowest, exclude_max=highest)
    return floats | st.sampled_from([number for number in (1, 2, 5) if number < high] or [0.5])


def _strings(node: dict[str, Any], texts: SearchStrategy[str]) -> SearchStrategy[Any]:
    if "x-kubernetes-validations" in node:
        return _examples(node, "must")
    if node.get("pattern", "").startswith("^[a-z]+"):
        return st.sampled_from(["layer.0", "layer.11", "pooler"])
    if node.get("pattern", "").startswith("^[a-z0-9](["):
        return st.sampled_from(["domain", "a-1"])
    if "pattern" in node:
        return st.sampled_from(["A", "B_1", "_c"])
    cut = texts.map(lambda text: text[: node["maxLength"]])
    return cut.filter(lambda text: len(text) >= node.get("minLength", 0))


def _examples(node: dict[str, Any], word: str) -> SearchStrategy[str]:
    """Return what a rule that says `must be ...` of a value, or `every ...` of a map's keys, allows."""
    (text,) = (r["message"] for r in node["x-kubernetes-validations"] if r["message"].startswith(word))
    return st.sampled_from(next(allowed for start, allowed in EXAMPLES.items() if text.startswith(start)))


@cache
def _specs(texts: SearchStrategy[str]) -> SearchStrategy[dict[str, Any]]:
    return values(schema()["properties"]["spec"], texts)


@st.composite
def manifests(draw: DrawFn, texts: SearchStrategy[str] = TEXTS) -> dict[str, Any]:
    """Draw a manifest that the API server takes."""
    spec = draw(_specs(texts))
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "generated"},
        "spec": _repaired(copy.deepcopy(spec)),
    }


@st.composite
def broken(draw: DrawFn) -> dict[str, Any]:
    """Draw a manifest with one to three random mistakes, some of which may be none."""
    manifest = copy.deepcopy(draw(manifests()))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(manifest["spec"]))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove" and isinstance(holder, dict):
            del holder[key]
        elif action == "add" and isinstance(holder, dict):
            holder["unknown"] = 1
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return manifest


def _places(value: Any) -> Any:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _repair_evidence(spec: dict[str, Any]) -> None:
    evidence, task = spec.get("evidence", {}), task_type(spec["task"]["type"])
    if not task.classical:
        evidence.pop("baseline", None)
    divided = spec.get("distribution", {}).get("engine", "DDP") != "DDP"
    if divided or not task.one_answer or spec["model"].get("initialization") == "Random":
        evidence.pop("scratch", None)
    _repair_forgetting(spec, evidence)
    if not evidence:
        spec.pop("evidence", None)


def _repair_budget(spec: dict[str, Any]) -> None:
    policy = spec.get("runPolicy", {})
    if "budget" in policy:
        policy["budget"] = {"hours": policy["budget"].get("hours", 1)}
    if "stages" in spec:
        policy.pop("budget", None)


def _repair_stages(spec: dict[str, Any]) -> None:
    """Make each stage one of the job's own task on data of its own; without stages where there can be none."""
    model, task = spec["model"], task_type(spec["task"]["type"])
    whole = spec.get("distribution", {}).get("engine", "DDP") == "DDP" and model.get("initialization") != "Random"
    if "candidates" in model or not whole or "forgetting" in spec.get("evidence", {}):
        spec.pop("stages", None)
    for number, stage in enumerate(spec.get("stages", ())):
        stage["name"] = f"stage-{number}"
        stage["data"] = {"train": {"source": stage["data"]["train"]["source"]}}
        for member in ("task", "adapter", "strategy", "training", "textEncoder"):
            stage.pop(member, None)
        if not task.rankable and not task.joins:
            stage.pop("keep", None)


def _repair_forgetting(spec: dict[str, Any], evidence: dict[str, Any]) -> None:
    if (forgetting := evidence.get("forgetting")) is None:
        return
    engine = spec.get("distribution", {}).get("engine", "DDP")
    task = task_type(spec["task"]["type"])
    if engine == "DeepSpeed" or task.describes or spec["model"].get("initialization") == "Random":
        evidence.pop("forgetting")
    if "budget" not in forgetting or spec.get("adapter"):
        forgetting.pop("guard", None)
    if "anchor" in forgetting:
        forgetting["anchor"] = {"source": forgetting["anchor"]["source"]}
    elif forgetting.get("guard") == "Replay":
        forgetting.pop("guard")
    if task.joins and forgetting.get("guard") in ("Replay", "Hold"):
        forgetting.pop("guard")
    if forgetting.get("guard") != "Replay":
        forgetting.pop("replay", None)


def _repaired(spec: dict[str, Any]) -> dict[str, Any]:
    """Make a spec that the schema allows obey the rules too."""
    spec.setdefault("training", {})
    for union in (spec["strategy"], spec["task"], spec.get("adapter", {"type": ""})):
        wanted = {"LoRA": "lora", "IA3": "ia3", "PEFT": "peft", "CausalLM": "causalLm", "Seq2SeqLM": "seq2SeqLm"}.get(
            union["type"], union["type"][:1].lower() + union["type"][1:]
        )
        for member in set(union) - {"type", "learningRate", "solver", wanted}:
            del union[member]
    _repair_model(spec)
    _repair_labels(spec)
    _repair_columns(spec["data"])
    _repair_prompts(spec["task"].get("imageText", {}))
    regression = spec["task"].get("textRegression", {})
    regression.pop("huberDelta" if regression.get("loss") != "Huber" else "", None)
    _repair_embedding(spec["task"].get("textEmbedding", {}))
    language = spec["task"].get("causalLm", {})
    language.pop("lossOn" if language.get("annotation") == "Text" else "", None)
    captions = spec["task"].get("captioning", {})
    captions.pop("prompt" if captions.get("annotation") == "Answers" else "", None)
    _repair_adapter(spec)
    _repair_strategy(spec)
    _repair_distribution(spec)
    destination = spec["output"]["destination"].replace("pvc://", "pvc://runs-").replace("file:///", "file:///runs/")
    spec["output"]["destination"] = destination
    for part in ("validation", "test"):
        if (held_out := spec["data"].get(part)) is not None:
            spec["data"][part] = {"source": held_out["source"]} if "source" in held_out else {"fraction": 0.25}
    if (tracking := spec.get("tracking")) is not None:
        tracking.setdefault("tensorBoard", {})
        tracking.get("mlflow", {})["uri"] = "https://mlflow.example/a"
        tracking.get("wandb", {}).setdefault("secretRef", {"name": "wandb"})
    _repair_evidence(spec)
    _repair_stages(spec)
    _repair_budget(spec)
    if "adapter" not in spec:
        spec["output"]["exports"] = ["Model"]
    elif "exports" in spec["output"]:
        spec["output"]["exports"] = [kind for kind in spec["output"]["exports"] if kind != "Model"] or ["Merged"]
    for variable in spec.get("template", {}).get("env", []):
        variable.pop("valueFrom", None)
        variable.setdefault("value", "")
    for toleration in spec.get("template", {}).get("tolerations", []):
        toleration.pop("value", None)
        toleration |= {"operator": "Exists", "effect": "NoExecute"}
    _repair_affinity(spec.get("template", {}).get("affinity", {}))
    return spec


def _repair_model(spec: dict[str, Any]) -> None:
    model = spec["model"]
    candidates = {candidate["source"]: candidate for candidate in model.pop("candidates", [])}
    towers = model.pop("towers", [])
    if task_type(spec["task"]["type"]).towers:
        sources = [*(tower["source"] for tower in towers), "pvc://models/one", "pvc://models/other"][:2]
        model["towers"] = [
            {"modality": kind, "source": one} for kind, one in zip(("Image", "Text"), sources, strict=True)
        ]
        for member in ("source", "quantization"):
            model.pop(member, None)
        spec.pop("adapter", None)
        if task_type(spec["task"]["type"]).writes:
            spec["distribution"] = {"engine": "DDP"}
    elif candidates and "source" not in model and task_type(spec["task"]["type"]).rankable:
        model["candidates"] = [*candidates.values()]
    else:
        model.setdefault("source", "pvc://models/base")


_APART = (
    ("classWeights", "classWeightsByLabel"),
    ("classWeights", "sampling"),
    ("classWeightsByLabel", "sampling"),
    ("focalLoss", "labelSmoothing"),
    ("focalLoss", "mixUp"),
    ("focalLoss", "cutMix"),
    ("randAugment", "autoAugment"),
    ("randAugment", "augMix"),
    ("autoAugment", "augMix"),
)


def _repair_labels(spec: dict[str, Any]) -> None:
    options = next((part for part in spec["task"].values() if isinstance(part, dict)), {})
    if options.get("labels") != "Multi":
        options.pop("labelSeparator", None)
    else:
        options.pop("labelSmoothing", None)
        options.pop("sampling", None)
    for one, other in _APART:
        if one in options:
            options.pop(other, None)
    task = task_type(spec["task"]["type"])
    metrics = task.multi_label if options.get("labels") == "Multi" else task.metrics
    metrics = task.of_scores if task.of_scores and options.get("annotation") == "Scores" else metrics
    known = {metric.name for metric in metrics}
    if spec["training"].get("metric") not in known:
        spec["training"].pop("metric", None)


def _repair_prompts(options: dict[str, Any]) -> None:
    if "prompts" in options:
        options["prompts"] = [f"{{}} {number}" for number, _ in enumerate(options["prompts"])]


def _repair_embedding(options: dict[str, Any]) -> None:
    if options.get("annotation") != "Scores":
        options.pop("loss", None)
    elif options.get("loss") != "CoSENT":
        options.pop("temperature", None)


def _repair_columns(data: dict[str, Any]) -> None:
    for part in data.values():
        columns = part.get("columns", {}) if isinstance(part, dict) else {}
        columns.pop("values" if "value" in columns else "", None)


def _repair_adapter(spec: dict[str, Any]) -> None:
    spec["model"].pop("quantization", None)
    adapter = spec.get("adapter", {"type": ""})
    if adapter["type"] in ("PromptTuning", "PrefixTuning", "PTuning", "AdaLoRA"):
        del spec["adapter"]
    elif adapter["type"] == "Bottleneck" and task_type(spec["task"]["type"]).joins:
        spec.pop("adapter")
    if adapter["type"] == "Bottleneck":
        spec["output"].pop("exports", None)
    if adapter["type"] == "PEFT":
        adapter["peft"] = {"method": "LOHA", "config": {"r": 4}}
    for name in ("useDora", "initLoraWeights", "rankPattern", "alphaPattern"):
        adapter.get("lora", {}).pop(name, None)


def _repair_affinity(node: Any) -> None:
    if isinstance(node, dict) and "operator" in node:
        node["values"] = {"Exists": [], "DoesNotExist": [], "Gt": ["5"], "Lt": ["5"]}.get(
            node["operator"], node.get("values") or ["a"]
        )
        if not node["values"]:
            del node["values"]
    if isinstance(node, dict) and "topologyKey" in node:
        selector = node.get("labelSelector", {})
        used = {*selector.get("matchLabels", ()), *(one["key"] for one in selector.get("matchExpressions", ()))}
        for field in {"mismatchLabelKeys", "matchLabelKeys"} & set(node):
            node[field] = sorted(set(node[field]) - used)
            used |= set(node[field])
        if "labelSelector" not in node:
            node.pop("matchLabelKeys", None)
            node.pop("mismatchLabelKeys", None)
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _repair_affinity(part)


def _repair_strategy(spec: dict[str, Any]) -> None:
    strategy = spec["strategy"]
    headless = spec["task"]["type"] in ("TextEmbedding", "CausalLM", "Seq2SeqLM", "SpeechRecognition")
    if headless and strategy["type"] in ("FeatureExtraction", "LinearProbeThenFineTune", "Auto"):
        strategy["type"] = "FullFineTuning"
        strategy.pop("linearProbeThenFineTune", None)
        strategy.pop("auto", None)
    _repair_rungs(strategy.get("auto", {}).get("rungs", []))
    rates = strategy.get("learningRate", {})
    if strategy["type"] == "PartialFineTuning" and len(strategy.get("partialFineTuning", {})) != 1:
        strategy["partialFineTuning"] = {"lastBlocks": 1}
    gradual = strategy.get("gradualUnfreezing", {})
    gradual.pop("blocksPerPhase" if "groups" in gradual else "", None)
    gradual.pop("epochsPerPhase" if "stepsPerPhase" in gradual else "", None)
    if strategy["type"] in ("FeatureExtraction", "BitFit") or gradual.get("order") == "ChainThaw":
        spec.pop("adapter", None)
    if strategy["type"] == "FeatureExtraction":
        rates.pop("backbone", None)
    if spec.get("adapter", {}).get("baseWeights") == "ByStrategy":
        rates.pop("rates", None)
    if rates.get("backbone", 0) > rates.get("head", 1e-3):
        del rates["backbone"]
    if rates.get("scope") == "Phase" or strategy["type"] not in ("LinearProbeThenFineTune", "GradualUnfreezing"):
        rates.pop("rewarmSteps", None)
    epochs = 1
    for member, option in (("gradualUnfreezing", "epochsPerPhase"), ("linearProbeThenFineTune", "probeEpochs")):
        if option in strategy.get(member, {}):
            epochs = strategy[member][option] = min(strategy[member][option], 4000)
    spec["training"]["epochs"] = epochs * 2
    _repair_solver(spec)
    _repair_generation(spec)


def _repair_generation(spec: dict[str, Any]) -> None:
    if spec["task"]["type"] not in ("CausalLM", "Seq2SeqLM", "SpeechRecognition"):
        spec.get("training", {}).get("evaluate", {}).pop("generate", None)


def _repair_solver(spec: dict[str, Any]) -> None:
    strategy, task = spec["strategy"], spec["task"]
    probe, rungs = strategy.get("linearProbeThenFineTune", {}), strategy.get("auto", {}).get("rungs", [])
    if (
        strategy["type"] not in ("FeatureExtraction", "LinearProbeThenFineTune", "Auto")
        or task["type"] not in ("TextClassification", "AudioClassification", "TextRegression")
        or "adapter" in spec
        or any(isinstance(options, dict) and "focalLoss" in options for options in task.values())
        or probe.get("probeEpochs", 1) != 1
        or "untilPlateau" in probe
        or (rungs and (rungs[0]["type"] != "FeatureExtraction" or "epochs" in rungs[0]))
    ):
        strategy.pop("solver", None)


def _repair_rungs(rungs: list[dict[str, Any]]) -> None:
    for rung in rungs:
        rung.pop("blocks" if "lastBlocks" in rung else "", None)
        if rung["type"] != "PartialFineTuning":
            rung.pop("blocks", None)
            rung.pop("lastBlocks", None)


def _repair_distribution(spec: dict[str, Any]) -> None:
    distribution = spec.setdefault("distribution", {})
    if distribution.get("engine") != "DeepSpeed":
        distribution.pop("deepSpeed", None)
    deep_speed = distribution.get("deepSpeed", {})
    if deep_speed.get("offload", "None") != "None":
        deep_speed["zeroStage"] = 3
    if deep_speed.get("zeroStage") == 3:
        spec["training"].pop("compile", None)
    workers = distribution.get("numProcPerNode", "Auto")
    world_size = distribution.get("numNodes", 1) * (1 if workers == "Auto" else workers)
    spec["training"]["batchSize"] = max(spec["training"].get("batchSize", 32), world_size)
    resources = distribution.get("resourcesPerNode", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name in {"nvidia.com/gpu", "hugepages-2Mi", *limits}:
        requests.pop(name, None)
    limits |= {name: amount for name, amount in (("nvidia.com/gpu", 2), ("hugepages-2Mi", "64Mi")) if name in limits}
    if "hugepages-2Mi" in limits and not {"cpu", "memory"} & {*requests, *limits}:
        limits["memory"] = 1
