"""The vocabulary of the product: degradations and what other people's datasets call them.

Plain values without a database: every package imports them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Degradation(StrEnum):
    """One thing that was made worse on purpose. Any set of them is a class."""

    NOISE = "noise"
    MOTION_BLUR = "motion_blur"
    DEFOCUS_BLUR = "defocus_blur"
    GAUSSIAN_BLUR = "gaussian_blur"
    JPEG = "jpeg"
    HAZE = "haze"
    RAIN = "rain"
    RAINDROP = "raindrop"
    LOW_LIGHT = "low_light"
    SNOW = "snow"
    MOIRE = "moire"
    FLARE = "flare"
    REFLECTION = "reflection"
    MOSAIC = "mosaic"
    DOWNSAMPLING = "downsampling"


def degradation_key(degradations: Iterable[Degradation | str]) -> str:
    """Return the canonical name of a class: sorted names joined by ``+``; ``clean`` for the empty set.

    >>> degradation_key(["rain", "haze"])
    'haze+rain'
    """
    return "+".join(sorted({Degradation(d).value for d in degradations})) or "clean"


_BLUR, _NOISE, _JPEG, _HAZE, _LOW = (
    "blur",
    Degradation.NOISE,
    Degradation.JPEG,
    Degradation.HAZE,
    Degradation.LOW_LIGHT,
)
_RAIN, _DROP = Degradation.RAIN, Degradation.RAINDROP

_FOUNDIR_FOLDERS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "01Blur": frozenset({_BLUR}),
        "02Blur_Noise": frozenset({_BLUR, _NOISE}),
        "03Blur_JPEG": frozenset({_BLUR, _JPEG}),
        "04Blur_Noise_JPEG": frozenset({_BLUR, _NOISE, _JPEG}),
        "05Noise": frozenset({_NOISE}),
        "06JPEG": frozenset({_JPEG}),
        "07Noise_JPEG": frozenset({_NOISE, _JPEG}),
        "08Haze": frozenset({_HAZE}),
        "09Lowlight_Haze": frozenset({_LOW, _HAZE}),
        "10Rain": frozenset({_RAIN}),
        "11Raindrop": frozenset({_DROP}),
        "12NightRain": frozenset({_LOW, _RAIN}),
        "13Rain_Haze": frozenset({_RAIN, _HAZE}),
        "14Lowlight": frozenset({_LOW}),
        "15Lowlight_Blur": frozenset({_LOW, _BLUR}),
        "16Lowlight_Noise": frozenset({_LOW, _NOISE}),
        "17Lowlight_JPEG": frozenset({_LOW, _JPEG}),
        "18Lowlight_Blur_Noise": frozenset({_LOW, _BLUR, _NOISE}),
        "19Lowlight_Blur_JPEG": frozenset({_LOW, _BLUR, _JPEG}),
        "20Lowlight_Noise_JPEG": frozenset({_LOW, _NOISE, _JPEG}),
    }
)
_FOUNDIR_BLURS = frozenset({Degradation.MOTION_BLUR, Degradation.DEFOCUS_BLUR})

FOUNDIR_CLASSES: tuple[str, ...] = tuple(_FOUNDIR_FOLDERS)
"""FoundIR's twenty folder names, in their order."""


def foundir_class(degradations: Iterable[Degradation | str]) -> str | None:
    """Name FoundIR's folder for a set of degradations, or None where FoundIR has none.

    FoundIR's *Blur* is motion or defocus blur, alone or together.

    >>> foundir_class(["low_light", "defocus_blur"])
    '15Lowlight_Blur'
    """
    wanted = {Degradation(d) for d in degradations}
    blurred = bool(wanted & _FOUNDIR_BLURS)
    signature = frozenset(wanted - _FOUNDIR_BLURS) | ({_BLUR} if blurred else set())
    return next((name for name, parts in _FOUNDIR_FOLDERS.items() if parts == signature), None)


_WORDS: Mapping[str, Degradation] = MappingProxyType(
    {
        **dict.fromkeys(("noise", "noisy", "denoise", "denoising"), Degradation.NOISE),
        **dict.fromkeys(
            ("blur", "blurry", "deblur", "deblurring", "motion", "gopro"), Degradation.MOTION_BLUR
        ),
        **dict.fromkeys(("defocus", "dpdd"), Degradation.DEFOCUS_BLUR),
        **dict.fromkeys(("jpeg", "jpg", "compression"), Degradation.JPEG),
        **dict.fromkeys(("haze", "hazy", "dehaze", "dehazing", "fog"), Degradation.HAZE),
        **dict.fromkeys(("rain", "rainy", "derain", "deraining"), Degradation.RAIN),
        **dict.fromkeys(("raindrop", "raindrops", "drops"), Degradation.RAINDROP),
        **dict.fromkeys(("lowlight", "dark", "lol", "night"), Degradation.LOW_LIGHT),
        **dict.fromkeys(("snow", "snowy", "desnow", "desnowing"), Degradation.SNOW),
        **dict.fromkeys(("moire", "demoire"), Degradation.MOIRE),
        **dict.fromkeys(("flare", "deflare"), Degradation.FLARE),
        **dict.fromkeys(("reflection", "reflections"), Degradation.REFLECTION),
    }
)


def degradations_in(folder: str) -> tuple[Degradation, ...]:
    """Read degradations off the name of a dataset's folder; empty where no word is known.

    The last part of a path that says anything counts. *Blur* alone is read as motion blur.

    >>> [d.value for d in degradations_in("FoundIR/17Lowlight_JPEG")]
    ['low_light', 'jpeg']
    """
    for part in reversed(folder.split("/")):
        plain = re.sub(r"low[-_ ]?light", "lowlight", part.lower())
        words = [word for word in re.split(r"[^a-z]+", plain) if word]
        found = [_WORDS[word] for word in words if word in _WORDS]
        if "nightrain" in words:
            found = [Degradation.LOW_LIGHT, Degradation.RAIN]
        if Degradation.DEFOCUS_BLUR in found:
            found = [d for d in found if d is not Degradation.MOTION_BLUR]
        if found:
            return tuple(dict.fromkeys(found))
    return ()
