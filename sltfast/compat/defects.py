"""Where devinterp is wrong: what it does, what its faces here do instead, why, and the native call that does it right.

A face keeps the documented contract and says so once per process, through ``warn_once``. The docs' table is this one.
"""

import warnings
from dataclasses import dataclass
from threading import Lock


class CompatWarning(UserWarning):
    """A face keeps a contract of devinterp's that gives worse numbers than the native call it names."""


@dataclass(frozen=True)
class Defect:
    """One row of the table.

    Attributes:
        theirs: what devinterp does.
        ours: what the face does.
        why: why it matters.
        native: the native call that does it right.
    """

    theirs: str
    ours: str
    why: str
    native: str

    @property
    def message(self) -> str:
        """The warning's text."""
        return f"devinterp's contract: {self.ours}. {self.why}. Natively: {self.native}"


DEFECTS: dict[str, Defect] = {
    "burn-in in the LLC": Defect(
        theirs="llc and compute_llc average the loss over every step, the burn-in and the loss at w* included",
        ours="llc_mean, llc_std and llc_per_chain average over every step, the burn-in included",
        why="the chain starts at the minimum, so the estimate is too low until it forgets where it started",
        native="sltfast.llc, which averages over the draws after the burn-in and gives a standard error",
    ),
    "dead chains in the LLC": Defect(
        theirs="compute_llc skips the NaN steps of a chain that diverged, so it gives a finite number without a word",
        ours="the steps that a dead chain took are averaged as if it had lived",
        why="they are those of a chain on its way to infinity",
        native="sltfast.llc, which leaves dead chains out and says which",
    ),
    "train mode": Defect(
        theirs="models are sampled in train mode: dropout draws from the noise's generator, batch norm mixes the batch",
        ours="this model's losses differ in train mode, so it runs in the exact loop, one chain after another",
        why="that samples a randomised loss, not the model's own, and is slow",
        native="sltfast.sample, whose mode is 'eval'; here model.config's dropouts set to 0 give the fast engine",
    ),
    "masks between 0 and 1": Defect(
        theirs="a mask's values scale drift and noise alike",
        ours="masks with values other than 0 and 1 run in the exact loop, one chain after another",
        why="the scaled chain samples at another temperature (noise and drift scale differently)",
        native="sltfast.sample with masks that are bool",
    ),
    "half-precision weights": Defect(
        theirs="weights in bfloat16 or float16 are moved in that precision, which rounds most of the drift away",
        ours="such weights are moved in float32, and the model computes in its own precision",
        why="devinterp's chain is nearly a random walk there, with estimates several times too large",
        native="sltfast.sample, which does the same, or exact=True for devinterp's own rounding",
    ),
    "thermostat without friction": Defect(
        theirs="SGMCMC.sgnht computes the thermostat's friction and does not apply it",
        ours="its steps are devinterp's, bit for bit: gradient descent with noise of the diffusion factor's size",
        why="without friction nothing holds the chain at the posterior's temperature",
        native='sltfast.sample(sampling_method="sgnht"), whose stationary law is tested, or the class optim.SGNHT',
    ),
    "half-precision optimiser": Defect(
        theirs="an optimiser over bfloat16 or float16 parameters rounds drift and noise to them one after the other",
        ours="its steps are devinterp's, bit for bit",
        why="most of the drift is lost, and the chain is nearly a random walk",
        native="sltfast.sample, which moves a float32 copy, or parameters in float32",
    ),
    "gradient norm under masks": Defect(
        theirs="metrics_unscaled_grad under a mask counts the gradient of coordinates that the mask holds still",
        ours="it is the norm over the coordinates that move, like the other eight",
        why="a norm of what is not moved says nothing of the step",
        native="sltfast.sample with save_metrics=True, which records the same",
    ),
    "stale cache": Defect(
        theirs="what is at output_path is returned if its settings agree, whatever model, data and masks it was of",
        ours="runs of sltfast are refused if anything differs; this one is devinterp's: only settings were compared",
        why="nothing in the file says which model and data it was sampled from",
        native="sltfast.sample with an output_path of its own",
    ),
    "tied unembedding": Defect(
        theirs="create_param_masks(model, 'unembed') is {} where the unembedding is tied or its name has changed",
        ours="'unembed' of a tied model is the tensor that it shares with the embedding",
        why="an empty restriction ends in an error about an empty parameter list, and this one moves both ends",
        native="sltfast.create_param_masks, which finds the unembedding in the model",
    ),
    "empty masks": Defect(
        theirs="names that the table of architectures does not know select nothing, without a word",
        ours="parts are found in the model, and masks that select nothing are refused before the first step",
        why="the restriction that was meant is not the one that is sampled",
        native="sltfast.create_param_masks, whose names are those of the model at hand",
    ),
    "dead chains in BIF and susceptibilities": Defect(
        theirs="one chain that diverged makes every covariance and every susceptibility NaN",
        ours="chains that died are left out, with a warning",
        why="the chains that lived are samples all the same",
        native="sltfast.compute_bif and sltfast.compute_susceptibilities, which do so and say it",
    ),
    "losses that do not vary": Defect(
        theirs="a correlation with a loss that is the same at every draw is 0/0, NaN",
        ours="it is 0",
        why="a covariance of 0 says that there is no influence",
        native="sltfast.compute_bif with normalize=True, which does the same",
    ),
    "full left out": Defect(
        theirs="compute_susceptibilities leaves the run of the full model out of its result (2.0.1; later ones do not)",
        ours="it is left out as well",
        why="the response of the whole model is what those of its parts are held against",
        native="sltfast.compute_susceptibilities, whose result has a column 'full'",
    ),
    "v1: MALA's first move": Defect(
        theirs="1.3.2's MalaAcceptanceRate never judges the first move of a chain and counts it as probability 0",
        ours="mala_accept/mean counts the first move of each chain as never accepted",
        why="the mean is too low by a share 1/(draws − 1)",
        native="sltfast.diagnostics.mala_acceptance, which judges every move",
    ),
    "v1: eigenvectors of weight covariances": Defect(
        theirs="1.3.2's accumulators take rows of the matrix whose columns are the eigenvectors; those of heads and of "
        "pairs of layers cannot be called by its sampler, and a pair's matrix is taken for symmetric",
        ours="evecs are eigenvectors, one a row; of a pair of layers, singular vectors",
        why="rows of that matrix are no directions in weight space, so numbers differ from 1.3.2's",
        native="sltfast.weight_covariance",
    ),
    "v1: initial loss 0": Defect(
        theirs="1.3.2 takes init_loss=0.0 for one that was not given, and measures another",
        ours="0.0 is taken as it is given",
        why="0 is the loss of a model that fits its data",
        native="sltfast.llc, which pairs every loss with that of the same batch at w*",
    ),
    "v1: mini-batch noise": Defect(
        theirs="1.3.2's OnlineLossStatistics counts chains that have not run yet as losses of 0",
        ours="the noise is over all chains, once the last has run",
        why="z-scores of all chains but the last would be measured against noise that is not there",
        native="sltfast.llc, whose llc_se tells the error of the paired differences",
    ),
    "v1: the last steps of a sweep": Defect(
        theirs="1.3.2's EpsilonBetaAnalyzer.plot shows one draw, the num_last_steps_to_average-th from the end",
        ours="llc/final is the mean over the last num_last_steps_to_average draws",
        why="one draw of each chain is as noisy as a mini-batch, so heights differ from 1.3.2's",
        native="sltfast.sweep, which estimates every cell with its error and recommends one",
    ),
}

_SAID: set[str] = set()
_LOCK = Lock()


def warn_once(key: str, *, stacklevel: int = 3) -> None:
    """Warn of a row of ``DEFECTS`` the first time this process meets it.

    Args:
        key: the row.
        stacklevel: as ``warnings.warn`` counts it; the default names the caller of the function that calls this.
    """
    with _LOCK:
        if key in _SAID:
            return
        _SAID.add(key)
    warnings.warn(DEFECTS[key].message, CompatWarning, stacklevel=stacklevel)


def forget_warnings() -> None:
    """Let every row be said again."""
    with _LOCK:
        _SAID.clear()
