"""The convolutions of real networks, in groups: batches are such that a pass takes milliseconds, not seconds."""

from __future__ import annotations

from collections.abc import Iterable

from fastconv.catalogue import Case

# He et al. 2016; version 1.5, which has its strides in the 3x3 layers.
RESNET_50 = (
    Case("resnet 3-64 7x7 s2 224", 8, 3, 224, 224, 64, 7, 7, 2, 3),
    Case("resnet 64-64 1x1 56", 8, 64, 56, 56, 64, 1, 1),
    Case("resnet 64 3x3 56", 8, 64, 56, 56, 64, 3, 3, 1, 1),
    Case("resnet 64-256 1x1 56", 8, 64, 56, 56, 256, 1, 1),
    Case("resnet 256-64 1x1 56", 8, 256, 56, 56, 64, 1, 1),
    Case("resnet 128 3x3 s2 56", 8, 128, 56, 56, 128, 3, 3, 2, 1),
    Case("resnet 256-512 1x1 s2 56", 8, 256, 56, 56, 512, 1, 1, 2),
    Case("resnet 128 3x3 28", 8, 128, 28, 28, 128, 3, 3, 1, 1),
    Case("resnet 128-512 1x1 28", 8, 128, 28, 28, 512, 1, 1),
    Case("resnet 256 3x3 14", 8, 256, 14, 14, 256, 3, 3, 1, 1),
    Case("resnet 1024-256 1x1 14", 8, 1024, 14, 14, 256, 1, 1),
    Case("resnet 512 3x3 7", 8, 512, 7, 7, 512, 3, 3, 1, 1),
    Case("resnet 512-2048 1x1 7", 8, 512, 7, 7, 2048, 1, 1),
)

# Simonyan & Zisserman 2015.
VGG_16 = (
    Case("vgg 64 3x3 224", 1, 64, 224, 224, 64, 3, 3, 1, 1),
    Case("vgg 64-128 3x3 112", 2, 64, 112, 112, 128, 3, 3, 1, 1),
    Case("vgg 128 3x3 112", 1, 128, 112, 112, 128, 3, 3, 1, 1),
    Case("vgg 128-256 3x3 56", 2, 128, 56, 56, 256, 3, 3, 1, 1),
    Case("vgg 256 3x3 56", 1, 256, 56, 56, 256, 3, 3, 1, 1),
    Case("vgg 512 3x3 28", 1, 512, 28, 28, 512, 3, 3, 1, 1),
    Case("vgg 512 3x3 14", 4, 512, 14, 14, 512, 3, 3, 1, 1),
)

# Howard et al. 2017 and Sandler et al. 2018; the 5x5 layer is MobileNetV3's.
MOBILENET_DEPTHWISE = (
    Case("depthwise 32 3x3 112", 8, 32, 112, 112, 32, 3, 3, 1, 1, 1, 32),
    Case("depthwise 64 3x3 s2 112", 8, 64, 112, 112, 64, 3, 3, 2, 1, 1, 64),
    Case("depthwise 128 3x3 56", 8, 128, 56, 56, 128, 3, 3, 1, 1, 1, 128),
    Case("depthwise 512 3x3 14", 8, 512, 14, 14, 512, 3, 3, 1, 1, 1, 512),
    Case("depthwise 1024 3x3 7", 8, 1024, 7, 7, 1024, 3, 3, 1, 1, 1, 1024),
    Case("depthwise 120 5x5 28", 8, 120, 28, 28, 120, 5, 5, 1, 2, 1, 120),
)
MOBILENET_POINTWISE = (
    Case("pointwise 32-64 112", 8, 32, 112, 112, 64, 1, 1),
    Case("pointwise 16-96 112", 8, 16, 112, 112, 96, 1, 1),
    Case("pointwise 144-24 56", 8, 144, 56, 56, 24, 1, 1),
    Case("pointwise 128-128 56", 8, 128, 56, 56, 128, 1, 1),
    Case("pointwise 512-512 14", 8, 512, 14, 14, 512, 1, 1),
    Case("pointwise 1024-1024 7", 8, 1024, 7, 7, 1024, 1, 1),
)

