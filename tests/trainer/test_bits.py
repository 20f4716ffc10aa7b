"""The guard's sum of bits: it sees every kind of change that optimizers make, and parts add up to the whole."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unfreeze_trainer.engines.bits import _odd, bit_sum
from unfreeze_trainer.engines.zero import shares_of_each

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int8, torch.uint8]
INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
ROW = 1 << 16
PATTERNS = {
    "opposite": (1, -1),
    "opposite twice": (1, -1, -1, 1),
    "second difference": (1, -2, 1),
    "third difference": (1, -3, 3, -1),
    "alike": (1, 1),
    "alone": (1,),
}

dtypes = st.sampled_from(TYPES)
# Within a row of weights, at its border, and over several.
sizes = st.integers(1, 70) | st.integers(1, 70) | st.sampled_from([ROW - 1, ROW, ROW + 1, 2 * ROW + 17])
few = settings(max_examples=40)


@pytest.fixture(autouse=True, scope="module")
def own_thread() -> Iterator[None]:
    """Tensors this small are not worth a second thread, which a busy machine waits for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(size: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return a tensor of random bits."""
    size *= dtype.itemsize
    numbers = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return torch.from_numpy(numbers).view(dtype)


def bits_of(tensor: Tensor) -> Tensor:
    return tensor.view(INTEGER[tensor.element_size()])


def modulo(sums: list[int]) -> int:
    return (sum(sums) + 2**63) % 2**64 - 2**63


@few
@given(sizes, dtypes, st.integers(0, 99), st.lists(st.floats(0, 1), max_size=4), st.integers(0, 2**23 - 1))
def test_parts_add_up(size: int, dtype: torch.dtype, seed: int, cuts: list[float], salt: int) -> None:
    whole = drawn(size, dtype, seed)
    edges = [0, *sorted(round(cut * size) for cut in cuts), size]
    parts = [bit_sum(whole[low:high], salt=salt, first=low) for low, high in itertools.pairwise(edges)]
    assert modulo([int(part) for part in parts]) == int(bit_sum(whole, salt=salt))


@few
@given(st.integers(1, 3000), st.integers(1, 40), st.integers(1, 9))
def test_the_shares_of_zero_and_fsdp_add_up(rows: int, columns: int, world_size: int) -> None:
    whole = drawn(rows * columns, torch.float32, rows).view(rows, columns)
    height = -(-rows // world_size)
    fsdp = [
        bit_sum(whole[rank * height :][:height], salt=7, first=rank * height * columns) for rank in range(world_size)
    ]
    zero = []
    for rank in range(world_size):
        share = shares_of_each({"weight": whole.numel()}, rank, world_size)["weight"]
        zero.append(bit_sum(share.of(whole)[: max(0, whole.numel() - share.first)], salt=7, first=share.first))
    expected = int(bit_sum(whole, salt=7))
    assert modulo([int(part) for part in fsdp]) == expected
    assert modulo([int(part) for part in zero]) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
@few
@given(dtypes, st.integers(0, 99), st.integers(0, 62), st.sampled_from([1, 2, 3, 100, ROW]))
def test_a_pattern_of_changes_is_seen(pattern: str, dtype: torch.dtype, first: int, power: int, stride: int) -> None:
    factors = PATTERNS[pattern]
    before = drawn(first + len(factors) * stride, dtype, first)
    after = before.clone()
    width = 8 * dtype.itemsize - 1
    change = torch.tensor(factors, dtype=torch.int64) << power % width
    bits_of(after)[first : first + len(factors) * stride : stride] += change.to(INTEGER[dtype.itemsize])
    assert bit_sum(after) != bit_sum(before)


@settings(max_examples=10)
@given(dtypes, st.integers(0, 99), st.integers(0, 2**23 - 1))
def test_corners_of_a_rectangle_are_seen(dtype: torch.dtype, seed: int, salt: int) -> None:
    """Weights that were a sum of one by the row and one by the place in it would miss this."""
    before = drawn(2 * ROW, dtype, seed)
    after = before.clone()
    bits_of(after)[[5, 99, ROW + 5, ROW + 99]] += torch.tensor([1, -1, -1, 1], dtype=INTEGER[dtype.itemsize])
    assert bit_sum(after, salt=salt) != bit_sum(before, salt=salt)


@few
@given(sizes, dtypes, st.integers(0, 99), st.sampled_from(["reversed", "rolled", "sorted", "swapped"]), st.data())
def test_a_permutation_is_seen(size: int, dtype: torch.dtype, seed: int, how: str, data: st.DataObject) -> None:
    before = bits_of(drawn(size, dtype, seed))
    after = before.clone()
    if how == "swapped":
        one, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
        after[[one, other]] = before[[other, one]]
    else:
        after = {"reversed": before.flip(0), "rolled": before.roll(1), "sorted": before.sort().values}[how]
    assume(not torch.equal(after, before))
    assert bit_sum(after) != bit_sum(before)


@few
@given(sizes, st.sampled_from(TYPES[:4]), st.integers(0, 99), st.data())
def test_two_signs_are_seen(size: int, dtype: torch.dtype, seed: int, data: st.DataObject) -> None:
    assume(size > 1)
    before = drawn(size, dtype, seed)
    one, other = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    after = before.clone()
    bits_of(after)[[one, other]] ^= torch.iinfo(INTEGER[dtype.itemsize]).min
    assert bit_sum(after) != bit_sum(before)


def test_weights_are_splitmix64s() -> None:
    states = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64)  # a generator's from seed 0
    assert [int(weight) % 2**64 for weight in _odd(states)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4 | 1]


def test_equal_tensors_of_one_model_have_sums_of_their_own() -> None:
    assert len({int(bit_sum(torch.ones(5), salt=number)) for number in range(100)}) == 100


def test_a_tensor_of_any_shape_and_layout_has_one_sum() -> None:
    whole = torch.randn(4, 6, 5)
    assert bit_sum(whole) == bit_sum(whole.flatten())
    assert bit_sum(whole.transpose(0, 1)) == bit_sum(whole.transpose(0, 1).contiguous())
    assert bit_sum(torch.zeros(())) == 0
    assert bit_sum(torch.zeros(0, 3), first=2) == 0


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_biases_of_two_classes_are_seen_to_move(rate: float) -> None:
    """Their gradients are opposite, and Adam's first step is the rate, whatever their size."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        before = torch.rand(2, generator=generator) - 0.5
        after = before + torch.tensor([rate, -rate])
        assert bit_sum(after) != bit_sum(before)
