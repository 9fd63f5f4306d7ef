/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SG_IO for requests of any length, on guest memory
 *
 * What Linux does with the data of an SG_IO (6.12, block/blk-map.c,
 * drivers/scsi/sg.c and scsi_ioctl.c):
 *
 * - More than UIO_MAXIOV (1024) elements are EINVAL.
 * - On a block device, aligned elements are pinned and become the segments of
 *   one request; more of them than the queue's max_segments, in memory that
 *   is not contiguous, are EINVAL.  If a single element is not aligned, the
 *   kernel copies all of the data.  More than max_hw_sectors are EIO.
 * - /dev/sg* copies always, unless its parameter allow_dio is set and the data
 *   is one aligned buffer.  More than it can allocate is ENOMEM.
 *
 * All of this comes to light before the device sees the command, which can be
 * tried again with other memory.
 */

#include "qemu/osdep.h"
#include "hw/scsi/sgio.h"
#include "qemu/bswap.h"
#include "qemu/memalign.h"
#include "scsi/constants.h"
#include "system/block-backend.h"
#include "trace.h"

/* SPC-4, table "ASC and ASCQ assignments" */
static const SCSISense too_much_data = {
    .key = HARDWARE_ERROR, .asc = 0x26, .ascq = 0x0b
};
static const SCSISense too_many_segments = {
    .key = HARDWARE_ERROR, .asc = 0x26, .ascq = 0x08
};

/* BYTCHK of VERIFY: compare each block with a block of data of its own */
#define VERIFY_BYTCHK           0x06
#define VERIFY_BYTCHK_BLOCKS    0x02
/* SBC: RELADR, in commands of 10 and 12 bytes of old devices */
#define CDB1_RELADR             0x01

bool sgio_can_be_direct(const SCSIRequest *req)
{
    switch (req->cmd.buf[0]) {
    case INQUIRY:
    case MODE_SENSE:
    case MODE_SENSE_10:
    case READ_CAPACITY_10:
    case SERVICE_ACTION_IN_16:
        return false;
    case MODE_SELECT:
        return req->dev->type != TYPE_TAPE;
    default:
        return true;
    }
}

uint64_t sgio_max_transfer(SCSIDevice *dev)
{
    uint64_t page = qemu_real_host_page_size();

    /* A buffer has a segment for each of its pages, if the worst happens. */
    return MIN_NON_ZERO(blk_get_max_hw_transfer(dev->conf.blk),
                        blk_get_max_hw_iov(dev->conf.blk) * page);
}

int sgio_cdb_set_range(uint8_t *cdb, uint64_t lba, uint32_t blocks)
{
    uint8_t old[SCSI_CMD_BUF_SIZE];
    int len = scsi_cdb_length(cdb);
    uint8_t op = cdb[0] & 0x1f;
    uint8_t byte1 = 0, group = 0, control = cdb[len - 1];

    memcpy(old, cdb, len);
    switch (len) {
    case 6:
        if (lba < 1 << 21) {
            /* The upper bits of this byte are not the address. */
            stl_be_p(cdb, (uint32_t)old[0] << 24 |
                          (uint32_t)(old[1] & 0xe0) << 16 | lba);
            cdb[4] = blocks;
            return 6;
        }
        break;
    case 10:
        byte1 = old[1];
        group = old[6];
        break;
    case 12:
        byte1 = old[1];
        group = old[10];
        break;
    case 16:
        byte1 = old[1];
        group = old[14];
        break;
    default:
        g_assert_not_reached();
    }

    if (len <= 10 && lba <= UINT32_MAX) {
        cdb[0] = 0x20 | op;
        cdb[1] = byte1;
        stl_be_p(&cdb[2], lba);
        cdb[6] = group;
        stw_be_p(&cdb[7], blocks);
        cdb[9] = control;
        return 10;
    }
    if (len == 12 && lba <= UINT32_MAX) {
        stl_be_p(&cdb[2], lba);
        stl_be_p(&cdb[6], blocks);
        return 12;
    }
    cdb[0] = 0x80 | op;
    cdb[1] = byte1;
    stq_be_p(&cdb[2], lba);
    stl_be_p(&cdb[10], blocks);
    cdb[14] = group;
    cdb[15] = control;
    return 16;
}

