/*
 * DMA mapper and engine, on a model of an address space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The qtests run the same code on QEMU's own memory.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-iov.h"
#include "dma-map-model.h"
#include "iothread.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qobject/qdict.h"
#include "qom/object.h"
#include "system/block-backend.h"
#include "system/cpu-timers.h"
#include "system/dma.h"

/* Tests of the mapper */

static void test_cursor(void)
{
    DMAMapCursor c = {};

    list_reset();
    list_add(0, 10);
    list_add(100, 0);
    list_add(200, 20);
    list_add(300, 0);

    dma_map_cursor_advance(&c, &list.sg, 4);
    g_assert(c.index == 0 && c.offset == 4 && c.done == 4);
    dma_map_cursor_advance(&c, &list.sg, 6);
    g_assert(c.index == 2 && c.offset == 0 && c.done == 10);
    dma_map_cursor_advance(&c, &list.sg, 19);
    g_assert(c.index == 2 && c.offset == 19 && c.done == 29);
    dma_map_cursor_advance(&c, &list.sg, 1);
    g_assert(c.index == 4 && c.offset == 0 && c.done == 30);
}

static void test_join(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    list_add(0x100, 0x100);
    list_add(0x200, 0x80);
    list_add(0x280, 0);
    list_add(0x280, 0x180);
    list_add(0x300, 0x100);     /* backwards: not joined */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 0x400);
    g_assert_cmpint(map->qiov.niov, ==, 2);
    g_assert(map->qiov.iov[0].iov_base == regions[0].mem + 0x100);
    g_assert_cmpuint(map->qiov.iov[0].iov_len, ==, 0x300);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_top_of_address_space(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    list_add(HWADDR_MAX - 0xff, 0x100);
    list_add(0, 0x100);                 /* not what comes next on the bus */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 0x200);
    g_assert_cmpint(map->qiov.niov, ==, 2);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_one_lookup_per_section(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    /* Alternates between two regions, from the top down. */
    for (int i = 15; i >= 0; i--) {
        list_add(0x2000 + i * 0x80, 0x40);
        list_add(i * 0x80, 0x40);
    }
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    32 * 0x40);
    g_assert_cmpint(map->qiov.niov, ==, 32);
    g_assert_cmpint(find_region(0)->lookups, ==, 1);
    g_assert_cmpint(find_region(0)->refs, ==, 1);
    g_assert_cmpint(find_region(0x2000)->lookups, ==, 1);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_more_sections_than_remembered(void)
{
    static const hwaddr ram[] = {
        0, 0x1800, 0x2000, 0x3000, 0x3200, HWADDR_MAX - 0xfff
    };
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    QEMU_BUILD_BUG_ON(ARRAY_SIZE(ram) <= DMA_MAP_MAX_SECTIONS);
    model_reset(0);
    list_reset();
    for (int i = 0; i < 4 * ARRAY_SIZE(ram); i++) {
        list_add(ram[i % ARRAY_SIZE(ram)] + i * 8, 8);
    }
    g_assert_cmpint(map_some(map, &c, 1, DMA_DIRECTION_FROM_DEVICE), ==,
                    list.sg.size);
    for (int i = 0; i < list.sg.nsg; i++) {
        g_assert(map->qiov.iov[i].iov_base == model_byte(list.entries[i].base));
    }
    dma_unmap(map, SIZE_MAX);
    for (int i = 0; i < list.sg.nsg; i++) {
        Region *r = find_region(list.entries[i].base);

        g_assert_cmpint(r->dirty[list.entries[i].base - r->base], ==, 1);
    }
    assert_nothing_mapped();
    map_free(map);
}

static void test_cut_is_unmapped_at_once(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(700);
    list_reset();
    list_add(0, 100);
    list_add(0x1000, 0x800);    /* 700 of them fit into the pool */
    list_add(0x800, 0x400);

    /* 100 + 700, cut to a multiple of 512: 412 bytes of MMIO */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert_cmpuint(model_as.bounce_buffer_size, ==, 412);
    g_assert(c.index == 1 && c.offset == 412 && c.done == 512);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();

    /* then 1536 - 412 bytes of MMIO remain, in pieces of 512 */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert(c.index == 1 && c.offset == 924 && c.done == 1024);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_wait_or_private_buffer(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    list_reset();
    list_add(0x1000, 512);

    /* Nobody can ever free space: no waiting. */
    model_reset(0);
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert(memcmp(map->qiov.iov[0].iov_base, regions[1].mem, 512) == 0);
    dma_unmap(map, SIZE_MAX);

    model_reset(511);
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();

    /* Others hold all of it. */
    model_reset(512);
    model_as.bounce_buffer_size = 512;
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==,
                    -EAGAIN);
    g_assert(c.index == 0 && c.offset == 0 && c.done == 0);

    /* Others hold a part: a map client would be called again and again. */
    model_as.bounce_buffer_size = 1;
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    dma_unmap(map, SIZE_MAX);
    model_as.bounce_buffer_size = 0;
    assert_nothing_mapped();
    map_free(map);
}

