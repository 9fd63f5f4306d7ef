/*
 * Failures that the kernel and the allocator can give, but hardly ever do: a
 * library to be preloaded into QEMU
 *
 * Each call that is intercepted fails at random, as tests/qtest/
 * dma-faults-inject.h says; until its user asks for it, none does.  A call that
 * fails has no other effect, as it is with the real ones; all others are passed
 * on.  What completes, and how, is not touched: that is for blkdebug.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "dma-faults-inject.h"

/* bounce_class[] in block/aio-iov.c */
static const size_t bounce_size[] = { 64 << 10, 256 << 10, 1 << 20 };

static DmaFaultsControl *control;

/* The function that would have been called without this library */
#define NEXT(function) ({                                       \
    static __typeof__(&function) next;                          \
    if (!next) {                                                \
        next = (__typeof__(next))dlsym(RTLD_NEXT, #function);   \
    }                                                           \
    next;                                                       \
})

static void __attribute__((constructor)) begin(void)
{
    const char *path = getenv("DMA_FAULTS_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p;

    if (fd >= 0) {
        p = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED,
                 fd, 0);
        control = p == MAP_FAILED ? NULL : p;
        close(fd);
    }
}

/* splitmix64: one sequence for all threads, each of which gets its part */
static uint64_t next_random(void)
{
    uint64_t z = __atomic_add_fetch(&control->seed, 0x9e3779b97f4a7c15,
                                    __ATOMIC_RELAXED);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static bool fails(DmaFaultsKind kind)
{
    uint32_t one_in, left;

    if (!control) {
        return false;
    }
    one_in = __atomic_load_n(&control->kind[kind].one_in, __ATOMIC_ACQUIRE);
    if (one_in == 0 || next_random() % one_in) {
        return false;
    }
    left = __atomic_load_n(&control->kind[kind].left, __ATOMIC_RELAXED);
    do {
        if (left == 0) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(&control->kind[kind].left, &left,
                                          left - 1, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    __atomic_add_fetch(&control->kind[kind].count, 1, __ATOMIC_RELAXED);
    return true;
}

/* How many of @n: all of them, or fewer */
static unsigned some_of(unsigned n)
{
    return n > 1 && fails(INJECT_SUBMIT_SHORT) ? 1 + next_random() % (n - 1) :
                                                 n;
}

/*
 * Linux 6.12, fs/aio.c: EAGAIN if there is no memory for a request (or no room
 * in the ring), ENOMEM if there is none for a copy of its vector, EINVAL if it
 * is not to the file's liking; each if it is the first one of the call.  If it
 * is another one, the call returns how many come before it.
 */
int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
    if (nr > 0) {
        if (fails(INJECT_SUBMIT_EAGAIN)) {
            return -EAGAIN;
        }
        if (fails(INJECT_SUBMIT_ENOMEM)) {
            return -ENOMEM;
        }
        if (fails(INJECT_SUBMIT_EINVAL)) {
            return -EINVAL;
        }
        nr = some_of(nr);
    }
    return NEXT(io_submit)(ctx, nr, ios);
}

/* Those that the kernel has not taken yet */
static unsigned pending(const struct io_uring *ring)
{
    return ring->sq.sqe_tail -
           __atomic_load_n(ring->sq.khead, __ATOMIC_ACQUIRE);
}

/*
 * Linux 6.12, io_uring/: EAGAIN if there is no memory for the first request,
 * fewer if there is none for another one; ENOMEM if there is none for what a
 * thread needs when it first submits to a ring (io_uring_alloc_task_context()).
 * io_uring_enter(2) has EINTR as well.
 *
 * ioq_submit() repeats EAGAIN and EINTR at once, without end: let not each call
 * fail.
 *
 * No other error: EINVAL and the like are those of a single request, and come
 * with its completion, or QEMU's own mistakes.
 *
 * io_uring_submit_and_wait() is left alone.  Its only user is util/
 * fdmon-io_uring.c, where errors other than EINTR are failed assertions
 * (fdmon_io_uring_wait(), get_sqe()), and which no AioContext uses that is a
 * GSource as well (aio_context_use_g_source()): all of QEMU's are.
 */
int io_uring_submit(struct io_uring *ring)
{
    unsigned n = pending(ring), tail = ring->sq.sqe_tail, less;
    int ret;

    if (n == 0) {
        return NEXT(io_uring_submit)(ring);
    }
    if (fails(INJECT_SUBMIT_EAGAIN)) {
        return -EAGAIN;
    }
    if (fails(INJECT_SUBMIT_EINTR)) {
        return -EINTR;
    }
    if (fails(INJECT_SUBMIT_ENOMEM)) {
        return -ENOMEM;
    }
    /* liburing shows the kernel what is before the tail: not all of it, then */
    less = n - some_of(n);
    if (less > tail - ring->sq.sqe_head) {
        less = tail - ring->sq.sqe_head;
    }
    ring->sq.sqe_tail = tail - less;
    ret = NEXT(io_uring_submit)(ring);
    ring->sq.sqe_tail = tail;
    return ret;
}

/*
 * GLib's allocators that may fail, as far as DMA uses them.  Nobody survives a
 * g_malloc() that does.
 */
void *g_try_malloc(size_t size);
void *g_try_malloc0(size_t size);
void *g_try_malloc_n(size_t n, size_t size);

/* bdrv_iov_co_split() */
void *g_try_malloc(size_t size)
{
    return fails(INJECT_TRY_MALLOC) ? NULL : NEXT(g_try_malloc)(size);
}

/* dma_map_unit() */
void *g_try_malloc0(size_t size)
{
    return fails(INJECT_TRY_MALLOC0) ? NULL : NEXT(g_try_malloc0)(size);
}

/* dma_map_grow() */
void *g_try_malloc_n(size_t n, size_t size)
{
    return fails(INJECT_TRY_MALLOC_N) ? NULL : NEXT(g_try_malloc_n)(n, size);
}

/*
 * qemu_memalign() aborts if this fails, and is not told apart: a user arms it
 * only while nothing else in QEMU needs a buffer of one of these sizes.
 */
int posix_memalign(void **p, size_t alignment, size_t size)
{
    for (unsigned i = 0; i < sizeof(bounce_size) / sizeof(*bounce_size); i++) {
        if (size == bounce_size[i] && fails(INJECT_BOUNCE)) {
            return ENOMEM;
        }
    }
    return NEXT(posix_memalign)(p, alignment, size);
}
