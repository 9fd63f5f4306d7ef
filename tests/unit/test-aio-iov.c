/*
 * Vectored AIO: the plan against an oracle, requests against a driver that
 * records and checks what it is given
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "aio-iov-plan.h"
#include "block/aio-iov.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/throttle-groups.h"
#include "crypto/init.h"
#include "crypto/pbkdf.h"
#include "iothread.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/sockets.h"
#include "qobject/qdict.h"
#include "qom/object.h"
#include "system/block-backend.h"

/* The plan */

/*
 * All vectors of @n elements more, each of which follows the last one in memory
 * or lies elsewhere, with some distance to the alignment.
 */
static void plan_small(Vector *v, int n, const BdrvIovLimits *limits)
{
    static const size_t lens[] = { 1, 4, 7 };
    static const size_t addrs[] = { 0, 1, 4 };
    Vector saved = *v;
    uintptr_t next = v->qiov.niov == 0 ? 0x1003 :
        (uintptr_t)v->iov[v->qiov.niov - 1].iov_base +
        v->iov[v->qiov.niov - 1].iov_len;

    for (int i = 0; i <= ARRAY_SIZE(addrs); i++) {
        uintptr_t base = i < ARRAY_SIZE(addrs)
            ? 0x10000 * (v->qiov.niov + 1) + addrs[i] : next;

        if (n == 1) {
            /* Up to the end of a block, or one more */
            size_t len = limits->len_align - v->qiov.size % limits->len_align;

            for (int j = 0; j < 2; j++, len += limits->len_align) {
                vector_add(v, base, len);
                g_assert_cmpint(plan_all(v, limits, 0), ==, 1);
                v->qiov = saved.qiov;
                v->qiov.iov = v->iov;
            }
            continue;
        }
        for (int j = 0; j < ARRAY_SIZE(lens); j++) {
            vector_add(v, base, lens[j]);
            plan_small(v, n - 1, limits);
            v->qiov = saved.qiov;
            v->qiov.iov = v->iov;
        }
    }
}

static void test_plan_small(void)
{
    static const size_t mem_aligns[] = { 1, 4, 8 };

    for (int i = 0; i < ARRAY_SIZE(mem_aligns); i++) {
        BdrvIovLimits limits = {
            .mem_align = mem_aligns[i],
            .len_align = 4,
            .split_align = 4,
            .max_iov = 1024,
            .max_bounce = 4096,
        };

        for (int n = 1; n <= 6; n++) {
            Vector v;

            vector_reset(&v);
            plan_small(&v, n, &limits);
        }
    }
}

static void test_plan_random(void)
{
    Choices c = {};
    int splits = 0;

    for (int i = 0; i < 1000000; i++) {
        splits += plan_any(&c) > 1;
    }
    /* Both kinds were really tested. */
    g_assert_cmpint(splits, >, 10000);
    g_assert_cmpint(splits, <, 500000);
}

/* A long vector that is all in one piece must not take quadratic time. */
static void test_plan_long(void)
{
    static struct iovec iov[1024];
    const int n = 1 << 20;
    g_autofree struct iovec *src = g_new(struct iovec, n);
    QEMUIOVector qiov = { .iov = src, .niov = n, .nalloc = -1 };
    BdrvIovLimits limits = {
        .mem_align = 512,
        .len_align = 512,
        .split_align = 512,
        .max_iov = 1024,
        .max_bounce = 1 * MiB,
    };
    BdrvIovPlan plan = { .iov = iov };
    int64_t start = g_get_monotonic_time();

    for (int misaligned = 0; misaligned < 2; misaligned++) {
        BdrvIovCursor cursor = { 0 };
        size_t done = 0;

        for (int i = 0; i < n; i++) {
            src[i] = (struct iovec) {
                (void *)(uintptr_t)(0x100000 + misaligned + i * 64), 64
            };
        }
        qiov.size = (size_t)n * 64;
        while (done < qiov.size) {
            done += bdrv_iov_plan(&plan, &limits, &qiov, &cursor, done,
                                  qiov.size - done);
            g_assert_cmpint(plan.niov, ==, 1);
            g_assert_cmpuint(plan.size, ==, misaligned ? 1 * MiB : qiov.size);
        }
    }
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
}

static void test_is_aligned(void)
{
    struct iovec iov[13] = {};

    for (int n = 0; n <= ARRAY_SIZE(iov); n++) {
        for (int i = 0; i < n; i++) {
            iov[i] = (struct iovec) { (void *)0x1000, 1024 };
        }
        g_assert(bdrv_iov_is_aligned(iov, n, 4096, 512));
        for (int i = 0; i < n; i++) {
            iov[i].iov_base = (void *)0x1800;
            g_assert(!bdrv_iov_is_aligned(iov, n, 4096, 512));
            g_assert(bdrv_iov_is_aligned(iov, n, 2048, 512));
            iov[i].iov_base = (void *)0x2000;
            iov[i].iov_len = 1024 + 256;
            g_assert(!bdrv_iov_is_aligned(iov, n, 4096, 512));
            g_assert(bdrv_iov_is_aligned(iov, n, 4096, 1));
            iov[i].iov_len = 0;
        }
    }
}

/*
 * The driver: an image in memory that wants what test_limits says, and aborts
 * if it gets something else
 */

#define IMAGE_SIZE (8 * MiB)

typedef struct TestRequest {
    int64_t offset;
    size_t bytes;
    int niov;
    const struct iovec *iov;        /* not to be looked into later */
    BdrvRequestFlags flags;
    Coroutine *co;                  /* waits for release(), or NULL */
} TestRequest;

static struct {
    uint32_t request_alignment;
    size_t min_mem_alignment;
    size_t opt_mem_alignment;
    uint32_t min_len_alignment;
    int max_iov;
} test_limits;

static struct {
    bool padded;                    /* vectors need not be legal */
    bool hold;                      /* requests wait for release() */
    int in_flight;
    int max_in_flight;
    int n;
    TestRequest request[4096];
    int64_t fail_offset[2];         /* of the requests that fail, or -1 */
    AioContext *ctx;                /* where it expects to be called */
} test_driver;

static uint8_t *image;

static const struct iovec *last_iov(void)
{
    return test_driver.request[test_driver.n - 1].iov;
}

