"""Find out how the pixels of a set are stored, and normalise them like those of data.

| convention | a pixel p in [0, 1] is stored as |
| --- | --- |
| `unit` | p |
| `bytes` | 255 p, as integers or floating numbers |
| `signed` | 2 p − 1 |
| `normalised` | (p − mean) / std, by the mean and std of the data |
| `imagenet` | the same, by the mean and std of ImageNet |
"""

import numpy as np

from jaxdd import audit
from jaxdd.data import datasets

CONVENTIONS = ("unit", "bytes", "signed", "normalised", "imagenet")
"""How pixels can be stored."""

_IMAGENET = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)], np.float32)

# Distilled pixels leave [0, 1]: nearly all by less than `_MARGIN`, few by up to `_OVERSHOOT`.
_MARGIN, _OVERSHOOT, _OUTLIERS = 0.1, 0.25, 0.05
_MAX_DISTANCE = 0.8  # from the brightness and the contrast of the data, see `_distance`
_NARROWEST = 0.05  # images with a smaller range of bytes have another convention
_FURTHEST = 8  # a pixel beyond this is an error in the convention, not of the distillation


def normalise(
    images: np.ndarray,
    benchmark: datasets.Benchmark,
    *,
    convention: str | None = None,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, str]:
    """Return images float32 `[m, h, w, c]` normalised by the moments of data, and the convention.

    Args:
        images: `[m, h, w, c]`, integers or floating numbers.
        benchmark: The data.
        convention: One of `CONVENTIONS`. Defaults to a guess, which is made only if a single one
            is plausible.
        moments: Mean and std `[c]` by which floating images are known to be normalised.

    Raises:
        ValueError: Values that do not fit the convention, or no plausible convention.
    """
    if images.dtype.kind not in "iuf" or images.dtype.itemsize > 8:
        raise ValueError(f"images must be integers or floating numbers, got {images.dtype}")
    if not np.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or infinite values")
    mean, std = (np.asarray(x, np.float32) for x in (benchmark.mean, benchmark.std))
    if moments is not None and images.dtype.kind == "f":
        if convention is not None:
            raise ValueError(f"the set states its mean and std; leave out pixels={convention!r}")
        images = images.astype(np.float32, copy=False)
        if not np.array_equal(moments, (mean, std)):
            images = (images * moments[1] + moments[0] - mean) / std
        return images.astype(np.float32), "normalised"
    convention = _guess(images, benchmark) if convention is None else convention
    if convention not in CONVENTIONS:
        raise ValueError(f"pixels must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    if images.dtype.kind != "f" and convention not in ("unit", "bytes"):
        raise ValueError(f"integers must be bytes, 0..255, got pixels={convention!r}")
    pixels = _to_unit(images, convention, benchmark)
    is_constant = convention == "bytes" and np.ptp(pixels) < _NARROWEST
    if is_constant or not -_FURTHEST <= pixels.min() <= pixels.max() <= _FURTHEST:
        raise ValueError(f"values {_span(images)} are not {convention} pixels")
    images = images if convention == "normalised" else (pixels - mean) / std
    return images.astype(np.float32), convention


def _to_unit(images, convention, benchmark):
    """Return pixels on the scale [0, 1]."""
    if images.dtype.kind != "f" or convention == "bytes":
        return images / np.float32(255)
    if convention == "unit":
        return images
    if convention == "signed":
        return (images + 1) / 2
    if convention == "imagenet" and images.shape[-1] != 3:
        raise ValueError(f"imagenet pixels have 3 channels, got {images.shape[-1]}")
    moments = _IMAGENET if convention == "imagenet" else (benchmark.mean, benchmark.std)
    mean, std = (np.asarray(x, np.float32) for x in moments)
    return images * std + mean


def _guess(images, benchmark):
    """Return the only plausible convention.

    The range rules out most conventions. Of the others, the one is taken that gives the brightness
    and the contrast of the real images, if no other one does nearly as well.
    """
    name, real = benchmark.name, benchmark.train.images
    real = real[np.linspace(0, len(real) - 1, min(200, len(real))).astype(int)] / np.float32(255)
    low, high, advice = images.min(), images.max(), f"pass --pixels {'|'.join(CONVENTIONS)}"
    is_whole = np.abs(images - np.rint(images)).max() < 1e-3  # 255 p may have been rounded
    if images.dtype.kind != "f" or (high > 1 + _OVERSHOOT and is_whole):
        if low < 0 or high > 255 or high < 255 * real.max() / 4:
            raise ValueError(
                f"whole numbers must use the range 0..255 as {name} does, got {_span(images)}; "
                f"scale them, or {advice}"
            )
        return "bytes"
    tried = ("unit", "signed", "normalised", *["imagenet"] * (images.shape[-1] == 3))
    seen = {x: _to_unit(images, x, benchmark) for x in tried}
    distances = {x: _distance(seen[x], real) for x in tried}
    plausible = [x for x in tried[:3] if _is_plausible(x, seen[x], real, distances[x])]
    best = min(plausible, key=distances.__getitem__, default=None)
    if best is None:
        raise ValueError(
            f"values {_span(images)} are not plausible as unit, signed or normalised pixels of "
            f"{name}; they may be whitened, or normalised by other moments; {advice}"
        )
    spans_range = seen[best].min() < _MARGIN and seen[best].max() > 1 - _MARGIN
    is_clear = best == "signed" and spans_range
    margins = dict.fromkeys(plausible, 0.1 if is_clear else 0.5)
    margins["imagenet"] = -0.1  # close to the moments of many data, so only if it fits better
    for other in distances.keys() & margins.keys() - {best}:
        is_other = not np.allclose(seen[other], seen[best], atol=1e-4)
        if is_other and distances[other] < distances[best] + margins[other]:
            raise ValueError(f"values {_span(images)} may be {best} or {other} pixels; {advice}")
    return best


def _distance(pixels, real):
    """Return by how much pixels differ from real ones in brightness, contrast and range."""
    spread = max(float(real.std()), 1e-3)
    brightness = abs(float(pixels.mean()) - float(real.mean())) / spread
    contrast = abs(np.log(max(float(pixels.std()), 1e-6) / spread))
    return brightness + contrast + 2 * _outliers(pixels)


def _outliers(pixels):
    return float((np.abs(pixels - 0.5) > 0.5 + _MARGIN).mean())


def _is_plausible(convention, pixels, real, distance):
    if convention == "normalised":
        rough, usual = (float(audit.roughness(images)) for images in (pixels, real))
        is_smooth = rough <= 0.5 + 0.6 * usual  # neighbours are uncorrelated in whitened images
        return is_smooth and distance <= _MAX_DISTANCE and -1 <= pixels.min() <= pixels.max() <= 2
    overshoot = max(-pixels.min(), pixels.max() - 1)
    if overshoot > _OVERSHOOT or _outliers(pixels) > _OUTLIERS:
        return False
    if convention == "unit":
        return pixels.max() >= real.max() / 4
    # Unit pixels read as signed ones lie in [0.5, 1], whitened or faint ones near 0.5.
    return pixels.min() < _MARGIN and (pixels.max() > 1 - _MARGIN or distance <= _MAX_DISTANCE)


def _span(images):
    return f"{float(images.min()):.4g}..{float(images.max()):.4g}"
