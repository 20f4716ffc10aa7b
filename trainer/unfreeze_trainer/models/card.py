"""The model card, README.md of an export: what it comes from, how it was trained, how good it is, how to load it.

Its form is Hugging Face's: metadata in YAML, results in the model index, text for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.report import Usefulness
from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_api.grammar.amounts import figure
from unfreeze_api.tasks import task_type
from unfreeze_trainer.versions import library_versions


def write_card(
    folder: Path,
    job: ResolvedJob,
    pins: Mapping[str, Any],
    *,
    library: str,
    usage: str,
    metrics: Mapping[str, float] | None,
    usefulness: Usefulness | None,
) -> None:
    """Write README.md into an export.

    Parameters
    ----------
    folder
        The export.
    job
        That it comes from.
    pins
        Hashes of base model and data, as `Task.pins`.
    library
        That loads it: transformers, timm or peft.
    usage
        Lines of Python that do, run in the export's folder.
    metrics
        Of the exported weights, by names like test.accuracy.
    usefulness
        Whether they are better than guessing: said first where they are not.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    for name, value in (metrics or {}).items():
        split, _, metric = name.partition(".")
        source = pins["data"][split]["source"]
        results.append(
            EvalResult(
                task_type=task_type(job.task.type).pipeline,
                dataset_type=source,
                dataset_name=source,
                dataset_split=split,
                metric_type=metric,
                metric_value=round(value, 6),
            )
        )
    data = ModelCardData(
        library_name=library,
        pipeline_tag=task_type(job.task.type).pipeline,
        tags=["unfreeze", "adapter" if library == "peft" else "finetuned"],
        model_name=job.name,
        eval_results=results or None,
    )
    text = f"---\n{data.to_yaml()}\n---\n{_body(job, pins, usage, metrics or {}, usefulness)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _body(
    job: ResolvedJob,
    pins: Mapping[str, Any],
    usage: str,
    metrics: Mapping[str, float],
    usefulness: Usefulness | None,
) -> str:
    worth = ""
    if usefulness and not usefulness.better:
        worth = f"\n> **No better than guessing**: {_escaped(usefulness.message)}.\n"
    table = "\n".join(f"| {name} | {figure(value, 4)} |" for name, value in metrics.items())
    results = f"\n## Results\n\n| metric | value |\n|---|---|\n{table}\n" if metrics else ""
    weights = "\n".join(f"  - `{name}` SHA-256 {digest}" for name, digest in pins["base"]["files"].items())
    data = "\n".join(
        f"- {name}: {pin['rows']} samples of `{pin['source']}`, SHA-256 {pin['sha256']}"
        for name, pin in pins["data"].items()
    )
    adapter = f"\n- adapter: {job.adapter.type}, {job.adapter.to_json()}" if job.adapter else ""
    revision = f" at revision {pins['base']['revision']}" if pins["base"].get("revision") else ""
    bits = job.model.quantization
    quantized = f", quantised by bitsandbytes to {bits.type}" if bits else ""
    training = job.training
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    return f"""# {job.name}
{worth}
{job.task.type}, trained with Unfreeze. In this folder:

```python
{usage}
```
{results}
## Training

- base: `{job.model.described}`{revision}, {job.model.initialization.lower()} weights{quantized}
{weights}
- strategy: {job.strategy.type}, {job.strategy.to_json()}{adapter}
- {training.epochs:g} epochs in batches of {training.batch_size}, {training.optimizer}, seed {training.seed}
- versions: {versions}

## Data

{data}
"""


def _escaped(text: str) -> str:
    """Return text that names labels as Markdown that shows it as it is: no markup, link or picture of theirs."""
    return re.sub(r"[\\`*_\[\]<&]", r"\\\g<0>", text)
