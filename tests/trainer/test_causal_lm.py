"""Causal language modelling: what is learned of dialogues and completions, how it weighs, and what plain transformers says."""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import yaml
from click.testing import CliRunner
from tokenizers import AddedToken

from tests.trainer.jobs import CHAT_TEMPLATE, decoder_folder, make_job, write_dialogues
from tests.trainer.ranks import run_gang
from tests.trainer.whole_worker import ends_as_undisturbed, work
from unfreeze_api.cli import main
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_trainer.commands.asked import ask as ask_model
from unfreeze_trainer.commands.finished import find_model
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.data.row_packing import packed, packed_rows
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.estimates.aside import Aside
from unfreeze_trainer.estimates.said import hold_said
from unfreeze_trainer.estimates.trace import PhaseBytes, Traced, trace
from unfreeze_trainer.exports.described import described
from unfreeze_trainer.exports.seal import seal
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.models import export
from unfreeze_trainer.models.activations import checkpoint_activations
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.base import IGNORED, LEARNED, PACKED, SAMPLES
from unfreeze_trainer.tasks import open_task

pytestmark = pytest.mark.slow

TASK = {"type": "CausalLM"}


def of(**options) -> dict:
    return TASK | {"causalLm": options}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dialogues(tmp_path_factory.mktemp("data") / "t.jsonl")


