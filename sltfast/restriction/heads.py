"""The coordinates of each attention head: what feeds its slot of the output projection, and the slot itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.restriction.anatomy import NotUnderstood, text_config
from sltfast.restriction.probe import Call, Trace, trace
from sltfast.restriction.region import Interval, Rectangle, Region, plane_of

LOOKED_AT = 32  # features of a slot that are looked at one by one
COUNTS = ("num_v_heads", "num_heads", "num_attention_heads", "n_heads", "n_head", "num_q_heads")


@dataclass(frozen=True)
class Heads:
    """The heads of one attention.

    Attributes:
        regions: for each head, parameter name (below the attention) → its coordinates: the rows of the query, key and
            value projections that reach its slot, with their biases, and the columns of the output projection that
            read it. Keys and values that a group shares are in each of its heads; the output bias and norms over
            all heads alike are in none.
        groups: the heads that share keys or values, group by group.
    """

    regions: tuple[dict[str, Region], ...]
    groups: tuple[tuple[int, ...], ...]


def heads_of(model: nn.Module, attention: str) -> Heads:
    """Find the heads of the attention called ``attention``.

    Raises:
        NotUnderstood: its projections do not come apart into heads.
    """
    module = model.get_submodule(attention)
    if all(isinstance(getattr(module, name, None), Tensor) for name in ("W_Q", "W_O")):
        return _lens_heads(module)
    if isinstance(module, nn.MultiheadAttention):
        return _torch_heads(module)
    with torch.inference_mode(False), torch.enable_grad():
        return _probed_heads(model, module, attention)


def _probed_heads(model: nn.Module, module: nn.Module, attention: str) -> Heads:
    traced = trace(model, attention)
    output = _output(attention, traced)
    count = _head_count(model, module, attention, output.entered.shape[-1])
    width = output.entered.shape[-1] // count
    calls = [call for call in traced.projections if call is not output]
    fed = [_fed(output.entered, slice(h * width, (h + 1) * width), calls, traced) for h in range(count)]
    _check_apart(attention, fed, calls)
    _check_attends(attention, output.entered, calls)
    _check_one(attention, output.entered, width, calls, traced)
    gradients = {name: torch.stack([one[name] for one in fed]) for name in fed[0]}
    shared = {name for name in gradients if name not in {c.name for c in calls} and bool(gradients[name].all())}
    regions = []
    for h in range(count):
        of_head: dict[str, Region] = {}
        for call in calls:
            inner = model.get_submodule(call.name)
            features = _intervals(gradients[call.name][h])
            _add(of_head, attention, call.name, _feature_regions(call.name, inner, features))
        for gain in traced.gains:
            if gain.name not in shared:
                inner = model.get_submodule(gain.name)
                plane = plane_of(gain.leaf.shape)
                region = Region.of_mask(plane, gradients[gain.name][h].reshape(-1))
                _add(of_head, attention, gain.name, {key: region for key, _ in inner.named_parameters()})
        for name, parameter in traced.bare.items():
            if name not in shared:
                region = Region.of_mask(plane_of(parameter.shape), gradients[name][h].reshape(-1))
                _add(of_head, attention, "", {name: region})
        slot = _slot_regions(output.name, model.get_submodule(output.name), (h * width, (h + 1) * width))
        _add(of_head, attention, output.name, slot)
        regions.append(of_head)
    return Heads(tuple(regions), _groups([gradients[call.name] for call in calls], count))


def _output(attention: str, traced: Trace) -> Call:
    """The last linear map, which reads what the heads wrote."""
    for call in reversed(traced.projections):
        if call.entered.requires_grad:
            return call
    raise NotUnderstood(
        f"{attention} has no output projection that reads from other projections: its heads cannot be told apart; give "
        "a mapping from parameter name to mask"
    )


def _head_count(model: nn.Module, module: nn.Module, attention: str, width: int) -> int:
    sources = [*(inner for inner in module.modules()), getattr(module, "config", None), text_config(model)]
    found: list[Any] = [getattr(source, name, None) for source in sources for name in COUNTS]
    found += [width // size for size in [getattr(module, "head_dim", None)] if isinstance(size, int) and size > 0]
    for count in found:
        if isinstance(count, int) and count > 0 and width % count == 0:
            return count
    raise NotUnderstood(
        f"neither {attention} nor the config says how many heads share the {width} features that its output projection "
        f"reads (looked for {', '.join(COUNTS)}); give a mapping from parameter name to mask"
    )


def _fed(entered: Tensor, slot: slice, calls: list[Call], traced: Trace) -> dict[str, Tensor]:
    """Which features of every leaf have a part in one slot: bool, by name."""
    part = entered[..., slot]
    weights = torch.linspace(1.0, 2.0, part.numel(), device=part.device).reshape(part.shape)
    leaves = {call.name: call.leaf for call in [*calls, *traced.gains]} | traced.bare
    gradients = torch.autograd.grad(
        (part.float() * weights).sum(), list(leaves.values()), retain_graph=True, allow_unused=True
    )
    names = {call.name for call in calls}
    fed = {}
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        touched = torch.zeros_like(leaf, dtype=torch.bool) if gradient is None else gradient != 0
        fed[name] = (touched.flatten(0, -2).any(0) if name in names else touched).cpu()
    return fed


def _check_apart(attention: str, fed: list[dict[str, Tensor]], calls: list[Call]) -> None:
    """Every head must own features that feed no other."""
    features = torch.stack([torch.cat([one[call.name] for call in calls]) for one in fed])  # [heads, features]
    alone = features & (features.sum(0) == 1)
    if not bool(alone.any(1).all()):
        raise NotUnderstood(
            f"{attention} does not come apart into {len(fed)} heads: "
            f"heads {[h for h in range(len(fed)) if not bool(alone[h].any())][:8]} own no feature of their own; give a "
            "mapping from parameter name to mask"
        )


def _check_one(attention: str, entered: Tensor, width: int, calls: list[Call], traced: Trace) -> None:
    """Inside a slot a query or key reaches every feature and a value one of them; with several heads in it, some."""
    looked_at = range(0, width, -(-width // LOOKED_AT))
    fed = [_fed(entered, slice(i, i + 1), calls, traced) for i in looked_at]
    reached = torch.stack([torch.cat([one[call.name] for call in calls]) for one in fed]).sum(0)  # [features]
    part = int(((reached > 1) & (reached < len(fed))).sum())
    if part or not bool((reached == len(fed)).any()):
        raise NotUnderstood(
            f"the {width} features that a head of {attention} would write are not those of one head (as many heads as "
            f"its own {' or '.join(COUNTS)} or the config's say): give a mapping from parameter name to mask"
        )


def _check_attends(attention: str, entered: Tensor, calls: list[Call]) -> None:
    """What the last token's slots hold must depend on the projections of tokens before it."""
    rows = entered.flatten(0, -2)
    gradients = torch.autograd.grad(
        rows[-1].float().square().sum(), [call.leaf for call in calls], retain_graph=True, allow_unused=True
    )
    by_token = (g.flatten(0, -2) for g in gradients if g is not None)
    if not any(bool((g[:-1] != 0).any()) for g in by_token if len(g) == len(rows)):
        raise NotUnderstood(
            f"what {attention} gives to its last linear map does not depend on earlier tokens, so that map reads "
            "no heads; give a mapping from parameter name to mask"
        )


