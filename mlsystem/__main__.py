"""`python -m mlsystem`: the command line."""

from mlsystem._cli import main

raise SystemExit(main())
