"""Prompts before a text: a head that can no longer tell text from padding is refused before anything is trained."""

import pytest
import torch

from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.tasks import open_task


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Folder of a tiny Llama with a tokenizer that pads on the right."""
    from transformers import LlamaConfig, LlamaModel

    folder = bert_folder(tmp_path_factory.mktemp("llama"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    LlamaModel(LlamaConfig(vocab_size=64, max_position_embeddings=64, pad_token_id=0, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("adapter", "pooling", "refused"),
    [
        ("PromptTuning", "Auto", True),
        ("PTuning", "Auto", True),
        ("PrefixTuning", "Auto", False),
        ("PromptTuning", "LastToken", False),
    ],
)
def test_a_decoders_own_head_beside_a_prompt_reads_padding(decoder, tmp_path, adapter, pooling, refused):
    task = {"type": "TextClassification", "textClassification": {"pooling": pooling}}
    member = adapter[0].lower() + adapter[1:]
    options = {"numVirtualTokens": 4}
    chosen = {"type": adapter, member: options}
    job = make_job(decoder, write_csv(tmp_path / "t.csv"), task=task, adapter=chosen)
    opened = open_task(job)
    if not refused:
        assert opened.build_model()
        return
    with pytest.raises(JobError, match=r"reads padding.*textClassification\.pooling to LastToken") as error:
        opened.build_model()
    assert error.value.reason == "InvalidAdapter"


def test_an_encoder_does_not(tmp_path):
    job = make_job(
        bert_folder(tmp_path / "bert"),
        write_csv(tmp_path / "t.csv"),
        adapter={"type": "PromptTuning", "promptTuning": {"numVirtualTokens": 4}},
    )
    assert open_task(job).build_model()
