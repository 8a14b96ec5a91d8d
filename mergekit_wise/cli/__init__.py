"""The command line. Typer and rich live here and nowhere else; one command, one file."""
