"""Three long runs on CIFAR-10; each is one command that writes its model, history and figures.

    python examples/cifar10.py vgg PATH              # VGG-like net, no augmentation
    python examples/cifar10.py vgg-augmented PATH    # the same net and epochs, with flips and shifts
    python examples/cifar10.py airbench PATH         # the way to 94 %

PATH is the official archive (python or binary version) or a folder with its batches. The networks are

- VGG-like: [(conv - BN - relu) * A - pool] * 4 - linear - BN - relu - dropout - linear, 64, 64, 128 and 256 filters in
  2, 2, 3 and 3 layers; 10 epochs of batches of 50, one cycle of SGD with Nesterov's momentum, label smoothing; without
  augmentation also dropout after each pooling and twice the weight decay;
- airbench (K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024) after the paper's recipe, but for 15
  epochs of batches of 500: whitened patches, label smoothing, shifts and alternating flips, Nesterov's momentum with
  64 times the rate for the shifts of batch normalisation, lookahead; test images are seen in six views.

Writes to --out (default: the run's name): model.npz, history.csv, history.json, report.json, training.png, seconds.png.
Needs matplotlib: pip install "fastconv[train]".
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv import datasets, nn, plots, runtime, softmax_cross_entropy
from fastconv.nn import augment, schedules

LAYOUT = "NHWC"  # two Zen 3 cores, in turns: a step of the VGG-like net takes 167 ms, in "NCHW" 188


class Recipe(NamedTuple):
    epochs: int
    batch_size: int
    lr: float
    build: Callable[[], nn.Sequential]
    trainer: Callable[..., nn.Trainer]
    callbacks: Callable[[], list[nn.Callback]] = list
    views: tuple[bool, int] = (False, 0)  # mirror and shift of `Sequential.predict`


vgg_like = partial(nn.models.vgg_like, widths=(64, 64, 128, 256), depths=(2, 2, 3, 3), hidden=512, layout=LAYOUT)


def vgg_trainer(model, lr, epochs, *, weight_decay, **augmentation):
    optimizer = nn.SGD(
        model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay, decay_biases=False
    )
    return nn.Trainer(
        model,
        optimizer,
        loss=partial(softmax_cross_entropy, label_smoothing=0.1),
        schedule=schedules.one_cycle(epochs, warmup=0.25),
        **augmentation,
    )


def airbench_trainer(model, lr, epochs):
    """The first layer's weight, made by `whiten`, and the scales of batch normalisation are not trained."""
    trained = [p for p in model.parameters() if p.name != "0.weight" and not p.name.endswith(".gamma")]
    optimizer = nn.SGD(trained, lr=lr, momentum=0.85, nesterov=True, weight_decay=1.33e-3, rates={"*.beta": 64})
    return nn.Trainer(
        model,
        optimizer,
        loss=partial(softmax_cross_entropy, label_smoothing=0.2),
        schedule=schedules.one_cycle(epochs, warmup=0.23, start=0.2, final=0.07),
        augment=augment.random_shift(2, padding="reflect", layout=LAYOUT),
        alternate_flip=True,
    )


def airbench_callbacks():
    return [nn.Lookahead(5, alpha=lambda progress: 1 - 0.95**5 * progress**3)]


# The paper's rate, 11.5 for a thousand examples with momentum 0.85: 11.5 / (1024 * (1 + 1 / 0.15)) for each of 500.
RECIPES = {
    "vgg": Recipe(
        10, 50, 0.05, partial(vgg_like, dropout=0.5, pool_dropout=0.1), partial(vgg_trainer, weight_decay=1e-3)
    ),
    "vgg-augmented": Recipe(
        10,
        50,
        0.03,
        vgg_like,
        partial(
            vgg_trainer,
            weight_decay=5e-4,
            augment=augment.random_shift(4, padding="reflect", layout=LAYOUT),
            alternate_flip=True,
        ),
        views=(True, 0),
    ),
    "airbench": Recipe(
        15, 500, 0.73, partial(nn.models.airbench, layout=LAYOUT), airbench_trainer, airbench_callbacks, (True, 1)
    ),
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RECIPES)
    parser.add_argument("data", type=Path, help="CIFAR-10's archive or folder")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--images", type=int, help="train on the first so many images only, for a quick look")
    parser.add_argument("--out", type=Path, help="where the results go")
    return parser.parse_args(arguments)


