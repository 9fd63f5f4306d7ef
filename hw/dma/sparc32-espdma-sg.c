/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sparc32 DMA controller: where the data of its ESP goes
 *
 * The controller (part of NCR89C100, STP2000) has an address register; the ESP
 * counts.  Addresses are virtual, the IOMMU translates them.
 */

#include "qemu/osdep.h"
#include "hw/sparc/sparc32-espdma-sg.h"
#include "hw/sparc/sparc32_dma.h"
#include "hw/sparc/sun4m_iommu.h"
#include "qemu/units.h"

/* Index of the address register */
#define DMA_ADDR            1

/*
 * Only the lower 24 bits of the address count, says Linux's
 * esp_dma_length_limit() of all DMA controllers for this chip: no driver lets
 * a transfer leave a window of this size.
 */
#define DMA_ADDR_WINDOW     (16 * MiB)

static bool espdma_get_sg(void *opaque, QEMUSGList *sg, uint32_t len,
                          DMADirection dir)
{
    DMADeviceState *s = opaque;
    IOMMUState *iommu = s->iommu;
    SysBusESPState *esp = &SPARC32_ESPDMA_DEVICE(s)->esp;
    uint32_t addr = s->dmaregs[DMA_ADDR];

    if (addr % DMA_ADDR_WINDOW + len > DMA_ADDR_WINDOW) {
        return false;
    }
    qemu_sglist_init(sg, DEVICE(esp), 1, &iommu->iommu_as);
    qemu_sglist_add(sg, addr, len);
    return true;
}

static void espdma_sg_done(void *opaque, const QEMUSGList *sg)
{
    DMADeviceState *s = opaque;

    s->dmaregs[DMA_ADDR] += sg->size;
}

const ESPDMASGOps sparc32_espdma_sg_ops = {
    .get_sg = espdma_get_sg,
    .sg_done = espdma_sg_done,
};
