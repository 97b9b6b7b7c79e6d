# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The real library on this very process against a plain bytearray.

A state machine of Hypothesis changes one window of memory from all sides: the CPU,
the devices' queues, prefetch and evict, and the calls that change mappings. A
bytearray and a list of protections say what every byte and page must be. The order
of steps comes from a fixed seed, so that a run of the suite is the same each time;
GPUSVM_EXAMPLES=N asks for N examples from fresh seeds.
"""

import ctypes
import errno
import os
import signal

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
import pytest

import gpusvm_ctypes as svm
import libc

PAGE = svm.PAGE
PAGES = 640  # more than one 2M, less than two
SIZE = PAGES * PAGE
HUGE = 2 << 20
# With room for everything, with room for a part, and without any.
DEVICES = [svm.DeviceDesc(vram_bytes=16 << 20), svm.DeviceDesc(vram_bytes=HUGE),
           svm.DeviceDesc(flags=svm.NO_VRAM)]
ROOMY, ALL = 0, range(len(DEVICES))

examples = os.environ.get("GPUSVM_EXAMPLES")
SETTINGS = hypothesis.settings(
    max_examples=int(examples or 60), stateful_step_count=40, derandomize=not examples,
    deadline=None, database=None, print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck))

queues = st.sampled_from(ALL)
bytes_at = st.integers(0, SIZE - 1)
lengths = st.one_of(st.integers(1, 300), st.integers(1, 3 * PAGE), st.integers(1, SIZE))
pages_at = st.one_of(st.sampled_from([0, 511, 512, 513]), st.integers(0, PAGES - 1))
page_counts = st.one_of(st.integers(1, 20), st.integers(1, PAGES))
byte = st.integers(0, 255)


class Memory(RuleBasedStateMachine):
    library = None  # set by the test
    # Where nobody maps anything unasked: holes stay holes. And another place of the same
    # size for mremap to go to and come back from.
    base = 0x200000000000
    other = base + SIZE + PAGE

    @initialize(thp=st.booleans(), own=st.booleans())
    def open(self, thp, own):
        error, self.svm = self.library.open_with(DEVICES, timeslice_ns=1)
        assert error == 0
        self.bound = set(ALL)
        self.queues = []
        for index in ALL:
            error, queue = self.library.queue(self.svm, index)
            assert error == 0
            self.queues.append(queue)
        self.allocated = self.library.alloc(self.svm, HUGE) if own else None
        libc.map_at(self.base, SIZE)
        libc.advise(self.base, SIZE, libc.MADV_HUGEPAGE if thp else libc.MADV_NOHUGEPAGE)
        self.bytes = bytearray(SIZE)
        self.prot = [libc.READ_WRITE] * PAGES  # None: a hole
        self.shared = [False] * PAGES

    def teardown(self):
        if not hasattr(self, "svm"):
            return
        try:
            self.check_by_cpu()
        finally:
            for queue in self.queues:
                self.library.queue_destroy(queue)
            if self.allocated:
                self.library.free(self.svm, self.allocated)
            self.library.close(self.svm)
        # What was on devices came home.
        self.check_by_cpu()
        libc.unmap(self.base, SIZE)

    # ---- What the pages of an interval allow

    def allowed(self, at, length):
        prots = [p or 0 for p in self.prot[at // PAGE:(at + length - 1) // PAGE + 1]]
        return min(prots)

    def expected(self, at, length, write):
        """The set of results of a device's access."""
        pages = self.prot[at // PAGE:(at + length - 1) // PAGE + 1]
        wrong = set()
        for p in pages:
            if not p:
                wrong.add(-errno.EFAULT)
            elif write and p != libc.READ_WRITE:
                wrong.add(-errno.EPERM)
        return wrong or {0}

    def runs(self, wanted):
        """Intervals (in bytes) of pages with one of the protections wanted."""
        first = None
        for i in range(PAGES + 1):
            good = i < PAGES and self.prot[i] in wanted
            if good and first is None:
                first = i
            elif not good and first is not None:
                yield first * PAGE, (i - first) * PAGE
                first = None

    # ---- The CPU

    @rule(at=bytes_at, length=lengths, value=byte)
    def cpu_write(self, at, length, value):
        length = min(length, SIZE - at)
        if self.allowed(at, length) != libc.READ_WRITE:
            return
        ctypes.memset(self.base + at, value, length)
        self.bytes[at:at + length] = bytes([value]) * length

    @rule(at=bytes_at, length=lengths)
    def cpu_read(self, at, length):
        length = min(length, SIZE - at)
        if self.allowed(at, length):
            assert ctypes.string_at(self.base + at, length) == self.bytes[at:at + length]

    @rule(at=pages_at, step=st.integers(1, 64))
    def cpu_reads_here_and_there(self, at, step):
        for page in range(at, PAGES, step):
            if self.prot[page]:
                assert ctypes.string_at(self.base + page * PAGE, 8) == \
                    self.bytes[page * PAGE:page * PAGE + 8]

    @rule()
    def check_by_cpu(self):
        for at, length in self.runs((libc.PROT_READ, libc.READ_WRITE)):
            assert ctypes.string_at(self.base + at, length) == self.bytes[at:at + length]

    @rule()
    def system_call(self):
        """The kernel reads memory on the process's behalf."""
        for at, length in self.runs((libc.PROT_READ, libc.READ_WRITE)):
            length = min(length, 64 * PAGE)
            memory = (ctypes.c_char * length).from_address(self.base + at)
            fd = os.memfd_create("copy")
            assert os.write(fd, memory) == length
            assert os.pread(fd, length, 0) == self.bytes[at:at + length]
            os.close(fd)
            break

    # ---- Devices

    def result(self, queue, got, wanted):
        """Is got a right result? True where the work was done."""
        if queue not in self.bound:
            assert got == -errno.ENODEV
            return False
        assert got in wanted, f"{got} is not of {wanted}"
        return got == 0

    @rule(queue=queues, at=bytes_at, length=lengths)
    def device_read(self, queue, at, length):
        length = min(length, SIZE - at)
        buffer = ctypes.create_string_buffer(length)
        got = self.library.read(self.queues[queue], buffer, self.base + at, length)
        if self.result(queue, got, self.expected(at, length, False)):
            assert buffer.raw == self.bytes[at:at + length]

    @rule(queue=queues, at=bytes_at, length=lengths, value=byte)
    def device_write(self, queue, at, length, value):
        length = min(length, SIZE - at)
        data = bytes((value + i * 7) & 255 for i in range(min(length, 256)))
        data = (data * (length // len(data) + 1))[:length]
        wanted = self.expected(at, length, True)
        if wanted != {0}:  # what is there afterwards is undefined: one byte is asked for
            at = next(i for i in range(at // PAGE, PAGES)
                      if self.expected(i * PAGE, 1, True) != {0}) * PAGE
            length, wanted = 1, self.expected(at, 1, True)
        got = self.library.write(self.queues[queue], self.base + at, data, length)
        if self.result(queue, got, wanted):
            self.bytes[at:at + length] = data[:length]

    @rule(queue=queues, at=bytes_at, length=lengths, value=byte, wait=st.booleans())
    def device_set(self, queue, at, length, value, wait):
        length = min(length, SIZE - at)
        if self.expected(at, length, True) != {0}:
            return  # a failure ends the queue
        call, arguments = self.library.memset, (self.queues[queue], self.base + at, value, length)
        if self.result(queue, self.do(wait, call, *arguments), {0}):
            self.bytes[at:at + length] = bytes([value]) * length

    @rule(queue=queues, at=bytes_at, source=bytes_at, length=lengths, wait=st.booleans())
    def device_copy(self, queue, at, source, length, wait):
        length = min(length, SIZE - at, SIZE - source)
        if at < source + length and source < at + length:
            return
        if self.expected(at, length, True) != {0} or self.expected(source, length, False) != {0}:
            return
        got = self.do(wait, self.library.memcpy, self.queues[queue], self.base + at,
                      self.base + source, length)
        if self.result(queue, got, {0}):
            self.bytes[at:at + length] = self.bytes[source:source + length]

    def do(self, wait, call, *arguments):
        if wait:
            return call(*arguments, None)
        error, event = self.library.later(call, *arguments)
        if error:
            return error
        error = self.library.event_wait(event, 60 * 10**9)
        self.library.event_put(event)
        return error

    @rule(first=queues, second=queues, at=bytes_at, length=lengths, value=byte)
    def in_order_by_event(self, first, second, at, length, value):
        """One device sets, the other one adds its byte after it."""
        length = min(length, SIZE - at)
        if self.expected(at, length, True) != {0} or not {first, second} <= self.bound:
            return
        error, one = self.library.later(self.library.memset, self.queues[first],
                                        self.base + at, value, length)
        assert error == 0
        assert self.library.queue_wait(self.queues[second], one) == 0
        error, two = self.library.later(self.library.memset, self.queues[second],
                                        self.base + at, value ^ 255, 1)
        assert error == 0
        assert self.library.event_wait(two, -1) == 0
        assert self.library.event_wait(one, 0) == 0
        self.library.event_put(one)
        self.library.event_put(two)
        self.bytes[at:at + length] = bytes([value ^ 255]) + bytes([value]) * (length - 1)

    @rule(queue=queues, at=pages_at, n=page_counts, read_only=st.booleans())
    def bind(self, queue, at, n, read_only):
        n = min(n, PAGES - at)
        wanted = self.expected(at * PAGE, n * PAGE, not read_only)
        got = self.library.bind(self.queues[queue], self.base + at * PAGE, n * PAGE,
                                svm.READ_ONLY if read_only else 0)
        if self.result(queue, got, wanted):
            assert self.library.unbind(self.queues[queue], self.base + at * PAGE, n * PAGE) == 0

    # ---- Moving

    @rule(at=pages_at, n=page_counts, where=st.sampled_from([-1, 0, 0, 1, 1, 2]),
          strict=st.booleans())
    def prefetch(self, at, n, where, strict):
        n = min(n, PAGES - at)
        moved = svm.Moved()
        target = svm.system() if where < 0 else svm.device(where)
        got = self.library.prefetch(self.svm, self.base + at * PAGE, n * PAGE, target,
                                    svm.STRICT if strict else 0, ctypes.byref(moved), None)
        if where >= 0 and where not in self.bound:
            assert got == -errno.ENODEV
            return
        if got == -errno.ENOSPC:
            assert strict and where != ROOMY and not moved.moved
            return
        assert moved.moved + moved.already + moved.stayed + moved.holes == n
        assert moved.holes == self.prot[at:at + n].count(None)
        assert got == 0 or strict
        assert not strict or (got == 0) == (not moved.stayed and not moved.holes)
        if where in (ROOMY, -1):
            there = sum(info.location.type == (svm.SYSTEM if where < 0 else svm.DEVICE) and
                        info.location.device == where
                        for info in self.library.pages(self.svm, self.base + at * PAGE, n))
            # An unpopulated page is in no place, and counts as being in system memory.
            assert there == moved.moved + moved.already if where >= 0 else \
                there <= moved.moved + moved.already

    @rule(queue=queues, at=pages_at, n=page_counts, where=st.sampled_from([-1, 0, 1]))
    def queue_prefetch(self, queue, at, n, where):
        n = min(n, PAGES - at)
        got = self.library.queue_prefetch(self.queues[queue], self.base + at * PAGE, n * PAGE,
                                          svm.system() if where < 0 else svm.device(where), 0,
                                          None)
        if queue in self.bound:
            assert got == (0 if where < 0 or where in self.bound else -errno.ENODEV)
        else:
            assert got == -errno.ENODEV

    @rule(index=st.sampled_from([-1, *ALL]))
    def evict(self, index):
        got = self.library.evict(self.svm, index)
        if index >= 0 and index not in self.bound:
            assert got == -errno.ENODEV
            return
        assert got == 0
        for info in self.library.pages(self.svm, self.base, PAGES):
            assert info.location.type != svm.DEVICE or index not in (-1, info.location.device)
        stats = svm.Stats()
        assert self.library.stats(self.svm, index, ctypes.byref(stats)) == 0
        # Memory is kept a moment for what comes next, but none holds a page.

    @precondition(lambda self: len(self.bound) > 1)
    @rule(index=queues, really=st.integers(0, 3))
    def unbind_device(self, index, really):
        if really:
            return  # not in each example
        got = self.library.device_unbind(self.svm, index)
        assert got == (0 if index in self.bound else -errno.ENODEV)
        self.bound.discard(index)

    # ---- Mappings

    @rule(at=pages_at, n=page_counts, shared=st.integers(0, 4))
    def map_over(self, at, n, shared):
        n = min(n, PAGES - at)
        libc.map_at(self.base + at * PAGE, n * PAGE, shared == 0)
        self.bytes[at * PAGE:(at + n) * PAGE] = bytes(n * PAGE)
        self.prot[at:at + n] = [libc.READ_WRITE] * n
        self.shared[at:at + n] = [shared == 0] * n

    @rule(at=pages_at, n=st.integers(1, 100))
    def unmap(self, at, n):
        n = min(n, PAGES - at)
        libc.unmap(self.base + at * PAGE, n * PAGE)
        self.bytes[at * PAGE:(at + n) * PAGE] = bytes(n * PAGE)
        self.prot[at:at + n] = [None] * n
        self.shared[at:at + n] = [False] * n

    @rule(at=pages_at, n=page_counts, read_only=st.booleans())
    def protect(self, at, n, read_only):
        n = min(n, PAGES - at)
        if None in self.prot[at:at + n]:
            return
        prot = libc.PROT_READ if read_only else libc.READ_WRITE
        libc.protect(self.base + at * PAGE, n * PAGE, prot)
        self.prot[at:at + n] = [prot] * n

    @rule(at=pages_at, n=page_counts)
    def dontneed(self, at, n):
        n = min(n, PAGES - at)
        if None in self.prot[at:at + n] or any(self.shared[at:at + n]):
            return  # shared memory keeps its bytes
        libc.advise(self.base + at * PAGE, n * PAGE, libc.MADV_DONTNEED)
        self.bytes[at * PAGE:(at + n) * PAGE] = bytes(n * PAGE)

    @rule(at=pages_at, n=page_counts, to=pages_at, stays=st.booleans())
    def remap(self, at, n, to, stays):
        """Away and back to another place."""
        if self.prot[at] is None:
            return
        n = min(n, PAGES - at, PAGES - to)
        # One mapping at a time: of several, mremap may move some and then fail.
        n = min(n, libc.mapping_end(self.base + at * PAGE) // PAGE - self.base // PAGE - at)
        prot, shared = self.prot[at], self.shared[at]
        start, end = at * PAGE, (at + n) * PAGE
        stays = stays and not shared
        moved = self.bytes[start:end]
        libc.remap(self.base + start, n * PAGE, self.other + start, stays)
        if stays:
            self.bytes[start:end] = bytes(n * PAGE)
        else:
            self.prot[at:at + n] = [None] * n
        libc.remap(self.other + start, n * PAGE, self.base + to * PAGE, False)
        self.bytes[to * PAGE:(to + n) * PAGE] = moved
        self.prot[to:to + n] = [prot] * n
        self.shared[to:to + n] = [shared] * n

    # ---- Children

    @rule()
    def fork(self):
        """A child is whole, and has nothing of the handle."""
        runs = list(self.runs((libc.PROT_READ, libc.READ_WRITE)))
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            good = all(ctypes.string_at(self.base + at, length) == self.bytes[at:at + length]
                       for at, length in runs)
            good = good and self.library.device_count(self.svm) == -errno.ENODEV
            os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0

    # ---- Always

    @invariant()
    def residency(self):
        if not hasattr(self, "svm"):
            return
        for info, prot in zip(self.library.pages(self.svm, self.base, PAGES), self.prot):
            if prot is None:
                assert (info.flags, info.location.type, info.mapped_by) == (0, svm.NONE, 0)
                continue
            wanted = svm.MAPPED | svm.READABLE | (svm.WRITABLE if prot & libc.PROT_WRITE else 0)
            assert info.flags & (svm.MAPPED | svm.READABLE | svm.WRITABLE) == wanted
            populated = bool(info.flags & svm.POPULATED)
            assert (info.location.type != svm.NONE) == populated
            if info.location.type == svm.DEVICE:
                assert info.location.device in self.bound
                assert info.location.device != 2  # it has no memory
            assert not info.mapped_by & ~sum(1 << index for index in self.bound)

    @invariant()
    def memory_of_devices(self):
        if not hasattr(self, "svm"):
            return
        for index in self.bound:
            stats = svm.Stats()
            assert self.library.stats(self.svm, index, ctypes.byref(stats)) == 0
            assert stats.vram_used <= stats.vram_peak <= DEVICES[index].vram_bytes


def test_memory_like_a_bytearray(library):
    Memory.library = library
    hypothesis.stateful.run_state_machine_as_test(Memory, settings=SETTINGS)


def test_binding_has_what_the_header_has(library, root):
    """The structs here are those of the header: the library would refuse others."""
    error, handle = library.open_with([svm.DeviceDesc(vram_bytes=HUGE)])
    assert error == 0
    stats, caps = svm.Stats(), ctypes.c_uint64()
    assert library.stats(handle, 0, ctypes.byref(stats)) == 0
    assert library.caps(handle, ctypes.byref(caps)) == 0
    assert library.device_count(handle) == 1
    assert library.stats(handle, 1, ctypes.byref(stats)) == -errno.EINVAL
    library.close(handle)
    header = (root / "include/gpusvm/gpusvm.h").read_text()
    for name in svm.PROTOTYPES:
        assert f"gpusvm_{name}(" in header
