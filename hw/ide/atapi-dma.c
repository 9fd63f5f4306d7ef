/*
 * ATAPI: reading a medium by DMA, straight into guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/ide/atapi-dma.h"
#include "qemu/timer.h"
#include "system/block-backend.h"
#include "system/dma-stats.h"
#include "system/dma.h"
#include "system/replay.h"
#include "ide-internal.h"
#include "trace.h"

#define CD_SECTOR_SIZE 2048

QEMU_BUILD_BUG_ON(sizeof_field(AtapiDMA, packet) != ATAPI_PACKET_SIZE);

static IDEDevice *atapi_dma_device(const IDEState *s)
{
    return s->unit ? s->bus->slave : s->bus->master;
}

void atapi_dma_medium_changed(IDEState *s)
{
    s->atapi.slow = false;
}

/*
 * Time as the host's storage has it: a guest's clock can stand still while it
 * waits.  Only the way that data takes depends on it, nothing that a guest can
 * see, but record and replay want the same block requests each time.
 */
static void atapi_dma_judge_host(IDEState *s)
{
    int64_t ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - s->atapi.start_ms;

    if (ms > ATAPI_DMA_SLOW_MS && !s->atapi.slow &&
        replay_mode == REPLAY_MODE_NONE) {
        trace_atapi_dma_slow(s, ms);
        s->atapi.slow = true;
    }
}

typedef struct AtapiDMADeferred {
    QEMUBHFunc *func;
    void *opaque;
} AtapiDMADeferred;

static void atapi_dma_defer(IDEState *s, QEMUBHFunc *func, void *opaque)
{
    AtapiDMADeferred *d;
    GSList *item;

    for (item = s->atapi.deferred; item; item = item->next) {
        d = item->data;
        if (d->func == func && d->opaque == opaque) {
            return;
        }
    }
    d = g_new(AtapiDMADeferred, 1);
    *d = (AtapiDMADeferred) { .func = func, .opaque = opaque };
    s->atapi.deferred = g_slist_append(s->atapi.deferred, d);
}

static void atapi_dma_run_deferred(IDEState *s)
{
    while (s->atapi.deferred) {
        g_autofree AtapiDMADeferred *d = s->atapi.deferred->data;

        s->atapi.deferred = g_slist_delete_link(s->atapi.deferred,
                                                s->atapi.deferred);
        d->func(d->opaque);
    }
}

bool atapi_dma_abandon(IDEBus *bus, QEMUBHFunc *func, void *opaque)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(bus->ifs); i++) {
        IDEState *s = &bus->ifs[i];

        if (s->atapi.in_flight) {
            trace_atapi_dma_abandon(s, func);
            s->atapi.abandoned = true;
            if (func) {
                atapi_dma_defer(s, func, opaque);
            }
            return true;
        }
    }
    return false;
}

static void atapi_dma_end(IDEState *s, int ret)
{
    if (ret < 0) {
        block_acct_failed(blk_get_stats(s->blk), &s->acct);
    } else {
        block_acct_done(blk_get_stats(s->blk), &s->acct);
    }
    ide_set_inactive(s, false);
}

/*
 * The memory for @bytes was used up, or all data is there.
 *
 * A parallel drive that still has data waits until somebody fetches it: the
 * bus master stands still without an interrupt ("Programming Interface for Bus
 * Master IDE Controller", section 3.1).  A serial one sends all that it has; an
 * AHCI HBA drops what it has no memory for, and says so.
 */
static void atapi_dma_data_sent(IDEState *s, dma_addr_t bytes)
{
    bool serial = s->bus->dma->ops->commit_buf;

    s->packet_transfer_size -= bytes;
    if (s->packet_transfer_size > 0 && !serial) {
        return;
    }
    s->packet_transfer_size = 0;
    s->status = READY_STAT | SEEK_STAT;
    s->nsector = (s->nsector & ~(CD | IO | REL)) | CD | IO;
    ide_bus_set_irq(s->bus);
}

static void atapi_dma_read_cb(void *opaque, int ret)
{
    IDEState *s = opaque;
    dma_addr_t bytes = s->sg.size;
    bool failed;

    trace_atapi_dma_read_cb(s, ret);
    atapi_dma_judge_host(s);

    if (s->atapi.abandoned) {
        ret = -ECANCELED;
    }
    s->atapi.in_flight = s->atapi.abandoned = false;

    failed = ret < 0;
    if (failed) {
        failed = ide_handle_rw_error(s, -ret, IDE_RETRY_ATAPI);
    }
    dma_buf_commit(s, failed ? 0 : bytes);
    if (!failed) {
        atapi_dma_data_sent(s, bytes);
    } else if (s->bus->error_status) {
        /* The packet is still in io_buffer, and will be executed again. */
        s->bus->dma->aiocb = NULL;
        return;
    }
    atapi_dma_end(s, ret);
    atapi_dma_run_deferred(s);
}

/* The bus master is ready. */
static void atapi_dma_read_start(void *opaque, int unused)
{
    IDEState *s = opaque;
    IDEDMA *dma = s->bus->dma;
    int32_t bytes = dma->ops->prepare_buf(dma, s->packet_transfer_size);

    trace_atapi_dma_read_start(s, s->lba, s->packet_transfer_size, bytes);
    if (bytes < 0) {
        block_acct_failed(blk_get_stats(s->blk), &s->acct);
        ide_dma_error(s);
        return;
    }
    s->atapi.in_flight = true;
    s->atapi.start_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    dma->aiocb = dma_blk_read(s->blk, &s->sg,
                              (int64_t)s->lba * CD_SECTOR_SIZE,
                              BDRV_SECTOR_SIZE, atapi_dma_read_cb, s);
}

bool atapi_dma_read(IDEState *s)
{
    IDEDevice *dev = atapi_dma_device(s);
    DmaBufferedReason reason;

    if (s->cd_sector_size != CD_SECTOR_SIZE) {
        reason = DMA_BUFFERED_REASON_UNSUPPORTED;
    } else if (dev->atapi_dma_mode == ATAPI_DMA_MODE_BUFFERED) {
        reason = DMA_BUFFERED_REASON_DISABLED;
    } else if (dev->atapi_dma_mode == ATAPI_DMA_MODE_AUTO && s->atapi.slow) {
        reason = DMA_BUFFERED_REASON_SLOW;
    } else {
        dma_stats_direct(DEVICE(dev));
        ide_start_dma(s, atapi_dma_read_start);
        return true;
    }
    dma_stats_buffered(DEVICE(dev), reason, s->packet_transfer_size);
    return false;
}
