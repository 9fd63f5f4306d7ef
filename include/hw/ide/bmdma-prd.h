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
    bool opened;
    uint32_t base;              /* bus address of what @cache maps */
    uint32_t len;               /* in bytes; zero if there is no @cache */
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

#endif
