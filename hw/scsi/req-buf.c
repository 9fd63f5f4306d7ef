/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The buffers of requests that were migrated
 */

#include "qemu/osdep.h"
#include "hw/scsi/scsi.h"
#include "migration/qemu-file-types.h"

static size_t buf_len(SCSIRequest *req)
{
    if (req->loaded_len) {
        return req->loaded_len;
    }
    return req->ops->get_buf_len ? req->ops->get_buf_len(req) : 0;
}

uint8_t *scsi_req_get_buf_part(SCSIRequest *req, uint32_t offset, uint32_t len)
{
    size_t size = buf_len(req);

    /* If it begins again, it has no data yet. */
    if (req->retry || req->aiocb || offset > size || len > size - offset) {
        return NULL;
    }
    return scsi_req_get_buf(req) + offset;
}

uint8_t *scsi_req_buf_to_save(SCSIRequest *req, uint32_t len)
{
    if (req->loaded_len) {
        return len <= req->loaded_len ? req->loaded_buf : NULL;
    }
    /* A buffer that the device wants to have filled has to be its own. */
    if (buf_len(req) >= len || req->cmd.mode == SCSI_XFER_TO_DEV ||
        len > SCSI_REQ_MAX_LOADED) {
        return NULL;
    }
    return scsi_req_get_buf(req);
}

bool scsi_req_set_loaded_buf(SCSIRequest *req, uint8_t *buf, uint32_t len)
{
    bool can_have_data = !req->loaded_buf && !req->retry &&
        req->cmd.mode == SCSI_XFER_FROM_DEV && len <= req->cmd.xfer &&
        req->ops->read_data && req->ops->get_buf;

    if (!can_have_data) {
        g_free(buf);
        return false;
    }
    req->loaded_buf = buf;
    req->loaded_len = len;
    return true;
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
    uint8_t *buf;

    if (!len || len > SCSI_REQ_MAX_LOADED) {
        return !len;
    }
    buf = g_malloc0(len);
    qemu_get_buffer(f, buf, len);
    return scsi_req_set_loaded_buf(req, buf, len);
}
