"""LeNet-5 on MNIST: above 99 % of the test images in less than a minute on two cores.

    python examples/mnist.py PATH                                               # the folder with the four IDX files
    python examples/mnist.py PATH --activation tanh --pooling average           # as in 1998
    python examples/mnist.py PATH --optimizer sgd                               # momentum, a rate that falls in steps
    python examples/mnist.py PATH --activation sigmoid --pooling average --optimizer sgd       # all of it with sigmoids

Writes to --out (default: mnist/): model.npz, history.csv, and training.png, seconds.png, filters.png,
misclassified.png. `sgd` is plain stochastic gradient descent with momentum 0.9 and a rate that falls in steps, to a
fifth after each third of the epochs; `adam` falls along a cosine and moves images by up to a pixel at random.
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from pathlib import Path

from fastconv import datasets, nn, plots, runtime

RATES = {"adam": 4e-3, "sgd": 0.05}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description="LeNet-5 on MNIST", allow_abbrev=False)
    parser.add_argument("path", type=Path, help="the folder with MNIST's four IDX files, gzipped or not")
    parser.add_argument("--activation", choices=("relu", "tanh", "sigmoid"), default="relu")
    parser.add_argument("--pooling", choices=("max", "average"), default="max")
    parser.add_argument("--optimizer", choices=sorted(RATES), default="adam")
    parser.add_argument("--lr", type=float, help=f"learning rate; by default {RATES}")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("mnist"))
    return parser.parse_args(arguments)


def make_trainer(model, options):
    rate = options.lr or RATES[options.optimizer]
    if options.optimizer == "sgd":
        optimizer = nn.SGD(model.parameters(), lr=rate, momentum=0.9)
        return nn.Trainer(model, optimizer, schedule=nn.schedules.step_decay(max(options.epochs / 3, 1), 0.2))
    optimizer = nn.Adam(model.parameters(), lr=rate)
    schedule = nn.schedules.cosine(options.epochs)
    return nn.Trainer(model, optimizer, schedule=schedule, augment=nn.augment.random_shift(1))


def seconds_figure(history):
    """Accuracy on test images by seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot(list(accumulate(history.seconds)), history.val_accuracy, marker="o", markersize=4)
    axes.axhline(0.99, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="seconds of training", title="accuracy on test images", xlim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.grid(alpha=0.3)
    return figure


def main(arguments=None):
    options = parse(arguments)
    data = datasets.mnist(options.path)
    model = nn.models.lenet5(activation=options.activation, pooling=options.pooling)
    print(data, model.summary(), sep="\n\n", end="\n\n")
    test = data.x_test, data.y_test
    history = make_trainer(model, options).fit(
        data.x_train, data.y_train, epochs=options.epochs, batch_size=options.batch_size, validation=test
    )

    seconds = list(accumulate(history.seconds))
    early = [accuracy for second, accuracy in zip(seconds, history.val_accuracy, strict=True) if second <= 10]
    print(f"\ntest accuracy    {history.val_accuracy[-1]:.2%} after {seconds[-1]:.1f} s of training")
    if early:
        print(f"                 {early[-1]:.2%} within the first 10 s")
    print(f"compiling        {runtime.compile_seconds():.1f} s of it (kept on disk for the next run)")
    options.out.mkdir(parents=True, exist_ok=True)
    nn.save(options.out / "model.npz", model, network="lenet5", classes=data.classes)
    history.save(options.out / "history.csv")
    scores = model.predict(data.x_test)
    title = f"LeNet-5 on MNIST: {options.activation}, {options.pooling} pooling, {options.optimizer}"
    figures = {
        "training.png": plots.history_figure(history, title=title),
        "seconds.png": seconds_figure(history),
        "filters.png": plots.filter_grid(model),
        "misclassified.png": plots.misclassified_grid(*test, scores, data.classes),
    }
    for name, figure in figures.items():
        figure.savefig(options.out / name)
    print(f"saved            {options.out}/: model.npz, history.csv, {', '.join(figures)}")
    return history


if __name__ == "__main__":
    main()
