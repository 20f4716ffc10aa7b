"""report.html: what it says, that nothing in it comes to life, and how a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.trainer.browser import LAPTOP, PHONE, tab
from tests.trainer.test_figures import problem, write
from tests.trainer.test_report import REPORT
from unfreeze_api.cli import main
from unfreeze_api.contracts.decision import ALIKE, Decision, Evidence
from unfreeze_api.contracts.evaluation import Evaluation, SplitFigures, TargetFigures
from unfreeze_api.contracts.progress import PhaseResult
from unfreeze_api.contracts.report import Export, Usefulness
from unfreeze_trainer.exports.evaluation import write_evaluation
from unfreeze_trainer.exports.outcome import capital, in_order, outcome
from unfreeze_trainer.exports.page import page
from unfreeze_trainer.runs.choice import MEAN, Choice

BAD = '<script>document.title="taken"</script><img src=x onerror=document.title="taken">"\'</style></title>'
VOID = {"meta", "rect", "line", "polyline", "circle", "img", "link"}


class Written:
    """The right to write, without a run."""

    def __init__(self, folder):
        self.folder = folder

    def aside(self, name):
        return self.folder / f".{name}"

    def commit(self, aside, final):
        aside.replace(final)


def finished(folder, *, names=("DESC", BAD, "HUM"), kind="OneOf", rows=200, **change):
    """Write what a run leaves behind, with whatever comes from data planted; return its report."""
    rng = np.random.default_rng(0)
    for seed, split in enumerate(("validation", "test")):
        logits, labels = problem(rows, len(names), seed=seed)
        if kind == "AnyOf":
            labels = np.where(rng.random(logits.shape) < 0.4, np.arange(len(names)), -1)
        elif kind == "Amounts":
            labels = logits + rng.normal(0, 1, logits.shape)
        write(folder, split, logits, labels, kind=kind, part=rows, names=list(names), source=BAD)
    write_evaluation(folder, Written(folder))
    lines = "".join(f'{step},{step / 9},"{BAD.replace(chr(34), chr(34) * 2)}",{1 / step},,\n' for step in range(1, 30))
    header = "step,epoch,phase,loss,learningRate.head,validation.accuracy\n"
    lines += "".join(f"{step},{step / 9},tail,{1 / step},0.1,{1 - 1 / step}\n" for step in range(30, 90, 10))
    (folder / "history.csv").write_text(header + lines)
    phase = PhaseResult(name=BAD, steps=80, seconds=75, trainable_parameters=12345, metrics={"accuracy": 0.7})
    decided = Decision(
        type="Baseline",
        answer=BAD[:64],
        question=f"Is it better than {BAD}?",
        message=f"no, {BAD}",
        step=9,
        warning=True,
        evidence=[Evidence(name=BAD, value=0.25, low=-0.5, high=0.75), Evidence(name="other", value=float("nan"))],
        seconds=2.5,
        otherwise=BAD,
        alternative=BAD,
    )
    worth = Usefulness(better=True, majority=0.3, gain_low=0.2, gain_high=0.4, message=f"better than {BAD}")
    sources = {"train": f"file:///{BAD}.csv"}
    data = REPORT.data.model_copy(
        update={
            "labels": list(names),
            "sources": sources,
            "splits": {"train": 900, "validation": rows, "test": rows},
            "skipped": {"train": 3},
            "overlaps": {"test in train": 2},
        }
    )
    usage = Export(kind="Model", folder="model", usage=f"labels = {list(names)[:5]!r}\nprint(model('</pre>'))")
    return REPORT.model_copy(
        update={
            "job": f"default/{BAD}",
            "phases": [phase],
            "usefulness": worth,
            "decisions": [decided],
            "data": data,
            "exports": [usage],
            "warnings": [BAD],
            "base": REPORT.base.model_copy(update={"source": BAD}),
            **change,
        }
    )


class Elements(HTMLParser):
    """Names, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every element ends where it should"

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("kind", ["OneOf", "AnyOf", "Amounts"])
def test_nothing_that_comes_from_data_comes_to_life_and_nothing_is_asked_for(tmp_path, kind):
    text = page(tmp_path, finished(tmp_path, kind=kind))
    elements = Elements(text)
    assert elements.open == []
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "img", "link", "iframe", "object", "a", "base"})
    attributes = {name for _, attrs in elements.found for name in attrs}
    assert attributes.isdisjoint({"src", "href", "style", "srcset", "xlink:href"})
    assert not any(name.startswith("on") for name in attributes)
    [policy] = [attrs["content"] for tag, attrs in elements.found if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert "url(" not in style
    assert "@import" not in style
    assert text.count("<script") == 0
    assert "document.title=" in "".join(elements.texts), "it is shown as the text that it is"


def test_the_page_says_what_a_person_needs(tmp_path):
    report = finished(tmp_path, names=("DESC", "ENTY", "HUM"), warnings=["batchSize is more than the samples"])
    text = " ".join(Elements(page(tmp_path, report)).texts)
    for told in (
        *(
            "The model's accuracy is 0.800 on 200 test samples",
            "its accuracy is better than that of always guessing one class, 0.300, by +0.200 to +0.400",
        ),
        *("batchSize is more than the samples", "3 samples of train could not be read and were left out"),
        *("2 samples stand in two splits", "What is taken for what", "precision", "Labels that are probably wrong"),
        *("the temperature", "labels = ['DESC', 'ENTY', 'HUM']", "12,345", "1 min 15 s", "training loss"),
        *("What was decided, and by what", "-0.500 to 0.750", "Step 9; it took 2.5 s."),
    ):
        assert told in text, told


def drawn(text):
    """Return how many lines, dots and intervals each chart of a page has, by its caption."""
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    return {
        " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", "", one.partition("<figcaption>")[2]).split()): (
            one.count('"curve c') - one.count('class="key"'),
            one.count('class="dot"'),
            one.count('class="span"'),
        )
        for one in figures
    }


