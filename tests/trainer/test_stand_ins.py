"""Files that are not what they seem, and messages that name the thing."""

import csv
import io
import json
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.jobs import WORDS, bert_folder, image_folder, make_job, write_csv
from tests.trainer.test_look import model_folder
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.data.quotes import Broken, broken_quote
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.models.text import load_tokenizer, text_limits

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"
)
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def refused(job) -> str:
    with pytest.raises(JobError) as error:
        look(job)
    return error.value.message


@pytest.mark.parametrize(("content", "says"), [(POINTER, "is a pointer of Git LFS"), (PAGE, "is a web page")])
def test_stand_ins_are_named(tmp_path, content, says):
    good = write_csv(tmp_path / "good.csv")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "spm.model"):
        folder = model_folder(tmp_path / name)
        (folder / name).write_bytes(content)
        assert f"{name} {says}" in refused(make_job(folder, good))
    (folder / "spm.model").unlink()
    (folder / "flax_model.msgpack").write_bytes(content)
    look(make_job(folder, good))  # nobody reads that
    for suffix in ("csv", "jsonl", "parquet"):
        (tmp_path / f"bad.{suffix}").write_bytes(content)
        assert f"bad.{suffix} {says}" in refused(make_job(folder, tmp_path / f"bad.{suffix}"))
    images = image_folder(tmp_path / "images")
    (images / "red" / "0.png").write_bytes(content)
    net = model_folder(tmp_path / "net", architecture="resnet10t")
    assert f"red/0.png: it {says}" in refused(make_job(net, images, task={"type": "ImageClassification"}))


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_named(tmp_path, separator, name):
    file = write_csv(tmp_path / "words.csv")
    file.write_text(file.read_text().replace(",", separator))
    assert f"did you mean cells separated by {name}?" in refused(make_job(model_folder(tmp_path / "bert"), file))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('text,label\na b,x\n"c d,y\ne f,x\ng h,y\n', "row 2, on line 3,"),
        ('label,text\nx,a b\ny,"c d\nx,e f\ny,g h\n', "row 2, on line 3,"),
        ('label,text\nx,a b\ny,"c d\nx,e f\ny,"g h\nx,i\n', "row 2, on line 3,"),
        ('text,label\na b,x\n\n"c d,y\ne f,x\n"g h,y\ni,x\n', "row 2, on line 4,"),
        ('id,text,label\n"1,a,x\n2,b,y\n3,c,x\n"4,d,y\n', "row 1, on line 2,"),
        ('text,"label\na b,x\nc d,y\n', "the header, on line 1,"),
    ],
)
def test_quotes_that_never_close(tmp_path, text, place):
    file = tmp_path / "words.csv"
    file.write_text(text)
    with pytest.raises(JobError, match=f"{place} has a quote that is not closed"):
        read_table(str(file), ["text", "label"], "spec.data.train.source pvc://data/words.csv")


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.sampled_from('ab",\n 5'), min_size=1, max_size=6)] * 2), min_size=1, max_size=8
    ),
    lost=st.integers(0, 7),
)
def test_quotes_that_close_draw_no_alarm_and_rows_are_never_lost(tmp_path_factory, rows, lost):
    told = io.StringIO()
    writer = csv.writer(told, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "label"), *rows])
    file = tmp_path_factory.getbasetemp() / "quotes.csv"
    file.write_text(told.getvalue())
    assert broken_quote(str(file), len(rows)) is None
    assert read_table(str(file), ["text", "label"], "w").num_rows == len(rows)
    lines = [f"{WORDS[i]},{WORDS[-i]}" for i in range(9)]
    lines[lost + 1] = f'"{lines[lost + 1]}'
    file.write_text("\n".join(lines) + "\n")
    assert broken_quote(str(file), lost) == Broken(lost + 1, lost + 2)


def test_quotes_within_quotes_cost_no_rows_and_are_told(tmp_path, caplog):
    file = tmp_path / "said.csv"
    file.write_text('text,label\n"two\nlines",y\n"She said "well" and left",x\n"a "b" c",x\n')
    assert read_table(str(file), ["label"], "w")["label"].to_pylist() == ["y", "x", "x"]
    assert "w: row 2, on line 4, has a cell that begins with a quote, and goes on" in caplog.text
    file = tmp_path / "said.tsv"
    file.write_text('text\tlabel\n"Well" she said\tx\n')
    read_table(str(file), ["label"], "w")
    assert "w: row 1, on line 2, has a cell that begins with a quote, and goes on" in caplog.text
    file = tmp_path / "said.csv"
    file.write_text(file.read_text() + '"lost,y\nc,x\n')
    with pytest.raises(JobError, match="row 4, on line 6,"):
        read_table(str(file), ["label"], "w")


def test_quotes_behind_a_backslash_are_told(tmp_path):
    (tmp_path / "spark.csv").write_text('text,label\n"He said \\"a, b\\" to me",x\n')
    with pytest.raises(
        JobError, match=r"row 1 has 3 cells, .* Quotes in them are written twice, and not behind a backslash"
    ):
        read_table(str(tmp_path / "spark.csv"), ["text"], "w")


def test_quotes_in_the_middle_are_text(tmp_path, caplog):
    file = tmp_path / "pipes.csv"
    file.write_text('text,label\n5" pipe,x\n6" pipe,y\n7" pipe,x\n')
    assert read_table(str(file), ["text"], "w")["text"].to_pylist() == ['5" pipe', '6" pipe', '7" pipe']
    file.write_text('text,label\n"5"" pipe",x\n"""a"" b",y\n')
    assert read_table(str(file), ["text"], "w")["text"].to_pylist() == ['5" pipe', '"a" b']
    assert not caplog.records


