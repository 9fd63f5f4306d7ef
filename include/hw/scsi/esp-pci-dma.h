/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DMA engine of the Am53C974 (PCscsi)
 *
 * The engine moves data between the SCSI FIFO and memory that is contiguous,
 * or is described by a memory descriptor list (MDL).  The facts are those of
 * AMD's data sheet of the Am79C974, which has the same SCSI controller, chapter
 * "DMA Registers" and "DMA Scatter-Gather Mechanism".
 */

#ifndef HW_SCSI_ESP_PCI_DMA_H
#define HW_SCSI_ESP_PCI_DMA_H

#include "hw/pci/pci_device.h"
#include "system/dma.h"

/**
 * ESPPCIDMARegs: the DMA channel context block, registers 40h to 5Ch
 *
 * @stc: starting transfer count, in bytes
 * @spa: starting physical address; with an MDL, of which only bits 11:0 count,
 *       the offset into the first page
 * @wbc: working byte counter: what is left of @stc
 * @wac: working address counter: where the next byte goes, as long as @wbc is
 *       not 0, or else where the last one went plus 1
 * @smdla: starting MDL address
 * @wmac: working MDL address counter: the entry that @wac is in the page of
 */
typedef struct ESPPCIDMARegs {
    uint32_t cmd;
    uint32_t stc;
    uint32_t spa;
    uint32_t wbc;
    uint32_t wac;
    uint32_t status;
    uint32_t smdla;
    uint32_t wmac;
} ESPPCIDMARegs;

/**
 * esp_pci_dma_start: load the working registers
 * @dev: the device whose memory accesses these are
 * @regs: the registers
 * @mdl: is there an MDL?
 *
 * Returns: false if the MDL cannot be read
 */
bool esp_pci_dma_start(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl);

/**
 * esp_pci_dma_rw: move data, and advance the working registers
 * @dev: the device whose memory accesses these are
 * @regs: the registers
 * @mdl: is there an MDL?
 * @buf: the data
 * @len: its length in bytes; not more than the working byte counter says
 * @dir: %DMA_DIRECTION_FROM_DEVICE to move from @buf to memory
 *
 * Returns: false if the MDL cannot be read; what lies behind is not moved
 */
bool esp_pci_dma_rw(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl,
                    uint8_t *buf, uint32_t len, DMADirection dir);

/**
 * esp_pci_dma_get_sg: describe memory that data would be moved to or from
 * @dev: the device whose memory accesses these are
 * @regs: the registers; they do not change
 * @mdl: is there an MDL?
 * @sg: uninitialized; on success, the caller's
 * @len: number of bytes
 *
 * Returns: false, with nothing in @sg, if the working byte counter is less
 * than @len, the addresses leave the 32-bit address space, or the MDL cannot be
 * read
 */
bool esp_pci_dma_get_sg(PCIDevice *dev, const ESPPCIDMARegs *regs, bool mdl,
                        QEMUSGList *sg, uint32_t len);

/**
 * esp_pci_dma_sg_done: advance the working registers
 * @dev: the device whose memory accesses these are
 * @regs: the registers
 * @mdl: is there an MDL?
 * @sg: from esp_pci_dma_get_sg(); all of it has been moved
 *
 * Returns: false if the MDL cannot be read
 */
bool esp_pci_dma_sg_done(PCIDevice *dev, ESPPCIDMARegs *regs, bool mdl,
                         const QEMUSGList *sg);

#endif