def taken(kind, *evidence):
    return Decision(type=kind, answer="Yes", question="?", message="yes", step=9, evidence=evidence)


def test_what_decisions_rest_on_is_drawn(tmp_path):
    rungs = [
        Evidence(name="validation macroF1 of TF-IDF", value=0.5, seconds=0.2),
        Evidence(name="validation accuracy of <i>", value=0.5, seconds=0.2),
        Evidence(name="validation accuracy of FeatureExtraction", value=0.7, low=0.6, high=0.8, seconds=3),
        Evidence(name="validation accuracy of FullFineTuning", value=0.9, low=0.8, high=0.95, seconds=40),
        Evidence(name="validation accuracy of always guessing one class", value=0.2),
        Evidence(name="probability that it is worth it", value=0.2),
    ]
    alike = [Evidence(name=f"{ALIKE}{place}", value=value) for place, value in (("layer.0", 0.9), ("layer.1", 0.5))]
    decisions = [taken("Rung", *rungs), taken("Forgetting", *alike), taken("Base"), taken("Strategy", *rungs)]
    report = finished(tmp_path, names=("a", "b"), decisions=decisions)
    tells = {"knn": 0.5, "logme": 0.0, "hScore": 0.0}
    places = ({"layer.0": tells, "layer.1": tells, MEAN: tells}, {"block.0": tells, "block.1": tells})
    bases = [{"source": f"pvc://models/{name}", "places": each} for name, each in zip("xy", places, strict=True)]
    choice = Choice(fingerprint=report.fingerprint, source="x", decision=decisions[2], ranking={"bases": bases})
    (tmp_path / "ranking.json").write_text(choice.model_dump_json())
    looks = [{"event": "forgetting", "step": step, "lost": step / 100, "low": 0, "high": 1} for step in (30, 40)]
    looks += [{"event": "evaluation", "step": step, "metrics": {"accuracy": 0.5}} for step in (30, 40)]
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in looks))
    text = page(tmp_path, report)
    charts = drawn(text)
    assert charts["validation accuracy by the seconds that each took"] == (0, 3, 2)
    assert charts["how alike each layer is to the base's (linear CKA)".replace("'", "&#39;")] == (1, 2, 0)
    assert charts["what the neighbours of each layer tell, by candidate: x, y"] == (2, 0, 0)
    assert charts["validation accuracy, with 95 % intervals"] == (1, 6, 6)
    assert charts["validation accuracy by what is lost of what the base could"] == (1, 2, 2)
    assert "<i>" not in text
    assert ">FullFineTuning</text>" in text
    assert "<td>3.0 s</td>" in text