static void test_failed_read(void)
{
    static const size_t pools[] = { 0, 4096 };
    DMAMap *map = map_new();

    for (int i = 0; i < ARRAY_SIZE(pools); i++) {
        DMAMapCursor c = {};
        g_autofree uint8_t *before = NULL;

        model_reset(pools[i]);
        before = g_memdup2(regions[1].mem, 0x800);
        list_reset();
        list_add(0x100, 256);
        list_add(0x1000, 256);
        g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                        512);
        for (int j = 0; j < map->qiov.niov; j++) {
            memset(map->qiov.iov[j].iov_base, 0xee, map->qiov.iov[j].iov_len);
        }
        dma_unmap(map, 0);
        g_assert(memcmp(before, regions[1].mem, 0x800) == 0);
        /* RAM that was mapped itself may have been written. */
        if (pools[i]) {
            g_assert_cmpint(regions[0].dirty[0x100], ==, 1);
            g_assert_cmpint(regions[0].dirty[0x1ff], ==, 1);
        }
        g_assert_cmpint(regions[0].dirty[0xff], ==, 0);
        g_assert_cmpint(regions[0].dirty[0x200], ==, 0);
        assert_nothing_mapped();
    }
    map_free(map);
}

static void test_short_transfer(void)
{
    DMAMap *map = map_new();
    uint8_t old;

    model_reset(4096);
    old = regions[1].mem[100];
    list_reset();
    list_add(0x100, 156);
    list_add(0x1000, 512);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_FROM_DEVICE),
                    ==, 0);
    for (int i = 0; i < map->qiov.niov; i++) {
        memset(map->qiov.iov[i].iov_base, 0xee, map->qiov.iov[i].iov_len);
    }
    dma_unmap(map, 256);
    g_assert_cmphex(regions[1].mem[99], ==, 0xee);
    g_assert_cmphex(regions[1].mem[100], ==, old);
    assert_nothing_mapped();
    map_free(map);
}

static void test_whole(void)
{
    DMAMap *map = map_new();

    model_reset(512);
    list_reset();
    for (int i = 0; i < 200; i++) {
        list_add(i * 16, 8);
    }
    g_assert_cmpint(dma_map_whole(map, &list.sg, 200, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    g_assert_cmpint(map->qiov.niov, ==, 200);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 199, DMA_DIRECTION_TO_DEVICE),
                    ==, -E2BIG);
    assert_nothing_mapped();

    list_add(0x1000, 512);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 999, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    dma_unmap(map, SIZE_MAX);
    list_add(0x1400, 1);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 999, DMA_DIRECTION_TO_DEVICE),
                    ==, -ENOBUFS);
    g_assert_cmpint(map->qiov.niov, ==, 0);
    assert_nothing_mapped();
    map_free(map);
}

static void test_icount_overlap(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    use_icount = ICOUNT_PRECISE;
    list_reset();
    list_add(0x000, 0x200);
    list_add(0x400, 0x200);
    list_add(0x100, 0x200);     /* overlaps the first */
    list_add(0x800, 0x100);
    list_add(0x880, 0x100);     /* overlaps within a sector */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x400);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x200);
    dma_unmap(map, SIZE_MAX);
    /* Not even a sector: in order through the private buffer. */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x200);
    g_assert_cmpint(map->qiov.niov, ==, 1);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpuint(c.done, ==, list.sg.size);

    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_FROM_DEVICE),
                    ==, -ENOBUFS);
    /* What the device reads cannot depend on the order. */
    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    dma_unmap(map, 0);
    use_icount = ICOUNT_DISABLED;
    assert_nothing_mapped();
    map_free(map);
}

