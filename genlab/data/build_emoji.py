"""A script that builds the archive of `dataset=emoji` from the files of two Debian packages.

    apt-get install fonts-noto-color-emoji unicode-data
    pip install fonttools
    python -m genlab.data.build_emoji

It takes a few minutes, and produces the same pictures, names, classes and splits each time. The archive in
the package was made from fonts-noto-color-emoji 2.042 and unicode-data 15.0.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genlab.data.emoji import ARCHIVE, CLASSES, SIZE, SPLITS, Archive

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")

COLOURS = 64
"""The number of colours of one stored picture.

On white these are 41 dB from the averages of the font's pixels, and 46 dB at 32x32; with all colours the
archive would be more than twice as large.
"""

HELD_OUT = {"validation": 0.1, "test": 0.1}
"""Share of the bases of each class."""

_TONES = range(0x1F3FB, 0x1F400)
_VARIATIONS = {
    *_TONES,
    *range(0x1F9B0, 0x1F9B4),  # red, curly, white, no hair
    0x2640, 0x2642,  # woman, man
    0x27A1, 0x2194, 0x2195,  # facing right, shaking the head, nodding
    0x200D, 0xFE0F,  # join, show as picture
}  # fmt: skip
"""Code points that turn an emoji into a variant of it."""

_UNDER_ANOTHER_FLAG = {
    f"flag: {name}"
    for name in (
        "Bouvet Island", "Ceuta & Melilla", "Clipperton Island", "Diego Garcia", "Heard & McDonald Islands",
        "St. Martin", "Svalbard & Jan Mayen", "U.S. Outlying Islands",
    )
}  # fmt: skip
"""Names of pictures that have another country's name."""

_TAG = 0xE0000
"""Offset of the code points of the letters in a flag's tag."""

_ADULT, _CHILD, _FAMILY = 0x1F9D1, 0x1F9D2, 0x1F46A
_SAME = {
    (0x1F468,): (_ADULT,), (0x1F469,): (_ADULT,),
    (0x1F466,): (_CHILD,), (0x1F467,): (_CHILD,),
    (0x1F474,): (0x1F9D3,), (0x1F475,): (0x1F9D3,),  # older people
    (0x1F478,): (0x1FAC5,), (0x1F934,): (0x1FAC5,),  # with a crown
    (0x1F936,): (0x1F385,), (_ADULT, 0x1F384): (0x1F385,),  # bringing presents
    (0x1FAC3,): (0x1F930,), (0x1FAC4,): (0x1F930,),  # pregnant
    (0x1F57A,): (0x1F483,),  # dancing
    (0x1F46B,): (0x1F46D,), (0x1F46C,): (0x1F46D,), (_ADULT, 0x1F91D, _ADULT): (0x1F46D,),  # holding hands
    (_ADULT, 0x2764, 0x1F48B, _ADULT): (0x1F48F,),  # kiss
    (_ADULT, 0x2764, _ADULT): (0x1F491,),  # couple with heart
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake
}  # fmt: skip
"""Sequences without variations that are the same emoji with people of another sex or age."""


@dataclass(frozen=True)
class Emoji:
    """One picture of the font.

    Attributes:
        sequence: its code points, without those that only request a picture.
        name: Unicode's name.
        group: Unicode's group, one of `genlab.data.emoji.CLASSES`.
        glyph: its name within the font.
    """

    sequence: tuple[int, ...]
    name: str
    group: str
    glyph: str

    @property
    def base(self) -> tuple[int, ...]:
        """Returns the emoji of which this is a variant, or its own sequence."""
        return base_of(self.sequence)

    @property
    def toned(self) -> bool:
        """Returns whether it has a skin tone of its own."""
        return any(point in _TONES for point in self.sequence)


def base_of(sequence: Sequence[int]) -> tuple[int, ...]:
    """Returns a sequence without skin tones, hair, direction and sex: the common part of all variants."""
    base = tuple(point for point in sequence if point not in _VARIATIONS) or tuple(sequence)
    base = tuple(_SAME.get((point,), (point,))[0] for point in base)
    if len(base) > 1 and set(base) <= {_ADULT, _CHILD}:
        return (_FAMILY,)
    return _SAME.get(base, base)


