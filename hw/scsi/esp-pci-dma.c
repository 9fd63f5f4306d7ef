/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DMA engine of the Am53C974 (PCscsi)
 */

#include "qemu/osdep.h"
#include "hw/scsi/esp-pci-dma.h"
#include "qemu/bswap.h"
#include "qemu/units.h"

/* An MDL is a list of page frame addresses; their bits 11:0 are ignored. */
#define MDL_ENTRY_SIZE      4
#define MDL_PAGE_SIZE       (4 * KiB)
#define MDL_PAGE_MASK       (MDL_PAGE_SIZE - 1)

/* So many entries are read at a time. */
#define MDL_READ_ENTRIES    64

static bool mdl_read(PCIDevice *dev, uint32_t addr, uint32_t *frames, int n)
{
    int i;

    if (pci_dma_read(dev, addr, frames, n * MDL_ENTRY_SIZE) != MEMTX_OK) {
        return false;
    }
    for (i = 0; i < n; i++) {
        frames[i] = le32_to_cpu(frames[i]) & ~MDL_PAGE_MASK;
    }
    return true;
}

static uint32_t page_offset(const ESPPCIDMARegs *regs)
{
    return regs->wac & MDL_PAGE_MASK;
}

static bool mdl_load_page(PCIDevice *dev, ESPPCIDMARegs *regs)
{
    uint32_t frame;

    if (!mdl_read(dev, regs->wmac, &frame, 1)) {
        return false;
    }
    regs->wac = frame | page_offset(regs);
    return true;
}

/* Take @len bytes, none beyond the page, off what is to be moved. */
static bool dma_advance(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl,
                        uint32_t len)
{
    regs->wac += len;
    regs->wbc -= len;
    /* No entry is read that is not needed: the list has no end mark. */
    if (mdl && regs->wbc && page_offset(regs) == 0) {
        regs->wmac += MDL_ENTRY_SIZE;
        return mdl_load_page(dev, regs);
    }
    return true;
}

bool esp_pci_dma_start(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl)
{
    regs->wbc = regs->stc;
    regs->wac = regs->spa;
    regs->wmac = regs->smdla;
    return !mdl || !regs->wbc || mdl_load_page(dev, regs);
}

bool esp_pci_dma_rw(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl,
                    uint8_t *buf, uint32_t len, DMADirection dir)
{
    while (len) {
        uint32_t n = len;

        if (mdl) {
            n = MIN(n, MDL_PAGE_SIZE - page_offset(regs));
        }
        pci_dma_rw(dev, regs->wac, buf, n, dir, MEMTXATTRS_UNSPECIFIED);
        if (!dma_advance(dev, regs, mdl, n)) {
            return false;
        }
        buf += n;
        len -= n;
    }
    return true;
}

bool esp_pci_dma_get_sg(PCIDevice *dev, const ESPPCIDMARegs *regs, bool mdl,
                        QEMUSGList *sg, uint32_t len)
{
    uint32_t frame[MDL_READ_ENTRIES];
    uint32_t entry = regs->wmac;
    uint32_t n;
    int i;

    if (regs->wbc < len || (!mdl && regs->wac + (uint64_t)len > 4 * GiB)) {
        return false;
    }

    n = mdl ? MIN(len, MDL_PAGE_SIZE - page_offset(regs)) : len;
    pci_dma_sglist_init(sg, dev, DIV_ROUND_UP(len - n, MDL_PAGE_SIZE) + 1);
    qemu_sglist_add(sg, regs->wac, n);
    for (len -= n; len; ) {
        int pages = MIN(DIV_ROUND_UP(len, MDL_PAGE_SIZE), MDL_READ_ENTRIES);

        if (!mdl_read(dev, entry + MDL_ENTRY_SIZE, frame, pages)) {
            qemu_sglist_destroy(sg);
            return false;
        }
        for (i = 0; i < pages; i++) {
            n = MIN(len, MDL_PAGE_SIZE);
            qemu_sglist_add(sg, frame[i], n);
            len -= n;
        }
        entry += pages * MDL_ENTRY_SIZE;
    }
    return true;
}

bool esp_pci_dma_sg_done(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl,
                         const QEMUSGList *sg)
{
    const ScatterGatherEntry *last = &sg->sg[sg->nsg - 1];

    regs->wbc -= MIN(regs->wbc, sg->size - last->len);
    regs->wac = last->base;
    regs->wmac += (sg->nsg - 1) * MDL_ENTRY_SIZE;
    return dma_advance(dev, regs, mdl, MIN(regs->wbc, last->len));
}