def test_a_source_at_the_beginning_of_a_sentence_stays_as_it_is():
    assert capital("pvc://models/a: its features tell") == "pvc://models/a: its features tell"
    assert capital("nothing: the head") == "Nothing: the head"


def test_what_somebody_should_act_on_and_what_came_out_of_it_stands_first():
    taken_then = [taken(kind) for kind in ("Rates", "Rung", "Baseline", "Trial", "Strategy")]
    taken_then.append(taken("Budget").model_copy(update={"warning": True}))
    assert [one.type for one in in_order(taken_then)] == ["Budget", "Strategy", "Baseline", "Rates", "Rung", "Trial"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["OneOf", "AnyOf"])
def test_a_page_of_many_classes_is_small(tmp_path, kind):
    names = [f"{number:04}{BAD * 9}" for number in range(1100)]
    text = page(tmp_path, finished(tmp_path, names=names, kind=kind, rows=30))
    assert len(text.encode()) < 3_000_000


def test_a_run_of_an_earlier_version_has_a_page_too(tmp_path):
    report = REPORT.model_copy(update={"usefulness": None})
    (tmp_path / "report.json").write_text(report.to_json())
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "accuracy is 0.800 on 0 test samples." in text
    result = CliRunner().invoke(main, ["report", str(tmp_path), "-o", str(tmp_path / "elsewhere.html")])
    assert (tmp_path / "elsewhere.html").read_text() == text


@pytest.mark.parametrize("content", [b"\xff\xfe", b"step,loss\nnan,1\n1,1\ninf,1\n", b"step,loss\n" + b"9" * 2**18])
def test_tables_that_are_damaged_take_no_page_away(tmp_path, content):
    for name in ("history.csv", "label-issues.csv"):
        (tmp_path / name).write_bytes(content)
    one = REPORT.data.model_copy(update={"skipped": {"train": 1}, "overlaps": {"test in train": 1}})
    text = page(tmp_path, REPORT.model_copy(update={"data": one}))
    assert "<svg" not in text
    assert "1 sample of train could not be read and was left out" in text
    assert "1 sample stands in two splits (test in train)" in text


def test_a_folder_without_a_report_is_told(tmp_path):
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "has no report.json: the run has not ended well yet" in result.output
    (tmp_path / "report.json").write_text("{")
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert "its report.json cannot be read" in result.output


@pytest.mark.parametrize(
    ("results", "metric", "told"),
    [
        (
            {"rmse": 0.5, "r2": 0.75},
            "rmse",
            "The model's rmse is 0.500 on 0 test samples; always saying the mean has 1.000.",
        ),
        (
            {"rmse": 3.0, "r2": 0.0, "pearson": 0.9},
            "pearson",
            "; its rmse is 3.000, that of always saying the mean about 3.000.",
        ),
        ({"loss": float("nan")}, "loss", "The model's loss is \u2013 on 0 test samples."),
    ],
)
def test_the_outcome_in_one_sentence(results, metric, told):
    of_test = REPORT.results.model_copy(update={"test": results})
    report = REPORT.model_copy(update={"results": of_test, "metric": metric, "usefulness": None})
    assert outcome(report, None).endswith(told)


def test_what_may_be_chance_is_no_gain():
    worth = Usefulness(better=False, majority=0.2, gain_low=-0.1, gain_high=0.5, message="")
    told = outcome(REPORT.model_copy(update={"usefulness": worth}), None)
    assert told.startswith(
        "On the validation data the model's accuracy is not surely better than that of always guessing one class, 0.200 (difference"
        " -0.100 to +0.500). The model's accuracy is "
    )


def test_what_is_surely_worse_than_a_guess_is_called_so():
    worth = Usefulness(better=False, majority=0.2, gain_low=-0.15, gain_high=-0.1, message="")
    told = outcome(REPORT.model_copy(update={"usefulness": worth}), None)
    assert told.startswith(
        "On the validation data the model's accuracy is worse than that of always guessing one class"
    )


