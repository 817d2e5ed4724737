"""Writing a network: layers as objects, "same" and "valid" padding, a stride per axis, softmax and cross-entropy.

python examples/write_a_network.py                  # scikit-learn's handwritten digits, a few seconds
"""

from __future__ import annotations

import argparse

from fastconv import datasets, nn


def build(classes=10, size=28):
    """A network of layer objects; each could be used alone: `out = layer(x)`."""
    rows, columns = -(-size // 2), size  # "same" keeps ceil(size / stride) places, whatever the kernel
    rows, columns = (rows - 3) // 1 + 1, (columns - 3) // 2 + 1  # "valid" keeps where the kernel fits
    rows, columns = -(-rows // 2), -(-columns // 2)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=(2, 1), padding="same", activation="relu", rng=0),
        nn.Conv2d(8, 16, 3, stride=(1, 2), padding="valid", rng=1),
        nn.ReLU(),
        nn.MaxPool2d(2, padding="same"),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, classes, init="xavier", rng=2),
        nn.Softmax(),
        input_shape=(1, size, size),
    )


def train_by_hand(model, x, y, steps, batch_size=64):
    """What `nn.Trainer` does, without the bookkeeping: forward, loss, backward, step."""
    loss_function = nn.CrossEntropy()
    optimizer = nn.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        start = step * batch_size % (len(x) - batch_size)
        probabilities = model.forward(x[start : start + batch_size], training=True)
        loss, gradient = loss_function(probabilities, y[start : start + batch_size])
        model.backward(gradient, input_gradient=False)
        optimizer.step()
    return loss


def main(arguments=None):
    parser = argparse.ArgumentParser(description="A network of layer objects on handwritten digits")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    data = datasets.digits()
    model = build()
    print(model.summary(), end="\n\n")
    print(f"loss after 10 steps by hand: {train_by_hand(model, data.x_train, data.y_train, 10):.3f}")

    # The same loop with shuffling, statistics, progress and a schedule: the rate halves every two epochs.
    optimizer = nn.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer = nn.Trainer(model, optimizer, loss=nn.CrossEntropy(), schedule=nn.schedules.step_decay(2, 0.5))
    test = data.x_test, data.y_test
    history = trainer.fit(data.x_train, data.y_train, epochs=options.epochs, validation=test)
    print(f"probabilities of the first test image: {model.predict(data.x_test[:1])[0].round(2).tolist()}")
    return history


if __name__ == "__main__":
    main()
