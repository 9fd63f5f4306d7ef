/*
 * Bus-master IDE DMA: the PIIX3, and lists of any kind of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "ide-dma-util.h"
#include "qobject/qdict.h"

/* Disk n is the first drive of channel n; this is the second's second one */
#define CD                      2

#define IDE_DRIVES(hd_options) \
    "-device ide-hd,bus=ide.0,drive=drive0,id=disk0" hd_options " " \
    "-device ide-hd,bus=ide.1,drive=drive1,id=disk1" hd_options " " \
    "-device ide-cd,bus=ide.1,unit=1,drive=drive2,id=disk2 "

#define IDE_SETUP(options, ...) { \
        .machine = options, \
        .drive[CD] = ",readonly=on", \
        .disks = 3, \
        .hba_devfn = PIIX3_IDE_DEVFN, \
        .hba_bar = PIIX3_IDE_BMIBA, \
        __VA_ARGS__ \
    }

static const Setup ide_setup = IDE_SETUP(IDE_DRIVES(""));

/* What each channel is busy with, or was */
static Request channel_req[CHANNELS];

/* Requests */

/*
 * Start a request: @sectors of the disk from @lba on, or if that is 0 as
 * many as @list has room for.
 */
static void submit_at(Machine *m, int ch, Direction dir, unsigned int lba,
                      unsigned int sectors, const char *list,
                      const TablePlace *at)
{
    Request *req = &channel_req[ch];

    request_free(req);
    request_init(m, req, dir, ch, lba * SECTOR, sectors * SECTOR, list);
    sectors = req->bytes / SECTOR;
    g_assert_cmpuint(sectors, <=, 256);
    bmi_prepare(m, ch, dir, req->list, at);

    ide_issue(m, ch, dir == READ ? ATA_READ_DMA : ATA_WRITE_DMA, lba, sectors);
    bmi_start(m, ch, dir);
}

static void submit(Machine *m, int ch, Direction dir, unsigned int lba,
                   const char *text)
{
    TablePlace at = { .kind = TABLE, .offset = ch * 16 * KiB };

    submit_at(m, ch, dir, lba, 0, text, &at);
}

/* A request which cannot end yet does not: give it time to try */
static void assert_stays_active(Machine *m, int ch)
{
    int i;

    for (i = 0; i < 20; i++) {
        g_assert_cmphex(bmi_readb(m, ch, BMIS), ==, BMIS_ACTIVE);
        g_assert_false(qtest_get_irq(m->qts, ide_channel[ch].irq));
    }
}

/* A request that ends well, and whose table may be longer than it */
static void finish(Machine *m, int ch)
{
    Request *req = &channel_req[ch];
    uint8_t bmis = wait_until_idle(m, ch);
    uint8_t status;

    if (req->list_bytes == req->bytes) {
        g_assert_cmphex(bmis, ==, BMIS_INTERRUPT);
    } else {
        g_assert_cmphex(bmis, ==, BMIS_INTERRUPT | BMIS_ACTIVE);
    }
    g_assert_true(qtest_get_irq(m->qts, ide_channel[ch].irq));
    status = ata_readb(m, ch, ATA_STATUS);
    g_assert_cmphex(status & ~ATA_STATUS_DSC, ==, ATA_STATUS_DRDY);
    g_assert_false(qtest_get_irq(m->qts, ide_channel[ch].irq));
    acknowledge(m, ch);

    expect_transfer(m, req, req->bytes);
}

static void finish_with_error(Machine *m, int ch)
{
    uint8_t status;

    g_assert_cmphex(wait_until_idle(m, ch), ==, BMIS_INTERRUPT);
    g_assert_true(qtest_get_irq(m->qts, ide_channel[ch].irq));
    status = ata_readb(m, ch, ATA_STATUS);
    g_assert_cmphex(status & ~ATA_STATUS_DSC, ==,
                    ATA_STATUS_DRDY | ATA_STATUS_ERR);
    g_assert_cmphex(ata_readb(m, ch, ATA_ERROR), ==, ATA_ERROR_ABRT);
    acknowledge(m, ch);
}

/* The controller and the whole bounce pool serve the next request as ever */
static void assert_usable(Machine *m, int ch, unsigned int lba)
{
    assert_everything(m);
    submit(m, ch, WRITE, lba, "m8192");
    finish(m, ch);
    submit(m, ch, READ, lba + 1, "m7680");
    finish(m, ch);
}

/* Tests that are a list, a direction and what is to be had */

typedef struct ListTest {
    Direction dir;
    const char *list;
    unsigned int sectors;
    Setup setup;
    TablePlace table;
} ListTest;

static void test_list(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&t->setup);

    submit_at(m, PRIMARY, t->dir, 7, t->sectors, t->list, &t->table);
    finish(m, PRIMARY);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

static void add_list_test(const char *group, const char *name,
                          const ListTest *test)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        ListTest *t = g_memdup2(test, sizeof(*test));
        g_autofree char *path =
            g_strdup_printf("ide-dma/%s/%s/%s", group,
                            dir_name(dir), name ?: test->list);

        t->dir = dir;
        if (!t->setup.machine) {
            t->setup = ide_setup;
        }
        qtest_add_data_func_full(path, t, test_list, g_free);
    }
}

static void add_list_tests(const char *group, const char *const *list)
{
    for (; *list; list++) {
        ListTest t = { .list = *list };

        add_list_test(group, NULL, &t);
    }
}

/*
 * Mixes of RAM and MMIO.  The block layer wants whole sectors, the pool
 * holds 4 KiB: lists end on both limits at every place.
 */
static const char *const mixed_lists[] = {
    "m2+m510",
    "m512",
    "m100+m412",
    "m4096",
    "m4098+m4094",
    "m8192",
    "m1534+m1026+m1536",
    "m2+r510",
    "m100+r412",
    "m412+r100",
    "m512+r512",
    "m4094+r2",
    "m4096+r512",
    "m4100+r508",
    "m5000+r3192",
    "m8190+r2",
    "m8192+r57344",
    "r2+m510",
    "r100+m412",
    "r412+m100",
    "r510+m2",
    "r512+m512",
    "r2+m4094",
    "r100+m3996",
    "r100+m4508",
    "r100+m8092",
    "r3192+m5000",
    "r3996+m100",
    "r65536+m512",
    "m100+r312+m100",
    "m2000+r2000+m2000+r2192",
    "m4092+r100+m4000",
    "r100+m312+r100",
    "r100+m4092+r4000",
    "r512+m512+r512",
    "r1000+m5000+r2192",
    "r1022+m6146+r1024",
    "r510+m2+r510+m2",
    "m1022+r1022+m1022+r1022+m8",
    "r4+m4+r4+m4+r4+m4+r4+m4+r480",
    NULL
};

