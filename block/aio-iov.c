/*
 * Vectored AIO: any vector, made legal for the host with the least copying
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Think of a request in blocks of the length alignment:
 *
 *     blocks   |       |       |       |       |       |       |
 *     vector   |AAAAAAAAAA|BBBBB|CCCCCCCCCCCCCCCCCCCCCCCCCCCCCC|
 *     request  |AAAAAAA|bounced        |CCCCCCCCCCCCCCCCCCCCCCC|
 *
 * An element of the host request consists of whole blocks, so the blocks that
 * two of A, B and C share must be bounced, but no more of A.  The rest of C can
 * be direct if there is a block in it whose address is a multiple of the memory
 * alignment; it is direct from there on, and bounced up to there.  No plan
 * bounces less: see bdrv_iov_run().
 *
 * Requests that need more than one host request are split at multiples of the
 * node's alignment.  The parts of a request do not overlap on the node, thus
 * they can run concurrently, for writes as well: they are tasks of an
 * AioTaskPool.  Those that bounce share one buffer, and wait for room in it.
 */

#include "qemu/osdep.h"
#include "block/aio-iov-int.h"
#include "block/aio_task.h"
#include "block/block_int-common.h"
#include "qemu/coroutine-tls.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "system/block-backend.h"
#include "system/replay.h"
#include "trace.h"

BdrvIovStats bdrv_iov_stats_gone;

#define BDRV_IOV_N_COUNTERS (sizeof(BdrvIovStats) / sizeof(Stat64))

void bdrv_iov_stats_add(BdrvIovStats *to, const BdrvIovStats *from)
{
    for (int i = 0; i < BDRV_IOV_N_COUNTERS; i++) {
        stat64_add((Stat64 *)to + i, stat64_get((const Stat64 *)from + i));
    }
}

void bdrv_iov_stats_total(BdrvIovStats *total)
{
    BlockBackend *blk = NULL;

    GLOBAL_STATE_CODE();

    *total = bdrv_iov_stats_gone;
    while ((blk = blk_all_next(blk))) {
        bdrv_iov_stats_add(total, blk_get_iov_stats(blk));
    }
}

void bdrv_iov_stats_reset(void)
{
    BdrvIovStats *stats = &bdrv_iov_stats_gone;
    BlockBackend *blk = NULL;

    GLOBAL_STATE_CODE();

    do {
        for (int i = 0; i < BDRV_IOV_N_COUNTERS; i++) {
            stat64_set((Stat64 *)stats + i, 0);
        }
        blk = blk_all_next(blk);
        stats = blk ? blk_get_iov_stats(blk) : NULL;
    } while (stats);
}

/* The plan */

static void bdrv_iov_advance(const QEMUIOVector *src, BdrvIovCursor *cursor,
                             size_t bytes)
{
    bytes += cursor->offset;
    while (cursor->index < src->niov &&
           bytes >= src->iov[cursor->index].iov_len) {
        bytes -= src->iov[cursor->index++].iov_len;
    }
    assert(cursor->index < src->niov || bytes == 0);
    cursor->offset = bytes;
}

/*
 * The memory at @cursor: its address, and how far it goes on without a gap, but
 * there is no need to look further than @enough.
 */
static size_t bdrv_iov_extent(const QEMUIOVector *src,
                              const BdrvIovCursor *cursor, size_t enough,
                              void **base)
{
    const struct iovec *v = &src->iov[cursor->index];
    const struct iovec *end = &src->iov[src->niov];
    size_t len = v->iov_len - cursor->offset;

    *base = v->iov_base + cursor->offset;
    while (len < enough && ++v < end &&
           (v->iov_base == *base + len || v->iov_len == 0)) {
        len += v->iov_len;
    }
    return len;
}

/*
 * The next element of a plan.  If it is bounced, *@base is NULL and the length
 * is not more than @max_bounce, which is a multiple of the length alignment.
 *
 * A block that lies in two extents must be bounced, since no element can
 * contain it.  So must a block before the first one of its extent that has a
 * legal address: an element that contains it would have to begin there or
 * earlier.  All other blocks are direct; this is why the plan is minimal.
 */