/* Do these blocks make the same sense as several commands? */
static bool sgio_can_split(const SCSICommand *cmd, int type)
{
    switch (type) {
    case TYPE_DISK:
    case TYPE_ROM:
    case TYPE_WORM:
    case TYPE_MOD:
    case TYPE_RBC:
    case TYPE_ZBC:
        break;
    default:
        /* A tape would have other records. */
        return false;
    }

    switch (cmd->buf[0]) {
    case VERIFY_10:
    case VERIFY_12:
    case WRITE_10:
    case WRITE_12:
    case WRITE_VERIFY_10:
    case WRITE_VERIFY_12:
        /* MMC writes before block 0, and to where the drive's mode says. */
        if (type == TYPE_ROM || type == TYPE_WORM) {
            return false;
        }
        /* fall through */
    case READ_10:
    case READ_12:
        if (cmd->buf[1] & CDB1_RELADR) {
            return false;
        }
        break;
    case READ_6:
    case READ_16:
        return true;
    case VERIFY_16:
    case WRITE_6:
    case WRITE_16:
    case WRITE_VERIFY_16:
        if (type == TYPE_ROM || type == TYPE_WORM) {
            return false;
        }
        break;
    default:
        return false;
    }

    switch (cmd->buf[0]) {
    case VERIFY_10:
    case VERIFY_12:
    case VERIFY_16:
        return (cmd->buf[1] & VERIFY_BYTCHK) == VERIFY_BYTCHK_BLOCKS;
    default:
        return true;
    }
}

uint32_t sgio_part_max(const SCSICommand *cmd, int type, uint32_t blocksize,
                       uint64_t max_transfer)
{
    uint64_t blocks;

    if (cmd->xfer <= max_transfer || max_transfer < blocksize ||
        blocksize == 0 || !sgio_can_split(cmd, type)) {
        return cmd->xfer;
    }
    /*
     * With protection information, or if the guest knows the size of blocks
     * better than we do, only the device can tell what the data means.
     */
    blocks = scsi_data_cdb_xfer((uint8_t *)cmd->buf);
    if (blocks * blocksize != cmd->xfer) {
        return cmd->xfer;
    }
    return QEMU_ALIGN_DOWN(max_transfer, blocksize);
}

static DMADirection sgio_dir(const SGIO *io)
{
    return io->req->cmd.mode == SCSI_XFER_TO_DEV ?
           DMA_DIRECTION_TO_DEVICE : DMA_DIRECTION_FROM_DEVICE;
}

/* Make the header look as if the device had said so. */
static void sgio_set_sense(SGIO *io, SCSISense sense)
{
    scsi_req_build_sense(io->req, sense);
    io->hdr->status = CHECK_CONDITION;
    io->hdr->host_status = SCSI_HOST_OK;
    io->hdr->driver_status = SG_ERR_DRIVER_SENSE;
    io->hdr->sb_len_wr = io->req->sense_len;
}

void sgio_release(SGIO *io)
{
    assert(!io->bounce);
    qemu_vfree(io->buf);
    io->buf = NULL;
}

/* Returns a zeroed buffer for @size bytes of data, NULL if there is none. */
static uint8_t *sgio_alloc(SGIO *io, uint32_t size)
{
    size_t page = qemu_real_host_page_size();
    size_t alloc = QEMU_ALIGN_UP(size, page);
    uint8_t *p;

    if (size > io->req->dev->max_bounce) {
        return NULL;
    }
    p = qemu_try_memalign(page, alloc);
    if (p) {
        /*
         * Not everything that a device says it has transferred needs to have
         * been, and what was in QEMU's heap is not the guest's business.
         */
        memset(p, 0, alloc);
    }
    return p;
}

bool sgio_prepare(SGIO *io, SCSIRequest *req, sg_io_hdr_t *hdr)
{
    if (io->direct || io->buf) {
        return true;
    }
    io->req = req;
    io->hdr = hdr;
    io->size = req->cmd.xfer;

    /* A list that is too short for the command is for dma_buf_rw(). */
    if (req->sg && req->sg->size >= io->size && sgio_can_be_direct(req)) {
        io->direct = true;
        dma_stats_direct(&req->dev->qdev);
        return true;
    }

    io->buf = sgio_alloc(io, io->size);
    if (!io->buf) {
        trace_sgio_too_large(req->tag, io->size, 0);
        sgio_set_sense(io, too_much_data);
        return false;
    }
    dma_stats_buffered(&req->dev->qdev, DMA_BUFFERED_REASON_UNSUPPORTED,
                       io->size);
    return true;
}