def prepared(images, mean, std):
    """(N, 3, 32, 32) from 0 to 1 as (N, 32, 32, 3) of mean 0 and deviation 1."""
    return np.ascontiguousarray((images.transpose(0, 2, 3, 1) - mean) / std, np.float32)


def seconds_figure(history, accuracy, views, title):
    """Accuracy on test images by minutes of training; at the end also that of several views."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    minutes = [second / 60 for second in accumulate(history.seconds)]
    label = f"one view of each image (last {history.val_accuracy[-1]:.2%})"
    axes.plot(minutes, history.val_accuracy, "o-", markersize=4, color="#2a6f97", label=label)
    if views > 1:
        axes.plot(minutes[-1], accuracy, "*", markersize=11, color="#e07b1a", label=f"{views} views ({accuracy:.2%})")
    axes.set(xlabel="minutes of training", ylabel="accuracy on test images", title=title, xlim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def main(arguments=None):
    options = parse(arguments)
    recipe = RECIPES[options.run]
    epochs = options.epochs or recipe.epochs
    batch_size = options.batch_size or recipe.batch_size
    # The rate is for the recipe's batch: one of half the size has half as much to say.
    lr = options.lr or recipe.lr * (batch_size / recipe.batch_size)
    out = options.out or Path(options.run)

    data = datasets.cifar10(options.data)
    x_train, y_train = data.x_train[: options.images], data.y_train[: options.images]
    mean, std = x_train.mean(axis=(0, 2, 3)), x_train.std(axis=(0, 2, 3))
    x_train, x_test = prepared(x_train, mean, std), prepared(data.x_test, mean, std)

    model = recipe.build()
    print(data, model.summary(), sep="\n\n", end="\n\n")
    if options.run == "airbench":
        nn.models.whiten(model, x_train[:5000])
    trainer = recipe.trainer(model, lr, epochs)
    history = trainer.fit(
        x_train, y_train, epochs=epochs, batch_size=batch_size, validation=(x_test, data.y_test),
        callbacks=recipe.callbacks(),
    )  # fmt: skip

    mirror, shift = recipe.views
    started = time.perf_counter()
    _, accuracy = trainer.evaluate(x_test, data.y_test, mirror=mirror, shift=shift)
    report = {
        "run": options.run, "epochs": epochs, "batch_size": batch_size, "lr": lr,
        "test_accuracy": accuracy, "test_accuracy_of_one_view": history.val_accuracy[-1],
        "views": (2 if mirror else 1) * (3 if shift else 1), "testing_seconds": time.perf_counter() - started,
        "training_seconds": sum(history.seconds), "compile_seconds": sum(history.compile_seconds),
        "milliseconds_per_step": 1e3 * batch_size / max(history.images_per_second),
        "threads": runtime.get_num_threads(),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    nn.save(out / "model.npz", model, classes=data.classes, mean=mean.tolist(), std=std.tolist())
    history.save(out / "history.csv")
    history.save(out / "history.json")
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    title = f"{options.run} on CIFAR-10: {accuracy:.2%} after {sum(history.seconds) / 60:.1f} min"
    plots.history_figure(history, title=title).savefig(out / "training.png")
    seconds_figure(history, accuracy, report["views"], title).savefig(out / "seconds.png")
    print(f"\ntest accuracy    {accuracy:.2%} ({report['views']} views; {history.val_accuracy[-1]:.2%} with one)")
    print(f"training         {report['training_seconds'] / 60:.1f} min, testing after each epoch not included")
    print(f"step             {report['milliseconds_per_step']:.0f} ms in the fastest epoch")
    print(f"saved            {out}/")
    return report


if __name__ == "__main__":
    main()
