"""What people write back, in every language we know words of."""

from __future__ import annotations

import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leads.keywords import WORDS, Kind, languages, meaning_of, normal

CORPUS = tomllib.loads(Path(__file__).with_name("keywords_corpus.toml").read_text(encoding="utf-8"))
TABLES = tomllib.loads(WORDS.read_text(encoding="utf-8"))
REFUSALS = [(language, word) for language, t in TABLES.items() for word in (*t["stop"], *t["whole"])]

NOISE = st.text(alphabet=' \t\n.,;:!?¡¿…-–_()[]«»“”"*~/\\|🛑😡👍\u200b\u200f\ufe0f', max_size=6)
CASES = st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase])


def test_the_corpus_speaks_every_language():
    assert CORPUS.keys() == languages()
    assert len(languages()) >= 20
    assert all({"opt_out", "review", "nothing"} <= messages.keys() for messages in CORPUS.values())


@pytest.mark.parametrize("language", sorted(CORPUS))
def test_the_corpus(language):
    wrong = [
        (text, kind, found)
        for kind, texts in CORPUS[language].items()
        for text in texts
        if (found := meaning_of(text)).kind != kind
    ]
    assert wrong == []


def test_every_word_means_what_its_table_says_and_no_word_means_two_things():
    for table in TABLES.values():
        assert {meaning_of(word).kind for word in (*table["stop"], *table["whole"])} == {Kind.OPT_OUT}
        assert {meaning_of(word).kind for word in table["start"]} == {Kind.OPT_IN}
        assert {meaning_of(word).kind for word in table["keep"]} == {Kind.NOTHING}


@given(st.sampled_from(REFUSALS), NOISE, NOISE, CASES)
def test_whatever_stands_around_a_refusal_it_is_one(refusal, before, after, case):
    _, word = refusal
    # İ and ı: Python folds Turkish capitals as English ones, phones write them right
    written = word.upper().replace("I", "İ") if case is str.upper and "i" in word and refusal[0] == "tr" else case(word)
    assert meaning_of(before + written + after).kind is Kind.OPT_OUT


@given(st.sampled_from(REFUSALS), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_however_its_letters_are_encoded(refusal, form):
    assert meaning_of(unicodedata.normalize(form, refusal[1])).kind is Kind.OPT_OUT


WHOLE = {normal(word, marks=marks).replace(" ", "") for _, word in REFUSALS for marks in (True, False)}
STARTS = {normal(word, marks=m).replace(" ", "") for t in TABLES.values() for word in t["start"] for m in (True, False)}


@given(
    st.sampled_from(REFUSALS),
    st.lists(st.text(alphabet=st.characters(categories=["L"]), min_size=1, max_size=8), max_size=4),
    st.lists(st.text(alphabet=st.characters(categories=["L"]), min_size=1, max_size=8), max_size=4),
)
def test_a_word_in_a_longer_message_never_opts_out_by_itself(refusal, before, after):
    text = " ".join([*before, refusal[1], *after])
    whole = {normal(text, marks=marks).replace(" ", "") for marks in (True, False)}
    if whole & (WHOLE | STARTS):  # the words around it made another whole refusal, as “no” before “más”
        return
    assert meaning_of(text).kind in {Kind.REVIEW, Kind.NOTHING}


@given(
    st.sampled_from([w for language, t in TABLES.items() for w in t["stop"]]), st.sampled_from(["xyz", "QQ 7", "好"])
)
def test_and_is_never_overlooked(word, more):
    assert meaning_of(f"{more} {word} {more}").kind is Kind.REVIEW


@given(st.text(max_size=3000))
def test_any_text_has_a_meaning(text):
    assert meaning_of(text).kind in set(Kind)
