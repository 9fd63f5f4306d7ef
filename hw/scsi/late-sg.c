/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scatter lists that become known in the data phase
 */

#include "qemu/osdep.h"
#include "hw/scsi/late-sg.h"

bool scsi_req_can_continue_sg(SCSIRequest *req)
{
    return req->enqueued && !req->io_canceled && !req->sg && !req->aiocb &&
           req->cmd.mode != SCSI_XFER_NONE &&
           req->ops->can_continue_sg && req->ops->can_continue_sg(req);
}

void scsi_req_continue_sg(SCSIRequest *req, QEMUSGList *sg)
{
    assert(scsi_req_can_continue_sg(req));
    assert(sg->size);

    req->sg = sg;
    scsi_req_continue(req);
}