def ask(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(*messages: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def learned(task, row: int) -> tuple[str, str]:
    """Return the text of a training sample, and what of it is learned."""
    [batch] = task.batches("train", [[row]])
    ids, targets = batch["input_ids"][0], batch["labels"][0]
    kept = targets != IGNORED
    assert torch.equal(ids[kept], targets[kept])
    decode = task.modality.tokenizer.decode
    return decode(ids[batch["attention_mask"][0].bool()]), decode(targets[kept])


# What is learned


def test_an_encoder_that_reads_what_follows_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    from tests.trainer.jobs import bert_folder

    folder = bert_folder(tmp_path / "bert")
    path = lines(tmp_path / "t.jsonl", *[{"text": "how far is the city"}] * 4)
    config = BertConfig.from_pretrained(folder)
    for config.is_decoder in (True, False):
        BertForMaskedLM(config).save_pretrained(folder)
        task = open_task(make_job(folder, path, task=of(annotation="Text")))
        if config.is_decoder:
            task.build_model()
    with pytest.raises(
        JobError, match=r"BertLMHeadModel reads what follows a token, too, .*is_decoder: true"
    ) as caught:
        task.build_model()
    assert caught.value.reason == "InvalidModel"


def test_answers_are_learned_with_the_token_that_ends_them_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    one = said(
        ("system", "a man"), ("user", "how far"), ("assistant", "the city"), ("user", "who"), ("assistant", "war")
    )
    path = lines(tmp_path / "t.jsonl", *[one] * 4)
    text = (
        "<|im_start|>system\na man<|im_end|>\n<|im_start|>user\nhow far<|im_end|>\n<|im_start|>assistant\nthe city<|im_end|>\n"
        "<|im_start|>user\nwho<|im_end|>\n<|im_start|>assistant\nwar<|im_end|>\n"
    )
    task = open_task(make_job(llama, path, task=TASK))
    assert learned(task, 0) == (text, "the city<|im_end|>war<|im_end|>")
    assert (
        task.units("train").tolist()
        == [len(task.modality.tokenizer("the city<|im_end|>war<|im_end|>")["input_ids"])] * 3
    )
    task = open_task(make_job(llama, path, task=of(lossOn="AllTokens")))
    assert learned(task, 0) == (text, text.removeprefix("<|im_start|>")), "nothing stands before the first token"


def test_completions_are_learned_after_the_tokens_that_their_prompt_has_alone(llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "how far is ", "completion": "the city"}, {"prompt": "who is", "completion": " a man<|im_end|>"}]
    path = lines(tmp_path / "t.jsonl", *rows * 4)
    task = open_task(make_job(llama, path, task=of(annotation="Completions")))
    tokenizer, found = task.modality.tokenizer, [learned(task, row) for row in range(6)]
    assert {task.asked("train", row).right.strip() for row in range(6)} == {"the city", "a man"}, "nobody says an end"
    assert set(found) == {
        ("how far is the city<|im_end|>", "the city<|im_end|>"),
        ("who is a man<|im_end|>", " a man<|im_end|>"),
    }, "an end that is there is not doubled"
    [batch] = task.batches("train", [[[text for text, _ in found].index("how far is the city<|im_end|>")]])
    asked = tokenizer("how far is ")["input_ids"]
    assert tokenizer("how far is the")["input_ids"][: len(asked)] != asked, "the space would be a part of the next word"
    assert batch["input_ids"][0, : len(asked)].tolist() == asked


def test_a_text_is_learned_whole_with_its_end(llama: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", *[{"text": "how far is the city"}] * 4)
    task = open_task(make_job(llama, path, task=of(annotation="Text")))
    text, found = learned(task, 0)
    assert text == "how far is the city<|im_end|>"
    assert text.endswith(found)
    task = open_task(make_job(llama, path, task=of(annotation="Text", maxLength=3)))
    assert task.lengths("train").tolist() == [3] * 3
    assert not learned(task, 0)[0].endswith("<|im_end|>"), "what is cut does not end"


def test_a_beginning_that_a_tokenizer_puts_there_is_not_doubled(tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = decoder_folder(tmp_path / "m", template="<|endoftext|>" + CHAT_TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "<|endoftext|>"
    begin = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.backend_tokenizer.post_processor = begin
    tokenizer.save_pretrained(folder)
    path = lines(tmp_path / "t.jsonl", *[said(("user", "who"), ("assistant", "war"))] * 4)
    text, _ = learned(open_task(make_job(folder, path, task=TASK)), 0)
    assert text.count("<|endoftext|>") == 1
    path = lines(
        tmp_path / "p.jsonl",
        *[{"prompt": "<|endoftext|>who", "completion": "war"}] * 2,
        *[{"prompt": "who", "completion": "war"}] * 2,
    )
    task = open_task(make_job(folder, path, task=of(annotation="Completions")))
    assert {learned(task, row)[0] for row in range(3)} == {"<|endoftext|>whowar<|im_end|>"}


USER, ASSISTANT = ("user", "who is"), ("assistant", "a man")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": None}, "row 2: no messages in column 'messages'"),
        ({"messages": []}, "row 2: column 'messages' has no messages"),
        ({"messages": "who"}, "row 2, column 'messages' is 'who', and no list of messages"),
        (
            {"messages": [["user", "who"]]},
            r"row 2, column 'messages': message 1 is \[\"user\", \"who\"\], and messages are \{role, content\}",
        ),
        (
            {"messages": [{"content": "who"}]},
            "message 1, .*, has no role; roles are system, developer, user, assistant, tool",
        ),
        (
            {"messages": [{"from": "human", "value": "who"}]},
            "has no role \\(from and value are role and content here\\)",
        ),
        (said(("human", "who"), ASSISTANT), "message 1 has the role 'human'; did you mean 'user'\\? Roles are system"),
        (said(USER, ("narrator", "who"), ASSISTANT), "message 2 has the role 'narrator'. Roles are"),
        (
            said(USER, ("assistant", " ")),
            "message 2, of role assistant, has no content; fill it in, or remove the message",
        ),
        (said(USER, USER, ASSISTANT), "messages 1 and 2 are the same, 'who is' of role user: remove one of them"),
        (said(USER), "no message is of role assistant, so there is nothing to learn; roles are user"),
        (said(USER, ("assistant", "war<|im_end|>")), "message 2 holds '<|im_end|>', a special token of the tokenizer"),
        (
            {"messages": [{"role": "user", "content": "who", "name": "x"}]},
            "message 1 has 'name' beside role and content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "parts of other kinds than text are not read",
        ),
    ],
)
def test_what_is_no_dialogue_is_named(llama: Path, tmp_path: Path, row: dict, says: str) -> None:
    path = lines(tmp_path / "t.jsonl", said(USER, ASSISTANT), row, *[said(USER, ASSISTANT)] * 3)
    job = make_job(llama, path, task=TASK)
    with pytest.raises(JobError, match=says.replace("|", r"\|")) as caught:
        open_task(job)
    assert caught.value.reason == "InvalidData"
    skipping = open_task(make_job(llama, path, task=TASK, data={"onError": "Skip"}))
    assert skipping.left_out == {"train": 1}
    assert sum(skipping.splits.values()) == 4
    if "special token" not in says:
        with pytest.raises(JobError, match=says):
            look(job)


def test_keys_that_are_empty_and_instructions_without_content_are_passed_over(llama: Path, tmp_path: Path) -> None:
    empty = {"tool_calls": [], "name": "", "function": {}, "weight": None}
    system, developer = {"role": "system", "content": None}, {"role": "developer", "content": " "}
    row = {"messages": [system, developer, *(one | empty for one in said(USER, ASSISTANT)["messages"])]}
    parts = [
        {"type": "text", "text": text, "image": None} for text in ("who", " is")
    ]  # as files for OpenAI's models may have them
    row["messages"][2] |= {"content": parts}
    task = open_task(make_job(llama, lines(tmp_path / "t.jsonl", *[row] * 4), task=TASK))
    assert learned(task, 0)[0] == "<|im_start|>user\nwho is<|im_end|>\n<|im_start|>assistant\na man<|im_end|>\n"
    for number, weight, says in (
        (2, 0, "message 3 has 'weight' beside role and content"),
        (3, 0.5, "message 4 has the weight 0.5: it is 1 where the message is to be learned, and 0 where not"),
        (3, 0, "all messages of role assistant have the weight 0"),
    ):
        row["messages"] = [one | {"weight": weight if n == number else None} for n, one in enumerate(row["messages"])]
        with pytest.raises(JobError, match=says):
            open_task(make_job(llama, lines(tmp_path / "t.jsonl", *[row] * 4), task=TASK))


def test_half_a_character_is_named_with_its_row(llama: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    good, bad = (json.dumps(said(USER, ("assistant", text))["messages"]) for text in ("a man", "war \ud83d"))
    assert r"\ud83d" in bad
    cells = [good, bad, *[good] * 4]
    pq.write_table(pa.table({"messages": cells}), tmp_path / "t.parquet")
    pa.csv.write_csv(pa.table({"messages": cells}), tmp_path / "t.csv")
    for path in (tmp_path / "t.parquet", tmp_path / "t.csv"):
        with pytest.raises(
            JobError, match=r"row 2, column 'messages': message 2 holds '\\ud83d', half of a character"
        ) as caught:
            open_task(make_job(llama, path, task=TASK))
        caught.value.message.encode()
        assert open_task(make_job(llama, path, task=TASK, data={"onError": "Skip"})).left_out == {"train": 1}


def test_rows_that_are_no_dialogues_and_those_that_nothing_is_learned_of_are_half_of_all_at_most(
    llama: Path, tmp_path: Path
) -> None:
    special = said(USER, ("assistant", "war<|im_end|>"))
    path = lines(tmp_path / "t.jsonl", *[said(USER, ASSISTANT)] * 4, *[said(USER)] * 3, *[special] * 2)
    with pytest.raises(JobError, match=r"5 of 9 rows cannot be read, and .* Skip leaves out half"):
        open_task(make_job(llama, path, task=TASK, data={"onError": "Skip"}))


STRICT = "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
STRICT += "{% endif %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
FORGETFUL = CHAT_TEMPLATE.replace(
    "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
)
THOUGHTLESS = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
LATEST = "{% for m in messages %}{{ m['role'] + ('* ' if loop.last and m['role'] == 'assistant' else ' ') + m['content'] + '\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "row", "says"),
    [
        (
            STRICT,
            said(USER, ("user", "what"), ASSISTANT),
            "row 2: the chat template refuses it: .*roles must alternate",
        ),
        (
            FORGETFUL,
            said(("system", "far"), USER, ASSISTANT),
            "row 2: the chat template leaves out message 1, of role system: 'far'",
        ),
        (
            THOUGHTLESS,
            said(USER, ("assistant", "<think>hm</think>war")),
            "row 2: the chat template leaves out message 2, of role assistant, or a part of it: .*; leave out what the template",
        ),
        (
            LATEST,
            said(USER, ASSISTANT, ("user", "x")),
            "row 2: the chat template writes message 2, of role assistant, otherwise once others follow, .*remove what follows it",
        ),
    ],
)
def test_what_a_chat_template_does_not_take_is_named(tmp_path: Path, template: str, row: dict, says: str) -> None:
    folder = decoder_folder(tmp_path / "m", template=template)
    path = lines(tmp_path / "t.jsonl", said(USER, ASSISTANT), row, *[said(USER, ASSISTANT)] * 3)
    with pytest.raises(JobError, match=says):
        open_task(make_job(folder, path, task=TASK))
    task = open_task(make_job(folder, path, task=TASK, data={"onError": "Skip"}))
    assert "a man" in learned(task, 0)[1]


THINKING = """
{%- set ns = namespace(last=0) %}
{%- for m in messages if m.role == 'user' %}{% set ns.last = messages.index(m) %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last and '<think>' not in m.content %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{{- m.content.split('</think>')[-1].lstrip('\n') if loop.index0 < ns.last else m.content }}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
"""It drops what was thought before earlier answers, as Qwen3's does, and has the last one think nothing."""
ENDING = CHAT_TEMPLATE.replace("{% if add", "{% if not add_generation_prompt %}{{ eos_token }}{% elif add")
"""It puts the end of text at the end of a dialogue, as Phi-3's does."""
PROMPTED = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
"""It has answers begin with thinking, which it does not write itself, as DeepSeek-R1's does."""


def test_answers_that_are_written_otherwise_once_others_follow_are_context(tmp_path: Path, caplog) -> None:
    folder = decoder_folder(tmp_path / "m", template=THINKING, max_position_embeddings=128)
    thought = ("assistant", "<think>\nhm\n</think>\n\nwar")
    rows = [said(USER, thought, ("user", "far"), ASSISTANT), said(USER, ASSISTANT, ("user", "far"), thought)]
    task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *rows * 4), task=TASK))
    assert {learned(task, row)[1] for row in range(6)} == {
        "<think>\n\n</think>\n\na man<|im_end|>",
        "<think>\nhm\n</think>\n\nwar<|im_end|>",
    }
    [warning] = task.warnings
    assert warning in caplog.text
    assert "the chat template writes 8 of 16 answers otherwise once others follow" in warning
    assert "give each a row of its own, with the messages before it" in warning
    rows = [one for row in rows for one in ({"messages": row["messages"][:2]}, row)]
    task = open_task(make_job(folder, lines(tmp_path / "each.jsonl", *rows * 3), task=TASK))
    firsts = [learned(task, row) for row in range(9)]
    assert {found for text, found in firsts if "far" not in text} == {found for text, found in firsts if "far" in text}


