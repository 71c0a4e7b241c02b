"""Pages: a Jinja template of Markdown, written as one HTML file or as Markdown.

A template is prose. For tables, figures and cards, which Markdown lacks or limits, it
calls `parts`: the macros of parts.html.j2 or of parts.md.j2, which have the same names.
An HTML page needs no other file. Its content security policy forbids every request, so
a missing part is noticed.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markdown_it
from markupsafe import Markup

from experiments import cli
from experiments.evaluation import policy_names

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}


class Stacked(NamedTuple):
  """A cell of a table of several lines, those below the first one small."""

  top: str
  below: tuple[str, ...] = ()

  def __str__(self) -> str:
    return f"{self.top} ({', '.join(self.below)})" if self.below else self.top


class Bar(NamedTuple):
  """A cell: a rate and its interval on a line from 0 to 100 %. Not in Markdown."""

  rate: float
  low: float
  high: float


class Table(NamedTuple):
  """A table.

  Attributes:
    header: of the columns.
    rows: of cells, as many as there are columns.
    numbers: columns that align right.
    caption: above it.
    groups: (label, columns) above the header, together as many columns; () for none.
    strong: rows that stand out on the page.
    wrap: columns whose text may break.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[str | Stacked | Bar]]
  numbers: Sequence[int] = ()
  caption: str = ""
  groups: Sequence[tuple[str, int]] = ()
  strong: Sequence[int] = ()
  wrap: Sequence[int] = ()


def html(
  template: str,
  title: str,
  subtitle: str,
  values: Mapping[str, Any],
  refresh: float = 0.0,
) -> str:
  """The template as one self-contained HTML page.

  Args:
    refresh: seconds after which a browser reads the page again; 0: never.
  """
  chunks: list[str] = []
  text = _render(template, "parts.html.j2", chunks, values)
  body = markdown_it.MarkdownIt("commonmark", {"html": False}).render(text)
  body = re.sub(r"<p>@@(\d+)@@</p>", lambda found: chunks[int(found[1])], body)
  return _ENVIRONMENT.get_template("page.html.j2").render(
    title=title, subtitle=subtitle, body=Markup(body), refresh=round(refresh)
  )


def markdown(
  template: str, title: str, subtitle: str, values: Mapping[str, Any]
) -> str:
  """The same words and tables as Markdown; it links to nothing and has no pictures."""
  text = _render(template, "parts.md.j2", [], values)
  return f"# {title}\n\n{subtitle}\n\n{text}"


def _render(
  template: str, parts: str, chunks: list[str], values: Mapping[str, Any]
) -> str:
  page = _ENVIRONMENT.get_template(template)
  text = page.render(parts_file=parts, chunks=chunks, **values)
  return re.sub(r"\n\s*\n", "\n\n", text).strip() + "\n"


@jinja2.pass_context
def _chunk(context: Any, text: str) -> Markup:
  """Keeps HTML out of the way of Markdown, which comes back to it at the end."""
  context["chunks"].append(text)
  return Markup(f"\n\n@@{len(context['chunks']) - 1}@@\n\n")


def _markdown_table(table: Table) -> Markup:
  groups = [label for label, columns in table.groups for _ in range(columns)]
  groups = groups or [""] * len(table.header)
  kept = [
    column
    for column in range(len(table.header))
    if not any(isinstance(row[column], Bar) for row in table.rows)
  ]
  header = [
    ", ".join(part for part in (groups[i], table.header[i]) if part) for i in kept
  ]
  rows = [[plain(str(row[i])) for i in kept] for row in table.rows]
  numbers = [k for k, i in enumerate(kept) if i in table.numbers]
  return Markup(cli.table(header, rows, numbers))


def plain(text: str) -> str:
  """Text that a cell of a Markdown table shows as it is."""
  return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def _data_url(path: Path) -> str:
  """The file itself, as an address that needs no request."""
  data = base64.b64encode(path.read_bytes()).decode()
  return f"data:{_MIME[path.suffix.lower()]};base64,{data}"


def _make_environment() -> jinja2.Environment:
  made = jinja2.Environment(
    loader=jinja2.PackageLoader("experiments.reporting"),
    autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters |= {
    "as_table": lambda fields: Table(**fields),
    "chunk": _chunk,
    "data_url": _data_url,
    "markdown_table": _markdown_table,
    "label": policy_names.label,
    "is_bar": lambda cell: isinstance(cell, Bar),
    "percent": lambda value: f"{100 * value:.0f} %",
    "percent1": lambda value: f"{100 * value:.1f} %",
    "spaced": lambda name: name.replace("_", " "),
  }
  return made


_ENVIRONMENT = _make_environment()
