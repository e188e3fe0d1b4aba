"""Small copies of data sets in the layout that torchvision downloads: squares of noise, and the lists beside them."""

import csv
import json

import numpy as np
from PIL import Image

SIDE = 16  # of every picture, in pixels


class Copy:
    """Writes pictures that differ, and knows how many there are of each class in each split."""

    def __init__(self, root):
        self.root = root
        self.written = 0

    def picture(self, path):
        pixels = np.random.default_rng(self.written).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        self.written += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_food101(root):
    copy = Copy(root / "food-101")
    for split, count in (("train", 3), ("test", 2)):
        listed = {dish: [f"{dish}/{split}{i}" for i in range(count)] for dish in ("waffles", "apple_pie", "ramen")}
        for names in listed.values():
            for name in names:
                copy.picture(copy.root / "images" / f"{name}.jpg")
        (copy.root / "meta").mkdir(exist_ok=True)
        (copy.root / "meta" / f"{split}.json").write_text(json.dumps(listed))


def write_flowers102(root):
    from scipy.io import savemat

    copy = Copy(root / "flowers-102")
    for number in range(1, 10):
        copy.picture(copy.root / "jpg" / f"image_{number:05}.jpg")
    savemat(copy.root / "imagelabels.mat", {"labels": np.array([[1, 1, 2, 2, 102, 102, 1, 2, 102]])})
    splits = {"trnid": [9, 1, 3], "valid": [2, 4], "tstid": [5, 6, 7, 8]}
    savemat(copy.root / "setid.mat", {name: np.array([numbers]) for name, numbers in splits.items()})


def write_dtd(root):
    copy = Copy(root / "dtd" / "dtd")
    (copy.root / "labels").mkdir(parents=True)
    for partition in (1, 2):
        for split in ("train", "val", "test"):
            names = [f"{kind}/{kind}_{partition}{split}.jpg" for kind in ("zigzagged", "banded")]
            for name in names:
                copy.picture(copy.root / "images" / name)
            (copy.root / "labels" / f"{split}{partition}.txt").write_text("".join(f"{name}\n" for name in names))


def write_gtsrb(root):
    copy = Copy(root / "gtsrb")
    for sign in range(43):
        copy.picture(copy.root / "GTSRB" / "Training" / f"{sign:05}" / "00000_00000.ppm")
    rows = [{"Filename": f"{i:05}.ppm", "Width": SIDE, "ClassId": sign} for i, sign in enumerate((42, 0, 7))]
    for row in rows:
        copy.picture(copy.root / "GTSRB" / "Final_Test" / "Images" / row["Filename"])
    with open(copy.root / "GT-final_test.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
