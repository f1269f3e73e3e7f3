"""Amounts as people read them."""

from __future__ import annotations


def readable_size(size: float, digits: int = 1) -> str:
    """Bytes as megabytes, with so many digits after the point, or as gigabytes."""
    return f"{size / 1e6:.{digits}f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
