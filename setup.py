"""The compiled modules and the readme; everything else stands in pyproject.toml.

Without a C compiler the modules are left out, and so they are for a free-threaded Python, which has no stable interface
for them yet.
"""

import os
import re
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

if os.name == "nt":
    FLAGS = ["/O2", "/fp:precise"]
else:
    # No fused multiply-add: the bytes would depend on the processor. Nothing here looks at floating-point exceptions.
    FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]

EXTENSIONS = [
    Extension(
        name,
        [name.replace(".", "/") + ".c"],
        extra_compile_args=FLAGS,
        libraries=[] if os.name == "nt" else ["m"],
        py_limited_api=True,
        optional=True,
    )
    for name in ("mergekit_wise.merging._native", "mergekit_wise.models._resample")
]
if os.name != "nt":  # it handles a signal that Windows does not have
    EXTENSIONS.append(
        Extension(
            "mergekit_wise.checkpoint._guard",
            ["mergekit_wise/checkpoint/_guard.c"],
            py_limited_api=True,
            optional=True,
        )
    )

IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
# A package index shows this page without the files beside it: links to them become words, and pictures go.
README = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", README, flags=re.MULTILINE)
README = re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", README)

setup(
    long_description=README,
    long_description_content_type="text/markdown",
    ext_modules=[] if IS_FREE_THREADED else EXTENSIONS,
    options={} if IS_FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