def test_what_a_model_should_say_is_what_it_has_learned_to_say(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "m", max_position_embeddings=128)
    thought = said(USER, ("assistant", "<think>\nhm\n</think>\n\nwar"))
    for template, row, right in (
        (THINKING, said(USER, ASSISTANT), "<think>\n\n</think>\n\na man"),
        (THINKING, thought, "<think>\nhm\n</think>\n\nwar"),
        (PROMPTED, thought, "hm\n</think>\n\nwar"),
        (ENDING, said(USER, ASSISTANT), "a man"),
        (CHAT_TEMPLATE, said(USER, ASSISTANT, USER), "a man"),
    ):
        (folder / "chat_template.jinja").write_text(template)
        task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *[row] * 4), task=TASK))
        question = task.asked("train", 0)
        assert question is not None
        assert question.right.strip() == right
        learns = learned(task, 0)[1]
        assert learns.removesuffix("<|im_end|>") == right


def test_an_end_of_text_behind_a_dialogue_hides_no_answer(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "m", template=ENDING)
    path = lines(tmp_path / "t.jsonl", *[said(USER, ASSISTANT, ("user", "far"), ("assistant", "war"))] * 4)
    task = open_task(make_job(folder, path, task=TASK))
    assert learned(task, 0)[1] == "a man<|im_end|>war<|im_end|>"
    assert not task.warnings


def test_answers_that_do_not_begin_as_the_model_is_asked_to_are_learned_whole_with_a_warning(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "m", template=PROMPTED)
    rows = [said(USER, ("assistant", "<thin man")), said(USER, ("assistant", "<think>\nhm</think>war"))]
    task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *rows * 4), task=TASK))
    assert {learned(task, row)[1] for row in range(6)} == {"<thin man<|im_end|>", "hm</think>war<|im_end|>"}
    [warning] = task.warnings
    assert (
        r"4 of 8 answers begin otherwise than the chat template has the model begin when it is asked ('<think>\n')"
        in warning
    )


