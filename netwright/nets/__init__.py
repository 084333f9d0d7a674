"""Every net of the catalogue, one file each."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("net", __name__, "_toy")