static const char *const ram_lists[] = {
    "r512",
    "r2+r510",
    "r100+r412",
    "r1022+r2",
    "r34+r1022+r2014+r2",
    "r4096+r4096",
    "r512@0+r512@512+r100@1024+r412@1124",
    "r512@5",
    "r100@1+r412@4095",
    "r65536+r65536",
    NULL
};

static const char *const rom_lists[] = {
    "o512",
    "o8192",
    "o512+r512",
    "r512+o512",
    "r100+o412",
    "o100+r412",
    "r100+o5000+r20",
    "r100+o212+m200",
    "m100+o212+r200",
    NULL
};

static const char *const hole_lists[] = {
    "h512",
    "h8192",
    "r100+h412",
    "h100+r412",
    "r100+h5000+r20",
    "r100+h212+m200",
    "m100+h212+r200",
    NULL
};

/* RAM ends 4096 bytes into the region */
static const char *const edge_lists[] = {
    "e512@3584",
    "e512@3996",
    "e512@4094",
    "e8192@0",
    "e8192@3996",
    "r100+e412@4000",
    "e500@4000+r12",
    "m100+e200@4000+m212",
    NULL
};

/* What is beyond 4 GiB is 16 KiB into the region of ROM */
static const char *const top_lists[] = {
    "o512@15872",
    "o512@16284",
    "r100+o212@16284+m200",
    "o4096@16382",
    NULL
};

/* More sections of memory than anybody keeps at hand, every other one RAM */
static const char *const stripe_lists[] = {
    "s32768@1000",
    "s2048@15360+s1024@49152+s1024@15360",
    "s100@0+s100@32768+s100@65536+s100@98304+r112",
    "s100@0+s100@16384+s100@32768+s100@49152+s100@65536+s100@81920+"
    "s100@98304+s100@114688+r224",
    "r100+s65536@0+e100@100+s32768@65536+r312",
    "m100+s512@0+m100+s312@32768+e100@100+s412@98304",
    NULL
};

static const char *const small_lists[] = {
    "256xr2",
    "512xr2",
    "256xm2",
    "512xm2",
    "128xr2+128xm2",
    "128xm2+128xr2",
    "100xr2+m56+100xr2+m56",
    NULL
};

static const char *const pool_lists[] = {
    "m512",
    "m8192",
    "r100+m412",
    "m100+r412",
    "r100+m8092",
    "m510+r100+m414",
    "o512",
    NULL
};

static void add_pool_tests(void)
{
#define POOL_SIZE(bytes) {                                                  \
        "pool-size/" bytes,                                                 \
        IDE_DRIVES("") "-global piix3-ide.x-max-bounce-buffer-size=" bytes  \
    }
    static const struct {
        const char *group;
        const char *options;
    } size[] = {
        POOL_SIZE("0"), POOL_SIZE("1"), POOL_SIZE("511"), POOL_SIZE("512"),
        POOL_SIZE("65536"),
    };
    int i, j;

    for (i = 0; i < ARRAY_SIZE(size); i++) {
        for (j = 0; pool_lists[j]; j++) {
            ListTest t = {
                .list = pool_lists[j],
                .setup = IDE_SETUP(size[i].options),
            };

            add_list_test(size[i].group, NULL, &t);
        }
    }
}

static void add_table_tests(void)
{
    static const struct {
        const char *name;
        ListTest test;
    } tests[] = {
        { "longer", { .list = "r1022+m512", .sectors = 1 } },
        { "longer-by-entries", {
            .list = "m100+r512+m512+r512", .sectors = 1 } },
        { "across-pages", {
            .list = "100xr34+r120+m576", .table = { TABLE, 4092 } } },
        { "at-end-of-ram", {
            .list = "r100+m100+r312",
            .table = { EDGE, 4096 - 3 * PRD_SIZE } } },
        { "full-at-end-of-ram", {
            .list = "511xr2+r2", .table = { EDGE, 0 } } },
        { "past-end-of-ram", {
            .list = "r512+r512",
            .sectors = 1,
            .table = { EDGE, 4096 - 2 * PRD_SIZE, .no_eot = true } } },
        { "in-mmio", {
            .list = "r100+m412@1000+r512", .table = { MMIO, 0 } } },
        { "at-end-of-mmio", {
            .list = "r100+m412@1000+r512",
            .table = { MMIO, LSI_SCRIPTS_RAM_SIZE - 3 * PRD_SIZE } } },
        { "full-without-eot", {
            .list = "512xr2", .table = { TABLE, 0, .no_eot = true } } },
        { "full-without-eot-across-pages", {
            .list = "512xr2", .table = { TABLE, 2052, .no_eot = true } } },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        add_list_test("table", tests[i].name, &tests[i].test);
    }
}

/* A table that describes too little: no transfer, no interrupt, not active */
static void test_short_table(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&ide_setup);

    submit_at(m, PRIMARY, t->dir, 7, t->sectors, t->list, &t->table);
    g_assert_cmphex(wait_until_idle(m, PRIMARY), ==, 0);
    g_assert_false(qtest_get_irq(m->qts, ide_channel[PRIMARY].irq));
    g_assert_cmphex(ata_readb(m, PRIMARY, ATA_STATUS) & ~ATA_STATUS_DSC, ==,
                    ATA_STATUS_DRDY);
    acknowledge(m, PRIMARY);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

static void add_short_table_tests(void)
{
    static const ListTest tests[] = {
        { READ, "r510", 1 },
        { READ, "m510", 1 },
        { READ, "m512+r512", 3 },
        { READ, "512xr2", 3, .table = { TABLE, 4, .no_eot = true } },
        { READ, "600xr2", 3, .table = { TABLE, 0, .no_eot = true } },
        { WRITE, "r510", 1 },
        { WRITE, "m512+r512", 3 },
        { WRITE, "512xm2", 3, .table = { TABLE, 4092, .no_eot = true } },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path =
            g_strdup_printf("ide-dma/short-table/%s/%s",
                            dir_name(tests[i].dir),
                            tests[i].list);

        qtest_add_data_func(path, &tests[i], test_short_table);
    }
}

