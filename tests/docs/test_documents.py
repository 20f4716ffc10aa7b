"""What the documents show is true: links lead somewhere, jobs are valid, commands and programs can be read."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import REPOSITORY
from tests.crds.corpus import load, patched
from tests.docs.documents import FILES, anchors, blocks, links
from tests.docs.picture import DOCUMENT, with_picture
from unfreeze_api.apiserver.manifest import Loader
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.cli import main
from unfreeze_api.contracts.names import KIND
from unfreeze_api.generate import reference, tables
from unfreeze_api.spec.job import FineTuneJobSpec

BLOCKS = list(blocks())
LANGUAGES = {"yaml", "sh", "console", "python", "dockerfile", "text", "mermaid"}
FIELDS = {str(field.alias) for field in FineTuneJobSpec.model_fields.values()}
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def of(*languages):
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language in languages]


def test_the_reference_is_up_to_date():
    assert reference.FILE.read_text(encoding="utf-8") == reference.to_markdown(), "run `make crds`"


def test_the_tables_of_operations_are_up_to_date():
    text = tables.FILE.read_text(encoding="utf-8")
    assert text == tables.filled(text), "run `make crds`"


def test_the_index_names_every_document():
    listed = {target for target in links(REPOSITORY / "docs/README.md") if "/" not in target}
    assert listed == {file.name for file in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}


def test_the_index_of_the_examples_names_every_manifest():
    folder = REPOSITORY / "examples"
    listed = {target for target in links(folder / "README.md") if target.endswith(".yaml")}
    manifests = {str(file.relative_to(folder)) for file in folder.rglob("*.yaml")}
    assert listed == {file for file in manifests if not file.startswith("gitops/")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_links_lead_somewhere(file):
    for target in links(file):
        if re.match(r"(https?|mailto):", target):
            assert re.match(r"https://[\w.-]+\.[a-z]+(/|$)", target), target
            continue
        path, _, anchor = target.partition("#")
        place = (file.parent / path) if path else file
        assert place.resolve().is_relative_to(REPOSITORY), target
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_block_says_what_it_is():
    assert [f"{block} {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", of("yaml"))
def test_jobs_and_parts_of_jobs_are_valid(block):
    for document in yaml.load_all(block.text, Loader):
        if document.get("kind") == KIND:
            assert validate(document) == []
        elif FIELDS & set(document) and "kind" not in document:
            assert validate(patched(load("base.yaml"), {"spec": document})) == []


@pytest.mark.parametrize("block", of("sh", "console"))
def test_commands_can_be_read(block):
    text = block.text
    if block.language == "console":
        text = "".join(line.removeprefix("$ ") for line in text.splitlines(keepends=True) if line.startswith("$ "))
        assert text, "a console has lines that begin with $"
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for program, name in re.findall(r"^(make|unfreeze|\.venv/bin/unfreeze) ([a-z-]+)", text, re.MULTILINE):
        if program == "make":
            assert name in TARGETS, name
        else:
            assert main.get_command(None, name) is not None, name
    for path in re.findall(r"(?:^| )((?:examples|crds|charts|docs|operator)/[\w./-]+)", text, re.MULTILINE):
        assert Path(REPOSITORY, path).exists(), path


@pytest.mark.parametrize("block", of("python"))
def test_programs_can_be_read(block):
    compile(block.text, str(block), "exec")


@pytest.mark.slow
def test_the_picture_of_the_rooms_is_new():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_picture(text) == text, "python -m tests.docs.picture --write"


def test_the_table_of_places_names_what_stands_there():
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Where is ...?")[2].partition("\n## ")[0]
    places = re.findall(r"\]\(([^)#]+)[^)]*\): `([^`]+)`", table)
    assert len(places) >= len(re.findall("^[|] (?:a|the) ", table, re.MULTILINE)) * 3 == 12
    for path, text in places:
        assert text in (DOCUMENT.parent / path).read_text(encoding="utf-8"), f"{path}: {text}"
