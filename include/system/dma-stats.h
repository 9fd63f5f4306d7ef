/*
 * How the commands of one storage controller moved their data
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For controllers that move some data directly between disk and guest memory
 * and copy the rest: they count which, and why.  x-query-dma shows it.
 */

#ifndef SYSTEM_DMA_STATS_H
#define SYSTEM_DMA_STATS_H

#include "hw/qdev-core.h"
#include "qapi/qapi-types-dma.h"
#include "qemu/queue.h"

/**
 * DMADeviceStats: counters of one controller; protected by the BQL
 *
 * @direct: commands whose data did not go through a buffer
 * @buffered: commands whose data did, by reason.  Commands without data are
 *            not counted.
 * @barriers: times that the controller waited for data, because the guest was
 *            about to see that it had not been moved, by cause
 * @max_in_flight: the most direct commands at the same time
 *
 * The other fields are private.
 */
typedef struct DMADeviceStats DMADeviceStats;

struct DMADeviceStats {
    uint64_t direct;
    uint64_t buffered[DMA_BUFFERED_REASON__MAX];
    uint64_t barriers[DMA_BARRIER_CAUSE__MAX];
    uint32_t max_in_flight;

    DeviceState *dev;
    QLIST_ENTRY(DMADeviceStats) next;
};

/**
 * dma_device_stats_register: let x-query-dma show a controller
 *
 * @stats: counters, all zero; they stay the caller's
 * @dev: the controller.  It must call dma_device_stats_unregister() before it
 *       is gone: at the latest in its unrealize function.
 *
 * Call it with the BQL held.
 */
void dma_device_stats_register(DMADeviceStats *stats, DeviceState *dev);

/**
 * dma_device_stats_unregister: undo dma_device_stats_register()
 *
 * @stats: counters that are registered
 *
 * Call it with the BQL held.
 */
void dma_device_stats_unregister(DMADeviceStats *stats);

#endif