/* Put the data of the current part through a buffer, for this reason. */
static bool sgio_bounce(SGIO *io, DmaBounceReason reason)
{
    uint32_t len = io->list->size;

    io->bounce = sgio_alloc(io, len);
    if (!io->bounce) {
        return false;
    }
    trace_sgio_bounce(io->req->tag, len, io->list->nsg);
    dma_stats_bounced(io->list->dev, reason, len);
    if (sgio_dir(io) == DMA_DIRECTION_TO_DEVICE) {
        dma_buf_write(io->bounce, len, NULL, io->list, MEMTXATTRS_UNSPECIFIED);
    }
    io->hdr->dxferp = io->bounce;
    io->hdr->iovec_count = 0;
    return true;
}

/* Let io->list be the next @len bytes of the request's list. */
static void sgio_list_part(SGIO *io, uint32_t len)
{
    QEMUSGList *sg = io->req->sg;
    DMAMapCursor pos = io->cursor;

    if (len == sg->size) {
        io->list = sg;
        return;
    }
    io->list = &io->part;
    qemu_sglist_init(&io->part, sg->dev, 0, sg->as);
    while (len > 0) {
        const ScatterGatherEntry *entry = &sg->sg[pos.index];
        dma_addr_t n = MIN(len, entry->len - pos.offset);

        if (n > 0) {
            qemu_sglist_add(&io->part, entry->base + pos.offset, n);
        }
        dma_map_cursor_advance(&pos, sg, n);
        len -= n;
    }
}

static void sgio_list_end(SGIO *io)
{
    if (io->list == &io->part) {
        qemu_sglist_destroy(&io->part);
    }
    io->list = NULL;
}

/* Find memory for the next @len bytes.  Returns 0 or negative errno. */
static int sgio_map(SGIO *io, uint32_t len)
{
    const QEMUIOVector *qiov = &io->map.qiov;
    int ret;

    sgio_list_part(io, len);
    ret = io->refused ? -EINVAL :
          dma_map_whole(&io->map, io->list, IOV_MAX, sgio_dir(io));
    if (ret == 0 && qiov->niov == 1) {
        io->hdr->dxferp = qiov->iov[0].iov_base;
        io->hdr->iovec_count = 0;
    } else if (ret == 0) {
        io->hdr->dxferp = qiov->iov;
        io->hdr->iovec_count = qiov->niov;
    } else if (sgio_bounce(io, io->refused ? DMA_BOUNCE_REASON_HOST :
                               ret == -E2BIG ? DMA_BOUNCE_REASON_ELEMENTS :
                                               DMA_BOUNCE_REASON_LIST)) {
        ret = 0;
    } else {
        sgio_list_end(io);
    }
    return ret;
}

/* Give the memory of a part back.  @len bytes of it were transferred. */
static void sgio_unmap(SGIO *io, uint32_t len)
{
    if (io->bounce) {
        if (sgio_dir(io) == DMA_DIRECTION_FROM_DEVICE) {
            dma_buf_read(io->bounce, len, NULL, io->list,
                         MEMTXATTRS_UNSPECIFIED);
        }
        qemu_vfree(io->bounce);
        io->bounce = NULL;
    } else {
        dma_unmap(&io->map, len);
    }
    sgio_list_end(io);
    dma_map_cursor_advance(&io->cursor, io->req->sg, len);
}

static void sgio_part_done(void *opaque, int ret);

/* Submit what comes next.  Returns false with sense if there is no way. */
static bool sgio_start_part(SGIO *io)
{
    SCSIRequest *req = io->req;
    SCSIDevice *dev = req->dev;
    sg_io_hdr_t *hdr = io->hdr;
    uint32_t len = MIN(io->size - io->done, io->part_max);

    if (!io->direct) {
        hdr->dxferp = io->buf + io->done;
    } else {
        int ret = sgio_map(io, len);

        if (ret < 0) {
            uint32_t less = sgio_part_max(&req->cmd, dev->type, dev->blocksize,
                                          dev->max_bounce);

            if (less < len) {
                len = io->part_max = less;
                ret = sgio_map(io, len);
            }
        }
        if (ret < 0) {
            trace_sgio_too_large(req->tag, len, ret);
            sgio_set_sense(io, ret == -E2BIG ? too_many_segments :
                                               too_much_data);
            return false;
        }
    }

    if (len < io->size) {
        memcpy(io->cdb, req->cmd.buf, sizeof(io->cdb));
        hdr->cmd_len = sgio_cdb_set_range(io->cdb, req->cmd.lba +
                                          io->done / dev->blocksize,
                                          len / dev->blocksize);
        hdr->cmdp = io->cdb;
    }
    hdr->dxfer_len = len;
    hdr->sb_len_wr = 0;
    hdr->resid = 0;
    trace_sgio_part(req->tag, io->done, len, hdr->iovec_count);
    req->aiocb = blk_aio_ioctl(dev->conf.blk, SG_IO, hdr, sgio_part_done, io);
    return true;
}

