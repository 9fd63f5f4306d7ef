/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ESP: data phases that move directly between disk and guest memory
 */

#include "qemu/osdep.h"
#include "hw/scsi/esp.h"
#include "hw/scsi/late-sg.h"
#include "migration/vmstate.h"
#include "qemu/host-utils.h"
#include "scsi/constants.h"
#include "system/block-backend.h"
#include "trace.h"

/*
 * A habit says how the driver moved its last reads of a length: if it is not
 * negative, with one TI for all of the data.  It takes two exceptions to break
 * one.  A driver that has none yet gets the benefit of the doubt.
 */
#define HABIT_MAX   1
#define HABIT_MIN   (-2)

void esp_sg_init(ESPState *s, DeviceState *hba, bool enabled)
{
    s->sg.enabled = enabled;
    if (s->sg.ops) {
        dma_device_stats_register(&s->sg.stats, hba);
    }
}

void esp_sg_exit(ESPState *s)
{
    if (s->sg.ops) {
        dma_device_stats_unregister(&s->sg.stats);
    }
}

static int8_t *esp_sg_habit(ESPSG *sg, SCSIRequest *req)
{
    int target = req->dev->id % ESP_SG_TARGETS;
    int length = 63 - clz64(DIV_ROUND_UP(req->cmd.xfer, BDRV_SECTOR_SIZE));

    return &sg->habits[target][MIN(length, ESP_SG_LENGTHS - 1)];
}

void esp_sg_begin(ESPState *s)
{
    SCSIRequest *req = s->current_req;
    ESPSG *sg = &s->sg;

    sg->deferred = false;
    sg->habit = NULL;
    if (!sg->ops) {
        /* Not a chip that could move anything directly */
    } else if (!sg->enabled) {
        dma_device_stats_buffered(&sg->stats, DMA_BUFFERED_REASON_DISABLED,
                                  req->cmd.xfer);
    } else if (!scsi_req_can_continue_sg(req)) {
        dma_device_stats_buffered(&sg->stats, DMA_BUFFERED_REASON_UNSUPPORTED,
                                  req->cmd.xfer);
    } else if (req->cmd.mode == SCSI_XFER_TO_DEV) {
        /* Nothing is lost: the device could only ask for data now. */
        sg->deferred = true;
    } else {
        sg->habit = esp_sg_habit(sg, req);
        sg->deferred = *sg->habit >= 0;
    }

    if (sg->deferred) {
        /* Interrupt the guest as if the first data had come. */
        esp_transfer_data(req, 0);
    } else {
        scsi_req_continue(req);
    }
}

/* The first TI, or what the guest does instead, for the current request */
static void esp_sg_learn(ESPSG *sg, bool whole)
{
    if (sg->habit) {
        *sg->habit = whole ? MIN(*sg->habit + 1, HABIT_MAX)
                           : MAX(*sg->habit - 1, HABIT_MIN);
        sg->habit = NULL;
    }
}

static bool esp_sg_get_list(ESPState *s, SCSIRequest *req)
{
    DMADirection dir = req->cmd.mode == SCSI_XFER_TO_DEV ?
                       DMA_DIRECTION_TO_DEVICE : DMA_DIRECTION_FROM_DEVICE;

    /* What is in the FIFO would go first.  */
    return s->sg.enabled && fifo8_num_used(&s->fifo) < 2 &&
           scsi_req_can_continue_sg(req) &&
           s->sg.ops->get_sg(s->dma_opaque, &s->sg.list, req->cmd.xfer, dir);
}

bool esp_sg_ti(ESPState *s, uint32_t count)
{
    SCSIRequest *req = s->current_req;
    ESPSG *sg = &s->sg;
    DmaBufferedReason reason;
    bool whole;

    if (!req || !(sg->deferred || sg->habit)) {
        return false;
    }
    /* The guest may have written another command before it enabled DMA.  */
    if (s->rregs[ESP_CMD] != (CMD_TI | CMD_DMA)) {
        return false;
    }

    whole = count >= req->cmd.xfer;
    esp_sg_learn(sg, whole);
    if (!sg->deferred) {
        reason = whole ? DMA_BUFFERED_REASON_HABIT
                       : DMA_BUFFERED_REASON_PARTIAL;
        dma_device_stats_buffered(&sg->stats, reason, req->cmd.xfer);
        return false;
    }

    sg->deferred = false;
    if (whole && esp_sg_get_list(s, req)) {
        trace_esp_sg_direct(sg->list.nsg, sg->list.size);
        sg->stats.direct++;
        sg->stats.max_in_flight = 1;
        scsi_req_continue_sg(req, &sg->list);
    } else {
        trace_esp_sg_buffered(count, req->cmd.xfer);
        reason = whole ? DMA_BUFFERED_REASON_MODE
                       : DMA_BUFFERED_REASON_PARTIAL;
        dma_device_stats_buffered(&sg->stats, reason, req->cmd.xfer);
        /* The TI is done when esp_transfer_data() is called.  */
        scsi_req_continue(req);
    }
    return true;
}

void esp_sg_no_dma(ESPState *s)
{
    SCSIRequest *req = s->current_req;
    ESPSG *sg = &s->sg;

    if (!req || !(sg->deferred || sg->habit)) {
        return;
    }

    esp_sg_learn(sg, false);
    dma_device_stats_buffered(&sg->stats, DMA_BUFFERED_REASON_MODE,
                              req->cmd.xfer);
    if (sg->deferred) {
        sg->deferred = false;
        scsi_req_continue(req);
    }
}

static void esp_sg_forget(ESPSG *sg)
{
    sg->deferred = false;
    sg->habit = NULL;
    if (sg->list.nsg) {
        qemu_sglist_destroy(&sg->list);
    }
}

uint32_t esp_sg_complete(ESPState *s, SCSIRequest *req, uint32_t count)
{
    ESPSG *sg = &s->sg;

    if (req != s->current_req) {
        return count;
    }
    if (sg->list.nsg &&
        (req->status == GOOD || req->cmd.mode == SCSI_XFER_TO_DEV)) {
        count -= MIN(count, sg->list.size);
        s->ti_size = 0;
        sg->ops->sg_done(s->dma_opaque, &sg->list);
    }
    esp_sg_forget(sg);
    return count;
}

void esp_sg_cancel(ESPState *s, SCSIRequest *req)
{
    if (req == s->current_req) {
        esp_sg_forget(&s->sg);
    }
}

void esp_sg_stop(ESPState *s)
{
    if (s->sg.list.nsg) {
        s->sg.stats.barriers[DMA_BARRIER_CAUSE_STOP]++;
        blk_drain(s->current_req->dev->conf.blk);
    }
}

void esp_sg_reset(ESPState *s)
{
    ESPSG *sg = &s->sg;

    if (s->current_req && (sg->deferred || sg->list.nsg)) {
        scsi_req_cancel(s->current_req);
    }
    memset(sg->habits, 0, sizeof(sg->habits));
}

static bool esp_sg_needed(void *opaque)
{
    ESPState *s = opaque;

    return s->sg.deferred;
}

/*
 * Data that is being moved is not saved: none is when the machine is stopped.
 * A request that waits for its retry after an I/O error begins anew where it
 * is loaded, through the buffer.
 */
const VMStateDescription vmstate_esp_sg = {
    .name = "esp/sg",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = esp_sg_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(sg.deferred, ESPState),
        VMSTATE_END_OF_LIST()
    }
};
