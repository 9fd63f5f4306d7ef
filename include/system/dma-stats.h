/*
 * Counters of DMA, by device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the DMA mapper and engine did for each device, and how controllers moved
 * the data of their commands.  x-query-dma and "info dma" show it.
 *
 * The counters of a device come into being with its first DMA.  They belong to
 * the device and go when it is finalized: what they say is then added to a
 * remainder, so that totals never decrease, and no other device inherits it.
 */

#ifndef SYSTEM_DMA_STATS_H
#define SYSTEM_DMA_STATS_H

#include "hw/qdev-core.h"
#include "qapi/qapi-types-dma.h"
#include "qemu/atomic.h"
#include "qemu/queue.h"
#include "qemu/stats64.h"

/**
 * struct DMACounters: what is counted
 *
 * The first cache line is all that a request touches whose list is RAM.
 *
 * @requests: lists that were to be transferred
 * @bytes_direct: bytes mapped as the host memory of guest RAM
 * @partial_mappings: mappings that ended before their list did
 * @map_client_waits: times a request waited for bounce buffer space
 * @map_client_wait_ns: how long those that are over took together, in
 *                      nanoseconds
 * @map_client_wait_max_ns: how long the longest one took, in nanoseconds
 * @whole_map_failures: lists that dma_map_whole() could not map
 * @commands_direct: commands whose data did not go through a buffer of the
 *                   device
 * @bytes_bounced: bytes that went through a bounce buffer, by reason
 * @commands_buffered: commands whose data went through a buffer of the device,
 *                     by reason
 * @bytes_buffered: the data of these commands, in bytes
 * @barriers: times that a controller waited for data, by cause
 */
typedef struct DMACounters {
    Stat64 requests;
    Stat64 bytes_direct;
    Stat64 partial_mappings;
    Stat64 map_client_waits;
    Stat64 map_client_wait_ns;
    Stat64 map_client_wait_max_ns;
    Stat64 whole_map_failures;
    Stat64 commands_direct;

    Stat64 bytes_bounced[DMA_BOUNCE_REASON__MAX];
    Stat64 commands_buffered[DMA_BUFFERED_REASON__MAX];
    Stat64 bytes_buffered[DMA_BUFFERED_REASON__MAX];
    Stat64 barriers[DMA_BARRIER_CAUSE__MAX];
} QEMU_ALIGNED(64) DMACounters;

/**
 * struct DMADeviceStats: counters of one controller; protected by the BQL
 *
 * For controllers that count much about each command.  Others have
 * dma_stats_direct() and dma_stats_buffered().
 *
 * @direct: commands whose data did not go through a buffer
 * @buffered: commands whose data did, by reason.  Commands without data are
 *            not counted.
 * @bytes_buffered: the data of these, in bytes
 * @barriers: times that the controller waited for data, because the guest was
 *            about to see that it had not been moved, by cause
 * @max_in_flight: the most direct commands at the same time
 *
 * The other fields are private.
 */
typedef struct DMADeviceStats {
    uint64_t direct;
    uint64_t buffered[DMA_BUFFERED_REASON__MAX];
    uint64_t barriers[DMA_BARRIER_CAUSE__MAX];
    uint64_t bytes_buffered[DMA_BUFFERED_REASON__MAX];
    uint32_t max_in_flight;

    /* private: */
    DeviceState *dev;
} DMADeviceStats;

/**
 * struct DMAStats: the counters of one device
 *
 * @n: the counters
 * @device: registered with dma_device_stats_register(), or %NULL; protected by
 *          the BQL
 * @dev: the device, which owns this; %NULL for lists that are no device's
 */
typedef struct DMAStats {
    DMACounters n;
    DMADeviceStats *device;
    DeviceState *dev;
    /* private: */
    QLIST_ENTRY(DMAStats) next;
} DMAStats;

/* dma_stats_get() of a device that has no counters yet.  Private. */
DMAStats *dma_stats_new(DeviceState *dev);