static void test_more_than_iov_max(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};
    Stat64 *bounced =
        &dma_stats_get(NULL)->n.bytes_bounced[DMA_BOUNCE_REASON_ELEMENTS];
    uint64_t before = stat64_get(bounced);
    int parts = 0;

    model_reset(4096);
    list_reset();
    for (int i = 0; i < 4096; i++) {
        list_add((i * 7 % 1000) * 2, 1);
    }
    while (c.done < list.sg.size) {
        g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==,
                        1024);
        dma_unmap(map, SIZE_MAX);
        parts++;
    }
    g_assert_cmpint(parts, ==, 4);

    /* IOV_MAX elements do not reach one aligned unit. */
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 4096, DMA_DIRECTION_TO_DEVICE), ==, 4096);
    g_assert_cmpint(map->qiov.niov, ==, 1);
    for (int i = 0; i < 4096; i++) {
        g_assert_cmphex(((uint8_t *)map->qiov.iov[0].iov_base)[i], ==,
                        regions[0].mem[(i * 7 % 1000) * 2]);
    }
    g_assert_cmpuint(stat64_get(bounced), ==, before + 4096);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_random(const void *opaque)
{
    const DMADirection dir = GPOINTER_TO_INT(opaque);
    g_autofree uint8_t *disk = g_malloc(MAP_ANY_MAX);
    DMAMap *map = map_new();
    Choices c = {};

    for (int i = 0; i < MAP_ANY_MAX; i++) {
        disk[i] = g_test_rand_int();
    }
    for (int i = 0; i < 20000; i++) {
        map_any(&c, map, dir, disk);
    }
    map_free(map);
}

/* Tests of the engine: what it submits, and how it ends */

typedef struct Host {
    BlockAIOCB *acb;
    BlockCompletionFunc *cb;
    void *opaque;
    QEMUIOVector *qiov;
    int64_t offset;
    int submitted;
} Host;

static Host host;
static int completions;
static int completed_with;

static void host_cancel(BlockAIOCB *acb)
{
}

static const AIOCBInfo host_aiocb_info = {
    .aiocb_size = sizeof(BlockAIOCB),
    .cancel_async = host_cancel,
};

static BlockAIOCB *host_submit(int64_t offset, QEMUIOVector *qiov,
                               BlockCompletionFunc *cb, void *cb_opaque,
                               void *opaque)
{
    g_assert(!host.acb);
    host = (Host) {
        .acb = qemu_aio_get(&host_aiocb_info, NULL, cb, cb_opaque),
        .cb = cb,
        .opaque = cb_opaque,
        .qiov = qiov,
        .offset = offset,
        .submitted = host.submitted + 1,
    };
    return host.acb;
}

static void host_complete(int ret)
{
    BlockAIOCB *acb = host.acb;

    host.acb = NULL;
    host.cb(host.opaque, ret);
    qemu_aio_unref(acb);
}

static void completed(void *opaque, int ret)
{
    completions++;
    completed_with = ret;
}

static BlockAIOCB *start(uint64_t offset, DMADirection dir)
{
    host.submitted = completions = 0;
    return dma_blk_io(&list.sg, offset, 512, host_submit, NULL, completed, NULL,
                      dir);
}

static void poll_until_completed(void)
{
    while (!completions) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void test_engine_parts(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 1024);
    list_add(0, 512);

    start(4096, DMA_DIRECTION_TO_DEVICE);
    g_assert_cmpint(host.offset, ==, 4096);
    g_assert_cmpuint(host.qiov->size, ==, 512);
    host_complete(0);
    g_assert_cmpint(host.offset, ==, 4608);
    g_assert_cmpuint(host.qiov->size, ==, 1024);
    g_assert_cmpint(completions, ==, 0);
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, 0);
    g_assert_cmpint(host.submitted, ==, 2);
    assert_nothing_mapped();
}

static void test_engine_error_in_part(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 2048);

    start(0, DMA_DIRECTION_FROM_DEVICE);
    host_complete(0);
    host_complete(-EIO);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -EIO);
    g_assert_cmpint(host.submitted, ==, 2);
    assert_nothing_mapped();
}

static void test_engine_empty_list(void)
{
    model_reset(512);
    list_reset();
    start(0, DMA_DIRECTION_FROM_DEVICE);
    g_assert_cmpint(completions, ==, 0);
    poll_until_completed();
    g_assert_cmpint(completed_with, ==, 0);
    g_assert_cmpint(host.submitted, ==, 0);
}

