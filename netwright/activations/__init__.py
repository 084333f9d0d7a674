"""Every activation of the catalogue, one file each; classes are found by name: `netwright.activations.<Class>`."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("activation", __name__)
