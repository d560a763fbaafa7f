"""The four themes: dark, light, high contrast and colour-blind safe; text reaches a contrast of 4.5 : 1 in each."""

from __future__ import annotations

from textual.theme import Theme


def _theme(
    name: str,
    *,
    dark: bool,
    back: str,
    surface: str,
    text: str,
    faint: str,
    ok: str,
    warn: str,
    bad: str,
    lead: str,
) -> Theme:
    stop_back, stop_text = ("#b00020", "#ffffff") if name != "rig-contrast" else ("#ff0000", "#000000")
    return Theme(
        name=name,
        dark=dark,
        primary=lead,
        secondary=lead,
        accent=lead,
        warning=warn,
        error=bad,
        success=ok,
        foreground=text,
        background=back,
        surface=surface,
        panel=surface,
        variables={
            "ok": ok,
            "warn": warn,
            "bad": bad,
            "faint": faint,
            "lead": lead,
            "stop-back": stop_back,
            "stop-text": stop_text,
            "block-cursor-foreground": back,
            "block-cursor-background": lead,
            "input-cursor-foreground": back,
            "input-cursor-background": text,
        },
    )


THEMES: tuple[Theme, ...] = (
    _theme(
        "rig-dark", dark=True, back="#101418", surface="#161c22", text="#e6e9ec", faint="#98a4b0",
        ok="#67d28a", warn="#ffb454", bad="#ff8080", lead="#6cb6ff",
    ),
    _theme(
        "rig-light", dark=False, back="#f7f8fa", surface="#ffffff", text="#14181c", faint="#56616b",
        ok="#0b6b2e", warn="#8a4b00", bad="#b00020", lead="#0b57a4",
    ),
    _theme(
        "rig-contrast", dark=True, back="#000000", surface="#000000", text="#ffffff", faint="#d0d0d0",
        ok="#00ff66", warn="#ffff00", bad="#ff8c8c", lead="#00ffff",
    ),
    _theme(
        "rig-colour-blind", dark=True, back="#101418", surface="#161c22", text="#e6e9ec", faint="#98a4b0",
        ok="#6cb6ff", warn="#ffb454", bad="#ff9d3c", lead="#a9cfff",
    ),
)  # fmt: skip