static size_t bdrv_iov_run(const QEMUIOVector *src, BdrvIovCursor *cursor,
                           const BdrvIovLimits *limits, size_t max_bounce,
                           void **base)
{
    BdrvIovCursor pos = *cursor;
    size_t bounced = 0;
    size_t skip, len;

    while (true) {
        len = bdrv_iov_extent(src, &pos, limits->len_align, base);
        skip = -(uintptr_t)*base & (limits->mem_align - 1);
        if (skip % limits->len_align == 0) {
            len = bdrv_iov_extent(src, &pos, skip + limits->len_align, base);
            if (len >= skip + limits->len_align) {
                /* Here is a block that can be direct. */
                bounced += skip;
                break;
            }
        }
        len = bdrv_iov_extent(src, &pos, max_bounce - bounced, base);
        len = QEMU_ALIGN_UP(len, limits->len_align);
        bounced += len;
        if (bounced >= max_bounce) {
            break;
        }
        bdrv_iov_advance(src, &pos, len);
        if (pos.index == src->niov) {
            break;
        }
    }

    if (bounced) {
        *base = NULL;
        len = MIN(bounced, max_bounce);
    } else {
        len = bdrv_iov_extent(src, &pos, SIZE_MAX, base);
        len = QEMU_ALIGN_DOWN(len, limits->len_align);
    }
    bdrv_iov_advance(src, cursor, len);
    return len;
}

/* Cut the plan off at @size bytes. */
static void bdrv_iov_plan_truncate(BdrvIovPlan *plan, size_t size)
{
    while (plan->size > size) {
        struct iovec *last = &plan->iov[plan->niov - 1];
        size_t n = MIN(last->iov_len, plan->size - size);

        last->iov_len -= n;
        plan->size -= n;
        plan->bounced -= last->iov_base ? 0 : n;
        plan->niov -= last->iov_len == 0;
    }
}

size_t bdrv_iov_plan(BdrvIovPlan *plan, const BdrvIovLimits *limits,
                     const QEMUIOVector *src, BdrvIovCursor *cursor,
                     int64_t offset, size_t remaining)
{
    size_t room = limits->max_bounce;
    BdrvIovCursor pos;

    assert(QEMU_IS_ALIGNED(offset | remaining, limits->len_align));
    plan->niov = 0;
    plan->size = plan->bounced = 0;
    plan->too_many = false;

    /* Elements without any bytes must not be taken for extents. */
    bdrv_iov_advance(src, cursor, 0);
    pos = *cursor;

    while (plan->size < remaining && plan->niov < limits->max_iov) {
        void *base;
        size_t len = bdrv_iov_run(src, &pos, limits,
                                  QEMU_ALIGN_DOWN(room, limits->len_align),
                                  &base);

        if (len == 0) {
            break;
        }
        plan->iov[plan->niov++] = (struct iovec) { base, len };
        plan->size += len;
        if (!base) {
            plan->bounced += len;
            room -= MIN(room, QEMU_ALIGN_UP(len, limits->mem_align));
        }
    }

    if (plan->size < remaining) {
        int64_t end = QEMU_ALIGN_DOWN(offset + plan->size, limits->split_align);

        bdrv_iov_plan_truncate(plan, MAX(end, offset) - offset);
        if (plan->size == 0) {
            /* Too many elements before the first place to split: bounce them */
            size_t len;

            end = QEMU_ALIGN_UP(offset + 1, limits->split_align);
            len = MIN(end - offset, remaining);
            if (len <= limits->max_bounce) {
                plan->iov[0] = (struct iovec) { NULL, len };
                plan->niov = 1;
                plan->size = plan->bounced = len;
                plan->too_many = true;
            }
        }
    }
    bdrv_iov_advance(src, cursor, plan->size);

    plan->bounce_size = 0;
    for (int i = 0; plan->bounced && i < plan->niov; i++) {
        if (!plan->iov[i].iov_base) {
            plan->bounce_size += QEMU_ALIGN_UP(plan->iov[i].iov_len,
                                               limits->mem_align);
        }
    }
    return plan->size;
}

/* Memory that requests give back, kept for the next ones of the thread */

/* Requests with as many elements as this need no memory for their plan. */
#define BDRV_IOV_INLINE_ELEMENTS 64

#define BDRV_IOV_CACHED_REQUESTS 64

/*
 * Most requests bounce a few blocks.  If the buffer of a guest is not aligned
 * at all, however, whole requests do: of 128 KiB, mostly, and as many as the
 * controller has tags.  Those that need all of BDRV_IOV_MAX_BOUNCE are few.
 */
