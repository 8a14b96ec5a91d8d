"""``python -m mergekit_wise`` is ``wise``."""

from mergekit_wise.cli.app import main

main()
