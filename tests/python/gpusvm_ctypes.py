# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""<gpusvm/gpusvm.h> for tests: the calls that need no kernel function, by ctypes.

Calls return what the C function returns, a negative errno for an error; nothing is
raised. Addresses are plain integers. ctypes lets the interpreter's lock go while a
call waits, so that a page of Python's own heap may come home meanwhile.
"""

import ctypes as c

NONE, SYSTEM, DEVICE = 0, 1, 2  # enum gpusvm_location_type
NO_FAULT, NO_VRAM = 1, 2
STRICT, READ_ONLY = 1, 1
MAPPED, POPULATED, ZERO, READABLE, WRITABLE = 1, 2, 4, 8, 16
PAGE = 4096


class Sized(c.Structure):
    """A struct that begins with its own size."""

    def __init__(self, **fields):
        super().__init__(size=c.sizeof(type(self)), **fields)


class Location(c.Structure):
    _fields_ = [("type", c.c_int), ("device", c.c_int), ("region", c.c_uint), ("fd", c.c_int)]


class DeviceDesc(Sized):
    _fields_ = [("size", c.c_size_t), ("kind", c.c_char_p), ("vram_bytes", c.c_uint64),
                ("lanes", c.c_uint), ("copy_engines", c.c_uint), ("flags", c.c_uint64)]


class Options(Sized):
    _fields_ = [("size", c.c_size_t), ("devices", c.POINTER(DeviceDesc)),
                ("n_devices", c.c_uint), ("links", c.c_void_p), ("n_links", c.c_uint),
                ("home", c.c_char_p), ("home_without", c.c_uint64), ("keepalive_ns", c.c_uint64),
                ("timeslice_ns", c.c_uint64), ("event_ring", c.c_size_t)]


class Moved(Sized):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in
                                         ("moved", "already", "stayed", "holes")]


class PageInfo(c.Structure):
    _fields_ = [("flags", c.c_uint32), ("order", c.c_uint32), ("location", Location),
                ("mapped_by", c.c_uint64), ("duplicates", c.c_uint64)]


class Stats(Sized):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "cpu_faults", "device_faults", "device_faults_replayed", "device_faults_stale",
        "device_faults_fatal", "pages_to_device", "pages_to_system", "pages_peer",
        "bytes_to_device", "bytes_to_system", "bytes_peer", "evictions", "invalidations",
        "flushes", "retries", "retry_chain_max", "duplicates", "throttles", "pins",
        "vram_used", "vram_peak")]


def system():
    return Location(SYSTEM, -1, 0, -1)


def device(index):
    return Location(DEVICE, index, 0, -1)


P, SIZE, INT, UINT = c.c_void_p, c.c_size_t, c.c_int, c.c_uint
PROTOTYPES = {  # name: (result, arguments)
    "open": (INT, P, c.POINTER(P)),
    "close": (None, P),
    "caps": (INT, P, c.POINTER(c.c_uint64)),
    "device_count": (INT, P),
    "device_unbind": (INT, P, INT),
    "alloc": (P, P, SIZE),
    "free": (None, P, P),
    "prefetch": (INT, P, P, SIZE, Location, UINT, P, P),
    "evict": (INT, P, INT),
    "residency": (INT, P, P, SIZE, P, SIZE, SIZE),
    "stats": (INT, P, INT, P),
    "queue_create": (INT, P, INT, P, c.POINTER(P)),
    "queue_destroy": (None, P),
    "memcpy": (INT, P, P, P, SIZE, P),
    "memset": (INT, P, P, INT, SIZE, P),
    "queue_prefetch": (INT, P, P, SIZE, Location, UINT, P),
    "queue_wait": (INT, P, P),
    "read": (INT, P, P, P, SIZE),
    "write": (INT, P, P, P, SIZE),
    "bind": (INT, P, P, SIZE, UINT),
    "unbind": (INT, P, P, SIZE),
    "event_wait": (INT, P, c.c_int64),
    "event_put": (None, P),
}


class Library:
    """The shared library; its functions without their prefix."""

    def __init__(self, path):
        library = c.CDLL(str(path))
        for name, (result, *arguments) in PROTOTYPES.items():
            function = getattr(library, "gpusvm_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def open_with(self, devices, **options):
        """(result, handle) for a list of DeviceDesc."""
        array = (DeviceDesc * len(devices))(*devices)
        options = Options(devices=array, n_devices=len(devices), **options)
        handle = P()
        return self.open(c.byref(options), c.byref(handle)), handle

    def queue(self, handle, index):
        """(result, queue)"""
        queue = P()
        return self.queue_create(handle, index, None, c.byref(queue)), queue

    def pages(self, handle, address, n):
        """PageInfo of n pages, or the error."""
        infos = (PageInfo * n)()
        error = self.residency(handle, address, n * PAGE, infos, n, c.sizeof(PageInfo))
        return error or infos

    def later(self, call, *arguments):
        """A call that takes an event in the end, without waiting: (result, event)."""
        event = P()
        return call(*arguments, c.byref(event)), event