static const struct {
    size_t size;
    unsigned max_cached;
} bounce_class[] = {
    { 64 * KiB, 16 },
    { 256 * KiB, 32 },
    { BDRV_IOV_MAX_BOUNCE, 4 },
};

typedef struct BdrvIovBounce BdrvIovBounce;
typedef struct BdrvIovAIOCB BdrvIovAIOCB;

/* The beginning of a bounce buffer that nobody uses */
struct BdrvIovBounce {
    QSLIST_ENTRY(BdrvIovBounce) next;
};

/* One host request */
typedef struct BdrvIovPart {
    AioTask task;
    BdrvIovAIOCB *acb;
    int64_t offset;             /* in bytes, on the backend */
    BdrvIovCursor start;        /* of what @plan is for */
    BdrvIovPlan plan;
    uint8_t *bounce;            /* room for @plan.bounce_size bytes */
} BdrvIovPart;

struct BdrvIovAIOCB {
    BlockAIOCB common;
    BlockBackend *blk;
    int64_t offset;             /* in bytes, on the backend */
    QEMUIOVector *qiov;
    BdrvRequestFlags flags;
    bool is_write;
    bool canceled;
    bool has_returned;          /* bdrv_aio_readv() or bdrv_aio_writev() */
    bool done;

    int ret;                    /* of the failed part with the lowest offset */
    int64_t ret_offset;

    uint8_t *bounce;            /* or NULL */
    size_t bounce_align;
    int bounce_class;
    size_t bounce_used;
    int bounce_users;           /* parts in flight that use the buffer */

    QSLIST_ENTRY(BdrvIovAIOCB) next;
    BdrvIovPart part;           /* if there is only one */
    struct iovec iov[2 * BDRV_IOV_INLINE_ELEMENTS + 1];
};

typedef struct BdrvIovCache {
    QSLIST_HEAD(, BdrvIovAIOCB) requests;
    unsigned nrequests;
    QSLIST_HEAD(, BdrvIovBounce) bounce[ARRAY_SIZE(bounce_class)];
    unsigned nbounce[ARRAY_SIZE(bounce_class)];
    Notifier thread_exit;
} BdrvIovCache;

QEMU_DEFINE_STATIC_CO_TLS(BdrvIovCache, bdrv_iov_cache)

static void bdrv_iov_cache_drop(Notifier *n, void *unused)
{
    BdrvIovCache *cache = container_of(n, BdrvIovCache, thread_exit);

    while (!QSLIST_EMPTY(&cache->requests)) {
        BdrvIovAIOCB *acb = QSLIST_FIRST(&cache->requests);

        QSLIST_REMOVE_HEAD(&cache->requests, next);
        g_free(acb);
    }
    cache->nrequests = 0;
    for (int i = 0; i < ARRAY_SIZE(bounce_class); i++) {
        while (!QSLIST_EMPTY(&cache->bounce[i])) {
            BdrvIovBounce *bounce = QSLIST_FIRST(&cache->bounce[i]);

            QSLIST_REMOVE_HEAD(&cache->bounce[i], next);
            qemu_vfree(bounce);
        }
        cache->nbounce[i] = 0;
    }
}

static BdrvIovCache *bdrv_iov_get_cache(void)
{
    BdrvIovCache *cache = get_ptr_bdrv_iov_cache();

    if (unlikely(!cache->thread_exit.notify)) {
        cache->thread_exit.notify = bdrv_iov_cache_drop;
        qemu_thread_atexit_add(&cache->thread_exit);
    }
    return cache;
}

/* Buffers in the cache suit every node that is content with whole pages. */
static bool bdrv_iov_bounce_is_cached(const BdrvIovAIOCB *acb)
{
    return acb->bounce_align == qemu_real_host_page_size();
}