static int coroutine_fn test_co_rw(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes, QEMUIOVector *qiov,
                                   BdrvRequestFlags flags, bool is_write)
{
    TestRequest *req = &test_driver.request[test_driver.n++];
    int ret = 0;

    g_assert_cmpint(test_driver.n, <=, ARRAY_SIZE(test_driver.request));
    g_assert_cmpuint(qiov->size, ==, bytes);
    g_assert_cmpuint(iov_size(qiov->iov, qiov->niov), ==, bytes);
    g_assert_cmpint(qiov->niov, <=, MIN(IOV_MAX, bs->bl.max_iov));
    g_assert(!test_driver.ctx ||
             test_driver.ctx == qemu_get_current_aio_context());
    if (!test_driver.padded && bs->bl.min_len_alignment) {
        for (int i = 0; i < qiov->niov; i++) {
            g_assert_cmpuint((uintptr_t)qiov->iov[i].iov_base %
                             bs->bl.min_mem_alignment, ==, 0);
            g_assert_cmpuint(qiov->iov[i].iov_len %
                             bs->bl.min_len_alignment, ==, 0);
        }
    }

    *req = (TestRequest) {
        offset, bytes, qiov->niov, qiov->iov, flags, NULL
    };
    test_driver.in_flight++;
    test_driver.max_in_flight = MAX(test_driver.max_in_flight,
                                    test_driver.in_flight);
    if (test_driver.hold) {
        req->co = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    for (int i = 0; i < ARRAY_SIZE(test_driver.fail_offset); i++) {
        if (test_driver.fail_offset[i] >= offset &&
            test_driver.fail_offset[i] < offset + bytes) {
            ret = i ? -ENOSPC : -EIO;
        }
    }
    if (is_write && ret == 0) {
        qemu_iovec_to_buf(qiov, 0, image + offset, bytes);
    } else if (!is_write) {
        /* Even a request that fails can have filled some memory. */
        qemu_iovec_from_buf(qiov, 0, image + offset, bytes);
    }
    test_driver.in_flight--;
    return ret;
}

static int coroutine_fn test_co_preadv(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    return test_co_rw(bs, offset, bytes, qiov, flags, false);
}

static int coroutine_fn test_co_pwritev(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    return test_co_rw(bs, offset, bytes, qiov, flags, true);
}

static int64_t coroutine_fn test_co_getlength(BlockDriverState *bs)
{
    return IMAGE_SIZE;
}

static void test_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = test_limits.request_alignment;
    bs->bl.min_mem_alignment = test_limits.min_mem_alignment;
    bs->bl.opt_mem_alignment = test_limits.opt_mem_alignment ?:
        MAX(4096, test_limits.min_mem_alignment);
    bs->bl.min_len_alignment = test_limits.min_len_alignment;
    bs->bl.max_iov = test_limits.max_iov ?: IOV_MAX;
}

static BlockDriver bdrv_test = {
    .format_name            = "aio-iov-test",
    .instance_size          = 1,
    .bdrv_co_preadv         = test_co_preadv,
    .bdrv_co_pwritev        = test_co_pwritev,
    .bdrv_co_getlength      = test_co_getlength,
    .bdrv_refresh_limits    = test_refresh_limits,
    .bdrv_child_perm        = bdrv_default_perms,
};

static void set_limits(size_t mem_align, size_t len_align)
{
    memset(&test_limits, 0, sizeof(test_limits));
    test_limits.request_alignment = len_align;
    test_limits.min_mem_alignment = mem_align;
    test_limits.min_len_alignment = len_align;
}

static void reset_driver(void)
{
    g_assert_cmpint(test_driver.in_flight, ==, 0);
    memset(&test_driver, 0, sizeof(test_driver));
    test_driver.fail_offset[0] = test_driver.fail_offset[1] = -1;
    for (int i = 0; i < IMAGE_SIZE; i++) {
        image[i] = i * 7 + i / 256 * 11 + i / 65536;
    }
}

/* Let the request with this number go on. */
static void release(int i)
{
    Coroutine *co = test_driver.request[i].co;

    g_assert(i < test_driver.n && co);
    test_driver.request[i].co = NULL;
    aio_co_wake(co);
}

static bool release_next(void)
{
    for (int i = 0; i < test_driver.n; i++) {
        if (test_driver.request[i].co) {
            release(i);
            return true;
        }
    }
    return false;
}

static BlockDriverState *new_node(void)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_test, "test-node",
                                                BDRV_O_RDWR, &error_abort);

    bs->total_sectors = IMAGE_SIZE / BDRV_SECTOR_SIZE;
    bs->supported_write_flags = BDRV_REQ_FUA;
    reset_driver();
    return bs;
}

static BlockBackend *new_backend(BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_ALL,
                                BLK_PERM_ALL);

    blk_insert_bs(blk, bs, &error_abort);
    blk_set_enable_write_cache(blk, true);
    bdrv_unref(bs);
    return blk;
}

/* A backend on the driver */
static BlockBackend *open_backend(void)
{
    return new_backend(new_node());
}

/* A backend on any other node, such as one above the driver */
static BlockBackend *open_json(const char *json)
{
    BlockDriverState *bs = bdrv_open(json, NULL, NULL, BDRV_O_RDWR,
                                     &error_abort);

    return new_backend(bs);
}

/* Requests */

typedef struct Completion {
    bool done;
    int ret;
    BlockAIOCB *acb;
} Completion;

static void completion_cb(void *opaque, int ret)
{
    Completion *c = opaque;

    g_assert(!c->done);
    c->done = true;
    c->ret = ret;
}

static void submit(BlockBackend *blk, Completion *c, int64_t offset,
                   QEMUIOVector *qiov, BdrvRequestFlags flags, bool is_write)
{
    *c = (Completion) { 0 };
    c->acb = is_write
        ? bdrv_aio_writev(blk, offset, qiov, flags, completion_cb, c)
        : bdrv_aio_readv(blk, offset, qiov, flags, completion_cb, c);
    g_assert(c->acb);
    g_assert(!c->done);
}

static int wait_for(Completion *c)
{
    while (!c->done) {
        aio_poll(qemu_get_aio_context(), true);
    }
    return c->ret;
}

static int rw(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
              BdrvRequestFlags flags, bool is_write)
{
    Completion c;

    submit(blk, &c, offset, qiov, flags, is_write);
    return wait_for(&c);
}

/* Guest memory */

#define MEM_SIZE (16 * MiB)

static uint8_t *mem;

/* A counter of all backends together */
#define STAT(field) ({                              \
    BdrvIovStats total_;                            \
    bdrv_iov_stats_total(&total_);                  \
    stat64_get(&total_.field);                      \
})

static uint64_t stat_bounced(void)
{
    return STAT(bytes_bounced_alignment) + STAT(bytes_bounced_elements);
}

static void check_read(const QEMUIOVector *qiov, int64_t offset)
{
    for (int i = 0; i < qiov->niov; i++) {
        g_assert(memcmp(qiov->iov[i].iov_base, image + offset,
                        qiov->iov[i].iov_len) == 0);
        offset += qiov->iov[i].iov_len;
    }
}