def test_what_makes_a_figure_worth_little_stands_before_it():
    worth = Usefulness(better=False, majority=0.95, gain_low=-0.1, gain_high=0.1, message="")
    data = REPORT.data.model_copy(
        update={"splits": {"train": 225, "validation": 75, "test": 100}, "overlaps": {"validation in train": 72}}
    )
    told = outcome(REPORT.model_copy(update={"usefulness": worth, "data": data}), None)
    assert told.startswith(
        "72 of the 75 validation samples were trained on: what is measured on them flatters. On the validation data the model's"
        " accuracy is not surely better than that of always guessing one class, 0.950 ("
    )
    few = data.model_copy(update={"overlaps": {"validation in train": 4, "test in stage domain": 99}})
    assert "flatters" not in outcome(REPORT.model_copy(update={"data": few}), None)


def test_of_several_numbers_the_guess_is_that_of_each_and_not_of_their_means():
    """One in units of which nothing is explained, one in tens of them of which nearly all is: the mean r2 says nothing of the mean error."""
    targets = [TargetFigures(name="a", rmse=1.0, mae=1.0, r2=0.0), TargetFigures(name="b", rmse=1.0, mae=1.0, r2=0.99)]
    figures = Evaluation(kind="Amounts", step=1, splits={"test": SplitFigures(rows=9, targets=targets)})
    results = REPORT.results.model_copy(update={"test": {"rmse": 1.0, "r2": 0.495}})
    report = REPORT.model_copy(update={"usefulness": None, "metric": "rmse", "results": results})
    assert outcome(report, figures).endswith("; always saying the mean has 5.500.")


def test_the_outcome_has_the_interval_of_the_test_data(tmp_path):
    report = finished(tmp_path, names=("a", "b", "c"))
    path = tmp_path / "predictions" / "test.parquet"
    table = pq.read_table(path).to_pydict()
    accuracy = np.mean([label == said for label, said in zip(table["label"], table["prediction"], strict=True)])
    evaluation = write_evaluation(tmp_path, Written(tmp_path))
    low, high = evaluation.splits["test"].intervals["accuracy"]
    spread = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 200)
    assert (low, high) == pytest.approx((accuracy - spread, accuracy + spread), abs=0.02)
    assert f"(95 % interval {low:.3f} to {high:.3f})" in outcome(report, evaluation)


@pytest.mark.slow
async def test_a_browser_shows_it_on_a_laptop_on_a_phone_in_the_dark_and_on_paper(tmp_path):
    for name, names in (("bad", ("DESC", BAD, "HUM")), ("many", [f"class {number}" for number in range(60)])):
        (tmp_path / name).mkdir()
        text = page(tmp_path / name, finished(tmp_path / name, names=names, rows=400))
        (tmp_path / f"{name}.html").write_text(text)
    grounds, pictures = set(), []
    async with tab(tmp_path / "profile") as one:
        for name in ("bad", "many"):
            for size in (LAPTOP, PHONE):
                for dark in (False, True):
                    await one.open(tmp_path / f"{name}.html", size, dark=dark)
                    assert await one.value("document.documentElement.scrollWidth") <= size[0]
                    grounds.add(await one.value("getComputedStyle(document.body).backgroundColor"))
                    pictures.append(await one.picture())
            assert await one.value("document.querySelectorAll('script, img').length") == 0
            assert not (await one.value("document.title")).startswith("taken")
        pdf = await one.pdf()
    assert grounds == {"rgb(255, 255, 255)", "rgb(20, 22, 26)"}
    assert len(set(pictures)) == len(pictures) == 8
    assert pdf.startswith(b"%PDF")
    methods = [event["method"] for event in one.events]
    asked = [
        event["params"]["request"]["url"] for event in one.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in asked} == {"file"}
    assert len(asked) == 8, "the pages alone"
    assert {"Audits.issueAdded", "Log.entryAdded", "Runtime.exceptionThrown"}.isdisjoint(methods), one.events
