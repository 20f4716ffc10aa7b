"""How near texts are to the right ones, beside what sacrebleu 2.6.0 and rouge-score 0.1.2 say of the same texts."""

import pytest

from unfreeze_trainer.objectives.texts import TextScores, rouge_l

PAIRS = [
    ("the cat sat on the mat", "a cat sat on a mat"),
    ("how far is the city", "how far is the city"),
    ("", "war"),
    ("Größe der Stadt", "die Größe der Städte"),
    ("a", "b c d e f g"),
    ("hm hm hm", "hm hm"),
]


def test_figures_are_those_of_the_field():
    scores = TextScores()
    for said, right in PAIRS:
        scores.add(said, right)
    found = scores.compute()
    assert found["exactMatch"] == 1 / 6
    assert found["chrF"] == pytest.approx(0.6543684356467777, rel=1e-12)


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [(*PAIRS[0], 4 / 6), (*PAIRS[1], 1), (*PAIRS[2], 0), (*PAIRS[4], 0), (*PAIRS[5], 0.8)],
)
def test_rouge_l_is_that_of_rouge_score(said, right, expected):
    assert rouge_l(said, right) == pytest.approx(expected)


def test_words_are_those_of_any_script():
    assert rouge_l("Größe der Stadt", "die Größe der Städte") == pytest.approx(4 / 7), "rouge-score knows a to z alone"
    assert rouge_l("река", "река") == 1
    assert rouge_l("का", "की") == 0, "words that differ in a vowel, which is a mark and no letter"
    assert rouge_l("हिन्दी की किताब", "हिन्दी का किताब") == pytest.approx(2 / 3)
    assert rouge_l("a_b", "a b") == 1, "as rouge-score has it"
    assert rouge_l("\u2764\ufe0f", "\u2600\ufe0f") == 0, "emoji end in a mark that chooses their look"
    assert rouge_l("war \u2764\ufe0f", "war") == 1


def test_blanks_around_a_text_do_not_count_and_nothing_measures_nothing():
    scores = TextScores()
    assert scores.compute() == {}
    scores.add(" war\n", "war")
    assert scores.compute() == {"exactMatch": 1, "rougeL": 1, "chrF": 1}


def test_texts_without_a_word_are_as_alike_as_they_are():
    scores = TextScores()
    scores.add("", "war")
    assert scores.compute() == {"exactMatch": 0, "rougeL": 0, "chrF": 0}
