#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer.from_pretrained of a model's folder that holds config.json and no file of a tokenizer
# raises nothing, warns of nothing, and returns a BertTokenizer whose whole vocabulary are its five special tokens. Every word
# of every text becomes [UNK].
#
# One would guess an error that names vocab.txt and tokenizer.json, as transformers 4 raises. It matters here, since a folder to
# which somebody copied weights alone trains to the end, on texts that all look alike: "the library says what a tokenizer is"
# is not enough of a check, its size has to be looked at as well.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3

cat > try.py <<'PY'
import warnings

from transformers import AutoTokenizer, BertConfig

BertConfig().save_pretrained("model")
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    tokenizer = AutoTokenizer.from_pretrained("model", local_files_only=True)
tokens = tokenizer.convert_ids_to_tokens(tokenizer("the tokenizer is missing")["input_ids"])
print(type(tokenizer).__name__, len(tokenizer), tokens, "warnings:", len(warned))
assert len(tokenizer) == 5
assert tokens == ["[CLS]", *["[UNK]"] * 4, "[SEP]"]
assert not warned
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py 2> said
cat said
! grep -qi "vocab.txt\|tokenizer.json\|missing" said