# Szegedy et al. 2015 (5x5) and 2016 (1x7, 7x1, 1x3).
INCEPTION = (
    Case("googlenet 16-32 5x5 28", 8, 16, 28, 28, 32, 5, 5, 1, 2),
    Case("googlenet 32-64 5x5 14", 8, 32, 14, 14, 64, 5, 5, 1, 2),
    Case("googlenet 48-128 5x5 7", 8, 48, 7, 7, 128, 5, 5, 1, 2),
    Case("inception 48-64 5x5 35", 8, 48, 35, 35, 64, 5, 5, 1, 2),
    Case("inception 192 1x7 17", 8, 192, 17, 17, 192, 1, 7, 1, (0, 3)),
    Case("inception 192 7x1 17", 8, 192, 17, 17, 192, 7, 1, 1, (3, 0)),
    Case("inception 384 1x3 8", 8, 384, 8, 8, 384, 1, 3, 1, (0, 1)),
)

FIRST = (
    Case("alexnet first 11x11 s4 224", 4, 3, 224, 224, 64, 11, 11, 4, 2),
    Case("vgg first 3x3 224", 2, 3, 224, 224, 64, 3, 3, 1, 1),
    Case("mobilenet first 3x3 s2 224", 8, 3, 224, 224, 32, 3, 3, 2, 1),
    Case("three-layer net 7x7 32", 50, 3, 32, 32, 32, 7, 7, 1, 3),
    Case("cifar first 3x3 32", 50, 3, 32, 32, 64, 3, 3, 1, 1),
    Case("mnist first 3x3 28", 64, 1, 28, 28, 32, 3, 3),
    Case("mnist first 5x5 28", 64, 1, 28, 28, 32, 5, 5, 1, 2),
)

# LeCun et al. 1998, a batch of 64.
LENET = (
    Case("lenet 1-6 5x5 28", 64, 1, 28, 28, 6, 5, 5, 1, 2),
    Case("lenet 6-16 5x5 14", 64, 6, 14, 14, 16, 5, 5),
    Case("lenet 16-120 5x5 5", 64, 16, 5, 5, 120, 5, 5),
)

# Baidu's DeepBench: Deep Speech 2 (spectrograms, kernels 5x20 and 5x10) and its text-line shapes.
SPEECH = (
    Case("deepspeech 1-32 5x20 s2", 4, 1, 161, 700, 32, 5, 20, 2),
    Case("deepspeech 32-32 5x10 s2", 2, 32, 79, 341, 32, 5, 10, 2),
    Case("deepbench 1-16 3x3 48x480", 16, 1, 48, 480, 16, 3, 3, 1, 1),
    Case("deepbench 16-32 3x3 24x240", 16, 16, 24, 240, 32, 3, 3, 1, 1),
    Case("deepbench 32-64 3x3 12x120", 16, 32, 12, 120, 64, 3, 3, 1, 1),
    Case("deepbench 64-128 3x3 6x60", 16, 64, 6, 60, 128, 3, 3, 1, 1),
)

# DeepLab (Chen et al. 2017): dilated last blocks and the pyramid of dilations.
DILATED = (
    Case("dilated 64 3x3 d2 56", 4, 64, 56, 56, 64, 3, 3, 1, 2, 2),
    Case("dilated 256 3x3 d2 33", 2, 256, 33, 33, 256, 3, 3, 1, 2, 2),
    Case("dilated 512 3x3 d4 33", 1, 512, 33, 33, 512, 3, 3, 1, 4, 4),
    Case("dilated 512-256 3x3 d12 33", 1, 512, 33, 33, 256, 3, 3, 1, 12, 12),
)

