"""Finding a model's unembedding: a guess from its modules and config, then proof by its own forward.

1. The head's output is W·h + b of the h it is given, within the rounding of such a product.
2. With any numbers u in place of that output the model's logits are s·tanh(κ·u/s), entry by entry, and no parameter
   that moves has a part in it. κ and s are read from the config, else κ is fitted.
3. A forward goes through where the head gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sltfast.losses.next_token import NextToken
from sltfast.losses.tokens import logits_of
from sltfast.losses.unembedding import LogitRule, Unembedding, replaced_forward

if TYPE_CHECKING:
    from sltfast.losses.objective import ItemLoss

ROWS, TOKENS = 2, 6  # of the batch: enough to see that neither mix, few enough for any vocabulary
PART = 1 << 20  # weights looked at together
WIDE = 20.0  # numbers put in place of products span ± this: where tanh(u/s) is far from u/s for any s in use
ROUNDINGS = 8  # of an elementwise rule: multiply, divide, tanh, multiply, and their casts


class _Refused(Exception):
    """Why the model's own logits are used."""


def find_unembedding(model: nn.Module, loss: ItemLoss, batch: Any, precision: str | None = None) -> Unembedding | str:
    """The unembedding of a language model, or why its logits have to be formed.

    To be called in the run's autocast state and before the model is folded; costs three forwards of a few tokens.

    Args:
        model: the structural clone at w*, moving parameters requiring gradients.
        loss: the run's loss.
        batch: any batch of its data.
        precision: the run's (``sltfast.sample``).
    """
    if not isinstance(loss.function, NextToken):
        return "the loss is the caller's own function"
    try:
        # padding is read as the tokens it is made of: what becomes of hidden states does not depend on it
        ids = loss.function.question(batch).ids[:ROWS, :TOKENS]
        return _found(model, ids, precision)
    except _Refused as reason:
        return str(reason)


def _found(model: nn.Module, ids: Tensor, precision: str | None) -> Unembedding:
    multiplied = _precision(precision, ids.device)
    name, head = _head(model)
    unembedding = _parts(name, head, multiplied)
    own = head.forward
    record = _Recorder(own)
    with torch.no_grad(), replaced_forward(head, record):
        logits = logits_of(model, ids, {})
    if len(record.calls) != 1:
        raise _Refused(f"{name!r} runs {len(record.calls)} times a forward")
    hidden, products = record.calls[0]
    if products.shape != logits.shape or hidden.shape[:-1] != ids.shape:
        raise _Refused(f"{name!r} gives {list(products.shape)}, the model logits of shape {list(logits.shape)}")
    _check_products(model, unembedding, hidden, products, multiplied)
    rule = _rule(model, name, head, products, ids)
    found = Unembedding(
        unembedding.module,
        unembedding.weight,
        unembedding.bias,
        unembedding.transposed,
        LogitRule(rule.scale, rule.softcap, "tf32" if multiplied == "tf32" else "fp32"),
    )
    try:
        with torch.no_grad():
            again = found.hidden(model, ids, {})
    except Exception as error:  # whatever a forward raises on logits over no vocabulary
        raise _Refused(f"its forward needs the logits ({type(error).__name__}: {error})") from error
    if again is None:
        raise _Refused(f"{name!r} is not given a hidden state for every token")
    return found


def _precision(precision: str | None, device: torch.device) -> str:
    """Of the operands of the head's product."""
    if precision == "tf32":
        if device.type != "cuda":
            raise _Refused("TF32 is emulated on this device, operand by operand")
        return "tf32"
    if not torch.is_autocast_enabled(device.type):
        return "fp32"
    if torch.get_autocast_dtype(device.type) != torch.bfloat16:
        raise _Refused(f"autocast computes in {torch.get_autocast_dtype(device.type)}")
    return "bf16"


def _head(model: nn.Module) -> tuple[str, nn.Module]:
    """The module that makes logits, as the model tells."""
    tell: Any = getattr(model, "get_output_embeddings", None)
    head = tell() if callable(tell) else None
    if not isinstance(head, nn.Module):
        head = getattr(model, "unembed", None)
    names = [name for name, module in model.named_modules() if module is head]
    if isinstance(head, nn.Module) and names:
        return names[0], head
    raise _Refused("the model does not tell which module makes its logits")


def _parts(name: str, head: nn.Module, precision: str) -> Unembedding:
    """Names of W and b in a head whose forward is known."""
    kind = type(head)
    lens = kind.__name__ == "Unembed" and kind.__module__.startswith("transformer_lens.")
    if not lens and kind.forward is not nn.Linear.forward:
        raise _Refused(f"{name!r} is no linear layer but {kind.__name__}")
    if "forward" in head.__dict__ and precision != "tf32":
        raise _Refused(f"the forward of {name!r} has been replaced")
    if head._forward_hooks or head._backward_hooks:
        raise _Refused(f"{name!r} has hooks that look at its output")
    weight, bias = ("W_U", "b_U") if lens else ("weight", "bias")
    held = head._parameters
    if not isinstance(held.get(weight), nn.Parameter) or set(held) - {weight, bias}:
        raise _Refused(f"the weight of {name!r} is computed from others")
    return Unembedding(name, weight, None if held.get(bias) is None else bias, lens)