/* Has all of the part been transferred, so that the next one may follow? */
static bool sgio_part_succeeded(SGIO *io, uint32_t len)
{
    const sg_io_hdr_t *hdr = io->hdr;

    if (len < hdr->dxfer_len || hdr->host_status != SCSI_HOST_OK ||
        (hdr->driver_status & SG_ERR_DRIVER_TIMEOUT)) {
        return false;
    }
    if (hdr->status == CHECK_CONDITION && hdr->sb_len_wr) {
        SCSISense sense = scsi_parse_sense_buf(io->req->sense, hdr->sb_len_wr);

        /* The device did it, but has something to say: not before the end. */
        if ((sense.key & 0xf) == RECOVERED_ERROR) {
            io->sb_len_wr = hdr->sb_len_wr;
            return true;
        }
    }
    return hdr->status == GOOD;
}

static void sgio_finish(SGIO *io, int ret)
{
    SCSIRequest *req = io->req;
    sg_io_hdr_t *hdr = io->hdr;

    if (ret == -ENODEV || ret == -ENXIO) {
        hdr->host_status = SCSI_HOST_NO_LUN;
        ret = 0;
    } else if (ret == 0 && io->sb_len_wr && hdr->status == GOOD &&
               hdr->host_status == SCSI_HOST_OK) {
        hdr->status = CHECK_CONDITION;
        hdr->driver_status |= SG_ERR_DRIVER_SENSE;
        hdr->sb_len_wr = io->sb_len_wr;
    }

    hdr->dxfer_len = io->size;
    hdr->resid = io->size - io->done;
    if (io->direct) {
        dma_map_release(&io->map);
        req->residual = req->sg->size - io->done;
    }
    io->cb(io->opaque, ret);
}

static void sgio_part_done(void *opaque, int ret)
{
    SGIO *io = opaque;
    SCSIRequest *req = io->req;
    sg_io_hdr_t *hdr = io->hdr;
    bool mapped = io->direct && !io->bounce;
    uint32_t len = 0;
    bool again = false;

    if (ret == 0 && hdr->host_status == SCSI_HOST_OK &&
        (hdr->status == GOOD || hdr->status == CHECK_CONDITION)) {
        len = hdr->dxfer_len - MIN(MAX(hdr->resid, 0), hdr->dxfer_len);
    }
    if (io->direct) {
        sgio_unmap(io, len);
    }
    io->done += len;

    if (req->io_canceled) {
        sgio_finish(io, ret);
        return;
    }
    switch (ret) {
    case 0:
        again = sgio_part_succeeded(io, len) && io->done < io->size;
        break;
    case -EINVAL:
    case -ENOMEM:
    case -EFAULT:
        /* Maybe with a buffer that is contiguous and not the guest's? */
        again = io->refused = mapped;
        /* fall through */
    case -EIO:
        if (!again && hdr->dxfer_len > sgio_max_transfer(req->dev)) {
            trace_sgio_too_large(req->tag, hdr->dxfer_len, ret);
            sgio_set_sense(io, too_much_data);
            ret = 0;
        }
        break;
    }
    if (!again) {
        sgio_finish(io, ret);
    } else if (!sgio_start_part(io)) {
        sgio_finish(io, 0);
    }
}

BlockAIOCB *sgio_start(SGIO *io, BlockCompletionFunc *cb, void *opaque)
{
    SCSIRequest *req = io->req;
    SCSIDevice *dev = req->dev;

    io->cb = cb;
    io->opaque = opaque;
    io->done = 0;
    io->refused = false;
    io->sb_len_wr = 0;
    io->cursor = (DMAMapCursor) { 0 };
    io->part_max = sgio_part_max(&req->cmd, dev->type, dev->blocksize,
                                 sgio_max_transfer(dev));
    if (io->part_max < io->size) {
        uint64_t last = io->size / dev->blocksize - 1;

        /* Nothing of such a command may be done. */
        if (req->cmd.lba > UINT64_MAX - last ||
            (dev->max_lba && req->cmd.lba + last > dev->max_lba)) {
            sgio_set_sense(io, SENSE_CODE(LBA_OUT_OF_RANGE));
            return NULL;
        }
    }
    if (io->direct) {
        stat64_add(&dma_stats_get(req->sg->dev)->n.requests, 1);
        dma_map_init(&io->map);
    }
    if (sgio_start_part(io)) {
        return req->aiocb;
    }
    if (io->direct) {
        dma_map_release(&io->map);
    }
    return NULL;
}
