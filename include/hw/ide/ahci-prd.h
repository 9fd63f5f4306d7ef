/*
 * AHCI: reading the table of physical region descriptors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_IDE_AHCI_PRD_H
#define HW_IDE_AHCI_PRD_H

#include "system/dma.h"

/**
 * ahci_prd_get_sglist: the memory that a command's data goes to or comes from
 *
 * Descriptors are read in order, and none behind the last one that @offset and
 * @limit ask for: memory behind a table need not exist.  A region can have any
 * length from 1 to 4 MiB, and begin at any address; AHCI only knows even ones.
 *
 * @as: the address space of the HBA
 * @prdt: bus address of the table
 * @prdtl: how many descriptors it has, 0 to 65535 (PRDTL of the command header)
 * @offset: bytes that have been transferred before, and are left out
 * @limit: the most bytes to add
 * @sg: an initialized list to add to.  It becomes shorter than @limit if the
 *      table describes fewer bytes; on failure it has what was read until then.
 *
 * Returns: 0, or -EFAULT if nothing answers where a descriptor should be, which
 * AHCI calls a system memory error
 */
int ahci_prd_get_sglist(AddressSpace *as, hwaddr prdt, unsigned int prdtl,
                        uint64_t offset, uint64_t limit, QEMUSGList *sg);

#endif
