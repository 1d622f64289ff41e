"""The language that messages are written in: Jinja2, of which little is left. Pure: no Django, no clock.

Variables with fallbacks (``{{ name or 'friend' }}``, ``{{ name|default('friend') }}``), conditions, one loop over a
lead's list, a few filters, and choices (:mod:`messaging.content.spintax`). A lead's values are data: they are never
read as templates or as choices, unless the author says so (``{{ offer|spin }}``).

What is not in :data:`_ALLOWED` is refused when it is saved, with its place. So there is nothing to call, nothing to
multiply, no variable to double and no loop within a loop: the work is bounded by the length of the text, and Jinja's
sandbox is only the second wall.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from random import Random
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from messaging.content.filters import FILTERS, MAX_CHARACTERS
from messaging.content.problems import TemplateProblem, ValueMissing
from messaging.content.spintax import Block, Marked, mark, place_of, spin, without_marks

MAX_TEXT = 4096
"""Longest rendered text, in characters: what WhatsApp's text messages carry."""

MAX_SOURCE = 4 * MAX_TEXT
MAX_DEPTH = 40
"""How deep a template may nest, counted in the parser's nodes."""

_ALLOWED: frozenset[type[nodes.Node]] = frozenset({
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.If,
    nodes.For, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Concat, nodes.Add, nodes.Sub, nodes.Div, nodes.Neg, nodes.Pos,
    nodes.Keyword,
})  # fmt: skip
_REFUSED = {
    nodes.Call: "Nothing can be called in a message: use a filter, as {{ name|upper }}.",
    nodes.Mul: "“*” is not allowed in a message.",
    nodes.Pow: "“**” is not allowed in a message.",
    nodes.Mod: "“%” is not allowed in a message.",
    nodes.Assign: "A message sets no variables.",
    nodes.AssignBlock: "A message sets no variables.",
}
_TESTS = (
    *("defined", "undefined", "none", "string", "number", "boolean", "in"),
    *("eq", "ne", "lt", "gt", "le", "ge", "==", "!=", "<", ">", "<=", ">=", "equalto", "odd", "even"),
)


class _Absent(Undefined):
    """What the lead does not have: empty, whatever is asked of it."""

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: object) -> _Absent:  # type: ignore[override]  # it raises there
        return self


class _Needed(_Absent):
    """The same where the message is held for it: it may be asked about and replaced, but not printed."""

    def _missing(self, *_: Any) -> Any:
        # Without a name it is the other half of {{ a if b }}, which the author meant to be empty.
        if self._undefined_name is not None:
            raise ValueMissing(str(self._undefined_name))
        return ""

    __str__ = _missing

    def __iter__(self) -> Iterator[Any]:
        return iter(self._missing())

    def __len__(self) -> int:
        return len(self._missing())


class _Environment(ImmutableSandboxedEnvironment):
    """Values are data: their parts can be read, and they have no attributes."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            if isinstance(obj, Mapping | list | str):
                return obj[argument]
        except (LookupError, TypeError):
            pass
        return obj if isinstance(obj, Undefined) else self.undefined(obj=obj, name=argument)


def _printed(value: Any) -> Any:
    """How a value looks that is not a text."""
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, Mapping):
        raise TemplateError("a group of fields cannot be printed, only one of them")
    return "" if value is None else value


def _environment(undefined: type[Undefined]) -> _Environment:
    # Plain text, never HTML. Line breaks stay as they were written.
    made = _Environment(autoescape=False, keep_trailing_newline=True, undefined=undefined, finalize=_printed)
    made.globals.clear()
    made.filters = dict(FILTERS)
    made.tests = {name: TESTS[name] for name in _TESTS}
    return made


_lenient = _environment(_Absent)
_strict = _environment(_Needed)


class Wording:
    """A text that was found to be sound, ready to be rendered any number of times from any thread.

    ``names`` are the variables it reads; ``spins``: whether it holds choices.
    """

    def __init__(self, source: str) -> None:
        """Raises :class:`TemplateProblem`, with the place."""
        marked = mark(source)
        try:
            tree = _parsed(marked.source)
            code = _lenient.compile(tree, filename="<message>")
        except (TemplateSyntaxError, SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as problem:
            raise _located(source, marked, problem) from None
        self.names = frozenset(meta.find_undeclared_variables(tree))
        self.spins = marked.spins or any(one.name == "spin" for one in tree.find_all(nodes.Filter))
        self._lenient = Template.from_code(_lenient, code, {})
        self._strict = Template.from_code(_strict, code, {})

    def render(self, variables: Mapping[str, Any], *, seed: int = 0, hold: bool = False) -> str:
        """The text for one lead; the same ``seed`` decides the choices alike.

        Raises :class:`TemplateProblem` when it cannot be made, or :class:`ValueMissing` with ``hold``.
        """
        present = {name: value for name, value in variables.items() if value or value == 0}
        if self.spins:
            present = {name: _plain(value) for name, value in present.items()}
        template = self._strict if hold else self._lenient
        pieces, length = [], 0
        try:
            for piece in template.root_render_func(template.new_context(present)):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_CHARACTERS:
                    raise TemplateProblem(f"The text came out longer than {MAX_CHARACTERS:,} characters.")
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as problem:
            raise TemplateProblem(f"The text could not be made for this lead: {problem}") from None
        text = "".join(pieces)
        return spin(text, rng=Random(seed)) if self.spins else text  # noqa: S311 - a choice of words, not a secret


@lru_cache(maxsize=512)
def wording(source: str) -> Wording:
    """The compiled text, from this process's memory if it can. Raises :class:`TemplateProblem`."""
    return Wording(source)


