/*
 * DMA mapper: a QEMUSGList of bus addresses as a QEMUIOVector of host memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device model describes a transfer as a list of bus addresses.  The mapper
 * turns the list into host memory that I/O can be done on: RAM is used where it
 * lies, everything else (MMIO, ROM, unassigned addresses) through the bounce
 * buffers of address_space_map().
 *
 *     DMAMapCursor cursor = {};
 *     ssize_t n = dma_map_partial(&map, sg, &cursor, 512, IOV_MAX, dir);
 *
 *     ... n bytes of I/O on map.qiov; cursor stands behind them ...
 *
 *     dma_unmap(&map, n);
 *
 * A #DMAMap belongs to one request and holds one mapping at a time.  It is
 * not locked: its functions may be called from any thread, with or without
 * the BQL, as long as only one thread at a time uses it.
 */

#ifndef SYSTEM_DMA_MAP_H
#define SYSTEM_DMA_MAP_H

#include "exec/memory.h"
#include "qemu/iov.h"
#include "system/dma-stats.h"
#include "system/dma.h"

/* Elements that a DMAMap has room for without allocating memory. */
#define DMA_MAP_INLINE_ELEMENTS 64

/*
 * Memory sections of RAM that one mapping refers to.  PC guests have two, below
 * and above the hole under 4 GiB; further ones go through address_space_map().
 */
#define DMA_MAP_MAX_SECTIONS 4

/**
 * struct DMAMapCursor: a place in a #QEMUSGList; all zeroes is its beginning
 *
 * @index: entry of the list
 * @offset: bytes into that entry
 * @done: bytes of the list before this place
 */
typedef struct DMAMapCursor {
    int index;
    dma_addr_t offset;
    dma_addr_t done;
} DMAMapCursor;

/**
 * dma_map_cursor_advance: move a cursor towards the end of its list
 *
 * @cursor: the place to start from, and the new place on return
 * @sg: the list
 * @bytes: how far to go; not further than the end of the list
 *
 * Entries without any bytes are never stopped at.
 */
void dma_map_cursor_advance(DMAMapCursor *cursor, const QEMUSGList *sg,
                            dma_addr_t bytes);

/* One memory section that elements of a mapping lie in.  Private. */
typedef struct DMAMapSection {
    MemoryRegionCache cache;
    hwaddr first;               /* bus address of the first byte */
    hwaddr last;                /* bus address of the last byte */
    uint8_t *host;              /* host address of the first byte of RAM */
    int8_t index;               /* of this section, if it is RAM */
    bool mmio;                  /* needs a bounce buffer */
} DMAMapSection;

/**
 * struct DMAMap: a mapping
 *
 * @qiov: the host memory, in the order of the list; valid while mapped
 *
 * The other fields are private.
 */
typedef struct DMAMap {
    QEMUIOVector qiov;

    /* private: */
    AddressSpace *as;
    DMAStats *stats;            /* of the list's device */
    DMADirection dir;
    int nsections;
    int nalloc;
    bool indirect;              /* an element is not of a section */
    dma_addr_t bounced;         /* bytes of the mapping in bounce buffers */
    struct iovec *iov;          /* @nalloc elements: inline_iov or allocated */
    int8_t *owner;              /* what each was mapped with, but @unit */

    void *unit;                 /* private buffer of one aligned unit */
    const QEMUSGList *unit_sg;
    DMAMapCursor unit_cursor;

    /* The last one is for sections that there is no room to remember. */
    DMAMapSection section[DMA_MAP_MAX_SECTIONS + 1];
    struct iovec inline_iov[DMA_MAP_INLINE_ELEMENTS];
    int8_t inline_owner[DMA_MAP_INLINE_ELEMENTS];
} DMAMap;

/**
 * dma_map_init: prepare a #DMAMap for use
 *
 * @map: uninitialized memory
 */
void dma_map_init(DMAMap *map);

/**
 * dma_map_release: free what a #DMAMap allocated for a long list
 *
 * @map: the map, with nothing mapped; it can be used again
 */
void dma_map_release(DMAMap *map);

/**
 * dma_map_partial: map as much of a list as can be had now
 *
 * Maps from @cursor on, in the order of the list, and moves @cursor behind what
 * was mapped.
 *
 * With icount, a mapping that the device writes to ends before the first entry
 * that overlaps an earlier one, so that the result does not depend on the order
 * in which the host fills memory.
 *
 * The same bytes can be read from MMIO more than once if another thread takes
 * bounce buffer space at the same time: what does not fill an aligned unit is
 * unmapped again at once.
 *
 * @map: an initialized map with nothing mapped
 * @sg: the list; it must stay as it is until dma_unmap()
 * @cursor: the first byte to map; not at the end of the list
 * @align: unit of the transfer in bytes.  The mapping is a multiple of it, or
 *         reaches to the end of the list.
 * @max_elements: the most elements that @map->qiov may have
 * @dir: %DMA_DIRECTION_TO_DEVICE if guest memory will be read,
 *       %DMA_DIRECTION_FROM_DEVICE if it will be written
 *
 * Returns: the number of bytes mapped, which is more than zero.  After an error
 * nothing is mapped, and @cursor is where it was: -EAGAIN if others hold all
 * bounce buffer space of the address space, and
 * address_space_register_map_client() tells when to try again; -ENOMEM if the
 * host has no memory left.
 */
ssize_t dma_map_partial(DMAMap *map, const QEMUSGList *sg,
                        DMAMapCursor *cursor, size_t align, int max_elements,
                        DMADirection dir);

/**
 * dma_map_partial_now: as dma_map_partial(), but never ask to wait
 *
 * For a request that must end soon.  If others hold all bounce buffer space,
 * the mapping is a private buffer of one aligned unit.
 */
ssize_t dma_map_partial_now(DMAMap *map, const QEMUSGList *sg,
                            DMAMapCursor *cursor, size_t align,
                            int max_elements, DMADirection dir);

/**
 * dma_map_whole: map all of a list or nothing
 *
 * For transfers that cannot be split, such as an ioctl.  A caller that gets an
 * error bounces the whole transfer itself, with dma_buf_read() or
 * dma_buf_write().
 *
 * @map: an initialized map with nothing mapped
 * @sg: the list, not empty; it must stay as it is until dma_unmap()
 * @max_elements: the most elements that @map->qiov may have
 * @dir: as for dma_map_partial()
 *
 * Returns: 0 on success.  After an error nothing is mapped: -E2BIG if the
 * mapping would have more than @max_elements elements; -ENOBUFS if bounce
 * buffer space does not suffice for it, or if its entries overlap and icount
 * wants them to be filled in order; -ENOMEM if the host has no memory left.
 */
int dma_map_whole(DMAMap *map, const QEMUSGList *sg, int max_elements,
                  DMADirection dir);

/**
 * dma_unmap: end a mapping
 *
 * If the device wrote to memory, all RAM of the mapping is marked dirty,
 * whatever @access_len is: after an error nobody knows how much of it the host
 * has filled.  Bounce buffers are written back up to @access_len, so that after
 * a failed read the guest finds its MMIO regions as they were.
 *
 * @map: the map; nothing happens if nothing is mapped
 * @access_len: how many bytes, from the start, were really transferred; zero
 *              after an error.  Can be more than was mapped.
 */
void dma_unmap(DMAMap *map, dma_addr_t access_len);

#endif
