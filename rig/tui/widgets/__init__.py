"""Widgets of the operator's screens: each draws one part of a `Situation`."""