def read_names(path: Path) -> dict[tuple[int, ...], tuple[str, str]]:
    """Reads sequence -> name and group from Unicode's emoji-test.txt, without its components."""
    found, group = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif match := re.match(r"([0-9A-F ]+); fully-qualified +# \S+ E[\d.]+ (.+)", line):
            points = (int(point, 16) for point in match[1].split())
            found[tuple(point for point in points if point != 0xFE0F)] = match[2], group
    return {sequence: found[sequence] for sequence in found if found[sequence][0] not in _UNDER_ANOTHER_FLAG}


def read_glyphs(font: Any) -> dict[str, list[tuple[int, ...]]]:
    """Returns glyph -> the sequences that it is drawn for, from a font of fontTools."""
    glyphs: dict[str, list[tuple[int, ...]]] = {}
    points: dict[str, int] = {}
    for point, glyph in sorted(font.getBestCmap().items()):
        glyphs.setdefault(glyph, []).append((point,))
        points.setdefault(glyph, point)
    for table in font["GSUB"].table.LookupList.Lookup[0].SubTable:
        for first, ligatures in table.ligatures.items():
            for ligature in ligatures:
                sequence = tuple(points[part] for part in (first, *ligature.Component))
                glyphs.setdefault(ligature.LigGlyph, []).append(sequence)
    return glyphs


def read_font(font: Any, names: dict[tuple[int, ...], tuple[str, str]]) -> list[Emoji]:
    """Returns the emoji of a font, ordered by sequence; without letters, digits and parts of emoji.

    A sequence newer than `names` gets the name and group of its longest known prefix: a walking person who
    faces right is a walking person.
    """
    found = []
    drawn = font["CBDT"].strikeData[0]
    for glyph, sequences in read_glyphs(font).items():
        known, sequence = max((_known(sequence, names), sequence) for sequence in sequences)
        length = known[0]
        if glyph in drawn and length:
            name, group = names[sequence[:length]]
            if tag := "".join(chr(point - _TAG) for point in sequence[length:-1] if point > _TAG):
                name = f"flag: {tag[:2].upper()}-{tag[2:].upper()}"  # of a part of a country
            found.append(Emoji(sequence, name, group, glyph))
    return sorted(found, key=lambda emoji: emoji.sequence)


def _known(sequence: tuple[int, ...], names: dict[tuple[int, ...], tuple[str, str]]) -> tuple[int, bool, int]:
    """Returns an order of preference between sequences: the larger tuple wins.

    Its first entry is the length of the longest prefix with a name, 0 if there is none; the others
    distinguish the right order of a joined sequence from the other, as the font has both.
    """
    length = next((n for n in range(len(sequence), 0, -1) if sequence[:n] in names), 0)
    return length, sequence[0] not in _VARIATIONS, -sequence[0]