def test_a_template_that_writes_the_date_writes_the_same_one_in_every_start(tmp_path: Path) -> None:
    template = "{% for n in [1] %}{{ strftime_now('%-d %B %Y, %d.%m.%y') }}\n{% endfor %}" + CHAT_TEMPLATE
    folder = decoder_folder(tmp_path / "m", template=template, max_position_embeddings=128)
    task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *[said(USER, ASSISTANT)] * 4), task=TASK))
    assert learned(task, 0)[0].startswith("1 January 2025, 01.01.25\n<|im_start|>user")
    [warning] = task.warnings
    assert "the chat template writes the date: it is 2025-01-01 in all dialogues" in warning
    task.modality.save(tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template


def test_a_template_may_put_blanks_into_an_answer_and_quote_what_tools_say(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("message['content']", "message['content'].replace('</think>', '\n</think>\n\n')")
    folder = decoder_folder(tmp_path / "m", template=template)
    rows = [said(USER, ("assistant", "<think>hm</think>war"))] * 4
    task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *rows), task=TASK))
    assert learned(task, 0)[1] == "<think>hm\n</think>\n\nwar<|im_end|>"
    written = "(message.content | tojson if message.role == 'tool' else message.content)"
    quoting = CHAT_TEMPLATE.replace("message['content']", written)
    (folder / "chat_template.jinja").write_text(quoting)
    rows = [said(USER, ("tool", '{"far":\n"a"}'), ASSISTANT)] * 4
    task = open_task(make_job(folder, lines(tmp_path / "t.jsonl", *rows), task=TASK))
    assert learned(task, 0)[1] == "a man<|im_end|>"


def test_special_tokens_are_all_that_the_tokenizer_has_and_the_model_stops_at(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    folder = decoder_folder(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(AddedToken("<|eot|>", special=True))
    tokenizer.save_pretrained(folder)
    assert "<|eot|>" not in AutoTokenizer.from_pretrained(folder).all_special_tokens
    [stop] = tokenizer("#", add_special_tokens=False)["input_ids"]
    GenerationConfig(eos_token_id=[2, stop]).save_pretrained(folder)
    for token in ("<|eot|>", "#"):
        path = lines(tmp_path / "t.jsonl", *[said(USER, ("assistant", f"a {token} man"))] * 4)
        with pytest.raises(JobError, match=re.escape(f"message 2 holds {token!r}, a special token of the tokenizer")):
            open_task(make_job(folder, path, task=TASK))


def test_answers_that_end_at_no_token_where_the_model_stops_are_said(tmp_path: Path, caplog) -> None:
    from transformers import GenerationConfig

    folder = decoder_folder(tmp_path / "m", template=CHAT_TEMPLATE.replace("<|im_end|>", "<|endoftext|>"))
    path = lines(tmp_path / "t.jsonl", *[said(USER, ASSISTANT)] * 4)
    [warning] = open_task(make_job(folder, path, task=TASK)).warnings
    assert "ends no answer by a token at which the model stops (<|im_end|>)" in warning
    assert warning in caplog.text
    GenerationConfig(eos_token_id=[0, 2]).save_pretrained(folder)
    task = open_task(make_job(folder, path, task=TASK))
    assert not task.warnings
    assert learned(task, 0)[1] == "a man<|endoftext|>"


BARE = "{% for m in messages %}{{ 'ask ' + m.content + ' say' if m.role == 'user' else m.content + eos_token }}{% endfor %}"
"""It puts nothing before an answer, as Mistral's does."""


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, BARE])
def test_turns_that_follow_each_other_are_each_learned_to_their_end(tmp_path: Path, template: str) -> None:
    folder = decoder_folder(tmp_path / "m", template=template, max_position_embeddings=128)
    greeting, unweighed = ("assistant", "how"), {"role": "assistant", "content": "the city", "weight": 0}
    row = said(greeting, USER, ("user", "what"), ASSISTANT, ("assistant", "war"))
    row["messages"] += [unweighed, *said(("user", "far"))["messages"]]
    path = lines(tmp_path / "t.jsonl", *[row] * 4)
    task = open_task(make_job(folder, path, task=TASK))
    text, learns = learned(task, 0)
    assert learns == "a man<|im_end|>war<|im_end|>"
    assert all(f"{read}<|im_end|>" in text for read in ("how", "the city"))
    [warning] = task.warnings
    assert "4 of 12 answers begin their dialogue, and nothing asks for them" in warning
    question = task.asked("train", 0)
    assert question is not None
    assert question.right == "war"
    with pytest.raises(JobError, match="row 1: message 6 has the weight 0, and all tokens are to be learned"):
        open_task(make_job(folder, path, task=of(lossOn="AllTokens")))
    with pytest.raises(JobError, match="row 1: nothing comes before message 1, of role assistant, the only one that"):
        open_task(make_job(folder, lines(path, *[said(greeting, USER)] * 4), task=TASK))


def test_a_completion_that_is_cut_away_is_named_and_one_that_is_cut_is_not(llama: Path, tmp_path: Path, caplog) -> None:
    long = said(("user", "who is " * 12), ASSISTANT)
    path = lines(
        tmp_path / "t.jsonl",
        said(USER, ASSISTANT),
        said(USER, ("assistant", "war " * 30)),
        long,
        *[said(USER, ASSISTANT)] * 5,
    )
    says = r"row 3 has \d+ tokens, and what is to be learned of it lies beyond the first 30, .*raise spec\.task\.causalLm\.maxLength"
    with pytest.raises(JobError, match=says):
        open_task(make_job(llama, path, task=of(maxLength=30)))
    task = open_task(make_job(llama, path, task=of(maxLength=30), data={"onError": "Skip"}))
    assert task.left_out == {"train": 1}
    assert max(task.lengths("train").max(), task.lengths("validation").max()) == 30
    assert "1 of 7 samples are cut: they are longer than 30 tokens" in caplog.text
    kept = sum(int(task.units(split).sum()) for split in task.splits)
    [warning] = task.warnings
    begin = "<|im_start|>user\nwho is<|im_end|>\n<|im_start|>assistant\n"
    beyond = len(task.modality.tokenizer(f"{begin}{'war ' * 30}<|im_end|>")["input_ids"]) - 30
    assert (
        f"{beyond} of {kept + beyond} tokens that are to be learned lie beyond, and 1 samples lose the end" in warning
    )
    assert min(task.units("train")) > 0


