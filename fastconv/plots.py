"""Figures of a training run. matplotlib is imported when a figure is made, and no backend is ever selected.

Each function returns a `matplotlib.figure.Figure`: call its `savefig(path)`, or show it in a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import arguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastconv.nn import History
    from fastconv.nn import Sequential as Model

TRAIN, VALIDATION, INK, QUIET = "#2a6f97", "#e07a1f", "#333333", "#8a8a8a"


def _new_figure(width: float, height: float, title: str) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError('plots: needs matplotlib, install it with: pip install "fastconv[train]"') from error
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")
    figure.suptitle(title, fontsize=12, color=INK)
    return figure


def history_figure(history: History, *, title: str = "Training") -> Figure:
    """Loss and accuracy by epoch, training and (where recorded) validation.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : the history is empty.
    """
    if not len(history):
        raise ValueError("history_figure: history must have at least one epoch, got none")
    figure = _new_figure(9, 3.6, title)
    left, right = figure.subplots(1, 2)
    _curves(left, "loss", history.loss, history.val_loss, "{:.3f}")
    left.set_ylim(bottom=0)
    _curves(right, "accuracy", history.accuracy, history.val_accuracy, "{:.2%}")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    right.set_ylim(top=1.005)
    return figure


def _curves(axes: Any, name: str, training: list[float], validation: list[float], number: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for label, values, colour in (("training", training, TRAIN), ("validation", validation, VALIDATION)):
        if values:
            epochs = range(1, len(values) + 1)
            label = f"{label} (last {number.format(values[-1])})"
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker="o", markersize=3.5)
    axes.set_xlim(0.5, len(training) + 0.5)
    axes.set_xlabel("epoch", color=INK)
    axes.set_title(name, fontsize=10, color=INK, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.legend(frameon=False, fontsize=9)


def _rows_and_columns(count: int) -> tuple[int, int]:
    """Rows of at most 8, as equally filled as can be."""
    rows = -(-count // 8)
    return rows, -(-count // rows)


def _grid(figure: Figure, count: int, rows: int, columns: int) -> list[Any]:
    """`count` frames without ticks, in rows; the rest of the last row stays empty."""
    frames = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for frame in frames:
        frame.set_xticks([])
        frame.set_yticks([])
        for spine in frame.spines.values():
            spine.set_color("#cccccc")
    for frame in frames[count:]:
        frame.set_axis_off()
    return frames[:count]


def learning_rate_figure(history: History, *, title: str = "Learning rate") -> Figure:
    """The learning rate at the end of each epoch.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : the history is empty.
    """
    if not len(history):
        raise ValueError("learning_rate_figure: history must have at least one epoch, got none")
    figure = _new_figure(5, 3.2, title)
    _curves(figure.subplots(), "learning rate", history.learning_rate, [], "{:.2g}")
    return figure


def filter_grid(model: Model | np.ndarray, *, title: str = "Filters of the first layer", limit: int = 64) -> Figure:
    """The first convolution's filters as images: colour for three input channels, else the mean over channels.

    Grey filters share one scale, blue for negative and red for positive weights; colour filters are stretched to
    their own range.

    Parameters
    ----------
    model : a `Sequential` with a `Conv2d`, or weights (F, C, KH, KW).

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : the model has no convolution, or the weights are not of rank 4 or empty.
    """
    weights = model if isinstance(model, np.ndarray) else _first_filters(model)
    weights = arguments.array("filter_grid", "weights", weights, 4)[:limit].astype(np.float64)
    if weights.size == 0:
        raise ValueError(f"filter_grid: weights must not be empty, got shape {weights.shape}")
    rows, columns = _rows_and_columns(len(weights))
    figure = _new_figure(max(1.15 * columns, 4) + 0.7, 1.15 * rows + 0.8, title)
    colour = weights.shape[1] == 3
    largest = float(np.abs(weights).max()) or 1.0
    frames = _grid(figure, len(weights), rows, columns)
    for frame, filter_ in zip(frames, weights, strict=True):
        if colour:
            low, high = filter_.min(), filter_.max()
            image = frame.imshow((filter_.transpose(1, 2, 0) - low) / (high - low or 1), interpolation="nearest")
        else:
            image = frame.imshow(filter_.mean(axis=0), cmap="RdBu_r", vmin=-largest, vmax=largest)
    if not colour:
        bar = figure.colorbar(image, ax=frames, shrink=0.85, aspect=12 * rows, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=INK)
    return figure


def _first_filters(model: Any) -> np.ndarray:
    from fastconv.nn import Conv2d

    layer = next((layer for layer in model.all_layers() if isinstance(layer, Conv2d)), None)
    if layer is None:
        raise ValueError(f"filter_grid: model must have a Conv2d among its layers, got {model!r}")
    weights = layer.weight.value
    return weights.transpose(3, 2, 0, 1) if layer.layout == "NHWC" else weights


def feature_maps(model: Model, image: np.ndarray, *, layer: int | None = None, limit: int = 32) -> Figure:
    """What the layers up to number `layer` make of one image: a grey picture per channel, each on its own scale.

    Parameters
    ----------
    image : (C, H, W), or (H, W, C) for a channels-last model.
    layer : an index of `model.layers`; None for the first whose output has other channels than the image.
    limit : the largest number of channels shown.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : there is no such layer, or its output is no image.
    """
    image = arguments.array("feature_maps", "image", image, 3)
    x = np.asarray(image, model.dtype)[np.newaxis]
    last = model.layout == "NHWC"
    for index, step in enumerate(model.layers):
        before = x.shape[-1 if last else 1]
        x = step.forward(x)
        if index == layer or (layer is None and x.ndim == 4 and x.shape[-1 if last else 1] != before):
            break
    else:
        raise ValueError(f"feature_maps: layer must be from 0 to {len(model.layers) - 1}, got {layer}")
    if x.ndim != 4:
        raise ValueError(f"feature_maps: layer {index} must give images, got shape {x.shape}")
    maps = (x[0].transpose(2, 0, 1) if last else x[0])[:limit]
    rows, columns = _rows_and_columns(len(maps))
    figure = _new_figure(max(1.15 * columns, 4), 1.15 * rows + 0.8, f"{index}  {type(step).__name__}")
    for frame, plane in zip(_grid(figure, len(maps), rows, columns), maps, strict=True):
        frame.imshow(plane, cmap="gray")
    return figure


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], *, title: str = "Confusion matrix") -> Figure:
    """A confusion matrix as `nn.confusion_matrix` counts it: a row per true class, shares of the row as colours.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : the matrix is not square, or has another size than there are classes.
    """
    matrix = arguments.array("confusion_figure", "matrix", matrix, 2)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(
            f"confusion_figure: matrix must have a row and a column per class, {len(classes)}, got shape {matrix.shape}"
        )
    side = 1.6 + 0.42 * len(classes)
    figure = _new_figure(max(side, 3.4), max(side, 3.4), title)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[true, predicted] > 0.5 else INK
            axes.text(predicted, true, f"{count:,}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    return figure


def misclassified_grid(
    images: np.ndarray, labels: np.ndarray, scores: np.ndarray, classes: Sequence[str], *, limit: int = 24
) -> Figure:
    """The misclassified images, most confident errors first, each with its true and its predicted class.

    Parameters
    ----------
    images : (N, C, H, W) in [0, 1]; three channels are shown in colour, otherwise the first in grey.
    labels : (N,) true classes.
    scores : (N, classes) outputs of the model before softmax.
    limit : the largest number of images shown.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : lengths or ranks do not match.
    """
    images = arguments.array("misclassified_grid", "images", images, 4)
    labels = arguments.array("misclassified_grid", "labels", labels, 1)
    scores = arguments.array("misclassified_grid", "scores", scores, 2)
    if not len(images) == len(labels) == len(scores):
        raise ValueError(
            "misclassified_grid: images, labels and scores must have one entry per image, "
            f"got {len(images)}, {len(labels)} and {len(scores)}"
        )
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    confidence = shifted.max(axis=1) / shifted.sum(axis=1)
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    share = 1 - len(wrong) / max(len(labels), 1)
    title = f"{len(wrong):,} of {len(labels):,} misclassified (accuracy {share:.2%})"
    if len(wrong) > limit:
        title += f", the {limit} most confident"
    wrong = wrong[:limit]
    if not len(wrong):
        return _new_figure(5, 0.8, title)
    rows, columns = _rows_and_columns(max(len(wrong), 4))
    figure = _new_figure(1.35 * columns + 0.2, 1.7 * rows + 0.6, title)
    for frame, index in zip(_grid(figure, len(wrong), rows, columns), wrong, strict=True):
        image = images[index].transpose(1, 2, 0)
        frame.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
        frame.set_title(
            f"{classes[labels[index]]}, taken for {classes[predicted[index]]}", fontsize=8, color=INK, pad=3
        )
        frame.set_xlabel(f"{confidence[index]:.0%} sure", fontsize=7.5, color=QUIET, labelpad=2)
    return figure
