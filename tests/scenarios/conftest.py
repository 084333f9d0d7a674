"""timm and transformers import torchvision, whose compiled operators don't load beside a CPU build of torch.

Declaring the operators' names is enough for the import; nothing here calls them.
"""

from __future__ import annotations

import importlib
import re
import sys

import torch

_declared: list[torch.library.Library] = []  # a Library that is collected takes its operators along


def _import_torchvision() -> None:
    for _ in range(40):
        try:
            importlib.import_module("torchvision")
            return
        except ImportError:
            return  # not installed: tests that need it skip
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                return
            for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}() -> ()")
            _declared.append(library)


_import_torchvision()
