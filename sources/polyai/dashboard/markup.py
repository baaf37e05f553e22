"""HTML that cannot be broken into: whatever is not markup already is escaped where it meets it."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"input", "br", "img"})


class Markup(str):
    """HTML that is ready; any other text is untrusted."""

    __slots__ = ()


Child = str | None


def tag(name: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """An element.

    Args:
        name: Such as `div`.
        children: Markup as it is, other text escaped; None is left out.
        attributes: Values are escaped. `class_` and `for_` stand for Python's reserved words, `_`
            for `-`. None and False are left out, True has no value.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Several pieces one after the other."""
    return Markup("".join(_ready(child) for child in children if child is not None))


def _ready(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child)


def _attribute(key: str, value: str | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
