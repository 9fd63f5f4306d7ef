/*
 * DMA block engine, and helpers for scatter/gather lists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dma_blk_io() repeats three steps until its list is done: map what can be
 * mapped, submit it as one vectored request, unmap.  Most lists need one pass.
 * A list that wants more bounce buffer space than others leave it is done in
 * parts, and waits as a map client of its address space if there is none.
 *
 * To whoever drains the disk, to stop the machine for example, a request is in
 * flight from its first part to its callback, between its parts and while it
 * waits as well.  A drain must not wait for bounce buffers, though: who holds
 * them can be queued until the drained section ends.  So nobody waits in one;
 * what there is no space for goes through a private buffer, unit by unit.
 */

#include "qemu/osdep.h"
#include "block/aio-iov.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/block-backend.h"
#include "system/dma-map.h"
#include "system/dma.h"
#include "trace.h"

/*
 * Memory that requests give back is kept for the next ones, by thread and up to
 * this many pieces of each kind: more than a controller has commands in flight,
 * but for the deepest queues.
 */
#define DMA_CACHE_MAX 64

/*
 * The most elements of a request that goes through vectored AIO, which splits
 * it for the host: no list of AHCI is longer.  For this many, a request has
 * 1.1 MiB of memory allocated as long as it is in flight.
 */
#define DMA_BLK_MAX_ELEMENTS (64 * KiB)

/* Lists have room for this many entries at first, and keep it. */
#define DMA_SGLIST_INLINE_ENTRIES DMA_MAP_INLINE_ELEMENTS

typedef struct DMABlockAIOCB DMABlockAIOCB;

struct DMABlockAIOCB {
    BlockAIOCB common;
    AioContext *ctx;            /* everything happens here */

    QEMUSGList *sg;
    DMADirection dir;
    uint32_t align;
    uint64_t offset;            /* in bytes, of the whole request */
    BlockBackend *blk;          /* or NULL: @io_func has its own requests */
    int max_elements;           /* that @io_func takes */
    DMAIOFunc *io_func;
    void *io_func_opaque;

    DMAMapCursor cursor;        /* behind what is mapped */
    BlockAIOCB *host;           /* the part in flight, or NULL */
    QEMUBH *bh;                 /* map client, or completion, or NULL */
    bool waiting;               /* @bh is a map client */
    bool started;               /* the request is in flight, not its parts */
    bool canceled;
    Notifier drained_begin;     /* if @waiting, and @blk is not NULL */
    int64_t wait_start;         /* if @waiting, in ns, of get_clock() */
    int ret;                    /* for @bh to complete with */

    QSLIST_ENTRY(DMABlockAIOCB) next;
    DMAMap map;
};

typedef struct DMASGEntries DMASGEntries;

struct DMASGEntries {
    union {
        ScatterGatherEntry entries[DMA_SGLIST_INLINE_ENTRIES];
        QSLIST_ENTRY(DMASGEntries) next;
    };
};

typedef struct DMACache {
    QSLIST_HEAD(, DMABlockAIOCB) requests;
    QSLIST_HEAD(, DMASGEntries) sglists;
    unsigned nrequests;
    unsigned nsglists;
    Notifier thread_exit;
} DMACache;

static __thread DMACache dma_cache;

static void dma_cache_drop(Notifier *n, void *unused)
{
    DMACache *cache = container_of(n, DMACache, thread_exit);
    DMABlockAIOCB *acb;
    DMASGEntries *sg;

    while ((acb = QSLIST_FIRST(&cache->requests))) {
        QSLIST_REMOVE_HEAD(&cache->requests, next);
        g_free(acb);
    }
    while ((sg = QSLIST_FIRST(&cache->sglists))) {
        QSLIST_REMOVE_HEAD(&cache->sglists, next);
        g_free(sg);
    }
    cache->nrequests = cache->nsglists = 0;
}

static DMACache *dma_get_cache(void)
{
    DMACache *cache = &dma_cache;

    if (unlikely(!cache->thread_exit.notify)) {
        cache->thread_exit.notify = dma_cache_drop;
        qemu_thread_atexit_add(&cache->thread_exit);
    }
    return cache;
}

void qemu_sglist_init(QEMUSGList *qsg, DeviceState *dev, int alloc_hint,
                      AddressSpace *as)
{
    DMACache *cache = dma_get_cache();

    *qsg = (QEMUSGList) {
        .nalloc = MAX(alloc_hint, DMA_SGLIST_INLINE_ENTRIES),
        .dev = dev,
        .as = as,
    };
    if (qsg->nalloc == DMA_SGLIST_INLINE_ENTRIES && cache->nsglists) {
        DMASGEntries *first = QSLIST_FIRST(&cache->sglists);

        QSLIST_REMOVE_HEAD(&cache->sglists, next);
        cache->nsglists--;
        qsg->sg = first->entries;
    } else {
        qsg->sg = g_new(ScatterGatherEntry, qsg->nalloc);
    }
    object_ref(OBJECT(dev));
}

