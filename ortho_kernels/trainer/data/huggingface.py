"""Data sets that the library `datasets` of Hugging Face reads: by name from the Hub, or from this machine."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..distributed.processes import print_once
from ..errors import TrainerError, did_you_mean
from ..options import option
from .broken import BrokenPictures
from .encoded_source import EncodedSource
from .images import Splits
from .left_out import LeftOut
from .picture_sources import LEAVE_OUT, Sources

TEST_NAMES = ("test", "validation", "valid", "val")
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a folder
FILES = {".parquet": "parquet", ".arrow": "arrow"}


@dataclass
class HuggingFace(EncodedSource):
    """Labels and scores are there where a split to test on has labels too."""

    name: str = "huggingface"
    dataset: str | None = option(None, "name on the Hub, folder (of save_to_disk too), or .parquet file")
    config: str | None = option(None, "configuration of the data set, where it has several")
    split: str = option("train", "split to pretrain on")
    test_split: str | None = option(None, "split to test on; by default test or validation, with labels")
    image: str | None = option(None, "column of pictures; by default the only one of that type")
    label: str | None = option(None, "column of classes; by default the only one of that type")

    def load(self) -> Splits:
        if not self.dataset:
            raise TrainerError("data=huggingface needs data.dataset=NAME, as on the Hub, or a local folder.")
        splits = self._load_all()
        train = self._split(splits, self.split, "data.split")
        image = self._column(train, self.image, "data.image", "Image")
        if image is None:
            raise TrainerError(
                f"data.dataset={self.dataset} has no column of pictures; it has {', '.join(train.column_names)}. One that "
                "holds the bytes of pictures is data.image=COLUMN."
            )
        label = self._column(train, self.label, "data.label", "ClassLabel")
        pictures = self._pictures(train, image, self.split)
        if self.test_split is not None:
            self._require_labels(self._split(splits, self.test_split, "data.test_split"), label)
        if label is None:
            return self._unlabeled(pictures, "it has no column of classes")
        labels = _Labels(train, label, self.dataset)
        names = [self.test_split] if self.test_split else [name for name in TEST_NAMES if name in splits]
        tests = ((name, splits[name]) for name in names if name != self.split)
        # On the Hub a test set is often there without its labels, or with -1 for each.
        scored = ((name, test, labels.of(test)) for name, test in tests if label in test.column_names)
        name, test, classes = next((each for each in scored if (each[2] >= 0).any()), ("", None, torch.empty(0)))
        if test is None and self.test_split is not None:
            raise self._no_test(f"none of its rows has a class in the column {label}")
        if test is None:
            return self._unlabeled(pictures, "no split to test on has labels")
        broken = BrokenPictures() if self.corrupt == "skip" else None
        sets = [
            self.encoded(pictures, labels.of(train), broken),
            self.encoded(self._pictures(test, image, name), classes, broken).select((classes >= 0).nonzero().flatten()),
        ]
        everything, test_images = self.ready(sets, read_headers=True)
        has_label = everything.labels >= 0
        train_images = everything if has_label.all() else everything.select(has_label.nonzero().flatten())
        return Splits(train_images, test_images, labels.classes, everything, broken or BrokenPictures())

    def _load_all(self) -> Any:
        """The splits by their names; what is on the Hub is downloaded into the library's cache."""
        try:
            import datasets
        except ModuleNotFoundError:
            raise TrainerError("data=huggingface needs the package datasets: pip install datasets.") from None
        assert self.dataset is not None
        path = Path(self.dataset).expanduser()
        is_saved, is_table = any((path / name).is_file() for name in SAVED), path.is_file() and path.suffix in FILES
        if self.config is not None and (is_saved or is_table):
            raise TrainerError(f"data.config={self.config}: {self.dataset} has no configurations. Leave it out.")
        try:
            if is_saved:
                found = datasets.load_from_disk(str(path))
            elif is_table:
                found = datasets.load_dataset(FILES[path.suffix], data_files=str(path))
            else:
                found = datasets.load_dataset(str(path) if path.exists() else self.dataset, self.config)
        except Exception as error:  # of the Hub, of the network, of files: the library has dozens
            first = error.__cause__ or error  # "An error occurred" says less than what it came from
            said = (str(first).strip() or type(first).__name__).splitlines()[0]
            raise TrainerError(
                f"data.dataset={self.dataset} could not be loaded ({said}). Give a name of the Hub (USER/NAME), with "
                "data.config=NAME if it has several configurations. Without a network give a folder that save_to_disk "
                "wrote, a folder of pictures or of .parquet files."
            ) from None
        return found if isinstance(found, dict) else {str(found.split or self.split): found}

    def _split(self, splits: Any, name: str, option: str) -> Any:
        if name not in splits:
            raise TrainerError(
                f"{option}={name}: data.dataset={self.dataset} has the splits {', '.join(splits)}."
                f"{did_you_mean(name, list(splits))}"
            )
        return splits[name]

    def _require_labels(self, test: Any, label: str | None) -> None:
        """Of the split that scores were asked for on."""
        if self.test_split == self.split:
            raise self._no_test("these are the pictures to pretrain on")
        if label is None:
            raise self._no_test("no column has the type of classes; name one by data.label=COLUMN")
        if label not in test.column_names:
            raise self._no_test(f"it has no column {label}")

    def _no_test(self, why: str) -> TrainerError:
        return TrainerError(
            f"data.test_split={self.test_split}: this split gives no scores ({why}). Give another one, or leave it out."
        )

    def _column(self, split: Any, given: str | None, option: str, kind: str) -> str | None:
        """The column of that name or, without one, the only one of that type."""
        if given is not None and given not in split.column_names:
            raise TrainerError(
                f"{option}={given}: data.dataset={self.dataset} has the columns {', '.join(split.column_names)}."
            )
        found = [name for name, feature in split.features.items() if type(feature).__name__ == kind]
        if given is None and len(found) > 1:
            raise TrainerError(
                f"data.dataset={self.dataset} has several columns of that kind, {', '.join(found)}: give one of them by "
                f"{option}=COLUMN."
            )
        return given or next(iter(found), None)

    def _pictures(self, split: Any, column: str, name: str) -> "HuggingFacePictures":
        import datasets

        try:
            encoded = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        except Exception as error:
            raise TrainerError(
                f"data.image={column}: the column holds no pictures ({str(error).splitlines()[0]})."
            ) from None
        return HuggingFacePictures(encoded, column, f"{self.dataset}, {name}", torch.arange(len(encoded)))

    def _unlabeled(self, pictures: "HuggingFacePictures", why: str) -> Splits:
        if not len(pictures):
            raise TrainerError(f"data.dataset={self.dataset}: the split {self.split} has no pictures.")
        count = f"{len(pictures):,} picture{'s' * (len(pictures) != 1)}"
        print_once(f"data.dataset={self.dataset}: {count} without labels ({why}).")
        return self.without_labels(pictures, LeftOut())


