#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0, torch 2.15.0: add_weighted_adapter with one adapter and weight 1.0 gives another adapter. Of an rsLoRA it
# gives one whose update is multiplied by the square root of its rank, whichever combination_type: its sum is stored with its scale in it,
# and its configuration still says use_rslora, so the scale comes twice. Of a DoRA it gives one whose update is equal and whose
# magnitudes are those of the base: what training made of them is gone. Of a plain LoRA it is exact. There is no warning.
#
# One would guess that the sum of one is that one, and that adapters which cannot be added are refused, as other kinds are. It
# matters here, since the mean of several runs' adapters (a soup) is a usual way to a better model: it has to be
# taken of merged weights, not by this call.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0 peft==0.21.2

cat > try.py <<'PY'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

RANK = 9
ids = torch.arange(12).reshape(2, 6)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64}


def summed(combination, **options):
    """Return the ratio of the updates, and by how much of what the adapter does the outputs differ."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    plain = base(input_ids=ids).logits.detach()
    torch.manual_seed(1)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "up_proj"], init_lora_weights=False, **options)
    model = get_peft_model(base, config, adapter_name="one").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:  # as training would
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.add_weighted_adapter(["one"], [1.0], "sum", combination_type=combination)
    assert not said, said
    layer = next(module for name, module in model.named_modules() if name.endswith("q_proj"))
    ratio = (layer.get_delta_weight("sum").norm() / layer.get_delta_weight("one").norm()).item()
    outputs = {}
    for name in ("one", "sum"):
        model.set_adapter(name)
        outputs[name] = model(input_ids=ids).logits.detach()
    return ratio, ((outputs["sum"] - outputs["one"]).norm() / (outputs["one"] - plain).norm()).item()


for combination in ("cat", "linear", "svd"):
    for name, options in {"LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}}.items():
        ratio, apart = summed(combination, **options)
        print(f"{combination}, {name}: update x {ratio:.3f}, outputs apart by {apart:.3f} of what the adapter does")
        assert abs(ratio - (RANK**0.5 if name == "rsLoRA" else 1)) < 1e-3, "updates are scaled otherwise now"
        assert apart < 1e-4 if name == "LoRA" else apart > 0.05, "outputs agree otherwise now"
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
