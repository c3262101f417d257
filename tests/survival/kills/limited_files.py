"""A run in a process whose files may not grow past so many bytes: "path bytes"."""

import resource
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(path):
    from models import Mlp, regression_data, regression_loss

    import sltfast

    data = regression_data()
    settings = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 200, "batch_size": 8, "progress": False}
    engine = {"engine": "stacked", "chains_per_pass": 1}
    sltfast.sample(Mlp(), data, {"o": (data, 1)}, output_path=path, loss_fn=regression_loss, **settings, **engine)


def main():
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    path, limit = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does: the write fails, the process lives
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run(path)
    except OSError as error:
        print(error.errno, error, *error.__notes__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
