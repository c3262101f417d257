"""The demonstration: train a small transformer on real text and follow its local learning coefficient.

`follow_training` does the whole job and `sltfast demo` is a thin face over it.
"""

from sltfast.demo.follow import Followed, Point, follow_training
from sltfast.demo.plans import FULL, SMALL, Plan, SamplingPlan, TrainingPlan
from sltfast.demo.record import results_table, write_figures, write_results
from sltfast.demo.responses import Responses, respond
from sltfast.demo.training import Trained, train

__all__ = [
    "FULL",
    "SMALL",
    "Followed",
    "Plan",
    "Point",
    "Responses",
    "SamplingPlan",
    "Trained",
    "TrainingPlan",
    "follow_training",
    "respond",
    "results_table",
    "train",
    "write_figures",
    "write_results",
]
