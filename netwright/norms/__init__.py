"""Every norm of the catalogue, one file each; classes are found by name: `netwright.norms.<Class>`."""

from netwright.catalogue import module_getattr

__getattr__ = module_getattr("norm", __name__)
