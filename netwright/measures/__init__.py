"""Measures: what is read off a net, one file each."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("measure", __name__)
