"""Builds `voiced._native`: cffi in API mode, by the package's own build (see pyproject.toml)."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI
from setuptools import Extension
from setuptools.command.build_ext import build_ext

HEADER = Path(__file__).parent / "voiced_native.h"

ffi = FFI()
ffi.cdef(HEADER.read_text().split("/* cdef: begin */")[1].split("/* cdef: end */")[0])
ffi.set_source("voiced._native", '#include "voiced_native.h"')


class BuildNative(build_ext):  # type: ignore[misc]  # distutils has no types
    """Writes cffi's glue beside the C sources that pyproject.toml lists."""

    def build_extension(self, ext: Extension) -> None:
        """Add the glue to the extension's sources, then build it."""
        glue = Path(self.build_temp) / "voiced_native_glue.c"
        glue.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(glue))
        ext.sources = [*ext.sources, str(glue)]
        super().build_extension(ext)
