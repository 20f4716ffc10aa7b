"""WebDataset shards: samples by the names of members, read where they lie; what is wrong is named with shard and member."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.trainer.jobs import make_job
from unfreeze_api.cli import main
from unfreeze_trainer.data.audio import read_audio, read_seconds
from unfreeze_trainer.data.images import read_images, sample_name
from unfreeze_trainer.data.pairings import absent, read_pairings
from unfreeze_trainer.data.pins import pin_data
from unfreeze_trainer.data.rows import input_columns
from unfreeze_trainer.data.samples import read_texts
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.errors import JobError, unmarked
from unfreeze_trainer.objectives.targets import encoder

WHERE = "spec.data.train.source pvc://data/t"


def png(colour):
    sink = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(sink, "png")
    return sink.getvalue()


def wav(seconds):
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(int(8000 * seconds), dtype="float32"), 8000, format="WAV")
    return sink.getvalue()


def write(path: Path, members, **change) -> Path:
    """Write a shard; `change` are attributes of its last member."""
    with tarfile.open(path, "w") as archive:
        for place, (name, content) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change and place == len(members) - 1:
                for attribute, value in change.items():
                    setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def dataset(path, **columns):
    task = {"type": "ImageClassification"} if "image" in columns else {"type": "TextClassification"}
    return make_job("/m", path, task=task, data={"train": {"columns": columns or None}}).data.train


PICTURES = [
    *(("a/0.png", png("red")), ("a/0.cls", b"0\n"), ("a/0.json", b'{"mood": "good"}')),
    *(("a/1.seg.png", b"none"), ("a/1.PNG", png("blue")), ("a/1.cls", b"1"), ("a/1.json", b'{"mood": "bad"}')),
]


def test_pictures_are_read_where_they_lie(tmp_path):
    for part in range(2):
        write(tmp_path / f"s-00{part}.tar", [(f"{part}/{name}", content) for name, content in PICTURES])
    data = dataset(tmp_path / "s-{000..001}.tar", image="image", label="label")
    source = read_images(data, WHERE)
    assert source.targets.to_pylist() == [0, 1, 0, 1]
    assert [Image.open(io.BytesIO(source.content(row))).getpixel((0, 0)) for row in (0, 3)] == [
        (255, 0, 0),
        (0, 0, 255),
    ]
    assert unmarked(sample_name(source, 3)) == f"{WHERE}: s-001.tar: member 1/a/1.PNG"
    assert input_columns(source, np.array([1]))["file"].to_pylist() == ["s-000.tar/0/a/1.PNG"]
    assert pin_data(source).keys() == {"sha256"}
    assert read_images(dataset(tmp_path, image="png", label="mood"), WHERE).targets.to_pylist() == ["good", "bad"] * 2


def test_a_broken_picture_is_named(tmp_path):
    write(tmp_path / "s.tar", [("0.png", png("red")), ("0.cls", b"a"), ("1.png", b"none"), ("1.cls", b"b")])
    with pytest.raises(JobError, match=r"t: s\.tar: member 1\.png: it is no picture|s\.tar: member 1\.png"):
        read_images(dataset(tmp_path / "s.tar", image="image", label="label"), WHERE)


def test_clips_and_texts(tmp_path):
    write(tmp_path / "clips.tar", [("0.wav", wav(0.5)), ("0.cls", b"a"), ("1.wav", wav(1)), ("1.cls", b"b")])
    job = make_job("/m", tmp_path / "clips.tar", task={"type": "AudioClassification"})
    source = read_audio(job.data.train, WHERE)
    assert (read_seconds(source, skip=False).tolist(), source.targets.to_pylist()) == ([0.5, 1.0], ["a", "b"])
    members = [("0.txt", "grün".encode()), ("0.cls", b"x"), ("1.txt", b"red"), ("1.cls", b"2")]
    source = read_texts(dataset(write(tmp_path / "texts.tar", members)), WHERE)
    assert (source.inputs.to_pylist(), source.targets.to_pylist()) == (["grün", "red"], ["x", "2"])


GOOD = [("0.txt", b"a"), ("0.cls", b"0"), ("1.txt", b"b"), ("1.cls", b"1")]


@pytest.mark.parametrize(
    ("members", "change", "told"),
    [
        ([*GOOD, ("2.txt", b"c")], {}, "sample 2 has nothing for the column 'label': its members end in txt"),
        ([*GOOD, ("1.txt", b"c")], {}, r"member 1\.txt stands there twice"),
        ([*GOOD, ("0.json", b"{}")], {}, r"member 0\.json: other samples lie between the members of 0"),
        ([*GOOD, ("../x.txt", b"c")], {}, r"member \.\./x\.txt leads out of the archive's folder"),
        ([*GOOD, ("x.txt", b"")], {"name": "/etc/x.txt"}, r"member /etc/x\.txt leads out of the archive's folder"),
        ([*GOOD, ("x.txt", b"")], {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, r"member x\.txt is a link"),
        ([*GOOD, ("x.txt", b"")], {"type": tarfile.LNKTYPE, "linkname": "0.txt"}, r"member x\.txt is a link"),
        ([*GOOD, ("x.txt", b"")], {"type": tarfile.FIFOTYPE}, r"member x\.txt is no regular file"),
        ([*GOOD, ("2.txt", b"\xff"), ("2.cls", b"1")], {}, r"member 2\.txt is not UTF-8"),
        ([*GOOD, ("2.txt", b"c"), ("2.cls", b"other")], {}, "sample 2, column 'label' is \"other\", a str where lines before have a int"),
        ([*GOOD, ("2.txt", b"c"), ("2.text", b"d"), ("2.json", b"[1]")], {}, r"member 2\.json is no JSON object"),
        ([], {}, "the archive has no members"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_shard_and_member(tmp_path, members, change, told):
    write(tmp_path / "s.tar", members, **change)
    with pytest.raises(JobError, match=f"^{WHERE}: s.tar: {told}"):
        read_table(str(tmp_path), ["text", "label"], WHERE)


def test_archives_that_are_cut_off_compressed_or_none(tmp_path):
    whole = write(tmp_path / "s.tar", GOOD).read_bytes()
    for cut in (512 * 2, 512 * 3, 512 * 3 + 100, 512 * 8):
        (tmp_path / "s.tar").write_bytes(whole[:cut])
        with pytest.raises(JobError, match=r"s\.tar: (the archive is cut off|sample)"):
            read_table(str(tmp_path), ["text", "label"], WHERE)
    (tmp_path / "s.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(JobError, match="the archive is no tar file"):
        read_table(str(tmp_path / "s.tar"), ["text"], WHERE)
    write(tmp_path / "s.tar", GOOD)
    for columns in (["caption"], ["text", "caption"]):
        with pytest.raises(JobError, match="no column 'caption'"):
            read_table(str(tmp_path / "s.tar"), columns, WHERE)
    write(tmp_path / "s.tar", [("cat/0.png", png("red")), ("dog/0.png", png("blue"))])
    with pytest.raises(
        JobError, match=r"cat/0 is a file alone, with nothing for the column 'label'.* Unpack an archive"
    ):
        read_table(str(tmp_path / "s.tar"), ["image", "label"], WHERE)
    (tmp_path / "s.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(JobError, match=r"unpack it to a \.tar"):
        read_table(str(tmp_path / "s.tar.gz"), ["text"], WHERE)


def test_samples_that_lack_a_member_are_left_out_and_counted(tmp_path):
    write(tmp_path / "s.tar", [*GOOD, ("2.txt", b"c")])
    source = read_texts(dataset(tmp_path / "s.tar"), WHERE, skip=True)
    assert (source.left_out, source.inputs.to_pylist()) == (1, ["a", "b"])


def test_a_shard_is_shown_like_a_table(tmp_path):
    members = [
        (f"{n}.{end}", content)
        for n in range(20)
        for end, content in (("txt", b"some words of %d" % n), ("cls", b"%d" % (n % 2)))
    ]
    write(tmp_path / "train-0.tar", members)
    done = CliRunner().invoke(
        main,
        [
            "data",
            str(tmp_path),
            "--task",
            "TextClassification",
            "--column",
            "text=txt",
            "--column",
            "label=cls",
            "--output",
            "json",
        ],
    )
    assert done.exit_code == 0, done.output
    assert [column["name"] for column in json.loads(done.stdout)["sources"]["train"]["columns"]] == ["txt", "cls"]


def test_pictures_of_several_formats_are_one_column_whatever_others_hold(tmp_path):
    members = []
    for n in range(20):
        said = {"url": f"https://x/{n}.png", "kind": "ab"[n // 2 % 2], "faces": [[n]]} | (
            {"n": n} if n % 3 else {"m": ""}
        )
        members += [(f"{n}.{('png', 'webp')[n % 2]}", png("red")), (f"{n}.json", json.dumps(said).encode())]
    write(tmp_path / "t.tar", members)
    done = CliRunner().invoke(main, ["data", str(tmp_path / "t.tar"), "--output", "json"])
    found = json.loads(done.stdout)
    assert (found["sources"]["train"]["rows"], found["sources"]["train"]["leftOut"]) == (20, 0)


def test_of_three_modalities_a_sample_may_lack_one(tmp_path):
    members = [("0.png", png("red")), ("0.txt", b"a"), ("0.wav", wav(1)), ("1.png", png("red")), ("1.txt", b"b")]
    members += [("2.txt", b"c"), ("2.wav", wav(1)), ("3.txt", b"d")]
    path = write(tmp_path / "t.tar", members)
    given = dataset(path), WHERE
    kind = encoder("Pairings")
    source = read_pairings(*given, modalities=["image", "text", "audio"], kind=kind, skip=True)
    assert source.left_out == 1
    assert [absent(source, one).tolist() for one in ("image", "audio")] == [[False, False, True], [False, True, False]]
    write(path, members[:2])
    with pytest.raises(JobError, match=r"no column 'audio'.*The columns are 'png', 'txt'"):
        read_pairings(*given, modalities=["image", "text", "audio"], kind=kind)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("ab01-_ü", min_size=1), st.text(max_size=9), min_size=1, max_size=9))
def test_a_key_ends_at_the_first_dot(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("tar") / "s.tar"
    write(path, [(f"{key}.{end}", text.encode()) for key, text in texts.items() for end in ("txt", "x.txt")])
    found = read_table(str(path), ["txt", "x.txt"], WHERE)
    assert found["txt"].to_pylist() == found["x.txt"].to_pylist() == list(texts.values())


def test_no_label_and_long_numbers_in_cls(tmp_path):
    labels = [b"7", b"-1"]
    members = [part for n, label in enumerate(labels) for part in ((f"{n}.txt", b"t"), (f"{n}.cls", label))]
    assert read_table(str(write(tmp_path / "t.tar", members)), ["label"], WHERE)["label"].to_pylist() == [7, -1]
    long = [("0.txt", b"t"), ("0.cls", b"1" * 5000)]
    assert read_table(str(write(tmp_path / "l.tar", long)), ["label"], WHERE)["label"].to_pylist() == ["1" * 5000]


@pytest.mark.parametrize("header", [{"GNU.sparse.size": "abc", "GNU.sparse.map": "0,1"}, {"size": "-512"}])
def test_headers_that_are_no_numbers_are_refused(tmp_path, header):
    write(tmp_path / "t.tar", [("0.txt", b"a"), ("1.txt", b"b")], pax_headers=header)
    with pytest.raises(JobError, match=r"the archive is |member 1"):
        read_table(str(tmp_path / "t.tar"), ["txt"], WHERE)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path, kind):
    """One of 8 GiB, of which the archive has nothing."""
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 8 << 30
    path = write(tmp_path / "t.tar", [("0.png", png("red")), ("0.cls", b"1")])
    content = path.read_bytes()
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + content)
    with pytest.raises(JobError, match="the header of a member has 8,589,934,592 bytes"):
        read_table(str(path), ["image"], WHERE)
    path.write_bytes(content[:1024] + info.tobuf(tarfile.GNU_FORMAT) + content[1024:])
    with pytest.raises(JobError, match=r"cut off or broken .*the header of a member has"):
        read_table(str(path), ["image"], WHERE)


def test_headers_without_end_are_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 0
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 4000)
    with pytest.raises(JobError, match="the archive is"):
        read_table(str(tmp_path / "t.tar"), ["image"], WHERE)


def test_a_large_picture_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze_trainer.data.web_dataset.MAX_MEDIA", 10)
    path = write(tmp_path / "t.tar", [("0.png", png("red")), ("0.cls", b"1")])
    with pytest.raises(JobError, match=r"member 0\.png has \d+ bytes; make it smaller"):
        read_table(str(path), ["image"], WHERE)
