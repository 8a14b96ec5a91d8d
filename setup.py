"""The compiled modules; everything else stands in pyproject.toml. Without a C compiler they are left out."""

import os

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

setup(
    ext_modules=EXTENSIONS,
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
