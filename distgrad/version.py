"""The version of this package, which lies below all rooms so that each may say it."""

__version__ = "0.1.0"
