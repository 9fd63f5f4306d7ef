/*
 * AHCI: lists longer than the host takes in one request, commands given up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"

#define AHCI_SLOT               5

#define AHCI_SETUP(more, ...) { \
        .machine = "-device ahci,id=hba,addr=5 " \
                   "-device ide-hd,bus=hba.0,drive=drive0,id=disk0" more, \
        .disks = 1, \
        .hba_devfn = QPCI_DEVFN(AHCI_SLOT, 0), \
        .hba_bar = AHCI_ABAR, \
        __VA_ARGS__ \
    }

static const Setup ahci = AHCI_SETUP("");

static Request req;

static void submit_command(Machine *m, uint8_t command, Direction dir,
                           uint32_t lba, const char *list)
{
    AhciCommand cmd;

    request_free(&req);
    request_init(m, &req, dir, 0, lba * SECTOR, 0, list);
    cmd = ahci_ata_command(0, command, &req);
    ahci_issue(m, &cmd);
}

static void submit(Machine *m, Direction dir, uint32_t lba, const char *list)
{
    submit_command(m, dir == READ ? ATA_READ_DMA_EXT : ATA_WRITE_DMA_EXT, dir,
                   lba, list);
}

static void finish(Machine *m)
{
    wait_until_clear(m, P0CI, 1);
    g_assert_cmphex(hba_readl(m, P0TFD) &
                    (PXTFD_BSY | PXTFD_DRQ | PXTFD_ERR), ==, 0);
    expect_transfer(m, &req, req.bytes);
    ahci_accept(m);
}

typedef struct AhciTest {
    Direction dir;
    const char *list;
} AhciTest;

static void test_list(const void *data)
{
    const AhciTest *t = data;
    Machine *m = test_begin(&ahci);

    port_start(m);
    submit(m, t->dir, 7, t->list);
    finish(m);
    port_stop(m);
    ahci_accept(m);
    test_end(m);
}

/* How the block layer split the vector, and that the mapper did not */
static void test_counters(void)
{
    static const struct {
        const char *list;
        const char *counters;
        const char *drive_counters;
    } tests[] = {
        { "1023xr2+r2", "requests=1 bytes-direct=2048",
          "requests-untouched=1 bytes-direct=2048" },
        { "1024xr2+r512", "requests=1 bytes-direct=2560",
          "requests-split=1 split-host-requests=2 bytes-direct=2560" },
        { "2048xr2", "requests=1 bytes-direct=4096",
          "requests-split=1 split-host-requests=2 bytes-direct=4096" },
        { "2560xr1", "requests=1 bytes-direct=2560",
          "requests-split=1 split-host-requests=3 bytes-direct=2560" },
    };
    Machine *m = test_begin(&ahci);
    int i;

    port_start(m);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        dma_counters_reset(m->qts);
        submit(m, READ, 7, tests[i].list);
        finish(m);
        expect_dma_counters(m->qts, "/machine/peripheral/hba",
                            tests[i].counters);
        expect_dma_drive_counters(m->qts, "drive0", tests[i].drive_counters);
    }
    port_stop(m);
    region_accept(m, TABLE, RECEIVED_FIS, RECEIVED_FIS_SIZE);
    test_end(m);
}

/* The guest gives up a command */

#define INJECT                  ",file.inject-error.0."
#define SLOW_DISK               INJECT "event=none" INJECT "errno=0" \
                                INJECT "delay-ns=20000000"
#define BAD_ONCE                INJECT "event=none" INJECT "sector=22" \
                                INJECT "errno=5" INJECT "once=on"
#define BAD_SECTOR              22

static const Setup slow = AHCI_SETUP("", .drive[0] = SLOW_DISK);

typedef struct GiveUpTest {
    Direction dir;
    uint8_t command;
    void (*give_up)(Machine *m);
} GiveUpTest;

/* A busy drive is to be reset first (AHCI 1.3.1, section 10.3.1), but ... */
static void stop_and_start(Machine *m)
{
    ahci_stop(m);
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) | PXCMD_ST);
}

static void reset_port(Machine *m)
{
    int64_t deadline = patience_ends();

    ahci_comreset(m);
    while (ahci_busy(m)) {
        wait_before_poll(deadline, "end of reset");
    }
    port_stop(m);
    port_start(m);
    ahci_accept(m);
}

static void expect_usable(Machine *m)
{
    submit(m, WRITE, 100, "r100+m412");
    finish(m);
    submit(m, READ, 100, "r100+m412");
    finish(m);
}