static void test_engine_wait(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 512);

    model_as.bounce_buffer_size = 512;
    start(0, DMA_DIRECTION_FROM_DEVICE);
    g_assert_cmpint(host.submitted, ==, 0);
    g_assert(map_client);
    model_as.bounce_buffer_size = 0;
    notify_map_client();
    while (!host.submitted) {
        aio_poll(qemu_get_aio_context(), true);
    }
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, 0);
    assert_nothing_mapped();
}

static void test_engine_cancel_waiting(const void *opaque)
{
    const bool notified = GPOINTER_TO_INT(opaque);
    BlockAIOCB *acb;

    model_reset(512);
    list_reset();
    list_add(0x1000, 512);

    model_as.bounce_buffer_size = 512;
    acb = start(0, DMA_DIRECTION_FROM_DEVICE);
    model_as.bounce_buffer_size = 0;
    if (notified) {
        notify_map_client();
    }
    bdrv_aio_cancel_async(acb);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -ECANCELED);
    g_assert(!map_client);
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* whatever is left must not touch the request */
    }
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(host.submitted, ==, 0);
    assert_nothing_mapped();
}

static BlockBackend *null_backend(void)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_str(options, "read-zeroes", "on");
    return blk_new_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
}

typedef struct ThreadRequest {
    BlockBackend *blk;
    bool submitted;             /* atomic */
    bool done;                  /* atomic */
    int ret;
} ThreadRequest;

static void thread_done(void *opaque, int ret)
{
    ThreadRequest *r = opaque;

    r->ret = ret;
    qatomic_store_release(&r->done, true);
    aio_wait_kick();
}

static void thread_submit(void *opaque)
{
    ThreadRequest *r = opaque;

    dma_blk_read(r->blk, &list.sg, 0, 512, thread_done, r);
    qatomic_store_release(&r->submitted, true);
    aio_wait_kick();
}

/*
 * A drained section begins in the main thread before, while, or after a request
 * of an IOThread begins to wait.
 */
static void test_engine_drain_iothread(void)
{
    IOThread *iothread;
    AioContext *ctx;
    BlockBackend *blk;

    model_reset(512);
    list_reset();
    list_add(0x1000, 1024);
    /* Somebody has it, and gives nothing back */
    model_as.bounce_buffer_size = 512;

    blk = null_backend();
    iothread = iothread_new();
    ctx = iothread_get_aio_context(iothread);
    blk_set_aio_context(blk, ctx, &error_abort);

    for (int i = 0; i < 200; i++) {
        ThreadRequest r = { .blk = blk };

        memset(model_byte(0x1000), 0xff, 1024);
        aio_bh_schedule_oneshot(ctx, thread_submit, &r);
        if (i % 2) {
            blk_drain(blk);
        }
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(&r.submitted));
        blk_drain(blk);
        g_assert(qatomic_load_acquire(&r.done));
        g_assert_cmpint(r.ret, ==, 0);
        g_assert(!map_client);
        g_assert(buffer_is_zero(model_byte(0x1000), 1024));
    }

    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    blk_unref(blk);
    iothread_join(iothread);
    model_as.bounce_buffer_size = 0;
    assert_nothing_mapped();
}

/* A thread that has one request after the other */
typedef struct ThreadLoad {
    BlockBackend *blk;
    hwaddr base;                /* of RAM that is the thread's own */
    QEMUSGList sg;
    int left;
    bool done;                  /* atomic */
} ThreadLoad;

#define LOAD_REQUESTS 300

static void load_next(void *opaque);

static void load_done(void *opaque, int ret)
{
    ThreadLoad *load = opaque;

    g_assert_cmpint(ret, ==, 0);
    qemu_sglist_destroy(&load->sg);
    if (--load->left) {
        load_next(load);
    } else {
        qatomic_store_release(&load->done, true);
        aio_wait_kick();
    }
}

static void load_next(void *opaque)
{
    ThreadLoad *load = opaque;
    /* Every other request has too many elements for the host */
    int n = load->left % 2 ? 1 : 2 * IOV_MAX;

    qemu_sglist_init(&load->sg, NULL, 1, &model_as);
    while (n--) {
        qemu_sglist_add(&load->sg, load->base + n % 2 * 600, 512);
    }
    dma_blk_read(load->blk, &load->sg, 0, 512, load_done, load);
}

static void total_requests(DMAStats *stats, void *opaque)
{
    *(uint64_t *)opaque += stat64_get(&stats->n.requests);
}

