"""The language of messages: what it says, what it refuses and where, and what a lead's own values cannot do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messaging.content.problems import TemplateProblem, ValueMissing
from messaging.content.wording import MAX_SOURCE, Wording, wording

ANA = {
    "name": "Ana Lim",
    "first_name": "Ana",
    "niches": ["gym", "yoga"],
    "city": "Ipoh",
    "custom": {"Car model": "Axia"},
}


def said(source: str, *, seed: int = 0, hold: bool = False, **variables: Any) -> str:
    return Wording(source).render(variables, seed=seed, hold=hold)


def outcomes(source: str, **variables: Any) -> set[str]:
    return {said(source, seed=seed, **variables) for seed in range(60)}


@pytest.mark.parametrize(
    ("source", "with_values", "without"),
    [
        ("Hello {{ name or 'friend' }}", "Hello Ana Lim", "Hello friend"),
        ("Hello {{ name|default('friend') }}", "Hello Ana Lim", "Hello friend"),
        ("Hello {{ name|default:'friend' }}!", "Hello Ana Lim!", "Hello friend!"),
        ("{% if city %}In {{ city|upper }}{% else %}Hi{% endif %}", "In IPOH", "Hi"),
        ("{{ custom['Car model'] or 'car' }}", "Axia", "car"),
        ("{{ niches }} / {{ niches|join(' & ') }}", "gym, yoga / gym & yoga", " / "),
        ("{% for one in niches %}- {{ one }}\n{% endfor %}", "- gym\n- yoga\n", ""),
        ("a\n\n  b\n{{ city }}\n", "a\n\n  b\nIpoh\n", "a\n\n  b\n\n"),
        ("{price} :{ 50% \\{a\\|b\\} {% raw %}{a|b}{{ x }}{% endraw %}", *["{price} :{ 50% {a|b} {a|b}{{ x }}"] * 2),
        ("{{ city.x.y }}{{ nobody.at.all }}", "", ""),
        ("{{{ name }}}", "{Ana Lim}", "{}"),
    ],
)
def test_what_a_text_says(source: str, with_values: str, without: str) -> None:
    assert said(source, **ANA) == with_values
    assert said(source) == without


def test_empty_values_are_missing_values_and_zero_is_none() -> None:
    assert said("{{ name|default('x') }}{{ n|default('y') }}{{ z or 'z' }}", name="", n=0, z=None) == "x0z"


# -- Choices -----------------------------------------------------------------------------------------------------------


def test_choices_nest_hold_variables_and_stand_in_fallbacks() -> None:
    assert outcomes("{Hi|Hello {dear|good} one}") == {"Hi", "Hello dear one", "Hello good one"}
    assert outcomes("{Hi {{ name }}|Hello}", name="Ana") == {"Hi Ana", "Hello"}
    assert outcomes("{{{ name }}|you}", name="Ana") == {"Ana", "you"}
    assert outcomes("{{ name or '{friend|mate}' }}") == {"friend", "mate"}
    assert outcomes("{a||}") == {"a", ""}
    assert outcomes("{{Hi|Hello} you|Hey}") == {"Hi you", "Hello you", "Hey"}
    assert outcomes("{{{a|b}|c}|{{ name }}}", name="n") == {"a", "b", "c", "n"}


def test_the_same_message_says_the_same_at_every_try() -> None:
    source = "{a|b|c|d|e|f} {1|2|3|4|5|6}"
    assert len(outcomes(source)) > 10
    assert all(len({said(source, seed=seed) for _ in range(5)}) == 1 for seed in range(20))


def test_a_lead_has_no_say_in_what_is_a_choice_or_a_template() -> None:
    name = "{a|b} {{ phone }} {% if x %} \ufdd0x\ufdd1y\ufdd2"
    assert outcomes("{Hi {{ name }}|Hi {{ name }}}", name=name, phone="secret") == {
        "Hi {a|b} {{ phone }} {% if x %} xy"
    }
    assert said("{{ niches|first }}{ab|ab}", niches=["{a|b}"]) == "{a|b}ab"


def test_an_author_may_say_that_a_field_holds_choices() -> None:
    assert outcomes("{{ offer|spin }}", offer="{10|20} % {{ name }}") == {"10 % {{ name }}", "20 % {{ name }}"}
    assert said("{{ offer|spin }}", offer="a | b {") == "a | b {"


_signs = st.characters(blacklist_characters="{}|\\%#'\"\r\ufdd0\ufdd1\ufdd2\ufdd3", blacklist_categories=("Cs",))
_words = st.text(_signs, max_size=12)


@given(st.recursive(_words, lambda inner: st.lists(inner, min_size=2, max_size=3), max_leaves=8), st.integers(0, 9))
def test_every_outcome_is_one_of_the_options(tree: Any, seed: int) -> None:
    def written(node: Any) -> str:
        return node if isinstance(node, str) else "{" + "|".join(map(written, node)) + "}"

    def possible(node: Any) -> set[str]:
        return {node} if isinstance(node, str) else {text for option in node for text in possible(option)}

    assert said(written(tree), seed=seed) in possible(tree)


@given(st.text(max_size=60), st.integers(0, 5), st.booleans())
@example("{a|{{ name }}|{% if x %}", 0, False)
@example("{{ name or '{a|b' }}|}", 0, True)
def test_any_text_is_said_or_refused_in_words(source: str, seed: int, hold: bool) -> None:
    text, line = "", 1
    try:
        text = Wording(source).render(ANA, seed=seed, hold=hold)
    except TemplateProblem as problem:
        line = problem.line or 1
    except ValueMissing:
        assert hold
    assert 1 <= line <= source.count("\n") + 1
    assert not set(text) & set("\ufdd0\ufdd1\ufdd2\ufdd3")


@given(st.text(max_size=40))
def test_any_value_comes_out_as_it_is(value: str) -> None:
    kept = "".join(sign for sign in value if sign not in "\ufdd0\ufdd1\ufdd2\ufdd3")
    assert said("{{ name }}", name=value) == value
    assert said("{x {{ name }}|x {{ name }}}", name=value) == f"x {kept}"


# -- Held --------------------------------------------------------------------------------------------------------------


def test_a_missing_value_holds_the_message_only_where_nothing_stands_in_for_it() -> None:
    for source in (
        "{{ city }}",
        "{{ city|upper }}",
        "{{ custom['Car model'] }}",
        "{{ niches|join }}",
        "{{ 'in ' ~ city }}",
    ):
        with pytest.raises(ValueMissing):
            said(source, hold=True, custom={"x": 1}, city="")
        assert said(source, hold=True, **ANA)
    for source in ("{{ city or 'x' }}", "{{ city|default('x') }}", "{% if city %}{{ city }}{% else %}x{% endif %}"):
        assert said(source, hold=True) == "x"
    assert said("{{ 'a' if city }}{{ city or '' }}.", hold=True) == "."


# -- Refused, with the place -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "column", "words"),
    [
        ("Hi\nyou {{ name", 2, 5, "is not closed"),
        ("a {% if x %}\nb", 1, 3, "{% endif %}"),
        ("ok {{ name }}\n  {{ name nam }}", 2, 3, "nam"),
        ("one\n{a|b", 2, 1, "choice is not closed"),
        ("{{ name }} {{ name|friend }}", 1, 12, "There is no filter"),
        ("{{ name.upper() }}", 1, 1, "called"),
        ("x {{ name.__class__ }}", 1, 3, "begin with _"),
        ("{% include 'x' %}", 1, 1, "not part"),
        ("{# never", 1, 1, "is not closed"),
        ("{{ name }, hello", 1, 1, "“{{” is not closed"),
        ("a\n{{ name|upper }, hello {{ name }}", 2, 1, "“{{” is not closed"),
        ("{{ name|upper(1) }}", 1, 1, "upper"),
        ("\n\n{% raw %}", 3, 1, "endraw"),
        ("a\ufdd0", 1, 2, "U+FDD0"),
    ],
)
def test_a_mistake_is_refused_with_its_place(source: str, line: int, column: int, words: str) -> None:
    with pytest.raises(TemplateProblem) as refused:
        wording(source)
    assert (refused.value.line, refused.value.column) == (line, column)
    assert words in str(refused.value)
    assert f"Line {line}, column {column}: " in str(refused.value)


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'x' * 999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x'|center(999999999) }}",
        "{{ 'x'|indent(999999999) }}",
        "{{ 'x'|format(1) }}",
        "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        "{% for a in 'xxxx' %}{% for b in 'xxxx' %}y{% endfor %}{% endfor %}",
        "{% for a in niches %}{% for b in niches %}y{% endfor %}{% endfor %}",
        "{% for a in niches recursive %}{{ loop(niches) }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(999999999) }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "not " * 3000 + "1 }}",
        "{% if a %}" * 200 + "{% endif %}" * 200,
        "{{ " + "9" * 6000 + " }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ name|attr('__class__') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% import 'os' as os %}",
        "{" * 4000,
        "{a|" * 4000,
    ],
)
def test_bombs_are_refused_when_they_are_saved(bomb: str) -> None:
    if bomb == "{" * 4000:
        bomb += "|"
    with pytest.raises(TemplateProblem):
        wording(bomb)


def test_what_grows_at_render_time_is_stopped() -> None:
    chain = "{{ name" + "|replace('a', 'aaaaaaaaaa')" * 12 + " }}"
    with pytest.raises(TemplateProblem, match="too long"):
        said(chain, name="a")
    with pytest.raises(TemplateProblem, match="longer than"):
        said("{% for one in niches %}" + "x" * 1000 + "{% endfor %}", niches=["y"] * 1000)
    with pytest.raises(TemplateProblem):
        said("{{ name|round(999999999) }}", name="1.5")
    assert MAX_SOURCE < 20_000
