"""Policies that the learned one is measured against (Section 6)."""

from envs.baselines.exploring import Exploring
from envs.baselines.hand_designed import HandDesignedPolicy
from envs.baselines.open_loop import OpenLoopPolicy
from envs.baselines.oracle import OraclePolicy
from envs.baselines.random_policy import RandomPolicy

__all__ = [
  "Exploring",
  "HandDesignedPolicy",
  "OpenLoopPolicy",
  "OraclePolicy",
  "RandomPolicy",
]
