"""The options of `fastconv train`, which are also the keys of its configuration files."""

from __future__ import annotations

import argparse

from fastconv.cli.options import fraction, natural, not_negative, positive, positive_integer, table

# With a cosine schedule, batches of 64 and 30 epochs these reach 98 to 99.7 % on three splits of the digits.
LEARNING_RATES = {"sgd": 0.03, "rmsprop": 1e-3, "adam": 2e-3, "adamw": 2e-3}
DATA = ("digits", "mnist", "cifar10", "image_folder")
SCHEDULES = ("cosine", "one_cycle", "step", "exponential", "constant")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`; their names are also the keys of a configuration file."""
    flag = argparse.BooleanOptionalAction

    files = parser.add_argument_group("files").add_argument
    files("--out", required=True, metavar="DIR", help="folder to write to, made if missing")
    files("--config", metavar="FILE.toml", help="options in a file; those on the command line come first")
    files("--resume", metavar="LAST.npz", help="continue that run, with its options, in its folder")

    data = parser.add_argument_group("data").add_argument
    data("--data", choices=DATA, default="digits", help="default: digits")
    data("--path", "--data-dir", metavar="PATH", help="where the data lie (digits come with scikit-learn)")
    data("--download", action=flag, default=False, help="fetch missing files into PATH (mnist)")
    data("--size", type=positive_integer, metavar="PIXELS", help="resize the pictures of image_folder")
    data("--channels", type=int, choices=(1, 3), default=3, help="of image_folder's pictures (default: 3)")
    data(
        "--validation",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="of the training images, held out to choose the best epoch by (default: none, the test images choose)",
    )

    model = parser.add_argument_group("model").add_argument
    model("--model", default="lenet5", help="lenet5 (default), three_layer_convnet, vgg_like, resnet9 or airbench")
    model("--model-options", type=table, default={}, metavar="JSON", help='such as {"widths": [32, 64]}')
    model("--normalize", action=flag, default=False, help="a first layer that gives each channel mean 0, deviation 1")
    model("--whiten", action=flag, default=False, help="first convolution: the training patches' components, kept")

    augmentation = parser.add_argument_group("augmentation").add_argument
    augmentation("--shift", type=natural, default=2, metavar="PIXELS", help="move images at random (default: up to 2)")
    augmentation("--padding", choices=("zeros", "reflect"), default="zeros", help="what moves in (default: zeros)")
    augmentation("--flip", action=flag, default=False, help="mirror half of the images")
    augmentation("--cutout", type=natural, default=0, metavar="PIXELS", help="blank a square of this size")

    optimizer = parser.add_argument_group("optimizer").add_argument
    rates = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
    optimizer("--optimizer", choices=LEARNING_RATES, default="adam", help="default: adam")
    optimizer("--lr", type=positive, metavar="RATE", help=f"learning rate (default: {rates})")
    optimizer("--momentum", type=fraction, default=0.9, metavar="SHARE", help="of sgd (default: 0.9)")
    optimizer("--nesterov", action=flag, default=False, help="Nesterov's momentum for sgd")
    optimizer("--weight-decay", type=not_negative, metavar="RATE", help="default: the optimizer's")
    optimizer("--decoupled", action=flag, default=False, help="scale weights instead of adding to gradients")
    optimizer("--decay-biases", action=flag, default=True, help="decay biases and batch-norm parameters as well")
    optimizer("--clip-norm", type=positive, metavar="BOUND", help="on the norm of all gradients")
    optimizer("--clip-value", type=positive, metavar="BOUND", help="on each number of the gradients")

    schedule = parser.add_argument_group("schedule").add_argument
    schedule("--epochs", type=positive_integer, default=30, metavar="N", help="default: 30")
    schedule("--batch-size", type=positive_integer, default=64, metavar="N", help="default: 64")
    schedule("--schedule", choices=SCHEDULES, default="cosine", help="default: cosine, to zero")
    schedule("--warmup", type=not_negative, metavar="EPOCHS", help="of cosine (default: 0), one_cycle (a third of all)")
    schedule("--decay-every", type=positive, default=10.0, metavar="EPOCHS", help="of step (default: 10)")
    schedule("--decay-factor", type=positive, default=0.1, help="of step and, per epoch, exponential (default: 0.1)")
    schedule("--patience", type=positive_integer, metavar="EPOCHS", help="end after so many without a better one")

    other = parser.add_argument_group("other").add_argument
    other("--label-smoothing", type=fraction, default=0.0, metavar="SHARE", help="default: 0")
    other("--ema", type=fraction, metavar="DECAY", help="evaluate and keep an average of the weights, such as 0.999")
    other("--lookahead", type=positive_integer, metavar="STEPS", help="pull the weights back every so many steps")
    other("--mirror", action=flag, default=False, help="test with each image and its mirror image")
    other("--seed", type=natural, default=0, metavar="N", help="default: 0")
    other("--threads", type=positive_integer, metavar="N", help="default: all cores")
