/*
 * AHCI: PRD tables that are not as they should be, or not where
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AHCI 1.3.1, section 6.1, "Error Types": memory that does not answer is a
 * system memory error, a table that describes less than the command transfers
 * is a command list overflow.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"

static const Setup setup = {
    .machine = "-device ide-hd,bus=ide.0,drive=drive0,id=disk0",
    .disks = 1,
    .hba_devfn = ICH9_AHCI_DEVFN,
    .hba_bar = AHCI_ABAR,
    .q35 = true,
};

static Request req;

typedef struct TableTest {
    const char *name;
    bool ncq;
    const char *list;
    uint32_t sectors;           /* if the list is not for just as many */
    Kind kind;                  /* where the command table is */
    uint32_t offset;
    int prdtl;
    bool no_prdt;
    uint32_t error;             /* of PxIS */
} TableTest;

static void table_submit(Machine *m, const TableTest *t, uint32_t lba)
{
    AhciCommand cmd;

    request_free(&req);
    request_init(m, &req, READ, 0, lba * SECTOR, t->sectors * SECTOR, t->list);
    cmd = ahci_ata_command(0, t->ncq ? ATA_READ_FPDMA_QUEUED :
                           ATA_READ_DMA_EXT, &req);
    cmd.kind = t->kind;
    cmd.offset = t->offset;
    cmd.prdtl = t->prdtl;
    cmd.no_prdt = t->no_prdt;
    ahci_issue(m, &cmd);
}

static void test_table(const void *data)
{
    const TableTest *t = data;
    Machine *m = test_begin(&setup);
    const TableTest usual = { .list = "r100+r412" };
    int64_t deadline = patience_ends();

    port_start(m);
    table_submit(m, t, 7);
    if (t->error) {
        while (!(hba_readl(m, P0IS) & t->error)) {
            wait_before_poll(deadline, "error");
        }
        g_assert_cmphex(hba_readl(m, P0IS) & (PXIS_HBFS | PXIS_OFS), ==,
                        t->error);
    } else {
        wait_until_clear(m, t->ncq ? P0SACT : P0CI, 1);
        g_assert_cmphex(hba_readl(m, P0IS) & (PXIS_HBFS | PXIS_OFS), ==, 0);
        expect_transfer(m, &req, req.bytes);
    }
    port_stop(m);
    ahci_accept(m);
    assert_everything(m);

    /* The port serves the next command as ever */
    port_start(m);
    table_submit(m, &usual, 9);
    wait_until_clear(m, P0CI, 1);
    expect_transfer(m, &req, req.bytes);
    port_stop(m);
    ahci_accept(m);
    test_end(m);
}

/* RAM ends 4096 bytes into EDGE: so many descriptors are in front of that */
#define EDGE_TABLE(descriptors) \
    .kind = EDGE, .offset = 4096 - CT_PRDT - (descriptors) * PRDT_ENTRY_SIZE

int main(int argc, char **argv)
{
    static const TableTest tests[] = {
        { "empty", .list = "r512", .no_prdt = true, .error = PXIS_OFS },
        { "short", .list = "r510", .sectors = 1, .error = PXIS_OFS },
        { "short-by-sectors", .list = "r512+r512", .sectors = 3,
          .error = PXIS_OFS },
        { "long", .list = "r512+r4096", .sectors = 1 },
        { "odd", .list = "r1+r101+r3+r407" },
        { "odd-address", .list = "r511@1+r513@1001" },
        { "in-mmio", .list = "r100+r412", .kind = MMIO, .offset = 128 },
        { "in-mmio/long", .list = "300xr2+r424", .kind = MMIO },
        { "in-hole", .list = "r512", .kind = EDGE, .offset = 4096 - CT_PRDT,
          .error = PXIS_HBFS },
        { "across-end", .list = "8xr34+r240", EDGE_TABLE(8),
          .error = PXIS_HBFS },
        { "up-to-end", .list = "8xr64", EDGE_TABLE(8) },
        /* Nobody needs the rest of the table */
        { "beyond-end", .list = "8xr64", EDGE_TABLE(8), .prdtl = 100 },
        { "largest", .list = "8xr64", .prdtl = 65535 },
    };
    int i, ncq;

    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        for (ncq = 0; ncq <= 1; ncq++) {
            TableTest *t = g_memdup2(&tests[i], sizeof(*t));
            g_autofree char *path =
                g_strdup_printf("ahci-prd/%s/%s", ncq ? "ncq" : "dma",
                                t->name);

            t->ncq = ncq;
            qtest_add_data_func_full(path, t, test_table, g_free);
        }
    }

    return test_run();
}
