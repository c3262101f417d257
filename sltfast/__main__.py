"""`python -m sltfast` is the command `sltfast`."""

import sys

from sltfast.cli import main

sys.exit(main())
