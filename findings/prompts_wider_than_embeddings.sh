#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0, torch 2.15.0: a PromptTuningConfig or PromptEncoderConfig (p-tuning) makes prompts as wide as
# config.hidden_size, the layers. ALBERT and ELECTRA may have narrower embeddings (embedding_size; 128 beside 768 in
# albert-base-v2), behind which a projection stands: get_peft_model takes such a model, and its first forward pass ends in a
# RuntimeError about sizes in torch.cat. With token_dim set to embedding_size it works.
#
# One would guess that prompts, which are put before the embeddings, are as wide as get_input_embeddings() says, or that
# get_peft_model refuses. It matters here, since an adapter is chosen by name and no width stands in the spec: the trainer
# sets token_dim.
#
# torch is large: some minutes and 5 GB the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy transformers==5.23.0 peft==0.21.2

cat > try.py <<'PY'
import torch
from peft import PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import AlbertConfig, AlbertForSequenceClassification, ElectraConfig, ElectraForSequenceClassification

sizes = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 1}
tokens = torch.arange(5, 11).reshape(2, 3)


def outputs(of, config, kind, **options):
    model = get_peft_model(of(config), kind(task_type="SEQ_CLS", num_virtual_tokens=4, **options))
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


for of, config in (
    (AlbertForSequenceClassification, AlbertConfig(**sizes, embedding_size=16)),
    (ElectraForSequenceClassification, ElectraConfig(**sizes, embedding_size=16)),
):
    for kind in (PromptTuningConfig, PromptEncoderConfig):
        outputs(of, config, kind, token_dim=16)
        try:
            outputs(of, config, kind)
        except RuntimeError as error:
            print(f"{of.__name__}, {kind.__name__}: {error}")
            assert "Sizes of tensors must match" in str(error)
        else:
            raise SystemExit("prompts are as wide as the embeddings now")
PY
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python try.py