/* 32 pages, of which one pair meets in the middle of a block */
static void make_misaligned_pair(QEMUIOVector *qiov)
{
    qemu_iovec_init(qiov, 32);
    for (int i = 0; i < 32; i++) {
        size_t len = 4096;

        if (i == 10) {
            len = 4096 - 256;
        } else if (i == 11) {
            len = 4096 + 256;
        }
        qemu_iovec_add(qiov, mem + (31 - i) * 16384 + (i == 11 ? 256 : 0), len);
    }
    g_assert_cmpuint(qiov->size, ==, 128 * KiB);
}

static void test_untouched(void)
{
    uint64_t untouched = STAT(requests_untouched);
    uint64_t direct = STAT(bytes_direct);
    uint64_t bounced = stat_bounced();
    QEMUIOVector qiov;
    BlockBackend *blk;

    set_limits(512, 512);
    blk = open_backend();
    qemu_iovec_init(&qiov, 32);
    for (int i = 0; i < 32; i++) {
        qemu_iovec_add(&qiov, mem + i * 8192, 4096);
    }
    g_assert_cmpint(rw(blk, 4096, &qiov, 0, false), ==, 0);
    g_assert_cmpint(test_driver.n, ==, 1);
    g_assert(last_iov() == qiov.iov);
    check_read(&qiov, 4096);
    g_assert_cmpint(rw(blk, 4096, &qiov, BDRV_REQ_FUA, true), ==, 0);
    g_assert_cmpint(test_driver.request[1].flags, ==, BDRV_REQ_FUA);
    g_assert(last_iov() == qiov.iov);

    g_assert_cmpuint(STAT(requests_untouched), ==, untouched + 2);
    g_assert_cmpuint(STAT(bytes_direct), ==, direct + 2 * qiov.size);
    g_assert_cmpuint(stat_bounced(), ==, bounced);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* Nodes without requirements get odd vectors as they are. */
static void test_no_requirement(void)
{
    uint64_t bounced = stat_bounced();
    QEMUIOVector qiov;
    BlockBackend *blk;

    set_limits(512, 0);
    test_limits.request_alignment = 1;
    blk = open_backend();
    qemu_iovec_init(&qiov, 5000);
    for (int i = 0; i < 1000; i++) {
        qemu_iovec_add(&qiov, mem + i * 101 + 1, 1 + i % 97);
    }
    g_assert_cmpint(rw(blk, 1234, &qiov, 0, false), ==, 0);
    g_assert_cmpint(test_driver.n, ==, 1);
    g_assert(last_iov() == qiov.iov);
    check_read(&qiov, 1234);

    /* They only become parts. */
    for (int i = 1000; i < 5000; i++) {
        qemu_iovec_add(&qiov, mem + i * 101 + 1, 1 + i % 97);
    }
    g_assert_cmpint(rw(blk, 1234, &qiov, 0, false), ==, 0);
    g_assert_cmpint(test_driver.n, ==, 1 + 5);
    check_read(&qiov, 1234);
    g_assert_cmpuint(stat_bounced(), ==, bounced);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

static void test_pair(void)
{
    static const struct {
        size_t mem_align, len_align, bounced;
    } cases[] = {
        { 1, 512, 512 },
        { 4, 512, 512 },
        { 512, 512, 512 },
        { 4096, 512, 4096 },    /* up to the next page */
        { 4, 4096, 4096 },
    };

    for (int i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
        uint64_t requests = STAT(requests_bounced);
        uint64_t bounced = stat_bounced();
        BdrvRequestFlags flags = i % 2 ? BDRV_REQ_FUA : 0;
        bool is_write = i % 2;
        QEMUIOVector qiov;
        BlockBackend *blk;

        set_limits(cases[i / 2].mem_align, cases[i / 2].len_align);
        blk = open_backend();
        make_misaligned_pair(&qiov);
        for (int j = 0; j < MEM_SIZE; j++) {
            mem[j] = j * 3 + j / 1000;
        }
        g_assert_cmpint(rw(blk, 65536, &qiov, flags, is_write), ==, 0);
        check_read(&qiov, 65536);
        g_assert_cmpint(test_driver.n, ==, 1);
        g_assert_cmpint(test_driver.request[0].flags, ==, flags);
        g_assert_cmpuint(stat_bounced() - bounced, ==, cases[i / 2].bounced);
        g_assert_cmpuint(STAT(requests_bounced), ==, requests + 1);
        qemu_iovec_destroy(&qiov);
        blk_unref(blk);
    }
}

/* A request that is not a multiple of the alignment is padded, as ever. */
static void test_padded_request(void)
{
    uint64_t bounced = stat_bounced();
    QEMUIOVector qiov;
    BlockBackend *blk;

    set_limits(4096, 4096);
    blk = open_backend();
    test_driver.padded = true;

    qemu_iovec_init_buf(&qiov, mem + 1, 512);
    g_assert_cmpint(rw(blk, 512, &qiov, 0, false), ==, 0);
    check_read(&qiov, 512);
    g_assert_cmpuint(stat_bounced(), ==, bounced);

    /* More than IOV_MAX elements, which stock QEMU asserts to be impossible */
    for (int is_write = 0; is_write < 2; is_write++) {
        qemu_iovec_init(&qiov, 3000);
        for (int i = 0; i < 3000; i++) {
            qemu_iovec_add(&qiov, mem + i * 600, 512);
        }
        for (int j = 0; j < MEM_SIZE; j++) {
            mem[j] = j * 3 + j / 1000;
        }
        test_driver.n = 0;
        g_assert_cmpint(rw(blk, 512, &qiov, 0, is_write), ==, 0);
        check_read(&qiov, 512);
        /* Split in whole blocks: the only read-modify-writes are at the ends */
        for (int i = 0; i < test_driver.n; i++) {
            g_assert_cmpuint(test_driver.request[i].offset % 4096, ==, 0);
            g_assert_cmpuint(test_driver.request[i].bytes % 4096, ==, 0);
        }
        g_assert_cmpint(test_driver.n, ==, is_write ? 5 : 3);
        qemu_iovec_destroy(&qiov);
    }
    blk_unref(blk);
}

/* Random vectors for random limits */
static void test_random(void)
{
    for (int i = 0; i < 200; i++) {
        size_t len_align = 512 << g_test_rand_int_range(0, 4);
        size_t mem_align = 1 << g_test_rand_int_range(0, 13);
        BlockBackend *blk;

        set_limits(mem_align, len_align);
        if (g_test_rand_int_range(0, 2)) {
            test_limits.max_iov = g_test_rand_int_range(1, 100);
        }
        if (g_test_rand_int_range(0, 4) == 0) {
            test_limits.request_alignment = 512 << g_test_rand_int_range(0, 6);
            test_limits.request_alignment = MAX(test_limits.request_alignment,
                                                len_align);
        }
        blk = open_backend();

        for (int j = 0; j < 20; j++) {
            int n = g_test_rand_int_range(1, 200);
            size_t unit = test_limits.request_alignment;
            int max = g_test_rand_int_range(0, 2) ? 5000 : 100000;
            bool is_write = g_test_rand_int_range(0, 2);
            uint8_t *p = mem;
            int64_t offset;
            QEMUIOVector qiov;

            qemu_iovec_init(&qiov, n);
            while (n-- > 0 && qiov.size < 4 * MiB) {
                size_t len = g_test_rand_int_range(0, max);

                switch (g_test_rand_int_range(0, 8)) {
                case 0:
                    break;
                case 1:
                    p += g_test_rand_int_range(0, 100);
                    break;
                default:
                    p = QEMU_ALIGN_PTR_UP(p + 1, 4096);
                    len = QEMU_ALIGN_UP(len, unit);
                    break;
                }
                qemu_iovec_add(&qiov, p, len);
                p += len;
            }
            if (qiov.size % unit) {
                qemu_iovec_add(&qiov, p + 99, unit - qiov.size % unit);
            }
            g_assert(p + 99 + unit < mem + MEM_SIZE);
            offset = g_test_rand_int_range(0, (IMAGE_SIZE - qiov.size) / unit);
            offset *= unit;

            if (is_write) {
                for (int k = 0; k < qiov.niov; k++) {
                    memset(qiov.iov[k].iov_base, k * 3 + i + j,
                           qiov.iov[k].iov_len);
                }
            } else {
                qemu_iovec_memset(&qiov, 0, 0xee, qiov.size);
            }
            test_driver.n = 0;
            g_assert_cmpint(rw(blk, offset, &qiov, 0, is_write), ==, 0);
            check_read(&qiov, offset);
            qemu_iovec_destroy(&qiov);
        }
        blk_unref(blk);
    }
}

/* A vector that never realigns, and does not fit into the bounce buffer */
static void test_bounce_in_chunks(void)
{
    for (int is_write = 0; is_write < 2; is_write++) {
        uint64_t bounced = stat_bounced();
        QEMUIOVector qiov;
        BlockBackend *blk;

        set_limits(512, 512);
        blk = open_backend();
        qemu_iovec_init_buf(&qiov, mem + 3, 4 * MiB + 512);
        if (is_write) {
            memset(mem, 0x77, MEM_SIZE);
        }
        g_assert_cmpint(rw(blk, 512, &qiov, 0, is_write), ==, 0);
        check_read(&qiov, 512);
        g_assert_cmpint(test_driver.n, ==, 5);
        /* There is only one buffer. */
        g_assert_cmpint(test_driver.max_in_flight, ==, 1);
        for (int i = 0; i < 4; i++) {
            g_assert_cmpuint(test_driver.request[i].bytes, ==, 1 * MiB);
        }
        g_assert_cmpuint(stat_bounced() - bounced, ==, qiov.size);
        blk_unref(blk);
    }
}

/* Sectors at odd places, for lists longer than IOV_MAX */
static void make_long(QEMUIOVector *qiov, int n, size_t len)
{
    size_t stride = len + 100;

    g_assert_cmpuint(n * stride, <, MEM_SIZE);
    qemu_iovec_init(qiov, n);
    for (int i = 0; i < n; i++) {
        qemu_iovec_add(qiov, mem + (n - 1 - i) * stride, len);
    }
}

static void test_split(void)
{
    static const struct {
        int niov;
        size_t len;
        size_t mem_align;
        int parts;
    } cases[] = {
        { 1024, 512, 1, 1 },
        { 1025, 512, 1, 2 },
        { 2048, 512, 4, 2 },
        { 14 * 1024 + 1, 512, 1, 15 },
        /* bounced: no block lies in one element */
        { 65535, 64, 1, 4 },
        { 16384, 256, 1, 4 },
        /* bounced: no element has a legal address (but one in 128) */
        { 8192, 512, 512, 0 },
    };

    for (int i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
        int niov = cases[i / 2].niov;
        int parts = cases[i / 2].parts;
        bool is_write = i % 2;
        QEMUIOVector qiov;
        BlockBackend *blk;
        uint64_t splits = STAT(requests_split);

        set_limits(cases[i / 2].mem_align, 512);
        blk = open_backend();
        make_long(&qiov, niov, cases[i / 2].len);
        if (qiov.size % 512) {
            qemu_iovec_add(&qiov, mem + MEM_SIZE - 512, 512 - qiov.size % 512);
        }
        for (int j = 0; j < MEM_SIZE; j++) {
            mem[j] = j * 5 + j / 1000;
        }
        g_assert_cmpint(rw(blk, 1024, &qiov, BDRV_REQ_FUA * is_write,
                           is_write), ==, 0);
        check_read(&qiov, 1024);
        if (parts) {
            g_assert_cmpint(test_driver.n, ==, parts);
        }
        g_assert_cmpint(test_driver.n, <, 20);
        for (int j = 0; j < test_driver.n; j++) {
            g_assert_cmpint(test_driver.request[j].flags, ==,
                            BDRV_REQ_FUA * is_write);
        }
        g_assert_cmpuint(STAT(requests_split), ==,
                         splits + (niov > 1024));
        qemu_iovec_destroy(&qiov);
        blk_unref(blk);
    }
}

static void test_split_concurrency(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    Completion c;

    set_limits(1, 512);
    blk = open_backend();
    make_long(&qiov, 12 * 1024, 512);
    for (int is_write = 0; is_write < 2; is_write++) {
        test_driver.n = 0;
        test_driver.hold = true;
        submit(blk, &c, 0, &qiov, 0, is_write);
        g_assert_cmpint(test_driver.n, ==, BDRV_IOV_MAX_IN_FLIGHT);
        /* In any order */
        release(5);
        g_assert_cmpint(test_driver.n, ==, BDRV_IOV_MAX_IN_FLIGHT + 1);
        release(8);
        g_assert_cmpint(test_driver.n, ==, BDRV_IOV_MAX_IN_FLIGHT + 2);
        while (release_next()) {
            /* nothing */
        }
        g_assert_cmpint(test_driver.n, ==, 12);
        g_assert_cmpint(wait_for(&c), ==, 0);
        g_assert_cmpint(test_driver.max_in_flight, ==, BDRV_IOV_MAX_IN_FLIGHT);
        check_read(&qiov, 0);
    }
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* Each part fails once. */
static void test_split_errors(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    Completion c;

    set_limits(1, 512);
    blk = open_backend();
    make_long(&qiov, 12 * 1024, 512);
    for (int i = 0; i < 12 * 2; i++) {
        reset_driver();
        test_driver.hold = true;
        test_driver.fail_offset[0] = i / 2 * 512 * KiB + 1024;
        submit(blk, &c, 0, &qiov, 0, i % 2);
        while (release_next()) {
            /* nothing */
        }
        g_assert_cmpint(wait_for(&c), ==, -EIO);
        /* What was in flight with it, but no more */
        g_assert_cmpint(test_driver.n, ==,
                        MIN(i / 2 + BDRV_IOV_MAX_IN_FLIGHT, 12));
    }

    /* Two fail: the lower offset counts, though it is the last to end. */
    for (int i = 0; i < 2; i++) {
        reset_driver();
        test_driver.hold = true;
        test_driver.fail_offset[0] = (i ? 2 : 5) * 512 * KiB;
        test_driver.fail_offset[1] = (i ? 5 : 2) * 512 * KiB;
        submit(blk, &c, 0, &qiov, 0, false);
        release(5);
        g_assert(!c.done);
        release(2);
        while (release_next()) {
            /* nothing */
        }
        g_assert_cmpint(wait_for(&c), ==, i ? -EIO : -ENOSPC);
        g_assert_cmpint(test_driver.n, ==, BDRV_IOV_MAX_IN_FLIGHT);
    }
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* What is in the bounce buffer of a read that fails stays there. */
static void test_failed_read(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    size_t untouched = 0;

    set_limits(512, 512);
    blk = open_backend();
    memset(mem, 0xee, MEM_SIZE);
    memset(image, 0x11, IMAGE_SIZE);
    qemu_iovec_init(&qiov, 3);
    qemu_iovec_add(&qiov, mem, 256);
    qemu_iovec_add(&qiov, mem + 4096, 256);
    qemu_iovec_add(&qiov, mem + 8192, 512);
    test_driver.fail_offset[0] = 0;
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, -EIO);
    for (int i = 0; i < MEM_SIZE; i++) {
        untouched += mem[i] == 0xee;
    }
    g_assert_cmpint(untouched, ==, MEM_SIZE - 512);
    qemu_iovec_destroy(&qiov);

    /* Of a split request, what did not fail is copied. */
    memset(mem, 0xee, MEM_SIZE);
    qemu_iovec_init_buf(&qiov, mem + 1, 3 * MiB);
    test_driver.fail_offset[0] = 1 * MiB;
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, -EIO);
    g_assert_cmphex(mem[0], ==, 0xee);
    g_assert_cmphex(mem[1], ==, 0x11);
    g_assert_cmphex(mem[1 * MiB], ==, 0x11);
    g_assert_cmphex(mem[1 * MiB + 1], ==, 0xee);
    blk_unref(blk);
}

static void test_cancel(void)
{
    QEMUIOVector qiov, single;
    BlockBackend *blk;
    Completion c;

    set_limits(1, 512);
    blk = open_backend();
    make_long(&qiov, 12 * 1024, 512);
    for (int i = 0; i <= 12 * 2 + 1; i++) {
        int ended = i / 2;
        int submitted = MIN(ended + BDRV_IOV_MAX_IN_FLIGHT, 12);

        reset_driver();
        test_driver.hold = true;
        submit(blk, &c, 0, &qiov, 0, i % 2);
        for (int j = 0; j < ended; j++) {
            release(j);
        }
        g_assert_cmpint(test_driver.n, ==, submitted);
        if (!c.done) {
            blk_aio_cancel_async(c.acb);
        }
        while (release_next()) {
            /* nothing */
        }
        g_assert_cmpint(wait_for(&c), ==, submitted < 12 ? -ECANCELED : 0);
        g_assert_cmpint(test_driver.n, ==, submitted);
    }

    /* A request with one part ends as it would have. */
    make_misaligned_pair(&single);
    reset_driver();
    test_driver.hold = true;
    submit(blk, &c, 0, &single, 0, false);
    blk_aio_cancel_async(c.acb);
    g_assert(!c.done);
    release(0);
    g_assert_cmpint(wait_for(&c), ==, 0);

    /* One that waits for the end of a drained section never begins. */
    for (int i = 0; i < 2; i++) {
        reset_driver();
        bdrv_drained_begin(blk_bs(blk));
        submit(blk, &c, 0, i ? &qiov : &single, 0, false);
        blk_aio_cancel_async(c.acb);
        bdrv_drained_end(blk_bs(blk));
        g_assert_cmpint(wait_for(&c), ==, -ECANCELED);
        g_assert_cmpint(test_driver.n, ==, 0);
    }
    qemu_iovec_destroy(&single);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

static void release_bh(void *opaque)
{
    if (release_next()) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, NULL);
    }
}

/* The synchronous form, as a device reset uses it */
static void test_cancel_sync(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    Completion c;

    set_limits(1, 512);
    blk = open_backend();
    make_long(&qiov, 12 * 1024, 512);
    test_driver.hold = true;
    submit(blk, &c, 0, &qiov, 0, false);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, NULL);
    blk_aio_cancel(c.acb);
    g_assert(c.done);
    g_assert_cmpint(c.ret, ==, -ECANCELED);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* A drained section begins only when all parts have ended. */
static void test_drain(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    Completion c;

    set_limits(1, 512);
    blk = open_backend();
    make_long(&qiov, 12 * 1024, 512);
    for (int i = 0; i < 4; i++) {
        reset_driver();
        test_driver.hold = true;
        submit(blk, &c, 0, &qiov, 0, i % 2);
        aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, NULL);
        if (i / 2) {
            bdrv_drain_all_begin();
        } else {
            bdrv_drained_begin(blk_bs(blk));
        }
        g_assert(c.done);
        g_assert_cmpint(c.ret, ==, 0);
        g_assert_cmpint(test_driver.n, ==, 12);
        check_read(&qiov, 0);

        /* And nothing begins before its end. */
        test_driver.n = 0;
        test_driver.hold = false;
        submit(blk, &c, 0, &qiov, 0, i % 2);
        while (aio_poll(qemu_get_aio_context(), false)) {
            /* nothing */
        }
        g_assert(!c.done);
        g_assert_cmpint(test_driver.n, ==, 0);
        if (i / 2) {
            bdrv_drain_all_end();
        } else {
            bdrv_drained_end(blk_bs(blk));
        }
        g_assert_cmpint(wait_for(&c), ==, 0);
        g_assert_cmpint(test_driver.n, ==, 12);
    }
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* The limits that count are those at the time of submission. */
static void test_limits_change(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;
    Completion c;

    set_limits(512, 512);
    blk = open_backend();
    make_misaligned_pair(&qiov);
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, 0);
    g_assert(last_iov() != qiov.iov);

    /* As after a reopen with cache.direct=off */
    set_limits(1, 1);
    bdrv_graph_rdlock_main_loop();
    bdrv_refresh_limits(blk_bs(blk), NULL, &error_abort);
    bdrv_graph_rdunlock_main_loop();
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, 0);
    g_assert(last_iov() == qiov.iov);

    /* While the request waits, as during a reopen */
    set_limits(512, 512);
    bdrv_refresh_limits(blk_bs(blk), NULL, &error_abort);
    bdrv_drained_begin(blk_bs(blk));
    submit(blk, &c, 0, &qiov, 0, false);
    set_limits(4096, 4096);
    bdrv_refresh_limits(blk_bs(blk), NULL, &error_abort);
    bdrv_drained_end(blk_bs(blk));
    g_assert_cmpint(wait_for(&c), ==, 0);
    check_read(&qiov, 0);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

