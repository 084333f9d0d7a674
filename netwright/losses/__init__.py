"""Losses: pure functions of outputs and targets that give a value and a weight for every example, one file each."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("loss", __name__)
