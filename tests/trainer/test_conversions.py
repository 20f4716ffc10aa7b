"""docs/conversions.md: its lines write what `unfreeze init` takes for the right task, from files in the forms that they name."""

import gzip
import json
import re
from pathlib import Path

import pytest

from unfreeze_trainer.commands.draft import draft
from unfreeze_trainer.data.pictures import open_picture

BLOCKS = re.findall(r"```python\n(.*?)```", Path("docs/conversions.md").read_text(encoding="utf-8"), re.DOTALL)
SAID = "what is said in row {}, in some words"
SHARED = [{"from": "human", "value": "who"}, {"from": "gpt", "value": "it"}]


def of(row: str, rows: int = 20, head: str = "", between: str = "\n") -> str:
    """Return a file of rows that tell their numbers."""
    return head + "".join(row.replace("{}", str(n)).replace("{%}", str(n % 2)) + between for n in range(rows))


TEXT = {"text": "text", "label": "label"}
SPAN = [0, 4, "X"]
ASKED = [
    {
        "context": f"what is known of {n}",
        "qas": [{"question": SAID.format(n), "answers": [{"text": SAID.format(n)}]}, {"question": "?", "answers": []}],
    }
    for n in range(20)
]
FORMS = {
    "ag_news": ({"ag_news/train.csv": of(f'"{{%}}","about {{}}","{SAID} ""so"""')}, "TextClassification", TEXT, 20),
    "SMSSpam": ({"SMSSpamCollection": of(f'x{{%}}\t"{SAID}')}, "TextClassification", TEXT, 20),
    "aclImdb": ({f"aclImdb/{part}/{label}/{n}_7.txt": SAID.format(n) for part in ("train", "test") for label in ("neg", "pos", "unsup") for n in range(10)}, "TextClassification", TEXT, 20),
    "toxic": ({"train.csv": of('{},"{}: some ""words""\nof a text",{%},1,0\n', head="\ufeffid,comment_text,toxic,obscene,insult\n", between="")}, "TextClassification", {"label": "labels", "text": "text"}, 20),
    "flags.jsonl": ({"flags.jsonl": of(json.dumps({"text": SAID, "labels": [1, 0, 0]})) + of(json.dumps({"text": "no " + SAID, "labels": [1, 1, 0]}))}, "TextClassification", {"text": "text", "label": "labels"}, 40),
    "goemotions": ({"emotions.txt": "joy\nfear\nanger\n", "goemotions.tsv": of(f'"{SAID}\t{{%}},2\tx{{}}')}, "TextClassification", {"text": "text", "label": "labels"}, 20),
    "gold_label": ({"snli.jsonl": of(json.dumps({"premise": SAID, "hypothesis": "no " + SAID, "gold_label": "x{%}"})) + '{"gold_label": "-"}\n'}, "TextClassification", {"text": "premise", "textPair": "hypothesis", "label": "gold_label"}, 20),
    "prodigy": ({"prodigy.jsonl": of(json.dumps({"text": SAID, "label": "x{%}", "answer": "accept"})) + '{"text": "no", "answer": "reject"}\n'}, "TextClassification", TEXT, 20),
    "DOCSTART": ({"train.txt": of("w{} NN O\nX{} NNP B-X\n", head="-DOCSTART- -X- O\n\n")}, "TokenClassification", {"tokens": "tokens", "tags": "tags"}, 20),
    "ner_dataset": ({"ner_dataset.csv": of("Sentence: {},w{},O\n,X{},B-X", head="Sentence #,Word,Tag\n")}, "TokenClassification", {"tokens": "tokens", "tags": "tags"}, 20),
    "doccano": ({"doccano.jsonl": of(json.dumps({"text": SAID, "label": [SPAN]}))}, "TokenClassification", {"text": "text", "spans": "spans"}, 20),
    "label_studio": ({"label_studio.json": json.dumps([{"data": {"text": SAID.format(n)}, "annotations": [{"result": [{"value": {"choices": ["ab"[n % 2]]}}] * (n > 0)}]} for n in range(21)])}, "TextClassification", TEXT, 20),
    "train.fr": ({"train.en": of(SAID) + "\n", "train.fr": of("le " + SAID) + "x\n"}, "Seq2SeqLM", {"source": "source", "target": "target"}, 20),
    "fra.txt": ({"fra.txt": of(f"{SAID}\tle {SAID}\tCC-BY 2.0")}, "Seq2SeqLM", {"source": "source", "target": "target"}, 20),
    "squad": ({"squad.json": json.dumps({"version": "1", "data": [{"title": "x", "paragraphs": ASKED}]})}, "Seq2SeqLM", {"source": "source", "target": "target"}, 20),
    "quora": ({"quora.csv": of(f"{{}},{SAID.replace(', ', ' ')},le texte {{}},{{%}}", 40, head="id,question1,question2,is_duplicate\n")}, "TextEmbedding", {"anchor": "anchor", "positive": "positive"}, 20),
    "bge": ({"bge.jsonl": of(json.dumps({"query": SAID, "pos": ["a " + SAID, "b " + SAID], "neg": ["no " + SAID]}), 10)}, "TextEmbedding", {"anchor": "anchor", "positive": "positive", "negative": "negative"}, 20),
    "beir": ({f"beir/{name}.jsonl": of('{"_id": "{}", "text": "%s"}' % (name + SAID)) for name in ("queries", "corpus")} | {"beir/qrels/train.tsv": of("{}\t{}\t1", head="query-id\tcorpus-id\tscore\n") + "1\t2\t0\n"}, "TextEmbedding", {"anchor": "anchor", "positive": "positive"}, 20),
    "alpaca": ({"alpaca_data.json": json.dumps([{"instruction": SAID.format(n), "input": "", "output": f"it is {SAID.format(n)}" if n else ""} for n in range(20)])}, "CausalLM", {"prompt": "prompt", "completion": "completion"}, 19),
    "mmlu": ({"mmlu.jsonl": of(json.dumps({"question": SAID, "choices": ["yes", "no"], "answer": 1}))}, "CausalLM", {"prompt": "prompt", "completion": "completion"}, 20),
    "sharegpt": ({"sharegpt.json": json.dumps([{"id": "a", "conversations": SHARED}] * 20)}, "CausalLM", {"messages": "messages"}, 20),
    "oasst": ({"oasst.messages.jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for n in range(20) for row in ({"message_id": f"m{n}", "text": SAID.format(n), "role": "prompter"}, *({"message_id": f"r{rank}{n}", "parent_id": f"m{n}", "text": "le " + SAID.format(n), "role": "assistant", "rank": rank} for rank in (0, 1)))).encode())}, "CausalLM", {"prompt": "prompt", "completion": "completion"}, 20),
    "book.txt": ({"book.txt": of(SAID + "\ngoes on", head="\ufeff", between="\n\n\n")}, "CausalLM", {"text": "text"}, 20),
    "cv/train": ({"cv/train.tsv": of(f'c{{}}.mp3\t"{SAID}" he said\t2', head="path\tsentence\tup_votes\n")}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "LibriSpeech": ({f"LibriSpeech/train-clean-100/8{n}/1/8{n}-1.trans.txt": of(f"8{n}-1-000{{}} {SAID.upper()}", 10) for n in range(2)}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "LJSpeech": ({"LJSpeech-1.1/metadata.csv": of(f'LJ-{{}}|"{SAID}|{SAID}')}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "ESC-50": ({"ESC-50-master/meta/esc50.csv": of("{}.wav,{%},dog{%}", head="filename,fold,category\n") + "x.wav,5,dog0\n"}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "UrbanSound8K": ({"UrbanSound8K/metadata/UrbanSound8K.csv": of("{}.wav,{%},dog{%}", head="slice_file_name,fold,class\n") + "x.wav,10,dog0\n"}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "FSD50K": ({"FSD50K/FSD50K.ground_truth/dev.csv": of('{},"Bark,Dog{%}",train', head="fname,labels,split\n") + "99,Bark,val\n"}, "AudioClassification", {"audio": "audio", "label": "labels"}, 20),
    "speech_commands": ({f"speech_commands/{word}/{n}.wav": "" for word in ("yes", "no", "_background_noise_") for n in range(12)} | {"speech_commands/validation_list.txt": "yes/1.wav\nno/1.wav\n", "speech_commands/testing_list.txt": "yes/2.wav\nno/2.wav\n"}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "VCTK": ({f"VCTK/{kind}/p22{n % 2}/p22{n % 2}_{n}.{end}": text + "\n" for n in range(20) for kind, end, text in (("wav48", "wav", ""), ("txt", "txt", SAID.format(n)))} | {"VCTK/wav48/p220/p220_99.wav": ""}, "SpeechRecognition", {"audio": "audio", "text": "text"}, 20),
    "RAVDESS": ({f"RAVDESS/Actor_0{n % 2}/03-01-0{n % 8 + 1}-01-01-{n}-0{n % 2}.wav": "" for n in range(20)} | {"RAVDESS/Actor_21/03-01-06-01-02-01-21.wav": ""}, "AudioClassification", {"audio": "audio", "label": "label"}, 20),
    "pets": ({f"pets/images/{'great_pyrenees' if n % 2 else 'Bombay'}_{n}.jpg": "" for n in range(20)}, "ImageClassification", {"image": "image", "label": "label"}, 20),
    "HAM10000": ({"ham/HAM10000_metadata.csv": of("ISIC_{},nv{%}", head="image_id,dx\n")} | {f"ham/part_{n % 2}/ISIC_{n}.jpg": "" for n in range(20)}, "ImageClassification", {"image": "image", "label": "label"}, 20),
    "celeba": ({"celeba/list_attr_celeba.txt": of("{}.jpg -1  1 -1\n{}9.jpg  1  1  1", 10, head="20\nBald Hat Young \n")}, "ImageClassification", {"image": "image", "label": "labels"}, 20),
    "mnist": ({"mnist/train-images-idx3-ubyte.gz": gzip.compress(bytes(16 + 784 * 20)), "mnist/train-labels-idx1-ubyte.gz": gzip.compress(bytes(8) + bytes([3, 7]) * 10)}, "ImageClassification", {"image": "image", "label": "label"}, 20),
    "fer2013": ({"fer/fer2013.csv": of("{%}," + "7 " * 2304 + ",Training", head="emotion,pixels,Usage\n") + "0,,PublicTest\n"}, "ImageClassification", {"image": "image", "label": "label"}, 20),
    "clotho": ({"clotho/clotho_captions_development.csv": of("a {}.wav," + ",".join(f'"{SAID} {n}"' for n in range(5)), 4, head="file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n")}, "Captioning", {"audio": "audio", "text": "text"}, 20),
    "coco": ({"coco/annotations/captions_train2017.json": json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(20)], "annotations": [{"image_id": n, "caption": SAID.format(n)} for n in range(20)]})}, "Captioning", {"image": "image", "text": "text"}, 20),
    "categories": ({"coco/annotations/instances_train2017.json": json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(20)], "annotations": [{"image_id": n // 2, "category_id": n % 3} for n in range(36)], "categories": [{"id": n, "name": "abc"[n]} for n in range(3)]})}, "ImageClassification", {"image": "image", "label": "labels"}, 20),
    "flickr": ({"flickr/results.csv": of(f"{{}}.jpg| 0| {SAID} .", head="image_name| comment_number| comment\n") + "7.jpg| 4   A dog .\n"}, "Captioning", {"image": "image", "text": "text"}, 20),
}  # fmt: skip


@pytest.mark.parametrize(("block", "form"), list(zip(BLOCKS[1:], FORMS, strict=True)), ids=list(FORMS))
def test_a_form_is_written_as_what_a_job_reads(tmp_path, monkeypatch, block, form):
    files, task, columns, rows = FORMS[form]
    assert form in block
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    exec(BLOCKS[0] + block, {})
    (train,) = Path().rglob("train.jsonl")
    lines = [json.loads(line) for line in train.read_text().split("\n")[:-1]]
    found = draft(train, task=task if form in ("book.txt", "clotho", "coco", "flickr") else None, columns={}).guess
    assert (found.task, found.columns, len(lines)) == (task, columns, rows)
    if train.with_name("validation.jsonl").exists():
        assert train.with_name("validation.jsonl").read_text().count("\n") == 1 + (form == "speech_commands")
    for picture in Path().rglob("0.ppm"):
        assert open_picture(str(picture)).size in ((28, 28), (48, 48))
    assert "background" not in train.read_text()
