"""Which heads of a small transformer are complex? One pass samples them all, each as if it were alone.

A two-layer transformer learns sequences whose second half repeats the first. For every head and every MLP the refined
LLC λ̂ of its weights alone is estimated (Wang et al. 2410.02984): chains of one layer share what lies below it, and
heads of one attention share a pass.

python examples/heads_side_by_side.py --figure heads.png
"""

import argparse

import torch
from torch import Tensor, nn

import sltfast

VOCABULARY, HALF = 32, 8


def rows(count: int, seed: int) -> Tensor:
    """Token ids [count, 2·HALF]: random, then the same again."""
    half = torch.randint(VOCABULARY, (count, HALF), generator=torch.Generator().manual_seed(seed))
    return torch.cat([half, half], dim=1)


def trained(steps: int) -> nn.Module:
    """A transformer that has learnt to repeat."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=2 * HALF,
            )
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(steps):
            batch = rows(64, seed=step)
            loss = model(batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training-steps", type=int, default=600)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--figure", help="write a bar chart to this file")
    arguments = parser.parse_args()

    model = trained(arguments.training_steps)
    names = [*sltfast.head_names(model), "l0 mlp", "l1 mlp"]
    runs = sltfast.sample_restrictions(
        model,
        rows(512, seed=10**6),
        weight_restrictions={name: name for name in names},
        lr=1e-3,
        n_beta=80.0,
        localization=30.0,
        num_chains=4,
        num_burnin_steps=arguments.draws // 3,
        num_draws=arguments.draws,
        batch_size=16,
    )
    estimates = {name: sltfast.compute_llc(tree) for name, tree in runs.items()}
    for name, estimate in estimates.items():
        weights = runs[name].attrs["metrics_numel"]
        print(
            f"{name:7} λ̂ = {float(estimate.llc_mean):6.2f} ± {float(estimate.llc_se):4.2f} of {weights:5d} weights, "
            f"{estimate.attrs['verdict']}"
        )
    plan = runs[names[0]].attrs["sltfast"]["plan"]
    print(f"{plan['restrictions_per_pass']} restrictions a pass, lanes part at {plan['lanes_part_at']}")
    if arguments.figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.add_subplot()
        values = [float(estimate.llc_mean) for estimate in estimates.values()]
        errors = [1.96 * float(estimate.llc_se) for estimate in estimates.values()]
        axes.bar(list(estimates), values, yerr=errors, capsize=3, color="#4477aa")
        axes.set_ylabel("refined λ̂ (95 % interval)")
        axes.spines[["top", "right"]].set_visible(False)
        sltfast.plotting.save(figure, arguments.figure)


if __name__ == "__main__":
    main()
