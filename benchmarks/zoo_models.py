"""The models of the zoo: how each is built, without weights, and a small input for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["NAMES", "SINGLE", "build"]

Built = tuple[nn.Module, tuple]

_DETECTION = ("rcnn", "retinanet", "fcos", "ssd")
_VIDEO = {
    "r3d_18": (8, 32),
    "mc3_18": (8, 32),
    "r2plus1d_18": (8, 32),
    "s3d": (16, 224),
    "mvit_v1_b": (16, 224),
    "mvit_v2_s": (16, 224),
    "swin3d_t": (8, 64),
    "swin3d_s": (8, 64),
    "swin3d_b": (8, 64),
}
_CLASSIFICATION = (
    *("alexnet", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{i}" for i in range(8)),
    *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    *("squeezenet1_0", "squeezenet1_1", "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
)
_SEGMENTATION = (
    *("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large"),
    "lraspp_mobilenet_v3_large",
)
_DETECTORS = (
    *("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn"),
    *("fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"),
    *("keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"),
    *("ssd300_vgg16", "ssdlite320_mobilenet_v3_large"),
)
_TIMM = (
    *("beit_base_patch16_224", "cait_xxs24_224", "coatnet_pico_rw_224", "convmixer_768_32", "convnextv2_atto"),
    *("cspresnet50", "cs3darknet_s", "deit_tiny_patch16_224", "dla46_c", "edgenext_xx_small", "efficientformer_l1"),
    *("ghostnet_050", "hrnet_w18_small", "levit_128s", "mobileone_s0", "mobilevit_xxs", "mixer_s32_224", "nfnet_l0"),
    *("pit_ti_224", "poolformer_s12", "pvt_v2_b0", "repvgg_a0", "res2net50_14w_8s", "resnest14d"),
    *("legacy_seresnet18", "skresnet18", "tnt_s_patch16_224", "twins_svt_small", "twins_pcpvt_small", "vgg11_bn"),
    *("ese_vovnet19b_slim", "xcit_nano_12_p16_224"),
)


def _torchvision(name: str) -> Built:
    import torchvision

    options: dict[str, Any] = {"weights": None}
    size = 64
    if any(word in name for word in _DETECTION):
        return _detector(name)
    if name in _SEGMENTATION:
        options["weights_backbone"] = None
    elif name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
        size = 96
    elif name.startswith("vit_"):
        size = options["image_size"] = 56 if name == "vit_h_14" else 64
    elif name == "maxvit_t":
        size = 224
    elif name.startswith("raft"):
        return torchvision.models.get_model(name, **options), (
            torch.rand(1, 3, 128, 128),
            torch.rand(1, 3, 128, 128),
            2,
        )
    frames, pixels = _VIDEO.get(name, (0, 0))
    model = torchvision.models.get_model(name, **options)
    if frames:
        return model, (torch.randn(1, 3, frames, pixels, pixels),)
    return model, (torch.randn(2, 3, size, size),)


def _detector(name: str) -> Built:
    import torchvision

    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    size = 96
    if name.startswith("ssd"):
        size = model.transform.fixed_size[0]
    else:
        model.transform.min_size, model.transform.max_size = (size,), size
    for part in (model, getattr(model, "roi_heads", None)):
        if hasattr(part, "rpn"):
            part.rpn._post_nms_top_n = {"training": 20, "testing": 20}
        if hasattr(part, "score_thresh"):
            part.score_thresh = -1.0  # boxes come out, whatever the scores of a network without weights
    return model, ([torch.rand(3, size, size)],)


def _timm(name: str) -> Built:
    import timm

    model = timm.create_model(name, pretrained=False)
    size = model.default_cfg["input_size"][-1] if model.default_cfg.get("fixed_input_size") else 64
    return model, (torch.randn(2, 3, size, size),)


def _bert() -> Built:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    return BertModel(config), (torch.randint(0, 99, (2, 7)),)


def _llama() -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=128,
        use_cache=False,
    )
    return LlamaForCausalLM(config), (torch.randint(0, 99, (2, 7)),)


def _graph_network(name: str) -> Built:
    from torch_geometric import nn as pyg

    options = {"heads": 4} if name == "GAT" else {}
    model = getattr(pyg, name)(16, 32, num_layers=3, out_channels=7, **options)
    return model, (torch.randn(20, 16), torch.randint(0, 20, (2, 60)))


_BUILDERS: dict[str, Callable[[], Built]] = {
    **{
        f"torchvision {name}": lambda name=name: _torchvision(name)
        for name in (*_CLASSIFICATION, *_SEGMENTATION, *_DETECTORS, *_VIDEO, "raft_small", "raft_large")
    },
    **{f"timm {name}": lambda name=name: _timm(name) for name in _TIMM},
    "transformers BERT": _bert,
    "transformers Llama": _llama,
    **{f"torch_geometric {name}": lambda name=name: _graph_network(name) for name in ("GCN", "GAT", "GraphSAGE")},
}
NAMES = tuple(_BUILDERS)
SINGLE = ("torchvision raft_small", "torchvision raft_large")  # they make single precision of their own


def build(name: str, calibrate: bool = True) -> Built:
    """A model of the zoo in evaluation mode, in which a wrong channel shows, and positional arguments for it.

    In a default-initialised network a wrong channel hardly moves the output, so norms get random affine parameters and
    batch norms the statistics of the input.

    Args:
        name: One of `NAMES`.
        calibrate: Whether norms and parameters are given these values, for which the model runs once.
    """
    torch.manual_seed(0)
    model, inputs = _BUILDERS[name]()
    model.eval()
    if not calibrate:
        return model, inputs
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in model.modules():
        if "norm" in type(module).__name__.lower():
            for own, shift in ((getattr(module, "weight", None), 1.0), (getattr(module, "bias", None), 0.0)):
                if isinstance(own, nn.Parameter):
                    nn.init.uniform_(own, shift - 0.5, shift + 0.5)
    for parameter in model.parameters():
        if (parameter == 0).all():  # some classifiers and gates start at zero, and would hide everything
            nn.init.uniform_(parameter, -0.2, 0.2)
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        with torch.no_grad():
            model(*inputs)
    except ValueError:  # one value per channel has no variance: keep the initial statistics
        pass
    return model.eval(), inputs
