"""Where the parts of a language model are: its blocks, their attention and MLP, embedding and unembedding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
MLP = re.compile(r"mlp|ffn|feed_?forward|^ff$|moe|expert|^fc_?\d|^lin\d|^intermediate|^output$", re.IGNORECASE)
MIXER = re.compile(r"mamba|mixer|ssm|conv|rnn|recurrent|delta|temporal|rwkv|norm|^ln", re.IGNORECASE)
SIZES_OF_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


class NotUnderstood(ValueError):
    """The model is built in a way that a named part cannot be read off; a mask says it instead."""


@dataclass(frozen=True)
class Anatomy:
    """Names of the modules that the parts of a restriction are made of.

    Attributes:
        model: the model.
        blocks: name of each decoder block, l0 first.
    """

    model: nn.Module
    blocks: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Find the blocks: the list of modules that attend; of several the one as long as the config says, or in the
        decoder. Without attention, the list as long as the config says.

        Raises:
            NotUnderstood: no such list, or several.
        """
        found = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) and all(map(_has_matrix, module))
        }
        attending = {name for name, module in found.items() if any(map(_attentions, module))}
        depth = _depth(model)
        deep = {name for name, module in found.items() if len(module) == depth}
        outer = _outermost(attending or deep)
        if len(outer) > 1:
            outer = [name for name in outer if name in deep] or outer
        if len(outer) > 1:
            decoder = _asked(model, "get_decoder")
            outer = [name for name in outer if any(m is found[name] for m in decoder.modules())] if decoder else outer
        if len(outer) != 1:
            raise NotUnderstood(
                f"{type(model).__name__} has {_several(outer)} of blocks with attention: parts like 'l0' or 'l0h1' "
                "cannot be told; name parameters (globs allowed), or give a mapping from parameter name to mask"
            )
        return cls(model, tuple(f"{outer[0]}.{child}" for child, _ in found[outer[0]].named_children()))

    def attention(self, layer: int) -> str:
        """Name of the attention of one block.

        Raises:
            NotUnderstood: the block has none, or several.
        """
        block = self.blocks[layer]
        names = _attentions(self.model.get_submodule(block))
        if len(names) != 1:
            children = [name for name, _ in self.model.get_submodule(block).named_children()]
            raise NotUnderstood(
                f"l{layer} ({block}) has {'more than one' if names else 'no'} attention among its modules {children}"
                ": name its parameters (globs allowed), or give a mapping from parameter name to mask"
            )
        return f"{block}.{names[0]}"

    def mlp(self, layer: int) -> tuple[str, ...]:
        """Names of the modules that are the MLP of one block (mixture of experts and router included).

        Raises:
            NotUnderstood: the block has none.
        """
        block = self.blocks[layer]
        others = [
            name
            for name, child in self.model.get_submodule(block).named_children()
            if _has_matrix(child) and not ATTENTION.search(name) and not ATTENTION.search(type(child).__name__)
        ]
        names = [name for name in others if MLP.search(name)] or [name for name in others if not MIXER.search(name)]
        if not names:
            children = [name for name, _ in self.model.get_submodule(block).named_children()]
            raise NotUnderstood(
                f"l{layer} ({block}) has no MLP among its modules {children}: name its parameters (globs allowed), or "
                "give a mapping from parameter name to mask"
            )
        return tuple(f"{block}.{name}" for name in names)

    def embedding(self) -> nn.Module:
        """The module that holds the token embedding.

        Raises:
            NotUnderstood: the model does not say which it is, and more or fewer than one fit.
        """
        module = _asked(self.model, "get_input_embeddings")
        if module is None and hasattr(getattr(self.model, "embed", None), "W_E"):
            module = self.model.embed  # TransformerLens
        if isinstance(module, nn.Module):
            return module
        tables = self._outside(nn.Embedding)
        if len(tables) > 1:
            heads = {m.weight.shape for m in self._outside(nn.Linear)}
            tables = [table for table in tables if table.weight.shape in heads]
        return self._only("token embedding", tables)

    def unembedding(self) -> nn.Module:
        """The module that turns hidden states into logits.

        Raises:
            NotUnderstood: the model does not say which it is, and more or fewer than one fit.
        """
        module = _asked(self.model, "get_output_embeddings")
        if module is None and hasattr(getattr(self.model, "unembed", None), "W_U"):
            module = self.model.unembed  # TransformerLens
        if isinstance(module, nn.Module):
            return module
        table = getattr(self.embedding(), "weight", None)
        fitting = [m for m in self._outside(nn.Linear) if table is not None and m.weight.shape == table.shape]
        return self._only("unembedding", fitting)

    def _outside(self, kind: type[nn.Module]) -> list[Any]:
        """Modules of a kind that are in no block."""
        return [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, kind) and not any(_inside(name, block) for block in self.blocks)
        ]

    def _only(self, part: str, modules: list[Any]) -> nn.Module:
        if len(modules) != 1:
            raise NotUnderstood(
                f"{type(self.model).__name__} has {len(modules)} modules that could be its {part}: give the "
                f"parameter's name instead (such as {next(iter(dict(self.model.named_parameters())))!r})"
            )
        module: nn.Module = modules[0]
        return module


def text_config(model: nn.Module) -> Any:
    """The config of the language model inside ``model``, or None."""
    config = getattr(model, "config", None) or getattr(model, "cfg", None)
    inner = getattr(config, "get_text_config", None)
    return inner(decoder=True) if callable(inner) else config


def _depth(model: nn.Module) -> int | None:
    config = text_config(model)
    sizes = (getattr(config, name, None) for name in SIZES_OF_LAYERS)
    return next((size for size in sizes if isinstance(size, int)), None)


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _attentions(block: nn.Module) -> list[str]:
    """Names of the children that attend to the block's own sequence."""
    return [
        name
        for name, child in block.named_children()
        if _has_matrix(child)
        and (ATTENTION.search(name) or ATTENTION.search(type(child).__name__))
        and not CROSS.search(name)
        and not (MLP.search(name) and not ATTENTION.search(name))
    ]


def _asked(model: nn.Module, method: str) -> Any:
    ask = getattr(model, method, None)
    if not callable(ask):
        return None
    try:
        return ask()
    # what transformers raises for a model that has no such module, and what a wrapper raises around one
    except (NotImplementedError, AttributeError):
        return None


def _outermost(names: set[str]) -> list[str]:
    return sorted(name for name in names if not any(_inside(name, other) for other in names))


def _inside(name: str, other: str) -> bool:
    return name != other and name.startswith(f"{other}." if other else "")


def _several(names: Iterable[str]) -> str:
    listed = ", ".join(map(repr, names))
    return f"several lists ({listed})" if listed else "no list"
