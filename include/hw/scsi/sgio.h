/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SG_IO for requests of any length, on guest memory
 *
 * The ioctl SG_IO runs one SCSI command on a device of the host.  It takes all
 * of the command's data at once, as one buffer or as an iovec.  A request whose
 * HBA has a scatter list gets an iovec of guest memory; what cannot be mapped
 * whole, or what the kernel does not take as it is, goes through a buffer.
 *
 *     SGIO io = {};
 *
 *     if (sgio_prepare(&io, req, &hdr)) {
 *         hdr.cmdp = ...; (and so on; the data is up to sgio)
 *         sgio_start(&io, cb, opaque);
 *     }
 *     ... cb(opaque, ret): hdr is that of one SG_IO with all of the data
 *     sgio_release(&io);
 *
 * Reads and writes of a block device that are larger than what its queue takes
 * are done in parts, one after the other, each with its own CDB.  Nothing else
 * can be split.
 *
 * No request ever makes QEMU allocate more than SCSIDevice.max_bounce bytes at
 * a time: one that would ends with CHECK CONDITION, before the device sees it.
 *
 * All functions are called in the request's AioContext.
 */

#ifndef HW_SCSI_SGIO_H
#define HW_SCSI_SGIO_H

#include <scsi/sg.h>
#include "hw/scsi/scsi.h"
#include "qemu/units.h"
#include "system/dma-map.h"

#define SGIO_DEFAULT_MAX_BOUNCE (16 * MiB)

/**
 * SGIO: the data transfer of one request
 *
 * @buf: the buffer that all of the data goes through, NULL if it goes directly
 * @size: bytes of data, the length of @buf or more
 *
 * The other fields are private.
 */
typedef struct SGIO {
    uint8_t *buf;
    uint32_t size;

    SCSIRequest *req;
    sg_io_hdr_t *hdr;
    BlockCompletionFunc *cb;
    void *opaque;

    bool direct;                /* the data goes through req->sg */
    bool refused;               /* the kernel did not take the iovec */
    uint32_t part_max;          /* bytes of one SG_IO, @size if not split */
    uint32_t done;              /* bytes moved by parts that are complete */
    uint8_t sb_len_wr;          /* sense of parts with recovered errors */
    uint8_t cdb[SCSI_CMD_BUF_SIZE];

    DMAMapCursor cursor;        /* in req->sg, behind the current part */
    QEMUSGList *list;           /* of the current part: req->sg or @part */
    QEMUSGList part;
    uint8_t *bounce;            /* its data, if it cannot be mapped */
    DMAMap map;                 /* its mapping else */
} SGIO;

/**
 * sgio_release: free what a transfer that is not running holds
 * @io: the transfer, which can be all zeroes
 */
void sgio_release(SGIO *io);

/**
 * sgio_can_be_direct: can the data go from and to guest memory unseen?
 * @req: a request of scsi-generic
 *
 * Returns: whether nobody in QEMU looks at the data, or changes it.
 */
bool sgio_can_be_direct(const SCSIRequest *req);

/**
 * sgio_prepare: find out how the data will go, and allocate its buffer
 * @io: the transfer, all zeroes; nothing happens if it is prepared already
 * @req: the request, which has data, and whose scatter list, if it gets one, is
 *       known by now; it must exist as long as @io is in use
 * @hdr: what SG_IO will be called with, likewise
 *
 * Returns: true if sgio_start() can be called.  Else the request is to be
 * completed with the header and req->sense, which say CHECK CONDITION.
 */
bool sgio_prepare(SGIO *io, SCSIRequest *req, sg_io_hdr_t *hdr);

/**
 * sgio_start: run the command
 * @io: the transfer, prepared
 * @cb: called when the command is complete, with 0 or negative errno.  By then
 *      no guest memory is in use; the header has the length of all data, its
 *      residual, and the status and sense of the first SG_IO that failed.
 *      If the data went directly, req->residual is up to date.
 * @opaque: the argument of @cb
 *
 * Cancelling req->aiocb, which follows the parts, ends the command after the
 * part that is in flight: an ioctl cannot be taken back, and keeps guest memory
 * mapped until it returns.
 *
 * Returns: the new req->aiocb, or NULL with @cb not called and the header and
 * req->sense as after sgio_prepare() returned false.
 */
BlockAIOCB *sgio_start(SGIO *io, BlockCompletionFunc *cb, void *opaque);

/**
 * sgio_max_transfer: how much one SG_IO can move, whatever memory it moves
 * @dev: the device, with a drive
 *
 * Returns: a number of bytes, not zero
 */
uint64_t sgio_max_transfer(SCSIDevice *dev);

/**
 * sgio_cdb_set_range: address other blocks with a CDB
 * @cdb: READ, WRITE, WRITE AND VERIFY or VERIFY of 6, 10, 12 or 16 bytes
 * @lba: the first block
 * @blocks: how many of them, not zero, not more than @cdb had
 *
 * All other fields stay as they are.  If @lba does not fit, @cdb becomes the
 * next larger one that has room for it.
 *
 * Returns: the length of the CDB
 */
int sgio_cdb_set_range(uint8_t *cdb, uint64_t lba, uint32_t blocks);

/**
 * sgio_part_max: how much data one SG_IO of a request may have
 * @cmd: the command
 * @type: the type of device
 * @blocksize: of the device, in bytes; 0 if it has none
 * @max_transfer: what the host takes at once, in bytes
 *
 * Returns: a multiple of @blocksize if the command can be split and has to be,
 * else its length
 */
uint32_t sgio_part_max(const SCSICommand *cmd, int type, uint32_t blocksize,
                       uint64_t max_transfer);

#endif
