"""Compile all kernels, so that no first run has to wait for it."""

from __future__ import annotations

from alignment.kernels import colour, quintic, reweighting, tables, tile_products

__all__ = ["colour", "quintic", "reweighting", "tables", "tile_products"]
