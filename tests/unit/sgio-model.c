/*
 * SG_IO on a model of the kernel and of a disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "sgio-model.h"
#include "qemu/bswap.h"
#include "scsi/constants.h"
#include "system/block-backend.h"

/* The model of the kernel */

uint8_t disk[DISK];
uint64_t max_hw_transfer = INT_MAX;
int max_hw_iov = 1024;
int fail_at = -1;
int fail_ret;
sg_io_hdr_t fail_hdr;
uint32_t fail_len;
uint8_t fail_sense[18];
bool refuse_iovec;

Seen seen[4096];
int nseen;

static BlockAIOCB in_flight;
sg_io_hdr_t *flying;
static BlockCompletionFunc *flying_cb;
static void *flying_opaque;

static DMAStats stats;

DMAStats *dma_stats_new(DeviceState *dev)
{
    return &stats;
}

uint64_t bytes_bounced(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < DMA_BOUNCE_REASON__MAX; i++) {
        sum += stat64_get(&stats.n.bytes_bounced[i]);
    }
    return sum;
}

uint64_t blk_get_max_hw_transfer(BlockBackend *blk)
{
    return max_hw_transfer;
}

int blk_get_max_hw_iov(BlockBackend *blk)
{
    return max_hw_iov;
}

BlockAIOCB *blk_aio_ioctl(BlockBackend *blk, unsigned long int req, void *buf,
                          BlockCompletionFunc *cb, void *opaque)
{
    g_assert(req == SG_IO && !flying);
    flying = buf;
    flying_cb = cb;
    flying_opaque = opaque;
    return &in_flight;
}

uint64_t cdb_lba(const uint8_t *cdb, int len)
{
    switch (len) {
    case 6:
        return ldl_be_p(cdb) & 0x1fffff;
    case 16:
        return ldq_be_p(cdb + 2);
    default:
        return (uint32_t)ldl_be_p(cdb + 2);
    }
}

uint32_t cdb_blocks(const uint8_t *cdb, int len)
{
    switch (len) {
    case 6:
        return cdb[4] ?: 256;
    case 10:
        return lduw_be_p(cdb + 7);
    case 12:
        return ldl_be_p(cdb + 6);
    default:
        return ldl_be_p(cdb + 10);
    }
}

static void move_data(const sg_io_hdr_t *hdr, uint32_t len)
{
    struct iovec one = { hdr->dxferp, hdr->dxfer_len };
    struct iovec *iov = hdr->iovec_count ? hdr->dxferp : &one;
    unsigned int n = hdr->iovec_count ?: 1;
    uint8_t *data = disk + cdb_lba(hdr->cmdp, hdr->cmd_len) * BLOCK;

    g_assert_cmpuint(iov_size(iov, n), ==, hdr->dxfer_len);
    g_assert(data + len <= disk + DISK);
    if (hdr->dxfer_direction == SG_DXFER_FROM_DEV) {
        iov_from_buf(iov, n, 0, data, len);
    } else {
        iov_to_buf(iov, n, 0, data, len);
    }
}

void complete(void)
{
    sg_io_hdr_t *hdr = flying;
    Seen *s = &seen[nseen];
    uint32_t len = hdr->dxfer_len;
    int ret = 0;

    memcpy(s->cdb, hdr->cmdp, hdr->cmd_len);
    s->cdb_len = hdr->cmd_len;
    s->len = len;
    s->iovec = hdr->iovec_count;
    hdr->status = hdr->host_status = hdr->driver_status = 0;

    if (hdr->iovec_count && refuse_iovec) {
        ret = -EINVAL;
    } else if (nseen == fail_at) {
        ret = fail_ret;
        if (ret == 0) {
            len = MIN(len, fail_len);
            move_data(hdr, len);
            hdr->status = fail_hdr.status;
            hdr->host_status = fail_hdr.host_status;
            hdr->driver_status = fail_hdr.driver_status;
            hdr->sb_len_wr = fail_hdr.sb_len_wr;
            memcpy(hdr->sbp, fail_sense, hdr->sb_len_wr);
        }
    } else {
        move_data(hdr, len);
    }
    hdr->resid = hdr->dxfer_len - len;
    nseen++;
    flying = NULL;
    flying_cb(flying_opaque, ret);
}

