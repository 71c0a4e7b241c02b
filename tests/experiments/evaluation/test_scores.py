"""Rows of an evaluation summed up."""

from experiments.evaluation import scores


def test_grades_are_counted_for_each_policy(make_row):
  rows = [
    make_row("servo", grade == "held", grade=grade, repetition=i)
    for i, grade in enumerate(("held", "held", "lifted", "touched"))
  ]
  summary = scores.summarise(rows, ["servo"])
  expected = {"missed": 0, "touched": 1, "lifted": 1, "held": 2}
  assert summary["policies"]["servo"]["grades"] == expected
  told = scores.describe(summary)
  assert "| simulator's truth | missed | touched | lifted |   held |" in told
  assert "25.0 % | 25.0 % | 50.0 % |" in told


def test_a_robot_without_a_simulator_has_no_grades(make_row):
  rows = [make_row("servo", True, grade="")]
  summary = scores.summarise(rows, ["servo"])
  assert "grades" not in summary["policies"]["servo"]
  assert "simulator" not in scores.describe(summary)