/* Make sure that there is a bounce buffer of at least @size bytes. */
static bool bdrv_iov_get_bounce(BdrvIovAIOCB *acb, size_t size)
{
    const BlockLimits *bl = &blk_bs(acb->blk)->bl;
    BdrvIovCache *cache = bdrv_iov_get_cache();
    int class = 0;

    if (acb->bounce) {
        return true;
    }
    while (size > bounce_class[class].size) {
        class++;
    }
    acb->bounce_class = class;
    acb->bounce_align = MAX(MAX(bl->opt_mem_alignment, bl->min_mem_alignment),
                            qemu_real_host_page_size());

    if (bdrv_iov_bounce_is_cached(acb) && cache->nbounce[class]) {
        acb->bounce = (uint8_t *)QSLIST_FIRST(&cache->bounce[class]);
        QSLIST_REMOVE_HEAD(&cache->bounce[class], next);
        cache->nbounce[class]--;
    } else {
        acb->bounce = qemu_try_memalign(acb->bounce_align,
                                        bounce_class[class].size);
    }
    return acb->bounce != NULL;
}

static void bdrv_iov_put_bounce(BdrvIovAIOCB *acb)
{
    BdrvIovCache *cache = bdrv_iov_get_cache();
    int class = acb->bounce_class;

    if (!acb->bounce) {
        return;
    }
    if (bdrv_iov_bounce_is_cached(acb) &&
        cache->nbounce[class] < bounce_class[class].max_cached) {
        BdrvIovBounce *bounce = (BdrvIovBounce *)acb->bounce;

        QSLIST_INSERT_HEAD(&cache->bounce[class], bounce, next);
        cache->nbounce[class]++;
    } else {
        qemu_vfree(acb->bounce);
    }
    acb->bounce = NULL;
}

/* Requests */

static void bdrv_iov_aio_cancel(BlockAIOCB *common)
{
    BdrvIovAIOCB *acb = container_of(common, BdrvIovAIOCB, common);

    trace_bdrv_iov_cancel(acb);
    acb->canceled = true;
}

static void bdrv_iov_aio_free(BlockAIOCB *common)
{
    BdrvIovAIOCB *acb = container_of(common, BdrvIovAIOCB, common);
    BdrvIovCache *cache = bdrv_iov_get_cache();

    if (cache->nrequests < BDRV_IOV_CACHED_REQUESTS) {
        QSLIST_INSERT_HEAD(&cache->requests, acb, next);
        cache->nrequests++;
    } else {
        g_free(acb);
    }
}

static const AIOCBInfo bdrv_iov_aiocb_info = {
    .aiocb_size = sizeof(BdrvIovAIOCB),
    .cancel_async = bdrv_iov_aio_cancel,
    .free = bdrv_iov_aio_free,
};

static BdrvIovAIOCB *bdrv_iov_aio_get(void)
{
    BdrvIovCache *cache = bdrv_iov_get_cache();
    BdrvIovAIOCB *acb = QSLIST_FIRST(&cache->requests);

    if (acb) {
        QSLIST_REMOVE_HEAD(&cache->requests, next);
        cache->nrequests--;
        return acb;
    }
    return g_new(BdrvIovAIOCB, 1);
}

static inline int bdrv_iov_max_elements(const BlockLimits *bl)
{
    return MIN_NON_ZERO(bl->max_iov, IOV_MAX);
}

/* A request that is not a multiple of this is padded by the block layer. */
static inline size_t bdrv_iov_node_align(const BlockLimits *bl)
{
    return MAX(MAX(bl->request_alignment, bl->min_len_alignment), 1);
}

/*
 * Elements need not be aligned if the node does not care, or if the block layer
 * pads them with more of the same.  An alignment that no bounce buffer is large
 * enough for is left to the driver.
 */
static bool bdrv_iov_needs_alignment(const BlockLimits *bl, int64_t offset,
                                     size_t bytes)
{
    return bl->min_len_alignment > 1 &&
           !((offset | bytes) & (bdrv_iov_node_align(bl) - 1)) &&
           bl->min_len_alignment <= BDRV_IOV_MAX_BOUNCE &&
           bl->min_mem_alignment <= BDRV_IOV_MAX_BOUNCE;
}

/* Requests that will be an error, or nothing, whatever their vector is */
static bool bdrv_iov_is_degenerate(int64_t offset, size_t bytes)
{
    return bytes == 0 || bytes > BDRV_REQUEST_MAX_BYTES || offset < 0 ||
           offset > BDRV_MAX_LENGTH - (int64_t)bytes;
}

/* Whether blk_aio_preadv() can have what bdrv_iov_is_legal() refused */
static bool bdrv_iov_is_untouched(const BlockLimits *bl, int64_t offset,
                                  const QEMUIOVector *qiov)
{
    return (qiov->niov <= bdrv_iov_max_elements(bl) &&
            !bdrv_iov_needs_alignment(bl, offset, qiov->size)) ||
           bdrv_iov_is_degenerate(offset, qiov->size);
}