/* The model of guest memory */

uint64_t unmappable;
int mapped;

void dma_map_init(DMAMap *map)
{
    memset(map, 0, sizeof(*map));
    map->qiov.iov = map->inline_iov;
}

void dma_map_release(DMAMap *map)
{
    g_assert(!map->qiov.niov);
}

int dma_map_whole(DMAMap *map, const QEMUSGList *sg, int max_elements,
                  DMADirection dir)
{
    g_assert(sg->size);
    if (sg->nsg > MIN(max_elements, DMA_MAP_INLINE_ELEMENTS)) {
        return -E2BIG;
    }
    for (int i = 0; i < sg->nsg; i++) {
        if (sg->sg[i].base == unmappable) {
            return -ENOBUFS;
        }
        map->inline_iov[i].iov_base = (void *)(uintptr_t)sg->sg[i].base;
        map->inline_iov[i].iov_len = sg->sg[i].len;
    }
    map->qiov.niov = sg->nsg;
    map->qiov.size = sg->size;
    mapped++;
    return 0;
}

void dma_unmap(DMAMap *map, dma_addr_t access_len)
{
    g_assert_cmpuint(access_len, <=, map->qiov.size);
    map->qiov.niov = 0;
    mapped--;
}

void dma_map_cursor_advance(DMAMapCursor *cursor, const QEMUSGList *sg,
                            dma_addr_t bytes)
{
    for (bytes += cursor->offset;
         cursor->index < sg->nsg && bytes >= sg->sg[cursor->index].len;
         cursor->index++) {
        bytes -= sg->sg[cursor->index].len;
    }
    cursor->offset = bytes;
}

void qemu_sglist_init(QEMUSGList *qsg, DeviceState *dev, int alloc_hint,
                      AddressSpace *as)
{
    *qsg = (QEMUSGList) { };
}

void qemu_sglist_add(QEMUSGList *qsg, dma_addr_t base, dma_addr_t len)
{
    qsg->sg = g_realloc_n(qsg->sg, qsg->nsg + 1, sizeof(*qsg->sg));
    qsg->sg[qsg->nsg++] = (ScatterGatherEntry) { .base = base, .len = len };
    qsg->size += len;
}

void qemu_sglist_destroy(QEMUSGList *qsg)
{
    g_free(qsg->sg);
    *qsg = (QEMUSGList) { };
}

static MemTxResult copy(uint8_t *buf, dma_addr_t len, QEMUSGList *sg,
                        bool to_guest)
{
    for (int i = 0; i < sg->nsg && len; i++) {
        void *p = (void *)(uintptr_t)sg->sg[i].base;
        dma_addr_t n = MIN(len, sg->sg[i].len);

        memcpy(to_guest ? p : buf, to_guest ? buf : p, n);
        buf += n;
        len -= n;
    }
    return MEMTX_OK;
}

MemTxResult dma_buf_read(void *ptr, dma_addr_t len, dma_addr_t *residual,
                         QEMUSGList *sg, MemTxAttrs attrs)
{
    return copy(ptr, len, sg, true);
}

MemTxResult dma_buf_write(void *ptr, dma_addr_t len, dma_addr_t *residual,
                          QEMUSGList *sg, MemTxAttrs attrs)
{
    return copy(ptr, len, sg, false);
}

void scsi_req_build_sense(SCSIRequest *req, SCSISense sense)
{
    req->sense_len = scsi_build_sense(req->sense, sense);
}

/* One command */

