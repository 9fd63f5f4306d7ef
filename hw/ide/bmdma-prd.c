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
#include "hw/ide/prd-sglist.h"
#include "hw/pci/pci_device.h"

#define PRD_SIZE        8
#define PRD_COUNT_MASK  0xfffe
#define PRD_COUNT_64K   0x10000
#define PRD_EOT         (1u << 31)

void bmdma_prd_reader_init(BMDMAPrdReader *reader, BMDMAState *bm)
{
    reader->bm = bm;
    reader->opened = false;
    reader->nmapped = 0;
    reader->next = NULL;
}

void bmdma_prd_reader_destroy(BMDMAPrdReader *reader)
{
    if (reader->opened) {
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
    reader->opened = true;
    if (reader->cache.ptr) {
        reader->next = reader->cache.ptr;
        reader->nmapped = len / PRD_SIZE;
        fuzz_dma_read_cb(bm->cur_addr, len, reader->cache.mrs.mr);
    }
    dma_barrier(as, DMA_DIRECTION_TO_DEVICE);
}

static bool bmdma_prd_table_ended(const BMDMAState *bm)
{
    return bm->cur_prd_last || bm->cur_addr - bm->addr >= BMDMA_PRD_TABLE_MAX;
}

static inline uint32_t prd_len(uint32_t flags)
{
    return (flags & PRD_COUNT_MASK) ?: PRD_COUNT_64K;
}

bool bmdma_prd_next(BMDMAPrdReader *reader)
{
    BMDMAState *bm = reader->bm;
    uint8_t fetched[PRD_SIZE] = { 0 };
    const uint8_t *prd = fetched;
    uint32_t flags;

    if (bmdma_prd_table_ended(bm)) {
        return false;
    }
    if (!reader->opened) {
        bmdma_prd_reader_open(reader);
    }
    if (reader->nmapped) {
        prd = reader->next;
        reader->next += PRD_SIZE;
        reader->nmapped--;
    } else {
        pci_dma_read(PCI_DEVICE(bm->pci_dev), bm->cur_addr, fetched, PRD_SIZE);
    }

    flags = ldl_le_p(prd + 4);
    bm->cur_addr += PRD_SIZE;
    bm->cur_prd_addr = ldl_le_p(prd);
    bm->cur_prd_len = prd_len(flags);
    bm->cur_prd_last = flags & PRD_EOT;
    return true;
}

uint64_t bmdma_prd_get_sglist(BMDMAState *bm, QEMUSGList *sg, uint64_t limit)
{
    PrdSGList list = { .sg = sg, .limit = limit };
    BMDMAPrdReader reader;

    bmdma_prd_reader_init(&reader, bm);
    if (bm->cur_prd_len) {
        prd_sglist_add(&list, bm->cur_prd_addr, bm->cur_prd_len);
        bm->cur_prd_len = 0;
    }

    /* What bmdma_prd_next() does, for all descriptors that are mapped */
    if (!bmdma_prd_table_ended(bm)) {
        const uint8_t *prd, *end;
        uint32_t flags = 0;

        bmdma_prd_reader_open(&reader);
        prd = reader.next;
        end = prd + reader.nmapped * PRD_SIZE;
        while (prd < end && !(flags & PRD_EOT)) {
            flags = ldl_le_p(prd + 4);
            prd_sglist_add(&list, (uint32_t)ldl_le_p(prd), prd_len(flags));
            prd += PRD_SIZE;
        }
        bm->cur_addr += prd - reader.next;
        bm->cur_prd_last = flags & PRD_EOT;
        reader.nmapped = 0;
    }

    while (bmdma_prd_next(&reader)) {
        prd_sglist_add(&list, bm->cur_prd_addr, bm->cur_prd_len);
        bm->cur_prd_len = 0;
    }
    prd_sglist_end(&list);
    bmdma_prd_reader_destroy(&reader);
    return list.described;
}
