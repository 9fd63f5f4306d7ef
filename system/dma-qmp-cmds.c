/*
 * QMP command of the DMA mapper, and the counters of controllers that it shows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-dma.h"
#include "qapi/util.h"
#include "system/dma-map.h"
#include "system/dma-stats.h"

static QLIST_HEAD(, DMADeviceStats) dma_devices =
    QLIST_HEAD_INITIALIZER(dma_devices);

void dma_device_stats_register(DMADeviceStats *stats, DeviceState *dev)
{
    stats->dev = dev;
    QLIST_INSERT_HEAD(&dma_devices, stats, next);
}

void dma_device_stats_unregister(DMADeviceStats *stats)
{
    QLIST_REMOVE(stats, next);
}

static DmaDeviceStats *device_stats(const DMADeviceStats *s)
{
    DmaDeviceStats *stats = g_new0(DmaDeviceStats, 1);
    int i;

    stats->qom_path = object_get_canonical_path(OBJECT(s->dev));
    stats->direct = s->direct;
    stats->max_in_flight = s->max_in_flight;
    for (i = DMA_BUFFERED_REASON__MAX - 1; i >= 0; i--) {
        if (s->buffered[i]) {
            DmaBufferedCount *count = g_new(DmaBufferedCount, 1);

            count->reason = i;
            count->requests = s->buffered[i];
            QAPI_LIST_PREPEND(stats->buffered, count);
        }
    }
    for (i = DMA_BARRIER_CAUSE__MAX - 1; i >= 0; i--) {
        if (s->barriers[i]) {
            DmaBarrierCount *count = g_new(DmaBarrierCount, 1);

            count->cause = i;
            count->count = s->barriers[i];
            QAPI_LIST_PREPEND(stats->barriers, count);
        }
    }
    return stats;
}

DmaStats *qmp_x_query_dma(Error **errp)
{
    const DMAMapStats *s = &dma_map_stats;
    DmaStats *stats = g_new(DmaStats, 1);
    const DMADeviceStats *dev;

    *stats = (DmaStats) {
        .requests = stat64_get(&s->requests),
        .bytes_direct = stat64_get(&s->bytes_direct),
        .bytes_bounced = stat64_get(&s->bytes_bounced),
        .partial_mappings = stat64_get(&s->partial_mappings),
        .map_client_waits = stat64_get(&s->map_client_waits),
        .whole_map_failures = stat64_get(&s->whole_map_failures),
    };
    QLIST_FOREACH(dev, &dma_devices, next) {
        QAPI_LIST_PREPEND(stats->devices, device_stats(dev));
    }
    return stats;
}