/*
 * Packet commands: what the CD-ROM drive has read is copied to the list, in
 * pieces that are not the list's
 */

static void submit_packet(Machine *m, unsigned int lba, const char *list,
                          const TablePlace *at)
{
    Request *req = &channel_req[SECONDARY];
    uint8_t packet[MMC_PACKET_SIZE] = { MMC_READ_10 };

    request_free(req);
    request_init(m, req, READ, CD, lba * CD_SECTOR, 0, list);
    g_assert_cmpuint(req->bytes % CD_SECTOR, ==, 0);
    bmi_prepare(m, SECONDARY, READ, req->list, at);

    stl_be_p(&packet[2], lba);
    stw_be_p(&packet[7], req->bytes / CD_SECTOR);
    ide_send_packet(m, SECONDARY, ATA_DEVICE_1, ATAPI_DMA, packet);
    bmi_start(m, SECONDARY, READ);
}

static void test_packet(const void *list)
{
    const TablePlace table = { .offset = 4 };
    Machine *m = test_begin(&ide_setup);

    submit_packet(m, 5, list, &table);
    finish(m, SECONDARY);
    test_end(m);
}

static void test_packet_table_in_mmio(void)
{
    const TablePlace table = {
        .kind = MMIO,
        .offset = LSI_SCRIPTS_RAM_SIZE - 3 * PRD_SIZE
    };
    Machine *m = test_begin(&ide_setup);

    submit_packet(m, 5, "r100+m1000@0+r948", &table);
    finish(m, SECONDARY);
    test_end(m);
}

static void add_packet_tests(void)
{
    static const char *const lists[] = {
        "r2048",
        "r2+r2046",
        "m2048",
        "r100+m8092",
        "m100+r1948",
        "r100+o1000+h800+m100+e48@4094",
        "511xr2+r1026",
        "500xm4+r48+r65536+r65536+r2048",
        "r65536+r65536+m8190+r2+r24576",
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(lists); i++) {
        g_autofree char *path =
            g_strdup_printf("ide-dma/packet/%s", lists[i]);

        qtest_add_data_func(path, lists[i], test_packet);
    }
    qtest_add_func("ide-dma/packet/table-in-mmio", test_packet_table_in_mmio);
}

/* Entries that overlap */

#define ICOUNT_OPTIONS "-accel tcg -icount shift=auto -S"

/* With icount, what the disk has last is in memory at the end */
static void add_overlap_tests(void)
{
    static const char *const lists[] = {
        "r512@0+r512@0",
        "r512@0+r512@256",
        "r512@256+r512@0",
        "r100@0+r100@50+r824@0",
        "r512@0+m512+r512@100",
        "m512@0+m512@256",
        "m4000@0+r96+m4096@2000",
        NULL
    };
    static const char *const writes[] = {
        "r512@0+r512@0",
        "r512@0+r512@256",
        "m512@0+m512@256",
        "8xm4096@1000",
        NULL
    };
    int i;

    for (i = 0; lists[i] && qtest_has_accel("tcg"); i++) {
        ListTest t = {
            .list = lists[i],
            .setup = IDE_SETUP(IDE_DRIVES("") ICOUNT_OPTIONS),
        };

        add_list_test("overlap/icount", NULL, &t);
    }
    for (i = 0; writes[i]; i++) {
        ListTest *t = g_new0(ListTest, 1);
        g_autofree char *path =
            g_strdup_printf("ide-dma/overlap/write/%s", writes[i]);

        t->dir = WRITE;
        t->list = writes[i];
        t->setup = ide_setup;
        qtest_add_data_func_full(path, t, test_list, g_free);
    }
}

/* Without icount it is the host who decides which of both remains */
static void test_overlap_read(void)
{
    Machine *m = test_begin(&ide_setup);
    const uint8_t *disk = m->image[PRIMARY] + 7 * SECTOR;
    const uint8_t *got = m->region[RAM].want;
    int i;

    submit(m, PRIMARY, READ, 7, "r512@0+r512@0");
    finish(m, PRIMARY);
    region_accept(m, RAM, 0, SECTOR);
    for (i = 0; i < SECTOR; i++) {
        g_assert_true(got[i] == disk[i] || got[i] == disk[SECTOR + i]);
    }
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

/* Random lists, the same on each run of a test */

static char *random_list(GRand *rand, unsigned int *sectors)
{
    GString *text = g_string_new(NULL);
    uint32_t mmio = 0, total = 0, rest, len;
    int entries = g_rand_int_range(rand, 1, 13);

    while (entries--) {
        char kind = "rrrrmmmoh"[g_rand_int_range(rand, 0, 9)];
        uint32_t most = g_rand_boolean(rand) ? 1024 : 3000;

        len = 2 * g_rand_int_range(rand, 1, most / 2);
        if (kind == 'o' || kind == 'h') {
            len = MIN(len, 1200);
        } else if (kind == 'm') {
            len = MIN(len, LSI_SCRIPTS_RAM_SIZE - mmio);
            mmio += len;
        }
        if (len) {
            g_string_append_printf(text, "%c%u+", kind, len);
            total += len;
        }
    }
    /* The command ends with the table, or sooner */
    rest = SECTOR - total % SECTOR;
    g_string_append_printf(text, "r%u", rest);
    total += rest;
    *sectors = total / SECTOR;
    if (*sectors > 1 && g_rand_int_range(rand, 0, 4) == 0) {
        *sectors -= 1;
    }
    return g_string_free(text, false);
}

static void test_random(const void *data)
{
    uint32_t seed = GPOINTER_TO_UINT(data);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    Machine *m = test_begin(&ide_setup);
    const TablePlace table = { };
    int i;

    g_test_message("seed %u", seed);
    for (i = 0; i < 40; i++) {
        unsigned int sectors;
        Direction dir = g_rand_boolean(rand) ? READ : WRITE;
        unsigned int lba = g_rand_int_range(rand, 0, 900);
        g_autofree char *list = random_list(rand, &sectors);

        g_test_message("%s %u sectors: %s", dir_name(dir),
                       sectors, list);
        submit_at(m, PRIMARY, dir, lba, sectors, list, &table);
        finish(m, PRIMARY);
        assert_everything(m);
    }
    test_end(m);
}

static void add_random_tests(void)
{
    unsigned int seed;

    for (seed = 1; seed <= 4; seed++) {
        g_autofree char *path = g_strdup_printf("ide-dma/random/%u", seed);

        qtest_add_data_func(path, GUINT_TO_POINTER(seed), test_random);
    }
}

/* Errors of the disk */

#define BAD_SECTOR      22      /* the last of 16 from sector 7 on */
#define INJECT          ",file.inject-error.0."
#define READ_ERROR      INJECT "event=none" INJECT "iotype=read" \
                        INJECT "sector=22" INJECT "errno=5"
#define WRITE_ERROR     INJECT "event=none" INJECT "iotype=write" \
                        INJECT "sector=22" INJECT "errno=5"
#define ONCE            INJECT "once=on"

/* What was not read from the disk is written nowhere, to MMIO neither */
static void test_error(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&t->setup);
    size_t done;

    submit(m, PRIMARY, t->dir, BAD_SECTOR + 1 - t->sectors, t->list);
    finish_with_error(m, PRIMARY);
    done = expect_partial_transfer(m, &channel_req[PRIMARY]);
    assert_everything(m);
    g_assert_cmpuint(done, <=, (t->sectors - 1) * SECTOR);

    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

/* A machine that stops at an error tries again when it goes on */
static void test_error_stop(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&t->setup);

    submit(m, PRIMARY, t->dir, BAD_SECTOR + 1 - t->sectors, t->list);
    qtest_qmp_eventwait(m->qts, "STOP");
    g_assert_cmphex(bmi_readb(m, PRIMARY, BMIS), ==, BMIS_ACTIVE);
    g_assert_false(qtest_get_irq(m->qts, ide_channel[PRIMARY].irq));
    expect_partial_transfer(m, &channel_req[PRIMARY]);
    assert_everything(m);

    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    finish(m, PRIMARY);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
    /* It fails only once */
    machine_discard();
}