# ResNeXt-50 32x4d (Xie et al. 2017).
GROUPED = (
    Case("resnext 128 3x3 g32 56", 8, 128, 56, 56, 128, 3, 3, 1, 1, 1, 32),
    Case("resnext 256 3x3 s2 g32 56", 8, 256, 56, 56, 256, 3, 3, 2, 1, 1, 32),
    Case("resnext 256 3x3 g32 28", 8, 256, 28, 28, 256, 3, 3, 1, 1, 1, 32),
    Case("resnext 512 3x3 g32 14", 8, 512, 14, 14, 512, 3, 3, 1, 1, 1, 32),
    Case("resnext 1024 3x3 g32 7", 8, 1024, 7, 7, 1024, 3, 3, 1, 1, 1, 32),
)

BATCH_1 = (
    Case("one 3-64 7x7 s2 224", 1, 3, 224, 224, 64, 7, 7, 2, 3),
    Case("one 64 3x3 56", 1, 64, 56, 56, 64, 3, 3, 1, 1),
    Case("one 128 3x3 28", 1, 128, 28, 28, 128, 3, 3, 1, 1),
    Case("one 256 3x3 14", 1, 256, 14, 14, 256, 3, 3, 1, 1),
    Case("one 512 3x3 7", 1, 512, 7, 7, 512, 3, 3, 1, 1),
    Case("one 64-256 1x1 56", 1, 64, 56, 56, 256, 1, 1),
    Case("one 512-2048 1x1 7", 1, 512, 7, 7, 2048, 1, 1),
)

# van den Oord et al. 2016. As 2-D with H = 1; causal: the samples before the first are part of x.
WAVENET = (
    Case("wavenet 32-64 1x2 d1", 4, 32, 1, 16001, 64, 1, 2),
    Case("wavenet 32-64 1x2 d16", 4, 32, 1, 16016, 64, 1, 2, 1, 0, (1, 16)),
    Case("wavenet 32-64 1x2 d512", 4, 32, 1, 16512, 64, 1, 2, 1, 0, (1, 512)),
    Case("wavenet 64-128 1x3 d8", 4, 64, 1, 8016, 128, 1, 3, 1, 0, (1, 8)),
    Case("wavenet 32-256 1x1", 4, 32, 1, 16000, 256, 1, 1),
)

# Image filters as wide as scipy.signal's users run them; RepLKNet's 31x31 depthwise layers (Ding et al. 2022);
# dense layers that are no filter bank of anybody's, to see how the rest scales. Small photos: PyTorch takes seconds for
# large ones.
LARGE_KERNELS = (
    Case("filter 31x31 256x384", 1, 1, 256, 384, 1, 31, 31, 1, 15),
    Case("filter rgb 31x31 256x384", 1, 3, 256, 384, 3, 31, 31, 1, 15, 1, 3),
    Case("replknet 128 31x31 56", 1, 128, 56, 56, 128, 31, 31, 1, 15, 1, 128),
    Case("large 32-32 11x11 64", 8, 32, 64, 64, 32, 11, 11, 1, 5),
    Case("large 16-16 21x21 128", 4, 16, 128, 128, 16, 21, 21, 1, 10),
)

GROUPS: dict[str, tuple[Case, ...]] = {
    "ResNet-50": RESNET_50,
    "VGG-16": VGG_16,
    "MobileNet depthwise": MOBILENET_DEPTHWISE,
    "MobileNet pointwise": MOBILENET_POINTWISE,
    "GoogLeNet, Inception": INCEPTION,
    "first layers": FIRST,
    "LeNet": LENET,
    "DeepBench speech": SPEECH,
    "dilated": DILATED,
    "grouped (ResNeXt)": GROUPED,
    "batch 1": BATCH_1,
    "WaveNet 1-D": WAVENET,
    "large kernels": LARGE_KERNELS,
}


def matching(names: Iterable[str], texts: Iterable[str]) -> set[str]:
    """Names that one of the texts names, or else those that contain it; the case of letters does not count."""
    names, found = list(names), set()
    for text in texts:
        exact = {name for name in names if name.lower() == text.lower()}
        found |= exact or {name for name in names if text.lower() in name.lower()}
    return found
