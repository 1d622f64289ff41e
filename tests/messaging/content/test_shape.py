"""The stored JSON: what it may hold, every problem at its field, and what becomes of it for one lead."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.content.greeting import LANGUAGES
from messaging.content.prepare import Prepared, prepare
from messaging.content.problems import ContentRefused, TemplateProblem, ValueMissing
from messaging.content.shape import parse

OWN = {"morning": "Morning", "afternoon": "Hello", "evening": "Evening"}
APPROVED = {"name": "order_sent", "language": "en_US", "parameters": ["{{ first_name }}", "{{ city or 'you' }}"]}


def prepared(raw: dict[str, Any], *, at: time = time(9), **variables: Any) -> Prepared:
    return prepare(raw, variables=variables, seed=1, local_time=lambda: at)


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ([], {""}),
        ({"type": "letter"}, {"type"}),
        ({"type": "text"}, {"text"}),
        ({"type": "text", "text": " \n"}, {"text"}),
        ({"type": "text", "text": 7}, {"text"}),
        ({"type": "text", "text": "x" * 20_000}, {"text"}),
        ({"type": "text", "text": "a", "colour": 1}, {"colour"}),
        ({"type": "text", "text": "a", "media": 3}, {"media"}),
        ({"type": "image", "text": "a"}, {"media"}),
        ({"type": "image", "media": "3"}, {"media"}),
        ({"type": "image", "media": True}, {"media"}),
        ({"type": "audio", "media": 3, "text": "a"}, {"text"}),
        ({"type": "audio", "media": 3, "greeting": "en"}, {"greeting"}),
        ({"type": "template"}, {"template"}),
        (
            {"type": "template", "template": {"name": "Not So", "language": "english"}},
            {"template.name", "template.language"},
        ),
        ({"type": "template", "template": {**APPROVED, "parameters": ["ok", "{{ x"]}}, {"template.parameters.1"}),
        ({"type": "template", "template": {**APPROVED, "parameters": "x"}}, {"template.parameters"}),
        ({"type": "template", "template": APPROVED, "text": "a"}, {"text"}),
        ({"type": "text", "text": "a", "template": APPROVED}, {"template"}),
        ({"type": "text", "text": "a", "greeting": "klingon"}, {"greeting"}),
        ({"type": "text", "text": "a", "greeting": {"morning": "x"}}, {"greeting"}),
        ({"type": "text", "text": "a", "on_missing": "guess"}, {"on_missing"}),
    ],
)
def test_every_problem_names_its_field(raw: Any, fields: set[str]) -> None:
    with pytest.raises(ContentRefused) as refused:
        parse(raw)
    assert {problem.field for problem in refused.value.problems} == fields


def test_a_mistake_in_a_text_keeps_its_place() -> None:
    with pytest.raises(ContentRefused) as refused:
        parse({"type": "text", "text": "Hi\n {{ x"})
    (problem,) = refused.value.problems
    assert (problem.field, problem.line, problem.column) == ("text", 2, 2)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["type", "text", "media", "template", "greeting", "on_missing"]), _anything))
def test_anything_is_parsed_or_refused(raw: dict[str, Any]) -> None:
    try:
        content = parse(raw)
    except ContentRefused:
        return
    assert parse(content.to_json()) == content


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "text", "text": "Hello"},
        {"type": "image", "media": 3, "text": "caption", "greeting": "ms", "on_missing": "hold"},
        {"type": "document", "media": 3},
        {"type": "text", "text": "Hello", "greeting": OWN},
        {"type": "template", "template": APPROVED},
    ],
)
def test_what_is_stored_says_nothing_superfluous(raw: dict[str, Any]) -> None:
    assert parse(raw).to_json() == raw


# -- For one lead ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "word"), [(time(3, 59), "evening"), (time(4), "morning"), (time(12), "afternoon"), (time(18), "evening")]
)
def test_a_greeting_goes_by_the_leads_clock(at: time, word: str) -> None:
    assert (
        prepared({"type": "text", "text": "News", "greeting": "ms"}, at=at).text
        == f"{getattr(LANGUAGES['ms'], word)}!\n\nNews"
    )
    placed = {"type": "text", "text": "{{ greeting }} {{ name or 'you' }}", "greeting": OWN}
    assert prepared(placed, at=at, name="Ana").text == f"{OWN[word]} Ana"


def test_without_a_greeting_its_name_is_a_field_like_any_other() -> None:
    assert prepared({"type": "text", "text": "{{ greeting }}"}, greeting="Yo").text == "Yo"


def test_a_template_is_filled_in_its_order() -> None:
    raw = {"type": "template", "template": APPROVED}
    found = prepared(raw, first_name="Ana\n Lim")
    assert found.template is not None
    assert (found.template.name, found.template.language) == ("order_sent", "en_US")
    assert found.template.parameters == ("Ana Lim", "you")
    assert found.text == "order_sent (en_US): Ana Lim | you"
    with pytest.raises(TemplateProblem, match="Parameter 1"):
        prepared(raw)
    with pytest.raises(ValueMissing):
        prepared({**raw, "on_missing": "hold"})


def test_a_picture_needs_no_caption_and_a_text_has_to_say_something() -> None:
    assert prepared({"type": "image", "media": 3}) == Prepared("image", "", media=3)
    assert prepared({"type": "image", "media": 3, "text": "{{ name }}"}).text == ""
    with pytest.raises(TemplateProblem, match="empty"):
        prepared({"type": "text", "text": "{{ name }}"})
    with pytest.raises(TemplateProblem, match="characters long"):
        prepared({"type": "text", "text": "{{ name }}"}, name="x" * 4097)
    with pytest.raises(TemplateProblem):
        prepared({"text": 3})