@pytest.mark.parametrize(
    "config",
    [
        {"pretrained_cfg": {"input_size": [4, 224, 224]}},
        {"input_size": [4, 224, 224]},
        {"pretrained_cfg": {"input_size": [3, 224, 224]}, "model_args": {"in_chans": 4}},
    ],
)
def test_a_model_of_other_channels_is_named(tmp_path, config):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet10t"} | config))
    (folder / "model.safetensors").touch()
    job = make_job(folder, tmp_path, task={"type": "ImageClassification"})
    assert "the model takes pictures of 4 channels" in refused(job)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "line 1 is not JSON"),
        (
            '{"text": "a", "label": "x"}\n{"text": "\\ud800", "label": "x"}',
            r"line 2, column 'text' is \"\\ud800\", which",
        ),
        (f'{{"text": "a", "label": {"9" * 30}}}', "line 1, column 'label' is 9+, which is neither"),
        (f'{{"text": "a", "label": {"9" * 5000}}}', "line 1 is not JSON"),
    ],
    ids=["deep", "half a character", "large", "huge"],
)
def test_json_that_no_table_holds(tmp_path, content, message):
    (tmp_path / "words.jsonl").write_text(content)
    with pytest.raises(JobError, match=message):
        read_table(str(tmp_path / "words.jsonl"), ["text", "label"], "w")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["\n", ""], ids=["lines", "one line"])
def test_a_quote_that_never_closes_fills_no_memory(tmp_path, ending):
    """Python's csv module holds what a quote has opened, four bytes for each character."""
    (tmp_path / "words.csv").write_text('text,label\na,x\n"b,y\n' + f"some words,x{ending}" * 400_000)
    tracemalloc.start()
    try:
        with pytest.raises(
            JobError, match="row 2, on line 3, is longer than 1 MiB: most likely it has a quote that is not"
        ):
            read_table(str(tmp_path / "words.csv"), ["text", "label"], "w")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # of 5 M characters, in four bytes each
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_of_rows_with_too_many_cells_the_first_is_kept(tmp_path):
    (tmp_path / "words.csv").write_text("text,label\n" + "some,more,cells\n" * 20_000)
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="row 1 has 3 cells, the header 2"):
            read_table(str(tmp_path / "words.csv"), ["text", "label"], "w")
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("more", [",", ',"a\n",'], ids=["a line", "lines"])
def test_a_header_of_more_columns_than_a_spreadsheet_is_refused(tmp_path, more):
    """Arrow takes 8 KB for each: a header of 1 MiB would take 8 GiB."""
    (tmp_path / "words.csv").write_text("text,label" + more * 100_000 + "\na,x\n")
    with pytest.raises(JobError, match=r"the header has \d+,\d+ columns, and 16,384 are read at most"):
        read_table(str(tmp_path / "words.csv"), ["text", "label"], "w")


def test_a_row_of_more_than_a_block(tmp_path):
    (tmp_path / "words.csv").write_text(f"text,label\n{'a' * 3_000_000},x\nb,y\n")
    with pytest.raises(JobError, match="a row is longer than 1 MiB"):
        read_table(str(tmp_path / "words.csv"), ["text", "label"], "w")


@pytest.mark.parametrize(
    "config", ["[" * 100_000, '{"architecture": "x", "model_args": [1]}', '{"architecture": "x", "pretrained_cfg": 3}']
)
def test_configurations_of_other_shapes(tmp_path, config):
    folder = model_folder(tmp_path / "net")
    (folder / "config.json").write_text(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match=r"config\.json cannot be read|no images"):
        look(make_job(folder, tmp_path / "empty", task={"type": "ImageClassification"}))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


def test_code_in_a_model_folder_is_not_run_and_named(tmp_path, bert):
    folder = shutil.copytree(bert, tmp_path / "own")
    (folder / "modeling_own.py").write_text("raise SystemExit('this was run')")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.C", "AutoModel": "modeling_own.M"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(JobError, match=r"its classes are code of its own \(auto_map; modeling_own\.py\)"):
        text_limits(str(folder), "spec.model.source file:///m")
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["modeling_own.T", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    with pytest.raises(JobError, match="the tokenizer cannot be loaded: its classes are code of its own"):
        load_tokenizer(str(folder), "spec.model.source file:///m")


def tiff(channels: int) -> bytes:
    """An uncompressed TIFF of 1 x 1 pixels, in colour, with channels of no stated meaning behind."""
    spare = channels - 3
    start = 8 + channels + channels % 2
    bits, extra = start, start + 2 * channels
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8)]
    tags += [(277, 3, 1, channels), (278, 3, 1, 1), (279, 4, 1, channels), (338, 3, spare, extra if spare > 2 else 0)]
    listed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = bytes(range(1, channels + 1)).ljust(start - 8, b"\0") + struct.pack(f"<{channels}H", *[8] * channels)
    content += bytes(2 * spare)
    place = struct.pack("<I", 8 + len(content))
    return b"II*\0" + place + content + struct.pack("<H", len(tags)) + listed + bytes(4)


@pytest.mark.parametrize("channels", [4, 5, 6])
def test_channels_that_are_left_out_are_counted_aloud(tmp_path, caplog, channels):
    images = image_folder(tmp_path / "images")
    (images / "red" / "field.tif").write_bytes(tiff(channels))
    net = model_folder(tmp_path / "net", architecture="resnet10t")
    look(make_job(net, images, task={"type": "ImageClassification"}))
    [told] = caplog.messages
    assert (
        f"1 pictures have channels that are neither colour nor alpha ({channels - 3} in {images}/red/field.tif)" in told
    )
