"""Manifests are read with the meaning that kubectl gives them."""

import pytest

from unfreeze_api.apiserver.manifest import ManifestError, read


def only(text):
    (document,) = read(text)
    return document.manifest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 100000), ("1.0", 1), ("1.5", 1.5), (".5", 0.5), ("-2", -2), ("+2", 2), ("0", 0),
        ("010", 8), ("0o10", 8), ("0x10", 16), ("0b11", 3), ("1_000", 1000), ("12:30", "12:30"), ("08", 8),
        ("yes", True), ("off", False), ("n", False), ("True", True), ("null", None), ("~", None), ("", None),
        ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("64Gi", "64Gi"), ("'1'", "1"), ("None", "None"),
    ],
)  # fmt: skip
def test_plain_values(text, value):
    found = only(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_several_documents_and_lists_with_their_lines():
    text = "---\nkind: A\n---\n# nothing\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n"
    assert [(document.line, document.manifest["kind"]) for document in read(text)] == [(2, "A"), (6, "B"), (6, "C")]


def test_json_is_yaml():
    assert only('{"kind": "A", "spec": {"epochs": 3}}') == {"kind": "A", "spec": {"epochs": 3}}


def test_anchors_and_merges():
    assert only("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\n")["d"] == {"b": 1, "c": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "line 2, column 5"),
        ("a: 1\n b: 2", "line 2, column 3"),
        ("a:\n\tb: 1", "line 2"),
        ("spec:\n  a: 1\n  a: 2", 'line 3, column 3: "a" stands here twice'),
        ("just text", "line 1: a manifest is an object"),
        ("- a", "line 1: a manifest is an object"),
        ("a: !!python/object:os.system x", "line 1"),
        ("a: \x00", "not YAML"),
        ("---\na: &x {b: [*x]}", "line 2: an alias (*) stands within what it names"),
    ],
)
def test_what_is_not_a_manifest_is_told_by_line(text, message):
    with pytest.raises(ManifestError) as caught:
        list(read(text))
    assert message in str(caught.value)