/* Two threads have requests on one backend, while the main thread looks on. */
static void test_engine_iothreads(void)
{
    IOThread *iothread[2];
    ThreadLoad load[2] = {
        { .base = 0x0000, .left = LOAD_REQUESTS },
        { .base = 0x2000, .left = LOAD_REQUESTS },
    };
    BlockBackend *blk = null_backend();
    const BdrvIovStats *stats = blk_get_iov_stats(blk);
    uint64_t before = 0, after = 0;

    model_reset(512);
    dma_stats_foreach(total_requests, &before);
    for (int i = 0; i < 2; i++) {
        load[i].blk = blk;
        iothread[i] = iothread_new();
    }
    for (int i = 0; i < 2; i++) {
        aio_bh_schedule_oneshot(iothread_get_aio_context(iothread[i]),
                                load_next, &load[i]);
    }
    while (!qatomic_load_acquire(&load[0].done) ||
           !qatomic_load_acquire(&load[1].done)) {
        after = 0;
        dma_stats_foreach(total_requests, &after);
        g_assert_cmpuint(after - before, <=, 2 * LOAD_REQUESTS);
        aio_poll(qemu_get_aio_context(), false);
        blk_drain(blk);
    }
    for (int i = 0; i < 2; i++) {
        iothread_join(iothread[i]);
    }

    after = 0;
    dma_stats_foreach(total_requests, &after);
    g_assert_cmpuint(after - before, ==, 2 * LOAD_REQUESTS);
    g_assert_cmpuint(stat64_get(&stats->requests_untouched), ==, LOAD_REQUESTS);
    g_assert_cmpuint(stat64_get(&stats->requests_split), ==, LOAD_REQUESTS);
    blk_unref(blk);
    assert_nothing_mapped();
}

static void test_engine_cancel_in_flight(void)
{
    BlockAIOCB *acb;

    model_reset(512);
    list_reset();
    list_add(0x1000, 1024);

    /* What is in flight ends, and is the last. */
    acb = start(0, DMA_DIRECTION_TO_DEVICE);
    bdrv_aio_cancel_async(acb);
    g_assert_cmpint(completions, ==, 0);
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -ECANCELED);
    g_assert_cmpint(host.submitted, ==, 1);
    assert_nothing_mapped();

    /* If nothing remains to be done, the request has not been canceled. */
    list_reset();
    list_add(0x1000, 512);
    acb = start(0, DMA_DIRECTION_TO_DEVICE);
    bdrv_aio_cancel_async(acb);
    host_complete(0);
    g_assert_cmpint(completed_with, ==, 0);
    assert_nothing_mapped();
}

/* Tests of the helpers for lists */

#define TYPE_LIST_OWNER "test-dma-list-owner"

static const TypeInfo list_owner_info = {
    .name = TYPE_LIST_OWNER,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(Object),
};

static void test_sglist(void)
{
    QEMUSGList sg;

    for (int n = 0; n < 1000; n = n * 2 + 1) {
        Object *dev = object_new(TYPE_LIST_OWNER);

        qemu_sglist_init(&sg, (DeviceState *)dev, n / 2, &model_as);
        g_assert_cmpint(dev->ref, ==, 2);
        for (int i = 0; i < n; i++) {
            qemu_sglist_add(&sg, i * 8, i);
        }
        g_assert_cmpint(sg.nsg, ==, n);
        g_assert_cmpuint(sg.size, ==, n * (n - 1) / 2);
        for (int i = 0; i < n; i++) {
            g_assert_cmpuint(sg.sg[i].base, ==, i * 8);
            g_assert_cmpuint(sg.sg[i].len, ==, i);
        }
        qemu_sglist_destroy(&sg);
        g_assert_cmpint(dev->ref, ==, 1);
        g_assert(!sg.sg && !sg.nsg && !sg.size);
        /* Again, as device models do after an error */
        sg.dev = NULL;
        qemu_sglist_destroy(&sg);
        object_unref(dev);
    }
}