static void test_give_up(const void *data)
{
    const GiveUpTest *t = data;
    Machine *m = test_begin(&slow);

    port_start(m);
    submit_command(m, t->command, t->dir, 7, "4xr512");
    t->give_up(m);
    expect_partial_transfer(m, &req);
    reset_port(m);
    /* It takes so long that a sector that follows would come to light */
    expect_usable(m);
    test_end(m);
    machine_discard();
}

/* A command that waits for the machine to go on is not executed any more */
static void test_give_up_stopped(const void *data)
{
    static const Setup bad = AHCI_SETUP(",rerror=stop,werror=stop",
                                        .drive[0] = BAD_ONCE);
    const GiveUpTest *t = data;
    Machine *m = test_begin(&bad);

    port_start(m);
    submit_command(m, t->command, t->dir, BAD_SECTOR, "4xr512");
    qtest_qmp_eventwait(m->qts, "STOP");
    t->give_up(m);
    expect_partial_transfer(m, &req);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    reset_port(m);
    expect_usable(m);
    test_end(m);
    machine_discard();
}

/* A command that is not queued is aborted while others are */
static void test_not_queued(void)
{
    static const AhciCommand flush = {
        .fis = { FIS_REGISTER_H2D, FIS_IS_COMMAND, ATA_FLUSH_CACHE_EXT },
    };
    Machine *m = test_begin(&slow);
    int64_t deadline = patience_ends();

    port_start(m);
    submit_command(m, ATA_READ_FPDMA_QUEUED, READ, 7, "r512");
    ahci_issue(m, &flush);
    while (!(hba_readl(m, P0IS) & PXIS_TFES)) {
        wait_before_poll(deadline, "error of the command");
    }
    g_assert_cmphex(hba_readl(m, P0TFD) & PXTFD_ERR, ==, PXTFD_ERR);
    hba_writel(m, P0IS, ~0u);
    wait_until_clear(m, P0SACT, 1);
    expect_transfer(m, &req, req.bytes);
    port_stop(m);
    port_start(m);
    ahci_accept(m);
    expect_usable(m);
    port_stop(m);
    ahci_accept(m);
    test_end(m);
}

static void add_give_up_tests(void)
{
    static const struct {
        const char *name;
        Direction dir;
        uint8_t command;
    } commands[] = {
        { "read-sectors", READ, ATA_READ_SECTORS_EXT },
        { "write-sectors", WRITE, ATA_WRITE_SECTORS_EXT },
        { "read-dma", READ, ATA_READ_DMA_EXT },
        { "write-dma", WRITE, ATA_WRITE_DMA_EXT },
        { "read-queued", READ, ATA_READ_FPDMA_QUEUED },
        { "write-queued", WRITE, ATA_WRITE_FPDMA_QUEUED },
    };
    static const struct {
        const char *name;
        void (*give_up)(Machine *m);
    } ways[] = {
        { "stop", stop_and_start },
        { "comreset", ahci_comreset },
        { "hba-reset", ahci_hba_reset },
        { "system-reset", machine_reset },
    };
    int i, w;

    for (w = 0; w < ARRAY_SIZE(ways); w++) {
        for (i = 0; i < ARRAY_SIZE(commands); i++) {
            GiveUpTest t = { commands[i].dir, commands[i].command,
                             ways[w].give_up };
            g_autofree char *in_flight =
                g_strdup_printf("ahci-dma/give-up/%s/in-flight/%s",
                                ways[w].name, commands[i].name);
            g_autofree char *stopped =
                g_strdup_printf("ahci-dma/give-up/%s/stopped/%s",
                                ways[w].name, commands[i].name);

            qtest_add_data_func_full(in_flight, g_memdup2(&t, sizeof(t)),
                                     test_give_up, g_free);
            qtest_add_data_func_full(stopped, g_memdup2(&t, sizeof(t)),
                                     test_give_up_stopped, g_free);
        }
    }
}

/* The most memory that a port can take: all slots, with the longest tables */

#define SLOTS                   32
#define SLOT_DATA               (16 * MiB)      /* where no region is */
#define SLOT_TABLES             (40 * MiB)
#define SLOT_TABLE_SIZE         (1 * MiB + 4 * KiB)
#define COMMAND_HEADER_SIZE     32
#define SLOT_SECTORS            255
#define SLOT_PRD_BYTES          2
#define SLOT_PRDTL              (SLOT_SECTORS * SECTOR / SLOT_PRD_BYTES)
/* docs/devel/dma.rst, "Memory" */
#define SLOT_MEMORY             (SLOT_PRDTL * 64 + 64 * KiB)

