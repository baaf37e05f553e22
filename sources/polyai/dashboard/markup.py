"""HTML markup with automatic escaping: any text that is not `Markup` is escaped."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"input", "br", "img"})


class Markup(str):
    """Trusted HTML; any other text is untrusted."""

    __slots__ = ()


Child = str | None


def tag(name: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """Returns an element.

    Args:
        name: Such as `div`.
        children: Markup is inserted unchanged, other text is escaped, None is omitted.
        attributes: Values are escaped. `class_` and `for_` stand for the reserved words, `_` for
            `-`. None and False are omitted, True is an attribute without a value.
    """
    attributes_text = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{attributes_text}>")
    return Markup(f"<{name}{attributes_text}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Concatenates markup and text, which is escaped."""
    return Markup("".join(_escaped(child) for child in children if child is not None))


def _escaped(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child)


def _attribute(key: str, value: str | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
