"""Late expansion: heads of one attention as lanes, everything else of its block computed once."""

from sltfast.stacking.heads.head_lanes import HeadLanes as HeadLanes
