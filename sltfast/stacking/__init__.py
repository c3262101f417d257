"""Stacked chains: many chains, restrictions and hyperparameters in one pass through one model."""

from __future__ import annotations

from sltfast.stacking.guard import GuardedWeight
from sltfast.stacking.pieces import Piece
from sltfast.stacking.refusal import refusal
from sltfast.stacking.stack import Stack

__all__ = ["GuardedWeight", "Piece", "Stack", "refusal"]
