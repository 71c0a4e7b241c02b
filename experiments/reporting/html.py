"""A self-contained HTML page: sections, tables, pictures and videos, and its style.

The content security policy forbids every request, so that what is not in the file
is visibly missing rather than quietly fetched.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}

_POLICY = (
  "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
)

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1f2328; --soft: #5d6670; --line: #d9dcd8;
  --a: #2563a8; --b: #c8553d; --c: #2f855a; --d: #7d5ba6; --tint: #eef3f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e4e7ea; --soft: #9aa4ae; --line: #383f46;
    --a: #6cb0f5; --b: #f0917c; --c: #6fcf97; --d: #c0a2ea; --tint: #20303f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p, li { max-width: 46rem; }
.soft, figcaption, .caption { color: var(--soft); font-size: .88rem; }
.facts { display: grid; gap: .8rem; margin: 1.4rem 0;
  grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1rem; }
.fact b { display: block; font-size: 1.6rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.fact span { display: block; color: var(--soft); font-size: .85rem; }
.findings { background: var(--tint); border-radius: .6rem; padding: .7rem 1.1rem; }
.findings ul { margin: 0; padding-left: 1.1rem; }
.findings li { margin: .35rem 0; }
.missing { border-left: 3px solid var(--b); padding-left: .8rem; }
.missing code { display: block; overflow-x: auto; white-space: pre; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; width: 100%;
  font-variant-numeric: tabular-nums; }
.caption { margin: 1.2rem 0 .3rem; max-width: 58rem; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: .82rem; font-weight: 600; color: var(--soft); vertical-align: bottom;
  white-space: normal; min-width: 4.5em; }
tr.strong td, tr.strong td:first-child { font-weight: 600; background: var(--tint); }
tr.strong small { font-weight: 400; }
td.number, th.number { text-align: right; }
th.group { text-align: center; } th.group:empty { border-bottom: none; }
td:first-child { white-space: normal; min-width: 8.5rem; }
td:first-child, th:first-child { position: sticky; left: 0; z-index: 1;
  background: var(--paper); }
td small { display: block; color: var(--soft); font-size: .78rem; line-height: 1.25; }
td.wrap { white-space: normal; overflow-wrap: anywhere; }
.range { position: relative; height: 1.1rem; min-width: 9rem; width: 100%;
  margin-top: .2rem;
  background: linear-gradient(var(--line), var(--line)) center/100% 1px no-repeat; }
.range i { position: absolute; top: .32rem; height: .46rem; border-radius: .23rem;
  background: var(--a); opacity: .35; }
.range em { position: absolute; top: .1rem; width: .26rem; height: .9rem;
  margin-left: -.13rem; border-radius: .13rem; background: var(--a); }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; display: block; font-family: inherit; }
figure svg text { font-family: inherit !important; }
figure.small { max-width: 27rem; }
img, video { max-width: 100%; display: block; border-radius: .4rem; background: #000; }
img.sharp { width: 100%; background: none; }
.columns { display: grid; gap: 1rem 1.6rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.columns.narrow {
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.columns figure { margin: 0; }
.columns video { width: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1rem 0 .8rem;
  font-size: .88rem; }
.legend i { display: inline-block; width: 1.6rem; margin-right: .45rem;
  vertical-align: .25em; border-top: .18rem solid; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.5; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
"""


def page(
  title: str, subtitle: str, body: Sequence[str], *, refresh: float = 0.0
) -> str:
  """The whole document; one that is read again every `refresh` seconds, if not 0."""
  again = f'<meta http-equiv="refresh" content="{refresh:.0f}">\n' if refresh else ""
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n{again}'
    f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    f'<body>\n<main>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(subtitle)}'
    "</p>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
  )


def escape(text: object) -> str:
  return html.escape(str(text))


def section(heading: str, *parts: str) -> str:
  inside = "\n".join(part for part in parts if part)
  return f"<section>\n<h2>{escape(heading)}</h2>\n{inside}\n</section>"


def paragraph(text: str, kind: str = "") -> str:
  attribute = f' class="{kind}"' if kind else ""
  return f"<p{attribute}>{escape(text)}</p>" if text else ""


