"""Every layer of the catalogue, one file each; classes are found by name: `netwright.layers.<Class>`."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("layer", __name__)
