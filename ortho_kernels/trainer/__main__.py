"""`python -m ortho_kernels.trainer key=value ...`"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys

from .command import main

if __name__ == "__main__":
    main(sys.argv[1:])
