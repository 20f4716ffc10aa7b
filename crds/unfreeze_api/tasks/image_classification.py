"""Labels for each image: one, or any number."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule, Since
from unfreeze_api.tasks.base import CLASSIFICATION, IMAGE, LABEL, MULTI_LABEL, TaskType
from unfreeze_api.tasks.labels import LabelOptions


class RandAugmentSpec(Model):
    """Options of RandAugment."""

    magnitude: int = Field(default=9, ge=0, le=10)
    """How strong each operation is."""
    magnitude_std: float = Field(default=0.5, ge=0, le=10)
    """Standard deviation of that strength, which each operation draws."""
    num_layers: int = Field(default=2, ge=1, le=16)
    """Operations that are drawn for each image; each is carried out with a probability of 0.5."""
    increasing: bool = True
    """Whether all operations change an image the more, the greater magnitude is. The paper's do not: of some a greater
    magnitude changes less."""


class AutoAugmentSpec(Model):
    """Options of AutoAugment."""

    policy: Literal["Original", "OriginalR", "V0", "V0R", "ThreeAugment"] = "Original"
    """Original: what the paper found for ImageNet. V0: that of its authors' later code. With an R: the same, whose
    posterizing keeps fewer bits the greater its magnitude is. ThreeAugment: one of solarizing, grey and blur
    (Touvron et al. 2022, arXiv 2204.07118)."""
    magnitude_std: float = Field(default=0, ge=0, le=10)
    """Standard deviation of each operation's strength, which the paper leaves as it is."""


class AugMixSpec(Model):
    """Options of AugMix."""

    magnitude: int = Field(default=3, ge=0, le=10)
    """How strong an operation is at most; its strength is drawn evenly."""
    width: int = Field(default=3, ge=1, le=10)
    """Chains of operations that are mixed."""
    depth: int | None = Field(default=None, ge=1, le=10)
    """Operations of a chain. Default: 1 to 3, drawn."""


class RandomErasingSpec(Model):
    """Options of random erasing."""

    probability: float = Field(default=0.25, gt=0, le=1)
    """Share of the images that lose a rectangle."""


class MixUpSpec(Model):
    """Options of MixUp."""

    alpha: float = Field(default=0.2, gt=0, le=100)
    """Both parameters of the Beta distribution of the share of the first image: the greater, the more even."""


class CutMixSpec(Model):
    """Options of CutMix."""

    alpha: float = Field(default=1, gt=0, le=100)
    """Both parameters of the Beta distribution of the share of the first image: the greater, the more even."""


class ImageClassificationSpec(LabelOptions):
    """Options of image classification."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *LabelOptions.rules,
        Rule(
            "[has(self.randAugment), has(self.autoAugment), has(self.augMix)].filter(p, p).size() <= 1",
            "randAugment, autoAugment and augMix are policies each of which is made to be used alone: keep one of them",
        ),
        Rule(
            "!has(self.focalLoss) || (!has(self.mixUp) && !has(self.cutMix))",
            "mixUp and cutMix give an image shares of two labels, and focalLoss asks how probable the right one is: remove"
            " focalLoss, or mixUp and cutMix",
            ".focalLoss",
        ),
    )

    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels that images are resized to. Without it: the size that the model was pretrained
    with."""
    augmentation: Literal["None", "RandomResizedCropFlip"] = "RandomResizedCropFlip"
    """How training images are varied: None resizes and crops the centre; RandomResizedCropFlip crops at random and
    mirrors half of the images."""
    rand_augment: Annotated[RandAugmentSpec | None, Since(2)] = None
    """After the crop a few operations of colour and form, drawn for each image (Cubuk et al. 2019, arXiv 1909.13719), by timm.
    Default: none."""
    auto_augment: Annotated[AutoAugmentSpec | None, Since(2)] = None
    """After the crop one of the pairs of operations that a search has found (Cubuk et al. 2018, arXiv 1805.09501), by timm.
    Default: none."""
    aug_mix: Annotated[AugMixSpec | None, Since(2)] = None
    """After the crop a mixture of the image with chains of operations on it (Hendrycks et al. 2019, arXiv 1912.02781), by timm.
    Default: none."""
    random_erasing: Annotated[RandomErasingSpec | None, Since(2)] = None
    """After all this a rectangle of noise in some images (Zhong et al. 2017, arXiv 1708.04896). Default: none."""
    mix_up: Annotated[MixUpSpec | None, Since(2)] = None
    """Each training image is laid over another one, in shares that its label and the other's have too (Zhang et al. 2017, arXiv
    1710.09412); beside cutMix every second image, on average. Default: none."""
    cut_mix: Annotated[CutMixSpec | None, Since(2)] = None
    """Each training image gets a rectangle of another one, and that share of its label (Yun et al. 2019, arXiv 1905.04899); beside
    mixUp every second image, on average. Default: none."""


TASK = TaskType(
    "ImageClassification",
    "needs a timm or transformers model",
    ImageClassificationSpec,
    library="timm",
    or_library="transformers",
    reads=(IMAGE, LABEL),
    metrics=CLASSIFICATION,
    multi_label=MULTI_LABEL,
    pipeline="image-classification",
    classical="Pictures",
)