def test_what_the_model_does_not_take_is_no_matter_of_the_jobs_length(llama: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", *[said(("user", "who is " * 40), ASSISTANT)] * 4)
    with pytest.raises(
        JobError, match="beyond the first 64, which are kept: shorten them, or choose a model that takes more"
    ):
        open_task(make_job(llama, path, task=TASK))


def test_the_file_that_says_where_a_model_stops_is_pinned_and_may_be_missing(table: Path, tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "m", eos_token_id=[1, 2])
    task = open_task(make_job(folder, table, task=TASK))
    assert task.library.stops == [1, 2]
    assert "generation_config.json" in task.library.files()
    (folder / "generation_config.json").unlink()
    task = open_task(make_job(folder, table, task=TASK))
    assert task.library.stops == [1, 2], "as transformers generates"
    assert "generation_config.json" not in task.library.files()


def test_a_model_that_cannot_answer_is_refused(llama: Path, table: Path, tmp_path: Path) -> None:
    from tests.trainer.jobs import bert_folder

    with pytest.raises(JobError, match="its tokenizer has no chat template"):
        open_task(make_job(decoder_folder(tmp_path / "m", template=None), table, task=TASK))
    path = lines(tmp_path / "t.jsonl", *[{"text": "how far"}] * 4)
    with pytest.raises(JobError, match="the weights lack"):
        open_task(make_job(bert_folder(tmp_path / "bert"), path, task=of(annotation="Text"))).build_model()


# How it weighs


def test_padding_has_no_loss_and_no_gradient(llama: Path, table: Path) -> None:
    task = open_task(make_job(llama, table, task=TASK))
    module = task.build_model().module
    [empty] = task.batches("train", [[]])
    outputs = task.forward(module, empty)
    loss = task.loss(outputs, empty)
    assert loss.tolist() == [0]
    loss.sum().backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters() if p.grad is not None)
    state = task.metrics.new_state()
    task.metrics.update(state, outputs, empty)
    assert not state.any()
    assert task.tokens(empty) == 0
    assert task.metrics.compute(state) == {}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_token_of_a_step_weighs_the_same_however_it_is_divided(llama: Path, table: Path, accumulate: int) -> None:
    task = open_task(make_job(llama, table, task=TASK))
    module = task.build_model().module.eval()

    def gradients() -> torch.Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])

    [(_, [micro])] = [
        (step, list(micros))
        for step, micros in Feed(task, seed=0, batch_size=4, accumulate=1, rank=0, world_size=1).steps(4, 5)
    ]
    batch = {name: tensor for name, tensor in micro.tensors.items() if name != LEARNED}
    expected = module(**batch).loss  # transformers' own, a mean over the tokens
    expected.backward()
    whole = gradients()
    for world in (1, 2, 3):
        module.zero_grad()
        total = 0.0
        for rank in range(world):
            feed = Feed(task, seed=0, batch_size=4, accumulate=accumulate, rank=rank, world_size=world)
            for _, micros in feed.steps(4, 5):  # the last of the epoch: two samples, so that a rank may have none
                for micro in micros:
                    loss = task.loss(task.forward(module, micro.tensors), micro.tensors).sum() * micro.scale / world
                    loss.backward()
                    total += loss.item()
        assert total == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(gradients(), whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("family", "options", "adapter"),
    [
        ("llama", {}, None),
        ("gpt2", {"packing": True}, None),
        ("llama", {}, {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 3}}),
        ("llama", {}, {"type": "LoRA", "lora": {"targetModules": ["lm_head"], "loraDropout": 0.0}}),
    ],
)
def test_logits_are_computed_where_something_is_learned_and_are_those_of_all(
    table: Path, tmp_path: Path, family: str, options: dict, adapter: dict | None
) -> None:
    more = {"adapter": adapter} if adapter else {}
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) if family == "gpt2" else {}
    task = open_task(make_job(decoder_folder(tmp_path / "m", family, **still), table, task=of(**options), **more))
    module = task.build_model().module
    [batch] = task.batches("train", [range(5)])
    seen = []
    handle = module.get_output_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    found, places = [], len(batch[LEARNED])
    for outputs in (task.outputs(module, batch), task.forward(module, batch)):
        losses = task.loss(outputs, batch)
        sums = task.metrics.new_state()
        task.metrics.update(sums, outputs, batch)
        losses.sum().backward()
        gradients = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
        module.zero_grad()
        found.append((losses, sums, gradients))
    handle.remove()
    assert places == int((batch["labels"] != IGNORED).sum()) < batch["labels"].numel() / 2
    assert [len(shape) for shape in seen] == [3, 2]
    assert seen[1][0] == places, "no more than that many tokens reach the output layer"
    (losses, sums, gradients), (again, same, others) = found
    torch.testing.assert_close(again, losses)
    torch.testing.assert_close(same, sums)
    assert len(gradients) == len(others) > 0
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_uneven_shards_measure_as_transformers_does(llama: Path, table: Path) -> None:
    task = open_task(
        make_job(llama, table, task=TASK, data={"validation": {"fraction": 0.5}}, training={"batchSize": 3})
    )
    module = task.build_model().module.eval()
    losses, hits, count = 0.0, 0, 0
    for index in range(task.splits["validation"]):
        [batch] = task.batches("validation", [[index]])
        del batch[LEARNED]
        found, targets = module(**batch), batch["labels"][0, 1:]
        kept = targets != IGNORED
        losses += found.loss.item() * int(kept.sum())
        hits += int((found.logits[0, :-1].argmax(-1) == targets)[kept].sum())
        count += int(kept.sum())
    assert count == task.units("validation").sum()
    for world in (1, 2, 3):
        sums = task.metrics.new_state()
        for rank in range(world):
            for batch in Feed(task, seed=0, batch_size=3, accumulate=1, rank=rank, world_size=world).evaluation(
                "validation"
            ):
                assert len(batch["input_ids"]) <= 3, "no more logits at a time than in a step"
                task.metrics.update(sums, task.forward(module, batch), batch)
        found = task.metrics.compute(sums)
        assert found["loss"] == pytest.approx(losses / count, rel=1e-6)
        assert found["perplexity"] == pytest.approx(math.exp(losses / count), rel=1e-6)
        assert found["tokenAccuracy"] == hits / count


