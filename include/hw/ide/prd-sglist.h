/*
 * IDE and AHCI: physical region descriptors as a scatter/gather list
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *     PrdSGList list = { .sg = sg, .limit = limit };
 *
 *     while (... another descriptor ...) {
 *         prd_sglist_add(&list, address, length);
 *     }
 *     prd_sglist_end(&list);
 */

#ifndef HW_IDE_PRD_SGLIST_H
#define HW_IDE_PRD_SGLIST_H

#include "system/dma.h"

/**
 * PrdSGList: a list in the making
 *
 * @sg: an initialized list; regions that follow each other on the bus become
 *      one entry of it
 * @limit: bytes that may still be added
 * @described: bytes that descriptors described, within @limit and beyond
 *
 * The other fields are private.
 */
typedef struct PrdSGList {
    QEMUSGList *sg;
    uint64_t limit;
    uint64_t described;
    hwaddr base;                /* a run of regions that is not in @sg yet */
    hwaddr len;
} PrdSGList;

/**
 * prd_sglist_end: add what is still missing in the list
 *
 * @list: the list; no more regions may be added to it
 */
static inline void prd_sglist_end(PrdSGList *list)
{
    if (list->len) {
        qemu_sglist_add(list->sg, list->base, list->len);
    }
}

/**
 * prd_sglist_add: add a region, as far as the limit allows
 *
 * @list: the list
 * @addr: bus address
 * @len: length in bytes
 */
static inline void prd_sglist_add(PrdSGList *list, hwaddr addr, uint32_t len)
{
    hwaddr n = MIN(len, list->limit);

    list->described += len;
    list->limit -= n;
    if (n && list->len && addr == list->base + list->len) {
        list->len += n;
    } else if (n) {
        prd_sglist_end(list);
        list->base = addr;
        list->len = n;
    }
}

#endif
