"""What a training run recorded, epoch by epoch."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path


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
        """Read what `save` wrote as `.json`.

        Raises
        ------
        ValueError : the file holds something else.
        """
        try:
            values = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ValueError(f"History.load: {path} is no JSON file: {error}") from None
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"History.load: {path} must hold the lists {', '.join(sorted(names))}")
        return cls(**values)

    def last_line(self) -> str:
        """The newest epoch in one line."""
        parts = [f"loss {self.loss[-1]:.4f}", f"accuracy {self.accuracy[-1]:6.2%}"]
        if self.val_loss:
            parts += [f"val loss {self.val_loss[-1]:.4f}", f"val accuracy {self.val_accuracy[-1]:6.2%}"]
        compiling = self.compile_seconds[-1]
        compiled = f" ({compiling:.2f} s compiling)" if compiling >= 0.005 else ""
        return "  ".join([*parts, f"{self.images_per_second[-1]:,.0f} images/s", f"{self.seconds[-1]:.2f} s{compiled}"])
