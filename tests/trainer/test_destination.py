"""No run writes where it reads, or over what another hand has made."""

import json
import os
from pathlib import Path

import pytest

from tests.trainer.complete import complete
from tests.trainer.interrupted import cut_off, job_in, run_in
from tests.trainer.jobs import make_job
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.runs.destination import check_apart
from unfreeze_trainer.runs.recipe import open_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder, by path."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def paths_job(model, train="/none.csv", output="/none", **change):
    """A job whose paths the API server did not see as one: claims, links."""
    job = make_job("/none/model", "/none/train.csv")
    return job.model_copy(
        update={
            "model": job.model.model_copy(update={"path": str(model)}),
            "data": job.data.model_copy(
                update={"train": job.data.train.model_copy(update={"path": str(train)}), **change}
            ),
            "output": job.output.model_copy(update={"path": str(output)}),
        }
    )


def test_a_model_inside_of_the_destination_is_refused(tmp_path):
    (tmp_path / "x" / "model").mkdir(parents=True)
    with pytest.raises(
        JobError, match=r"model\.source file:///none/model lies inside of output\.destination"
    ) as raised:
        check_apart(paths_job(tmp_path / "x" / "model", output=tmp_path / "x"))
    assert raised.value.reason == "InvalidJob"


def test_a_destination_inside_of_the_data_is_refused_before_it_exists(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(JobError, match=r"data\.train\.source .* contains output\.destination"):
        check_apart(paths_job("/none", tmp_path / "images", tmp_path / "images" / "run" / "1"))


@pytest.mark.parametrize("way", ["destination", "source", "parent"])
def test_links_are_seen_through(tmp_path, way):
    real = tmp_path / "real"
    (real / "model").mkdir(parents=True)
    link = tmp_path / "link"
    if way == "source":
        link.symlink_to(real / "model")
        job = paths_job(link, output=real)
    elif way == "destination":
        link.symlink_to(real)
        job = paths_job(real / "model", output=link)
    else:
        link.symlink_to(tmp_path)
        job = paths_job(real / "model", output=link / "real")
    with pytest.raises(JobError, match="lies inside of"):
        check_apart(job)


def test_one_volume_under_two_names_is_seen_by_its_inode(tmp_path, monkeypatch):
    """Two claims with one volume: names differ and no link tells; the file system does."""
    volume, other = tmp_path / "a", tmp_path / "b"
    (volume / "run" / "model").mkdir(parents=True)
    (other / "run" / "model").mkdir(parents=True)
    stat = os.stat

    def mounted_twice(path, *args, **options):
        text = str(path)
        return stat(text.replace(str(other), str(volume)), *args, **options)

    monkeypatch.setattr(os, "stat", mounted_twice)
    with pytest.raises(JobError, match="lies inside of"):
        check_apart(paths_job(other / "run" / "model", output=volume / "run"))
    with pytest.raises(JobError, match="contains"):
        check_apart(paths_job(other / "run", output=volume / "run" / "model" / "new"))


def test_neighbours_are_fine(tmp_path):
    (tmp_path / "x" / "model").mkdir(parents=True)
    (tmp_path / "x" / "model-2").mkdir()
    check_apart(paths_job(tmp_path / "x" / "model", tmp_path / "x" / "t.csv", tmp_path / "x" / "model-2"))


@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "adapter/x",
        "checkpoints/step-3/weights",
        "report.json",
        "history.csv",
        "predictions/x",
    ],
)
def test_what_another_hand_made_is_never_touched(tmp_path, name):
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"precious")
    before = tree(tmp_path)
    with pytest.raises(JobError, match=f"holds {name.partition('/')[0]}, which this job has not made") as raised:
        run_in(tmp_path / "run")
    assert raised.value.reason == "ForeignRunFolder"
    assert tree(tmp_path) == before


def test_a_model_that_comes_to_lie_there_while_the_run_trains_stays(tmp_path):
    run = run_in(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(JobError, match="holds model, which this job has not made"):
        complete(run)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"precious"
    assert list(tmp_path.glob("checkpoints/step-*"))  # and nothing that was trained is lost
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    complete(run_in(tmp_path))
    assert (tmp_path / "model" / "weights.pt").exists()


def test_an_export_of_another_run_is_no_export_of_this(tmp_path):
    complete(run_in(tmp_path / "other", epochs=3))
    cut_off(tmp_path / "run", 5)
    (tmp_path / "other" / "model").rename(tmp_path / "run" / "model")
    with pytest.raises(JobError, match="holds model"):
        open_recipe(job_in(tmp_path / "run"))


def test_an_export_of_this_run_is_replaced(tmp_path):
    complete(run_in(tmp_path))
    (tmp_path / "report.json").unlink()
    marker = json.loads((tmp_path / "model" / "unfreeze.json").read_text())
    assert marker.pop("files").keys() == {"weights.pt"}
    assert marker.pop("described")["outputs"] == ["a", "b", "c"]
    assert marker.pop("temperature") > 0
    assert marker == {"fingerprint": job_in(tmp_path).fingerprint(), "kind": "Model"}
    complete(run_in(tmp_path))
    assert (tmp_path / "report.json").exists()


def test_empty_folders_are_nobodys(tmp_path):
    for name in ("model", "checkpoints"):
        (tmp_path / name).mkdir()
    complete(run_in(tmp_path))
    assert (tmp_path / "model" / "weights.pt").exists()
