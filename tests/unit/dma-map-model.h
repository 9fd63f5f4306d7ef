/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A model of an address space, and lists on it
 *
 * The functions of the memory API that the mapper uses are implemented here,
 * on a few small regions, so that millions of lists can be compared with what
 * they should do, and every reference and bounce buffer can be counted.
 */

#ifndef TESTS_UNIT_DMA_MAP_MODEL_H
#define TESTS_UNIT_DMA_MAP_MODEL_H

#include "choose.h"
#include "qemu/units.h"
#include "system/dma-map.h"

/* The address space */

typedef enum Kind {
    RAM,
    ROM,
    MMIO,
    IOMMU,              /* translates to RAM, in pages of IOMMU_PAGE */
    UNASSIGNED,
} Kind;

#define IOMMU_PAGE 64

typedef struct Region {
    MemoryRegion mr;
    Kind kind;
    hwaddr base;
    hwaddr size;
    uint8_t mem[4096];
    uint8_t dirty[4096];
    int refs;
    int lookups;
} Region;

extern Region regions[];
extern AddressSpace model_as;
/* Who waits for bounce buffer space */
extern QEMUBH *map_client;

Region *find_region(hwaddr addr);

/* Where a byte is stored, or NULL if nowhere */
uint8_t *model_byte(hwaddr addr);

/* Say that there is bounce buffer space. */
void notify_map_client(void);

/* Begin anew, with so many bytes of bounce buffer space. */
void model_reset(size_t pool);

void assert_nothing_mapped(void);

/* Lists */

typedef struct List {
    QEMUSGList sg;
    ScatterGatherEntry entries[4096];
} List;

extern List list;

void list_reset(void);
void list_add(hwaddr base, hwaddr len);

/* Mappings */

DMAMap *map_new(void);
void map_free(DMAMap *map);

/* dma_map_partial() of the list, with what it returns checked */
ssize_t map_some(DMAMap *map, DMAMapCursor *cursor, size_t align,
                 DMADirection dir);

/* The most bytes that a list of map_any() has */
#define MAP_ANY_MAX (64 * KiB)

/**
 * map_any: map any list, in as many parts as the mapper wants
 *
 * Compares the transfer with a copy byte by byte, and aborts if it differs, or
 * if something remains mapped.  Every now and then others hold a part of the
 * bounce buffer space.
 *
 * @c: chooses the list, and everything else
 * @map: initialized
 * @dir: whether @disk is written to guest memory, or read from there
 * @disk: %MAP_ANY_MAX bytes
 */
void map_any(Choices *c, DMAMap *map, DMADirection dir, uint8_t *disk);

#endif
