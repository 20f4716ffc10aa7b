"""docs/conversions.md: its lines write what `unfreeze init` takes for the right task, from files in the forms that they name."""

import json
import re
from pathlib import Path

import pytest

from unfreeze_trainer.commands.draft import draft

BLOCKS = re.findall(r"```python\n(.*?)```", Path("docs/conversions.md").read_text(encoding="utf-8"), re.DOTALL)
SAID = "what is said in row {}, in some words"
SHARED = [{"from": "human", "value": "who"}, {"from": "gpt", "value": "it"}]


def of(row: str, rows: int = 20, head: str = "", between: str = "\n") -> str:
    """Return a file of rows that tell their numbers."""
    return head + "".join(row.replace("{}", str(n)).replace("{%}", str(n % 2)) + between for n in range(rows))


FORMS = {
    "toxic": ({"train.csv": of('{},"{}: some ""words""\nof a text",{%},1,0\n', head="\ufeffid,comment_text,toxic,obscene,insult\n", between="")}, "TextClassification", {"label": "labels", "text": "text"}, 20),
    "gold_label": ({"snli.jsonl": of(json.dumps({"premise": SAID, "hypothesis": "no " + SAID, "gold_label": "x{%}"})) + '{"gold_label": "-"}\n'}, "TextClassification", {"text": "premise", "textPair": "hypothesis", "label": "gold_label"}, 20),
    "DOCSTART": ({"train.txt": of("w{} NN O\nX{} NNP B-X\n", head="-DOCSTART- -X- O\n\n")}, "TokenClassification", {"tokens": "tokens", "tags": "tags"}, 20),
    "ner_dataset": ({"ner_dataset.csv": of("Sentence: {},w{},O\n,X{},B-X", head="Sentence #,Word,Tag\n")}, "TokenClassification", {"tokens": "tokens", "tags": "tags"}, 20),
    "train.fr": ({"train.en": of(SAID) + "\n", "train.fr": of("le " + SAID) + "x\n"}, "Seq2SeqLM", {"source": "source", "target": "target"}, 20),
    "fra.txt": ({"fra.txt": of(f"{SAID}\tle {SAID}\tCC-BY 2.0")}, "Seq2SeqLM", {"source": "source", "target": "target"}, 20),
    "alpaca": ({"alpaca_data.json": json.dumps([{"instruction": SAID.format(n), "input": "", "output": f"it is {SAID.format(n)}" if n else ""} for n in range(20)])}, "CausalLM", {"prompt": "prompt", "completion": "completion"}, 19),
    "sharegpt": ({"sharegpt.json": json.dumps([{"id": "a", "conversations": SHARED}] * 20)}, "CausalLM", {"messages": "messages"}, 20),
    "book.txt": ({"book.txt": of(SAID + "\ngoes on", head="\ufeff", between="\n\n\n")}, "CausalLM", {"text": "text"}, 20),
    "cv/train": ({"cv/train.tsv": of(f'c{{}}.mp3\t"{SAID}" he said\t2', head="path\tsentence\tup_votes\n")}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "LibriSpeech": ({f"LibriSpeech/train-clean-100/8{n}/1/8{n}-1.trans.txt": of(f"8{n}-1-000{{}} {SAID.upper()}", 10) for n in range(2)}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "LJSpeech": ({"LJSpeech-1.1/metadata.csv": of(f'LJ-{{}}|"{SAID}|{SAID}')}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "ESC-50": ({"ESC-50-master/meta/esc50.csv": of("{}.wav,{%},dog{%}", head="filename,fold,category\n") + "x.wav,5,dog0\n"}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "speech_commands": ({f"speech_commands/{word}/{n}.wav": "" for word in ("yes", "no", "_background_noise_") for n in range(12)} | {"speech_commands/validation_list.txt": "yes/1.wav\nno/1.wav\n", "speech_commands/testing_list.txt": "yes/2.wav\nno/2.wav\n"}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "coco": ({"coco/annotations/captions_train2017.json": json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(20)], "annotations": [{"image_id": n, "caption": SAID.format(n)} for n in range(20)]})}, "Captioning", {"image": "image", "text": "text"}, 20),
    "flickr": ({"flickr/results.csv": of(f"{{}}.jpg| 0| {SAID} .", head="image_name| comment_number| comment\n") + "7.jpg| 4   A dog .\n"}, "Captioning", {"image": "image", "text": "text"}, 20),
}  # fmt: skip


@pytest.mark.parametrize(("block", "form"), list(zip(BLOCKS[1:], FORMS, strict=True)), ids=list(FORMS))
def test_a_form_is_written_as_what_a_job_reads(tmp_path, monkeypatch, block, form):
    files, task, columns, rows = FORMS[form]
    assert form in block
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    exec(BLOCKS[0] + block, {})
    (train,) = Path().rglob("train.jsonl")
    lines = [json.loads(line) for line in train.read_text().split("\n")[:-1]]
    found = draft(train, task=task if form in ("book.txt", "coco", "flickr") else None, columns={}).guess
    assert (found.task, found.columns, len(lines)) == (task, columns, rows)
    if form in ("ESC-50", "speech_commands"):
        assert train.with_name("validation.jsonl").read_text().count("\n") == {"ESC-50": 1, "speech_commands": 2}[form]
    assert "background" not in train.read_text()