static void done(void *opaque, int ret)
{
    Run *r = opaque;

    r->ret = ret;
    r->called++;
    g_assert_cmpint(mapped, ==, 0);
}

/* Bytes that are others, at any place, for each seed from 0 to 255 */
static void fill(uint8_t *p, size_t len, int seed)
{
    static uint8_t bytes[DISK + 256];

    if (!bytes[1]) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = i * 13 + i / 251;
        }
    }
    g_assert_cmpuint(len, <=, DISK);
    memcpy(p, bytes + seed, len);
}

void run_init(Run *r, uint8_t op, uint64_t lba, uint32_t blocks)
{
    SCSICommand *cmd = &r->req.cmd;
    static int n;

    nseen = 0;
    *r = (Run) {
        .dev = {
            .type = TYPE_DISK, .blocksize = BLOCK,
            .max_bounce = SGIO_DEFAULT_MAX_BOUNCE,
        },
        .req = { .dev = &r->dev },
    };
    cmd->buf[0] = op;
    cmd->len = scsi_cdb_length(cmd->buf);
    sgio_cdb_set_range(cmd->buf, lba, blocks);
    cmd->lba = lba;
    cmd->xfer = blocks * BLOCK;
    cmd->mode = op == READ_6 || op == READ_10 || op == READ_12 ||
                op == READ_16 ? SCSI_XFER_FROM_DEV : SCSI_XFER_TO_DEV;
    r->hdr.cmdp = cmd->buf;
    r->hdr.cmd_len = cmd->len;
    r->hdr.sbp = r->req.sense;
    r->hdr.dxfer_direction = cmd->mode == SCSI_XFER_FROM_DEV ?
                             SG_DXFER_FROM_DEV : SG_DXFER_TO_DEV;
    r->mem = g_malloc(cmd->xfer);
    fill(r->mem, cmd->xfer, 200 + n % 40);
    fill(disk, DISK, n % 200);
    n++;
}

void run_list(Run *r, uint32_t len)
{
    if (len) {
        for (size_t pos = 0; pos < r->req.cmd.xfer; pos += len) {
            qemu_sglist_add(&r->sg, (uintptr_t)r->mem + pos,
                            MIN(len, r->req.cmd.xfer - pos));
        }
        r->req.sg = &r->sg;
    }
}

bool run_start(Run *r)
{
    return sgio_prepare(&r->io, &r->req, &r->hdr) &&
           sgio_start(&r->io, done, r);
}

void run_all(Run *r)
{
    g_assert(run_start(r));
    while (!r->called) {
        complete();
    }
    g_assert_cmpint(r->called, ==, 1);
    g_assert(!flying);
}

void run_free(Run *r)
{
    sgio_release(&r->io);
    qemu_sglist_destroy(&r->sg);
    g_free(r->mem);
    fail_at = -1;
    fail_ret = 0;
    fail_hdr = (sg_io_hdr_t) { };
    max_hw_transfer = INT_MAX;
    max_hw_iov = 1024;
    unmappable = 0;
    refuse_iovec = false;
}

void assert_data(Run *r, size_t len)
{
    const uint8_t *mem = r->req.sg ? r->mem : r->io.buf;

    g_assert(!memcmp(mem, disk + r->req.cmd.lba * BLOCK, len));
}

/* What the residual says has been moved, and nothing else. */
static void assert_moved(Run *r, const uint8_t *disk_before,
                         const uint8_t *mem_before)
{
    const SCSICommand *cmd = &r->req.cmd;
    size_t start = cmd->lba * BLOCK;
    size_t moved = cmd->xfer - r->hdr.resid;
    const uint8_t *mem = r->io.direct ? r->mem : r->io.buf;

    g_assert_cmpint(r->hdr.resid, >=, 0);
    g_assert_cmpint(r->hdr.resid, <=, cmd->xfer);
    if (cmd->mode == SCSI_XFER_FROM_DEV) {
        g_assert(!memcmp(disk, disk_before, DISK));
        g_assert(!memcmp(mem, disk + start, moved));
    } else {
        g_assert(!memcmp(r->mem, mem_before, cmd->xfer));
        g_assert(!memcmp(disk + start, mem, moved));
        /* An SG_IO that fails may have written a part of its data. */
        g_assert(!memcmp(disk, disk_before, start));
        g_assert(!memcmp(disk + start + cmd->xfer,
                         disk_before + start + cmd->xfer,
                         DISK - start - cmd->xfer));
    }
}

