"""These tests run in triton's interpreter, in a process of their own: it is chosen when kernels are decorated.

`tests/triton_backend/test_numbers.py` starts that process; on its own, TRITON_INTERPRET=1 and OPENBLAS_NUM_THREADS=1 (a tile
is seven times faster on one thread) must be set.
"""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
