/*
 * SCSI host bus adapters, as tests drive them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "scsi-test-util.h"

/* SPC */
#define SCSI_TEST_UNIT_READY    0x00

SGEntry *sg_entries(Machine *m, const Request *req)
{
    SGEntry *list = g_new(SGEntry, req->list->len);
    int i;

    for (i = 0; i < req->list->len; i++) {
        const Entry *e = &g_array_index(req->list, Entry, i);

        list[i] = (SGEntry) { entry_address(m, e), e->len };
    }
    return list;
}

void megasas_post(Machine *m, uint32_t offset, const uint8_t *frame,
                  uint32_t len)
{
    region_write(m, TABLE, offset, frame, len);
    qpci_io_writel(m->hba, m->hba_bar, MFI_IQP,
                   m->region[TABLE].base + offset);
}

uint8_t megasas_frame_readb(Machine *m, uint32_t offset, int field)
{
    return qtest_readb(m->qts, m->region[TABLE].base + offset + field);
}

uint32_t megasas_put_sgl(uint8_t *frame, int sgl, const SGEntry *list,
                         int entries)
{
    int i;

    g_assert_cmpint(entries, <=, MFI_MAX_SGE);
    frame[MFI_FRAME_SGE_COUNT] = entries;
    for (i = 0; i < entries; i++, sgl += MFI_SGE_SIZE) {
        stl_le_p(&frame[sgl], list[i].addr);
        stl_le_p(&frame[sgl + 4], list[i].len);
    }
    return sgl;
}

uint8_t megasas_wait(Machine *m, uint32_t offset)
{
    int64_t deadline = patience_ends();
    uint8_t status;

    while ((status = megasas_frame_readb(m, offset, MFI_FRAME_CMD_STATUS)) ==
           MFI_STAT_PENDING) {
        wait_before_poll(deadline, "end of command");
    }
    region_accept(m, TABLE, offset + MFI_FRAME_CMD_STATUS, 2);
    return status;
}

void megasas_init(Machine *m)
{
    uint64_t base = m->region[TABLE].base + MFI_FRAME_INIT;
    uint32_t info = MFI_FRAME_MAPPED, indices = info + MFI_QINFO_SIZE;
    uint32_t replies = indices + MFI_QINFO_SIZE;
    uint8_t buf[MFI_QINFO_SIZE] = { };
    uint8_t frame[64] = {
        [MFI_FRAME_CMD] = MFI_CMD_INIT,
        [MFI_FRAME_CMD_STATUS] = MFI_STAT_PENDING,
    };

    region_write(m, TABLE, MFI_FRAME_INIT + indices, buf, sizeof(buf));
    stl_le_p(&buf[MFI_QINFO_ENTRIES], MFI_REPLIES);
    stl_le_p(&buf[MFI_QINFO_REPLY_LOW], base + replies);
    stl_le_p(&buf[MFI_QINFO_PRODUCER_LOW], base + indices);
    stl_le_p(&buf[MFI_QINFO_CONSUMER_LOW], base + indices + 4);
    region_write(m, TABLE, MFI_FRAME_INIT + info, buf, sizeof(buf));
    stl_le_p(&frame[MFI_INIT_QINFO_LOW], base + info);
    megasas_post(m, MFI_FRAME_INIT, frame, sizeof(frame));
    g_assert_cmphex(megasas_wait(m, MFI_FRAME_INIT), ==, MFI_STAT_OK);
    region_accept(m, TABLE, MFI_FRAME_INIT + indices,
                  MFI_QINFO_SIZE + MFI_REPLIES * sizeof(uint64_t));
}

