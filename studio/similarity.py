"""How alike two pictures are."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(first: Image.Image, second: Image.Image) -> float:
    """Structural similarity of two RGB pictures of one size, 1 for equal ones, about 0 for unrelated ones: the mean
    over channels and places of luminance, contrast and structure, compared in a Gaussian window of 1.5 px (Wang et al.,
    2004, doi:10.1109/TIP.2003.819861).

    Raises:
        ValueError: their sizes differ.
    """
    if first.size != second.size:
        raise ValueError(f"pictures of {first.size} and {second.size} px cannot be compared")
    one, two = (np.asarray(image.convert("RGB"), dtype=np.float64) / 255 for image in (first, second))
    mean_one, mean_two = _blurred(one), _blurred(two)
    variance_one = _blurred(one**2) - mean_one**2
    variance_two = _blurred(two**2) - mean_two**2
    covariance = _blurred(one * two) - mean_one * mean_two
    luminance = (2 * mean_one * mean_two + _C1) / (mean_one**2 + mean_two**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_one + variance_two + _C2)
    return float((luminance * structure).mean())


def _blurred(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, sigma=(_SIGMA, _SIGMA, 0), truncate=3.5)
