"""Tables of text, for terminals and Markdown alike."""

from collections.abc import Sequence


def table(
  header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
  """A Markdown table with aligned columns; those in `numbers` to the right."""
  widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]

  def line(cells: Sequence[str]) -> str:
    padded = (
      cell.rjust(width) if i in numbers else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"

  rule = [
    f"{'-' * (width - 1)}:" if i in numbers else "-" * width
    for i, width in enumerate(widths)
  ]
  return "\n".join(map(line, (header, rule, *rows)))