static void test_dma_buf(void)
{
    uint8_t buf[300];
    dma_addr_t residual;

    model_reset(0);
    list_reset();
    list_add(0x10, 100);
    list_add(0x800, 0);
    list_add(0x1000, 100);

    dma_buf_write(buf, 150, &residual, &list.sg, MEMTXATTRS_UNSPECIFIED);
    g_assert_cmpuint(residual, ==, 50);
    g_assert(memcmp(buf, regions[0].mem + 0x10, 100) == 0);
    g_assert(memcmp(buf + 100, regions[1].mem, 50) == 0);

    memset(buf, 0x77, sizeof(buf));
    dma_buf_read(buf, 300, &residual, &list.sg, MEMTXATTRS_UNSPECIFIED);
    g_assert_cmpuint(residual, ==, 0);
    g_assert_cmphex(regions[0].mem[0x10 + 99], ==, 0x77);
    g_assert_cmphex(regions[0].mem[0x10 + 100], !=, 0x77);
    g_assert_cmphex(regions[1].mem[99], ==, 0x77);
    g_assert_cmphex(regions[1].mem[100], !=, 0x77);
    dma_buf_read(buf, 0, NULL, &list.sg, MEMTXATTRS_UNSPECIFIED);
}

/* By its definition: the largest aligned power of two that fits */
static uint64_t slow_pow2_mask(uint64_t start, uint64_t end, int bits)
{
    uint64_t mask = 0;

    for (int i = 1; i <= bits; i++) {
        uint64_t m = MAKE_64BIT_MASK(0, i);

        if ((start & m) == 0 && end - start >= m) {
            mask = m;
        }
    }
    return mask;
}

static void test_aligned_pow2_mask(void)
{
    static const uint64_t ends[] = { 0, 1, 2, 3, 0xfff, 0x1000, 0x1001,
                                     UINT32_MAX, 1ull << 32, 3ull << 40,
                                     1ull << 63, UINT64_MAX - 1, UINT64_MAX };

    for (int i = 0; i < ARRAY_SIZE(ends); i++) {
        for (int j = i; j < ARRAY_SIZE(ends); j++) {
            for (int bits = 12; bits <= 64; bits += 4) {
                g_assert_cmphex(dma_aligned_pow2_mask(ends[i], ends[j], bits),
                                ==, slow_pow2_mask(ends[i], ends[j], bits));
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    module_call_init(MODULE_INIT_QOM);
    type_register_static(&list_owner_info);

    g_test_add_func("/dma-map/cursor", test_cursor);
    g_test_add_func("/dma-map/join", test_join);
    g_test_add_func("/dma-map/top-of-address-space", test_top_of_address_space);
    g_test_add_func("/dma-map/one-lookup-per-section",
                    test_one_lookup_per_section);
    g_test_add_func("/dma-map/more-sections-than-remembered",
                    test_more_sections_than_remembered);
    g_test_add_func("/dma-map/cut-is-unmapped-at-once",
                    test_cut_is_unmapped_at_once);
    g_test_add_func("/dma-map/wait-or-private-buffer",
                    test_wait_or_private_buffer);
    g_test_add_func("/dma-map/failed-read", test_failed_read);
    g_test_add_func("/dma-map/short-transfer", test_short_transfer);
    g_test_add_func("/dma-map/whole", test_whole);
    g_test_add_func("/dma-map/icount-overlap", test_icount_overlap);
    g_test_add_func("/dma-map/more-than-iov-max", test_more_than_iov_max);
    g_test_add_data_func("/dma-map/random/from-device",
                         GINT_TO_POINTER(DMA_DIRECTION_FROM_DEVICE),
                         test_random);
    g_test_add_data_func("/dma-map/random/to-device",
                         GINT_TO_POINTER(DMA_DIRECTION_TO_DEVICE), test_random);

    g_test_add_func("/dma-engine/parts", test_engine_parts);
    g_test_add_func("/dma-engine/error-in-part", test_engine_error_in_part);
    g_test_add_func("/dma-engine/empty-list", test_engine_empty_list);
    g_test_add_func("/dma-engine/wait", test_engine_wait);
    g_test_add_data_func("/dma-engine/cancel-waiting", GINT_TO_POINTER(false),
                         test_engine_cancel_waiting);
    g_test_add_data_func("/dma-engine/cancel-notified", GINT_TO_POINTER(true),
                         test_engine_cancel_waiting);
    g_test_add_func("/dma-engine/drain/iothread", test_engine_drain_iothread);
    g_test_add_func("/dma-engine/iothreads", test_engine_iothreads);
    g_test_add_func("/dma-engine/cancel-in-flight",
                    test_engine_cancel_in_flight);

    g_test_add_func("/dma-helpers/sglist", test_sglist);
    g_test_add_func("/dma-helpers/dma-buf", test_dma_buf);
    g_test_add_func("/dma-helpers/aligned-pow2-mask", test_aligned_pow2_mask);
    return g_test_run();
}
