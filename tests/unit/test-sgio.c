/*
 * SG_IO for requests of any length: splitting, limits, errors
 *
 * sgio-test runs the same code on Linux and its devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "scsi/constants.h"
#include "sgio-model.h"

/* ASC << 8 | ASCQ */
#define READ_ERROR          0x1100
#define LBA_OUT_OF_RANGE    0x2100
#define TOO_MANY_SEGMENTS   0x2608
#define TOO_MUCH_DATA       0x260b
#define RECOVERED           0x1701

static void assert_sense(Run *r, uint16_t code)
{
    g_assert_cmphex(r->hdr.status, ==, CHECK_CONDITION);
    g_assert_cmphex(r->hdr.driver_status, ==, SG_ERR_DRIVER_SENSE);
    g_assert_cmphex(lduw_be_p(&r->req.sense[12]), ==, code);
}

/* Any command, list and limit: the parts are the whole, in order */
static void test_split(void)
{
    static const uint32_t limits[] = { 512, 1024, 4096, 4608, 65536, 1000 };
    static const uint32_t lists[] = { 0, 100, 512, 4096, 5000, INT_MAX };
    static const uint32_t blocks[] = { 1, 2, 7, 8, 9, 127, 128, 129, 255 };

    for (int o = 0; o < ARRAY_SIZE(ops); o++) {
        for (int i = 0; i < ARRAY_SIZE(limits) * ARRAY_SIZE(lists) *
                            ARRAY_SIZE(blocks); i++) {
            uint32_t max = limits[i % ARRAY_SIZE(limits)];
            uint32_t list = lists[i / ARRAY_SIZE(limits) % ARRAY_SIZE(lists)];
            uint32_t n = blocks[i / ARRAY_SIZE(limits) / ARRAY_SIZE(lists)];
            uint64_t lba = 100;
            Run r;

            run_init(&r, ops[o], lba, n);
            max_hw_transfer = max;
            run_list(&r, list);
            if (!list && r.req.cmd.mode == SCSI_XFER_TO_DEV) {
                g_assert(sgio_prepare(&r.io, &r.req, &r.hdr));
                memcpy(r.io.buf, r.mem, r.req.cmd.xfer);
            }
            run_all(&r);
            g_assert_cmpint(r.ret, ==, 0);
            g_assert_cmphex(r.hdr.status, ==, GOOD);
            g_assert_cmpuint(r.hdr.dxfer_len, ==, r.req.cmd.xfer);
            g_assert_cmpint(r.hdr.resid, ==, 0);
            g_assert_cmpuint(r.req.residual, ==, 0);
            assert_data(&r, r.req.cmd.xfer);
            for (int part = 0; part < nseen; part++) {
                Seen *s = &seen[part];

                g_assert_cmpuint(s->len, <=, max);
                g_assert_cmphex(s->cdb[0], ==, ops[o]);
                g_assert_cmpuint(cdb_lba(s->cdb, s->cdb_len), ==, lba);
                g_assert_cmpuint(cdb_blocks(s->cdb, s->cdb_len), ==,
                                 s->len / BLOCK);
                lba += s->len / BLOCK;
            }
            g_assert_cmpuint(lba, ==, 100 + n);
            run_free(&r);
        }
    }
}

/* READ(6) with a length of 0 has 256 blocks */
static void test_read_6_of_256(void)
{
    Run r;

    run_init(&r, READ_6, 7, 256);
    g_assert_cmpuint(r.req.cmd.buf[4], ==, 0);
    max_hw_transfer = 96 * KiB;
    run_list(&r, 4096);
    run_all(&r);
    g_assert_cmpint(nseen, ==, 2);
    g_assert_cmpuint(seen[0].cdb[4], ==, 192);
    g_assert_cmpuint(seen[1].cdb[4], ==, 64);
    assert_data(&r, r.req.cmd.xfer);
    run_free(&r);
}

