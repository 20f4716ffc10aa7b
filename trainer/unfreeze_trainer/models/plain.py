"""Reloads an export with the plain libraries alone and prints its logits as JSON; run as a script of its own.

It imports nothing of Unfreeze: what it can load, everybody can. Arguments: kind (transformers, timm, and before them
`peft-` or `bottleneck-` for an adapter), the export's folder, a file of samples as torch.save writes them, the base model's
folder (for adapters).
"""

import json
import sys
from typing import Any

import torch


def plain_logits(kind: str, folder: str, inputs: dict[str, Any], base: str) -> tuple[torch.Tensor, list[str]]:
    """Return the logits of some samples, (samples, classes), and the labels that the export names."""
    adapter, _, library = kind.rpartition("-")
    root = base if adapter else folder
    if library == "transformers":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

        options = {"num_labels": inputs["classes"], "ignore_mismatched_sizes": True} if adapter else {}
        if adapter and inputs["quantization"]:
            quantization = BitsAndBytesConfig(**inputs["quantization"])
            options |= {"quantization_config": quantization, "dtype": torch.float32, "device_map": {"": "cpu"}}
        model = AutoModelForSequenceClassification.from_pretrained(
            root, local_files_only=True, trust_remote_code=False, **options
        )
        compute_in_float32(model)
    else:
        import timm

        options = {"num_classes": inputs["classes"], **inputs["options"]} if adapter else {}
        model = timm.create_model(f"local-dir:{root}", pretrained=True, **options)
    if adapter == "peft":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    if adapter == "bottleneck":
        import runpy

        model = runpy.run_path(f"{folder}/bottleneck.py")["load"](model, folder)
    model.eval()
    with torch.no_grad():
        if library == "timm":
            return model(inputs["images"]), model.pretrained_cfg.get("label_names", [])
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        encoded = tokenizer(
            inputs["texts"], truncation=True, max_length=inputs["max_length"], padding=True, return_tensors="pt"
        )
        return model(**encoded).logits, [model.config.id2label[i] for i in range(len(model.config.id2label))]


def compute_in_float32(module: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit layers for CPUs that have AVX-512 with bfloat16.

    It does so at the first evaluation: then the layer computes in bfloat16, its factors are rounded for good, and a layer
    whose outputs are not a multiple of 32 fails.
    """
    part: Any
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def main(kind: str, folder: str, samples: str, base: str) -> None:
    """Load, compute, print."""
    logits, labels = plain_logits(kind, folder, torch.load(samples, weights_only=True), base)
    print(json.dumps({"logits": logits.tolist(), "labels": labels}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(*sys.argv[1:])
