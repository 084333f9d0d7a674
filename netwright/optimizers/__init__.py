"""Optimizers and schedules: pure functions of tensors and steps, one file each."""

from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("optimizer", __name__)
