/*
 * AHCI DMA: lists longer than the host takes in one request
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "dma-test-util.h"

/* AHCI 1.3.1, chapter 3: HBA memory registers, here of port 0 */
#define AHCI_SLOT               5
#define AHCI_ABAR               5
#define GHC                     0x04
#define   GHC_AE                0x80000000
#define P0CLB                   0x100           /* command list */
#define P0FB                    0x108           /* received FIS */
#define P0IS                    0x110
#define   PXIS_TFES             0x40000000      /* task file error */
#define P0CMD                   0x118
#define   PXCMD_ST              0x0001
#define   PXCMD_FRE             0x0010
#define   PXCMD_FR              0x4000
#define   PXCMD_CR              0x8000
#define P0TFD                   0x120
#define   PXTFD_BSY             0x80
#define   PXTFD_DRQ             0x08
#define   PXTFD_ERR             0x01
#define P0SERR                  0x130
#define P0CI                    0x138

/* AHCI 1.3.1, chapter 4: structures in memory, here in that of tables */
#define COMMAND_LIST            0
#define   CH_CFL_REGISTER_FIS   5               /* length in words */
#define   CH_WRITE              0x40
#define   CH_PRDTL_SHIFT        16
#define RECEIVED_FIS            0x400
#define RECEIVED_FIS_SIZE       0x100
#define COMMAND_TABLE           0x800
#define   CT_PRDT               0x80
#define   PRD_SIZE              16

/* Serial ATA: Register FIS, host to device */
#define FIS_REGISTER_H2D        0x27
#define FIS_IS_COMMAND          0x80
#define ATA_DEVICE_LBA          0x40
#define ATA_READ_DMA_EXT        0x25
#define ATA_WRITE_DMA_EXT       0x35

static const Setup ahci = {
    .machine = "-device ahci,id=hba,addr=5 "
               "-device ide-hd,bus=hba.0,drive=drive0,id=disk0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(AHCI_SLOT, 0),
    .hba_bar = AHCI_ABAR,
};

static Request req;

static uint32_t hba_readl(Machine *m, int reg)
{
    return qpci_io_readl(m->hba, m->hba_bar, reg);
}

static void hba_writel(Machine *m, int reg, uint32_t value)
{
    qpci_io_writel(m->hba, m->hba_bar, reg, value);
}

static void wait_until_clear(Machine *m, int reg, uint32_t bits)
{
    int64_t deadline = patience_ends();

    while (hba_readl(m, reg) & bits) {
        /* After an error the port stands still */
        g_assert_cmphex(hba_readl(m, P0IS) & PXIS_TFES, ==, 0);
        wait_before_poll(deadline, "end of command");
    }
}

static void port_start(Machine *m)
{
    uint64_t tables = m->region[TABLE].base;

    hba_writel(m, GHC, GHC_AE);
    hba_writel(m, P0CLB, tables + COMMAND_LIST);
    hba_writel(m, P0FB, tables + RECEIVED_FIS);
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) | PXCMD_FRE);
    hba_writel(m, P0SERR, ~0u);
    hba_writel(m, P0IS, ~0u);
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) | PXCMD_ST);
    wait_until_clear(m, P0TFD, PXTFD_BSY | PXTFD_DRQ);
}

static void port_stop(Machine *m)
{
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) & ~PXCMD_ST);
    wait_until_clear(m, P0CMD, PXCMD_CR);
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) & ~PXCMD_FRE);
    wait_until_clear(m, P0CMD, PXCMD_FR);
}

static void submit(Machine *m, Direction dir, uint32_t lba, const char *list)
{
    uint8_t fis[20] = {
        FIS_REGISTER_H2D, FIS_IS_COMMAND,
        dir == READ ? ATA_READ_DMA_EXT : ATA_WRITE_DMA_EXT, 0,
        lba, lba >> 8, lba >> 16, ATA_DEVICE_LBA,
        lba >> 24,
    };
    g_autofree uint8_t *prdt = NULL;
    uint32_t header[4] = { };
    int i, entries;

    request_free(&req);
    request_init(m, &req, dir, 0, lba * SECTOR, 0, list);
    entries = req.list->len;
    stw_le_p(&fis[12], req.bytes / SECTOR);
    region_write(m, TABLE, COMMAND_TABLE, fis, sizeof(fis));

    prdt = g_malloc0(entries * PRD_SIZE);
    for (i = 0; i < entries; i++) {
        const Entry *e = &g_array_index(req.list, Entry, i);

        stq_le_p(&prdt[i * PRD_SIZE], entry_address(m, e));
        stl_le_p(&prdt[i * PRD_SIZE + 12], e->len - 1);
    }
    region_write(m, TABLE, COMMAND_TABLE + CT_PRDT, prdt, entries * PRD_SIZE);

    header[0] = cpu_to_le32(CH_CFL_REGISTER_FIS | (dir == WRITE ? CH_WRITE : 0)
                            | entries << CH_PRDTL_SHIFT);
    header[2] = cpu_to_le32(m->region[TABLE].base + COMMAND_TABLE);
    region_write(m, TABLE, COMMAND_LIST, header, sizeof(header));
    hba_writel(m, P0CI, 1);
}

static void finish(Machine *m)
{
    wait_until_clear(m, P0CI, 1);
    g_assert_cmphex(hba_readl(m, P0TFD) &
                    (PXTFD_BSY | PXTFD_DRQ | PXTFD_ERR), ==, 0);
    expect_transfer(m, &req, req.bytes);

    /* The controller writes its count of bytes and what the drive says */
    region_accept(m, TABLE, COMMAND_LIST + 4, 4);
    region_accept(m, TABLE, RECEIVED_FIS, RECEIVED_FIS_SIZE);
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
    region_accept(m, TABLE, RECEIVED_FIS, RECEIVED_FIS_SIZE);
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

    return test_run();
}
