"""What a training run recorded, epoch by epoch."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path

from fastconv import arguments

QUANTITIES = ("val_accuracy", "val_loss", "accuracy", "loss")  # the first that was recorded tells the best epoch


def direction(monitor: str) -> int:
    """1 for a quantity that should rise, an accuracy, and -1 for a loss.

    Raises
    ------
    ValueError : neither of them.
    """
    arguments.choice("History", "monitor", monitor, QUANTITIES)
    return 1 if monitor.endswith("accuracy") else -1


@dataclass
class History:
    """One list per quantity, one entry per epoch; validation lists stay empty without validation data.

    Attributes
    ----------
    loss, accuracy : means over the epoch's training images, each measured before its own update.
    val_loss, val_accuracy : on the validation images after the epoch.
    seconds : wall time of the epoch's training, compilation included, validation not.
    compile_seconds : the part of it spent compiling kernels.
    images_per_second : training images by the rest of that time.
    learning_rate : at the end of the epoch.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    compile_seconds: list[float] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the lists as `.json` or, with a column per quantity, as `.csv`.

        Raises
        ------
        ValueError : another suffix.
        """
        path = Path(path)
        if path.suffix == ".json":
            path.write_text(json.dumps(asdict(self), indent=2) + "\n")
        elif path.suffix == ".csv":
            columns = {
                "epoch": range(1, len(self) + 1),
                **{name: column for name, column in asdict(self).items() if column},
            }
            with open(path, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        else:
            raise ValueError(f"History.save: path must end in .json or .csv, got {str(path)!r}")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> History:
        """Read what `save` wrote, bit for bit.

        Raises
        ------
        ValueError : the file holds something else, or its suffix is neither .json nor .csv.
        """
        path = Path(path)
        names = [f.name for f in fields(cls)]
        if path.suffix == ".json":
            try:
                values = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"History.load: {path} is no JSON file: {error}") from None
        elif path.suffix == ".csv":
            try:
                with open(path, newline="") as file:
                    header, *rows = csv.reader(file)
                columns = {name: [float(row[i]) for row in rows] for i, name in enumerate(header)}
            except (ValueError, IndexError) as error:
                raise ValueError(f"History.load: {path} is no table of numbers: {error}") from None
            columns.pop("epoch", None)
            values = {name: [] for name in names} | columns
        else:
            raise ValueError(f"History.load: path must end in .json or .csv, got {str(path)!r}")
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError(f"History.load: {path} must hold the lists {', '.join(sorted(names))}")
        return cls(**values)

    def monitor(self) -> str:
        """What tells the best epoch: validation before training, accuracy before loss, whichever was recorded."""
        return next((name for name in QUANTITIES if any(map(math.isfinite, getattr(self, name)))), "loss")

    def best_epoch(self, monitor: str | None = None) -> int:
        """The index of the first of the best epochs by `monitor`, a list's name such as "val_loss".

        Raises
        ------
        ValueError : nothing of that name was recorded, or it is no loss or accuracy.

        >>> History(loss=[0.9, 0.4, 0.5]).best_epoch()
        1
        """
        name = monitor or self.monitor()
        sign, values = direction(name), getattr(self, name)
        if not values:
            raise ValueError(f"History.best_epoch: {name} must have at least one epoch, got none")
        return max(range(len(values)), key=lambda i: -math.inf if math.isnan(values[i]) else sign * values[i])

    def last_line(self) -> str:
        """The newest epoch in one line."""
        parts = [f"loss {self.loss[-1]:.4f}", f"accuracy {self.accuracy[-1]:6.2%}"]
        if self.val_loss:
            parts += [f"val loss {self.val_loss[-1]:.4f}", f"val accuracy {self.val_accuracy[-1]:6.2%}"]
        compiling = self.compile_seconds[-1]
        compiled = f" ({compiling:.2f} s compiling)" if compiling >= 0.005 else ""
        return "  ".join([*parts, f"{self.images_per_second[-1]:,.0f} images/s", f"{self.seconds[-1]:.2f} s{compiled}"])