static void test_out_of_memory(void)
{
#ifdef QEMU_SANITIZE_ADDRESS
    g_test_skip("the address sanitizer does not let allocations fail");
#else
    QEMUIOVector qiov;
    BlockBackend *blk;

    set_limits(1, 512);
    blk = open_backend();
    /* More than the address space has */
    blk_bs(blk)->bl.opt_mem_alignment = (size_t)1 << 62;
    make_misaligned_pair(&qiov);
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, -ENOMEM);
    g_assert_cmpint(test_driver.n, ==, 0);
    qemu_iovec_destroy(&qiov);

    /* In the middle of a split request, too: the first part is not bounced. */
    make_long(&qiov, 2048, 512);
    qiov.iov[2000].iov_len -= 256;
    qiov.iov[2001].iov_len += 256;
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, -ENOMEM);
    g_assert_cmpint(test_driver.n, ==, 1);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
#endif
}

static void test_no_medium(void)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_ALL,
                                BLK_PERM_ALL);
    QEMUIOVector qiov;

    make_long(&qiov, 2048, 512);
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, -ENOMEDIUM);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* Beyond the end, and what no request can be */
static void test_out_of_range(void)
{
    QEMUIOVector qiov;
    BlockBackend *blk;

    set_limits(512, 512);
    blk = open_backend();
    for (int i = 0; i < 2; i++) {
        if (i) {
            make_long(&qiov, 2048, 512);
        } else {
            make_misaligned_pair(&qiov);
        }
        g_assert_cmpint(rw(blk, IMAGE_SIZE - 512, &qiov, 0, false), ==, -EIO);
        g_assert_cmpint(rw(blk, -512, &qiov, 0, false), ==, -EIO);
        g_assert_cmpint(rw(blk, INT64_MAX - 511, &qiov, 0, true), ==, -EIO);
        qemu_iovec_destroy(&qiov);
    }
    blk_unref(blk);
}