static void add_error_tests(void)
{
    static const struct {
        const char *list;
        unsigned int sectors;
    } lists[] = {
        { "r512", 1 },
        { "m512", 1 },
        { "r100+m412", 1 },
        { "m100+r412", 1 },
        { "r512+m512", 2 },
        { "m4096+m4096", 16 },
        { "r100+m8092", 16 },
        { "r100+o200+h200+m12", 1 },
    };
    Direction dir;
    int i;

    for (dir = READ; dir <= WRITE; dir++) {
        const char *name = dir_name(dir);

        for (i = 0; i < ARRAY_SIZE(lists); i++) {
            ListTest t = {
                .dir = dir,
                .list = lists[i].list,
                .sectors = lists[i].sectors,
                .setup = IDE_SETUP(IDE_DRIVES(""), .drive[PRIMARY] =
                                   dir == READ ? READ_ERROR : WRITE_ERROR),
            };
            g_autofree char *report =
                g_strdup_printf("ide-dma/error/%s/%s", name, t.list);
            g_autofree char *stop =
                g_strdup_printf("ide-dma/error-stop/%s/%s", name, t.list);

            qtest_add_data_func_full(report, g_memdup2(&t, sizeof(t)),
                                     test_error, g_free);
            t.setup.drive[PRIMARY] =
                dir == READ ? READ_ERROR ONCE : WRITE_ERROR ONCE;
            t.setup.machine = IDE_DRIVES(",rerror=stop,werror=stop");
            qtest_add_data_func_full(stop, g_memdup2(&t, sizeof(t)),
                                     test_error_stop, g_free);
        }
    }
}

/*
 * Two channels, one pool: the primary's request, suspended in the block
 * layer, holds the pool while the secondary's needs it.
 */

static void hold_pool(Machine *m, const char *list)
{
    blkdebug(m, PRIMARY, "break read_aio A");
    submit(m, PRIMARY, READ, 7, list);
    assert_stays_active(m, PRIMARY);
}

static void release_pool(Machine *m)
{
    blkdebug(m, PRIMARY, "resume A");
    finish(m, PRIMARY);
}

#define WHOLE_POOL      "m4096@0"
#define NEARLY_POOL     "m3996@0+r100@65536"

static void test_compete(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&ide_setup);

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    assert_stays_active(m, SECONDARY);
    release_pool(m);
    finish(m, SECONDARY);
    assert_usable(m, PRIMARY, 100);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/* There is less room left than one sector needs */
static void test_compete_for_rest(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&ide_setup);

    hold_pool(m, NEARLY_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    release_pool(m);
    finish(m, SECONDARY);
    assert_usable(m, PRIMARY, 100);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/* Who needs none of the pool does not wait */
static void test_compete_not(const void *data)
{
    const ListTest *t = data;
    Machine *m = test_begin(&ide_setup);

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, "r100@4096+r412@5000");
    finish(m, SECONDARY);
    assert_stays_active(m, PRIMARY);
    release_pool(m);
    test_end(m);
}

/* What becomes of a request that waits for the pool, or is in flight */

static void cancel(Machine *m, int ch)
{
    /* The guest stops the engine */
    bmi_writeb(m, ch, BMIC, 0);
    g_assert_cmphex(bmi_readb(m, ch, BMIS) & BMIS_ACTIVE, ==, 0);
    ata_readb(m, ch, ATA_STATUS);
    acknowledge(m, ch);
}

static void software_reset(Machine *m, int ch)
{
    int64_t deadline = patience_ends();

    qtest_outb(m->qts, ide_channel[ch].control_block, ATA_CONTROL_SRST);
    while (ata_readb(m, ch, ATA_STATUS) & ATA_STATUS_BSY) {
        wait_before_poll(deadline, "end of software reset");
    }
    qtest_outb(m->qts, ide_channel[ch].control_block, 0);

    /* The signature of an ATA device, and no error */
    g_assert_cmphex(ata_readb(m, ch, ATA_SECTOR_COUNT), ==, 1);
    g_assert_cmphex(ata_readb(m, ch, ATA_LBA_LOW), ==, 1);
    g_assert_cmphex(ata_readb(m, ch, ATA_LBA_MID), ==, 0);
    g_assert_cmphex(ata_readb(m, ch, ATA_LBA_HIGH), ==, 0);
    g_assert_cmphex(bmi_readb(m, ch, BMIS) & BMIS_ACTIVE, ==, 0);
    acknowledge(m, ch);
}

static void system_reset(Machine *m, int ch)
{
    machine_reset(m);
    g_assert_cmphex(bmi_readb(m, PRIMARY, BMIS), ==, 0);
    g_assert_cmphex(bmi_readb(m, SECONDARY, BMIS), ==, 0);
}