class _Recorder:
    """A forward that keeps what goes in and comes out."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        products: Tensor = self.forward(hidden)
        self.calls.append((hidden, products))
        return products


def _unit(dtype: torch.dtype, precision: str) -> float:
    """Relative spacing of what is multiplied or kept."""
    return max(torch.finfo(dtype).eps, {"bf16": 2.0**-7, "tf32": 2.0**-9}.get(precision, 0.0))


def _check_products(
    model: nn.Module, unembedding: Unembedding, hidden: Tensor, products: Tensor, precision: str
) -> None:
    weight, bias = unembedding.weights(model)
    real = hidden.flatten(0, 1).isfinite().all(1)  # some models make NaN of tokens that see nothing but padding
    h, given = hidden.flatten(0, 1)[real].double(), products.flatten(0, 1)[real]
    # operands and result rounded once each, and d additions in float32 or better
    sums = torch.finfo(torch.float64 if hidden.dtype == torch.float64 else torch.float32).eps
    roundings = 3 * _unit(products.dtype, precision) + h.shape[1] * sums
    agrees = bool(real.any())
    step = max(1, PART // h.shape[1])
    for start in range(0, len(weight) if agrees else 0, step):
        at = slice(start, start + step)
        w = weight.detach()[at].double()
        exact, sizes = h @ w.mT, h.abs() @ w.abs().mT
        if bias is not None:
            exact, sizes = exact + bias[at].double(), sizes + bias[at].abs().double()
        agrees = agrees and bool(((given[:, at].double() - exact).abs() <= roundings * sizes).all())
    if not agrees:
        raise _Refused(f"the output of {unembedding.module!r} is not its weight times its input")


def _rule(model: nn.Module, name: str, head: nn.Module, products: Tensor, ids: Tensor) -> LogitRule:
    """κ and s: from logits that the model makes of chosen numbers, in a graph of their own."""
    # the golden ratio's multiples mod 1 fill the interval evenly, in another order at every token
    count = torch.arange(products.numel(), dtype=torch.float64, device=products.device)
    chosen = (WIDE * (2 * (count * 0.6180339887498949).frac() - 1)).view(products.shape).to(products.dtype)
    with torch.enable_grad(), replaced_forward(head, lambda hidden: chosen):
        logits = logits_of(model, ids, {})
    if logits.requires_grad:
        raise _Refused(f"logits depend on weights that move, beside those of {name!r}")
    u, z = chosen.double(), logits.double()
    eps = torch.finfo(products.dtype).eps
    numbers = dict(_numbers(model))
    caps = [value for key, value in numbers.items() if ("softcap" in key or "soft_cap" in key) and "att" not in key]
    for softcap in (*caps, None):
        for scale in _scales(u, z, softcap, numbers, eps):
            expected = LogitRule(scale, softcap).logits(u)
            if bool(((z - expected).abs() <= ROUNDINGS * eps * expected.abs()).all()):
                return LogitRule(scale, softcap)
    raise _Refused(f"logits are no scaled or capped output of {name!r}")


def _scales(u: Tensor, z: Tensor, softcap: float | None, numbers: Mapping[str, float], eps: float) -> Iterator[float]:
    """Candidates for κ: 1, numbers of the config and their inverses that the data allow, and the fitted one."""
    linear = z if softcap is None else softcap * torch.atanh((z / softcap).clamp(-1, 1))
    clear = u.abs() > 0.05 * WIDE
    if softcap is not None:
        clear &= z.abs() < 0.5 * softcap  # where tanh can be inverted
    if not bool(clear.any()):
        return
    fitted = float((linear[clear] / u[clear]).median())
    known = (1.0, *numbers.values(), *(1 / value for value in numbers.values()))
    for value in sorted(known, key=lambda value: abs(value - fitted)):
        if abs(value - fitted) <= eps * abs(fitted):
            yield value
    # a fit in low precision is no better than its rounding
    if eps < 1e-5 and fitted != 0:
        yield fitted


def _numbers(model: nn.Module) -> Iterator[tuple[str, float]]:
    """Positive numbers of the configs (of text models inside other models, too), by name."""
    for config in (getattr(model, "config", None), getattr(model, "cfg", None)):
        for inner in (config, getattr(config, "text_config", None)):
            for key, value in vars(inner).items() if hasattr(inner, "__dict__") else ():
                if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                    yield key, float(value)
