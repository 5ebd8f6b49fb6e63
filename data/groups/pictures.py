"""Pictures by how they look: those whose perceptual hashes differ in few bits are near."""

from __future__ import annotations

from collections import defaultdict

from PIL import Image

from data.errors import MissingExtraError

_BANDS = 16  # of a picture's hash


def picture_hash(image: Image.Image) -> int:
    """256 bits that are nearly the same for pictures that look nearly the same (pHash: the signs of the low frequencies of a DCT)."""
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError(f"comparing pictures needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
    return int(str(imagehash.phash(image, hash_size=16)), 16)


class PictureIndex:
    """Picture hashes, for finding those that differ in few bits: of 16 parts of a hash four at least are then equal."""

    def __init__(self, distance: int) -> None:
        if distance >= _BANDS:
            raise ValueError(f"pictures can be compared up to {_BANDS - 1} bits apart, not {distance}")
        self.distance = distance
        self._known = set[tuple[int, str]]()
        self._bands: list[dict[int, list[tuple[int, str]]]] = [defaultdict(list) for _ in range(_BANDS)]

    def near(self, bits: int) -> list[str]:
        """Groups of the pictures at most `distance` bits away."""
        candidates = {one for band, part in zip(self._bands, _parts(bits), strict=True) for one in band.get(part, ())}
        return [group for other, group in candidates if (bits ^ other).bit_count() <= self.distance]

    def add(self, bits: int, group: str) -> None:
        if (bits, group) in self._known:
            return
        self._known.add((bits, group))
        for band, part in zip(self._bands, _parts(bits), strict=True):
            band[part].append((bits, group))


def _parts(bits: int) -> list[int]:
    return [(bits >> (16 * number)) & 0xFFFF for number in range(_BANDS)]
