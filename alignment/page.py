"""Pages that need no network: templates that escape every value, under a policy that lets nothing else run.

The content policy admits only what carries the page's nonce, and the nonce is derived from the content, so that
the same content always gives the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignment.report_words import counted, number
from catalog.console import plain_text


def render_page(template: str, **content: Any) -> str:
    """Render a template of `alignment/templates` to an HTML document; equal for equal content."""
    source = _environment().get_template(template)
    bare = source.render(**content, nonce="")
    return source.render(**content, nonce=hashlib.sha256(bare.encode()).hexdigest()[:32])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("alignment"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, counted=counted)
    return environment


def _printable(value: Any) -> Any:
    """Drop control and direction-changing characters from data before it is escaped."""
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return plain_text(value)