const uint8_t ops[N_OPS] = {
    READ_6, READ_10, READ_12, READ_16, WRITE_6, WRITE_10, WRITE_12, WRITE_16,
    WRITE_VERIFY_10, WRITE_VERIFY_12, WRITE_VERIFY_16,
};

/* Any bytes in a CDB, any range: nothing but the range changes */
static void cdb_any(Choices *c)
{
    uint8_t cdb[SCSI_CMD_BUF_SIZE], old[SCSI_CMD_BUF_SIZE];
    uint64_t lba = 0;
    uint32_t blocks = 0;
    int len, new_len;

    for (int i = 0; i < sizeof(cdb); i++) {
        cdb[i] = choose(c, 0, 256);
        lba = lba << 8 | choose(c, 0, 256);
        blocks = blocks << 8 | choose(c, 0, 256);
    }
    cdb[0] = ops[choose(c, 0, N_OPS)];
    memcpy(old, cdb, sizeof(old));
    len = scsi_cdb_length(cdb);
    lba >>= choose(c, 0, 64);
    blocks = 1 + blocks % MAX(cdb_blocks(cdb, len), 1);

    new_len = sgio_cdb_set_range(cdb, lba, blocks);
    g_assert_cmpint(new_len, >=, len);
    g_assert_cmpint(new_len, ==, scsi_cdb_length(cdb));
    g_assert_cmphex(cdb_lba(cdb, new_len), ==, lba);
    g_assert_cmphex(cdb_blocks(cdb, new_len), ==, blocks);
    g_assert_cmphex(cdb[new_len - 1], ==, old[len - 1]);
    if (len > 6) {
        g_assert_cmphex(cdb[1], ==, old[1]);
    } else if (new_len == 6) {
        g_assert_cmphex(cdb[1] & 0xe0, ==, old[1] & 0xe0);
    }
}

