"""Backbones as pyramids: an image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from typing import Any

import timm
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training import TrainingError
from mtl_training.models.layers import resize
from mtl_training.models.swin import use_shifted_windows


class ModelError(TrainingError):
    """A network that cannot be built as asked, in one sentence."""


class Pyramid(nn.Module):
    """What every system needs of a backbone.

    Attributes:
        channels: of the features, one int per scale.
        mean, std: normalisation of RGB in 0..1 that its weights expect.
    """

    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def dilated(self) -> bool:
        """Whether the last three scales are all of stride 8."""
        return False

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,H,W] normalised -> four [B, C_i, ceil(H/s), ceil(W/s)]."""
        raise NotImplementedError

    def early(self, stages: int) -> list[nn.Module]:
        """The stem and the first ``stages`` stages, which training may leave as they are.

        Raises:
            ModelError: this kind cannot tell them from the rest.
        """
        raise ModelError(
            f'a {type(self).__name__} has no first stages of its own; '
            'expected a ResNet or EfficientNet'
        )

    def blocks(self) -> list[list[nn.Module]]:
        """Four stages of blocks, which run one after the other; the first block has the stem.

        Raises:
            ModelError: this kind is more than a chain of blocks.
        """
        raise ModelError(
            'branched networks work on the blocks of ResNets and EfficientNets; '
            f'expected such a backbone, not {type(self).__name__}'
        )


class TimmPyramid(Pyramid):
    """A timm backbone whose features come out NCHW."""

    net: Any  # as timm makes it

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__()
        self.net = timm.create_model(name, features_only=True, pretrained=pretrained, **arguments)
        self.channels = tuple(self.net.feature_info.channels())
        config = timm.get_pretrained_cfg(name)
        self.mean, self.std = tuple(config.mean), tuple(config.std)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,H,W] normalised -> four [B, C_i, ceil(H/s), ceil(W/s)]."""
        return list(self.net(image))


class EfficientNetPyramid(TimmPyramid):
    """EfficientNet, of whose seven stages the pyramid has four: those before the grid halves."""

    def early(self, stages: int) -> list[nn.Module]:
        """The stem and the first ``stages`` of the paper's stages; two of them reach stride 4."""
        return [self.net.conv_stem, self.net.bn1, *self.net.blocks[:stages]]

    def blocks(self) -> list[list[nn.Module]]:
        """Four stages of inverted residuals; the first block has the stem."""
        ends = [info['stage'] for info in self.net.feature_info.get_dicts()]
        stages = [
            [block for blocks in self.net.blocks[begin:end] for block in blocks]
            for begin, end in itertools.pairwise([0, *ends])
        ]
        stem = nn.Sequential(self.net.conv_stem, self.net.bn1)
        stages[0][0] = nn.Sequential(stem, stages[0][0])
        return stages


class SwinPyramid(TimmPyramid):
    """Swin at any input size, as released: pads to whole 4x4 patches, blocks to whole windows.

    Differs from the released code for dense prediction: no LayerNorm on the outputs of the stages.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        sizes = {'strict_img_size': False, 'always_partition': True}
        super().__init__(name, {**arguments, **sizes}, pretrained=pretrained)
        use_shifted_windows(self.net[f'layers_{stage}'] for stage in range(4))

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,H,W] normalised -> four [B, C_i, ceil(H/s), ceil(W/s)]."""
        padded = F.pad(image, (0, -image.shape[-1] % 4, 0, -image.shape[-2] % 4))
        return [feature.permute(0, 3, 1, 2) for feature in self.net(padded)]


class HRNetPyramid(TimmPyramid):
    """HRNet's four raw branches at any input size.

    Differs from timm: branches that were up-sampled by a power of two are cropped to the branch
    they are added to, so that sizes need not be multiples of 32. Parameters keep their names.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        for stage in (self.net.stage2, self.net.stage3, self.net.stage4):
            for index, module in enumerate(stage):
                stage[index] = _Exchange(module)


class _Exchange(nn.Module):
    """HRNet's exchange unit: each branch receives the sum of all, on its own grid."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.branches = module.branches
        self.fuse_layers = module.fuse_layers
        self.fuse_act = module.fuse_act

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [
            self.fuse_act(
                sum(self.fit(layer(x), own) for layer, x in zip(layers, features, strict=True))
            )
            for layers, own in zip(self.fuse_layers, features, strict=True)
        ]

    def fit(self, x: Tensor, own: Tensor) -> Tensor:
        """A branch on the grid of the one it is added to."""
        return crop(x, own)