/* The other fields of a CDB stay; it grows only if its address does not fit */
static void test_cdb(void)
{
    uint8_t read6[16] = { READ_6, 0xe0, 1, 2, 3, 0x44 };
    uint8_t write10[16] = { WRITE_10, 0xf8, 1, 2, 3, 4, 0x15, 6, 7, 0x88 };
    uint8_t verify12[16] = { VERIFY_12, 0xf2, 1, 2, 3, 4, 5, 6, 7, 8, 0x19,
                             0x99 };
    uint8_t read16[16] = { READ_16, 0xfb, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                           12, 0xdf, 0xaa };
    static const uint8_t want6[] = { READ_6, 0xff, 0xff, 0xff, 0, 0x44 };
    static const uint8_t want6_10[] = { READ_10, 0, 0, 0x20, 0, 0, 0, 0, 9,
                                        0x44 };
    static const uint8_t want10[] = { WRITE_10, 0xf8, 0xff, 0xff, 0xff, 0xff,
                                      0x15, 0xab, 0xcd, 0x88 };
    static const uint8_t want10_16[] = { WRITE_16, 0xf8, 0, 0, 0, 1, 0, 0, 0,
                                         0, 0, 0, 0, 9, 0x15, 0x88 };
    static const uint8_t want12[] = { VERIFY_12, 0xf2, 0, 0, 0, 1, 0, 1, 2, 3,
                                      0x19, 0x99 };
    static const uint8_t want12_16[] = { VERIFY_16, 0xf2, 0, 0, 0, 9, 0, 0, 0,
                                         0, 0, 0, 0, 1, 0x19, 0x99 };
    static const uint8_t want16[] = { READ_16, 0xfb, 1, 2, 3, 4, 5, 6, 7, 9,
                                      0, 0, 1, 0, 0xdf, 0xaa };

    g_assert_cmpint(sgio_cdb_set_range(read6, 0x1fffff, 256), ==, 6);
    g_assert(!memcmp(read6, want6, 6));
    g_assert_cmpint(sgio_cdb_set_range(read6, 0x200000, 9), ==, 10);
    g_assert(!memcmp(read6, want6_10, 10));
    g_assert_cmpint(sgio_cdb_set_range(write10, 0xffffffff, 0xabcd), ==, 10);
    g_assert(!memcmp(write10, want10, 10));
    g_assert_cmpint(sgio_cdb_set_range(write10, 1ull << 32, 9), ==, 16);
    g_assert(!memcmp(write10, want10_16, 16));
    g_assert_cmpint(sgio_cdb_set_range(verify12, 1, 0x10203), ==, 12);
    g_assert(!memcmp(verify12, want12, 12));
    g_assert_cmpint(sgio_cdb_set_range(verify12, 9ull << 32, 1), ==, 16);
    g_assert(!memcmp(verify12, want12_16, 16));
    g_assert_cmpint(sgio_cdb_set_range(read16, 0x0102030405060709, 256), ==,
                    16);
    g_assert(!memcmp(read16, want16, 16));
}

static uint32_t part_max(int type, const uint8_t *cdb, size_t xfer,
                         uint32_t blocksize)
{
    SCSICommand cmd = { .xfer = xfer };

    memcpy(cmd.buf, cdb, sizeof(cmd.buf));
    cmd.len = scsi_cdb_length(cmd.buf);
    return sgio_part_max(&cmd, type, blocksize, 10000);
}

/* What must not be split, is not */
static void test_no_split(void)
{
    static const uint8_t read10[16] = { READ_10, [8] = 64 };
    static const uint8_t write10[16] = { WRITE_10, [8] = 64 };
    static const uint8_t relative[16] = { READ_10, 1, [8] = 64 };
    static const uint8_t verify[16] = { VERIFY_10, 2, [8] = 64 };
    static const uint8_t verify_one[16] = { VERIFY_10, 6, [8] = 64 };
    static const uint8_t buffer[16] = { READ_BUFFER, [7] = 0x80 };

    g_assert_cmpuint(part_max(TYPE_DISK, read10, 32768, 512), ==, 9728);
    g_assert_cmpuint(part_max(TYPE_ZBC, write10, 32768, 512), ==, 9728);
    g_assert_cmpuint(part_max(TYPE_ROM, read10, 131072, 2048), ==, 8192);
    g_assert_cmpuint(part_max(TYPE_DISK, verify, 32768, 512), ==, 9728);

    g_assert_cmpuint(part_max(TYPE_DISK, read10, 10000, 512), ==, 10000);
    g_assert_cmpuint(part_max(TYPE_TAPE, read10, 32768, 512), ==, 32768);
    g_assert_cmpuint(part_max(TYPE_ROM, write10, 131072, 2048), ==, 131072);
    g_assert_cmpuint(part_max(TYPE_DISK, relative, 32768, 512), ==, 32768);
    g_assert_cmpuint(part_max(TYPE_DISK, verify_one, 32768, 512), ==, 32768);
    g_assert_cmpuint(part_max(TYPE_DISK, buffer, 32768, 512), ==, 32768);
    /* Eight bytes of protection information with each block */
    g_assert_cmpuint(part_max(TYPE_DISK, read10, 64 * 520, 512), ==, 33280);
    g_assert_cmpuint(part_max(TYPE_DISK, read10, 32768, 0), ==, 32768);
    /* A block is more than what the host takes */
    g_assert_cmpuint(part_max(TYPE_DISK, read10, 64 * 16384, 16384), ==,
                     64 * 16384);
}

