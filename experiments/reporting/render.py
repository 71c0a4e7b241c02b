"""A report's blocks as HTML, and the same as Markdown without pictures."""

from collections.abc import Sequence
from pathlib import Path

from experiments.reporting import blocks
from experiments.reporting import html as html_lib

# --- HTML ---------------------------------------------------------------------------


def html_section(section: blocks.Section) -> str:
  parts = [html(part) for part in section.parts]
  return (
    html_lib.section(section.heading, *parts) if section.heading else "".join(parts)
  )


def html(block: blocks.Block) -> str:
  """The block as an element, '' if there is nothing to show."""
  match block:
    case blocks.Text(text, kind):
      return html_lib.paragraph(text, kind)
    case blocks.Missing(what, command):
      return html_lib.missing(what, command)
    case blocks.Bullets(items, highlighted):
      listed = html_lib.bullets(items) if items else ""
      return f'<div class="findings">{listed}</div>' if highlighted else listed
    case blocks.Facts(items):
      return html_lib.facts(items)
    case blocks.Table():
      return _html_table(block)
    case blocks.Picture(content, caption, kind):
      drawn = content
      if isinstance(content, Path):
        drawn = html_lib.image(content, caption)
      return html_lib.figure(str(drawn), caption, kind)
    case blocks.Video(path, caption):
      return html_lib.figure(html_lib.video(path), caption)
    case blocks.Legend(items):
      return html_lib.legend(items)
    case blocks.Code(text):
      return html_lib.code(text)
    case blocks.Columns(parts, narrow):
      return html_lib.columns(*map(html, parts), narrow=narrow)
    case blocks.Details(summary, parts):
      return html_lib.details(summary, "".join(map(html, parts)))
    case blocks.Heading(text):
      return f"<h3>{html_lib.escape(text)}</h3>"


def _html_table(table: blocks.Table) -> str:
  return html_lib.table(
    table.header,
    [[_html_cell(cell) for cell in row] for row in table.rows],
    numbers=table.numbers,
    raw=range(len(table.header)),
    wrap=table.wrap,
    caption=table.caption,
    groups=table.groups,
    strong=table.strong,
  )


def _html_cell(cell: blocks.Cell) -> str:
  match cell:
    case blocks.Bar(rate, low, high):
      return html_lib.interval_bar(rate, low, high)
    case blocks.Stacked(top, below):
      small = "".join(f"<small>{html_lib.escape(line)}</small>" for line in below)
      return html_lib.escape(top) + small
  return html_lib.escape(cell)


# --- Markdown -----------------------------------------------------------------------


def markdown(
  title: str, subtitle: str, sections: Sequence[blocks.Section], level: int = 2
) -> str:
  """The whole text; it links to nothing and shows no pictures."""
  parts = [f"# {_plain(title)}", _plain(subtitle)]
  for section in sections:
    inside = [text for part in section.parts if (text := _markdown(part, level + 1))]
    if section.heading and inside:
      parts.append(f"{'#' * level} {_plain(section.heading)}")
    parts += inside
  return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(block: blocks.Block, level: int) -> str:
  match block:
    case blocks.Text(text):
      return _plain(text)
    case blocks.Missing(what, command):
      return f"{_plain(what)}: not run yet.\n\n{_fenced(command)}"
    case blocks.Bullets(items):
      return "\n".join(f"- {_plain(item)}" for item in items)
    case blocks.Facts(items):
      return "\n".join(
        f"- {_plain(name)}: **{_plain(value)}** ({_plain(remark)})"
        for value, name, remark in items
      )
    case blocks.Table():
      return _markdown_table(block)
    case blocks.Video(path, caption):
      return f"- `{path.name}`: {_plain(caption)}"
    case blocks.Code(text):
      return _fenced(text)
    case blocks.Columns(parts):
      inside = [_markdown(part, level) for part in parts]
      between = "\n" if all(isinstance(p, blocks.Video) for p in parts) else "\n\n"
      return between.join(part for part in inside if part)
    case blocks.Details(summary, parts):
      inside = [part for part in (_markdown(p, level + 1) for p in parts) if part]
      heading = f"{'#' * level} {_plain(summary)}"
      return "\n\n".join((heading, *inside)) if inside else ""
    case blocks.Heading(text):
      return f"{'#' * level} {_plain(text)}"
  return ""  # a picture, or the legend of some


def _markdown_table(table: blocks.Table) -> str:
  groups = [label for label, columns in table.groups for _ in range(columns)]
  groups = groups or [""] * len(table.header)
  header = [
    ", ".join(part for part in (group, name) if part)
    for group, name in zip(groups, table.header, strict=True)
  ]
  kept = [
    column
    for column in range(len(header))
    if not any(isinstance(row[column], blocks.Bar) for row in table.rows)
  ]
  lines = [
    [_plain(header[column]) for column in kept],
    ["---:" if column in table.numbers else "---" for column in kept],
    *([_markdown_cell(row[column]) for column in kept] for row in table.rows),
  ]
  drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
  return f"{_plain(table.caption)}\n\n{drawn}" if table.caption else drawn


def _markdown_cell(cell: blocks.Cell) -> str:
  match cell:
    case blocks.Stacked(top, below):
      return _plain(f"{top} ({', '.join(below)})" if below else top)
    case blocks.Bar():
      return ""
  return _plain(cell)


def _plain(text: str) -> str:
  """Text that Markdown shows as it is: one line, no tags, no cells."""
  return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def _fenced(text: str) -> str:
  return f"```\n{text}\n```"
