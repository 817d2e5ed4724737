"""Two runs of CS231n's assignment 2 on CIFAR-10, with the course's own names; each writes its figure.

    python examples/cs231n_cifar10.py epoch cifar-10-python.tar.gz        # one epoch: above 50 % validation accuracy
    python examples/cs231n_cifar10.py overfit cifar-10-python.tar.gz      # 100 images, learned by heart

The archive is the official one, in its python or binary version, or a folder with its batches. Needs matplotlib:
pip install "fastconv[train]".
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastconv import runtime
from fastconv.compat.cs231n.classifiers.cnn import ThreeLayerConvNet
from fastconv.compat.cs231n.data_utils import get_CIFAR10_data
from fastconv.compat.cs231n.solver import Solver
from fastconv.compat.cs231n.vis_utils import visualize_grid

# The notebook's settings but for three numbers: its epoch has weight_scale 1e-3, learning_rate 1e-3 and hidden_dim 500.
RUNS = {
    "epoch": {
        "net": {"weight_scale": 1e-2, "reg": 1e-3},
        "solver": {"num_epochs": 1, "batch_size": 50, "optim_config": {"learning_rate": 3e-4}, "print_every": 20},
    },
    "overfit": {
        "net": {"weight_scale": 1e-2},
        "solver": {"num_epochs": 15, "batch_size": 50, "optim_config": {"learning_rate": 1e-3}, "print_every": 1},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("data", type=Path, help="CIFAR-10's archive or folder")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the figure goes (default: here)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-training", type=int, default=49000, metavar="N")
    parser.add_argument("--num-validation", type=int, default=1000, metavar="N")
    options = parser.parse_args()

    data = get_CIFAR10_data(options.data, options.num_training, options.num_validation, num_test=0)
    if options.run == "overfit":
        data |= {"X_train": data["X_train"][:100], "y_train": data["y_train"][:100]}
    np.random.seed(options.seed)
    model = ThreeLayerConvNet(**RUNS[options.run]["net"])
    solver = Solver(model, data, update_rule="adam", **RUNS[options.run]["solver"])
    started, compiled = time.perf_counter(), runtime.compile_seconds()
    solver.train()
    seconds, compiled = time.perf_counter() - started, runtime.compile_seconds() - compiled

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"cs231n_{options.run}.png"
    draw(solver, f"ThreeLayerConvNet, {options.run}").savefig(path)
    print(f"training accuracy    {solver.train_acc_history[-1]:.2%}")
    print(f"validation accuracy  {solver.val_acc_history[-1]:.2%}")
    print(f"time                 {seconds:.1f} s, accuracies included; {compiled:.1f} s of it compiling")
    print(f"figure               {path}")


def draw(solver: Solver, title: str) -> Figure:
    """Loss of every iteration, accuracies, filters."""
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="constrained")
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    left.plot(solver.loss_history, ".", markersize=3, color="#2a6f97")
    left.set(xlabel="iteration", title="loss")
    for name, history in (("training", solver.train_acc_history), ("validation", solver.val_acc_history)):
        middle.plot(history, "o-", markersize=4, label=f"{name} (last {history[-1]:.1%})")
    middle.set(xlabel="epoch", title="accuracy", ylim=(0, 1.02))
    middle.xaxis.set_major_locator(MaxNLocator(integer=True))
    middle.legend(loc="center right")
    right.imshow(visualize_grid(solver.model.params["W1"].transpose(0, 2, 3, 1)).astype(np.uint8))
    right.set_title("filters")
    right.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