def missing(what: str, command: str) -> str:
  """What stands in the place of a part that was not made yet."""
  return (
    f'<p class="missing">{escape(what)}: not run yet. '
    f"<code>{escape(command)}</code></p>"
  )


def columns(*parts: str, narrow: bool = False) -> str:
  """Parts beside each other where the window is wide enough."""
  kind = "columns narrow" if narrow else "columns"
  return f'<div class="{kind}">{"".join(parts)}</div>'


def facts(items: Sequence[tuple[str, str, str]]) -> str:
  """Cards of (value, name, remark)."""
  cards = "".join(
    f'<div class="fact"><b>{escape(value)}</b>{escape(name)}'
    f"<span>{escape(remark)}</span></div>"
    for value, name, remark in items
  )
  return f'<div class="facts">{cards}</div>'


def bullets(items: Sequence[str]) -> str:
  return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  *,
  numbers: Sequence[int] = (),
  raw: Sequence[int] = (),
  wrap: Sequence[int] = (),
  caption: str = "",
  groups: Sequence[tuple[str, int]] = (),
  strong: Sequence[int] = (),
) -> str:
  """A table that scrolls where it is wider than the page.

  Columns in `numbers` align right, those in `raw` hold HTML of ours; `groups` are
  (label, columns) above the header; rows in `strong` stand out.
  """

  def kind(column: int) -> str:
    names = [n for n, c in (("number", numbers), ("wrap", wrap)) if column in c]
    return f' class="{" ".join(names)}"' if names else ""

  head = "".join(f"<th{kind(i)}>{escape(name)}</th>" for i, name in enumerate(header))
  above = "".join(
    f'<th class="group" colspan="{columns}">{escape(label)}</th>'
    for label, columns in groups
  )
  above = f"<tr>{above}</tr>" if above else ""
  body = "".join(
    ('<tr class="strong">' if number in strong else "<tr>")
    + "".join(
      f"<td{kind(i)}>{cell if i in raw else escape(cell)}</td>"
      for i, cell in enumerate(row)
    )
    + "</tr>"
    for number, row in enumerate(rows)
  )
  # Not in the table: it would be as wide as that, and scroll away with it.
  title = f'<div class="caption">{escape(caption)}</div>' if caption else ""
  return (
    f'<div>{title}<div class="scroll"><table><thead>{above}<tr>{head}</tr></thead>'
    f"<tbody>{body}</tbody></table></div></div>"
  )


def interval_bar(rate: float, low: float, high: float) -> str:
  """A rate and its interval on a line from 0 to 100 %."""
  return (
    f'<div class="range" title="{100 * low:.1f} to {100 * high:.1f} %">'
    f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    f'<em style="left:{100 * rate:.1f}%"></em></div>'
  )


def legend(items: Sequence[tuple[str, str, str]]) -> str:
  """What lines mean: (label, a colour of `:root`, solid, dashed or dotted)."""
  return (
    '<div class="legend">'
    + "".join(
      f'<span><i style="border-top-color:var(--{colour});border-top-style:{dash}"></i>'
      f"{escape(label)}</span>"
      for label, colour, dash in items
    )
    + "</div>"
  )


def figure(content: str, caption: str = "", kind: str = "") -> str:
  attribute = f' class="{kind}"' if kind else ""
  words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
  return f"<figure{attribute}>{content}{words}</figure>"


def image(path: Path, description: str) -> str:
  return f'<img class="sharp" alt="{escape(description)}" src="{data_url(path)}">'


def video(path: Path) -> str:
  return (
    '<video controls loop muted playsinline preload="metadata" '
    f'src="{data_url(path)}"></video>'
  )


def data_url(path: Path) -> str:
  """The file itself, as an address that needs no request."""
  data = base64.b64encode(path.read_bytes()).decode()
  return f"data:{_MIME[path.suffix.lower()]};base64,{data}"


def code(text: str) -> str:
  return f"<pre><code>{escape(text)}</code></pre>"


def details(summary: str, content: str) -> str:
  return f"<details><summary>{escape(summary)}</summary>{content}</details>"