/* An IOThread */

typedef struct ThreadRequest {
    BlockBackend *blk;
    QEMUIOVector *qiov;
    bool is_write;
    bool done;
    int ret;
} ThreadRequest;

static void thread_cb(void *opaque, int ret)
{
    ThreadRequest *r = opaque;

    g_assert(qemu_get_current_aio_context() == test_driver.ctx);
    r->ret = ret;
    qatomic_store_release(&r->done, true);
    aio_wait_kick();
}

static void thread_bh(void *opaque)
{
    ThreadRequest *r = opaque;

    if (r->is_write) {
        bdrv_aio_writev(r->blk, 4096, r->qiov, 0, thread_cb, r);
    } else {
        bdrv_aio_readv(r->blk, 4096, r->qiov, 0, thread_cb, r);
    }
}

static void test_iothread(void)
{
    IOThread *iothread = iothread_new();
    AioContext *ctx = iothread_get_aio_context(iothread);
    BlockBackend *blk;

    set_limits(512, 512);
    blk = open_backend();
    blk_set_aio_context(blk, ctx, &error_abort);
    for (int i = 0; i < 40; i++) {
        QEMUIOVector qiov;
        ThreadRequest r;

        test_driver.n = 0;
        test_driver.ctx = ctx;
        if (i / 2 % 2) {
            make_long(&qiov, 6 * 1024, 512);
        } else {
            make_misaligned_pair(&qiov);
        }
        r = (ThreadRequest) { .blk = blk, .qiov = &qiov, .is_write = i % 2 };
        aio_bh_schedule_oneshot(ctx, thread_bh, &r);
        if (i % 5 == 0) {
            blk_drain(blk);
        }
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&r.done));
        g_assert_cmpint(r.ret, ==, 0);
        check_read(&qiov, 4096);
        qemu_iovec_destroy(&qiov);
    }
    test_driver.ctx = NULL;
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    blk_unref(blk);
    iothread_join(iothread);
}

