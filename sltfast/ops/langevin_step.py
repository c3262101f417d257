"""`langevin_step_`: drift, localization, preconditioner, noise, box, health and diagnostics in one pass."""

from collections.abc import Sequence

from torch import Tensor

from sltfast.ops.backend import implementation
from sltfast.ops.langevin_arguments import check_langevin_step
from sltfast.ops.running import run
from sltfast.ops.streams import STREAM_STEP, signed_seed


def langevin_step_(
    w: Tensor,
    grads: Sequence[Tensor],
    anchors: Sequence[Tensor],
    segments: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    *,
    seed: int,
    stream: int = STREAM_STEP,
    method: str = "sgld",
    v: Tensor | None = None,
    momentum: Tensor | None = None,
    thermostat: Tensor | None = None,
    low: Sequence[Tensor] | None = None,
    masks: Sequence[Tensor] | None = None,
    loss: Tensor | None = None,
    alive: Tensor | None = None,
    death_step: Tensor | None = None,
    metrics: Tensor | None = None,
    noise: Sequence[Tensor] | None = None,
    rms_alpha: float = 0.99,
    rms_eps: float = 0.1,
    friction: float = 0.1,
    stochastic_rounding: bool = False,
    backend: str = "auto",
) -> None:
    r"""One Langevin step of C chains, in place.

        d = nβ·g + λ·w + γ·(w − w*)
        w ← clamp(w − (ε/2)·G·d + √ε·σ·√G·ξ,  w* − b,  w* + b)

    G = 1 (sgld), or 1/(√v̂ + eps) with v ← α·v + (1 − α)·g² and v̂ = v (rmsprop_sgld, start from v = 0) or
    v̂ = v/(1 − α^{t+1}) (rmsprop_sgld_hh, start from v = 1). ξ ~ N(0, 1) by Philox4x32-10 and Box–Muller, a function of
    (seed, stream, step, chain, element) alone: masks, segments, batching of chains and threads do not change it.

    With momentum m, the last move of each coordinate (Chen, Fox & Guestrin 1402.4102; Ding et al. 2014):

        m ← (1 − ζ)·m − (ε/2)·d + √(A·ε)·σ·ξ;  w ← w + m;  where the box clamps w, m ← −m

    with A = friction, and ζ = A (sghmc; at A = 1 it is sgld) or ζ = thermostat (sgnht), which starts at A and obeys
    ζ ← ζ + Σ m²/n − ε/(2 − ζ) over the n coordinates that may move in this call: ζ rises until friction takes away
    the heat that noisy gradients bring. ε/(2 − ζ) is Σ m²/n of the discrete chain at the weights' right temperature;
    Ding et al. write its limit ε/2, which holds the weights' variance at 1 − ζ/2 of what it should be. Start from
    m ~ √(ε/2)·N(0, 1), stream ``ops.STREAM_MOMENTUM``. (devinterp's SGNHT writes ε for ε/2: its lr is ours halved.)

    Args:
        w: [C, P] float32 or float64, contiguous; P coordinates of C chains, updated in place.
        grads: S tensors of C·n_s values (float32, float64, bfloat16, float16); one with none is a zero gradient.
        anchors: S tensors of n_s values, w*, shared by the chains; w's dtype, bfloat16 or float16.
        segments: int64 [S, 5] on the CPU, sorted by offset: offset in a row of w | n_s | element | run | stride.
            Coordinate i of a segment is element + (i // run)·stride + i % run of the full model; a whole tensor has
            run = n_s and stride = 0.
        hyper: float64 [C, 6]: ε | nβ | γ | λ | σ | b (inf = no box).
        step: int64 [], t; its low 32 bits count for ξ.
        chains: int64 [C], chain ids.
        seed: 0..2^64-1.
        stream: 0..255, which use of randomness this is.
        method: "sgld", "rmsprop_sgld", "rmsprop_sgld_hh", "sghmc" or "sgnht".
        v: [C, P] like w, running mean of g²; RMSprop methods only.
        momentum: [C, P] like w, m; sghmc and sgnht only.
        thermostat: float64 [C], ζ; sgnht only. A chain that dies at this step keeps it.
        low: S tensors of C·n_s values (bfloat16 or float16) that receive the new w, rounded; none in one = no copy.
        masks: S bool tensors of n_s; False coordinates stay (w, v and m); none in one = all move.
        loss: float64 [C]; a chain whose loss is not finite dies and does not move.
        alive: bool or uint8 [C]; chains at 0 are not touched. A coordinate whose new value (before the box), v or m is
            not finite keeps its old values, and its chain dies.
        death_step: int64 [C]; set to t for a chain that dies at this step.
        metrics: float64 [C, 9], overwritten: norms of (ε/2)·G·nβ·g, (ε/2)·nβ·g, (ε/2)·G·γ·(w − w*), (ε/2)·G·λ·w,
            the noise term and w − w* (before the step), then the dot products of the first with the sum of the third
            and fourth, of the first with the fifth, and of that sum with the fifth; over the coordinates that may
            move. NaN for a chain that took no step.
        noise: S tensors of C·n_s standard normals to use instead of Philox's.
        rms_alpha: α in [0, 1].
        rms_eps: eps >= 0.
        friction: A in (0, 1]; sghmc and sgnht only.
        stochastic_rounding: round `low` up or down at random, up with the probability of the fraction lost (to 16 bits
            for bfloat16, 13 for float16, 21 for its subnormals), so that the copy's mean is w: word e % 4 of element
            e's counter in the stream ``ops.STREAM_ROUNDING`` decides. Otherwise to nearest, ties to even.
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`).

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, device, segment or number that is not; the message says which and what is allowed.
        RuntimeError: `backend` names one that cannot run here.
    """
    op = implementation("langevin_step_", backend, w.device)
    arguments = (
        w, list(grads), list(anchors), segments, hyper, step, chains, signed_seed(seed), stream, method,
        v, momentum, thermostat, list(low or ()), list(masks or ()), loss, alive, death_step, metrics,
        list(noise or ()), rms_alpha, rms_eps, friction, stochastic_rounding,
    )  # fmt: skip
    run(op, check_langevin_step, arguments)


