"""The models of benchmarks/graph.py and graph_scaling.py, by name, with random weights."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

__all__ = ["FAMILIES", "TORCHVISION", "YOLO", "build", "inputs"]

YOLO = ("yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x")
TORCHVISION = (
    "resnet50",
    "densenet121",
    "densenet201",
    "mobilenet_v2",
    "vgg16_bn",
    "regnet_y_3_2gf",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "vit_l_16",
    "swin_b",
)
FAMILIES = ("resnet", "densenet", "yolov8")  # "resnet:2:4" is twice as wide and four times as deep as "resnet:1:1"


def build(name: str) -> nn.Module:
    """A model in evaluation mode."""
    family, *factors = name.split(":")
    if factors:
        width, depth = map(int, factors)
        return {"resnet": _resnet, "densenet": _densenet, "yolov8": _yolov8}[family](width, depth).eval()
    if name in YOLO:
        from ultralytics.nn.tasks import DetectionModel

        return DetectionModel(f"{name}.yaml", verbose=False).eval()
    import torchvision

    return torchvision.models.get_model(name).eval()


def inputs(name: str) -> tuple[int, int]:
    """Pixels of the smallest input that is used here, and of the usual one, which READMEs show."""
    if name.startswith("vit"):  # its positions are learned at one size
        return 224, 224
    return 64, 640 if name.startswith("yolov8") else 224


def _resnet(width: int, depth: int) -> nn.Module:
    """ResNet-50, whose widths torchvision fixes and timm does not."""
    from timm.models.resnet import Bottleneck, ResNet

    channels = tuple(width * n for n in (64, 128, 256, 512))
    return ResNet(Bottleneck, [depth * n for n in (3, 4, 6, 3)], stem_width=32 * width, channels=channels)


def _densenet(width: int, depth: int) -> nn.Module:
    """DenseNet-121."""
    from torchvision.models import DenseNet

    return DenseNet(32 * width, tuple(depth * n for n in (6, 12, 24, 16)), 64 * width)


def _yolov8(width: int, depth: int) -> nn.Module:
    """YOLOv8n."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    config = deepcopy(yaml_model_load("yolov8n.yaml"))
    config["scales"] = {"n": [depth / 3, width / 4, 1024]}
    return DetectionModel(config, verbose=False)
