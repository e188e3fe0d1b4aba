"""German traffic signs (Stallkamp et al. 2011): 26,640 + 12,630 photos of 43 signs, from 15 to 250 pixels wide.

The training set is that of the competition at IJCNN 2011, as torchvision has it. Its photos were taken while driving past,
30 of each sign, so many are near copies of another one.
"""

from dataclasses import dataclass, field
from typing import Any

from torchvision import datasets

from .torchvision_pictures import Sample, TorchvisionPictures
from .view_settings import ViewSettings

CLASSES = [str(number) for number in range(43)]  # the benchmark numbers its signs


@dataclass
class GTSRB(TorchvisionPictures):
    name: str = "gtsrb"
    views: ViewSettings = field(default_factory=lambda: ViewSettings(flip=0.0, blur=0.0))  # arrows point one way

    title = "GTSRB"

    def dataset(self, root: str, split: str, download: bool) -> Any:
        opened = datasets.GTSRB(root, split, download=download)
        found = len({label for _, label in opened._samples})
        if split == "train" and found < len(CLASSES):  # torchvision numbers those that are there, which would be wrong
            raise ValueError(f"{found} of the {len(CLASSES)} folders of signs hold pictures")
        return opened

    def samples(self, dataset: Any) -> list[Sample]:
        return list(dataset._samples)  # it takes no loader, and would open every picture

    def classes(self, dataset: Any) -> list[str]:
        return CLASSES