typedef struct AbortTest {
    Direction dir;
    const char *list;
    void (*abort)(Machine *m, int ch);
} AbortTest;

/* The request of the secondary is given up, the primary's is not concerned */
static void test_abort_waiting(const void *data)
{
    const AbortTest *t = data;
    Machine *m = test_begin(&ide_setup);

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    assert_stays_active(m, SECONDARY);

    t->abort(m, SECONDARY);
    expect_partial_transfer(m, &channel_req[SECONDARY]);
    assert_everything(m);
    assert_stays_active(m, PRIMARY);
    release_pool(m);
    assert_usable(m, SECONDARY, 100);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

/* Each access to sector 22 takes a while, but ends by itself */
#define SLOW_DISK       INJECT "event=none" INJECT "sector=22" \
                        INJECT "errno=0" INJECT "delay-ns=20000000"
#define VERY_SLOW_DISK  INJECT "event=none" INJECT "sector=22" \
                        INJECT "errno=0" INJECT "delay-ns=300000000"
/* It takes longer than migration takes until it stops the machine */
#define SLOWEST_DISK    INJECT "event=none" INJECT "sector=22" \
                        INJECT "errno=0" INJECT "delay-ns=1500000000"

static void test_abort_in_flight(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK);
    const AbortTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, t->dir, BAD_SECTOR, t->list);
    t->abort(m, PRIMARY);
    expect_partial_transfer(m, &channel_req[PRIMARY]);
    /* This takes so long that a stray transfer would come to light */
    assert_usable(m, PRIMARY, BAD_SECTOR);
    test_end(m);
}

/* A command that waits for the machine to go on is not executed any more */
static void test_abort_stopped(const void *data)
{
    const AbortTest *t = data;
    Setup bad = IDE_SETUP(IDE_DRIVES(",rerror=stop,werror=stop"),
                          .drive[PRIMARY] = t->dir == READ ?
                          READ_ERROR ONCE : WRITE_ERROR ONCE);
    Machine *m = test_begin(&bad);

    submit(m, PRIMARY, t->dir, BAD_SECTOR, t->list);
    qtest_qmp_eventwait(m->qts, "STOP");
    t->abort(m, PRIMARY);
    expect_partial_transfer(m, &channel_req[PRIMARY]);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    assert_usable(m, SECONDARY, 100);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
    machine_discard();
}

/* A command that was reset before the engine was started is not executed */
static void test_reset_before_start(const void *data)
{
    const AbortTest *t = data;
    Machine *m = test_begin(&ide_setup);

    submit(m, PRIMARY, t->dir, 1, t->list);
    finish(m, PRIMARY);
    /* The same once more, but for the start */
    ata_writeb(m, PRIMARY, ATA_SECTOR_COUNT, 1);
    ata_writeb(m, PRIMARY, ATA_COMMAND,
               t->dir == READ ? ATA_READ_DMA : ATA_WRITE_DMA);
    t->abort(m, PRIMARY);
    request_free(&channel_req[PRIMARY]);
    request_init(m, &channel_req[PRIMARY], t->dir, PRIMARY, SECTOR, 0, t->list);
    bmi_start(m, PRIMARY, t->dir);
    assert_stays_active(m, PRIMARY);
    assert_everything(m);
    bmi_writeb(m, PRIMARY, BMIC, 0);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

/* The data port takes words and double words in any order */
static void test_data_port(void)
{
    Machine *m = test_begin(&ide_setup);
    uint16_t port = ide_channel[PRIMARY].command_block;
    uint8_t *sector = m->image[PRIMARY] + SECTOR, status;
    int64_t deadline = patience_ends();
    int i;

    ide_issue(m, PRIMARY, ATA_WRITE_SECTORS, 1, 1);
    scramble(sector, SECTOR, 1);
    qtest_outw(m->qts, port, lduw_le_p(sector));
    for (i = 2; i < SECTOR - 2; i += 4) {
        qtest_outl(m->qts, port, ldl_le_p(sector + i));
    }
    qtest_outw(m->qts, port, lduw_le_p(sector + i));
    while ((status = ata_readb(m, PRIMARY, ATA_STATUS)) & ATA_STATUS_BSY) {
        wait_before_poll(deadline, "end of command");
    }
    g_assert_cmphex(status & ~ATA_STATUS_DSC, ==, ATA_STATUS_DRDY);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
}

/* To stop the engine is no error of the disk: no policy applies */
static void test_cancel_is_no_error(const void *data)
{
    static const Setup stop =
        IDE_SETUP(IDE_DRIVES(",rerror=stop,werror=stop"));
    const ListTest *t = data;
    Machine *m = test_begin(&stop);

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, "m512@4096");
    cancel(m, SECONDARY);
    expect_partial_transfer(m, &channel_req[SECONDARY]);
    release_pool(m);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/* What waits for the pool has no memory any more once it gets it */
static void test_no_busmaster_waiting(void)
{
    Machine *m = test_begin(&ide_setup);
    uint16_t command = qpci_config_readw(m->hba, PCI_COMMAND);
    int ch;

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, READ, 30, "m512@4096");
    assert_stays_active(m, SECONDARY);
    qpci_config_writew(m->hba, PCI_COMMAND, command & ~PCI_COMMAND_MASTER);
    blkdebug(m, PRIMARY, "resume A");
    for (ch = 0; ch < CHANNELS; ch++) {
        g_assert_cmphex(wait_until_idle(m, ch), ==, BMIS_INTERRUPT);
        ata_readb(m, ch, ATA_STATUS);
        acknowledge(m, ch);
    }
    qpci_config_writew(m->hba, PCI_COMMAND, command);
    assert_usable(m, PRIMARY, 100);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/* Nothing is lost when the machine stops, and goes on */
static void test_stop_cont(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK);
    const ListTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, "r100@4096+m412@4096");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'stop' }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    finish(m, PRIMARY);
    finish(m, SECONDARY);
    assert_usable(m, PRIMARY, BAD_SECTOR);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/*
 * A machine that has stopped is at rest: what waited for bounce buffers when
 * it stopped has ended as well.
 */
static void test_stop_waiting(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK,
                                        .drive[SECONDARY] = VERY_SLOW_DISK);
    const ListTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, READ, BAD_SECTOR, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, BAD_SECTOR, t->list);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'stop' }");
    g_assert_cmphex(bmi_readb(m, PRIMARY, BMIS), ==, BMIS_INTERRUPT);
    g_assert_cmphex(bmi_readb(m, SECONDARY, BMIS), ==, BMIS_INTERRUPT);
    finish(m, PRIMARY);
    finish(m, SECONDARY);
    assert_everything(m);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    assert_usable(m, PRIMARY, BAD_SECTOR);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

