"""Line charts as SVG, cheap enough to redraw every few seconds."""

import dataclasses
import html
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 14, 40
COLOURS = ("a", "b", "c", "d")  # variables of the page's style


@dataclasses.dataclass(frozen=True)
class Line:
  """Points (x, y), a colour of the page and a label at the last point."""

  points: Sequence[tuple[float, float]]
  colour: str = "a"
  label: str = ""


@dataclasses.dataclass(frozen=True)
class Mark:
  """A vertical line at x, with words."""

  x: float
  label: str


def chart(
  lines: Sequence[Line],
  *,
  x_label: str,
  y_label: str,
  y_range: tuple[float, float],
  marks: Sequence[Mark] = (),
  description: str,
) -> Markup:
  """An SVG element; the x axis reaches from 0 to the last point or mark."""
  low, high = y_range
  right = max(
    [x for line in lines for x, _ in line.points] + [mark.x for mark in marks] + [1.0]
  )

  def place(x: float, y: float) -> tuple[float, float]:
    y = min(max(y, low), high)
    return (
      LEFT + (WIDTH - LEFT - RIGHT) * x / right,
      TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low),
    )

  parts = [
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12"'
    f' aria-label="{html.escape(description)}">'
  ]
  for i in range(5):
    value = low + (high - low) * i / 4
    x, y = place(0, value)
    parts.append(
      f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
      ' stroke="var(--line)"/>' + _text(x - 6, y + 4, f"{value:g}", "end")
    )
  for i in range(5):
    x, y = place(right * i / 4, low)
    parts.append(_text(x, y + 16, _short(right * i / 4), "middle" if i else "start"))
  for mark in marks:
    x, bottom = place(mark.x, low)
    parts.append(
      f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"'
      ' stroke="var(--soft)" stroke-dasharray="3 4"/>'
      + _text(x - 4, TOP + 10, mark.label, "end")
    )
  for line in lines:
    if not line.points:
      continue
    placed = [place(*point) for point in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts.append(
      f'<polyline points="{path}" fill="none" stroke="var(--{line.colour})"'
      ' stroke-width="2" stroke-linejoin="round"/>'
    )
    x, y = placed[-1]
    parts.append(
      f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--{line.colour})"/>'
    )
    if line.label:
      parts.append(_text(x - 6, y - 7, line.label, "end", f"var(--{line.colour})"))
  parts.append(_text((WIDTH + LEFT) / 2, HEIGHT - 4, x_label, "middle"))
  parts.append(_text(4, 10, y_label, "start"))
  return Markup("".join(parts) + "</svg>")


def _text(
  x: float, y: float, words: str, anchor: str, fill: str = "var(--soft)"
) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">'
    f"{html.escape(words)}</text>"
  )


def _short(value: float) -> str:
  return f"{value / 1000:g}k" if value >= 10_000 else f"{value:,.0f}"
