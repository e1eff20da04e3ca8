"""What the browser tests share: one Chromium for each file of tests."""

from chromium import browser

__all__ = ["browser"]
