/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The buffers of requests that were migrated
 */

#include "qemu/osdep.h"
#include "hw/scsi/scsi.h"

uint8_t *scsi_req_get_buf_part(SCSIRequest *req, uint32_t offset, uint32_t len)
{
    size_t size = req->ops->get_buf_len ? req->ops->get_buf_len(req) : 0;

    if (offset > size || len > size - offset) {
        return NULL;
    }
    return scsi_req_get_buf(req) + offset;
}
