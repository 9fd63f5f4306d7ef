/*
 * AHCI as tests drive it: slot 0, and port 0 where none is named
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"

uint32_t hba_readl(Machine *m, int reg)
{
    return qpci_io_readl(m->hba, m->hba_bar, reg);
}

void hba_writel(Machine *m, int reg, uint32_t value)
{
    qpci_io_writel(m->hba, m->hba_bar, reg, value);
}

static void wait_until_port_is_clear(Machine *m, int port, int reg,
                                     uint32_t bits)
{
    int64_t deadline = patience_ends();

    port *= PORT_REGISTERS;
    while (hba_readl(m, port + reg) & bits) {
        /* After an error the port stands still */
        g_assert_cmphex(hba_readl(m, port + P0IS) & PXIS_TFES, ==, 0);
        wait_before_poll(deadline, "end of command");
    }
}

void wait_until_clear(Machine *m, int reg, uint32_t bits)
{
    wait_until_port_is_clear(m, 0, reg, bits);
}

void port_start_nth(Machine *m, int port)
{
    uint64_t tables = m->region[TABLE].base + port * PORT_TABLES;
    int regs = port * PORT_REGISTERS;

    hba_writel(m, GHC, GHC_AE);
    hba_writel(m, regs + P0CLB, tables + COMMAND_LIST);
    hba_writel(m, regs + P0FB, tables + RECEIVED_FIS);
    hba_writel(m, regs + P0CMD, hba_readl(m, regs + P0CMD) | PXCMD_FRE);
    hba_writel(m, regs + P0SERR, ~0u);
    hba_writel(m, regs + P0IS, ~0u);
    hba_writel(m, regs + P0CMD, hba_readl(m, regs + P0CMD) | PXCMD_ST);
    wait_until_port_is_clear(m, port, P0TFD, PXTFD_BSY | PXTFD_DRQ);
}

void port_start(Machine *m)
{
    port_start_nth(m, 0);
}

void port_stop_nth(Machine *m, int port)
{
    int reg = port * PORT_REGISTERS + P0CMD;

    hba_writel(m, reg, hba_readl(m, reg) & ~PXCMD_ST);
    wait_until_port_is_clear(m, port, P0CMD, PXCMD_CR);
    hba_writel(m, reg, hba_readl(m, reg) & ~PXCMD_FRE);
    wait_until_port_is_clear(m, port, P0CMD, PXCMD_FR);
}

void port_stop(Machine *m)
{
    port_stop_nth(m, 0);
}

void ahci_stop(Machine *m)
{
    hba_writel(m, P0CMD, hba_readl(m, P0CMD) & ~PXCMD_ST);
}

void ahci_comreset(Machine *m)
{
    uint32_t sctl = hba_readl(m, P0SCTL) & ~PXSCTL_DET_MASK;

    ahci_stop(m);
    hba_writel(m, P0SCTL, sctl | PXSCTL_DET_COMRESET);
    hba_writel(m, P0SCTL, sctl);
}

void ahci_hba_reset(Machine *m)
{
    hba_writel(m, GHC, hba_readl(m, GHC) | GHC_HR);
}

bool ahci_busy(Machine *m)
{
    return hba_readl(m, P0CMD) & PXCMD_CR || hba_readl(m, GHC) & GHC_HR ||
           hba_readl(m, P0TFD) & PXTFD_BSY;
}

static bool ata_is_queued(uint8_t command)
{
    return command == ATA_READ_FPDMA_QUEUED ||
           command == ATA_WRITE_FPDMA_QUEUED;
}

AhciCommand ahci_ata_command(int port, uint8_t command, const Request *req)
{
    uint32_t lba = req->start / SECTOR;
    uint16_t count = req->bytes / SECTOR;
    AhciCommand cmd = {
        .port = port,
        .fis = {
            FIS_REGISTER_H2D, FIS_IS_COMMAND, command, 0,
            lba, lba >> 8, lba >> 16, ATA_DEVICE_LBA,
            lba >> 24,
        },
        .flags = req->dir == WRITE ? CH_WRITE : 0,
        .list = req->list,
    };

    if (ata_is_queued(command)) {
        /* The number of sectors is where features were, and slot 0 is tag 0 */
        cmd.fis[3] = count;
        cmd.fis[11] = count >> 8;
    } else {
        stw_le_p(&cmd.fis[12], count);
    }
    return cmd;
}

AhciCommand ahci_packet_command(int port, const uint8_t *packet,
                                const GArray *list)
{
    return (AhciCommand) {
        .port = port,
        .fis = { FIS_REGISTER_H2D, FIS_IS_COMMAND, ATA_PACKET, ATAPI_DMA },
        .packet = packet,
        .list = list,
    };
}

void ahci_issue(Machine *m, const AhciCommand *cmd)
{
    Region *r = &m->region[cmd->kind];
    uint32_t tables = cmd->port * PORT_TABLES;
    uint32_t table = cmd->kind == TABLE ? tables + COMMAND_TABLE : cmd->offset;
    int entries = cmd->list ? cmd->list->len : 0;
    int prdtl = cmd->prdtl ?: entries;
    uint32_t size = CT_PRDT + entries * PRDT_ENTRY_SIZE;
    g_autofree uint8_t *buf = g_malloc0(size);
    uint32_t header[4] = { };
    int i;

    memcpy(buf, cmd->fis, sizeof(cmd->fis));
    if (cmd->packet) {
        memcpy(buf + CT_ACMD, cmd->packet, MMC_PACKET_SIZE);
    }
    for (i = 0; i < entries; i++) {
        const Entry *e = &g_array_index(cmd->list, Entry, i);
        uint8_t *prd = buf + CT_PRDT + i * PRDT_ENTRY_SIZE;

        stq_le_p(prd, entry_address(m, e));
        stl_le_p(prd + 12, e->len - 1);
    }
    /* A table can end behind the end of RAM */
    if (table < r->writable) {
        region_write(m, cmd->kind, table, buf, MIN(size, r->writable - table));
    }

    header[0] = cpu_to_le32(CH_CFL_REGISTER_FIS | cmd->flags |
                            (cmd->packet ? CH_ATAPI : 0) |
                            (cmd->no_prdt ? 0 : prdtl) << CH_PRDTL_SHIFT);
    header[2] = cpu_to_le32(r->base + table);
    region_write(m, TABLE, tables + COMMAND_LIST, header, sizeof(header));
    hba_writel(m, cmd->port * PORT_REGISTERS + P0IS, ~0u);
    if (ata_is_queued(cmd->fis[2])) {
        hba_writel(m, cmd->port * PORT_REGISTERS + P0SACT, 1);
    }
    hba_writel(m, cmd->port * PORT_REGISTERS + P0CI, 1);
}

uint32_t ahci_transferred(Machine *m)
{
    return qtest_readl(m->qts, m->region[TABLE].base + COMMAND_LIST + CH_PRDBC);
}

void ahci_accept_nth(Machine *m, int port)
{
    uint32_t tables = port * PORT_TABLES;

    region_accept(m, TABLE, tables + COMMAND_LIST + CH_PRDBC, 4);
    region_accept(m, TABLE, tables + RECEIVED_FIS, RECEIVED_FIS_SIZE);
}

void ahci_accept(Machine *m)
{
    ahci_accept_nth(m, 0);
}
