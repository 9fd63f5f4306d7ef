/*
 * Bus master IDE: reading the table of physical region descriptors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * "Programming Interface for Bus Master IDE Controller", revision 1.0, section
 * 1.2: a descriptor is the 32-bit bus address of a memory region, a 16-bit byte
 * count of which bit 0 is not used and 0 stands for 64 KiB, and a word of which
 * bit 15 marks the last descriptor of the table (EOT).
 */

#include "qemu/osdep.h"
#include "hw/ide/bmdma-prd.h"
#include "hw/pci/pci_device.h"

#define PRD_SIZE        8
#define PRD_COUNT_MASK  0xfffe
#define PRD_COUNT_64K   0x10000
#define PRD_EOT         (1u << 31)

void bmdma_prd_reader_init(BMDMAPrdReader *reader, BMDMAState *bm)
{
    reader->bm = bm;
    reader->opened = false;
    reader->len = 0;
}

void bmdma_prd_reader_destroy(BMDMAPrdReader *reader)
{
    if (reader->len) {
        address_space_cache_destroy(&reader->cache);
    }
}

/*
 * A table in RAM is read where it lies.  Anything else is read descriptor by
 * descriptor, since what is behind the last one may not be touched.
 */
static void bmdma_prd_reader_open(BMDMAPrdReader *reader)
{
    BMDMAState *bm = reader->bm;
    AddressSpace *as = pci_get_address_space(PCI_DEVICE(bm->pci_dev));
    hwaddr len = BMDMA_PRD_TABLE_MAX - (bm->cur_addr - bm->addr);

    len = MIN(len, 0x100000000ull - bm->cur_addr);
    len = address_space_cache_init(&reader->cache, as, bm->cur_addr, len,
                                   false);
    if (reader->cache.ptr && len >= PRD_SIZE) {
        reader->base = bm->cur_addr;
        reader->len = QEMU_ALIGN_DOWN(len, PRD_SIZE);
    } else {
        address_space_cache_destroy(&reader->cache);
    }
    dma_barrier(as, DMA_DIRECTION_TO_DEVICE);
}

bool bmdma_prd_next(BMDMAPrdReader *reader)
{
    BMDMAState *bm = reader->bm;
    uint8_t fetched[PRD_SIZE] = { 0 };
    const uint8_t *prd = fetched;
    uint32_t flags;

    if (bm->cur_prd_last || bm->cur_addr - bm->addr >= BMDMA_PRD_TABLE_MAX) {
        return false;
    }

    if (!reader->opened) {
        reader->opened = true;
        bmdma_prd_reader_open(reader);
    }
    if (bm->cur_addr - reader->base < reader->len) {
        prd = reader->cache.ptr + (bm->cur_addr - reader->base);
        fuzz_dma_read_cb(bm->cur_addr, PRD_SIZE, reader->cache.mrs.mr);
    } else {
        pci_dma_read(PCI_DEVICE(bm->pci_dev), bm->cur_addr, fetched, PRD_SIZE);
    }

    bm->cur_addr += PRD_SIZE;
    bm->cur_prd_addr = ldl_le_p(prd);
    flags = ldl_le_p(prd + 4);
    bm->cur_prd_len = (flags & PRD_COUNT_MASK) ?: PRD_COUNT_64K;
    bm->cur_prd_last = flags & PRD_EOT;
    return true;
}