/* As finish(), but nobody has seen how the interrupt line was raised */
static void finish_migrated(Machine *m, int ch)
{
    g_assert_cmphex(wait_until_idle(m, ch), ==, BMIS_INTERRUPT);
    g_assert_cmphex(ata_readb(m, ch, ATA_STATUS) & ~ATA_STATUS_DSC, ==,
                    ATA_STATUS_DRDY);
    acknowledge(m, ch);
    expect_transfer(m, &channel_req[ch], channel_req[ch].bytes);
}

/* Migration takes along what waited for bounce buffers when it stopped */
static void test_migrate_waiting(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOWEST_DISK);
    const ListTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, READ, BAD_SECTOR, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    machine_migrate(m);
    finish_migrated(m, PRIMARY);
    finish_migrated(m, SECONDARY);
    assert_usable(m, PRIMARY, BAD_SECTOR);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
    machine_discard();
}

/* A system reset concerns both: neither may be suspended for ever */
static void test_reset_waiting(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK);
    const AbortTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    system_reset(m, SECONDARY);
    expect_partial_transfer(m, &channel_req[PRIMARY]);
    expect_partial_transfer(m, &channel_req[SECONDARY]);
    assert_usable(m, PRIMARY, BAD_SECTOR);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
}

static void add_abort_tests(void)
{
    /* Offsets beyond what WHOLE_POOL uses */
    static const char *const waiting[] = {
        "m512@4096", "m100@5000+r412", "r100+m412@5000",
        "r512+m512@5000+r512", "m4096@4096", NULL
    };
    static const char *const in_flight[] = {
        "r512", "m512", "r100+m412", "m8192", "r100+m8092", "m100+r8092", NULL
    };
    static const struct {
        const char *name;
        void (*abort)(Machine *m, int ch);
    } ways[] = {
        { "cancel", cancel },
        { "software-reset", software_reset },
        { "system-reset", system_reset },
    };
    Direction dir;
    int i, w;

    for (dir = READ; dir <= WRITE; dir++) {
        const char *name = dir_name(dir);

        for (w = 0; w < ARRAY_SIZE(ways); w++) {
            AbortTest start = { dir, "r512", ways[w].abort };
            g_autofree char *before =
                g_strdup_printf("ide-dma/%s/before-start/%s", ways[w].name,
                                name);

            if (start.abort != cancel) {
                qtest_add_data_func_full(before,
                                         g_memdup2(&start, sizeof(start)),
                                         test_reset_before_start, g_free);
            }
            for (i = 0; in_flight[i]; i++) {
                AbortTest t = { dir, in_flight[i], ways[w].abort };
                g_autofree char *path =
                    g_strdup_printf("ide-dma/%s/in-flight/%s/%s",
                                    ways[w].name, name, t.list);

                g_autofree char *stopped =
                    g_strdup_printf("ide-dma/%s/stopped/%s/%s",
                                    ways[w].name, name, t.list);

                qtest_add_data_func_full(path, g_memdup2(&t, sizeof(t)),
                                         test_abort_in_flight, g_free);
                qtest_add_data_func_full(stopped, g_memdup2(&t, sizeof(t)),
                                         test_abort_stopped, g_free);
            }
            for (i = 0; waiting[i]; i++) {
                AbortTest t = { dir, waiting[i], ways[w].abort };
                g_autofree char *path =
                    g_strdup_printf("ide-dma/%s/waiting/%s/%s",
                                    ways[w].name, name, t.list);

                qtest_add_data_func_full(path, g_memdup2(&t, sizeof(t)),
                                         ways[w].abort == system_reset ?
                                         test_reset_waiting :
                                         test_abort_waiting, g_free);
            }
        }
        for (i = 0; waiting[i]; i++) {
            ListTest t = { dir, waiting[i] };
            g_autofree char *pool =
                g_strdup_printf("ide-dma/compete/%s/%s", name, t.list);
            g_autofree char *rest =
                g_strdup_printf("ide-dma/compete-for-rest/%s/%s", name,
                                t.list);

            qtest_add_data_func_full(pool, g_memdup2(&t, sizeof(t)),
                                     test_compete, g_free);
            qtest_add_data_func_full(rest, g_memdup2(&t, sizeof(t)),
                                     test_compete_for_rest, g_free);
        }
        for (i = 0; waiting[i]; i++) {
            ListTest t = { dir, waiting[i] };
            g_autofree char *stop =
                g_strdup_printf("ide-dma/stop/waiting/%s/%s", name, t.list);

            qtest_add_data_func_full(stop, g_memdup2(&t, sizeof(t)),
                                     test_stop_waiting, g_free);
        }
    }
}

/* The drive is pulled out */

static void unplug_drive(Machine *m, int ch)
{
    g_autofree char *reply = qtest_hmp(m->qts, "drive_del drive%d", ch);

    g_assert_cmpstr(reply, ==, "");
}

/* A request that was on its way then ends, for better or worse */
static void finish_unplugged(Machine *m, int ch)
{
    g_assert_cmphex(wait_until_idle(m, ch), ==, BMIS_INTERRUPT);
    ata_readb(m, ch, ATA_STATUS);
    acknowledge(m, ch);
    expect_partial_transfer(m, &channel_req[ch]);
}

/* There is no drive any more: this must fail, and alter nothing */
static void assert_unplugged(Machine *m, int ch)
{
    submit(m, ch, READ, 40, "r100@4096+m412@5000");
    finish_with_error(m, ch);
    assert_everything(m);
    submit(m, ch, WRITE, 40, "r100@4096+m412@5000");
    finish_with_error(m, ch);
    assert_everything(m);
}

static void test_unplug_in_flight(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK);
    const ListTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, t->dir, BAD_SECTOR, t->list);
    unplug_drive(m, PRIMARY);
    finish_unplugged(m, PRIMARY);
    assert_unplugged(m, PRIMARY);
    assert_usable(m, SECONDARY, 100);
    test_end(m);
    machine_discard();
}

/*
 * Graph changes drain all drives, the one that holds the pool too: whether
 * the other's request still waits when its drive goes is up to the host.
 */
