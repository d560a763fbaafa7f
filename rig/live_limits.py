"""What the live check takes for good, doubtful and spoiled."""

from __future__ import annotations

from typing import Literal

from catalog.yaml_document import Document

Verdict = Literal["ok", "doubtful", "spoiled"]


class Grades(Document):
    """Two limits of one number: where it becomes doubtful and where the take is spoiled."""

    doubtful: float
    spoiled: float

    def at_least(self, value: float) -> Verdict:
        """Grade a number that should be large."""
        return "spoiled" if value < self.spoiled else "doubtful" if value < self.doubtful else "ok"

    def at_most(self, value: float, *, slack: float = 0.0) -> Verdict:
        """Grade a number that should be small; both limits are raised by ``slack``."""
        if value > self.spoiled + slack:
            return "spoiled"
        return "doubtful" if value > self.doubtful + slack else "ok"

    def times(self, factor: float) -> Grades:
        """Scale both limits."""
        return Grades(doubtful=self.doubtful * factor, spoiled=self.spoiled * factor)


class LiveLimits(Document):
    """Limits of the live check. Gates of alignment that it shares are in `alignment.gates.GateThresholds`."""

    travel_mm: float = 0.5
    """Least loss of way that matters, mm. It is also what the first ground truth's travel may be wrong by beside its
    uncertainty, and shares with every take held against it: the boards' print and the rail's own scale."""
    alone_sigmas: float = 3.0
    """Standard deviations added to it there."""
    sure_sigmas: float = 4.0
    """Standard deviations by which a loss must stand out against the first ground truth. A take is held against it in
    four ways (at its start, at its end, on both together, travel), which makes 2.5 false alarms in 10,000 good takes;
    with the 7 of a search for sudden losses (`alignment.lost_way`) that is less than one in 1,000. It takes the place
    of `travel_mm` where it is more and does not come on top: an error is held against what it may be by chance, or
    against what matters, and who adds the two asks for a chance of one in 100,000 and misses a millimetre in noise."""
    seen_share: Grades = Grades(doubtful=0.95, spoiled=0.75)
    """Least share of the uniform part in which a board is followed."""
    followed_share: float = 0.95
    """Share of the uniform part from which on a board counts as in view."""
    length_share: Grades = Grades(doubtful=0.7, spoiled=0.6)
    """Least share of the planned uniform motion that is made out."""
    exposure_ev: Grades = Grades(doubtful=0.25, spoiled=0.5)
    """Largest difference between the light and what the settings say, stops."""
    exposure_slack: float = 0.15
    """Added to `exposure_ev` for each stop between the settings: tone curves of bodies are known only so well."""
    dark_light: float = 0.005
    """Mean light of a ground truth, share of full scale, below which it is spoiled."""
    edge_px: Grades = Grades(doubtful=1.3, spoiled=1.8)
    """Largest spread of the sharpest board's edges in the first ground truth, px."""
    edge_ratio: Grades = Grades(doubtful=1.25, spoiled=1.5)
    """The same for a later ground truth, over the first one's."""
    soft_share: float = 0.7
    """Sharpness over the first ground truth's below which a board that cannot be decoded is out of focus."""
    expected_share: float = 0.5
    """Share of the frames that should have a ground truth within the parallax limit."""
    parallax_px: float = 0.25
    """That limit: shift between the nearest and the farthest things of a pair, px."""
    masked_share: float = 0.3
    """Share of the picture that may show something else than the ground truth does."""
    least_frames: float = 12.0
    """Frames of uniform motion by plan below which a motion need not be measurable."""
    least_told: int = 20
    """Frames that must have been looked at before their order tells anything."""


LIVE_LIMITS = LiveLimits()
"""The limits that hold; `benchmarks/live_check.py` measures what they find and what they call spoiled wrongly."""
