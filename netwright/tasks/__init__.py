"""Every task of the catalogue, one file each; classes are found by name: `netwright.tasks.<Class>`."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("task", __name__)
