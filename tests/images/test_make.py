"""`make images` makes what the chart asks for."""

import subprocess

import yaml

from charts.generate import CHART, REPOSITORY


def test_images_have_the_names_and_the_tag_that_the_chart_asks_for():
    command = ["make", "--silent", "images", "ENGINE=echo", "TAG=r.example/unfreeze", "PUSH=1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    built, pushed = ([line.split() for line in done.stdout.splitlines()][part::2] for part in (0, 1))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    images = [
        f"r.example/{values['image']['repository']}:{version}",
        f"r.example/{values['trainer']['image']['repository']}:{version}",
    ]
    assert [line[line.index("--tag") + 1] for line in built] == images
    assert all(f"VERSION={version}" in line for line in built)
    assert pushed == [["push", image] for image in images]


def test_nothing_is_pushed_that_nobody_asked_for():
    command = ["make", "--silent", "images", "ENGINE=echo"]
    assert "push" not in subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
