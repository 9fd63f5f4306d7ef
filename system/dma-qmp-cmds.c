/*
 * QMP commands: how devices moved data between disks and guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-iov.h"
#include "qapi/qapi-commands-dma.h"
#include "qapi/util.h"
#include "system/block-backend.h"
#include "system/dma-stats.h"

static void add_bounced(DmaBouncedBytesList **list, DmaBounceReason reason,
                        uint64_t bytes)
{
    if (bytes) {
        DmaBouncedBytes *bounced = g_new(DmaBouncedBytes, 1);

        *bounced = (DmaBouncedBytes) { .reason = reason, .bytes = bytes };
        QAPI_LIST_PREPEND(*list, bounced);
    }
}

static void fill_counters(DmaCounters *stats, const DMACounters *n)
{
    stats->requests = stat64_get(&n->requests);
    stats->bytes_direct = stat64_get(&n->bytes_direct);
    stats->partial_mappings = stat64_get(&n->partial_mappings);
    stats->map_client_waits = stat64_get(&n->map_client_waits);
    stats->map_client_wait_ns = stat64_get(&n->map_client_wait_ns);
    stats->map_client_wait_max_ns = stat64_get(&n->map_client_wait_max_ns);
    stats->whole_map_failures = stat64_get(&n->whole_map_failures);
    stats->direct = stat64_get(&n->commands_direct);

    for (int i = DMA_BOUNCE_REASON__MAX - 1; i >= 0; i--) {
        uint64_t bytes = stat64_get(&n->bytes_bounced[i]);

        stats->bytes_bounced += bytes;
        add_bounced(&stats->bounced, i, bytes);
    }
    for (int i = DMA_BUFFERED_REASON__MAX - 1; i >= 0; i--) {
        uint64_t requests = stat64_get(&n->commands_buffered[i]);

        if (requests) {
            DmaBufferedCount *count = g_new(DmaBufferedCount, 1);

            count->reason = i;
            count->requests = requests;
            count->bytes = stat64_get(&n->bytes_buffered[i]);
            QAPI_LIST_PREPEND(stats->buffered, count);
        }
    }
    for (int i = DMA_BARRIER_CAUSE__MAX - 1; i >= 0; i--) {
        uint64_t barriers = stat64_get(&n->barriers[i]);

        if (barriers) {
            DmaBarrierCount *count = g_new(DmaBarrierCount, 1);

            count->cause = i;
            count->count = barriers;
            QAPI_LIST_PREPEND(stats->barriers, count);
        }
    }
}

typedef struct QueryDevices {
    DmaDeviceStatsList *list;
    DMACounters total;
} QueryDevices;

static void query_device(DMAStats *s, void *opaque)
{
    QueryDevices *query = opaque;
    DMACounters n = {};
    DmaDeviceStats *stats;
    char *path;

    dma_counters_add(&n, &s->n);
    if (s->device) {
        dma_device_stats_add(&n, s->device);
    }
    dma_counters_add(&query->total, &n);

    /* A device that was unplugged can be in use for some time to come. */
    path = s->dev ? object_get_canonical_path(OBJECT(s->dev)) : NULL;
    if (path) {
        stats = g_new0(DmaDeviceStats, 1);
        stats->qom_path = path;
        stats->max_in_flight = s->device ? s->device->max_in_flight : 0;
        fill_counters(qapi_DmaDeviceStats_base(stats), &n);
        QAPI_LIST_PREPEND(query->list, stats);
    }
}

static void fill_vectors(DmaVectorStats *stats, const BdrvIovStats *s)
{
    uint64_t alignment = stat64_get(&s->bytes_bounced_alignment);
    uint64_t elements = stat64_get(&s->bytes_bounced_elements);

    stats->requests_untouched = stat64_get(&s->requests_untouched);
    stats->requests_bounced = stat64_get(&s->requests_bounced);
    stats->requests_split = stat64_get(&s->requests_split);
    stats->split_host_requests = stat64_get(&s->split_host_requests);
    stats->bytes_direct = stat64_get(&s->bytes_direct);
    stats->bytes_bounced = alignment + elements;
    add_bounced(&stats->bounced, DMA_BOUNCE_REASON_ALIGNMENT, alignment);
    add_bounced(&stats->bounced, DMA_BOUNCE_REASON_ELEMENTS, elements);
}

static DmaDriveStats *query_drive(BlockBackend *blk)
{
    DmaDriveStats *stats = g_new0(DmaDriveStats, 1);
    BlockDriverState *bs = blk_bs(blk);

    stats->device = g_strdup(blk_name(blk));
    if (blk_get_attached_dev(blk)) {
        stats->qdev = blk_get_attached_dev_id(blk);
    }
    if (bs) {
        stats->node_name = g_strdup(bdrv_get_node_name(bs));
    }
    fill_vectors(qapi_DmaDriveStats_base(stats), blk_get_iov_stats(blk));
    return stats;
}

DmaStats *qmp_x_query_dma(Error **errp)
{
    DmaStats *stats = g_new0(DmaStats, 1);
    DmaDriveStatsList **tail = &stats->drives;
    BdrvIovStats vectors;
    QueryDevices query = {};
    BlockBackend *blk = NULL;

    dma_stats_foreach(query_device, &query);
    fill_counters(qapi_DmaStats_base(stats), &query.total);
    stats->devices = query.list;

    while ((blk = blk_all_next(blk))) {
        if (*blk_name(blk) || blk_get_attached_dev(blk)) {
            QAPI_LIST_APPEND(tail, query_drive(blk));
        }
    }
    bdrv_iov_stats_total(&vectors);
    stats->vectors = g_new0(DmaVectorStats, 1);
    fill_vectors(stats->vectors, &vectors);
    return stats;
}

void qmp_x_reset_dma(Error **errp)
{
    dma_stats_reset();
    bdrv_iov_stats_reset();
}
