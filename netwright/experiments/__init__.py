"""Experiments: findings and recipes that can fail, one file each."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("experiment", __name__)