void qemu_sglist_add(QEMUSGList *qsg, dma_addr_t base, dma_addr_t len)
{
    if (unlikely(qsg->nsg == qsg->nalloc)) {
        qsg->nalloc *= 2;
        qsg->sg = g_renew(ScatterGatherEntry, qsg->sg, qsg->nalloc);
    }
    qsg->sg[qsg->nsg++] = (ScatterGatherEntry) { .base = base, .len = len };
    qsg->size += len;
}

void qemu_sglist_destroy(QEMUSGList *qsg)
{
    DMACache *cache = dma_get_cache();

    if (qsg->nalloc == DMA_SGLIST_INLINE_ENTRIES &&
        cache->nsglists < DMA_CACHE_MAX) {
        DMASGEntries *entries = (DMASGEntries *)qsg->sg;

        QSLIST_INSERT_HEAD(&cache->sglists, entries, next);
        cache->nsglists++;
    } else {
        g_free(qsg->sg);
    }
    object_unref(OBJECT(qsg->dev));
    *qsg = (QEMUSGList) { 0 };
}

static void dma_blk_bh(void *opaque);
static void dma_blk_step(DMABlockAIOCB *acb);

static void dma_blk_cancel(BlockAIOCB *common);
static void dma_blk_free(BlockAIOCB *common);

static const AIOCBInfo dma_blk_aiocb_info = {
    .aiocb_size = sizeof(DMABlockAIOCB),
    .cancel_async = dma_blk_cancel,
    .free = dma_blk_free,
};

static DMABlockAIOCB *dma_blk_new(void)
{
    DMACache *cache = dma_get_cache();
    DMABlockAIOCB *acb = QSLIST_FIRST(&cache->requests);

    if (acb) {
        QSLIST_REMOVE_HEAD(&cache->requests, next);
        cache->nrequests--;
    } else {
        acb = g_new(DMABlockAIOCB, 1);
        dma_map_init(&acb->map);
    }
    return acb;
}

static void dma_blk_free(BlockAIOCB *common)
{
    DMABlockAIOCB *acb = container_of(common, DMABlockAIOCB, common);
    DMACache *cache = dma_get_cache();

    dma_map_release(&acb->map);
    if (cache->nrequests < DMA_CACHE_MAX) {
        QSLIST_INSERT_HEAD(&cache->requests, acb, next);
        cache->nrequests++;
    } else {
        g_free(acb);
    }
}

static void dma_blk_complete(DMABlockAIOCB *acb, int ret)
{
    trace_dma_complete(acb, ret, acb->common.cb);

    assert(!acb->host && !acb->bh);
    blk_complete_guarded(acb->common.cb, acb->common.opaque, ret);
    if (acb->started) {
        blk_end_request(acb->blk);
    }
    qemu_aio_unref(acb);
}

/* From now on the parts belong to one request, which a drain waits for. */
static void dma_blk_go_on(DMABlockAIOCB *acb)
{
    if (acb->blk && !acb->started) {
        blk_continue_request(acb->blk);
        acb->started = true;
    }
}

/* A drained section begins: do not wait any longer. */
static void dma_blk_drained_begin(Notifier *notifier, void *unused)
{
    DMABlockAIOCB *acb = container_of(notifier, DMABlockAIOCB, drained_begin);

    qemu_bh_schedule(acb->bh);
}

/* Returns false in a drained section. */
static bool dma_blk_begin_wait(DMABlockAIOCB *acb)
{
    acb->bh = aio_bh_new(acb->ctx, dma_blk_bh, acb);
    acb->drained_begin.notify = dma_blk_drained_begin;
    if (acb->blk && !blk_begin_wait(acb->blk, &acb->drained_begin)) {
        qemu_bh_delete(acb->bh);
        acb->bh = NULL;
        return false;
    }
    trace_dma_map_wait(acb);
    stat64_add(&dma_stats_get(acb->sg->dev)->n.map_client_waits, 1);
    acb->waiting = true;
    acb->wait_start = get_clock();
    address_space_register_map_client(acb->sg->as, acb->bh);
    return true;
}