/* Other nodes */

static void test_null_co(void)
{
    BlockBackend *blk;
    QEMUIOVector qiov;

    blk = open_json("json:{'driver': 'null-co', 'size': 8388608,"
                    "      'read-zeroes': true}");
    memset(mem, 0xee, MEM_SIZE);
    make_long(&qiov, 2048, 512);
    g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, 0);
    g_assert(qemu_iovec_is_zero(&qiov, 0, qiov.size));
    g_assert_cmpint(rw(blk, 0, &qiov, 0, true), ==, 0);
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
}

/* The limits of a file go up through filters and formats. */
static void test_limits_of_filters(void)
{
    static const char *const json[] = {
        "json:{'driver': 'copy-on-read', 'file': 'test-node'}",
        "json:{'driver': 'raw', 'file': 'test-node'}",
        "json:{'driver': 'blkdebug', 'image': 'test-node'}",
    };

    for (int i = 0; i < ARRAY_SIZE(json); i++) {
        BlockDriverState *bs;
        BlockBackend *blk;
        QEMUIOVector qiov;

        set_limits(512, 512);
        bs = new_node();
        blk = open_json(json[i]);
        bdrv_unref(bs);
        g_assert_cmpuint(blk_bs(blk)->bl.min_len_alignment, ==, 512);
        make_misaligned_pair(&qiov);
        g_assert_cmpint(rw(blk, 0, &qiov, 0, false), ==, 0);
        check_read(&qiov, 0);
        g_assert_cmpint(test_driver.n, ==, 1);
        g_assert_cmpint(rw(blk, 0, &qiov, 0, true), ==, 0);
        g_assert_cmpint(test_driver.n, ==, 2);
        qemu_iovec_destroy(&qiov);

        make_long(&qiov, 3 * 1024, 512);
        g_assert_cmpint(rw(blk, 4096, &qiov, 0, false), ==, 0);
        check_read(&qiov, 4096);
        qemu_iovec_destroy(&qiov);
        blk_unref(blk);
    }
}

static void test_blkdebug(void)
{
    for (int i = 0; i < 12; i++) {
        g_autofree char *json = g_strdup_printf(
            "json:{'driver': 'blkdebug',"
            "      'image': {'driver': 'null-co', 'size': 8388608},"
            "      'inject-error': [{'event': 'none', 'errno': 28,"
            "                        'sector': %d}]}", i * 1024 + 5);
        BlockBackend *blk = open_json(json);
        QEMUIOVector qiov;

        make_long(&qiov, 12 * 1024, 512);
        for (int is_write = 0; is_write < 2; is_write++) {
            g_assert_cmpint(rw(blk, 0, &qiov, 0, is_write), ==, -ENOSPC);
        }
        qemu_iovec_destroy(&qiov);
        blk_unref(blk);
    }
}

