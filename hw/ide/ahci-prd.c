/*
 * AHCI: reading the table of physical region descriptors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * AHCI 1.3.1, section 4.2.3.3: a descriptor is the 64-bit bus address of a
 * region, a reserved word, and a word with the number of bytes, less one, in
 * its lower 22 bits.
 */

#include "qemu/osdep.h"
#include "hw/ide/ahci-prd.h"
#include "hw/ide/prd-sglist.h"
#include "exec/memory.h"
#include "ahci-internal.h"

/* The table, as far as it lies where the first descriptor does, in RAM */
typedef struct AhciPrdt {
    MemoryRegionCache cache;
    hwaddr base;
    hwaddr mapped;              /* bytes */
} AhciPrdt;

static void ahci_prdt_open(AhciPrdt *table, AddressSpace *as, hwaddr prdt,
                           unsigned int prdtl)
{
    hwaddr size = (hwaddr)prdtl * sizeof(AHCI_SG);

    table->base = prdt;
    /* A table that wraps around is read descriptor by descriptor, as any is. */
    size = MIN(size - 1, HWADDR_MAX - prdt) + 1;
    size = address_space_cache_init(&table->cache, as, prdt, size, false);
    table->mapped = table->cache.ptr ? size : 0;
    if (table->mapped) {
        fuzz_dma_read_cb(prdt, size, table->cache.mrs.mr);
    }
    dma_barrier(as, DMA_DIRECTION_TO_DEVICE);
}

static inline MemTxResult ahci_prdt_read(const AhciPrdt *table,
                                         AddressSpace *as, unsigned int i,
                                         hwaddr *addr, uint32_t *len)
{
    hwaddr at = (hwaddr)i * sizeof(AHCI_SG);
    const AHCI_SG *prd;
    AHCI_SG fetched;

    if (at + sizeof(AHCI_SG) <= table->mapped) {
        prd = (const AHCI_SG *)(table->cache.ptr + at);
    } else {
        MemTxResult result = dma_memory_read(as, table->base + at, &fetched,
                                             sizeof(fetched),
                                             MEMTXATTRS_UNSPECIFIED);

        if (result != MEMTX_OK) {
            return result;
        }
        prd = &fetched;
    }
    *addr = ldq_le_p(&prd->addr);
    *len = (ldl_le_p(&prd->flags_size) & AHCI_PRDT_SIZE_MASK) + 1;
    return MEMTX_OK;
}

int ahci_prd_get_sglist(AddressSpace *as, hwaddr prdt, unsigned int prdtl,
                        uint64_t offset, uint64_t limit, QEMUSGList *sg)
{
    PrdSGList list = { .sg = sg, .limit = limit };
    AhciPrdt table;
    unsigned int i;
    int ret = 0;

    if (prdtl == 0) {
        return 0;
    }
    ahci_prdt_open(&table, as, prdt, prdtl);
    for (i = 0; i < prdtl && list.limit; i++) {
        uint32_t len, skip;
        hwaddr addr;

        if (ahci_prdt_read(&table, as, i, &addr, &len) != MEMTX_OK) {
            ret = -EFAULT;
            break;
        }
        skip = MIN(len, offset);
        offset -= skip;
        prd_sglist_add(&list, addr + skip, len - skip);
    }
    prd_sglist_end(&list);
    address_space_cache_destroy(&table.cache);
    return ret;
}
