/*
 * AHCI DMA: lists longer than the host takes in one request
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"

#define AHCI_SLOT               5

static const Setup ahci = {
    .machine = "-device ahci,id=hba,addr=5 "
               "-device ide-hd,bus=hba.0,drive=drive0,id=disk0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(AHCI_SLOT, 0),
    .hba_bar = AHCI_ABAR,
};

static Request req;

static void submit(Machine *m, Direction dir, uint32_t lba, const char *list)
{
    AhciCommand cmd = {
        .fis = {
            FIS_REGISTER_H2D, FIS_IS_COMMAND,
            dir == READ ? ATA_READ_DMA_EXT : ATA_WRITE_DMA_EXT, 0,
            lba, lba >> 8, lba >> 16, ATA_DEVICE_LBA,
            lba >> 24,
        },
        .flags = dir == WRITE ? CH_WRITE : 0,
    };

    request_free(&req);
    request_init(m, &req, dir, 0, lba * SECTOR, 0, list);
    stw_le_p(&cmd.fis[12], req.bytes / SECTOR);
    cmd.list = req.list;
    ahci_issue(m, &cmd);
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