/**
 * dma_stats_get: the counters of a device
 *
 * Any thread may call it, and may count without a lock.
 *
 * @dev: the device, to which the caller has a reference, or %NULL
 *
 * Returns: the counters, valid for as long as @dev is
 */
static inline DMAStats *dma_stats_get(DeviceState *dev)
{
    if (likely(dev)) {
        DMAStats *stats = qatomic_load_acquire(&dev->dma_stats);

        if (likely(stats)) {
            return stats;
        }
    }
    return dma_stats_new(dev);
}

/**
 * dma_stats_free: end the counters of a device; for device_finalize() only
 *
 * @dev: the device, to which there are no references any more
 */
void dma_stats_free(DeviceState *dev);

/**
 * dma_stats_bounced: count what a device model itself puts through a bounce
 * buffer, as opposed to the DMA mapper
 *
 * @dev: the device; any thread may call this
 * @reason: why its data is not moved directly
 * @bytes: how many of them
 */
static inline void dma_stats_bounced(DeviceState *dev, DmaBounceReason reason,
                                     uint64_t bytes)
{
    stat64_add(&dma_stats_get(dev)->n.bytes_bounced[reason], bytes);
}

/**
 * dma_stats_direct: count a command whose data does not go through a buffer of
 * the device model
 *
 * For device models that also have commands to call dma_stats_buffered() for.
 *
 * @dev: the device; any thread may call this
 */
static inline void dma_stats_direct(DeviceState *dev)
{
    stat64_add(&dma_stats_get(dev)->n.commands_direct, 1);
}

/**
 * dma_stats_buffered: count a command whose data goes through a buffer of the
 * device model
 *
 * @dev: the device; any thread may call this
 * @reason: why it does
 * @bytes: how much data the command has
 */
static inline void dma_stats_buffered(DeviceState *dev,
                                      DmaBufferedReason reason, uint64_t bytes)
{
    DMACounters *n = &dma_stats_get(dev)->n;

    stat64_add(&n->commands_buffered[reason], 1);
    stat64_add(&n->bytes_buffered[reason], bytes);
}

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
 * @stats: counters that are registered, and will be zero.  For as long as the
 *         device exists, what they were is still shown.
 *
 * Call it with the BQL held.
 */
void dma_device_stats_unregister(DMADeviceStats *stats);

/**
 * dma_device_stats_buffered: count a command whose data goes through a buffer
 *
 * @stats: counters that are registered
 * @reason: why it does
 * @bytes: how much data the command has
 *
 * Call it with the BQL held.
 */
static inline void dma_device_stats_buffered(DMADeviceStats *stats,
                                             DmaBufferedReason reason,
                                             uint64_t bytes)
{
    stats->buffered[reason]++;
    stats->bytes_buffered[reason] += bytes;
}

/**
 * dma_device_stats_add: add the counters of a controller to others
 *
 * @to: what to add to
 * @from: the controller's counters
 */
void dma_device_stats_add(DMACounters *to, const DMADeviceStats *from);

/**
 * dma_counters_add: add counters, and let the longest wait be the longer one
 *
 * @to: what to add to
 * @from: what to add
 */
void dma_counters_add(DMACounters *to, const DMACounters *from);

/**
 * dma_stats_foreach: look at the counters of all devices
 *
 * Call it with the BQL held.  No counters come or go meanwhile; @fn must not
 * call dma_stats_get().
 *
 * @fn: called for each device with DMAStats.dev set, and once for all others
 *      together: those that are gone, and lists that were no device's
 * @opaque: for @fn
 */
void dma_stats_foreach(void (*fn)(DMAStats *stats, void *opaque), void *opaque);

/**
 * dma_stats_reset: set all counters of all devices to zero
 *
 * Call it with the BQL held.  What is counted at the same time can be counted
 * before or after the reset.
 */
void dma_stats_reset(void);

#endif
