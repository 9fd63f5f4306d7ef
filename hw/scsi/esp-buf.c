/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ESP: what the guest has not moved yet of a request's buffer
 */

#include "qemu/osdep.h"
#include "hw/scsi/esp.h"
#include "migration/qemu-file.h"
#include "migration/vmstate.h"

void esp_find_async_buf(ESPState *s)
{
    if (!s->async_len || s->async_buf) {
        return;
    }
    if (s->current_req) {
        s->async_buf = scsi_req_get_buf_part(s->current_req,
                                             s->mig_async_offset,
                                             s->async_len);
    }
    if (!s->async_buf) {
        s->async_len = 0;
    }
}

static bool esp_buf_needed(void *opaque)
{
    ESPState *s = opaque;

    return s->current_req && s->async_len;
}

static int esp_buf_pre_save(void *opaque)
{
    ESPState *s = opaque;
    uint32_t len;

    esp_find_async_buf(s);
    s->mig_async_offset = 0;
    if (s->async_len) {
        s->mig_async_offset = s->async_buf -
                              scsi_req_get_buf(s->current_req);
    }
    len = s->mig_async_offset + s->async_len;
    s->mig_buf = scsi_req_buf_to_save(s->current_req, len);
    s->mig_buf_len = s->mig_buf ? len : 0;
    return 0;
}

static int esp_buf_post_save(void *opaque)
{
    ESPState *s = opaque;

    /* It is the request's. */
    s->mig_buf = NULL;
    return 0;
}

int esp_buf_pre_load(void *opaque)
{
    ESPState *s = opaque;

    g_clear_pointer(&s->mig_buf, g_free);
    return 0;
}

static int esp_buf_post_load(void *opaque, int version_id)
{
    ESPState *s = opaque;

    /* The request comes with its device, later. */
    s->async_buf = NULL;
    /* A command that has not begun to move data has none. */
    return s->sg.deferred ? -EINVAL : 0;
}

void esp_load_buf(ESPState *s, QEMUFile *f)
{
    uint8_t *buf = g_steal_pointer(&s->mig_buf);

    if (buf && !scsi_req_set_loaded_buf(s->current_req, buf, s->mig_buf_len)) {
        qemu_file_set_error(f, -EINVAL);
    }
}

static bool esp_buf_fits(void *opaque, int version_id)
{
    ESPState *s = opaque;

    return s->mig_buf_len <= SCSI_REQ_MAX_LOADED;
}

/* The device saves data itself, but for answers that it has made up. */
const VMStateDescription vmstate_esp_buf = {
    .name = "esp/buf",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = esp_buf_needed,
    .pre_save = esp_buf_pre_save,
    .post_save = esp_buf_post_save,
    .post_load = esp_buf_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(async_len, ESPState),
        VMSTATE_UINT32(mig_async_offset, ESPState),
        VMSTATE_UINT32(mig_buf_len, ESPState),
        VMSTATE_VALIDATE("answer fits", esp_buf_fits),
        VMSTATE_VBUFFER_ALLOC_UINT32(mig_buf, ESPState, 0, NULL, mig_buf_len),
        VMSTATE_END_OF_LIST()
    }
};
