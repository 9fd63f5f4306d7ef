/*
 * SCSI host bus adapters, as tests drive them
 *
 * Two that read the scatter/gather list of a command from guest memory: the
 * LSI MegaRAID SAS 8708EM2 (megasas), with "MFI" message frames, and
 * virtio-scsi.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SCSI_TEST_UTIL_H
#define SCSI_TEST_UTIL_H

#include "dma-test-util.h"
#include "libqos/libqos-malloc.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_scsi.h"

/* SAM: status codes */
#define SCSI_GOOD                       0x00
#define SCSI_CHECK_CONDITION            0x02
#define SCSI_BUSY                       0x08
#define SCSI_RESERVATION_CONFLICT       0x18

/* One entry of a scatter/gather list */
typedef struct SGEntry {
    uint64_t addr;
    uint32_t len;
} SGEntry;

/* What a request's list looks like to a controller; free it with g_free() */
SGEntry *sg_entries(Machine *m, const Request *req);

/* megasas */

#define MEGASAS_SLOT            5
#define MEGASAS_PORT_BAR        2
#define MFI_IDB                 0x20            /* inbound doorbell */
#define   MFI_IDB_READY         0x02            /* reset, then be ready */
#define MFI_IQP                 0x40            /* inbound queue: a frame */

#define MFI_FRAME_CMD           0
#define   MFI_CMD_INIT          0
#define   MFI_CMD_LD_READ       1
#define   MFI_CMD_LD_WRITE      2
#define   MFI_CMD_PD_SCSI_IO    4
#define   MFI_CMD_ABORT         6
#define MFI_FRAME_SENSE_LEN     1
#define MFI_FRAME_CMD_STATUS    2
#define   MFI_STAT_OK           0x00
#define   MFI_STAT_SCSI_DONE_WITH_ERROR 0x2d
#define   MFI_STAT_SCSI_IO_FAILED       0x2e
#define   MFI_STAT_PENDING      0xff
#define MFI_FRAME_SCSI_STATUS   3
#define MFI_FRAME_TARGET_ID     4
#define MFI_FRAME_CDB_LEN       6
#define MFI_FRAME_SGE_COUNT     7
#define MFI_FRAME_CONTEXT       8
#define MFI_FRAME_DATA_LEN      20              /* IO: blocks; SCSI: bytes */
#define MFI_FRAME_SENSE_LOW     24
#define MFI_INIT_QINFO_LOW      24
#define   MFI_QINFO_ENTRIES     4
#define   MFI_QINFO_REPLY_LOW   8
#define   MFI_QINFO_PRODUCER_LOW        16
#define   MFI_QINFO_CONSUMER_LOW        24
#define   MFI_QINFO_SIZE        32
#define MFI_REPLIES             8
#define MFI_IO_LBA_LOW          32
#define MFI_IO_SGL              40
#define MFI_PASS_CDB            32
#define MFI_PASS_SGL            48
#define MFI_ABORT_CONTEXT       24
#define MFI_ABORT_FRAME_LOW     32
#define MFI_SGE_SIZE            8               /* 32-bit address, length */
#define MFI_MAX_SGE             128
#define MFI_MAX_FRAMES          1008            /* at once */
#define MFI_FRAME_MAPPED        2048

/* Frames lie in the region of tables; the controller maps this much of each */
#define MFI_FRAME(n)            ((n) * 4 * KiB)
/* No commands to disks have frames with these numbers */
#define MFI_FRAME_ABORT         MFI_FRAME(2)
#define MFI_FRAME_INIT          MFI_FRAME(3)

/* Write a frame and hand it to the controller */
void megasas_post(Machine *m, uint32_t offset, const uint8_t *frame,
                  uint32_t len);

uint8_t megasas_frame_readb(Machine *m, uint32_t offset, int field);

/* Fill in the scatter/gather list of a frame; returns the frame's length */
uint32_t megasas_put_sgl(uint8_t *frame, int sgl, const SGEntry *list,
                         int entries);

/* Wait for the end of a frame's command; returns its MFI status */
uint8_t megasas_wait(Machine *m, uint32_t offset);

/* Initialize the firmware, with a reply queue that nobody looks at */
void megasas_init(Machine *m);

/* Abort the command in a frame, and wait for the end of both */
void megasas_abort(Machine *m, uint32_t offset, uint64_t context);

/* virtio-scsi */

/* Control, event and request queues */
#define VIRTIO_SCSI_MAX_QUEUES  4
#define VIRTIO_SCSI_CTRLQ       0
#define VIRTIO_SCSI_REQUESTQ    2

/* Out of the way of all regions */
#define VIRTIO_MEMORY_BEGIN     (8 * MiB)
#define VIRTIO_MEMORY_END       (16 * MiB)

typedef struct VirtioScsi {
    QVirtioPCIDevice *pci;
    QVirtQueue *vq[VIRTIO_SCSI_MAX_QUEUES];
    int queues;
    int requestq;
    uint64_t req_addr;
    uint64_t resp_addr;
    uint64_t ctrl_addr;
    uint32_t head;
} VirtioScsi;

/*
 * Reset a virtio device and negotiate all features but those that tests cannot
 * do with.  Its queues come next, and then that the driver is ready.
 */
QVirtioPCIDevice *virtio_negotiate(Machine *m, int devfn);

/* The same device is not used any more; its queues are gone. */
void virtio_release(QVirtioPCIDevice *pci);

/* Wait until the buffers that begin with descriptor @head have been used */
void virtio_wait_used(Machine *m, QVirtQueue *vq, uint32_t head);

/* Start the controller in a PCI slot, and swallow the unit attention */
void virtio_scsi_start(Machine *m, VirtioScsi *v, int slot,
                       QGuestAllocator *alloc);
void virtio_scsi_stop(VirtioScsi *v, QGuestAllocator *alloc);

/*
 * Another request queue of the controller, the one with this number, for
 * another command at the same time; it ends with the controller
 */
VirtioScsi virtio_scsi_queue(const VirtioScsi *v, int requestq,
                             QGuestAllocator *alloc);

/* The same, of a controller that has been reset by somebody else */
void virtio_scsi_free(VirtioScsi *v, QGuestAllocator *alloc);

/* Start a command on target 0; one at a time */
void virtio_scsi_post(Machine *m, VirtioScsi *v, const uint8_t *cdb,
                      int cdb_len, Direction dir, const SGEntry *list,
                      int entries);

/* Has it ended? */
bool virtio_scsi_poll(Machine *m, VirtioScsi *v,
                      struct virtio_scsi_cmd_resp *resp);

/* Wait for its end */
void virtio_scsi_wait(Machine *m, VirtioScsi *v,
                      struct virtio_scsi_cmd_resp *resp);

/* A task management function on target 0; returns its response */
uint8_t virtio_scsi_tmf(Machine *m, VirtioScsi *v, uint32_t function);

#endif
