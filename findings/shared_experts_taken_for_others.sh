#!/usr/bin/env bash
# PEFT 0.21.2, transformers 5.23.0: LoRA on one layer by its full name, target_modules=["model.layers.1.mlp.shared_experts.down_proj"],
# puts nothing there in DeepSeek-V3 (nor in V2, GLM-4 MoE, Ernie 4.5 MoE, Qwen3-MoE and others of that conversion): it adapts the
# stacked experts of every layer that are routed to, and their parameter is called down_proj. The dense layers before them get
# nothing either. There is no warning; adapter_config.json says target_parameters ["down_proj"]. In Qwen2-MoE, after which the
# conversion is named, the same line does what it says.
#
# One would guess that a module's full name means that module. The names are mapped so that adapters of transformers 4, where each
# expert was a layer of its own, still load. It matters here, since all-linear names all layers in full: shared experts and dense
# layers would have no adapter, others one of twice the rank. Their weights are named as parameters in its place, which PEFT leaves
# as they are.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 peft==0.21.2 transformers==5.23.0

cat > try.py <<'PY'
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel

common = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
common |= {"intermediate_size": 32, "moe_intermediate_size": 8, "num_experts_per_tok": 2, "eos_token_id": 1, "bos_token_id": 0}
kinds = {
    "deepseek_v3": (
        {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8}
        | {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8},
        "layers.1.mlp.shared_experts.down_proj",
    ),
    "qwen2_moe": ({"num_experts": 4, "shared_expert_intermediate_size": 8}, "layers.1.mlp.shared_expert.down_proj"),
}
for kind, (sizes, named) in kinds.items():
    model = AutoModel.from_config(AutoConfig.for_model(kind, **common, **sizes))
    assert isinstance(model.get_submodule(named), torch.nn.Linear)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=[named], lora_dropout=0.0))
    config = wrapped.peft_config["default"]
    got = sorted({name.partition("base_model.model.")[2].partition(".lora_")[0] for name, _ in wrapped.named_parameters() if ".lora_" in name})
    print(f"{kind}: asked for {named}; adapted {got}; target_parameters {config.target_parameters}")
    if kind == "qwen2_moe":
        assert got == [named]
    else:
        assert named not in got, "the module that was named has an adapter now"
        assert got == ["layers.1.mlp.experts"]
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