static void ncq_prepare(Machine *m, int tag)
{
    uint64_t table = SLOT_TABLES + tag * SLOT_TABLE_SIZE;
    size_t size = CT_PRDT + SLOT_PRDTL * PRDT_ENTRY_SIZE;
    g_autofree uint8_t *buf = g_malloc0(size);
    uint32_t header[COMMAND_HEADER_SIZE / 4] = {
        cpu_to_le32(CH_CFL_REGISTER_FIS | SLOT_PRDTL << CH_PRDTL_SHIFT), 0,
        cpu_to_le32(table)
    };
    uint8_t fis[] = {
        FIS_REGISTER_H2D, FIS_IS_COMMAND, ATA_READ_FPDMA_QUEUED, SLOT_SECTORS,
        0, 0, 0, ATA_DEVICE_LBA, 0, 0, 0, 0, tag << 3
    };
    int i;

    memcpy(buf, fis, sizeof(fis));
    for (i = 0; i < SLOT_PRDTL; i++) {
        uint8_t *prd = buf + CT_PRDT + i * PRDT_ENTRY_SIZE;

        /* Backwards: no two of them are one */
        stq_le_p(prd, SLOT_DATA + (SLOT_PRDTL - i) * SLOT_PRD_BYTES);
        stl_le_p(prd + 12, SLOT_PRD_BYTES - 1);
    }
    qtest_bufwrite(m->qts, table, buf, size);
    region_write(m, TABLE, COMMAND_LIST + tag * COMMAND_HEADER_SIZE, header,
                 sizeof(header));
}

static void test_memory(void)
{
    static const Setup big = AHCI_SETUP(" -m 128");
    Machine *m = test_begin(&big);
    int64_t used;
    int tag;

    port_start(m);
    for (tag = 0; tag < SLOTS; tag++) {
        ncq_prepare(m, tag);
    }
    qtest_memset(m->qts, SLOT_DATA, 0, SLOT_SECTORS * SECTOR + SLOT_PRD_BYTES);

    /* One as the disk comes; then all, which wait in the block layer */
    hba_writel(m, P0SACT, 1);
    hba_writel(m, P0CI, 1);
    wait_until_clear(m, P0SACT, 1);
    throttle(m, 0, 1, 0);
    used = -anonymous_memory(m);
    /* With sanitizers, QEMU takes up to a second to map one of them. */
    for (tag = 0; tag < SLOTS; tag++) {
        hba_writel(m, P0SACT, 1u << tag);
        hba_writel(m, P0CI, 1u << tag);
        machine_still_answers(m);
    }
    used += anonymous_memory(m);
    g_test_message("%d requests take %" PRId64 " KiB", SLOTS, used / KiB);
    g_assert_cmphex(hba_readl(m, P0SACT), ==, ~0u);
#ifndef QEMU_SANITIZE_ADDRESS      /* which takes memory of its own */
    g_assert_cmpint(used, <=, SLOTS * SLOT_MEMORY);
#endif

    throttle(m, 0, 0, 0);
    wait_until_clear(m, P0SACT, ~0u);
    port_stop(m);
    for (tag = 0; tag < SLOTS; tag++) {
        region_accept(m, TABLE, tag * COMMAND_HEADER_SIZE + CH_PRDBC, 4);
    }
    region_accept(m, TABLE, RECEIVED_FIS, RECEIVED_FIS_SIZE);
    test_end(m);
}

int main(int argc, char **argv)
{
    /* Linux takes 1024 elements */
    static const char *const lists[] = {
        "r512",
        "1023xr2+r2",
        "1024xr2+r512",
        "1025xr2+r510",
        "300xr512",
        "2048xr2",
        "2000xr34+r96",
        "1023xr2+1025xr34+r480",
        "1000xr2+m100+1000xr2+r1020",
        "2048xm4",
        "1536xr1@0",
        NULL
    };
    Direction dir;
    int i;

    g_test_init(&argc, &argv, NULL);

    for (i = 0; lists[i]; i++) {
        for (dir = READ; dir <= WRITE; dir++) {
            AhciTest *t = g_new(AhciTest, 1);
            g_autofree char *path = g_strdup_printf("ahci-dma/%s/%s",
                                                    dir_name(dir), lists[i]);

            /* Who is last in the same place is up to the host */
            if (dir == READ && strchr(lists[i], '@')) {
                g_free(t);
                continue;
            }
            t->dir = dir;
            t->list = lists[i];
            qtest_add_data_func_full(path, t, test_list, g_free);
        }
    }

    qtest_add_func("ahci-dma/counters", test_counters);
    qtest_add_func("ahci-dma/memory", test_memory);
    qtest_add_func("ahci-dma/not-queued", test_not_queued);
    add_give_up_tests();

    return test_run();
}
