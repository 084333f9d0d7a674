"""Every rule of the catalogue, one file each; classes are found by name: `netwright.rules.<Class>`."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("rule", __name__, "_toy")
