"""Columns follow from what tasks say they read: fields, descriptions, and what a column is called when nobody says so."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from unfreeze_api.contracts.first_fields import FIRST_FIELDS
from unfreeze_api.contracts.resolved import Columns, schema_version
from unfreeze_api.generate.crd import _structural_root
from unfreeze_api.grammar.columns import Column, Columned
from unfreeze_api.tasks import TASKS, columns, task_type
from unfreeze_api.tasks.base import LABEL

PAIRS = replace(
    task_type("ImageClassification"),
    name="SentencePairs",
    reads=(Column("secondText", "with the second of two texts"), LABEL),
)


class ColumnsSpec(Columned, columns=columns((*TASKS, PAIRS))):
    """Columns of three tasks."""


class Named(Columned, columns=columns((*TASKS, PAIRS)), named=True):
    """Their names."""


def test_a_task_brings_its_columns():
    properties = _structural_root(ColumnsSpec)["properties"]
    assert properties["secondText"] == {
        "type": "string",
        "description": "Column with the second of two texts, for SentencePairs. Default: secondText.",
        "minLength": 1,
        "maxLength": 256,
    }
    assert properties["label"]["description"].startswith("Column with the label, for AudioClassification, Image")
    assert properties.keys() == {*(column.name for column, _ in columns()), "secondText"}
    assert properties["textPair"]["description"].endswith("Default: none.")
    assert properties["values"]["type"] == "array"


def test_a_column_has_its_own_name_unless_it_is_given_another():
    names = {column.name: None if column.optional else column.name for column, _ in columns()}
    assert Named().model_dump() == names | {"secondText": "secondText"}
    assert {names["text"], names["label"], names["textPair"], names["values"]} == {"text", "label", None}
    assert Named(second_text="b").second_text == "b"
    assert ColumnsSpec(secondText="b").model_dump(exclude_none=True) == {"secondText": "b"}
    with pytest.raises(ValidationError):
        ColumnsSpec(secondText="")


def test_a_column_means_the_same_for_all_tasks():
    other = replace(PAIRS, reads=(Column("label", "with something else"),))
    with pytest.raises(ValueError, match="two tasks say of the column label"):
        columns((*TASKS, other))


def test_job_json_names_columns_in_the_order_of_the_first_release():
    """An operator compares the text of job.json with what it would write: another order starts every job again."""
    first = list(FIRST_FIELDS["data"]["train"]["columns"])
    assert first == list(Columns.model_fields)[: len(first)]


def test_a_trainer_that_does_not_know_an_optional_column_must_not_ignore_it():
    assert schema_version(Columns()) == 1
    assert schema_version(Columns(text_pair="b")) == schema_version(Columns(values=["a", "b"])) == 2