def _groups(features: list[Tensor], count: int) -> tuple[tuple[int, ...], ...]:
    """Heads joined by features that feed more than one of them."""
    together = torch.cat(features, 1).float()
    share = (together @ together.T) > 0
    groups: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for head in range(count):
        if head not in seen:
            group = {head}
            while (wider := {int(x) for h in group for x in share[h].nonzero().flatten()}) != group:
                group = wider
            seen |= group
            groups.append(tuple(sorted(group)))
    return tuple(groups)


def _feature_regions(name: str, module: nn.Module, features: list[Interval]) -> dict[str, Region]:
    """Coordinates of a projection behind some of its output features, biases included."""
    if not features:
        return {}
    rows = _outputs_first(name, module)
    return {
        key: _band(parameter, features, rows=rows or parameter.ndim == 1)
        for key, parameter in module.named_parameters()
    }


def _slot_regions(name: str, module: nn.Module, slot: Interval) -> dict[str, Region]:
    """Coordinates of the output projection that read one slot; its bias is no head's."""
    rows = not _outputs_first(name, module)
    return {
        key: _band(parameter, [slot], rows=rows) for key, parameter in module.named_parameters() if parameter.ndim > 1
    }


def _band(parameter: nn.Parameter, features: list[Interval], *, rows: bool) -> Region:
    """All of some rows, or of some columns."""
    height, width = plane_of(parameter.shape)
    bands = [Rectangle(i, (0, width)) if rows else Rectangle((0, height), i) for i in features]
    return Region.of_rectangles((height, width), bands)


