"""What a report says, before it is HTML or Markdown: see `_render`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Bar:
  """A cell: a rate and its interval on a line from 0 to 100 %. Not in Markdown."""

  rate: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Stacked:
  """A cell of several lines, those below the first one small."""

  top: str
  below: tuple[str, ...] = ()


Cell = str | Bar | Stacked


@dataclasses.dataclass(frozen=True)
class Text:
  """A paragraph; kind: '', 'soft' or 'missing'. Nothing if the text is ''."""

  text: str
  kind: str = ""


@dataclasses.dataclass(frozen=True)
class Missing:
  """What stands in the place of a part that was not made yet."""

  what: str
  command: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  """Sentences below each other; highlighted: what the page says first."""

  items: Sequence[str]
  highlighted: bool = False


@dataclasses.dataclass(frozen=True)
class Facts:
  """Cards of (value, name, remark)."""

  items: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table.

  Attributes:
    header: of the columns.
    rows: of cells, as many as there are columns.
    numbers: columns that align right.
    wrap: columns whose text may break.
    caption: above it.
    groups: (label, columns) above the header, together as many columns; () for none.
    strong: rows that stand out on the page.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  numbers: Sequence[int] = ()
  wrap: Sequence[int] = ()
  caption: str = ""
  groups: Sequence[tuple[str, int]] = ()
  strong: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Picture:
  """A drawing, as an SVG element, or a file. Not in Markdown; kind: '' or 'small'."""

  content: str | Path
  caption: str
  kind: str = ""


@dataclasses.dataclass(frozen=True)
class Video:
  """A file; in Markdown, its name."""

  path: Path
  caption: str


@dataclasses.dataclass(frozen=True)
class Legend:
  """Labels with the colour (of the page's variables) and dash of their lines."""

  items: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Code:
  """Lines as they are typed."""

  text: str


@dataclasses.dataclass(frozen=True)
class Columns:
  """Parts beside each other where the window is wide enough."""

  parts: Sequence["Block"]
  narrow: bool = False


@dataclasses.dataclass(frozen=True)
class Details:
  """Parts that are folded on the page."""

  summary: str
  parts: Sequence["Block"]


@dataclasses.dataclass(frozen=True)
class Heading:
  """Between the parts of a section."""

  text: str


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report with its heading; '' for the one at the top."""

  heading: str
  parts: Sequence["Block"]


Block = (
  Text | Missing | Bullets | Facts | Table | Picture | Video | Legend | Code
  | Columns | Details | Heading
)  # fmt: skip