static void test_unplug_waiting(const void *data)
{
    static const Setup slow = IDE_SETUP(IDE_DRIVES(""),
                                        .drive[PRIMARY] = SLOW_DISK);
    const ListTest *t = data;
    Machine *m = test_begin(&slow);

    submit(m, PRIMARY, READ, BAD_SECTOR, WHOLE_POOL);
    submit(m, SECONDARY, t->dir, 30, t->list);
    unplug_drive(m, SECONDARY);
    finish(m, PRIMARY);
    finish_unplugged(m, SECONDARY);
    assert_unplugged(m, SECONDARY);
    assert_usable(m, PRIMARY, 100);
    test_end(m);
    machine_discard();
}

static void add_unplug_tests(void)
{
    static const ListTest in_flight[] = {
        { READ, "r512" },
        { READ, "r100+m412" },
        { READ, "m8192" },
        { READ, "r100+m8092" },
        { WRITE, "r512" },
        { WRITE, "m8192" },
    };
    static const ListTest waiting[] = {
        { READ, "m512@4096" },
        { READ, "r100+m412@5000" },
        { WRITE, "m512@4096" },
        { WRITE, "r100+m412@5000" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(in_flight); i++) {
        g_autofree char *path =
            g_strdup_printf("ide-dma/unplug/in-flight/%s/%s",
                            dir_name(in_flight[i].dir),
                            in_flight[i].list);

        qtest_add_data_func(path, &in_flight[i], test_unplug_in_flight);
    }
    for (i = 0; i < ARRAY_SIZE(waiting); i++) {
        g_autofree char *path =
            g_strdup_printf("ide-dma/unplug/waiting/%s/%s",
                            dir_name(waiting[i].dir),
                            waiting[i].list);

        qtest_add_data_func(path, &waiting[i], test_unplug_waiting);
    }
}

/* Counters: what of a transfer was direct, what was bounced, and why */

typedef struct CounterTest {
    ListTest list;
    const char *counters;
} CounterTest;

static void test_counters(const void *data)
{
    const CounterTest *t = data;
    const ListTest *l = &t->list;
    Machine *m = test_begin(&l->setup);

    dma_counters_reset(m->qts);
    submit_at(m, PRIMARY, l->dir, 7, l->sectors, l->list, &l->table);
    finish(m, PRIMARY);
    expect_dma_counters(m->qts, NULL, t->counters);
    expect_dma_counters(m->qts, "total", t->counters);
    test_end(m);
}

static void add_counter_tests(void)
{
#define POOL_4K         .setup = IDE_SETUP(IDE_DRIVES(""))
#define NO_POOL         .setup = IDE_SETUP(IDE_DRIVES("") \
                            "-global piix3-ide.x-max-bounce-buffer-size=0")
#define ICOUNT          .setup = IDE_SETUP(IDE_DRIVES("") ICOUNT_OPTIONS)
    static const CounterTest tests[] = {
        { { READ, "r512", POOL_4K }, "requests=1 bytes-direct=512" },
        { { WRITE, "r65536+r65536", POOL_4K },
          "requests=1 bytes-direct=131072" },
        { { READ, "512xr2", POOL_4K }, "requests=1 bytes-direct=1024" },
        { { READ, "r100+m412", POOL_4K },
          "requests=1 bytes-direct=100 bytes-bounced=412 bounced-mmio=412" },
        { { WRITE, "m412+r100", POOL_4K },
          "requests=1 bytes-direct=100 bytes-bounced=412 bounced-mmio=412" },
        /* ROM is memory to who only reads it */
        { { WRITE, "o200+h200+r112", POOL_4K },
          "requests=1 bytes-direct=312 bytes-bounced=200 bounced-mmio=200" },
        { { READ, "o200+h200+r112", POOL_4K },
          "requests=1 bytes-direct=112 bytes-bounced=400 bounced-mmio=400" },
        /* The pool holds 4 KiB */
        { { READ, "m8192", POOL_4K },
          "requests=1 bytes-bounced=8192 partial-mappings=1 "
          "bounced-mmio=8192" },
        { { READ, "r100+m8092", POOL_4K },
          "requests=1 bytes-direct=100 bytes-bounced=8092 partial-mappings=1 "
          "bounced-mmio=8092" },
        /* The table ends, the command does not */
        { { READ, "r1022+m512", POOL_4K, .sectors = 2 },
          "requests=1 bytes-direct=1022 bytes-bounced=2 bounced-mmio=2" },
        /* A private buffer of one sector at a time, RAM and all */
        { { READ, "m1024", NO_POOL },
          "requests=1 bytes-bounced=1024 partial-mappings=1 "
          "bounced-mmio=1024" },
        { { READ, "r512+r100+m412+r512", NO_POOL },
          "requests=1 bytes-direct=1024 bytes-bounced=512 partial-mappings=2 "
          "bounced-mmio=512" },
        /* In order, up to the overlap and from there on */
        { { READ, "r512@0+r512@256", ICOUNT },
          "requests=1 bytes-direct=1024 partial-mappings=1" },
        { { READ, "r100@0+r412@50", ICOUNT },
          "requests=1 bytes-bounced=512 bounced-overlap=512" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        const ListTest *l = &tests[i].list;
        bool icount = strstr(l->setup.machine, "icount");
        bool no_pool = strstr(l->setup.machine, "bounce-buffer-size=0");
        g_autofree char *path =
            g_strdup_printf("ide-dma/counters/%s%s/%s",
                            icount ? "icount/" : no_pool ? "no-pool/" : "",
                            dir_name(l->dir), l->list);

        if (!icount || qtest_has_accel("tcg")) {
            qtest_add_data_func(path, &tests[i], test_counters);
        }
    }
}

/* A CD-ROM drive can read both ways */
static void test_packet_counters(const void *options)
{
    const Setup setup = IDE_SETUP(options);
    const TablePlace table = { .offset = 4 };
    Machine *m = test_begin(&setup);

    dma_counters_reset(m->qts);
    submit_packet(m, 5, "r1000+m3096", &table);
    finish(m, SECONDARY);
    if (strstr(options, "buffered")) {
        expect_dma_counters(m->qts, "/disk2", "buffered-disabled=1");
        expect_dma_counters(m->qts, "total", "buffered-disabled=1");
    } else {
        expect_dma_counters(m->qts, "/disk2", "direct=1");
        expect_dma_counters(m->qts, "total",
                            "requests=1 bytes-direct=1000 bytes-bounced=3096 "
                            "direct=1 bounced-mmio=3096");
    }
    test_end(m);
}

/* How long requests have waited: a member of x-query-dma */
static uint64_t wait_ns(Machine *m, const char *member)
{
    QDict *stats = qtest_qmp_assert_success_ref(
        m->qts, "{ 'execute': 'x-query-dma' }");
    uint64_t ns = qdict_get_int(stats, member);

    qobject_unref(stats);
    return ns;
}

/* Two requests wait in turn, one of them in vain */
static void test_wait_counters(void)
{
    Machine *m = test_begin(&ide_setup);
    uint64_t first, both;

    dma_counters_reset(m->qts);
    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, READ, 30, "m512@4096");
    assert_stays_active(m, SECONDARY);
    expect_dma_counters(m->qts, "total",
                        "requests=2 bytes-bounced=4096 map-client-waits=1 "
                        "bounced-mmio=4096");
    g_assert_cmpuint(wait_ns(m, "map-client-wait-ns"), ==, 0);
    release_pool(m);
    finish(m, SECONDARY);
    expect_dma_counters(m->qts, "total",
                        "requests=2 bytes-bounced=4608 map-client-waits=1 "
                        "bounced-mmio=4608");
    first = wait_ns(m, "map-client-wait-ns");
    g_assert_cmpuint(first, >, 0);
    g_assert_cmpuint(wait_ns(m, "map-client-wait-max-ns"), ==, first);

    hold_pool(m, WHOLE_POOL);
    submit(m, SECONDARY, READ, 30, "m512@4096");
    assert_stays_active(m, SECONDARY);
    cancel(m, SECONDARY);
    expect_partial_transfer(m, &channel_req[SECONDARY]);
    expect_dma_counters(m->qts, "total",
                        "requests=4 bytes-bounced=9216 map-client-waits=2 "
                        "bounced-mmio=9216");
    both = wait_ns(m, "map-client-wait-ns");
    g_assert_cmpuint(both, >, first);
    g_assert_cmpuint(wait_ns(m, "map-client-wait-max-ns"), ==,
                     MAX(first, both - first));
    release_pool(m);
    test_end(m);
}