class SurveyHRNetPyramid(HRNetPyramid):
    """HRNet as the survey's code has it: branches are up-sampled bilinearly, where timm repeats.

    Its BatchNorms keep their averages ten times as long (momentum .01). Parameters have the names
    of timm; weights trained with one of them do not fit the other.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        for stage in (self.net.stage2, self.net.stage3, self.net.stage4):
            for index, module in enumerate(stage):
                stage[index] = _BilinearExchange(module)
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.01


class _BilinearExchange(_Exchange):
    """HRNet's exchange unit with bilinear up-sampling to the size of the finer branch."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        for layers in self.fuse_layers:
            for layer in layers:
                if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample):
                    layer[-1] = nn.Identity()

    def fit(self, x: Tensor, own: Tensor) -> Tensor:
        return resize(x, own.shape[-2:])


class ResNetPyramid(TimmPyramid):
    """ResNet; dilated to output stride 8 the last three scales have the same grid.

    The survey's dilated ResNets: stage 3 has dilation 2, stage 4 dilation 4.
    """

    def stem(self, image: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,64,H/4,W/4]: convolution, BatchNorm, ReLU, max-pooling."""
        return self.net.maxpool(self.net.act1(self.net.bn1(self.net.conv1(image))))

    def early(self, stages: int) -> list[nn.Module]:
        """The stem and the first ``stages`` stages; the first has stride 4 as the stem does."""
        return [self.net.conv1, self.net.bn1, *self.stages[:stages]]

    def blocks(self) -> list[list[nn.Module]]:
        """Four stages of residual blocks; the first block has the stem."""
        net = self.net
        stages: list[list[nn.Module]] = [list(stage) for stage in self.stages]
        stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        stages[0][0] = nn.Sequential(stem, stages[0][0])
        return stages

    @property
    def stem_width(self) -> int:
        """Channels of the stem."""
        return self.net.bn1.num_features

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four residual stages."""
        return [self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4]

    @property
    def dilated(self) -> bool:
        """Whether the last three scales are all of stride 8."""
        return self.net.feature_info.reduction()[-1] == 8


class ViTPyramid(TimmPyramid):
    """A plain ViT of stride 16 with the simple feature pyramid of ViTDet (Li et al., ECCV 2022).

    Stride 4: two transposed convolutions 2x2, each halving the width, LayerNorm and GELU between;
    stride 8: one; 16: the feature; 32: max-pooling. Of ``out_indices`` there may be one depth, from
    which all scales are made as in ViTDet, or four, one for each.

    Differs from ViTDet: no further convolutions to 256 channels, which a system's own layers are.
    Images need not be whole patches: they are padded, and the features cropped.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        width = self.channels[0]
        self.channels = (width // 4, width // 2, width, width)
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                    LayerNorm2d(width // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
                ),
                nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        depths = list(self.net(image))  # each [B, C, ceil(H/16), ceil(W/16)]
        depths *= 4 // len(depths)
        return [
            scale(x)[..., : -(-height // stride), : -(-width // stride)]
            for scale, x, stride in zip(self.scales, depths, (4, 8, 16, 32), strict=True)
        ]


class Mask2FormerPyramid(Pyramid):
    """Mask2Former on Swin-S (Cheng et al., CVPR 2022) from the package transformers.

    The finest scale is MT-CP's representation R = (sum_n M_n) F: the logits M_n of the masks, 100,
    times the feature F of the masks; the others are those of the pixel decoder. All have 256
    channels. ``pretrained`` loads the weights for ADE20K segmentation, not those of ImageNet.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__()
        try:
            transformers: Any = importlib.import_module('transformers')
        except ImportError as error:
            raise ModelError(
                'Mask2Former comes from a package: pip install transformers'
            ) from error
        kind = transformers.Mask2FormerForUniversalSegmentation
        if pretrained:
            self.net = kind.from_pretrained(name)
        else:
            swin = transformers.SwinConfig(**arguments)
            self.net = kind(transformers.Mask2FormerConfig(backbone_config=swin, num_labels=150))
        self.channels = (256, 256, 256, 256)
        self.mean, self.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def forward(self, image: Tensor) -> list[Tensor]:
        out = self.net(image, output_hidden_states=True)
        masks = out.masks_queries_logits.sum(dim=1, keepdim=True)  # [B, 1, H/4, W/4]
        finest = masks * out.pixel_decoder_last_hidden_state
        return [finest, *reversed(out.pixel_decoder_hidden_states)]


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The top left of x, as high and wide as `like`."""
    return x[..., : like.shape[-2], : like.shape[-1]]
