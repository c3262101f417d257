"""How far an estimate can be trusted: convergence, effective draws, autocorrelation and error bars of any trace.

Example:
    from sltfast import diagnostics

    found = diagnostics.trace_diagnostics(trace)      # [chain, draw, …]: R̂, ESS, τ, errors, one for each item
    found.rhat, found.ess_bulk, found.tau, found.se
    found.suggested_steps(steps_between=1)            # num_steps_bw_draws for nearly independent draws
    diagnostics.autocorrelation(trace, max_lag=50)    # [51, …]

    diagnostics.diagnose(samples)                     # of a run: its loss and every observable, with a verdict on each
    diagnostics.mala_acceptance(model, data, lr=1e-4, n_beta=30.0, localization=100.0)   # is the step small enough?
    spectrum = diagnostics.curvature(model, data)     # of the Hessian at w*: trace, largest eigenvalue, quadrature
    diagnostics.predicted_bias(spectrum, lr=1e-4, n_beta=30.0, localization=100.0)       # what ε and γ do to λ̂

The noise of mini-batch gradients, beside the gradient, the injected noise and the localization, is
`sltfast.per_sample.noise_scale`.
"""

from sltfast.diagnostics.autocorrelation import autocorrelation, suggested_steps
from sltfast.diagnostics.curvature import curvature
from sltfast.diagnostics.diagnose import diagnose
from sltfast.diagnostics.mala import mala_acceptance
from sltfast.diagnostics.mean import MeanEstimate, mean_estimate
from sltfast.diagnostics.predicted_bias import predicted_bias
from sltfast.diagnostics.trace import TraceDiagnostics, trace_diagnostics
from sltfast.diagnostics.verdict import Reading, Verdict, verdict

__all__ = [
    "MeanEstimate",
    "Reading",
    "TraceDiagnostics",
    "Verdict",
    "autocorrelation",
    "curvature",
    "diagnose",
    "mala_acceptance",
    "mean_estimate",
    "predicted_bias",
    "suggested_steps",
    "trace_diagnostics",
    "verdict",
]
