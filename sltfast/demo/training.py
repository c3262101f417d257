"""Train the demonstration's model and keep its checkpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sltfast.demo.plans import TrainingPlan
from sltfast.extras import require
from sltfast.inputs.corpus import BYTES, SEPARATOR_BYTE
from sltfast.inputs.pretrained import quiet_loading
from sltfast.isolation import isolated_rng

RECORD = "training.json"


@dataclass(frozen=True)
class Trained:
    """A finished training run.

    Attributes:
        checkpoints: model directories by training step, ascending.
        losses: mini-batch loss of every step (nats per token).
    """

    checkpoints: dict[int, Path]
    losses: list[float]


def new_model(plan: TrainingPlan) -> nn.Module:
    """A freshly initialised GPT-NeoX over bytes; the global random state is left alone."""
    transformers = require("transformers", extra="hf", purpose="for the demonstration's model")
    config = transformers.GPTNeoXConfig(
        vocab_size=BYTES,
        hidden_size=plan.hidden_size,
        intermediate_size=4 * plan.hidden_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        max_position_embeddings=plan.context,
        bos_token_id=SEPARATOR_BYTE,
        eos_token_id=SEPARATOR_BYTE,
        use_cache=False,
    )
    with isolated_rng(plan.seed):
        model: nn.Module = transformers.GPTNeoXForCausalLM(config)
    return model


def train(plan: TrainingPlan, rows: Tensor, folder: str | Path, *, progress: bool = True) -> Trained:
    """Train on `rows` and save checkpoints that `from_pretrained` and `sltfast llc` read.

    A folder that holds this very run, complete, is read instead.

    Args:
        plan: the model and its training.
        rows: token ids, int64 [rows, context].
        folder: where the checkpoints go, made if need be.
        progress: show a progress bar.

    Returns:
        The checkpoints and the loss curve.

    Raises:
        ValueError: the folder holds another run.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"plan": asdict(plan), "rows": _digest(rows)}
    paths = {step: folder / f"step-{step:06d}" for step in plan.checkpoint_steps()}
    record = folder / RECORD
    if record.exists():
        found = json.loads(record.read_text("utf-8"))
        if found["identity"] != identity:
            raise ValueError(
                f"{folder} holds a training run with other settings or text: give another folder, or remove it"
            )
        return Trained(paths, found["losses"])
    losses = _loop(plan, rows, paths, progress)
    record.write_text(json.dumps({"identity": identity, "losses": losses}), "utf-8")
    return Trained(paths, losses)


def _loop(plan: TrainingPlan, rows: Tensor, paths: dict[int, Path], progress: bool) -> list[float]:
    from tqdm.auto import tqdm

    model: Any = new_model(plan)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    generator = torch.Generator().manual_seed(plan.seed)
    losses: list[float] = []
    with tqdm(total=plan.steps, desc="training", unit="step", disable=not progress, dynamic_ncols=True) as bar:
        for step in range(plan.steps):
            batch = rows[torch.randint(len(rows), (plan.batch_size,), generator=generator)]
            logits = model(input_ids=batch).logits
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if step + 1 in paths:
                with quiet_loading():
                    model.save_pretrained(paths[step + 1])
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
    return losses


def _digest(rows: Tensor) -> str:
    return hashlib.blake2b(rows.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
