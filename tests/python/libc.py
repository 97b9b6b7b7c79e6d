# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""Mappings at given addresses, which the mmap module does not offer."""

import ctypes as c

PROT_READ, PROT_WRITE = 1, 2
READ_WRITE = PROT_READ | PROT_WRITE
MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 14, 15

_PRIVATE_ANONYMOUS, _SHARED_ANONYMOUS, _FIXED = 0x22, 0x21, 0x10
_MAYMOVE, _REMAP_FIXED, _DONTUNMAP = 1, 2, 4

_libc = c.CDLL(None, use_errno=True)
_libc.mmap.restype = c.c_void_p
_libc.mmap.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
_libc.mremap.restype = c.c_void_p
_libc.mremap.argtypes = [c.c_void_p, c.c_size_t, c.c_size_t, c.c_int, c.c_void_p]
_libc.munmap.argtypes = [c.c_void_p, c.c_size_t]
_libc.mprotect.argtypes = [c.c_void_p, c.c_size_t, c.c_int]
_libc.madvise.argtypes = [c.c_void_p, c.c_size_t, c.c_int]
_FAILED = c.c_void_p(-1).value


def _check(bad):
    if bad:
        raise OSError(c.get_errno(), "a change of mappings failed")


def map_at(address, size, shared=False):
    flags = (_SHARED_ANONYMOUS if shared else _PRIVATE_ANONYMOUS) | _FIXED
    _check(_libc.mmap(address, size, READ_WRITE, flags, -1, 0) != address)


def unmap(address, size):
    _check(_libc.munmap(address, size))


def mapping_end(address):
    """The end of the mapping that holds address."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return end
    raise ValueError(f"nothing is mapped at {address:x}")


def remap(address, size, to, stays):
    flags = _MAYMOVE | _REMAP_FIXED | (_DONTUNMAP if stays else 0)
    _check(_libc.mremap(address, size, size, flags, to) != to)


def protect(address, size, protections):
    _check(_libc.mprotect(address, size, protections))


def advise(address, size, advice):
    _check(_libc.madvise(address, size, advice))