/* The first part that fails ends the command */
static void test_error(void)
{
    Run r;

    run_init(&r, READ_10, 10, 40);
    max_hw_transfer = 8 * BLOCK;
    run_list(&r, 700);
    fail_at = 2;
    fail_len = 3 * BLOCK;
    fail_hdr.status = CHECK_CONDITION;
    fail_hdr.driver_status = SG_ERR_DRIVER_SENSE;
    fail_hdr.sb_len_wr = 18;
    scsi_build_sense(fail_sense, sense_code_READ_ERROR);
    run_all(&r);
    g_assert_cmpint(nseen, ==, 3);
    assert_sense(&r, READ_ERROR);
    g_assert_cmpuint(r.req.residual, ==, 40 * BLOCK - 19 * BLOCK);
    g_assert_cmpint(r.hdr.resid, ==, 40 * BLOCK - 19 * BLOCK);
    assert_data(&r, 19 * BLOCK);
    run_free(&r);
}

/* So does one that moves less than it should */
static void test_short(void)
{
    Run r;

    run_init(&r, WRITE_10, 10, 40);
    max_hw_transfer = 8 * BLOCK;
    run_list(&r, 700);
    fail_at = 1;
    fail_len = 100;
    run_all(&r);
    g_assert_cmpint(nseen, ==, 2);
    g_assert_cmphex(r.hdr.status, ==, GOOD);
    g_assert_cmpuint(r.req.residual, ==, 32 * BLOCK - 100);
    run_free(&r);
}

/* A recovered error does not, and is reported at the end */
static void test_recovered(void)
{
    Run r;

    run_init(&r, READ_10, 10, 40);
    max_hw_transfer = 8 * BLOCK;
    run_list(&r, 700);
    fail_at = 1;
    fail_len = INT_MAX;
    fail_hdr.status = CHECK_CONDITION;
    fail_hdr.driver_status = SG_ERR_DRIVER_SENSE;
    fail_hdr.sb_len_wr = 18;
    scsi_build_sense(fail_sense, (SCSISense) { RECOVERED_ERROR, 0x17, 1 });
    run_all(&r);
    g_assert_cmpint(nseen, ==, 5);
    assert_sense(&r, RECOVERED);
    g_assert_cmpuint(r.hdr.sb_len_wr, ==, 18);
    g_assert_cmpuint(r.req.residual, ==, 0);
    assert_data(&r, 40 * BLOCK);
    run_free(&r);
}

/* Status and host status arrive as they are */
static void test_status(void)
{
    static const uint8_t status[] = {
        BUSY, RESERVATION_CONFLICT, TASK_SET_FULL, TASK_ABORTED
    };
    Run r;

    for (int i = 0; i < 2 * ARRAY_SIZE(status); i++) {
        run_init(&r, READ_10, 10, 40);
        max_hw_transfer = 8 * BLOCK;
        run_list(&r, 700);
        fail_at = i & 1;
        fail_len = 0;
        fail_hdr.status = status[i / 2];
        run_all(&r);
        g_assert_cmpint(nseen, ==, fail_at + 1);
        g_assert_cmphex(r.hdr.status, ==, status[i / 2]);
        run_free(&r);
    }
    run_init(&r, READ_10, 10, 40);
    max_hw_transfer = 8 * BLOCK;
    run_list(&r, 700);
    fail_at = 1;
    fail_len = 0;
    fail_hdr.host_status = SCSI_HOST_TIME_OUT;
    run_all(&r);
    g_assert_cmpint(nseen, ==, 2);
    g_assert_cmphex(r.hdr.host_status, ==, SCSI_HOST_TIME_OUT);
    run_free(&r);
}

