"""Pages that need no other file and no network: their templates and the one stylesheet."""

from __future__ import annotations

from functools import cache
from typing import Any

from src.settings import ROOT

TEMPLATES = ROOT / "reports" / "templates"


def render(template: str, **values: Any) -> str:
    """Fill a template of ``reports/templates``; values in HTML are escaped, in Markdown not."""
    return str(_environment().get_template(template).render(**values))


def page(title: str, body: str) -> str:
    """Return a whole page around a body that is HTML already."""
    from markupsafe import Markup

    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return render("page.html", title=title, body=Markup(body), style=Markup(style))  # noqa: S704


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=select_autoescape(["html"]),
    )
