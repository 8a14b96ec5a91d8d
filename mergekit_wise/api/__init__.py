"""One plain function per job: the public Python API."""
