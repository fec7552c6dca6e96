"""Lets torch's oneDNN use AMX in virtual machines that hide CPUID leaf 0x1D.

oneDNN takes the AMX palette number from that leaf. Where the hypervisor ends CPUID before it, oneDNN still chooses its AMX
kernels (leaf 7 announces them and they work), configures the tiles with palette 0, and dies of an illegal instruction.
Measuring torch without AMX there would flatter bise, so its function get_target_palette() is made to return 1, the one
palette there is. Nothing is changed on disk, and on other machines nothing at all.
"""

import ctypes
import mmap
import pathlib
import subprocess

SYMBOL = "dnnl::impl::cpu::x64::amx::get_target_palette()"
RETURN_ONE = bytes.fromhex("b801000000c3")  # mov eax, 1; ret
TILE_LEAF = 0x1D


def is_needed():
    fields = {k.strip(): v for k, _, v in (line.partition(":") for line in open("/proc/cpuinfo"))}
    return "amx_tile" in fields.get("flags", "") and int(fields["cpuid level"]) < TILE_LEAF


def apply(library):
    """Patches the mapped library (libtorch_cpu.so, already loaded) if this machine needs it; says whether it did."""
    if not is_needed():
        return False
    symbols = subprocess.check_output(["nm", "--demangle", str(library)], text=True)
    offset = next(int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(" " + SYMBOL))
    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    base = min(int(line.split("-")[0], 16) for line in maps if line.endswith(str(library)))
    address = base + offset
    page = address & ~(mmap.PAGESIZE - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(page, 2 * mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memmove(address, RETURN_ONE, len(RETURN_ONE))
    return True
