"""The learning coefficient of a small transformer along its training on CPython's own sources (about 3 minutes).

    python examples/llc_over_training.py --output-dir llc-over-training

The functions behind `sltfast demo`, called from Python.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from sltfast.demo import SMALL, Plan, Point, follow_training, results_table, write_figures, write_results


def show(point: Point) -> None:
    print(f"step {point.step}: loss {point.loss:.3f}, λ̂ = {point.llc:.2f} ± {point.se:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=Path("llc-over-training"))
    parser.add_argument("--steps", type=int, default=SMALL.training.steps, help="of training")
    parser.add_argument("--checkpoints", type=int, default=SMALL.training.checkpoints)
    parser.add_argument("--draws", type=int, default=SMALL.sampling.num_draws, help="of each chain")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the model is too small for more
    plan = Plan(
        dataclasses.replace(SMALL.training, steps=arguments.steps, checkpoints=arguments.checkpoints),
        dataclasses.replace(SMALL.sampling, num_draws=arguments.draws),
    )
    followed = follow_training(plan, arguments.output_dir, report=show)
    print(results_table(followed.points))
    for path in (write_results(followed.points, arguments.output_dir), *write_figures(followed, arguments.output_dir)):
        print(path)


if __name__ == "__main__":
    main()
