"""HTML built from elements, and figures as people read them.

Text that meets markup is escaped unless it is ``Html``, and only ``element`` and ``joined`` make ``Html``. So a crawled
page cannot put anything but text into the report, whoever forgets what.
"""

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "br", "col"})
NOTHING = "–"


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. Children that are None vanish, those that are not ``Html`` are escaped.

    Attribute names lose a trailing underscore and get hyphens for the others (``class_``, ``aria_label``); values None
    and False leave the attribute out, True gives it no value.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        parts.append(f" {key.rstrip('_').replace('_', '-')}")
        if value is not True:
            parts.append(f'="{html.escape(str(value), quote=True)}"')
    parts.append(">")
    if name not in VOID:
        parts += [joined(children), f"</{name}>"]
    return Html("".join(parts))


def joined(children: Iterable[object]) -> Html:
    """Children one after the other, escaped where they are text."""
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(str(child)) for child in children if child is not None
        )
    )


def count(value: int | None) -> str:
    """``count(18631) == "18,631"``."""
    return NOTHING if value is None else f"{value:,}"


def short_count(value: int) -> str:
    """``short_count(1_240_000) == "1.24 M"``; exact below 10,000."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scale = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value:,}"


def size(value: int | None) -> str:
    """Bytes in decimal units: ``size(1_234_567) == "1.23 MB"``."""
    if value is None:
        return NOTHING
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value} B"


def percent(value: float | None) -> str:
    """``percent(0.934) == "93.4%"``. Only all is 100% and only nothing is 0%."""
    if value is None:
        return NOTHING
    text = f"{value:.1%}"
    if text == "100.0%":
        return "100%" if value == 1 else "99.9%"
    if text == "0.0%":
        return "0%" if value == 0 else "<0.1%"
    return text


def number(value: float | None, digits: int = 2) -> str:
    """``number(1234.5) == "1,234.50"``; small ones in the form 3.0e-04."""
    if value is None:
        return NOTHING
    if value and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """``duration(75) == "1 min 15 s"``."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _three_digits(value: float) -> str:
    return f"{value:,.{max(0, 2 - (value >= 10) - (value >= 100))}f}"