/* "info dma" shows the same, and -r resets it */
static void test_info_dma(void)
{
    Machine *m = test_begin(&ide_setup);
    g_autofree char *shown = NULL;
    g_autofree char *after = NULL;

    dma_counters_reset(m->qts);
    submit(m, PRIMARY, READ, 7, "r100+m412");
    finish(m, PRIMARY);
    submit(m, PRIMARY, WRITE, 7, "m8192");
    finish(m, PRIMARY);

    shown = qtest_hmp(m->qts, "info dma");
    g_test_message("%s", shown);
    g_assert_true(g_str_has_prefix(shown,
        "total:\r\n"
        "  lists 2; bytes direct 100, bounced 8604 (mmio 8604)\r\n"
        "  partial mappings 1; map client waits 0 (ms 0.000, longest 0.000); "
        "whole map failures 0\r\n"
        "  vectors untouched 3, bounced 0, split 0; bytes direct 8704, "
        "bounced 0\r\n"
        "/machine/"));
    g_assert_nonnull(strstr(shown,
        ":\r\n"
        "  lists 2; bytes direct 100, bounced 8604 (mmio 8604)\r\n"
        "  partial mappings 1; map client waits 0 (ms 0.000, longest 0.000); "
        "whole map failures 0\r\n"
        "drive drive0 node "));
    g_assert_true(g_str_has_suffix(shown,
        " at disk0:\r\n"
        "  vectors untouched 3, bounced 0, split 0; bytes direct 8704, "
        "bounced 0\r\n"));

    after = qtest_hmp(m->qts, "info dma -r");
    g_assert_cmpstr(after, ==, "");
    expect_dma_counters(m->qts, "total", "");
    expect_dma_drive_counters(m->qts, "drive0", "");
    expect_dma_drive_counters(m->qts, "total", "");
    test_end(m);
}

int main(int argc, char **argv)
{
    static const ListTest read = { .dir = READ }, write = { .dir = WRITE };
    static const ListTest waiting_read = { READ, "m512@4096" };
    static const ListTest waiting_write = { WRITE, "m512@4096" };

    g_test_init(&argc, &argv, NULL);

    add_list_tests("ram", ram_lists);
    add_list_tests("mixed", mixed_lists);
    add_list_tests("rom", rom_lists);
    add_list_tests("hole", hole_lists);
    add_list_tests("edge", edge_lists);
    add_list_tests("top", top_lists);
    add_list_tests("stripes", stripe_lists);
    add_list_tests("small", small_lists);
    add_pool_tests();
    add_table_tests();
    add_short_table_tests();
    add_packet_tests();
    add_overlap_tests();
    qtest_add_func("ide-dma/overlap/read", test_overlap_read);
    add_random_tests();
    add_error_tests();
    qtest_add_data_func("ide-dma/compete-not/read", &read, test_compete_not);
    qtest_add_data_func("ide-dma/compete-not/write", &write,
                        test_compete_not);
    add_abort_tests();
    qtest_add_func("ide-dma/data-port", test_data_port);
    qtest_add_data_func("ide-dma/cancel/no-error/read", &read,
                        test_cancel_is_no_error);
    qtest_add_data_func("ide-dma/cancel/no-error/write", &write,
                        test_cancel_is_no_error);
    qtest_add_func("ide-dma/no-busmaster/waiting",
                   test_no_busmaster_waiting);
    qtest_add_data_func("ide-dma/stop-cont/read", &read, test_stop_cont);
    qtest_add_data_func("ide-dma/stop-cont/write", &write, test_stop_cont);
    qtest_add_data_func("ide-dma/migrate/waiting/read", &waiting_read,
                        test_migrate_waiting);
    qtest_add_data_func("ide-dma/migrate/waiting/write", &waiting_write,
                        test_migrate_waiting);
    add_unplug_tests();
    add_counter_tests();
    qtest_add_data_func("ide-dma/counters/packet/direct", IDE_DRIVES(""),
                        test_packet_counters);
    qtest_add_data_func("ide-dma/counters/packet/buffered",
                        IDE_DRIVES("") "-global ide-cd.dma=buffered",
                        test_packet_counters);
    qtest_add_func("ide-dma/counters/waits", test_wait_counters);
    qtest_add_func("ide-dma/counters/info-dma", test_info_dma);

    return test_run();
}
