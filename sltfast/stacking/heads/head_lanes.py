"""Late expansion: restrictions to heads of one attention run together, and a lane has but its head to itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor, nn

from sltfast.restriction import Restriction
from sltfast.stacking.heads.assignment import NotHeads, assign
from sltfast.stacking.heads.attention import LaneAttention
from sltfast.stacking.heads.block import HeadBlock, Memo
from sltfast.stacking.heads.check import AttentionCall, attention_call, disagreement
from sltfast.stacking.heads.layout import layouts
from sltfast.stacking.heads.weights import LaneWeights
from sltfast.stacking.prefix.expansion import Expansion

DROPOUT_RATES = ("p", "attention_dropout", "dropout", "attn_dropout")


class HeadLanes:
    """R restrictions to heads of one attention × C chains = L lanes, l = r·C + c, in one pass.

    Lanes of one block differ in one head each, so that block expands from B to L·B rows as late as it can. With x the
    attention's input, z* the heads' features and y* its output at w*, h the heads of restriction r(l):

        y_l = base_r + z_l(x; w_l) W_o,l[h]^T,   base_r = y* - z*_h W_o[h]^T .

    The norm before the attention, a parallel MLP, the residual stream and base_r are computed once on B rows; z_l of
    all lanes in the attention's own forward, over a clone of it whose heads are the lanes.

    Attributes:
        block, block_name: the module that takes [B, T, d] and gives [L·B, T, d] while patched. Its masks and position
            embeddings stay those of B rows; every module after it needs those of L·B.
        lanes: L.
        layout: which of the attention's layouts is that of its heads.
    """

    def __init__(self, block_name: str, block: nn.Module, attention: LaneAttention, layout: int) -> None:
        self.layout = layout
        self.block_name, self.block = block_name, block
        self.lanes = attention.weights.lanes
        self._attention = attention
        self._patches: HeadBlock | None = None
        self._expansion: Expansion | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        restrictions: Sequence[Restriction],
        leaves: Sequence[Tensor],
        num_chains: int,
        run: Callable[[], Any],
        layout: int | None = None,
    ) -> tuple[HeadLanes | None, str]:
        """Recognise the heads, and check them on one batch.

        The attention is understood by its shapes and the segments that move; every layout that these allow is tried
        against the attention itself, with other weights in every lane, until one gives the same values.

        Args:
            model: the structural clone, weights frozen.
            restrictions: R congruent ones.
            leaves: one a segment, [R·C, *segment.shape], the lanes' weights.
            num_chains: C.
            run: runs the model on a few rows, without patches of this class.
            layout: which one was found right in another clone; nothing is run.

        Returns:
            The lanes and "", or None and the reason why the restrictions are no heads that are understood.
        """
        try:
            name = _attention_name(model, restrictions)
            attention = model.get_submodule(name)
            block_name = _block_name(model, name)
            block = model.get_submodule(block_name)
            _check_quiet(block, block_name)
            if layout is None:
                call = attention_call(attention, run)
                layout = _right_layout(attention, name, restrictions, num_chains, call)
            found = list(layouts(attention))[layout]
            weights = LaneWeights(found, assign(found, name, restrictions), leaves, len(restrictions) * num_chains)
        except NotHeads as reason:
            return None, str(reason)
        return cls(block_name, block, LaneAttention(attention, weights), layout), ""

    def apply(self, expansion: Expansion | None = None) -> None:
        """Patch the block.

        Args:
            expansion: shares the prefix up to this block, which expands late from now on; its memo keeps what lanes
                share in the block too. None: something else gives the block B rows, and later ones masks of L·B.

        Raises:
            ValueError: the expansion parts its lanes at another module.
        """
        if expansion is not None:
            expansion.expand_late(self)
        self._expansion = expansion
        self._patches = HeadBlock(self.block_name, self.block, self._attention, announced=expansion is not None)
        self._patches.apply()

    def restore(self) -> None:
        """Take the patches off."""
        if self._patches is not None:
            self._patches.restore()
        if self._expansion is not None:
            self._expansion.expand_late(None)
        self._patches = self._expansion = None

    def remember(self, memo: Memo | None, key: Hashable = None) -> None:
        """Keep in ``memo``, and take from it, what lanes share in the block of batch ``key``; None: no longer."""
        if self._patches is not None:
            self._patches.remember(memo, key)


def _right_layout(
    attention: nn.Module, name: str, restrictions: Sequence[Restriction], num_chains: int, call: AttentionCall
) -> int:
    reasons = [f"{type(attention).__name__} ({name}) has no projections whose shapes say which rows are a head's"]
    for number, (layout, tried) in enumerate(zip(layouts(attention), layouts(call.attention), strict=True)):
        try:
            assignment = assign(layout, name, restrictions)
        except NotHeads as reason:
            reasons.append(str(reason))
            continue
        apart = disagreement(call, tried, assignment, name, restrictions, num_chains)
        if not apart:
            return number
        reasons.append(apart)
    raise NotHeads(reasons[-1])


def _attention_name(model: nn.Module, restrictions: Sequence[Restriction]) -> str:
    """The module that holds every projection of which a part moves."""
    names = {segment.name for restriction in restrictions for segment in restriction.segments}
    found = {name.rpartition(".")[0].rpartition(".")[0] for name in names}
    if len(found) != 1:
        raise NotHeads(f"the moving weights lie in {sorted(found)}, not in one attention")
    homes: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        homes.setdefault(id(parameter), []).append(name)
    for same in homes.values():
        if names & set(same) and len(same) > 1:
            raise NotHeads(f"{same[0]} is tied to {same[1]}")
    return found.pop()


def _block_name(model: nn.Module, attention: str) -> str:
    """The nearest module around the attention that stands in a list of modules."""
    parts = attention.split(".")
    for end in range(len(parts) - 1, 0, -1):
        parent = model.get_submodule(".".join(parts[: end - 1]))
        if isinstance(parent, nn.ModuleList | nn.Sequential):
            return ".".join(parts[:end])
    raise NotHeads(f"{attention} lies in no block of a list of blocks")


def _check_quiet(block: nn.Module, name: str) -> None:
    for module in block.modules():
        rates = (getattr(module, attribute, 0.0) for attribute in DROPOUT_RATES)
        if module.training and any(isinstance(rate, float) and rate > 0 for rate in rates):
            raise NotHeads(f"{name} drops out in train mode: its lanes would share one mask")
    if block.training and getattr(block, "gradient_checkpointing", False):
        raise NotHeads(f"{name} recomputes its activations, which are few already")
