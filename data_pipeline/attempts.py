"""The table of attempts: what is known of them without their images.

Columns of NumPy, about 150 bytes an attempt, so that a million attempts can be
filtered, split and counted in memory. Texts, of which few differ, are numbers into a
list of names.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


class Texts:
  """A column of texts; NumPy takes it as an array of str[A].

  Attributes:
    codes: int32[A], the name of each row.
    names: the different texts; those that no row has any more may be among them.
  """

  def __init__(self, codes: np.ndarray, names: Sequence[str]):
    self.codes = np.asarray(codes, np.int32)
    self.names = tuple(names)

  @classmethod
  def of(cls, texts: Iterable[str]) -> "Texts":
    names, codes = np.unique(np.array(list(texts), np.str_), return_inverse=True)
    return cls(codes, names.tolist())

  def __len__(self) -> int:
    return len(self.codes)

  def __iter__(self) -> Iterator[str]:
    return (self.names[code] for code in self.codes.tolist())

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    return np.array(self.names, np.str_)[self.codes].astype(dtype or np.str_)

  def __eq__(self, text: object) -> np.ndarray:  # type: ignore[override]
    """Returns bool[A]: which rows are that text."""
    return self.isin([str(text)])

  __hash__ = None  # type: ignore[assignment]

  def isin(self, texts: Iterable[str]) -> np.ndarray:
    """Returns bool[A]: which rows are one of the texts."""
    return np.isin(self.codes, _codes(self.names, texts))

  def take(self, rows: np.ndarray) -> "Texts":
    return Texts(self.codes[rows], self.names)

  def tolist(self) -> list[str]:
    return list(self)


class TextLists:
  """A column of lists of texts.

  Attributes:
    codes: int32[N], the names of all rows, one row after the other.
    counts: int32[A], how many of them each row has.
    names: the different texts.
  """

  def __init__(self, codes: np.ndarray, counts: np.ndarray, names: Sequence[str]):
    self.codes = np.asarray(codes, np.int32)
    self.counts = np.asarray(counts, np.int32)
    self.names = tuple(names)

  @classmethod
  def of(cls, lists: Iterable[Sequence[str]]) -> "TextLists":
    lists = list(lists)
    flat = Texts.of(text for texts in lists for text in texts)
    return cls(flat.codes, np.array([len(texts) for texts in lists]), flat.names)

  def __len__(self) -> int:
    return len(self.counts)

  def __iter__(self) -> Iterator[tuple[str, ...]]:
    ends = np.cumsum(self.counts)
    for begin, end in zip((ends - self.counts).tolist(), ends.tolist(), strict=True):
      yield tuple(self.names[code] for code in self.codes[begin:end].tolist())

  def contains(self, texts: Iterable[str]) -> np.ndarray:
    """Returns bool[A]: which rows have at least one of the texts."""
    hit = np.isin(self.codes, _codes(self.names, texts))
    row = np.repeat(np.arange(len(self)), self.counts)
    return np.bincount(row[hit], minlength=len(self)) > 0

  def take(self, rows: np.ndarray) -> "TextLists":
    chosen = ragged_rows(self.counts, rows)
    return TextLists(self.codes[chosen], self.counts[rows], self.names)

  def tolist(self) -> list[tuple[str, ...]]:
    return list(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Attempts:
  """What is known of A attempts with S steps in all.

  Attributes:
    poses: float32[S, 4], (x, y, z, yaw) of every step, attempt after attempt, robot
      base frame, metres and radians.
    num_steps: int64[A], T of each attempt.
    success: bool[A], the labels.
    drop_test: bool[A], whether the images before and after dropping differ.
    simulator_truth: bool[A], for reports; never trained on.
    gripper_reading: float32[A], finger opening after lifting, metres.
    scene_seed: int64[A].
    attempt_seed: int64[A]; with unit and scene_seed it names an attempt.
    round: int64[A].
    unit: the robots' names.
    policy: who decided, by name.
    policy_version: and which version.
    grasped: family of the object held at the end, '' if none.
    families: the families of the objects in the bin, as often as there are objects.
  """

  poses: np.ndarray
  num_steps: np.ndarray
  success: np.ndarray
  drop_test: np.ndarray
  simulator_truth: np.ndarray
  gripper_reading: np.ndarray
  scene_seed: np.ndarray
  attempt_seed: np.ndarray
  round: np.ndarray
  unit: Texts
  policy: Texts
  policy_version: Texts
  grasped: Texts
  families: TextLists

  def __len__(self) -> int:
    return len(self.num_steps)

  def take(self, rows: np.ndarray) -> "Attempts":
    """Returns the attempts of the given rows, in that order."""
    columns: dict[str, Any] = {
      "poses": self.poses[ragged_rows(self.num_steps, rows)],
      **{name: getattr(self, name)[rows] for name in NUMBERS},
      **{name: getattr(self, name).take(rows) for name in (*TEXTS, *TEXT_LISTS)},
    }
    return Attempts(**columns)


# Columns by kind; `poses` is the only one with a row a step.
NUMBERS: Mapping[str, type] = {
  "num_steps": np.int64,
  "success": np.bool_,
  "drop_test": np.bool_,
  "simulator_truth": np.bool_,
  "gripper_reading": np.float32,
  "scene_seed": np.int64,
  "attempt_seed": np.int64,
  "round": np.int64,
}
TEXTS = ("unit", "policy", "policy_version", "grasped")
TEXT_LISTS = ("families",)

# What of a record the table is made from.
FIELDS = ("poses", "objects", *(set(NUMBERS) - {"num_steps"}), *TEXTS)


def tabulate(decoded: Sequence[Mapping[str, Any]]) -> Attempts:
  """Makes the table of decoded records, of which the fields FIELDS are needed."""
  poses = [record["poses"] for record in decoded]
  columns: dict[str, Any] = {
    name: np.array([record[name] for record in decoded], dtype)
    for name, dtype in NUMBERS.items()
    if name != "num_steps"
  }
  for name in ("unit", "policy", "policy_version"):
    columns[name] = Texts.of(record[name] for record in decoded)
  return Attempts(
    poses=np.concatenate([np.empty((0, 4), np.float32), *poses]),
    num_steps=np.array([len(rows) for rows in poses], np.int64),
    grasped=Texts.of(family_of(record["grasped"]) for record in decoded),
    families=TextLists.of(
      [family_of(name) for name in record["objects"]] for record in decoded
    ),
    **columns,
  )


def family_of(name: str) -> str:
  """Returns the family of an object instance: 'box' of 'box-000017'."""
  family, dash, _ = name.rpartition("-")
  return family if dash else name


def join(tables: Sequence[Attempts]) -> Attempts:
  """Returns the attempts of all tables, one table after the other."""
  if len(tables) == 1:
    return tables[0]

  def columns(name: str) -> list[Any]:
    return [getattr(table, name) for table in tables]

  joined: dict[str, Any] = {
    name: np.concatenate(columns(name)) for name in ("poses", *NUMBERS)
  }
  for name in TEXTS:
    codes, names = _join_codes(columns(name))
    joined[name] = Texts(codes, names)
  for name in TEXT_LISTS:
    codes, names = _join_codes(columns(name))
    counts = np.concatenate([column.counts for column in columns(name)])
    joined[name] = TextLists(codes, counts, names)
  return Attempts(**joined)


def equal(one: Attempts, other: Attempts) -> bool:
  """Returns whether two tables say the same; lists of names may differ."""
  if len(one) != len(other):
    return False
  numbers = all(
    np.array_equal(getattr(one, name), getattr(other, name))
    for name in ("poses", *NUMBERS)
  )
  return numbers and all(
    getattr(one, name).tolist() == getattr(other, name).tolist()
    for name in (*TEXTS, *TEXT_LISTS)
  )


def scenes(attempts: Attempts) -> np.ndarray:
  """Returns int64[A]: a number for each bin, the same for attempts in the same one."""
  pairs = np.stack([attempts.unit.codes, attempts.scene_seed], axis=1)
  return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def duplicates(attempts: Attempts) -> tuple[np.ndarray, np.ndarray]:
  """Finds attempts that are there more than once.

  Unit, scene_seed and attempt_seed name an attempt of a policy; the same seeds under
  another policy give another attempt.

  Returns:
    int64[D] in order: rows whose attempt was there before; int64[D]: the row where it
    was first.
  """
  return repeated(
    [
      *(attempts.policy_version.codes, attempts.policy.codes, attempts.unit.codes),
      *(attempts.scene_seed, attempts.attempt_seed),
    ]
  )


def repeated(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows that were there before, and where first; int64[D] each."""
  # Sorted, equal ones are neighbours, and stand in the order of their rows.
  order = np.lexsort(columns)
  is_new = np.ones(len(order), bool)
  if len(order):
    is_new[1:] = np.any([np.diff(column[order]) != 0 for column in columns], axis=0)
  first = order[is_new][np.cumsum(is_new) - 1]
  again, first = order[~is_new], first[~is_new]
  by_row = np.argsort(again)
  return again[by_row], first[by_row]


def ragged_rows(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Returns where the entries of some rows lie, of rows of different lengths.

  Args:
    counts: int[A], entries of each row; they lie one row after the other.
    rows: int[R], the rows that are asked for.
  """
  counts = counts.astype(np.int64)
  begins, lengths = np.cumsum(counts) - counts, counts[rows]
  offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
  return np.repeat(begins[rows], lengths) + offsets


def _join_codes(columns: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
  names = sorted(set().union(*(column.names for column in columns)))
  number = {name: i for i, name in enumerate(names)}
  codes = []
  for column in columns:
    renumbered = np.array([number[name] for name in column.names], np.int32)
    codes.append(renumbered[column.codes] if len(renumbered) else column.codes)
  return np.concatenate(codes), names


def _codes(names: Sequence[str], texts: Iterable[str]) -> list[int]:
  wanted = set(texts)
  return [code for code, name in enumerate(names) if name in wanted]
