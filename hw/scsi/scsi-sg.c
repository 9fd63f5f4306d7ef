/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scatter/gather lists of SCSI requests
 */

#include "qemu/osdep.h"
#include "hw/scsi/scsi-sg.h"

void scsi_req_fit_sg(SCSIRequest *req, QEMUSGList *fitted, uint64_t bytes)
{
    QEMUSGList *sg = req->sg;
    int i;

    if (sg->size > bytes) {
        assert(!fitted->sg);
        qemu_sglist_init(fitted, sg->dev, 0, sg->as);
        for (i = 0; fitted->size < bytes; i++) {
            const ScatterGatherEntry *entry = &sg->sg[i];

            qemu_sglist_add(fitted, entry->base,
                            MIN(entry->len, bytes - fitted->size));
        }
        req->sg = fitted;
    }
    req->residual = req->cmd.xfer - MIN(req->cmd.xfer, req->sg->size);
}
