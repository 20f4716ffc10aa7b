"""Covering arrays: every pair that is allowed stands in a row, every other one is refused with the rule's words."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.covering import cover, pairs_of

FACTORS = {"strategy": ["all", "head", "part"], "adapter": ["none", "lora", "prompt"], "engine": ["ddp", "fsdp"]}


def refusal(row):
    if row.get("strategy") == "head" and row.get("adapter", "none") != "none":
        return "the head alone trains"
    return ""


def every_pair(factors):
    for one, other in itertools.combinations(factors, 2):
        for values in itertools.product(factors[one], factors[other]):
            yield (one, values[0]), (other, values[1])


def test_what_the_rules_refuse_is_told_and_all_else_stands_in_a_row():
    found = cover(FACTORS, refusal)
    assert found.refused == {
        (("strategy", "head"), ("adapter", "lora")): "the head alone trains",
        (("strategy", "head"), ("adapter", "prompt")): "the head alone trains",
    }
    met = {pair for row in found.rows for pair in pairs_of(row, FACTORS)}
    assert met == set(every_pair(FACTORS)) - found.refused.keys()
    assert len(found.rows) == 8, "fewer are impossible: six with another strategy, and the head alone on each engine"
    assert cover(FACTORS, refusal) == found


def test_a_rule_about_three_factors_is_kept_and_costs_no_pair_that_another_row_can_have():
    def three(row):
        return "not all three" if [row.get(name) for name in FACTORS] == ["all", "lora", "fsdp"] else ""

    found = cover(FACTORS, three)
    assert not found.refused
    assert not any(three(row) for row in found.rows)
    assert {pair for row in found.rows for pair in pairs_of(row, FACTORS)} == set(every_pair(FACTORS))


def test_a_pair_that_fits_into_no_whole_row_is_refused_in_the_words_of_the_first_that_was_tried():
    def strict(row):
        return "prompts need more" if len(row) == len(FACTORS) and row["adapter"] == "prompt" else ""

    found = cover(FACTORS, strict)
    assert set(found.refused) == {pair for pair in every_pair(FACTORS) if ("adapter", "prompt") in pair}
    assert set(found.refused.values()) == {"prompts need more"}

    def torn(row):  # a strategy for which every engine is refused
        return "no engine trains a part" if row.get("strategy") == "part" and "engine" in row else ""

    found = cover(FACTORS, torn)
    assert found.refused[("strategy", "part"), ("adapter", "none")] == "no value of another factor is allowed with both"
    assert found.refused[("strategy", "part"), ("engine", "ddp")] == "no engine trains a part"


@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    forbidden=st.sets(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=6
    ),
)
def test_any_factors(sizes, forbidden):
    factors = {f"f{n}": [f"f{n}v{v}" for v in range(size)] for n, size in enumerate(sizes)}
    never = [{(f"f{a}", f"f{a}v{v}"), (f"f{b}", f"f{b}v{w}")} for a, v, b, w in forbidden if a != b]

    def judge(row):
        return "no" if any(pair <= set(row.items()) for pair in never) else ""

    found = cover(factors, judge)
    whole = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    possible = {pair for row in whole if not judge(row) for pair in pairs_of(row, factors)}
    met = {pair for row in found.rows for pair in pairs_of(row, factors)}
    assert met == possible
    assert found.refused.keys() == set(every_pair(factors)) - possible
    assert all(found.refused.values())
    assert all(row.keys() == factors.keys() and not judge(row) for row in found.rows)
    assert len(found.rows) <= len(possible)
