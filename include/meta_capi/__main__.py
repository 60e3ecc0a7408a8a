"""`python -m meta_capi` is `meta-capi`."""

import sys

from meta_capi.cli import main

sys.exit(main())
