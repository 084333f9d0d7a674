"""The pictures of docs/layers.md, made by the examples of that page as they stand there.

    python evidence/commands/layer_pictures.py

Writes docs/images/kan.png and docs/images/eigenvectors.png, and prints what the examples print.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from netwright.core.writing import write_whole

os.environ.setdefault("OMP_NUM_THREADS", "1")

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = ("kan.png", "eigenvectors.png")


def main() -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", (DOCS / "layers.md").read_text(encoding="utf-8"), re.M | re.S))
    here, begun = Path.cwd(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(compile(code, "docs/layers.md", "exec"), {"__name__": "__main__"})
        finally:
            os.chdir(here)
        for name in PICTURES:
            write_whole(DOCS / "images" / name, (Path(folder) / name).read_bytes())
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