def check_template(source: str) -> None:
    """Raises :class:`TemplateProblem` if ``source`` is empty or not sound."""
    if not source.strip():
        raise TemplateProblem("Write the text of the message.")
    wording(source)


def _plain(value: Any) -> Any:
    """A lead's value that has no say in what is a choice."""
    if isinstance(value, str):
        return without_marks(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, dict) else value


# -- What is allowed ---------------------------------------------------------------------------------------------------


def _parsed(source: str) -> nodes.Template:
    """The tree behind a marked source. Raises TemplateSyntaxError and whatever a parser stumbles over."""
    tree = _lenient.parse(source)
    _check(tree, depth=0, in_loop=False)
    return tree


def _check(node: nodes.Node, *, depth: int, in_loop: bool) -> None:
    if depth > MAX_DEPTH:
        raise TemplateSyntaxError("This is nested too deeply.", node.lineno)
    if type(node) not in _ALLOWED:
        what = _REFUSED.get(type(node), f"“{type(node).__name__.lower()}” is not part of the language of messages.")
        raise TemplateSyntaxError(what, node.lineno)
    match node:
        case nodes.For():
            if in_loop or node.recursive or not isinstance(node.iter, nodes.Name | nodes.Getattr | nodes.Getitem):
                raise TemplateSyntaxError(
                    "A loop goes over one of the lead's lists, and stands in no other.", node.lineno
                )
            in_loop = True
        case nodes.Filter():
            _check_filter(node)
        case nodes.Test() if node.name not in _TESTS:
            raise TemplateSyntaxError(f"There is no test “{node.name}”.", node.lineno)
        case nodes.Getattr() if node.attr.startswith("_"):
            raise TemplateSyntaxError(f"“{node.attr}” cannot be read: names do not begin with _.", node.lineno)
    for child in node.iter_child_nodes():
        _check(child, depth=depth + 1, in_loop=in_loop)


def _check_filter(node: nodes.Filter) -> None:
    known = FILTERS.get(node.name)
    if known is None:
        raise TemplateSyntaxError(
            f"There is no filter “{node.name}”. For a fallback write {{{{ name or 'friend' }}}}; "
            f"the filters are {', '.join(sorted(FILTERS))}.",
            node.lineno,
        )
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise TemplateSyntaxError("“*” is not allowed in a message.", node.lineno)
    try:
        inspect.signature(known).bind(None, *node.args, **{str(one.key): one.value for one in node.kwargs})
    except TypeError as problem:
        raise TemplateSyntaxError(f"Filter “{node.name}”: {problem}.", node.lineno) from None


# -- Where a problem is ------------------------------------------------------------------------------------------------

_EXPECTED = re.compile(r"expected token '[^']*', got '(.*)'")
_OPEN = re.compile(r".*innermost block that needs to be closed is '(\w+)'.*", re.DOTALL)


def _located(source: str, marked: Marked, problem: Exception) -> TemplateProblem:
    """The problem in words, at the block it is in: the parser itself knows no columns."""
    line = getattr(problem, "lineno", None) if isinstance(problem, TemplateSyntaxError) else None
    if isinstance(problem, TemplateSyntaxError):
        text = problem.message or "This cannot be understood."
        text = _OPEN.sub(r"“{% \1 %}” is not closed: write {% end\1 %} after it.", text)
        text = _EXPECTED.sub(r"“\1” does not belong here.", text)
    elif isinstance(problem, RecursionError | MemoryError | SyntaxError):
        text = "This is nested too deeply."
    else:
        text = "A number in it is too large."
    block = next((one for one in marked.blocks if one.kind == "expression" and _fails(one)), None)
    if block is None and line is not None:
        # A statement cannot be looked at by itself: the last one that begins on the line, or before it.
        statements = [one for one in marked.blocks if one.kind == "statement"]
        block = next((one for one in reversed(statements) if place_of(source, one.offset)[0] <= line), None)
    if block is None:
        return TemplateProblem(text, line=line)
    line, column = place_of(source, block.offset)
    return TemplateProblem(text, line=line, column=column)


def _fails(block: Block) -> bool:
    try:
        _lenient.compile(_parsed(block.text))
    except (TemplateSyntaxError, SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return True
    return False