/* What a command that was not executed left in a buffer is nobody's data */
static void test_status_bounced(void)
{
    g_autofree uint8_t *before = NULL;
    Run r;

    run_init(&r, READ_10, 10, 8);
    run_list(&r, 700);
    unmappable = r.sg.sg[0].base;
    before = g_memdup2(r.mem, 8 * BLOCK);
    fail_at = 0;
    fail_len = INT_MAX;             /* no residual */
    fail_hdr.status = BUSY;
    run_all(&r);
    g_assert_cmphex(r.hdr.status, ==, BUSY);
    g_assert(!memcmp(r.mem, before, 8 * BLOCK));
    g_assert_cmpuint(r.req.residual, ==, 8 * BLOCK);
    run_free(&r);
}

/* The device is gone: not a matter of this command */
static void test_gone(void)
{
    static const int errors[] = { -ENODEV, -ENXIO };

    for (int i = 0; i < ARRAY_SIZE(errors); i++) {
        Run r;

        run_init(&r, READ_10, 10, 8);
        run_list(&r, 700);
        fail_at = 0;
        fail_ret = errors[i];
        run_all(&r);
        g_assert_cmpint(r.ret, ==, 0);
        g_assert_cmphex(r.hdr.host_status, ==, SCSI_HOST_NO_LUN);
        run_free(&r);
    }
}

/* What the kernel does not take as a list, it gets as a buffer */
static void test_refused(void)
{
    for (int op = 0; op < 2; op++) {
        Run r;

        run_init(&r, op ? WRITE_10 : READ_10, 10, 40);
        max_hw_transfer = 16 * BLOCK;
        run_list(&r, 700);
        refuse_iovec = true;
        run_all(&r);
        g_assert_cmpint(r.ret, ==, 0);
        g_assert_cmphex(r.hdr.status, ==, GOOD);
        /* Asked once, not for every part */
        g_assert_cmpint(nseen, ==, 4);
        g_assert(seen[0].iovec && !seen[1].iovec && !seen[2].iovec);
        assert_data(&r, 40 * BLOCK);
        run_free(&r);
    }
}

/* A buffer only for the part that needs it */
static void test_unmappable(void)
{
    for (int op = 0; op < 2; op++) {
        uint64_t bounced = bytes_bounced();
        Run r;

        run_init(&r, op ? WRITE_10 : READ_10, 10, 40);
        max_hw_transfer = 8 * BLOCK;
        run_list(&r, 8 * BLOCK);
        unmappable = r.sg.sg[3].base;
        run_all(&r);
        g_assert_cmphex(r.hdr.status, ==, GOOD);
        assert_data(&r, 40 * BLOCK);
        bounced = bytes_bounced() - bounced;
        g_assert_cmpuint(bounced, ==, 8 * BLOCK);
        run_free(&r);
    }
}

/* A buffer that may not be that large: smaller parts */
static void test_less_bounce(void)
{
    Run r;

    run_init(&r, READ_10, 10, 40);
    run_list(&r, 700);
    unmappable = r.sg.sg[0].base;
    r.dev.max_bounce = 8 * BLOCK + 1;
    run_all(&r);
    g_assert_cmphex(r.hdr.status, ==, GOOD);
    g_assert_cmpint(nseen, ==, 5);
    assert_data(&r, 40 * BLOCK);
    run_free(&r);
}

