/*
 * Bus master IDE: reading the table of physical region descriptors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_IDE_BMDMA_PRD_H
#define HW_IDE_BMDMA_PRD_H

#include "exec/memory.h"
#include "hw/ide/pci.h"

/* In bytes.  QEMU's own limit: a table may be as large as 64 KiB. */
#define BMDMA_PRD_TABLE_MAX 4096

/**
 * BMDMAPrdReader: the table, for as long as descriptors are taken from it
 *
 * The fields are private.
 */
typedef struct BMDMAPrdReader {
    BMDMAState *bm;
    bool opened;                /* @cache has been initialized */
    unsigned nmapped;           /* descriptors left in @cache */
    const uint8_t *next;        /* the first of them */
    MemoryRegionCache cache;
} BMDMAPrdReader;

/**
 * bmdma_prd_reader_init: begin to take descriptors from a table
 *
 * @reader: uninitialized memory
 * @bm: the channel; its cur_addr is the bus address of the next descriptor.
 *      The reader must not outlive the current call of the device model.
 */
void bmdma_prd_reader_init(BMDMAPrdReader *reader, BMDMAState *bm);

/**
 * bmdma_prd_reader_destroy: end what bmdma_prd_reader_init() began
 *
 * @reader: an initialized reader
 */
void bmdma_prd_reader_destroy(BMDMAPrdReader *reader);

/**
 * bmdma_prd_next: take the next descriptor from the table
 *
 * Fills the channel's cur_prd_addr (bus address), cur_prd_len (in bytes, 2 to
 * 65536) and cur_prd_last (nonzero in the last descriptor), and moves its
 * cur_addr to the next descriptor.
 *
 * @reader: an initialized reader
 *
 * Returns: false at the end of the table: behind the last descriptor, or
 * behind %BMDMA_PRD_TABLE_MAX bytes if no descriptor says that it is the last.
 */
bool bmdma_prd_next(BMDMAPrdReader *reader);

/**
 * bmdma_prd_get_sglist: take all that is left of a table
 *
 * Regions that follow each other on the bus become one entry of the list.
 *
 * @bm: the channel, at its current place in the table
 * @sg: an initialized list to add to
 * @limit: the most bytes to add; the rest of the table is taken and ignored
 *
 * Returns: how many bytes the descriptors described, within @limit and beyond
 */
uint64_t bmdma_prd_get_sglist(BMDMAState *bm, QEMUSGList *sg, uint64_t limit);

#endif