static BdrvIovLimits bdrv_iov_limits(const BdrvIovAIOCB *acb)
{
    const BlockLimits *bl = &blk_bs(acb->blk)->bl;
    size_t align = bdrv_iov_node_align(bl);
    BdrvIovLimits limits = {
        .mem_align = 1,
        .len_align = 1,
        .max_iov = bdrv_iov_max_elements(bl),
        .max_bounce = BDRV_IOV_MAX_BOUNCE,
    };

    if (bdrv_iov_needs_alignment(bl, acb->offset, acb->qiov->size)) {
        limits.mem_align = bl->min_mem_alignment;
        limits.len_align = bl->min_len_alignment;
    }
    /*
     * Nodes below can have a larger alignment than this one; do not make each
     * part a read-modify-write for them.  No sector has more than IOV_MAX
     * elements, so this costs nothing.
     */
    limits.split_align = MAX(align, BDRV_SECTOR_SIZE);
    if (limits.split_align > BDRV_IOV_MAX_BOUNCE) {
        /* The parts will be padded. */
        limits.split_align = MAX(limits.len_align, BDRV_SECTOR_SIZE);
    }
    return limits;
}

/* Copy between the vector and the bounced elements of the plan for it. */
static void bdrv_iov_copy(const BdrvIovPart *part, bool to_bounce)
{
    const QEMUIOVector *qiov = part->acb->qiov;
    const BdrvIovPlan *plan = &part->plan;
    BdrvIovCursor pos = part->start;

    for (int i = 0; i < plan->niov; i++) {
        void *base = plan->iov[i].iov_base;
        size_t len = plan->iov[i].iov_len;

        if ((uintptr_t)base - (uintptr_t)part->bounce < plan->bounce_size) {
            const struct iovec *iov = &qiov->iov[pos.index];
            int niov = qiov->niov - pos.index;

            if (to_bounce) {
                iov_to_buf(iov, niov, pos.offset, base, len);
            } else {
                iov_from_buf(iov, niov, pos.offset, base, len);
            }
        }
        bdrv_iov_advance(qiov, &pos, len);
    }
}

/* Give the part its bounce buffer; false if there is no memory. */
static bool bdrv_iov_part_bounce(BdrvIovPart *part, const BdrvIovLimits *limits,
                                 size_t buffer_size)
{
    BdrvIovAIOCB *acb = part->acb;
    uint8_t *p;

    if (!part->plan.bounced) {
        return true;
    }
    if (!bdrv_iov_get_bounce(acb, buffer_size)) {
        return false;
    }
    p = part->bounce = acb->bounce + acb->bounce_used;
    for (int i = 0; i < part->plan.niov; i++) {
        struct iovec *v = &part->plan.iov[i];

        if (!v->iov_base) {
            v->iov_base = p;
            p += QEMU_ALIGN_UP(v->iov_len, limits->mem_align);
        }
    }
    acb->bounce_used += part->plan.bounce_size;
    acb->bounce_users++;
    return true;
}

static int coroutine_fn bdrv_iov_co_part(BdrvIovPart *part)
{
    BdrvIovAIOCB *acb = part->acb;
    BdrvIovPlan *plan = &part->plan;
    BdrvIovStats *stats = blk_get_iov_stats(acb->blk);
    BdrvRequestFlags flags = acb->flags | BDRV_REQ_NO_QUEUE;
    QEMUIOVector qiov = {
        .iov = plan->iov,
        .niov = plan->niov,
        .nalloc = -1,
        .size = plan->size,
    };
    int ret;

    trace_bdrv_iov_part(acb, part->offset, plan->size, plan->niov,
                        plan->bounced);
    if (plan->bounced < plan->size) {
        stat64_add(&stats->bytes_direct, plan->size - plan->bounced);
    }
    if (plan->bounced) {
        stat64_add(plan->too_many ? &stats->bytes_bounced_elements :
                                    &stats->bytes_bounced_alignment,
                   plan->bounced);
        /* The bounce buffer is not a registered one. */
        flags &= ~BDRV_REQ_REGISTERED_BUF;
    }

    if (acb->is_write) {
        if (plan->bounced) {
            bdrv_iov_copy(part, true);
        }
        ret = blk_co_pwritev(acb->blk, part->offset, plan->size, &qiov, flags);
    } else {
        ret = blk_co_preadv(acb->blk, part->offset, plan->size, &qiov, flags);
        if (ret >= 0 && plan->bounced) {
            bdrv_iov_copy(part, false);
        }
    }

    trace_bdrv_iov_part_done(acb, part->offset, ret);
    if (ret < 0 && (acb->ret == 0 || part->offset < acb->ret_offset)) {
        acb->ret = ret;
        acb->ret_offset = part->offset;
    }
    if (plan->bounced && --acb->bounce_users == 0) {
        acb->bounce_used = 0;
    }
    return ret;
}

