#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3: RobertaTokenizer and GPT2Tokenizer, as they are made without add_prefix_space, take lists of
# words (is_split_into_words=True) and run them together: in ["of", "the", "city"] no word has the leading space that it has in the
# text "of the city". There is neither an error nor a warning, and word_ids() says which word each token is of, as if all
# were well.
#
# One would guess from RobertaTokenizer's docstring ("needs to be instantiated with add_prefix_space=True" when used with
# is_split_into_words=True) that it refuses, or adds the spaces. It matters here, since tags belong to words: a tagger would be
# trained on tokens that no text has. Words are joined by spaces and tokenised as a text in its place, their places
# told by offsets.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3

cat > try.py <<'PY'
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, RobertaTokenizer

words = ["of", "the", "city"]
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
bpe.train_from_iterator(["city of the city of the city"] * 9, trainer)
parts = json.loads(bpe.to_str())["model"]
for kind in (RobertaTokenizer, GPT2Tokenizer):
    tokenizer = kind(vocab=parts["vocab"], merges=[tuple(merge) for merge in parts["merges"]])
    text = tokenizer(" ".join(words), add_special_tokens=False).tokens()
    encoded = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    print(kind.__name__, "text:", text, "words:", encoded.tokens(), "word_ids:", encoded.word_ids())
    assert text[1:] and all(any(token == f"\u0120{word}" for token in text) for word in words[1:])
    assert not any("\u0120" in token for token in encoded.tokens()), "the words keep their spaces now"
    assert set(encoded.word_ids()) == {0, 1, 2}
PY
HF_HUB_OFFLINE=1 venv/bin/python try.py