# What is written


@pytest.mark.parametrize("kind", ["Model", "Adapter", "Merged"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_plain_libraries_load_what_is_exported(table: Path, tmp_path: Path, kind: str, family: str) -> None:
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    folder = decoder_folder(tmp_path / "m", family, tie_word_embeddings=family == "gpt2", max_position_embeddings=128)
    if family == "llama":  # as most bases are
        AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    adapter = {} if kind == "Model" else {"adapter": {"type": "LoRA", "lora": {"initLoraWeights": "Gaussian"}}}
    task = open_task(make_job(folder, table, task=TASK, **adapter))
    module = task.build_model().module
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if kind == "Model" or "lora_" in name:
                parameter.add_(torch.randn_like(parameter) / 4)
    task.export(module, tmp_path / "out", kind)
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(tmp_path / "out", kind, module)
    usage = task.usage(kind, str(tmp_path / "out"), str(folder))
    assert "apply_chat_template" in usage
    exec(usage, {})  # what people are shown runs as it stands
    assert (tmp_path / "out" / "chat_template.jinja").is_file()


@pytest.mark.parametrize("packing", [False, True])
def test_an_export_is_compared_on_the_beginnings_of_samples_one_at_a_time(
    table: Path, tmp_path: Path, packing: bool
) -> None:
    folder = decoder_folder(tmp_path / "m", max_position_embeddings=256)
    path = lines(tmp_path / "t.jsonl", *[said(USER, ("assistant", "the war " * 60))] * 8)
    task = open_task(make_job(folder, path, task=of(packing=packing), data={"validation": {"fraction": 0.5}}))
    assert task.lengths("validation").min() > 64
    batch, samples = task.first_samples()
    assert [len(ids) for ids in samples] == [64] * 4
    module = task.build_model().module.eval()
    seen = []
    module.register_forward_hook(lambda _, __, out: seen.append(out.logits.shape))
    with torch.no_grad():
        found = task.compared(module, batch)
    assert seen == [(1, 64, len(task.modality.tokenizer))] * 4
    torch.testing.assert_close(found[3], module(torch.tensor([samples[3]])).logits[0, -1])


def test_an_adapter_on_tied_weights_is_refused_since_peft_merges_it_to_other_logits(
    table: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    folder = decoder_folder(tmp_path / "m", tie_word_embeddings=True)
    for target in ("lm_head", "embed_tokens"):
        adapter = {"type": "LoRA", "lora": {"targetModules": ["q_proj", target]}}
        with pytest.raises(JobError, match=f"{target}' matches .*, and .* have the same weights") as caught:
            open_task(make_job(folder, table, task=TASK, adapter=adapter)).build_model()
        assert caught.value.reason == "InvalidAdapter"
        assert "model.embed_tokens and lm_head" in caught.value.message
        wrapped = get_peft_model(
            AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=[target], init_lora_weights=False)
        ).eval()
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            trained = wrapped(input_ids=ids).logits
            merged = wrapped.merge_and_unload()(input_ids=ids).logits
        assert (trained - merged).abs().max() > 1e-2, "the reason: once PEFT does this right, it need not be refused"
    untied = decoder_folder(tmp_path / "untied", tie_word_embeddings=False)
    for target in ("lm_head", "all-linear"):
        adapter = {"type": "LoRA", "lora": {"targetModules": [target]}}
        loaded = open_task(make_job(untied, table, task=TASK, adapter=adapter)).build_model()
        assert any("lm_head" in name for name in loaded.adapter_parameters) == (target == "lm_head")


def test_two_workers_of_uneven_shares_end_as_undisturbed_after_a_kill(
    ranks, llama: Path, table: Path, tmp_path: Path
) -> None:
    def job_in(name: str):
        training = {"epochs": 2, "batchSize": 5, "checkpoint": {"everySteps": 2}, "gradientAccumulationSteps": 2}
        output = {"destination": f"file://{tmp_path}/{name}"}
        return make_job(llama, table, task=TASK, training=training, distribution={"numNodes": 2}, output=output)

    report = ends_as_undisturbed(job_in, tmp_path)
    assert set(report["results"]["validation"]) == {"loss", "perplexity", "tokenAccuracy"}
    assert report["metric"] == "loss"


# What commands say of it


@pytest.mark.parametrize("kind", ["Model", "Adapter"])
def test_a_finished_model_is_measured_as_its_run_was_and_predicts_nothing(
    llama: Path, table: Path, tmp_path: Path, kind: str
) -> None:
    adapter = {"adapter": {"type": "LoRA", "lora": {"initLoraWeights": "Gaussian"}}} if kind == "Adapter" else {}
    job = make_job(llama, table, task=TASK, **adapter)
    task = open_task(job)
    module = task.build_model().module
    task.export(module, tmp_path / "out", kind)
    seal(tmp_path / "out", fingerprint="f", kind=kind, found=described(job, task))
    state = task.metrics.new_state()
    module.eval()
    with torch.no_grad():
        [batch] = task.batches("validation", [range(task.splits["validation"])])
        task.metrics.update(state, task.forward(module, batch), batch)
    rows = table.read_text().splitlines()
    path = tmp_path / "held-out.jsonl"
    path.write_text("".join(rows[row] + "\n" for row in task._splits["validation"].rows))
    done = ask("evaluate", tmp_path / "out", path, "--output", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"] == pytest.approx(task.metrics.compute(state), rel=1e-5)
    opened = ask_model(find_model(tmp_path / "out", llama, measured=True), path, columns={}, labelled=True, skip=False)
    assert {len(samples) for samples, _, _ in opened.outputs(32)} == {1}, "logits of several may not fit"
    done = ask("predict", tmp_path / "out", path)
    assert done.exit_code == 2
    assert "its answers are texts" in done.stderr
    assert "unfreeze evaluate measures its loss" in done.stderr


def test_a_finished_prompt_is_measured_on_as_much_of_a_sample_as_it_leaves_room_for(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path / "m", "gpt2")
    path = lines(tmp_path / "t.jsonl", *[said(USER, ("assistant", "the war " * 40))] * 4)
    adapter = {"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 8}}
    job = make_job(folder, path, task=TASK, adapter=adapter)
    task = open_task(job)
    assert task.lengths("train").tolist() == [56] * 3
    task.export(task.build_model().module, tmp_path / "out", "Adapter")
    seal(tmp_path / "out", fingerprint="f", kind="Adapter", found=described(job, task))
    finished = find_model(tmp_path / "out", None, measured=True)
    opened = ask_model(finished, path, columns={}, labelled=True, skip=False)
    assert opened.task.lengths("test").tolist() == [56] * 4
    done = ask("evaluate", tmp_path / "out", path)
    assert done.exit_code == 0, done.output


def test_what_a_model_answers_by_itself_is_measured_where_it_is_asked_for(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(llama), AutoModelForCausalLM.from_pretrained(llama).eval()
    asked = [USER, ASSISTANT, ("user", "what")]
    ids = tokenizer.apply_chat_template(
        said(*asked)["messages"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=3, do_sample=False)[0, ids["input_ids"].shape[1] :])
    rows = [said(*asked, ("assistant", answer)) for answer in (text, "the city", "war", "a man")]
    path = lines(tmp_path / "t.jsonl", *rows)
    other = lines(tmp_path / "c.jsonl", *[{"prompt": "how far", "completion": " the city"}] * 4)
    texts = lines(tmp_path / "x.jsonl", *[{"text": "how far"}] * 4)
    for data, options, exact in (
        (path, {}, 0.25),
        (other, {"annotation": "Completions"}, 0),
        (texts, {"annotation": "Text"}, None),
    ):
        job = make_job(llama, data, task=of(**options))
        task = open_task(job)
        out = tmp_path / f"out-{data.stem}"
        task.export(task.build_model().module, out, "Model")
        seal(out, fingerprint="f", kind="Model", found=described(job, task))
        done = ask("evaluate", out, data, "--generate", 3, "--output", "json")
        if exact is None:
            assert "--generate 3: models of CausalLM make no texts of what is asked here" in done.stderr
        else:
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["metrics"]["exactMatch"] == exact


def test_a_job_that_is_drafted_cuts_no_answer_away(llama: Path, table: Path, tmp_path: Path) -> None:
    done = ask("init", table, "--model", llama, "--output", tmp_path / "job.yaml")
    assert done.exit_code == 0, done.output
    spec = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]
    assert spec["task"] == {"type": "CausalLM", "causalLm": {"annotation": "Messages"}}
    assert spec["strategy"]["type"] == "FullFineTuning"


def test_what_it_needs_is_estimated_and_its_data_are_surveyed(llama: Path, table: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    spec = {
        "model": {"source": f"file://{llama}"},
        "task": of(packing=True),
        "data": {"train": {"source": f"file://{table}"}},
        "strategy": {"type": "FullFineTuning"},
        "training": {"batchSize": 4},
        "output": {"destination": f"file://{tmp_path}/run"},
    }
    about = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}, "spec": spec}
    manifest.write_text(json.dumps(about))
    if dist.is_initialized():  # left by a test before
        dist.destroy_process_group()
    for command in ("estimate", "data", "phases"):
        done = ask(command, manifest)
        assert done.exit_code == 0, done.output
    done = ask("data", manifest, "--output", "json")
    longest = json.loads(done.stdout)["splits"]["train"]["lengths"]["characters"]["most"]
    assert longest < 60, "what people say, and no brackets of JSON"


def test_what_it_keeps_while_it_says_texts_is_estimated(llama: Path, table: Path) -> None:
    def traced(**training) -> PhaseBytes:
        job = make_job(llama, table, task=TASK, training={"batchSize": 1, **training})
        task = open_task(job)
        [phase] = Aside(lambda: trace(job, task, steps_alone=True), Traced).result().phases
        return phase

    alone, asked = traced(), traced(evaluate={"generate": {"maxTokens": 1000}})
    assert alone.saying == 0
    layers, places = 2, 64  # no more than the model has positions, its prompt among them
    keys_and_values = 2 * layers * places * 8 * 4
    assert keys_and_values < asked.saying - asked.weights - asked.optimizer < 40 * keys_and_values
    assert asked.peak == max(asked.step, asked.saying)


def test_an_adapter_makes_no_logits_of_what_was_said_before(llama: Path, table: Path) -> None:
    job = make_job(llama, table, task=TASK, adapter={"type": "LoRA"})
    module = open_task(job).build_model().module
    seen = []
    module.get_base_model().lm_head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    hold_said(
        SimpleNamespace(module=module, autocast=nullcontext), {"input_ids": torch.zeros(1, 32, dtype=torch.int64)}
    )
    assert seen == [1]


# Several samples in a row

PACKED_TASK = of(packing=True)


def gradients_of(module) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    return found


@pytest.mark.parametrize(
    ("family", "attention", "checkpointing"),
    [
        *((family, attention, False) for family in ("llama", "gpt2", "mistral") for attention in ("eager", "sdpa")),
        ("llama", "sdpa", True),
    ],
)
def test_a_packed_sample_has_the_logits_and_gradients_that_it_has_alone(
    table: Path, tmp_path: Path, family: str, attention: str, checkpointing: bool
) -> None:
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) if family == "gpt2" else {}
    still |= {"num_key_value_heads": 1, "sliding_window": 9, "intermediate_size": 32} if family == "mistral" else {}
    task = open_task(make_job(decoder_folder(tmp_path / "m", family, **still), table, task=PACKED_TASK))
    module = task.build_model().module
    module.set_attn_implementation(attention)
    if checkpointing:
        checkpoint_activations(module)
    [batch] = task.batches("train", [range(7)])
    owners = batch[PACKED]
    assert (len(batch["input_ids"]), len(batch[SAMPLES])) < (6, 8), "some share a row"
    outputs = task.outputs(module, batch)
    losses = task.loss(task.forward(module, batch), batch)
    assert len(losses) == 7
    for number in range(7):
        [alone] = task.batches("train", [[number]])
        kept = owners == number
        length = int(kept.sum())
        ids = batch["input_ids"][kept][None]
        assert torch.equal(ids[0], alone["input_ids"][alone[PACKED] == 0])
        own = module(input_ids=ids, labels=batch["labels"][kept][None])  # transformers' own loss, a mean
        torch.testing.assert_close(outputs[kept], own.logits[0], rtol=1e-5, atol=1e-5)
        units = int(task.units("train")[number])
        torch.testing.assert_close(losses[number], own.loss * units, rtol=1e-5, atol=1e-5)
        module.zero_grad()
        (own.loss * units).backward()
        expected = gradients_of(module)
        losses[number].backward(retain_graph=True)
        for name, gradient in gradients_of(module).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
        assert length == task.lengths("train")[number]


def test_what_transformers_reads_of_a_row_without_its_two_conditions_leaks(llama: Path, table: Path) -> None:
    task = open_task(make_job(llama, table, task=PACKED_TASK))
    module = task.build_model().module.eval()
    [batch] = task.batches("train", [range(7)])
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        apart = task.outputs(module, batch)
        for more in ({"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones_like(batch["input_ids"])}):
            assert (module(**inputs, **more).logits - apart).abs().max() > 1e-3, (
                "once it does not, less has to be minded"
            )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_packing_changes_nothing_but_rounding(llama: Path, table: Path, accumulate: int) -> None:
    found = []
    for options in (TASK, PACKED_TASK):
        task = open_task(make_job(llama, table, task=options))
        module = task.build_model().module
        sums = task.metrics.new_state()
        for rank in range(2):
            feed = Feed(task, seed=0, batch_size=5, accumulate=accumulate, rank=rank, world_size=2)
            for _, micros in feed.steps(2, 4):  # the last has three samples, so that a micro batch may have none
                for micro in micros:
                    loss = task.loss(task.forward(module, micro.tensors), micro.tensors).sum() * micro.scale
                    loss.backward()
            for batch in feed.evaluation("validation"):
                task.metrics.update(sums, task.forward(module, batch), batch)
        tokens = [task.tokens(batch) for batch in task.batches("train", [range(7), []])]
        found.append((gradients_of(module), task.metrics.compute(sums), tokens))
    (one, measured, tokens), (other, again, packed) = found
    assert tokens == packed
    assert tokens[1] == 0
    assert again == pytest.approx(measured, rel=1e-5)
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6)


def test_rows_are_as_few_as_first_fit_decreasing_makes_them() -> None:
    assert packed_rows([3, 8, 5, 1, 2, 4], 8) == [[1], [2, 0], [5, 4, 3]]
    assert packed_rows([2], 8) == [[0]]


def test_rows_are_as_long_as_makes_the_model_compute_least() -> None:
    assert packed([2], 512) == ([[0]], 8)
    assert packed([60, 50, 45, 40, 40, 30, 25, 24], 512)[1] > 60
    rows, width = packed([60, 50, 45, 40, 40, 30, 25, 24], 512)
    assert len(rows) * width <= 1.05 * 314, "hardly any padding"
    assert packed([60, 50, 45, 40], 64) == ([[0], [1], [2], [3]], 64), "no row is longer than the model takes"
    assert packed([600, 300, 280], 512) == ([[0], [1, 2]], 600), "but for a sample that is longer"
    _, width = packed([500] * 9, 4096)
    assert width < 2000, "attention over many would cost more than padding"


def test_a_model_that_carries_over_what_it_has_read_is_refused(table: Path, tmp_path: Path) -> None:
    sizes = {"state_size": 4, "expand": 2, "conv_kernel": 2, "time_step_rank": 2}
    folder = decoder_folder(tmp_path / "m", "mamba", **sizes)
    says = (
        r"MambaForCausalLM does not keep samples apart that stand in a row .*Set spec\.task\.causalLm\.packing to false"
    )
    with pytest.raises(JobError, match=says):
        open_task(make_job(folder, table, task=PACKED_TASK)).build_model()


def test_packed_samples_train_and_export(ranks, llama: Path, table: Path, tmp_path: Path) -> None:
    output = {"destination": f"file://{tmp_path}/run"}
    strategy = {"type": "PartialFineTuning", "partialFineTuning": {"lastBlocks": 1}}
    job = make_job(
        llama,
        table,
        task=of(packing=True, maxLength=40),
        strategy=strategy,
        distribution={"numNodes": 2},
        output=output,
    )
    assert run_gang(2, work, job, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()[-5000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["outcome"] == "Succeeded"
    [warning] = [one for one in report["warnings"] if "samples are cut" in one]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert warning in [one.get("message") for one in events if one["event"] == "warning"]