class LangevinStep:
    """`langevin_step_` with everything but the gradients bound and checked once.

    The call costs a few microseconds less Python, and the tensors it was given stay the ones it writes to:

        move = LangevinStep(w, anchors, segments, hyper, step, chains, seed=1, alive=alive, death_step=death_step)
        for t in range(steps):
            step.fill_(t)
            move(grads, loss=loss)

    Raises as `langevin_step_` does; everything but `grads`, `loss` and `noise` already when it is made.
    """

    def __init__(
        self,
        w: Tensor,
        anchors: Sequence[Tensor],
        segments: Tensor,
        hyper: Tensor,
        step: Tensor,
        chains: Tensor,
        *,
        seed: int,
        stream: int = STREAM_STEP,
        method: str = "sgld",
        v: Tensor | None = None,
        momentum: Tensor | None = None,
        thermostat: Tensor | None = None,
        low: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        alive: Tensor | None = None,
        death_step: Tensor | None = None,
        metrics: Tensor | None = None,
        rms_alpha: float = 0.99,
        rms_eps: float = 0.1,
        friction: float = 0.1,
        stochastic_rounding: bool = False,
        backend: str = "auto",
    ) -> None:
        self._op = implementation("langevin_step_", backend, w.device)
        self._before = (w,)
        self._middle = (
            list(anchors), segments, hyper, step, chains, signed_seed(seed), stream, method,
            v, momentum, thermostat, list(low or ()), list(masks or ()),
        )  # fmt: skip
        self._health = (alive, death_step, metrics)
        rates = (rms_alpha, rms_eps, friction)
        self._settings = (*rates, stochastic_rounding)
        nothing = [w.new_empty(0)] * segments.shape[0]
        check_langevin_step(w, nothing, *self._middle, None, *self._health, [], *rates, stochastic_rounding)

    def __call__(self, grads: list[Tensor], *, loss: Tensor | None = None, noise: list[Tensor] | None = None) -> None:
        """Take one step: `grads` (S tensors), `loss` (float64 [C]) and `noise` as in `langevin_step_`."""
        arguments = (*self._before, grads, *self._middle, loss, *self._health, noise or [], *self._settings)
        run(self._op, check_langevin_step, arguments)