static void test_throttle(void)
{
    Object *tg;
    BlockDriverState *bs;
    BlockBackend *blk;
    QEMUIOVector qiov;
    Completion c;

    tg = object_new_with_props(TYPE_THROTTLE_GROUP, object_get_objects_root(),
                               "aio-iov-group", &error_abort,
                               "x-bps-total", "50000000", NULL);
    set_limits(1, 512);
    bs = new_node();
    blk = open_json("json:{'driver': 'throttle', 'file': 'test-node',"
                    "      'throttle-group': 'aio-iov-group'}");
    bdrv_unref(bs);
    make_long(&qiov, 12 * 1024, 512);
    for (int i = 0; i < 3; i++) {
        memset(mem, 0xee, MEM_SIZE);
        submit(blk, &c, 0, &qiov, 0, false);
        /* A drain does not wait for the throttle, and all parts go ahead. */
        if (i == 1) {
            blk_drain(blk);
            g_assert(c.done);
        }
        g_assert_cmpint(wait_for(&c), ==, 0);
        check_read(&qiov, 0);
    }
    qemu_iovec_destroy(&qiov);
    blk_unref(blk);
    object_unparent(tg);
}

#ifndef _WIN32
/* Real files: random vectors through formats and through O_DIRECT */

static bool open_direct(const char *file, bool direct)
{
#ifdef O_DIRECT
    int fd = open(file, O_RDWR | (direct ? O_DIRECT : 0));

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
#else
    return !direct;
#endif
}

static void test_file(const void *opaque)
{
    const char *const *args = opaque;
    const char *format = args[0], *create = args[1], *node_options = args[2];
    bool direct = args[3];
    g_autofree char *file = g_build_filename(g_get_tmp_dir(),
                                             "aio-iov-file-XXXXXX", NULL);
    g_autofree char *json = NULL;
    g_autofree uint8_t *got = g_malloc(IMAGE_SIZE);
    BlockBackend *blk;
    Completion c;

    if (g_str_equal(format, "luks") &&
        !qcrypto_pbkdf2_supports(QCRYPTO_HASH_ALGO_SHA256)) {
        g_test_skip("QEMU was built without a library for LUKS");
        return;
    }
    close(g_mkstemp(file));
    if (!open_direct(file, direct)) {
        g_test_skip("O_DIRECT is not possible in the temporary directory");
        unlink(file);
        return;
    }
    bdrv_img_create(file, format, NULL, NULL, (char *)create, IMAGE_SIZE, 0,
                    true, &error_abort);
    json = g_strdup_printf("json:{'driver': '%s', %s"
                           "      'file': {'driver': 'file', 'filename': '%s',"
                           "               'cache': {'direct': %s}}}",
                           format, node_options, file,
                           direct ? "true" : "false");
    blk = open_json(json);

    reset_driver();
    g_assert_cmpint(blk_pwrite(blk, 0, IMAGE_SIZE, image, 0), ==, 0);
    for (int i = 0; i < 100; i++) {
        int n = g_test_rand_int_range(1, i % 10 ? 100 : 3000);
        bool is_write = g_test_rand_int_range(0, 2);
        uint8_t *p = mem;
        int64_t offset;
        QEMUIOVector qiov;

        qemu_iovec_init(&qiov, n);
        while (n-- > 0) {
            size_t len = g_test_rand_int_range(1, 1500);

            if (g_test_rand_int_range(0, 3)) {
                p = QEMU_ALIGN_PTR_UP(p, 512);
                len = QEMU_ALIGN_UP(len, 512);
            }
            qemu_iovec_add(&qiov, p, len);
            p += len + g_test_rand_int_range(0, 600);
        }
        qemu_iovec_add(&qiov, p, 512 - qiov.size % 512);
        offset = g_test_rand_int_range(0, (IMAGE_SIZE - qiov.size) / 512) * 512;

        if (is_write) {
            for (int j = 0; j < qiov.niov; j++) {
                memset(qiov.iov[j].iov_base, i + j * 3, qiov.iov[j].iov_len);
            }
            qemu_iovec_to_buf(&qiov, 0, image + offset, qiov.size);
        }
        submit(blk, &c, offset, &qiov, 0, is_write);
        if (i % 7 == 0) {
            blk_drain(blk);
            g_assert(c.done);
        }
        g_assert_cmpint(wait_for(&c), ==, 0);
        check_read(&qiov, offset);
        qemu_iovec_destroy(&qiov);
    }
    g_assert_cmpint(blk_pread(blk, 0, IMAGE_SIZE, got, 0), ==, 0);
    g_assert(memcmp(got, image, IMAGE_SIZE) == 0);
    blk_unref(blk);
    unlink(file);
}

/* What the kernel says about direct I/O, in a hole where probing fails, too */
static void test_file_limits(void)
{
    g_autofree char *file = g_build_filename(g_get_tmp_dir(),
                                             "aio-iov-file-XXXXXX", NULL);
    int fd = g_mkstemp(file);

    g_assert_cmpint(ftruncate(fd, IMAGE_SIZE), ==, 0);
    for (int direct = 0; direct < 2; direct++) {
        g_autofree char *json = g_strdup_printf(
            "json:{'driver': 'raw', 'file': {"
            "          'driver': 'file', 'filename': '%s',"
            "          'cache': {'direct': %s}}}",
            file, direct ? "true" : "false");
        const BlockLimits *bl;
        BlockBackend *blk;

        if (!open_direct(file, direct)) {
            break;
        }
        blk = open_json(json);
        bl = &blk_bs(blk)->bl;
        if (!direct) {
            g_assert_cmpuint(bl->min_len_alignment, <=, 1);
        } else {
#ifdef STATX_DIOALIGN
            struct statx stx;

            if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
                stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_mem_align) {
                g_assert_cmpuint(bl->min_mem_alignment, ==,
                                 stx.stx_dio_mem_align);
                g_assert_cmpuint(bl->min_len_alignment, ==,
                                 stx.stx_dio_offset_align);
            }
#endif
            g_assert_cmpuint(bl->opt_mem_alignment, >=,
                             qemu_real_host_page_size());
        }
        blk_unref(blk);
    }
    close(fd);
    unlink(file);
}

