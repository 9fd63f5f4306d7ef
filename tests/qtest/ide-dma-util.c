/*
 * Bus-master IDE as tests drive it: the PIIX3
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ide-dma-util.h"

const IdeChannel ide_channel[CHANNELS] = {
    [PRIMARY] = { .command_block = 0x1f0, .control_block = 0x3f6, .irq = 14 },
    [SECONDARY] = { .command_block = 0x170, .control_block = 0x376, .irq = 15 },
};

uint8_t bmi_readb(Machine *m, int ch, int reg)
{
    return qpci_io_readb(m->hba, m->hba_bar, BMI_CHANNEL(ch) + reg);
}

void bmi_writeb(Machine *m, int ch, int reg, uint8_t value)
{
    qpci_io_writeb(m->hba, m->hba_bar, BMI_CHANNEL(ch) + reg, value);
}

uint8_t ata_readb(Machine *m, int ch, int reg)
{
    return qtest_inb(m->qts, ide_channel[ch].command_block + reg);
}

void ata_writeb(Machine *m, int ch, int reg, uint8_t value)
{
    qtest_outb(m->qts, ide_channel[ch].command_block + reg, value);
}

void table_write(Machine *m, const GArray *list, const TablePlace *at)
{
    g_autofree uint32_t *prd = g_new(uint32_t, list->len * 2);
    int i;

    for (i = 0; i < list->len; i++) {
        const Entry *e = &g_array_index(list, Entry, i);
        bool last = i == list->len - 1;

        /* 64 KiB are written as 0; bit 0 of the count does not count */
        g_assert(e->len && e->len <= 64 * KiB && !(e->len & 1));
        prd[2 * i] = cpu_to_le32(m->region[e->kind].base + e->offset);
        prd[2 * i + 1] = cpu_to_le32((e->len & 0xffff) |
                                     (last && !at->no_eot ? PRD_EOT : 0));
    }
    region_write(m, at->kind, at->offset, prd, list->len * PRD_SIZE);
}

void bmi_prepare(Machine *m, int ch, Direction dir, const GArray *list,
                 const TablePlace *at)
{
    table_write(m, list, at);
    bmi_writeb(m, ch, BMIC, dir == READ ? BMIC_RWCON : 0);
    bmi_writeb(m, ch, BMIS, BMIS_INTERRUPT | BMIS_ERROR);
    qpci_io_writel(m->hba, m->hba_bar, BMI_CHANNEL(ch) + BMIDTP,
                   m->region[at->kind].base + at->offset);
}

void bmi_start(Machine *m, int ch, Direction dir)
{
    bmi_writeb(m, ch, BMIC, BMIC_SSBM | (dir == READ ? BMIC_RWCON : 0));
}

uint8_t wait_until_idle(Machine *m, int ch)
{
    int64_t deadline = patience_ends();
    uint8_t bmis;

    while ((bmis = bmi_readb(m, ch, BMIS),
            (bmis & (BMIS_ACTIVE | BMIS_INTERRUPT)) == BMIS_ACTIVE)) {
        wait_before_poll(deadline, "end of DMA");
    }
    return bmis;
}

void acknowledge(Machine *m, int ch)
{
    bmi_writeb(m, ch, BMIC, 0);
    bmi_writeb(m, ch, BMIS, BMIS_INTERRUPT | BMIS_ERROR);
    g_assert_cmphex(bmi_readb(m, ch, BMIS), ==, 0);
}

void ide_issue(Machine *m, int ch, uint8_t command, uint32_t lba,
               unsigned int sectors)
{
    ata_writeb(m, ch, ATA_DEVICE, ATA_DEVICE_LBA | (lba >> 24));
    ata_writeb(m, ch, ATA_SECTOR_COUNT, sectors & 0xff);
    ata_writeb(m, ch, ATA_LBA_LOW, lba);
    ata_writeb(m, ch, ATA_LBA_MID, lba >> 8);
    ata_writeb(m, ch, ATA_LBA_HIGH, lba >> 16);
    ata_writeb(m, ch, ATA_COMMAND, command);
}

void ide_send_packet(Machine *m, int ch, uint8_t device, uint8_t features,
                     const uint8_t *packet)
{
    int64_t deadline = patience_ends();
    int i;

    ata_writeb(m, ch, ATA_DEVICE, device);
    ata_writeb(m, ch, ATA_FEATURES, features);
    ata_writeb(m, ch, ATA_COMMAND, ATA_PACKET);
    while (!(ata_readb(m, ch, ATA_STATUS) & ATA_STATUS_DRQ)) {
        wait_before_poll(deadline, "request for a packet");
    }
    for (i = 0; i < MMC_PACKET_SIZE; i += 2) {
        qtest_outw(m->qts, ide_channel[ch].command_block + ATA_DATA,
                   lduw_le_p(&packet[i]));
    }
}
