"""Whose losses move together? The loss kernel of a model of two tasks, and of a classifier of digits. (2 minutes)

Two sub-networks that share no weight learn a task each: losses of different tasks are independent under the posterior,
and the kernel falls into two blocks. A classifier of scikit-learn's handwritten digits: the losses of images of one
class move together, and the embedding of the kernel is by class (Adam, Furman & Hoogland 2509.26537).

python examples/loss_kernel_blocks.py --figure loss_kernel_blocks.png
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import sltfast
from sltfast.analysis import BlockContrast, block_contrast, nearest_neighbours
from sltfast.demo.checks import Checks
from sltfast.extras import require
from sltfast.plotting.style import CHAIN_COLOURS, new_figure


class TwoTasks(nn.Module):
    """A network for each task, without a weight in common."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1)) for _ in range(2))

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        first, second = (part(x).squeeze(-1) for part in self.parts)
        return torch.where(task == 0, first, second)


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, task, y = batch
    return (model(x, task) - y).square() / 2


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def trained(model: nn.Module, data: tuple[Tensor, ...], loss_fn: Callable[..., Tensor], steps: int) -> nn.Module:
    """The model after some steps of Adam on all rows."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model, data).mean().backward()
        optimizer.step()
    return model.eval()


def two_tasks(draws: int, width: int) -> tuple[np.ndarray, BlockContrast]:
    """The correlations of 80 losses, task by task, and how far they agree within a task and across."""
    torch.manual_seed(0)
    x, task = torch.randn(400, 4), torch.arange(400) % 2
    y = torch.where(task == 0, torch.sin(x[:, 0] + x[:, 1]), x[:, 2] * x[:, 3]) + 0.1 * torch.randn(400)
    data = (x, task, y)
    tree = sltfast.sample(
        trained(TwoTasks(width), data, squared_error, 400),
        data,
        {"rows": (tuple(part[:80] for part in data), 1)},
        loss_fn=squared_error,
        lr=4e-3,
        n_beta=100.0,
        localization=20.0,
        batch_size=80,
        num_chains=8,
        num_draws=draws,
        num_burnin_steps=100,
        num_steps_bw_draws=10,
        match_sampling_input_ids_across_chains=False,
        save_token_losses=False,
    )
    kernel = sltfast.compute_loss_kernel(tree)["correlation"].values
    of_row = task[:80].numpy()[tree["rows_rows"].values]
    by_task = np.argsort(of_row, kind="stable")
    return kernel[np.ix_(by_task, by_task)], block_contrast(kernel, of_row)


def digits(draws: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray, BlockContrast]:
    """Points of the embedded kernel of images, their classes, and how far losses agree within a class and across."""
    found = require("sklearn.datasets", extra="analysis", purpose="for its images of digits").load_digits()
    torch.manual_seed(0)
    order = torch.randperm(len(found.target))
    x = torch.tensor(found.data / 16, dtype=torch.float32)[order]
    y = torch.tensor(found.target)[order]
    network = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    tree = sltfast.sample(
        trained(network, (x[:1000], y[:1000]), cross_entropy, 150),
        (x[:1000], y[:1000]),
        {"images": ((x[-count:], y[-count:]), 1)},  # not seen in training
        loss_fn=cross_entropy,
        lr=1e-3,
        n_beta=300.0,
        localization=100.0,
        batch_size=count,
        num_chains=4,
        num_draws=draws,
        num_burnin_steps=100,
        num_steps_bw_draws=10,
        match_sampling_input_ids_across_chains=False,
        save_token_losses=False,
    )
    kernel = sltfast.compute_loss_kernel(tree)
    classes = y[-count:].numpy()[tree["rows_images"].values]
    return sltfast.embed(kernel)["embedding"].values, classes, block_contrast(kernel["correlation"].values, classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=300, help="of each chain")
    parser.add_argument("--images", type=int, default=300, help="of digits, of at most 797 that training does not see")
    parser.add_argument("--full", action="store_true", help="wider networks, 797 images and 2 000 draws, for a GPU")
    parser.add_argument("--figure", default="loss_kernel_blocks.png", help="write the figure to this file")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.draws, arguments.images = 2000, 797

    checks = Checks()
    kernel, tasks = two_tasks(arguments.draws, 256 if arguments.full else 16)
    print(f"two tasks: R within {tasks.within:.3f}, across {tasks.across:.4f} (rms {tasks.across_rms:.3f})")
    # draws that forget each other leave 1/√(8·draws) across; flat directions forget in 1/(εγ/2) = 25 steps, losses in
    # half of that, and a draw comes every 10: an effective size of at least a quarter, twice the error
    limit = 2 / np.sqrt(8 * arguments.draws)
    checks.holds("tasks without a weight in common", tasks.across_rms < limit, f"{tasks.across_rms:.3f} < {limit:.3f}")
    found = f"{tasks.within - tasks.across:.3f}, p = {tasks.p_value:.3f}"
    checks.holds("losses of one task agree more", tasks.p_value <= 0.01, found)

    points, classes, images = digits(arguments.draws, 512 if arguments.full else 32, arguments.images)
    near = nearest_neighbours(points, 5)
    same = float((classes[near] == classes[:, None]).mean())
    chance = float((np.bincount(classes) ** 2).sum() / len(classes) ** 2)
    print(f"digits: R within {images.within:.3f}, across {images.across:.3f}")
    found = f"{images.within - images.across:.3f}, p = {images.p_value:.3f}"
    checks.holds("losses of one class agree more", images.p_value <= 0.01, found)
    # the neighbours of one image count as one: n images, each with a share that varies at most like a coin's
    error = np.sqrt(chance * (1 - chance) / len(classes))
    found = f"{same:.0%}; {chance:.0%} ± {error:.0%} by chance"
    checks.holds("near points are of one class (4 SE)", same > chance + 4 * error, found)
    draw(arguments.figure, kernel, points, classes)
    checks.finish()


def draw(path: str, kernel: np.ndarray, points: np.ndarray, classes: np.ndarray) -> None:
    """The kernel of two tasks, and the images in the plane."""
    with new_figure(8.4, 4.0) as figure:
        left, right = figure.subplots(1, 2)
        image = left.imshow(kernel, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        left.set_title("R of 80 items, two tasks without a common weight")
        left.grid(visible=False)
        figure.colorbar(image, ax=left, shrink=0.8)
        for digit in range(10):
            colour = (*CHAIN_COLOURS, "#222222", "#e377c2")[digit]
            right.scatter(*points[classes == digit, :2].T, s=0)
            for x, y in points[classes == digit, :2]:
                right.text(x, y, str(digit), color=colour, fontsize=7, ha="center", va="center")
        right.set_title("images of digits, by how their losses move")
        right.set_xticks([])
        right.set_yticks([])
    sltfast.plotting.save(figure, path, dpi=100)


if __name__ == "__main__":
    main()
