"""`python -m pyterrier_lir` is `pyterrier-lir`."""

import sys

from .cli import main

sys.exit(main())