static void run_any(Choices *c)
{
    static const int errors[] = { -EINVAL, -ENOMEM, -EFAULT, -EIO, -ENODEV };
    static const uint8_t statuses[] = { GOOD, BUSY, CHECK_CONDITION };
    uint8_t op = ops[choose(c, 0, N_OPS)];
    uint32_t n = choose(c, 1, 257);
    bool with_list = choose(c, 0, 8);
    bool complete_list = choose(c, 0, 8);
    g_autofree uint8_t *disk_before = NULL;
    g_autofree uint8_t *mem_before = NULL;
    uint64_t lba, next, last;
    Run r;

    run_init(&r, op, choose(c, 0, BLOCKS - n + 1), n);
    lba = next = last = r.req.cmd.lba;
    disk_before = g_memdup2(disk, DISK);
    mem_before = g_memdup2(r.mem, r.req.cmd.xfer);

    for (size_t pos = 0; with_list && pos < r.req.cmd.xfer; ) {
        size_t len = choose(c, 0, 3) ? choose(c, 1, 10) * BLOCK
                                     : choose(c, 0, 5000);

        if (len == 0) {
            qemu_sglist_add(&r.sg, (uintptr_t)r.mem, 0);
            len = 700;
        }
        len = MIN(len, r.req.cmd.xfer - pos);
        if (!complete_list && pos + len == r.req.cmd.xfer) {
            break;
        }
        qemu_sglist_add(&r.sg, (uintptr_t)r.mem + pos, len);
        if (choose(c, 0, 20) == 1) {
            unmappable = (uintptr_t)r.mem + pos;
        }
        pos += len;
    }
    if (with_list && r.sg.size) {
        r.req.sg = &r.sg;
    }

    max_hw_transfer = choose(c, 0, 2) ? choose(c, 1, 65536) : INT_MAX;
    max_hw_iov = choose(c, 0, 2) ? choose(c, 1, 128) : 1024;
    refuse_iovec = choose(c, 0, 4) == 1;
    if (choose(c, 0, 2)) {
        r.dev.max_bounce = choose(c, 0, 140000);
    }
    if (choose(c, 0, 2)) {
        r.dev.max_lba = choose(c, 1, BLOCKS);
    }
    if (choose(c, 0, 2)) {
        fail_at = choose(c, 0, 8);
        fail_len = choose(c, 0, 140000);
        fail_ret = choose(c, 0, 2) ? errors[choose(c, 0, ARRAY_SIZE(errors))]
                                   : 0;
        fail_hdr.status = statuses[choose(c, 0, ARRAY_SIZE(statuses))];
        if (fail_hdr.status == CHECK_CONDITION) {
            SCSISense sense = { choose(c, 0, 16), choose(c, 0, 256),
                                choose(c, 0, 256) };

            fail_hdr.driver_status = SG_ERR_DRIVER_SENSE;
            fail_hdr.sb_len_wr = scsi_build_sense(fail_sense, sense);
        } else if (choose(c, 0, 4) == 1) {
            fail_hdr.host_status = SCSI_HOST_TIME_OUT;
        }
    }

    if (!sgio_prepare(&r.io, &r.req, &r.hdr)) {
        goto refused;
    }
    if (!r.io.direct && r.req.cmd.mode == SCSI_XFER_TO_DEV) {
        memcpy(r.io.buf, r.mem, r.req.cmd.xfer);
    }
    if (!sgio_start(&r.io, done, &r)) {
        goto refused;
    }
    while (!r.called) {
        if (choose(c, 0, 32) == 1) {
            r.req.io_canceled = true;
        }
        complete();
    }
    g_assert_cmpint(r.called, ==, 1);
    g_assert(!flying && !r.io.bounce);
    g_assert_cmpint(mapped, ==, 0);
    if (r.ret == 0) {
        assert_moved(&r, disk_before, mem_before);
    }
    if (r.ret == 0 && r.hdr.status == GOOD &&
        r.hdr.host_status == SCSI_HOST_OK && fail_at < 0 &&
        !r.req.io_canceled) {
        g_assert_cmpint(r.hdr.resid, ==, 0);
    }

    /* Parts follow each other, or one is done again with other memory. */
    for (int i = 0; i < nseen; i++) {
        uint64_t from = cdb_lba(seen[i].cdb, seen[i].cdb_len);
        uint32_t blocks = cdb_blocks(seen[i].cdb, seen[i].cdb_len);

        g_assert(from == next || from == last);
        g_assert_cmpuint(blocks * BLOCK, ==, seen[i].len);
        last = from;
        next = from + blocks;
        g_assert_cmpuint(next, <=, lba + n);
    }
    run_free(&r);
    return;

refused:
    g_assert_cmpint(r.hdr.status, ==, CHECK_CONDITION);
    g_assert_cmpuint(r.req.sense_len, >, 0);
    g_assert(!r.called && !nseen && !flying);
    g_assert_cmpint(mapped, ==, 0);
    g_assert(!memcmp(disk, disk_before, DISK));
    g_assert(!memcmp(r.mem, mem_before, r.req.cmd.xfer));
    run_free(&r);
}

void sgio_any(Choices *c)
{
    if (choose(c, 0, 8) == 1) {
        cdb_any(c);
    } else {
        run_any(c);
    }
}

void fuzz_one(Choices *c)
{
    sgio_any(c);
}
