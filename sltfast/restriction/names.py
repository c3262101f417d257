"""The names of a model's parts: "l0", "l0 attn", "l0 mlp", "l0h1", "l0g0", "embed", "unembed", "full"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from torch import nn

from sltfast.restriction.anatomy import Anatomy, NotUnderstood
from sltfast.restriction.heads import Heads, heads_of
from sltfast.restriction.region import Region, plane_of

EVERYTHING = ("full", "all")
FORMS = "'full', 'embed', 'unembed', 'l0', 'l0 attn', 'l0 mlp', 'l0h1' (head), 'l0g0' (group of heads), 'all heads'"
PART = re.compile(r"l(\d+)(?: (attn|attention|mlp)|([hg])(\d+))?")
Regions = dict[str, Region]
_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, Parts]] = WeakKeyDictionary()


class Parts:
    """What the names of one model's parts select; heads are found once for every kind of attention.

    Nothing of the model is kept but names and shapes.
    """

    def __init__(self) -> None:
        self._anatomy: tuple[str, ...] | None = None
        self._heads: dict[object, Heads] = {}

    def regions(self, model: nn.Module, name: str) -> Regions | None:
        """Parameter name → the coordinates that ``name`` selects; None where it is no part's name.

        Raises:
            ValueError: the model has no such part.
            NotUnderstood: the model is built in a way that the part cannot be told.
        """
        words = " ".join(name.split())
        if words in EVERYTHING:
            return {
                key: Region.whole(plane_of(p.shape)) for key, p in model.named_parameters() if p.is_floating_point()
            }
        if words in ("embed", "unembed"):
            anatomy = self._of(model, needed=False)
            return _whole(model, [anatomy.embedding() if words == "embed" else anatomy.unembedding()])
        part = PART.fullmatch(words)
        if words != "all heads" and part is None:
            return None
        anatomy = self._of(model)
        if part is None:
            return _union(self._in_heads(anatomy, layer, None) for layer in range(len(anatomy.blocks)))
        layer, submodule, kind, index = int(part[1]), part[2], part[3], part[4]
        if layer >= len(anatomy.blocks):
            raise ValueError(f"{name!r}: {self._told(anatomy)}")
        if kind:
            return self._in_heads(anatomy, layer, (name, kind, int(index)))
        names: tuple[str, ...] = (anatomy.blocks[layer],)
        if submodule:
            names = anatomy.mlp(layer) if submodule == "mlp" else (anatomy.attention(layer),)
        return _whole(model, [model.get_submodule(inner) for inner in names])

    def head_names(self, model: nn.Module) -> list[str]:
        """Names of all heads, layer by layer."""
        anatomy = self._of(model)
        return [
            f"l{layer}h{head}"
            for layer in range(len(anatomy.blocks))
            for head in range(len(self._heads_of(anatomy, layer).regions))
        ]

    def names(self, model: nn.Module) -> list[str]:
        """Every name that selects something; parts that this model does not have, or that cannot be told, left out."""
        names = [EVERYTHING[0], *(part for part in ("embed", "unembed") if self._has(model, part))]
        try:
            anatomy = self._of(model)
        except NotUnderstood:
            return names
        for layer in range(len(anatomy.blocks)):
            names += [f"l{layer}", *(part for part in (f"l{layer} attn", f"l{layer} mlp") if self._has(model, part))]
            try:
                heads = self._heads_of(anatomy, layer)
            except NotUnderstood:
                continue
            names += [f"l{layer}h{head}" for head in range(len(heads.regions))]
            if len(heads.groups) < len(heads.regions):
                names += [f"l{layer}g{group}" for group in range(len(heads.groups))]
        return names

    def _has(self, model: nn.Module, name: str) -> bool:
        try:
            return bool(self.regions(model, name))
        except ValueError:
            return False

    def _of(self, model: nn.Module, *, needed: bool = True) -> Anatomy:
        if self._anatomy is None:
            try:
                self._anatomy = Anatomy.of(model).blocks
            except NotUnderstood:
                if needed:
                    raise
                return Anatomy(model, ())
        return Anatomy(model, self._anatomy)

    def _heads_of(self, anatomy: Anatomy, layer: int) -> Heads:
        """The heads of one layer; layers whose attentions have equal types and shapes have equal heads."""
        attention = anatomy.attention(layer)
        module = anatomy.model.get_submodule(attention)
        kind = (type(module), tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))
        if kind not in self._heads:
            self._heads[kind] = heads_of(anatomy.model, attention)
        return self._heads[kind]

    def _in_heads(self, anatomy: Anatomy, layer: int, one: tuple[str, str, int] | None) -> Regions:
        """Coordinates of one head or group of a layer, or of all its heads."""
        heads = self._heads_of(anatomy, layer)
        chosen: tuple[int, ...] = tuple(range(len(heads.regions)))
        if one is not None:
            name, kind, index = one
            sets = heads.groups if kind == "g" else tuple((head,) for head in chosen)
            if index >= len(sets):
                what = "groups of heads" if kind == "g" else "heads"
                raise ValueError(
                    f"{name!r}: layer {layer} has {len(sets)} {what} (l{layer}{kind}0..l{layer}{kind}{len(sets) - 1})"
                )
            chosen = sets[index]
        attention = anatomy.model.get_submodule(anatomy.attention(layer))
        first = _first_names(anatomy.model)
        by_head = ({first[id(attention.get_parameter(k))]: r for k, r in heads.regions[h].items()} for h in chosen)
        return _union(by_head)

    def _told(self, anatomy: Anatomy) -> str:
        """What the model has, for an error."""
        try:
            heads = f" of {len(self._heads_of(anatomy, 0).regions)} heads"
        except NotUnderstood:
            heads = ""
        count = len(anatomy.blocks)
        return f"the model has {count} layer{'s' * (count > 1)} (l0..l{count - 1}){heads}"


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model, remembered for as long as it lives and keeps its parameters' names and shapes."""
    kind = (type(model), tuple((name, tuple(p.shape)) for name, p in model.named_parameters(remove_duplicate=False)))
    known = _KNOWN.get(model)
    if known is None or known[0] != kind:
        known = _KNOWN[model] = (kind, Parts())
    return known[1]


def closest(name: str, parameters: list[str]) -> str:
    """What a name that selects nothing may have meant, for an error."""
    close = difflib.get_close_matches(name, parameters, n=3, cutoff=0.3) or parameters[:3]
    return (
        f"the closest are {', '.join(map(repr, close))} (see model.named_parameters()); parts of a language model are "
        f"called {FORMS}"
    )


def _first_names(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _whole(model: nn.Module, modules: list[nn.Module]) -> Regions:
    first = _first_names(model)
    return {first[id(p)]: Region.whole(plane_of(p.shape)) for module in modules for p in module.parameters()}


def _union(parts: Iterable[Regions]) -> Regions:
    together: Regions = {}
    for part in parts:
        for name, region in part.items():
            together[name] = together[name].union(region) if name in together else region
    return together