def picture(png: bytes) -> np.ndarray:
    """Decodes a bitmap, halved by averaging: (SIZE, SIZE, 4) uint8, colours times alpha, and alpha.

    The bitmaps have 136x128 pixels, and the outer four columns are empty.
    """
    pixels = np.asarray(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA")).astype(np.int64)
    height, width, _ = pixels.shape
    edge = (width - height) // 2
    if height != 2 * SIZE or pixels[:, :edge, 3].any() or pixels[:, width - edge :, 3].any():
        raise ValueError(f"a bitmap of {width}x{height} pixels, or one that would lose its edges")
    pixels = pixels[:, edge : width - edge]
    pixels[..., :3] *= pixels[..., 3:]
    pixels[..., 3] *= 255
    sums = pixels.reshape(SIZE, 2, SIZE, 2, 4).sum((1, 3))
    return ((sums + 510) // 1020).astype(np.uint8)


def with_few_colours(image: np.ndarray, colours: int = COLOURS, rounds: int = 8) -> np.ndarray:
    """Reduces an image (H, W, 4) uint8 to at most `colours` colours, by k-means in integers: reproducible."""
    values, place, counts = np.unique(
        image.reshape(-1, 4).astype(np.int32), axis=0, return_inverse=True, return_counts=True
    )
    if len(values) <= colours:
        return image
    # Initialization: colours at equal steps of the cumulative number of pixels, in order of brightness.
    order = np.argsort(values.sum(1), kind="stable")
    steps = np.minimum(counts[order], 16).cumsum()
    wanted = (2 * np.arange(colours) + 1) * steps[-1] // (2 * colours)
    centres = values[order[np.searchsorted(steps, wanted, side="right")]]
    for _ in range(rounds):
        distances = _distances(values, centres)
        nearest = distances.argmin(1)
        members = np.bincount(nearest, counts, colours).astype(np.int64)
        filled = members > 0
        for channel in range(4):
            sums = np.bincount(nearest, values[:, channel] * counts, colours).astype(np.int64)
            centres[filled, channel] = (2 * sums[filled] + members[filled]) // (2 * members[filled])
        if not filled.all():  # a colour without pixels moves to the pixels with the largest error
            worst = np.argsort(-distances.min(1) * counts, kind="stable")
            centres[~filled] = values[worst[: colours - filled.sum()]]
    nearest = _distances(values, centres).argmin(1)
    return centres[nearest][place.reshape(-1)].reshape(image.shape).astype(np.uint8)


def _distances(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Returns squared distances (N, K) between integers (N, 4) and (K, 4)."""
    channels = zip(values.T, centres.T, strict=True)
    return np.sum([np.square(value[:, None] - centre) for value, centre in channels], axis=0)


def digest(sequence: Sequence[int]) -> bytes:
    """Returns a hash that orders emoji at random, the same on every machine."""
    return hashlib.blake2b(" ".join(f"{point:X}" for point in sequence).encode(), digest_size=8).digest()


def choose_splits(emoji: Sequence[Emoji]) -> list[str]:
    """Chooses the split of each: all variants of a base in one, the same share of each class held out."""
    split_of = {}
    for group in CLASSES:
        bases = sorted({e.base for e in emoji if e.group == group} - set(split_of), key=digest)
        start = 0
        for split, share in HELD_OUT.items():
            end = start + round(share * len(bases))
            split_of |= dict.fromkeys(bases[start:end], split)
            start = end
        split_of |= dict.fromkeys(bases[start:], "train")
    return [split_of[e.base] for e in emoji]


def pictures(font: Any, emoji: Sequence[Emoji]) -> Iterator[tuple[Emoji, np.ndarray]]:
    """Yields each emoji with its picture; one that looks exactly like another is left out."""
    drawn = font["CBDT"].strikeData[0]
    seen = set()
    for one in emoji:
        image = picture(drawn[one.glyph].imageData)
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            yield one, image


def build(font_path: Path, names_path: Path) -> Archive:
    """Builds the whole archive, in memory."""
    from fontTools.ttLib import TTFont  # needed only here

    font = TTFont(font_path)
    chosen = list(pictures(font, read_font(font, read_names(names_path))))
    chosen.sort(key=lambda item: digest(item[0].sequence))
    emoji = [one for one, _ in chosen]
    return Archive(
        images=np.stack([with_few_colours(image) for _, image in chosen]),
        labels=np.array([CLASSES.index(one.group) for one in emoji], np.uint8),
        splits=np.array([SPLITS.index(split) for split in choose_splits(emoji)], np.uint8),
        toned=np.array([one.toned for one in emoji]),
        sequences=[" ".join(f"{point:X}" for point in one.sequence) for one in emoji],
        names=[one.name for one in emoji],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the archive of dataset=emoji.")
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--names", type=Path, default=NAMES, help="Unicode's emoji-test.txt")
    parser.add_argument("--to", type=Path, default=ARCHIVE)
    args = parser.parse_args()
    archive = build(args.font, args.names)
    archive.write(args.to)
    print(f"{len(archive.names)} pictures, {args.to.stat().st_size / 1e6:.2f} MB: {args.to}")


if __name__ == "__main__":
    main()