/* Or sense, if there is no smaller part, and the device sees nothing of it */
static void test_too_large(void)
{
    Run r;

    /* no list */
    run_init(&r, READ_10, 10, 40);
    r.dev.max_bounce = 40 * BLOCK - 1;
    g_assert(!run_start(&r));
    assert_sense(&r, TOO_MUCH_DATA);
    run_free(&r);

    /* a list that is shorter than the command */
    run_init(&r, READ_10, 10, 40);
    run_list(&r, 700);
    r.req.cmd.xfer = INT32_MAX;
    g_assert(!run_start(&r));
    assert_sense(&r, TOO_MUCH_DATA);
    run_free(&r);

    /* not to be split */
    run_init(&r, READ_10, 10, 40);
    run_list(&r, 700);
    r.req.cmd.buf[0] = READ_BUFFER;
    r.dev.max_bounce = BLOCK;
    unmappable = r.sg.sg[0].base;
    g_assert(!run_start(&r));
    assert_sense(&r, TOO_MUCH_DATA);
    run_free(&r);

    run_init(&r, READ_10, 10, 40);
    run_list(&r, 10);
    r.req.cmd.buf[0] = READ_BUFFER;
    r.dev.max_bounce = BLOCK;
    g_assert(!run_start(&r));
    assert_sense(&r, TOO_MANY_SEGMENTS);
    run_free(&r);

    /* not taken by the kernel */
    run_init(&r, READ_10, 10, 40);
    run_list(&r, 0);
    r.req.cmd.buf[0] = READ_BUFFER;
    max_hw_transfer = BLOCK;
    fail_at = 0;
    fail_ret = -EINVAL;
    run_all(&r);
    g_assert_cmpint(r.ret, ==, 0);
    assert_sense(&r, TOO_MUCH_DATA);
    run_free(&r);
    g_assert(!flying);
}

/* Nothing of a command is done that ends behind the last block */
static void test_range(void)
{
    Run r;

    run_init(&r, WRITE_10, BLOCKS - 39, 40);
    run_list(&r, 700);
    max_hw_transfer = 8 * BLOCK;
    r.dev.max_lba = BLOCKS - 1;
    g_assert(!run_start(&r));
    assert_sense(&r, LBA_OUT_OF_RANGE);
    run_free(&r);

    run_init(&r, WRITE_16, UINT64_MAX - 38, 40);
    run_list(&r, 700);
    max_hw_transfer = 8 * BLOCK;
    g_assert(!run_start(&r));
    assert_sense(&r, LBA_OUT_OF_RANGE);
    run_free(&r);

    run_init(&r, WRITE_10, BLOCKS - 40, 40);
    run_list(&r, 700);
    max_hw_transfer = 8 * BLOCK;
    r.dev.max_lba = BLOCKS - 1;
    run_all(&r);
    assert_data(&r, 40 * BLOCK);
    run_free(&r);
}

/* A cancelled command has no more parts; its memory is mapped until then */
static void test_cancel(void)
{
    Run r;

    run_init(&r, READ_10, 10, 40);
    run_list(&r, 700);
    max_hw_transfer = 8 * BLOCK;
    g_assert(run_start(&r));
    complete();
    r.req.io_canceled = true;
    g_assert_cmpint(mapped, ==, 1);
    complete();
    g_assert_cmpint(r.called, ==, 1);
    g_assert_cmpint(nseen, ==, 2);
    g_assert(!flying);
    run_free(&r);
}

/* The segments of the worst buffer there is are limited, too */
static void test_max_transfer(void)
{
    SCSIDevice dev = { };

    max_hw_transfer = 1 * MiB;
    max_hw_iov = 16;
    g_assert_cmpuint(sgio_max_transfer(&dev), ==, 16 * PAGE);
    max_hw_iov = 1024;
    g_assert_cmpuint(sgio_max_transfer(&dev), ==, 1 * MiB);
    max_hw_transfer = INT_MAX;
}

/* Anything, at random */
static void test_random(void)
{
    Choices c = {};

    for (int i = 0; i < 2000; i++) {
        sgio_any(&c);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sgio/split", test_split);
    g_test_add_func("/sgio/read-6-of-256", test_read_6_of_256);
    g_test_add_func("/sgio/cdb", test_cdb);
    g_test_add_func("/sgio/no-split", test_no_split);
    g_test_add_func("/sgio/error", test_error);
    g_test_add_func("/sgio/short", test_short);
    g_test_add_func("/sgio/recovered", test_recovered);
    g_test_add_func("/sgio/status", test_status);
    g_test_add_func("/sgio/status-bounced", test_status_bounced);
    g_test_add_func("/sgio/gone", test_gone);
    g_test_add_func("/sgio/refused", test_refused);
    g_test_add_func("/sgio/unmappable", test_unmappable);
    g_test_add_func("/sgio/less-bounce", test_less_bounce);
    g_test_add_func("/sgio/too-large", test_too_large);
    g_test_add_func("/sgio/range", test_range);
    g_test_add_func("/sgio/cancel", test_cancel);
    g_test_add_func("/sgio/max-transfer", test_max_transfer);
    g_test_add_func("/sgio/random", test_random);
    return g_test_run();
}
