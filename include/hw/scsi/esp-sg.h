/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ESP: data phases that move directly between disk and guest memory
 *
 * The chip learns where a command's data goes from the driver's Transfer
 * Information command (TI), when the command has long been sent.  If one TI
 * asks for all of a command's data, and the DMA engine around the chip can
 * tell the addresses, the data needs no buffer.
 *
 * A TI for a part of the data, programmed I/O and Transfer Pad use the buffer
 * of the SCSI device, which is faster if it is filled while the driver still
 * gets ready.  So the two ways part before the TI is known, and it is for the
 * driver's last commands of that size to tell which one the next will need.
 */

#ifndef HW_SCSI_ESP_SG_H
#define HW_SCSI_ESP_SG_H

#include "hw/scsi/scsi.h"
#include "system/dma.h"
#include "system/dma-stats.h"

typedef struct ESPState ESPState;

/**
 * ESPDMASGOps: what a DMA engine that knows its addresses does for the chip
 *
 * @get_sg: Describe what the next @len bytes of the current transfer move to
 *          (%DMA_DIRECTION_FROM_DEVICE) or from.  Returns false, and
 *          initializes nothing, if the engine is not programmed to move all
 *          of them in that direction; otherwise @sg is the caller's.  Changes
 *          no register.
 * @sg_done: All that @sg, from @get_sg, describes has been moved: bring the
 *           registers to where that leaves them.  The guest may have written
 *           to any of them since.
 */
typedef struct ESPDMASGOps {
    bool (*get_sg)(void *dma_opaque, QEMUSGList *sg, uint32_t len,
                   DMADirection dir);
    void (*sg_done)(void *dma_opaque, const QEMUSGList *sg);
} ESPDMASGOps;

/* Target IDs that the chip can select */
#define ESP_SG_TARGETS      8
/* Classes of transfer length, by powers of two */
#define ESP_SG_LENGTHS      16

/**
 * ESPSG: private to esp-sg.c, but for
 *
 * @ops: of the DMA engine, or NULL if it has none; set before realize
 * @deferred: the current request shows its data phase, but has not begun: it
 *            waits for a TI
 */
typedef struct ESPSG {
    const ESPDMASGOps *ops;
    bool enabled;
    bool deferred;

    QEMUSGList list;            /* of the current request, or no entries */
    int8_t *habit;              /* that its first TI will confirm, or NULL */
    int8_t habits[ESP_SG_TARGETS][ESP_SG_LENGTHS];
    DMADeviceStats stats;
} ESPSG;

/**
 * esp_sg_init: say how a chip moves data, and let x-query-dma show it
 * @s: the chip, with s->sg.ops set
 * @hba: the device that it is a part of
 * @enabled: whether to move data directly at all: the property "direct-dma"
 */
void esp_sg_init(ESPState *s, DeviceState *hba, bool enabled);

/**
 * esp_sg_exit: undo esp_sg_init(), when @s has no request any more
 * @s: the chip
 */
void esp_sg_exit(ESPState *s);

/**
 * esp_sg_begin: begin the data phase of the current request
 * @s: the chip, which has just enqueued s->current_req and set the phase
 *
 * Either lets the request begin with scsi_req_continue(), or shows the guest
 * the data phase and waits for its TI.
 */
void esp_sg_begin(ESPState *s);

/**
 * esp_sg_ti: a TI with DMA
 * @s: the chip
 * @count: the transfer counter, in bytes
 *
 * Returns: false if the TI is one of a request that has begun, or is not the
 * chip's command any more, and left to the caller; true if it is being served.
 */
bool esp_sg_ti(ESPState *s, uint32_t count);

/**
 * esp_sg_no_dma: a TI without DMA, or a Transfer Pad
 * @s: the chip
 *
 * Lets the current request begin if it has not.
 */
void esp_sg_no_dma(ESPState *s);

/**
 * esp_sg_complete: a request is complete
 * @s: the chip
 * @req: the request
 * @count: the transfer counter, in bytes
 *
 * Returns: the transfer counter without the bytes that were moved directly.
 * After an error those are all of them if the request is a write, because the
 * target has taken the data, and none if it is a read.
 */
uint32_t esp_sg_complete(ESPState *s, SCSIRequest *req, uint32_t count);

/**
 * esp_sg_cancel: a request has been cancelled
 * @s: the chip
 * @req: the request
 */
void esp_sg_cancel(ESPState *s, SCSIRequest *req);

/**
 * esp_sg_stop: the guest stops the DMA engine
 * @s: the chip
 *
 * Waits for data that is being moved directly: the engine does not touch
 * memory after it was stopped.
 */
void esp_sg_stop(ESPState *s);

/**
 * esp_sg_reset: the chip is reset
 * @s: the chip
 *
 * Cancels the current request if its data is, or would be, moved directly, and
 * forgets what the driver used to do.
 */
void esp_sg_reset(ESPState *s);

extern const VMStateDescription vmstate_esp_sg;

#endif