static void dma_blk_end_wait(DMABlockAIOCB *acb)
{
    DMACounters *n = &dma_stats_get(acb->sg->dev)->n;
    int64_t ns = get_clock() - acb->wait_start;

    address_space_unregister_map_client(acb->sg->as, acb->bh);
    if (acb->blk) {
        dma_blk_go_on(acb);
        blk_end_wait(acb->blk, &acb->drained_begin);
    }
    qemu_bh_delete(acb->bh);
    acb->bh = NULL;
    stat64_add(&n->map_client_wait_ns, ns);
    stat64_max(&n->map_client_wait_max_ns, ns);
    acb->waiting = false;
}

static void dma_blk_bh(void *opaque)
{
    DMABlockAIOCB *acb = opaque;

    if (acb->waiting) {
        dma_blk_end_wait(acb);
        dma_blk_step(acb);
    } else {
        qemu_bh_delete(acb->bh);
        acb->bh = NULL;
        dma_blk_complete(acb, acb->ret);
    }
}

static void dma_blk_host_done(void *opaque, int ret)
{
    DMABlockAIOCB *acb = opaque;
    size_t size = acb->map.qiov.size;

    trace_dma_blk_cb(acb, ret);
    assert(acb->ctx == qemu_get_current_aio_context());

    acb->host = NULL;
    acb->offset += size;
    dma_unmap(&acb->map, ret < 0 ? 0 : size);

    if (ret < 0 || acb->cursor.done == acb->sg->size) {
        dma_blk_complete(acb, ret);
    } else if (acb->canceled) {
        dma_blk_complete(acb, -ECANCELED);
    } else {
        /* Still in the callback of a part, which is in flight until it ends */
        dma_blk_go_on(acb);
        dma_blk_step(acb);
    }
}

/* Map the next part of the list and submit it, or wait until that can be. */
static void dma_blk_step(DMABlockAIOCB *acb)
{
    ssize_t n = dma_map_partial(&acb->map, acb->sg, &acb->cursor, acb->align,
                                acb->max_elements, acb->dir);

    if (n == -EAGAIN) {
        if (dma_blk_begin_wait(acb)) {
            return;
        }
        n = dma_map_partial_now(&acb->map, acb->sg, &acb->cursor, acb->align,
                                acb->max_elements, acb->dir);
    }
    if (n > 0) {
        acb->host = acb->io_func(acb->offset, &acb->map.qiov,
                                 dma_blk_host_done, acb, acb->io_func_opaque);
        assert(acb->host);
        return;
    }

    /* The caller of dma_blk_io() does not expect its callback yet. */
    acb->ret = n;
    acb->bh = aio_bh_new(acb->ctx, dma_blk_bh, acb);
    qemu_bh_schedule(acb->bh);
}

static void dma_blk_cancel(BlockAIOCB *common)
{
    DMABlockAIOCB *acb = container_of(common, DMABlockAIOCB, common);

    trace_dma_aio_cancel(acb);

    acb->canceled = true;
    if (acb->host) {
        /* What is in flight ends first; no further part is submitted. */
        blk_aio_cancel_async(acb->host);
    } else if (acb->waiting) {
        dma_blk_end_wait(acb);
        dma_blk_complete(acb, -ECANCELED);
    }
}

static BlockAIOCB *dma_blk_start(BlockBackend *blk, QEMUSGList *sg,
                                 uint64_t offset, uint32_t align,
                                 int max_elements,
                                 DMAIOFunc *io_func, void *io_func_opaque,
                                 BlockCompletionFunc *cb, void *opaque,
                                 DMADirection dir)
{
    DMABlockAIOCB *acb = dma_blk_new();

    trace_dma_blk_io(acb, io_func_opaque, offset,
                     dir == DMA_DIRECTION_TO_DEVICE);
    stat64_add(&dma_stats_get(sg->dev)->n.requests, 1);

    acb->common = (BlockAIOCB) {
        .aiocb_info = &dma_blk_aiocb_info,
        .cb = cb,
        .opaque = opaque,
        .refcnt = 1,
    };
    acb->ctx = qemu_get_current_aio_context();
    acb->sg = sg;
    acb->dir = dir;
    acb->align = align;
    acb->offset = offset;
    acb->blk = blk;
    acb->max_elements = max_elements;
    acb->io_func = io_func;
    acb->io_func_opaque = io_func_opaque;
    acb->cursor = (DMAMapCursor) { 0 };
    acb->host = NULL;
    acb->bh = NULL;
    acb->waiting = acb->started = acb->canceled = false;
    acb->ret = 0;

    if (sg->size > 0) {
        dma_blk_step(acb);
    } else {
        acb->bh = aio_bh_new(acb->ctx, dma_blk_bh, acb);
        qemu_bh_schedule(acb->bh);
    }
    return &acb->common;
}