static int coroutine_fn bdrv_iov_co_task(AioTask *task)
{
    return bdrv_iov_co_part(container_of(task, BdrvIovPart, task));
}

static int bdrv_iov_plan_elements(const BdrvIovAIOCB *acb,
                                  const BdrvIovCursor *cursor,
                                  const BdrvIovLimits *limits)
{
    return MIN(2 * (int64_t)(acb->qiov->niov - cursor->index) + 1,
               limits->max_iov);
}

/* Plan the part that begins @done bytes into the request. */
static void bdrv_iov_part_init(BdrvIovPart *part, BdrvIovAIOCB *acb,
                               const BdrvIovLimits *limits, size_t done,
                               BdrvIovCursor *cursor, struct iovec *iov)
{
    *part = (BdrvIovPart) {
        .task.func = bdrv_iov_co_task,
        .acb = acb,
        .offset = acb->offset + done,
        .start = *cursor,
        .plan.iov = iov,
    };
    bdrv_iov_plan(&part->plan, limits, acb->qiov, cursor, part->offset,
                  acb->qiov->size - done);
}

/* Do the request in parts, several at a time. */
static void coroutine_fn bdrv_iov_co_split(BdrvIovAIOCB *acb,
                                           BdrvIovLimits *limits)
{
    AioTaskPool *pool = aio_task_pool_new(BDRV_IOV_MAX_IN_FLIGHT);
    BdrvIovCursor cursor = { 0 };
    size_t done = 0;
    int ret = 0;

    while (done < acb->qiov->size && !acb->canceled && acb->ret == 0) {
        int n = bdrv_iov_plan_elements(acb, &cursor, limits);
        BdrvIovPart *part;

        part = g_try_malloc(sizeof(*part) + n * sizeof(struct iovec));
        if (!part) {
            ret = -ENOMEM;
            break;
        }
        limits->max_bounce = BDRV_IOV_MAX_BOUNCE - acb->bounce_used;
        bdrv_iov_part_init(part, acb, limits, done, &cursor,
                           (struct iovec *)(part + 1));
        if (part->plan.size == 0) {
            /* Other parts hold what is missing of the bounce buffer. */
            g_free(part);
            aio_task_pool_wait_one(pool);
            continue;
        }
        if (!bdrv_iov_part_bounce(part, limits, BDRV_IOV_MAX_BOUNCE)) {
            g_free(part);
            ret = -ENOMEM;
            break;
        }
        done += part->plan.size;
        stat64_add(&blk_get_iov_stats(acb->blk)->split_host_requests, 1);
        aio_task_pool_start_task(pool, &part->task);
        /* Not before the next start: what ends meanwhile must be seen. */
        aio_task_pool_wait_slot(pool);
    }

    aio_task_pool_wait_all(pool);
    aio_task_pool_free(pool);

    if (acb->ret == 0 && done < acb->qiov->size) {
        acb->ret = ret ?: -ECANCELED;
    }
}

static void coroutine_fn bdrv_iov_co_request(BdrvIovAIOCB *acb)
{
    BdrvIovLimits limits = bdrv_iov_limits(acb);
    BdrvIovCursor cursor = { 0 };
    BdrvIovPart *part = &acb->part;

    if (bdrv_iov_plan_elements(acb, &cursor, &limits) <= ARRAY_SIZE(acb->iov)) {
        bdrv_iov_part_init(part, acb, &limits, 0, &cursor, acb->iov);
        if (part->plan.size == acb->qiov->size) {
            stat64_add(&blk_get_iov_stats(acb->blk)->requests_bounced, 1);
            if (bdrv_iov_part_bounce(part, &limits, part->plan.bounce_size)) {
                bdrv_iov_co_part(part);
            } else {
                acb->ret = -ENOMEM;
            }
            return;
        }
    }
    stat64_add(&blk_get_iov_stats(acb->blk)->requests_split, 1);
    bdrv_iov_co_split(acb, &limits);
}

