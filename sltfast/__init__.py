"""Measure neural networks with singular learning theory: localised SGLD chains and what can be read off them.

Names in the order the data walks: which weights move, sample them around w*, estimate from the recorded losses, report.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "default_nbeta": "sltfast.temperature",
    "create_param_masks": "sltfast.restriction.masks",
    "head_names": "sltfast.restriction.masks",
    "restriction_names": "sltfast.restriction.masks",
    "preview_weight_restriction": "sltfast.restriction.preview",
    "sample": "sltfast.sampling",
    "sample_restrictions": "sltfast.restricted",
    "open": "sltfast.results.tree",
    "llc": "sltfast.estimators.llc",
    "compute_llc": "sltfast.estimators.llc",
    "refined_llc": "sltfast.estimators.refined",
    "compute_token_llc": "sltfast.estimators.token_llc",
    "sweep": "sltfast.estimators.sweep",
    "compute_sweep": "sltfast.estimators.sweep",
    "llc_temperatures": "sltfast.estimators.temperatures",
    "compute_llc_temperatures": "sltfast.estimators.temperatures",
    "wbic": "sltfast.estimators.wbic",
    "over_checkpoints": "sltfast.estimators.over_checkpoints",
    "susceptibilities": "sltfast.estimators.susceptibility",
    "compute_susceptibilities": "sltfast.estimators.susceptibility",
    "block_moments": "sltfast.estimators.blocks",
    "bif": "sltfast.estimators.bif.run",
    "compute_bif": "sltfast.estimators.bif.compute",
    "group_influence": "sltfast.estimators.bif.group_influence",
    "influence_over_checkpoints": "sltfast.estimators.influence.over_checkpoints",
    "damped_influence": "sltfast.estimators.influence.damped",
    "loss_kernel": "sltfast.estimators.loss_kernel.kernel",
    "compute_loss_kernel": "sltfast.estimators.loss_kernel.kernel",
    "embed": "sltfast.estimators.loss_kernel.embedding",
    "weight_covariance": "sltfast.estimators.weight_covariance",
    "compute_weight_covariance": "sltfast.estimators.weight_covariance",
    "write_report": "sltfast.report.page",
    "AllChainsDied": "sltfast.errors",
    "ChainDiverged": "sltfast.errors",
    "NotEnoughMemory": "sltfast.errors",
    "PassShrunk": "sltfast.errors",
    "OutputMismatch": "sltfast.errors",
    "OutputBusy": "sltfast.errors",
    "RunDeleted": "sltfast.errors",
    "diagnostics": "sltfast.diagnostics",
    "analysis": "sltfast.analysis",
    "plotting": "sltfast.plotting",
    "per_sample": "sltfast.per_sample",
    "theory": "sltfast.theory",
    "ops": "sltfast.ops",
}
__all__ = [*_LAZY]

if TYPE_CHECKING:
    from sltfast import analysis as analysis
    from sltfast import diagnostics as diagnostics
    from sltfast import ops as ops
    from sltfast import per_sample as per_sample
    from sltfast import plotting as plotting
    from sltfast import theory as theory
    from sltfast.errors import AllChainsDied as AllChainsDied
    from sltfast.errors import ChainDiverged as ChainDiverged
    from sltfast.errors import NotEnoughMemory as NotEnoughMemory
    from sltfast.errors import OutputBusy as OutputBusy
    from sltfast.errors import OutputMismatch as OutputMismatch
    from sltfast.errors import PassShrunk as PassShrunk
    from sltfast.errors import RunDeleted as RunDeleted
    from sltfast.estimators.bif.compute import compute_bif as compute_bif
    from sltfast.estimators.bif.group_influence import group_influence as group_influence
    from sltfast.estimators.bif.run import bif as bif
    from sltfast.estimators.blocks import block_moments as block_moments
    from sltfast.estimators.influence.damped import damped_influence as damped_influence
    from sltfast.estimators.influence.over_checkpoints import influence_over_checkpoints as influence_over_checkpoints
    from sltfast.estimators.llc import compute_llc as compute_llc
    from sltfast.estimators.llc import llc as llc
    from sltfast.estimators.loss_kernel.embedding import embed as embed
    from sltfast.estimators.loss_kernel.kernel import compute_loss_kernel as compute_loss_kernel
    from sltfast.estimators.loss_kernel.kernel import loss_kernel as loss_kernel
    from sltfast.estimators.over_checkpoints import over_checkpoints as over_checkpoints
    from sltfast.estimators.refined import refined_llc as refined_llc
    from sltfast.estimators.susceptibility import compute_susceptibilities as compute_susceptibilities
    from sltfast.estimators.susceptibility import susceptibilities as susceptibilities
    from sltfast.estimators.sweep import compute_sweep as compute_sweep
    from sltfast.estimators.sweep import sweep as sweep
    from sltfast.estimators.temperatures import compute_llc_temperatures as compute_llc_temperatures
    from sltfast.estimators.temperatures import llc_temperatures as llc_temperatures
    from sltfast.estimators.token_llc import compute_token_llc as compute_token_llc
    from sltfast.estimators.wbic import wbic as wbic
    from sltfast.estimators.weight_covariance import compute_weight_covariance as compute_weight_covariance
    from sltfast.estimators.weight_covariance import weight_covariance as weight_covariance
    from sltfast.report.page import write_report as write_report
    from sltfast.restricted import sample_restrictions as sample_restrictions
    from sltfast.restriction.masks import create_param_masks as create_param_masks
    from sltfast.restriction.masks import head_names as head_names
    from sltfast.restriction.masks import restriction_names as restriction_names
    from sltfast.restriction.preview import preview_weight_restriction as preview_weight_restriction
    from sltfast.results.tree import open_run as open  # noqa: F401
    from sltfast.sampling import sample as sample
    from sltfast.temperature import default_nbeta as default_nbeta


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sltfast' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    value = module if module.__name__ == f"sltfast.{name}" else getattr(module, "open_run" if name == "open" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
