"""What a part and a record are. Nothing here needs torch."""

__version__ = "0.1.0"
