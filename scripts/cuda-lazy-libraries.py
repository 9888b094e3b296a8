#!/usr/bin/env python3
"""Write archives that stand in for CUDA's shared libraries when linking.

    cuda-lazy-libraries.py FOLDER CUDARC_SOURCE

A program that is linked against libcuda.so does not start where there is none. Linked against the archives made here it
does: each function is a jump through a table whose entries are looked up in the real library at the first call, and which
returns that library's own error code where the library is absent. So one binary serves machines with and without a GPU.

The functions are those that cudarc, the crate between candle and CUDA, declares. x86-64 and Linux only; needs a C compiler.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Library:
    """A library, where cudarc declares it, its names at run time, and what its functions return without it."""

    name: str
    folder: str
    files: tuple[str, ...]
    absent: int


LIBRARIES = (
    Library("cuda", "driver", ("libcuda.so.1",), 100),  # CUDA_ERROR_NO_DEVICE
    Library("cublas", "cublas", ("libcublas.so.13", "libcublas.so.12"), 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    Library("cublasLt", "cublaslt", ("libcublasLt.so.13", "libcublasLt.so.12"), 1),
    Library("curand", "curand", ("libcurand.so.10",), 203),  # CURAND_STATUS_INITIALIZATION_FAILED
    Library("nvrtc", "nvrtc", ("libnvrtc.so.13", "libnvrtc.so.12"), 11),  # NVRTC_ERROR_INTERNAL_ERROR
)

DECLARATION = re.compile(r"^\s+fn ((?:cu|nvrtc|curand|cublas)\w+)\(", re.MULTILINE)

# What the calling convention may hold arguments in, and the stack's alignment wants an even number of pushes.
REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "r10")
VECTORS = range(8)


def assembly(name: str, functions: list[str]) -> str:
    """One jump for each function, and the path that looks a function up before its first call."""
    lines = [".text"]
    for index, function in enumerate(functions):
        lines += [
            f".globl {function}",
            f".type {function},@function",
            f"{function}:",
            "  endbr64",
            f"  movq {name}_slots+{8 * index}(%rip), %r11",
            "  testq %r11, %r11",
            "  je 1f",
            "  jmp *%r11",
            f"1: pushq ${index}",
            f"  jmp {name}_first_call",
        ]
    # The caller pushed 8 bytes and the jump above 8: the stack is aligned to 16 here.
    lines.append(f"{name}_first_call:")
    lines += [f"  pushq %{register}" for register in REGISTERS]
    lines.append(f"  subq ${16 * len(VECTORS)}, %rsp")
    lines += [f"  movups %xmm{i}, {16 * i}(%rsp)" for i in VECTORS]
    lines.append(f"  movq {16 * len(VECTORS) + 8 * len(REGISTERS)}(%rsp), %rdi")
    lines.append(f"  call {name}_look_up")
    lines.append("  movq %rax, %r11")
    lines += [f"  movups {16 * i}(%rsp), %xmm{i}" for i in VECTORS]
    lines.append(f"  addq ${16 * len(VECTORS)}, %rsp")
    lines += [f"  popq %{register}" for register in reversed(REGISTERS)]
    lines += ["  addq $8, %rsp", "  jmp *%r11", '.section .note.GNU-stack,"",@progbits', ""]
    return "\n".join(lines)


def lookup(name: str, library: Library, functions: list[str]) -> str:
    """C that opens the library and finds a function in it."""
    names = ",\n  ".join(f'"{function}"' for function in functions)
    opened = "\n".join(
        f'  if (!library) library = dlopen("{file}", RTLD_NOW | RTLD_GLOBAL);' for file in library.files
    )
    return f"""#include <dlfcn.h>
#include <stddef.h>
#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN void *{name}_slots[{len(functions)}];
static const char *const names[] = {{
  {names}
}};
static int absent(void) {{ return {library.absent}; }}
HIDDEN void *{name}_look_up(long index) {{
  static void *library;
{opened}
  void *function = library ? dlsym(library, names[index]) : NULL;
  if (!function) return (void *)absent;
  __atomic_store_n(&{name}_slots[index], function, __ATOMIC_RELEASE);
  return function;
}}
"""


def write(folder: Path, source: Path, library: Library) -> int:
    """Writes `lib<name>.a`; returns how many functions it has."""
    declarations = (source / library.folder / "sys" / "mod.rs").read_text()
    functions = sorted(set(DECLARATION.findall(declarations)))
    if not functions:
        raise SystemExit(f"{source / library.folder}: no declarations found; another version of cudarc?")
    name = f"lazy_{library.name}"
    objects = []
    for suffix, text in ((".S", assembly(name, functions)), (".c", lookup(name, library, functions))):
        file = folder / f"{name}_{suffix[1:].lower()}{suffix}"
        file.write_text(text)
        objects.append(file.with_suffix(".o"))
        subprocess.run(["cc", "-c", "-O2", "-fPIC", file, "-o", objects[-1]], check=True)
    archive = folder / f"lib{library.name}.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", archive, *objects], check=True)
    return len(functions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the archives go")
    parser.add_argument("cudarc", type=Path, help="`src` of the crate cudarc")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        print(f"lib{library.name}.a: {write(arguments.folder, arguments.cudarc, library)} functions")


if __name__ == "__main__":
    main()
