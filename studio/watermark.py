"""The mark that nobody sees: a few bits in the pixels themselves, which a chat app does not strip as it does metadata.

It is quantisation index modulation (B. Chen and G. W. Wornell, "Quantization index modulation", IEEE Transactions on
Information Theory 47, 2001) of three of the 64 DCT coefficients of each 8×8 block of luma: each is moved to the nearest
point of one of two interleaved lattices, and which of the two says a bit. The payload is a version, a magic number and
their checksum. Which of its bits a coefficient carries, and which lattice means 1 there, is drawn once from a fixed
seed for a tile of 16×16 blocks that is repeated over the picture; so each bit is written many times, and a part of a
picture has all of them. A reader adds up how well all coefficients fit the payload of each version that it knows.

How sure a reading is follows from that drawing. For a picture that knows nothing of it, each summand of the vote is as
likely to have one sign as the other, whatever the picture shows; so the vote, divided by the root of the sum of its
squares, exceeds z with a probability of at most exp(-z²/2) (Hoeffding's inequality). A mark is said to be there from
z = 8 on: 1.3e-14 for one reading. What `read_mark` tries for one picture, 64 places of the grid times 256 of the tile
and some sizes, makes less than 3e-10 of it, and less than 3e-6 for a single false one among ten thousand pictures.

Whoever wants to can remove it, as any mark of this kind, and the seed is no secret: it tells what a picture is where
nobody minds that.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn, idctn

VERSION = 1
"""What a picture is told to be marked by; another way of marking needs another number."""
SMALLEST_PX = 128
"""Of either side. A smaller picture is marked as well, but what is left after a JPEG may be too little to be sure."""

_MAGIC = 0xF1A5457D
_SEED = 2001
_BLOCK, _TILE = 8, 16
_ROWS, _COLUMNS = (0, 1, 1), (1, 1, 0)
"""Of the coefficients: the lowest but brightness, which WebP, whose transform has 4×4, leaves in flat colours."""
_STEP = 24.0
"""Between points of one lattice: a quarter of it, 6, may be lost; JPEG at quality 75 takes half of 6 at most here."""
_LEAST_Z = 8.0
_MOST_PASSES = 12
_NEAR = 0.5
_STRETCH = 0.1
_MOST_PX, _SCALED_PX, _CUT_PX = 2048, 1024, 512
"""As much of a picture, from its upper left corner, is looked at: as it is, in another size, on another grid."""
_LUMA = np.array([0.299, 0.587, 0.114])

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """`confidence` is how well the coefficients fit: 1 where nothing happened to the picture, 0 by chance alone.
    `chance` is an upper bound of the probability that a picture without a mark reads like this one."""

    version: int
    confidence: float
    chance: float


def marked(image: Image.Image) -> Image.Image:
    """The same picture (RGB) with the mark; at least 40 dB from the original. One that has it
    already stays as it is, or nearly so.

    Where a colour cannot go beyond black or white, what is cut off is made up for by the block's other pixels, in a few
    passes. Rows and columns beyond the last whole block stay.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64).copy()
    height, width = (side // _BLOCK * _BLOCK for side in pixels.shape[:2])
    whole = pixels[:height, :width]
    found = _coefficients(whole)
    shift = _spread(_signs(VERSION), found.shape) * _STEP / 4
    wanted = np.round((found - shift) / _STEP) * _STEP + shift
    for _ in range(_MOST_PASSES):
        missing = wanted - found
        if not missing.size or np.abs(missing).max() < _NEAR:
            break
        whole += _luma_of(missing)[..., None]
        np.clip(whole, 0, 255, out=whole)
        found = _coefficients(whole)
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def read_mark(image: Image.Image) -> Mark | None:
    """The mark of a picture; None where there is none to be sure of.

    It is read from lossless copies, from JPEGs from quality 75 and WebPs from quality 80 on, where a part of at least
    128 × 128 px was cut out, and mostly where the whole was made up to a tenth smaller or larger.
    """
    grey = image.convert("L")
    if min(grey.size) < _BLOCK * 2:
        return None
    readings = (_read(_votes(_pixels(each, _SCALED_PX))) for each in _other_sizes(grey))
    return (
        _read(_votes(_pixels(grey, _MOST_PX)))
        or _read_cut(_pixels(grey, _CUT_PX))
        or next(filter(None, readings), None)
    )


def _pixels(grey: Image.Image, most_px: int) -> Floats:
    """Luma of the upper left corner of a picture, up to `most_px` on each side."""
    return np.asarray(grey.crop((0, 0, min(grey.width, most_px), min(grey.height, most_px))), dtype=np.float64)


def _read(votes: Floats) -> Mark | None:
    """What the sums over a tile say, where the tile begins at the upper left corner."""
    return _judged(votes, float(np.sum(votes[0] * _signs(VERSION))))


def _read_cut(luma: Floats) -> Mark | None:
    """The surest reading over all places of the grid and of the tile."""
    best: Mark | None = None
    against = np.conj(np.fft.fft2(_signs(VERSION), axes=(0, 1)))
    for row in range(_BLOCK):
        for column in range(_BLOCK):
            votes = _votes(luma[row:, column:])
            sums = np.fft.ifft2(np.fft.fft2(votes[0], axes=(0, 1)) * against, axes=(0, 1))
            mark = _judged(votes, float(sums.real.sum(axis=2).max()))
            if mark is not None and (best is None or mark.chance < best.chance):
                best = mark
    return best


def _judged(votes: Floats, total: float) -> Mark | None:
    squares, weight = float(np.sum(votes[0] ** 2)), float(np.sum(votes[1]))
    z = total / math.sqrt(squares) if squares > 0 else 0.0
    if z < _LEAST_Z:
        return None
    return Mark(version=VERSION, confidence=round(min(1.0, total / weight), 3), chance=math.exp(-z * z / 2))


def _other_sizes(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture in sizes of whole blocks from which it may have been made smaller or larger, cut off where it is long
    enough."""
    width, height = picture.size
    least, most = (width - 1) / (1 + _STRETCH), (width + 1) / (1 - _STRETCH)  # by a pixel that was rounded away
    for blocks in range(math.ceil(least / _BLOCK), int(most / _BLOCK) + 1):
        tall = round(blocks * height / width) * _BLOCK
        if blocks and tall and (blocks * _BLOCK, tall) != picture.size:
            box = (min(blocks * _BLOCK, _SCALED_PX), min(tall, _SCALED_PX))
            scale = (width / (blocks * _BLOCK), height / tall)
            yield picture.resize(box, Image.Resampling.LANCZOS, (0, 0, box[0] * scale[0], box[1] * scale[1]))


def _votes(luma: Floats) -> Floats:
    """For each coefficient of a tile, summed over the picture, which lattice it lies nearer to, and how many there
    are: `(2, 16, 16, 3)`."""
    fits = np.sin(2 * np.pi * _chosen(luma) / _STEP)
    rows, columns = (math.ceil(count / _TILE) * _TILE for count in fits.shape[:2])
    padded = np.zeros((2, rows, columns, fits.shape[2]))
    padded[0, : fits.shape[0], : fits.shape[1]] = fits
    padded[1, : fits.shape[0], : fits.shape[1]] = 1
    tiles = padded.reshape(2, rows // _TILE, _TILE, columns // _TILE, _TILE, -1)
    return tiles.sum(axis=(1, 3))


def _coefficients(pixels: Floats) -> Floats:
    return _chosen(pixels @ _LUMA)


def _chosen(luma: Floats) -> Floats:
    """The coefficients that carry bits: `(H/8, W/8, 3)`."""
    rows, columns = (side // _BLOCK for side in luma.shape)
    blocks = luma[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK).transpose(0, 2, 1, 3)
    found: Floats = dctn(blocks, axes=(2, 3), norm="ortho")[:, :, _ROWS, _COLUMNS]
    return found


def _luma_of(change: Floats) -> Floats:
    """What has to be added to luma to change the coefficients by so much: `(H, W)`."""
    rows, columns = change.shape[:2]
    full = np.zeros((rows, columns, _BLOCK, _BLOCK))
    full[:, :, _ROWS, _COLUMNS] = change
    blocks: Floats = idctn(full, axes=(2, 3), norm="ortho")
    return blocks.transpose(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK)


def _spread(tile: Floats, shape: tuple[int, ...]) -> Floats:
    repeats = (math.ceil(shape[0] / _TILE), math.ceil(shape[1] / _TILE), 1)
    return np.tile(tile, repeats)[: shape[0], : shape[1]]


@cache
def _signs(version: int) -> Floats:
    """Which lattice each coefficient of a tile is moved to, as -1 or 1: `(16, 16, 3)`."""
    head = bytes([version]) + _MAGIC.to_bytes(4, "big")
    payload = head + zlib.crc32(head).to_bytes(4, "big")[:2]
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    drawn = np.random.RandomState(_SEED)  # unlike newer generators, its numbers are promised never to change
    count = _TILE * _TILE * len(_ROWS)
    order = drawn.permutation(count) % bits.size
    flips = drawn.randint(0, 2, count)
    return np.where(bits[order] ^ flips, 1.0, -1.0).reshape(_TILE, _TILE, len(_ROWS))
