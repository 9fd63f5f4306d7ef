# SPDX-License-Identifier: GPL-2.0-or-later
"""The library that dev/faults/inject.c is, and the file that controls it."""

import ctypes
import mmap
import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = HERE.parent.parent / "tests/qtest/dma-faults-inject.h"


def build(build_dir):
    """Compile it, if its source is newer; its path"""
    source = HERE / "inject.c"
    library = build_dir / "faults/inject.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in (source, HEADER))
    if not library.exists() or library.stat().st_mtime < newest:
        # Another run may use the old one now.
        new = library.with_suffix(".new")
        subprocess.run(["cc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror",
                        "-shared", "-fPIC", "-I", HEADER.parent, "-o", new, source, "-ldl"],
                       check=True)
        new.rename(library)
    return library


def environment(build_dir):
    """What dma-faults-test needs to know, for subprocesses of it as well"""
    return {"DMA_FAULTS_INJECT": str(build(build_dir)),
            # The sanitizer's runtime need not be the first library; the rest is
            # what meson sets if nobody else does.
            "ASAN_OPTIONS": (os.environ.get("ASAN_OPTIONS") or
                             "halt_on_error=1:abort_on_error=1:print_summary=1")
                            + ":verify_asan_link_order=0"}


def kinds():
    """What can fail, in the order of the header"""
    enum = re.search(r"enum DmaFaultsKind \{(.*?)\bINJECT_KINDS\b", HEADER.read_text(), re.S)[1]
    return [name.lower().replace("_", "-") for name in re.findall(r"\bINJECT_(\w+)", enum)]


class Kind(ctypes.Structure):
    _fields_ = [("one_in", ctypes.c_uint32), ("left", ctypes.c_uint32),
                ("count", ctypes.c_uint64)]


def control(path):
    """DmaFaultsControl in a new file at path: the dictionary {kind: its Kind}"""
    class Control(ctypes.Structure):
        _fields_ = [("seed", ctypes.c_uint64), ("kind", Kind * len(kinds()))]

    path.write_bytes(bytes(ctypes.sizeof(Control)))
    with open(path, "r+b") as file:
        shared = Control.from_buffer(mmap.mmap(file.fileno(), 0))
    return {name: shared.kind[i] for i, name in enumerate(kinds())}
