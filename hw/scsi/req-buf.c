/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The buffers of requests that were migrated
 */

#include "qemu/osdep.h"
#include "hw/scsi/scsi.h"
#include "migration/qemu-file-types.h"

static size_t buf_len(SCSIRequest *req)
{
    if (req->loaded_buf) {
        return req->loaded_len;
    }
    return req->ops->get_buf_len ? req->ops->get_buf_len(req) : 0;
}

uint8_t *scsi_req_get_buf_part(SCSIRequest *req, uint32_t offset, uint32_t len)
{
    size_t size = buf_len(req);

    if (offset > size || len > size - offset) {
        return NULL;
    }
    return scsi_req_get_buf(req) + offset;
}

uint8_t *scsi_req_buf_to_save(SCSIRequest *req, uint32_t len)
{
    bool saved = !req->loaded_buf && buf_len(req) >= len;

    /* A buffer that the device wants to have filled has to be its own. */
    if (saved || req->cmd.mode == SCSI_XFER_TO_DEV ||
        len > SCSI_REQ_MAX_LOADED) {
        return NULL;
    }
    return scsi_req_get_buf(req);
}

void scsi_req_set_loaded_buf(SCSIRequest *req, uint8_t *buf, uint32_t len)
{
    scsi_req_drop_loaded_buf(req);
    req->loaded_buf = buf;
    req->loaded_len = len;
}

void scsi_req_save_buf(QEMUFile *f, SCSIRequest *req, uint32_t len)
{
    uint8_t *buf = scsi_req_buf_to_save(req, len);

    qemu_put_be32(f, buf ? len : 0);
    if (buf) {
        qemu_put_buffer(f, buf, len);
    }
}

bool scsi_req_load_buf(QEMUFile *f, SCSIRequest *req)
{
    uint32_t len = qemu_get_be32(f);

    if (len > SCSI_REQ_MAX_LOADED) {
        return false;
    }
    if (len) {
        scsi_req_set_loaded_buf(req, g_malloc(len), len);
        qemu_get_buffer(f, req->loaded_buf, len);
    }
    return true;
}

void scsi_req_drop_loaded_buf(SCSIRequest *req)
{
    g_free(req->loaded_buf);
    req->loaded_buf = NULL;
    req->loaded_len = 0;
}
