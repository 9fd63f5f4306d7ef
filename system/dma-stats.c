/*
 * Counters of DMA, by device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "system/dma-stats.h"

QEMU_BUILD_BUG_ON(offsetof(DMACounters, bytes_bounced) > 64);

/* Lists without a device, and devices that are gone */
static DMAStats dma_stats_other;

/* Protects the list, and the creation of what is in it */
static QemuMutex dma_stats_lock;
static QLIST_HEAD(, DMAStats) dma_stats_list =
    QLIST_HEAD_INITIALIZER(dma_stats_list);

static void __attribute__((constructor)) dma_stats_init(void)
{
    qemu_mutex_init(&dma_stats_lock);
}

DMAStats *dma_stats_new(DeviceState *dev)
{
    DMAStats *stats;

    if (!dev) {
        return &dma_stats_other;
    }

    QEMU_LOCK_GUARD(&dma_stats_lock);
    stats = dev->dma_stats;
    if (!stats) {
        stats = qemu_memalign(__alignof__(*stats), sizeof(*stats));
        *stats = (DMAStats) { .dev = dev };
        QLIST_INSERT_HEAD(&dma_stats_list, stats, next);
        qatomic_store_release(&dev->dma_stats, stats);
    }
    return stats;
}

/* All of the structure is counters, and zeroes up to its alignment. */
#define DMA_N_COUNTERS (sizeof(DMACounters) / sizeof(Stat64))

void dma_counters_add(DMACounters *to, const DMACounters *from)
{
    for (int i = 0; i < DMA_N_COUNTERS; i++) {
        Stat64 *sum = (Stat64 *)to + i;
        uint64_t n = stat64_get((const Stat64 *)from + i);

        if (sum == &to->map_client_wait_max_ns) {
            stat64_max(sum, n);
        } else {
            stat64_add(sum, n);
        }
    }
}

static void dma_counters_reset(DMACounters *n)
{
    for (int i = 0; i < DMA_N_COUNTERS; i++) {
        stat64_set((Stat64 *)n + i, 0);
    }
}

void dma_stats_free(DeviceState *dev)
{
    DMAStats *stats = dev->dma_stats;

    if (stats) {
        QEMU_LOCK_GUARD(&dma_stats_lock);
        assert(!stats->device);
        QLIST_REMOVE(stats, next);
        dma_counters_add(&dma_stats_other.n, &stats->n);
        dev->dma_stats = NULL;
        qemu_vfree(stats);
    }
}

void dma_device_stats_add(DMACounters *to, const DMADeviceStats *from)
{
    stat64_add(&to->commands_direct, from->direct);
    for (int i = 0; i < DMA_BUFFERED_REASON__MAX; i++) {
        stat64_add(&to->commands_buffered[i], from->buffered[i]);
        stat64_add(&to->bytes_buffered[i], from->bytes_buffered[i]);
    }
    for (int i = 0; i < DMA_BARRIER_CAUSE__MAX; i++) {
        stat64_add(&to->barriers[i], from->barriers[i]);
    }
}

void dma_device_stats_register(DMADeviceStats *device, DeviceState *dev)
{
    DMAStats *stats = dma_stats_get(dev);

    assert(!stats->device);
    device->dev = dev;
    stats->device = device;
}

void dma_device_stats_unregister(DMADeviceStats *device)
{
    DMAStats *stats = dma_stats_get(device->dev);

    dma_device_stats_add(&stats->n, device);
    *device = (DMADeviceStats) { };
    stats->device = NULL;
}

void dma_stats_foreach(void (*fn)(DMAStats *stats, void *opaque), void *opaque)
{
    DMAStats *stats;

    QEMU_LOCK_GUARD(&dma_stats_lock);
    QLIST_FOREACH(stats, &dma_stats_list, next) {
        fn(stats, opaque);
    }
    fn(&dma_stats_other, opaque);
}

void dma_stats_reset(void)
{
    DMAStats *stats;

    QEMU_LOCK_GUARD(&dma_stats_lock);
    QLIST_FOREACH(stats, &dma_stats_list, next) {
        DMADeviceStats *device = stats->device;

        dma_counters_reset(&stats->n);
        if (device) {
            *device = (DMADeviceStats) { .dev = device->dev };
        }
    }
    dma_counters_reset(&dma_stats_other.n);
}
