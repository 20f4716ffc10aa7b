"""The programme for accelerators itself, on a machine without one."""

import pytest
import torch

from bench import accelerator

pytestmark = pytest.mark.slow


def test_no_table_is_printed_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["accelerator"])
    with pytest.raises(SystemExit, match="no CUDA GPU is here"):
        accelerator.main()
    assert not capsys.readouterr().out


def test_operations_of_a_token_are_those_of_the_matrices_and_of_attention():
    shape = accelerator.Shape("by hand", 8, 2, 2, 1, 16, 100, tokens=4, batch=1)
    # Queries, output, keys and values of half the width, three of the MLP.
    layer = 8 * 8 + 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16
    assert shape.matrices == 2 * layer
    assert shape.flops(full=True) == 3 * (2 * 2 * layer + 2 * 2 * 4 * 8)
    assert shape.flops(full=False) == 2 / 3 * shape.flops(full=True)


def test_models_are_as_large_as_their_names_say():
    assert accelerator.LLAMA_1B.matrices == pytest.approx(1e9, rel=0.05)
    assert accelerator.LLAMA_8B.matrices == pytest.approx(7e9, rel=0.05)


@pytest.mark.parametrize(
    ("card", "peak"), [("NVIDIA H200", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA GeForce RTX 4090", 165)]
)
def test_a_card_is_known_by_a_part_of_its_name(card, peak):
    assert next(value for name, value in accelerator.PEAK.items() if name in card) == peak
