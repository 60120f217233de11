"""Labels that a data set lacks, derived from those that it has: normals of depth, edges of ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.labels import IGNORE


@dataclass(frozen=True)
class Intrinsics:
    """Focal lengths and principal point, in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


def normals_of(
    depth: NDArray[np.uint16],
    camera: Intrinsics,
    *,
    window: int = 11,
    max_residual: float = 0.01,
    min_share: float = 0.75,
) -> NDArray[np.uint8]:
    """Normals of depth, by the plane that fits best around each pixel.

    A plane m . P = 1 seen along the ray P = z ((u - cx) / fx, (v - cy) / fy, 1) has an inverse
    depth that is affine in the pixel: 1 / z = a u + b v + c, with a = m_x / fx, b = m_y / fy and
    m_z = c + a cx + b cy. So a linear fit of 1 / z over a window gives m, and -m / |m| looks
    towards the camera.

    Args:
        depth: uint16 [H, W] millimetres, 0 invalid.
        window: side of the square around a pixel, odd.
        max_residual: root mean square of the fit, relative to 1 / z, beyond which there is no
            normal: at the borders of objects, on thin things, where depth is noise.
        min_share: of the window that must have depth.

    Returns:
        uint8 [H, W, 3], n = 2 v / 255 - 1, 0 0 0 invalid: as a ``Sample`` has them.
    """
    height, width = depth.shape
    known = (depth > 0).astype(np.float64)
    inverse = known / np.maximum(depth, 1) * 1000
    # Coordinates around the middle, scaled: the sums below stay well conditioned.
    scale = 1.0 / window
    u = np.broadcast_to((np.arange(width) - width / 2) * scale, depth.shape)
    v = np.broadcast_to((np.arange(height)[:, None] - height / 2) * scale, depth.shape)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(
            cv2.boxFilter(values, cv2.CV_64F, (window, window), borderType=cv2.BORDER_CONSTANT)
        )

    share = mean(known)
    enough = (share >= min_share) & (depth > 0)
    share = np.where(enough, share, 1)
    mean_u, mean_v = mean(known * u) / share, mean(known * v) / share
    mean_w = mean(inverse) / share
    uu = mean(known * u * u) / share - mean_u**2
    vv = mean(known * v * v) / share - mean_v**2
    uv = mean(known * u * v) / share - mean_u * mean_v
    uw = mean(inverse * u) / share - mean_u * mean_w
    vw = mean(inverse * v) / share - mean_v * mean_w
    ww = mean(inverse * inverse) / share - mean_w**2
    determinant = np.where(enough, uu * vv - uv**2, 1)
    a = (uw * vv - vw * uv) / determinant
    b = (vw * uu - uw * uv) / determinant
    residual = np.sqrt(np.maximum(ww - a * uw - b * vw, 0))
    a, b = a * scale, b * scale  # per pixel
    # The plane's inverse depth on the optical axis, from its value in the middle of the window.
    middle_u, middle_v = mean_u / scale + width / 2, mean_v / scale + height / 2
    axis = mean_w + a * (camera.cx - middle_u) + b * (camera.cy - middle_v)
    m = np.stack([a * camera.fx, b * camera.fy, axis], axis=-1)
    valid = enough & (residual <= max_residual * mean_w)
    length = np.linalg.norm(m, axis=-1)
    normal = -m / np.where(valid, length, 1)[..., None]
    return np.asarray(np.rint((normal + 1) * 127.5) * valid[..., None], np.uint8)


def edges_of(
    ids: NDArray[np.integer[Any]], unlabelled: NDArray[np.bool_], *, gap: int = 6
) -> NDArray[np.uint8]:
    """Borders between classes, or between objects, one or two pixels wide.

    Hand-made labels leave unlabelled seams between objects: pixels within ``gap`` of a label take
    the nearest one first, so that a seam becomes one border in its middle.

    Args:
        ids: [H, W], whole numbers.
        unlabelled: [H, W], where they are none.

    Returns:
        uint8 [H, W]: 1 on a border, 0 elsewhere, 255 where no label is near.
    """
    if not unlabelled.all() and unlabelled.any():
        void = unlabelled.astype(np.uint8)
        distance, nearest = cv2.distanceTransformWithLabels(
            void, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        of_label = np.zeros(int(nearest.max()) + 1, ids.dtype)
        of_label[nearest[void == 0]] = ids[void == 0]
        ids, unlabelled = of_label[nearest], distance > gap
    edges = np.zeros(ids.shape, np.uint8)
    across = (ids[:, 1:] != ids[:, :-1]) & ~(unlabelled[:, 1:] | unlabelled[:, :-1])
    down = (ids[1:] != ids[:-1]) & ~(unlabelled[1:] | unlabelled[:-1])
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    edges[unlabelled] = IGNORE
    return edges