void megasas_abort(Machine *m, uint32_t offset, uint64_t context)
{
    uint8_t frame[64] = {
        [MFI_FRAME_CMD] = MFI_CMD_ABORT,
        [MFI_FRAME_CMD_STATUS] = MFI_STAT_PENDING,
    };

    stq_le_p(&frame[MFI_ABORT_CONTEXT], context);
    stl_le_p(&frame[MFI_ABORT_FRAME_LOW], m->region[TABLE].base + offset);
    megasas_post(m, MFI_FRAME_ABORT, frame, sizeof(frame));
    g_assert_cmphex(megasas_wait(m, MFI_FRAME_ABORT), ==, MFI_STAT_OK);
    megasas_wait(m, offset);
}

void virtio_scsi_post(Machine *m, VirtioScsi *v, const uint8_t *cdb,
                      int cdb_len, Direction dir, const SGEntry *list,
                      int entries)
{
    struct virtio_scsi_cmd_req cmd = { .lun = { 1 } };
    struct virtio_scsi_cmd_resp resp = { .response = 0xff };
    QVirtQueue *vq = v->vq[v->requestq];
    bool out = entries && dir == WRITE;
    bool in = entries && dir == READ;
    int i;

    memcpy(cmd.cdb, cdb, cdb_len);
    qtest_memwrite(m->qts, v->req_addr, &cmd, sizeof(cmd));
    qtest_memwrite(m->qts, v->resp_addr, &resp, sizeof(resp));

    qvirtqueue_reset_pool(vq);
    v->head = qvirtqueue_add(m->qts, vq, v->req_addr, sizeof(cmd), false,
                             true);
    if (in) {
        qvirtqueue_add(m->qts, vq, v->resp_addr, sizeof(resp), true, true);
    }
    for (i = 0; i < entries; i++) {
        qvirtqueue_add(m->qts, vq, list[i].addr, list[i].len, in,
                       out || i < entries - 1);
    }
    if (!in) {
        qvirtqueue_add(m->qts, vq, v->resp_addr, sizeof(resp), true, false);
    }
    qvirtqueue_kick(m->qts, &v->pci->vdev, vq, v->head);
}

/*
 * Do not ask for an interrupt, as qvirtio_wait_used_elem() does: who waits for
 * one queue would acknowledge the other's.
 */
static bool poll_used(Machine *m, QVirtQueue *vq, uint32_t head)
{
    uint32_t used;

    if (!qvirtqueue_get_buf(m->qts, vq, &used, NULL)) {
        return false;
    }
    g_assert_cmpuint(used, ==, head);
    return true;
}

void virtio_wait_used(Machine *m, QVirtQueue *vq, uint32_t head)
{
    int64_t deadline = patience_ends();

    while (!poll_used(m, vq, head)) {
        wait_before_poll(deadline, "used element");
    }
}

bool virtio_scsi_poll(Machine *m, VirtioScsi *v,
                      struct virtio_scsi_cmd_resp *resp)
{
    if (!poll_used(m, v->vq[v->requestq], v->head)) {
        return false;
    }
    qtest_memread(m->qts, v->resp_addr, resp, sizeof(*resp));
    return true;
}

void virtio_scsi_wait(Machine *m, VirtioScsi *v,
                      struct virtio_scsi_cmd_resp *resp)
{
    virtio_wait_used(m, v->vq[v->requestq], v->head);
    qtest_memread(m->qts, v->resp_addr, resp, sizeof(*resp));
}

uint8_t virtio_scsi_tmf(Machine *m, VirtioScsi *v, uint32_t function)
{
    struct virtio_scsi_ctrl_tmf_req tmf = {
        .type = VIRTIO_SCSI_T_TMF,
        .subtype = cpu_to_le32(function),
        .lun = { 1 },
    };
    struct virtio_scsi_ctrl_tmf_resp resp = { .response = 0xff };
    QVirtQueue *vq = v->vq[VIRTIO_SCSI_CTRLQ];
    uint32_t head;

    qtest_memwrite(m->qts, v->ctrl_addr, &tmf, sizeof(tmf));
    qtest_memwrite(m->qts, v->ctrl_addr + sizeof(tmf), &resp, sizeof(resp));
    qvirtqueue_reset_pool(vq);
    head = qvirtqueue_add(m->qts, vq, v->ctrl_addr, sizeof(tmf), false, true);
    qvirtqueue_add(m->qts, vq, v->ctrl_addr + sizeof(tmf), sizeof(resp), true,
                   false);
    qvirtqueue_kick(m->qts, &v->pci->vdev, vq, head);
    virtio_wait_used(m, vq, head);
    qtest_memread(m->qts, v->ctrl_addr + sizeof(tmf), &resp, sizeof(resp));
    return resp.response;
}

