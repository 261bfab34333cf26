"""E_id: the ArcFace IResNet whose last feature map describes who is in the reference (SVFR, Sec. 4.3), and its crop."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from skimage.transform import estimate_transform
from torch import Tensor, nn
from torch.nn import functional

# Blocks of each of the four stages, by the network's usual name (insightface, arcface_torch).
IRESNET_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
ID_SIZE = 112  # [px], the aligned crop that ArcFace networks take
ID_CROP_STYLES = ("arcface", "official")
# [px] at 112 px, InsightFace's alignment template (ArcFace, Deng et al. 2019): eyes, nose, mouth corners.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# The released code's template: ArcFace's, twice as large and 16 px to the right, on a canvas of 256 px.
OFFICIAL_CANVAS = 256  # [px]
OFFICIAL_TEMPLATE = ARCFACE_TEMPLATE * 2 + (16, 0)
OFFICIAL_ROWS, OFFICIAL_COLUMNS = slice(0, 224), slice(16, 240)  # [px], whatever the size of the canvas
NORM_EPS = 1e-5


class IDFeatures(NamedTuple):
    """What the ID network sees in a face."""

    embedding: Tensor  # (b, 512), not normalized
    feature_map: Tensor  # (b, c, 7, 7), before the last fully connected layer


class IResBlock(nn.Module):
    """A block of the improved residual network: BN - conv - BN - PReLU - conv - BN, plus the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels, eps=NORM_EPS))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(ModelMixin, ConfigMixin):
    """ArcFace's IResNet-18/34/50/100 with the key names, and by default the widths, of the published checkpoints."""

    @register_to_config
    def __init__(
        self, depth: int = 100, block_out_channels: tuple[int, ...] = (64, 128, 256, 512), embedding_dim: int = 512
    ) -> None:
        super().__init__()
        if depth not in IRESNET_LAYERS:
            raise ValueError(f"no IResNet of depth {depth}: choose from {', '.join(map(str, IRESNET_LAYERS))}")
        width = block_out_channels[0]
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.prelu = nn.PReLU(width)
        stages = zip(IRESNET_LAYERS[depth], block_out_channels, strict=True)
        for stage, (num_blocks, out_channels) in enumerate(stages, start=1):
            blocks = [IResBlock(width, out_channels, stride=2)]
            blocks += [IResBlock(out_channels, out_channels, stride=1) for _ in range(num_blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            width = out_channels
        self.bn2 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(p=0.0, inplace=True)
        self.fc = nn.Linear(width * (ID_SIZE // 16) ** 2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim, eps=NORM_EPS)

    def forward(self, face: Tensor) -> IDFeatures:
        """Embed (b, 3, 112, 112) RGB in [-1, 1], faces that are aligned to the five-point template."""
        x = self.prelu(self.bn1(self.conv1(face)))  # (b, 64, 112, 112)
        x = self.layer2(self.layer1(x))  # (b, 128, 28, 28)
        feature_map = self.layer4(self.layer3(x))  # (b, 512, 7, 7)
        x = self.dropout(self.bn2(feature_map).flatten(1))
        return IDFeatures(embedding=self.features(self.fc(x)), feature_map=feature_map)


def face_transform(landmarks: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The (2, 3) similarity, without reflection, that takes (5, 2) landmarks nearest to a template's.

    A ValueError for landmarks that coincide or aren't finite.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if not (np.isfinite(landmarks).all() and np.ptp(landmarks, axis=0).any()):
        raise ValueError(f"a face cannot be aligned by landmarks that coincide or aren't finite: {landmarks.tolist()}")
    return estimate_transform("similarity", landmarks, template).params[:2]


def align_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face as ArcFace networks see it: warped so that its landmarks lie on `ARCFACE_TEMPLATE`.

    From an image (h, w, 3) uint8 RGB and its landmarks (5, 2), eyes, nose tip, mouth corners [px], (112, 112, 3) uint8,
    black where the image ends; errors as `face_transform`.
    """
    matrix = face_transform(landmarks, ARCFACE_TEMPLATE)
    return cv2.warpAffine(image, matrix, (ID_SIZE, ID_SIZE), flags=cv2.INTER_LINEAR)


def id_crop(image: np.ndarray, landmarks: np.ndarray, style: str) -> Tensor:
    """The crop of a face image (s, s, 3) uint8 RGB with landmarks (5, 2) [px] that its ID network was trained on:
    (3, 112, 112) float32 in [-1, 1]. A ValueError for another style, or as `face_transform`.

    The style "arcface" is aligned to the template; "official" are the released SVFR code's steps. These cut at fixed
    pixels, which is right for s = 256 only (at 512 one landmark of five is left in the crop), but it is what the
    released weights are run with.
    """
    if style == "arcface":
        return _to_tensor(align_face(image, landmarks))
    if style == "official":
        size = image.shape[0]
        warped = cv2.warpAffine(image, official_matrix(landmarks, size), (size, size), flags=cv2.INTER_CUBIC)
        return official_crop(warped)
    raise ValueError(f"unknown ID crop '{style}': choose from {', '.join(ID_CROP_STYLES)}")


def official_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Step 1 of the released code's ID crop: (2, 3) similarity to its template, scaled to `size` [px]."""
    return face_transform(landmarks, OFFICIAL_TEMPLATE * size / OFFICIAL_CANVAS)


def official_crop(warped: np.ndarray) -> Tensor:
    """Its last step: rows 0:224 and columns 16:240 of (s, s, 3) uint8, s > 16, resized to (3, 112, 112) in [-1, 1]."""
    cut = warped[OFFICIAL_ROWS, OFFICIAL_COLUMNS]
    if cut.size == 0:
        raise ValueError(f"an image of {warped.shape[1]} px is too small for the official ID crop")
    batch = _to_tensor(cut).unsqueeze(0)
    return functional.interpolate(batch, size=(ID_SIZE, ID_SIZE), mode="bilinear", align_corners=False)[0]


def _to_tensor(image: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 -> (3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 127.5 - 1