BlockAIOCB *dma_blk_io(QEMUSGList *sg, uint64_t offset, uint32_t align,
                       DMAIOFunc *io_func, void *io_func_opaque,
                       BlockCompletionFunc *cb, void *opaque, DMADirection dir)
{
    return dma_blk_start(NULL, sg, offset, align, IOV_MAX, io_func,
                         io_func_opaque, cb, opaque, dir);
}

/* A part of a request that is in flight goes on in a drained section. */
static BdrvRequestFlags dma_blk_flags(const DMABlockAIOCB *acb)
{
    return acb->started ? BDRV_REQ_NO_QUEUE : 0;
}

static BlockAIOCB *dma_blk_preadv(int64_t offset, QEMUIOVector *qiov,
                                  BlockCompletionFunc *cb, void *cb_opaque,
                                  void *blk)
{
    return bdrv_aio_readv(blk, offset, qiov, dma_blk_flags(cb_opaque), cb,
                          cb_opaque);
}

BlockAIOCB *dma_blk_read(BlockBackend *blk, QEMUSGList *sg, uint64_t offset,
                         uint32_t align, BlockCompletionFunc *cb, void *opaque)
{
    return dma_blk_start(blk, sg, offset, align, DMA_BLK_MAX_ELEMENTS,
                         dma_blk_preadv, blk, cb, opaque,
                         DMA_DIRECTION_FROM_DEVICE);
}

static BlockAIOCB *dma_blk_pwritev(int64_t offset, QEMUIOVector *qiov,
                                   BlockCompletionFunc *cb, void *cb_opaque,
                                   void *blk)
{
    return bdrv_aio_writev(blk, offset, qiov, dma_blk_flags(cb_opaque), cb,
                           cb_opaque);
}

BlockAIOCB *dma_blk_write(BlockBackend *blk, QEMUSGList *sg, uint64_t offset,
                          uint32_t align, BlockCompletionFunc *cb, void *opaque)
{
    return dma_blk_start(blk, sg, offset, align, DMA_BLK_MAX_ELEMENTS,
                         dma_blk_pwritev, blk, cb, opaque,
                         DMA_DIRECTION_TO_DEVICE);
}

/*
 * Move up to @len bytes between @buf and the beginning of the list.  Sets
 * *@residual to how much of the list was not used.
 */
static MemTxResult dma_buf_rw(QEMUSGList *sg, DMADirection dir, uint8_t *buf,
                              dma_addr_t len, dma_addr_t *residual,
                              MemTxAttrs attrs)
{
    const ScatterGatherEntry *entry = sg->sg;
    dma_addr_t left = MIN(len, sg->size);
    MemTxResult result = MEMTX_OK;

    if (residual) {
        *residual = sg->size - left;
    }
    for (; left > 0; entry++) {
        dma_addr_t n = MIN(left, entry->len);

        result |= dma_memory_rw(sg->as, entry->base, buf, n, dir, attrs);
        buf += n;
        left -= n;
    }
    return result;
}

MemTxResult dma_buf_write(void *buf, dma_addr_t len, dma_addr_t *residual,
                          QEMUSGList *sg, MemTxAttrs attrs)
{
    return dma_buf_rw(sg, DMA_DIRECTION_TO_DEVICE, buf, len, residual, attrs);
}

MemTxResult dma_buf_read(void *buf, dma_addr_t len, dma_addr_t *residual,
                         QEMUSGList *sg, MemTxAttrs attrs)
{
    return dma_buf_rw(sg, DMA_DIRECTION_FROM_DEVICE, buf, len, residual, attrs);
}

MemTxResult dma_memory_set(AddressSpace *as, dma_addr_t addr, uint8_t c,
                           dma_addr_t len, MemTxAttrs attrs)
{
    dma_barrier(as, DMA_DIRECTION_FROM_DEVICE);
    return address_space_set(as, addr, c, len, attrs);
}

void dma_acct_start(BlockBackend *blk, BlockAcctCookie *cookie,
                    QEMUSGList *sg, enum BlockAcctType type)
{
    BlockAcctStats *stats = blk_get_stats(blk);

    block_acct_start(stats, cookie, sg->size, type);
}

uint64_t dma_aligned_pow2_mask(uint64_t start, uint64_t end, int max_addr_bits)
{
    uint64_t bus_mask = MAKE_64BIT_MASK(0, max_addr_bits);
    uint64_t span = end - start;        /* size - 1: all of 2^64 fits */
    uint64_t align_mask = start ? (start & -start) - 1 : UINT64_MAX;
    uint64_t size_mask;

    /* The largest 2^n - 1 that is not larger than @span */
    size_mask = span == UINT64_MAX ? UINT64_MAX : pow2floor(span + 1) - 1;
    return MIN(MIN(align_mask, bus_mask), size_mask);
}