def _outputs_first(name: str, module: nn.Module) -> bool:
    """Whether the rows of a weight are output features (nn.Linear) or its columns (Conv1D, nn.Embedding)."""
    if isinstance(module, nn.Linear):
        return True
    if isinstance(module, nn.Embedding) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf")):
        return False
    raise NotUnderstood(
        f"{name} is a {type(module).__name__}: which side of its weight are heads is known of nn.Linear, Conv1D and "
        "nn.Embedding; give a mapping from parameter name to mask"
    )


def _intervals(fed: Tensor) -> list[Interval]:
    """Runs of True."""
    edges = torch.diff(fed.int(), prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
    starts, ends = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))


def _add(of_head: dict[str, Region], attention: str, owner: str, regions: dict[str, Region]) -> None:
    for key, region in regions.items():
        if region.numel:
            name = (f"{owner}.{key}" if owner else key).removeprefix(f"{attention}.")
            of_head[name] = of_head[name].union(region) if name in of_head else region


def _lens_heads(module: nn.Module) -> Heads:
    """TransformerLens: W_Q [heads, d, d_head] … b_V [heads, d_head], keys and values perhaps one a group."""
    count = module.get_parameter("W_Q").shape[0]
    regions: list[dict[str, Region]] = [{} for _ in range(count)]
    fewest = count
    for name, parameter in module.named_parameters(recurse=False):
        if name == "b_O":
            continue
        rows, columns = plane_of(parameter.shape)
        if count % rows:
            raise NotUnderstood(f"{name} has {rows} rows for {count} heads: give a mapping from parameter name to mask")
        fewest = min(fewest, rows)
        for head in range(count):
            row = head * rows // count
            regions[head][name] = Region.of_rectangles((rows, columns), [Rectangle((row, row + 1), (0, columns))])
    size = count // fewest
    return Heads(tuple(regions), tuple(tuple(range(g * size, (g + 1) * size)) for g in range(fewest)))


def _torch_heads(module: nn.MultiheadAttention) -> Heads:
    """nn.MultiheadAttention: queries, keys and values one after the other, fused where their inputs are as wide."""
    count, width = module.num_heads, module.head_dim
    regions: list[dict[str, Region]] = [{} for _ in range(count)]
    for name, parameter in module.named_parameters():
        if name == "out_proj.bias":
            continue
        height, columns = plane_of(parameter.shape)
        for head in range(count):
            start = head * width
            if name in ("out_proj.weight", "bias_k", "bias_v"):
                bands = [Rectangle((0, height), (start, start + width))]
            else:
                starts = range(start, height, module.embed_dim)
                bands = [Rectangle((first, first + width), (0, columns)) for first in starts]
            regions[head][name] = Region.of_rectangles((height, columns), bands)
    return Heads(tuple(regions), tuple((head,) for head in range(count)))