static void bdrv_iov_complete(BdrvIovAIOCB *acb)
{
    trace_bdrv_iov_complete(acb, acb->ret);
    blk_complete_guarded(acb->common.cb, acb->common.opaque, acb->ret);
    /* Pairs with blk_co_start_request(): a drain waits for the callback too. */
    blk_end_request(acb->blk);
    qemu_aio_unref(acb);
}

static void bdrv_iov_complete_bh(void *opaque)
{
    bdrv_iov_complete(opaque);
}

static void coroutine_fn bdrv_iov_co_entry(void *opaque)
{
    BdrvIovAIOCB *acb = opaque;

    /*
     * Parts that are submitted in a drained section must not be queued until it
     * ends, since it begins only when the request has ended.  The same is true
     * of a request that is a part itself.
     */
    if (acb->flags & BDRV_REQ_NO_QUEUE) {
        blk_continue_request(acb->blk);
    } else {
        blk_co_start_request(acb->blk);
    }

    if (acb->canceled) {
        acb->ret = -ECANCELED;
    } else if (!blk_bs(acb->blk)) {
        acb->ret = -ENOMEDIUM;
    } else {
        bdrv_iov_co_request(acb);
    }

    bdrv_iov_put_bounce(acb);
    acb->done = true;
    if (acb->has_returned) {
        bdrv_iov_complete(acb);
    }
}

static BlockAIOCB *bdrv_iov_aio_start(BlockBackend *blk, int64_t offset,
                                      QEMUIOVector *qiov,
                                      BdrvRequestFlags flags, bool is_write,
                                      BlockCompletionFunc *cb, void *opaque)
{
    AioContext *ctx = qemu_get_current_aio_context();
    BdrvIovAIOCB *acb = bdrv_iov_aio_get();

    trace_bdrv_iov_start(acb, blk, offset, qiov->size, qiov->niov, is_write);
    acb->common = (BlockAIOCB) {
        .aiocb_info = &bdrv_iov_aiocb_info,
        .bs = blk_bs(blk),
        .cb = cb,
        .opaque = opaque,
        .refcnt = 1,
    };
    acb->blk = blk;
    acb->offset = offset;
    acb->qiov = qiov;
    acb->flags = flags;
    acb->is_write = is_write;
    acb->canceled = acb->has_returned = acb->done = false;
    acb->ret = 0;
    acb->bounce = NULL;
    acb->bounce_used = 0;
    acb->bounce_users = 0;

    aio_co_enter(ctx, qemu_coroutine_create(bdrv_iov_co_entry, acb));

    acb->has_returned = true;
    if (acb->done) {
        replay_bh_schedule_oneshot_event(ctx, bdrv_iov_complete_bh, acb);
    }
    return &acb->common;
}

BlockAIOCB *bdrv_iov_aio_readv(BlockBackend *blk, int64_t offset,
                               QEMUIOVector *qiov, BdrvRequestFlags flags,
                               BlockCompletionFunc *cb, void *opaque)
{
    if (bdrv_iov_is_untouched(&blk_bs(blk)->bl, offset, qiov)) {
        bdrv_iov_count_untouched(blk_get_iov_stats(blk), qiov);
        return blk_aio_preadv(blk, offset, qiov, flags, cb, opaque);
    }
    return bdrv_iov_aio_start(blk, offset, qiov, flags, false, cb, opaque);
}

BlockAIOCB *bdrv_iov_aio_writev(BlockBackend *blk, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags,
                                BlockCompletionFunc *cb, void *opaque)
{
    assert(!(flags & BDRV_REQ_ZERO_WRITE));

    if (bdrv_iov_is_untouched(&blk_bs(blk)->bl, offset, qiov)) {
        bdrv_iov_count_untouched(blk_get_iov_stats(blk), qiov);
        return blk_aio_pwritev(blk, offset, qiov, flags, cb, opaque);
    }
    return bdrv_iov_aio_start(blk, offset, qiov, flags, true, cb, opaque);
}