class HuggingFacePictures(Sources):
    """The pictures of a column, encoded as they were stored: memory that is mapped from files, or paths."""

    cure = f"Mend the data set, or {LEAVE_OUT}."

    def __init__(self, dataset: Any, column: str, title: str, rows: Tensor) -> None:
        self.dataset = dataset
        self.column = column
        self.title = title
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: Tensor) -> "HuggingFacePictures":
        return HuggingFacePictures(self.dataset, self.column, self.title, self.rows[indices])

    def open(self, index: int) -> Image.Image:
        value = self.dataset[int(self.rows[index])][self.column]
        content, path = (value["bytes"], value["path"]) if value is not None else (None, None)
        if content is not None:
            return Image.open(io.BytesIO(content))
        if path is None:
            raise ValueError("the row has none")
        return Image.open(path)

    def name(self, index: int) -> str:
        return f"{self.title}, row {int(self.rows[index])}"


class _Labels:
    """The classes of a column of labels, by the training rows."""

    def __init__(self, train: Any, column: str, dataset: str) -> None:
        self.column = column
        self.dataset = dataset
        feature = train.features[column]
        self.numbered = hasattr(feature, "names")
        try:
            values = feature.names if self.numbered else sorted({*self._values(train)} - {None, -1})
        except TypeError:  # dictionaries and lists are no members of a set
            kind = type(feature).__name__
            raise TrainerError(f"data.label={column} is of type {kind}, and classes are numbers or texts.") from None
        self.classes = list(map(str, values))
        self.places = {value: place for place, value in enumerate(range(len(values)) if self.numbered else values)}

    def of(self, split: Any) -> Tensor:
        """The numbers of the classes, int64; -1 where there is none."""
        values = self._values(split)
        if unknown := {each for each in values if each not in self.places} - {None, -1}:
            raise TrainerError(
                f"data.label={self.column}: {sorted(map(str, unknown))[0]} is no class of the training pictures of "
                f"data.dataset={self.dataset}."
            )
        return torch.tensor([self.places.get(each, -1) for each in values])

    def _values(self, split: Any) -> list[Any]:
        return split.select_columns([self.column]).with_format("arrow")[:].column(self.column).to_pylist()