static const char *const file_tests[][5] = {
    /* format, options to create, options to open, O_DIRECT, name */
    { "raw", "", "", NULL, "/aio-iov/file/raw" },
    { "raw", "", "", "direct", "/aio-iov/file/raw-direct" },
    { "qcow2", "", "", NULL, "/aio-iov/file/qcow2" },
    { "qcow2", "cluster_size=512", "", "direct",
      "/aio-iov/file/qcow2-512-direct" },
    { "qcow2", "", "", "direct", "/aio-iov/file/qcow2-direct" },
    { "luks", "key-secret=aio-iov-key,cipher-mode=cbc,iter-time=10",
      "'key-secret': 'aio-iov-key',", NULL, "/aio-iov/file/luks" },
    { "luks", "key-secret=aio-iov-key,cipher-mode=cbc,iter-time=10",
      "'key-secret': 'aio-iov-key',", "direct", "/aio-iov/file/luks-direct" },
};

/* A server on the network */

static uint16_t free_port(void)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&addr, &len), ==, 0);
    close(fd);
    return ntohs(addr.sin_port);
}

static void test_nbd(char **argv, uint16_t port)
{
    g_autofree char *json = g_strdup_printf(
        "json:{'driver': 'nbd', 'open-timeout': 30,"
        "      'server': {'type': 'inet', 'host': '127.0.0.1',"
        "                 'port': '%u'}}", port);
    BlockBackend *blk;
    QEMUIOVector qiov;
    GPid pid;

    if (!g_spawn_async(NULL, argv, NULL,
                       G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                       NULL, NULL, &pid, NULL)) {
        g_test_skip("the server does not start");
        return;
    }
    blk = open_json(json);
    reset_driver();
    for (int n = 1; n <= 16 * 1024; n *= 4) {
        for (int odd = 0; odd < 2; odd++) {
            /* Odd lengths that add up to sectors */
            make_long(&qiov, n * 2, 256);
            for (int i = 0; odd && i < n * 2; i += 2) {
                qiov.iov[i].iov_len -= 99;
                qiov.iov[i + 1].iov_len += 99;
            }
            for (int j = 0; j < MEM_SIZE; j++) {
                mem[j] = j * 5 + j / 1000 + n;
            }
            qemu_iovec_to_buf(&qiov, 0, image, qiov.size);
            g_assert_cmpint(rw(blk, 512 * n, &qiov, 0, true), ==, 0);
            memset(mem, 0xee, MEM_SIZE);
            g_assert_cmpint(rw(blk, 512 * n, &qiov, 0, false), ==, 0);
            check_read(&qiov, 0);
            qemu_iovec_destroy(&qiov);
        }
    }
    blk_unref(blk);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    g_spawn_close_pid(pid);
}

static void test_qemu_nbd(void)
{
    static const char *const places[] = { "./qemu-nbd", "../../qemu-nbd" };
    g_autofree char *file = g_build_filename(g_get_tmp_dir(),
                                             "aio-iov-nbd-XXXXXX", NULL);
    g_autofree char *port = NULL;
    const char *program = g_getenv("QTEST_QEMU_NBD");
    int fd;

    for (int i = 0; !program && i < ARRAY_SIZE(places); i++) {
        program = access(places[i], X_OK) == 0 ? places[i] : NULL;
    }
    if (!program) {
        g_test_skip("there is no qemu-nbd here");
        return;
    }
    fd = g_mkstemp(file);
    g_assert_cmpint(ftruncate(fd, 2 * IMAGE_SIZE), ==, 0);
    close(fd);
    port = g_strdup_printf("%u", free_port());

    char *argv[] = {
        (char *)program, (char *)"-f", (char *)"raw", (char *)"-b",
        (char *)"127.0.0.1", (char *)"-p", port, file, NULL
    };
    test_nbd(argv, atoi(port));
    unlink(file);
}

static void test_nbdkit(void)
{
    g_autofree char *program = g_find_program_in_path("nbdkit");
    g_autofree char *port = NULL;

    if (!program) {
        g_test_skip("there is no nbdkit here");
        return;
    }
    port = g_strdup_printf("%u", free_port());

    char *argv[] = {
        program, (char *)"-f", (char *)"-i", (char *)"127.0.0.1", (char *)"-p",
        port, (char *)"memory", (char *)"16M", NULL
    };
    test_nbd(argv, atoi(port));
}
#endif

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    module_call_init(MODULE_INIT_QOM);

    g_test_init(&argc, &argv, NULL);

    qcrypto_init(&error_abort);
    object_new_with_props("secret", object_get_objects_root(), "aio-iov-key",
                          &error_abort, "data", "sesame", NULL);
    image = g_malloc(IMAGE_SIZE);
    mem = qemu_memalign(4096, MEM_SIZE);
    memset(mem, 0, MEM_SIZE);

    g_test_add_func("/aio-iov/is-aligned", test_is_aligned);
    g_test_add_func("/aio-iov/plan/small", test_plan_small);
    g_test_add_func("/aio-iov/plan/random", test_plan_random);
    g_test_add_func("/aio-iov/plan/long", test_plan_long);
    g_test_add_func("/aio-iov/untouched", test_untouched);
    g_test_add_func("/aio-iov/no-requirement", test_no_requirement);
    g_test_add_func("/aio-iov/misaligned-pair", test_pair);
    g_test_add_func("/aio-iov/padded-request", test_padded_request);
    g_test_add_func("/aio-iov/random", test_random);
    g_test_add_func("/aio-iov/bounce-in-chunks", test_bounce_in_chunks);
    g_test_add_func("/aio-iov/split", test_split);
    g_test_add_func("/aio-iov/split/concurrency", test_split_concurrency);
    g_test_add_func("/aio-iov/split/errors", test_split_errors);
    g_test_add_func("/aio-iov/failed-read", test_failed_read);
    g_test_add_func("/aio-iov/cancel", test_cancel);
    g_test_add_func("/aio-iov/cancel/sync", test_cancel_sync);
    g_test_add_func("/aio-iov/drain", test_drain);
    g_test_add_func("/aio-iov/limits-change", test_limits_change);
    g_test_add_func("/aio-iov/out-of-memory", test_out_of_memory);
    g_test_add_func("/aio-iov/no-medium", test_no_medium);
    g_test_add_func("/aio-iov/out-of-range", test_out_of_range);
    g_test_add_func("/aio-iov/iothread", test_iothread);
    g_test_add_func("/aio-iov/null-co", test_null_co);
    g_test_add_func("/aio-iov/filters", test_limits_of_filters);
    g_test_add_func("/aio-iov/blkdebug", test_blkdebug);
    g_test_add_func("/aio-iov/throttle", test_throttle);
#ifndef _WIN32
    g_test_add_func("/aio-iov/file/limits", test_file_limits);
    for (int i = 0; i < ARRAY_SIZE(file_tests); i++) {
        g_test_add_data_func(file_tests[i][4], file_tests[i], test_file);
    }
    g_test_add_func("/aio-iov/qemu-nbd", test_qemu_nbd);
    g_test_add_func("/aio-iov/nbdkit", test_nbdkit);
#endif

    return g_test_run();
}
