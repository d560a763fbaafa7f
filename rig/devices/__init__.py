"""Drivers: one file per protocol."""