VirtioScsi virtio_scsi_queue(const VirtioScsi *v, int requestq,
                             QGuestAllocator *alloc)
{
    VirtioScsi queue = *v;

    g_assert_cmpint(requestq, <, v->queues);
    queue.requestq = requestq;
    queue.req_addr = guest_alloc(alloc, sizeof(struct virtio_scsi_cmd_req));
    queue.resp_addr = guest_alloc(alloc, sizeof(struct virtio_scsi_cmd_resp));
    return queue;
}

QVirtioPCIDevice *virtio_negotiate(Machine *m, int devfn)
{
    QPCIAddress addr = { .devfn = devfn };
    QVirtioPCIDevice *pci = virtio_pci_new(m->pci, &addr);
    QVirtioDevice *vdev = &pci->vdev;
    uint64_t features;

    qvirtio_pci_device_enable(pci);
    qvirtio_start_device(vdev);
    features = qvirtio_get_features(vdev);
    qvirtio_set_features(vdev, features & ~(QVIRTIO_F_BAD_FEATURE |
                                            1ull << VIRTIO_RING_F_EVENT_IDX));
    return pci;
}

void virtio_release(QVirtioPCIDevice *pci)
{
    qvirtio_pci_device_disable(pci);
    g_free(pci->pdev);
    g_free(pci);
}

void virtio_scsi_start(Machine *m, VirtioScsi *v, int slot,
                       QGuestAllocator *alloc)
{
    static const uint8_t test_unit_ready[6] = { SCSI_TEST_UNIT_READY };
    struct virtio_scsi_cmd_resp resp;
    QVirtioDevice *vdev;
    int i;

    v->pci = virtio_negotiate(m, QPCI_DEVFN(slot, 0));
    vdev = &v->pci->vdev;
    v->queues = VIRTIO_SCSI_REQUESTQ +
        qvirtio_config_readl(vdev, offsetof(struct virtio_scsi_config,
                                            num_queues));
    g_assert_cmpint(v->queues, <=, VIRTIO_SCSI_MAX_QUEUES);
    for (i = 0; i < v->queues; i++) {
        v->vq[i] = qvirtqueue_setup(vdev, alloc, i);
    }
    qvirtio_set_driver_ok(vdev);

    *v = virtio_scsi_queue(v, VIRTIO_SCSI_REQUESTQ, alloc);
    v->ctrl_addr = guest_alloc(alloc, 256);

    /* Power-on unit attention */
    virtio_scsi_post(m, v, test_unit_ready, sizeof(test_unit_ready), READ,
                     NULL, 0);
    virtio_scsi_wait(m, v, &resp);
    g_assert_cmphex(resp.response, ==, VIRTIO_SCSI_S_OK);
    g_assert_cmphex(resp.status, ==, SCSI_CHECK_CONDITION);
}

void virtio_scsi_free(VirtioScsi *v, QGuestAllocator *alloc)
{
    int i;

    for (i = 0; i < v->queues; i++) {
        qvirtqueue_cleanup(v->pci->vdev.bus, v->vq[i], alloc);
    }
    virtio_release(v->pci);
}

void virtio_scsi_stop(VirtioScsi *v, QGuestAllocator *alloc)
{
    qvirtio_reset(&v->pci->vdev);
    virtio_scsi_free(v, alloc);
}
