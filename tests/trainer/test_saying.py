"""What models say by themselves in a job: measured at the end of a phase and of the job, the same on any number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from tests.trainer.engine_group import open_run
from tests.trainer.jobs import decoder_folder, make_job, seq2seq_folder, write_dialogues, write_sequences
from tests.trainer.saying_group import TABLES, said
from unfreeze_api.cli import main
from unfreeze_trainer.commands.generated import spoken
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.modalities.base import Question
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training import saying
from unfreeze_trainer.training.loop import train
from unfreeze_trainer.training.meter import StopRequested
from unfreeze_trainer.training.saying import Saying, say

FIGURES = {"exactMatch", "rougeL", "chrF"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saying")
    decoder_folder(folder / "decoder")
    seq2seq_folder(folder / "seq2seq", dropout_rate=0.0, num_layers=1, num_decoder_layers=1, initializer_factor=1.0)
    write_dialogues(folder / "dialogues.jsonl")
    write_sequences(folder / "sequences.jsonl")
    (folder / "held-out").mkdir()
    for name in ("dialogues", "sequences"):
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        (folder / "held-out" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines[:5]))
    return folder


@pytest.mark.parametrize(("task", "engine"), [("CausalLM", "FSDP"), ("Seq2SeqLM", "DDP"), ("Seq2SeqLM", "FSDP")])
def test_two_workers_measure_what_the_finished_model_says(ranks, folder, task, engine):
    (phase, results), (also, _) = ranks.call(said, folder, task, engine)
    assert phase == also
    assert phase.keys() >= FIGURES
    run = folder / f"{task}-{engine}-2"
    report = json.loads((run / "report.json").read_text())
    tested = report["results"]["test"]
    table = folder / "held-out" / TABLES[task][1]
    first = folder / f"first-{table.name}"
    first.write_text("".join(f"{line}\n" for line in table.read_text().splitlines()[:3]))
    done = CliRunner().invoke(main, ["evaluate", str(run), str(first), "--generate", "4", "--output", "json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["metrics"]
    assert {name: tested[name] for name in FIGURES} == pytest.approx({name: found[name] for name in FIGURES})
    assert results["test.chrF"] == tested["chrF"]


def test_what_a_models_file_says_of_beams_and_answers_does_not_hinder_it(folder):
    from transformers import AutoModelForCausalLM, GenerationConfig

    module = AutoModelForCausalLM.from_pretrained(folder / "decoder").eval()
    question = Question({"input_ids": [5, 6, 7]}, "", None, str, echoed=3)
    expected = say(module, question, 4, torch.device("cpu"))
    assert expected != "[]"
    ends = {"eos_token_id": 2, "pad_token_id": 0}
    for options in (
        {"num_beams": 4, "num_return_sequences": 4},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"return_dict_in_generate": True, "output_scores": True},
    ):
        module.generation_config = GenerationConfig(**ends, **options)
        assert say(module, question, 4, torch.device("cpu")) == expected


def test_a_model_that_stops_at_a_text_stops_there(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    module = AutoModelForCausalLM.from_pretrained(folder / "decoder").eval()
    tokenizer, told = AutoTokenizer.from_pretrained(folder / "decoder"), []

    def decode(ids):
        told.append(len(ids))
        return tokenizer.decode(ids)

    question = Question({"input_ids": [5, 6, 7]}, "", None, decode, echoed=3, tokenizer=tokenizer)
    text = say(module, question, 8, torch.device("cpu"))
    end = next(letter for letter in text if letter.isascii())
    for stops in (end, [end, "never"]):
        module.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, stop_strings=stops)
        assert say(module, question, 16, torch.device("cpu")) == text.partition(end)[0]
    assert told[0] >= told[1] == told[2] < 16


def test_of_equal_questions_the_first_is_asked(monkeypatch):
    """As of a picture with several texts, each in a row of its own."""
    asked = []

    def answer(_, question, *__):
        asked.append(question.right)
        return f"{question.inputs['input_ids']}"

    monkeypatch.setattr(saying, "say", answer)
    pictures = [torch.zeros(2), torch.zeros(2), torch.ones(2), torch.zeros(2)]
    questions = [
        Question({"images": picture, "input_ids": [n // 3]}, str(n), None, str) for n, picture in enumerate(pictures)
    ]
    task = SimpleNamespace(splits={"test": 4}, asked=lambda _, index: questions[index])
    found = [*spoken(SimpleNamespace(task=task, module=None, device=None), 4)]
    assert [(index, text, question.right) for index, text, question in found] == [
        (0, "[0]", "0"),
        (1, "[0]", "1"),
        (2, "[0]", "2"),
        (3, "[1]", "3"),
    ]
    assert asked == ["0", "2", "3"]


def test_how_long_it_takes_is_known_of_as_many_tokens_as_it_may_say(folder):
    from transformers import AutoModelForCausalLM, GenerationConfig

    module, said = AutoModelForCausalLM.from_pretrained(folder / "decoder").eval(), []
    question = Question({"input_ids": [5, 6, 7]}, "", None, lambda ids: said.append(ids) or "", echoed=3)
    for whole in (False, False, True):
        ends = said[0][0] if said else None  # what it says first
        module.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=0)
        say(module, question, 4, torch.device("cpu"), whole=whole)
    assert [len(ids) for ids in said] == [4, 1, 4], "a base that ends at once tells nothing of what is trained"


def test_a_stop_while_a_model_says_texts_leaves_the_end_of_the_phase_to_a_later_start(folder, one_thread):
    def opened(name):
        job = make_job(
            folder / "decoder",
            folder / "dialogues.jsonl",
            task={"type": "CausalLM"},
            training={"epochs": 1, "batchSize": 8, "evaluate": {"generate": {"maxTokens": 40, "rows": 3}}},
            output={"destination": f"file://{folder}/{name}"},
        )
        return open_run(job, open_task(job))

    def closed(run):
        run.saver.wait()
        run.saver.close()
        run.engine.end()

    whole = opened("whole")
    train(whole)
    closed(whole)
    run, asked = opened("stopped"), []

    def stop_requested():
        asked.append(True)
        return len(asked) > 4

    run.saying._link = SimpleNamespace(stop_requested=stop_requested)
    with pytest.raises(StopRequested):
        train(run)
    assert len(asked) < 10, "after the token that it had begun"
    assert not run.state.phases
    assert not run.state.phase_ended
    run.milestones.save()  # as the worker does
    closed(run)
    again = opened("stopped")
    assert again.state.step == whole.state.step
    train(again)
    closed(again)
    [phase], [expected] = again.state.phases, whole.state.phases
    assert phase.metrics == expected.metrics
    assert phase.metrics.keys() >= FIGURES
    assert again.state.best == whole.state.best


def test_a_model_that_is_asked_nothing_is_refused(folder, one_thread):
    (folder / "texts.csv").write_text("text\n" + "how far is the city\n" * 8)
    spec = {"task": {"type": "CausalLM", "causalLm": {"annotation": "Text"}}}
    job = make_job(folder / "decoder", folder / "texts.csv", training={"evaluate": {"generate": {}}}, **spec)
    with pytest.raises(JobError, match=r"spec\.training\.evaluate\.generate: this model is asked nothing"):
        Saying(job, open_task(job), open_engine(job))
