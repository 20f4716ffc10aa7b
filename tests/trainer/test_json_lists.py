"""Tables as one list of objects in a .json file: the same rows as lines, in bounded memory, and errors that name the item."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze_trainer.data import json_items
from unfreeze_trainer.data.cells import read_cells
from unfreeze_trainer.data.shards import is_table_folder, shards
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError

WHERE = "spec.data.train.source t.json"
ROWS = [{"text": f'a "{n}", [{{]}}', "label": "xy"[n % 2], "more": {"n": [n]}} for n in range(7)]


def rows_of(path, unread=None):
    return read_table(str(path), ["text", "label"], WHERE, unread).to_pylist()


def error_of(path):
    with pytest.raises(JobError) as found:
        rows_of(path)
    assert found.value.reason == "InvalidData"
    return str(found.value)


def wanted(rows):
    return [{"text": row["text"], "label": row["label"]} for row in rows]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n \t"])
def test_a_list_holds_the_rows_of_its_lines(tmp_path, indent, mark):
    (tmp_path / "t.json").write_text(mark + json.dumps(ROWS, indent=indent) + "\n")
    (tmp_path / "lines.json").write_text(mark.strip() + "".join(f"{json.dumps(row)}\n" for row in ROWS))
    with gzip.open(tmp_path / "t.json.gz", "wt") as file:
        json.dump(ROWS, file)
    for name in ("t.json", "lines.json", "t.json.gz"):
        assert rows_of(tmp_path / name) == wanted(ROWS)
    assert read_cells(str(tmp_path / "t.json"), WHERE).texts["more"].to_pylist()[2] == '{"n": [2]}'


def test_blank_lines_at_the_end_are_no_rows(tmp_path):
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (tmp_path / "t.jsonl").write_text(lines + "\n \t\n\n")
    assert rows_of(tmp_path / "t.jsonl") == wanted(ROWS)
    assert len(read_cells(str(tmp_path / "t.jsonl"), WHERE).texts["text"]) == len(ROWS)


def test_a_blank_line_between_others_is_named(tmp_path):
    first, rest = json.dumps(ROWS[0]), "".join(f"{json.dumps(row)}\n" for row in ROWS[1:])
    (tmp_path / "t.jsonl").write_text(f"{first}\n\n{rest}")
    assert error_of(tmp_path / "t.jsonl") == f"{WHERE}: line 2 is empty; remove it"


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": st.text(max_size=30), "label": st.text(max_size=3)}), min_size=1, max_size=9
    ),
    indent=st.sampled_from([None, 1]),
    portion=st.integers(1, 40),
    escapes=st.booleans(),
)
def test_portions_that_are_read_do_not_matter(tmp_path_factory, rows, indent, portion, escapes):
    path = tmp_path_factory.getbasetemp() / "portions.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=escapes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_items, "_READ", portion)
        with json_items.open_items(str(path), WHERE) as (noun, items):
            assert (noun, [json.loads(item) for item in items]) == ("item", rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(ROWS)[:-40], "item 7 is not JSON: "),
        (json.dumps(ROWS[:2])[:-1], "the list breaks off after item 2"),
        (json.dumps(ROWS[:2])[:-1] + ",", "item 3 is not JSON"),
        (
            json.dumps(ROWS).replace("}}, {", "}} {", 1).replace('}, {"text"', '} {"text"', 1),
            "should come after item 1",
        ),
        ("[1, 2]", "item 1 is no JSON object: '1'"),
        ('[{"text": "a", "label": "b"}, ["c"]]', "item 2 is no JSON object"),
        ('[{"text": "a", "label": "b"}, {"text": "a", "label": 3}]', "item 2, column 'label' is 3"),
        ('[{"txt": "a", "label": "b"}]', "did you mean 'txt'"),
        ("[]", "the list is empty"),
        ("", "the file is empty"),
        (json.dumps(ROWS) + " x", "something stands behind the list: 'x'"),
        (json.dumps({"data": ROWS}, indent=1), "Rows are lines, or the items of one list"),
        ("[" + "[" * 100_000, "item 1 is not JSON"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path, content, words):
    (tmp_path / "t.json").write_text(content)
    assert words in error_of(tmp_path / "t.json")


def test_broken_items_are_left_out_where_that_is_asked_for(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([ROWS[0], 5, {"text": "no label"}, ROWS[3]]))
    unread = Unread(WHERE, skip=True)
    assert rows_of(tmp_path / "t.json", unread) == wanted([ROWS[0], ROWS[3]])
    assert len(unread) == 2


def test_an_item_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(json_items, "MAX_ITEM", 100)
    monkeypatch.setattr(json_items, "_READ", 10)
    (tmp_path / "t.json").write_text(json.dumps([{"text": "a" * 1000, "label": "b"}]))
    assert "item 1 is not JSON" in error_of(tmp_path / "t.json")


def test_files_that_tell_of_tables_are_none(tmp_path):
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    assert not is_table_folder(str(tmp_path))
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    assert [Path(file).name for file in shards(str(tmp_path), WHERE)] == ["data.csv"]
    (tmp_path / "data.csv").unlink()
    (tmp_path / "train.json").write_text(json.dumps(ROWS))
    assert [Path(file).name for file in shards(str(tmp_path), WHERE)] == ["train.json"]
    (tmp_path / "p-0.json").write_text(json.dumps(ROWS[:1]))
    assert rows_of(tmp_path / "p-*.json") == wanted(ROWS[:1])
