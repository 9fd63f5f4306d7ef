/*
 * DMA mapper: a QEMUSGList of bus addresses as a QEMUIOVector of host memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The usual list lies in RAM, scattered over pages of one or two memory
 * sections.  A section is looked up and referenced once, as a
 * MemoryRegionCache, and each entry in it costs a comparison and an addition.
 * Entries in other sections (MMIO, IOMMU) are left to address_space_map(), one
 * by one.
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "qemu/range.h"
#include "system/cpu-timers.h"
#include "system/dma-map.h"
#include "system/xen.h"
#include "trace.h"

/* What an element was mapped with: the index of a section, or one of these */
enum {
    OWNER_ADDRESS_SPACE = -1,   /* address_space_map(), RAM */
    OWNER_BOUNCE = -2,          /* address_space_map(), bounce buffer */
};

/* Where a hole in the address space can end, for lack of better knowledge */
#define HOLE_GRANULE 4096

/* Why a mapping ends where it does.  Errors are negative. */
enum {
    END_OF_LIST,
    END_OF_BOUNCE_SPACE,
    END_OF_ELEMENTS,
    END_AT_OVERLAP,
};

void dma_map_cursor_advance(DMAMapCursor *cursor, const QEMUSGList *sg,
                            dma_addr_t bytes)
{
    cursor->done += bytes;
    bytes += cursor->offset;

    while (cursor->index < sg->nsg && bytes >= sg->sg[cursor->index].len) {
        bytes -= sg->sg[cursor->index++].len;
    }
    assert(cursor->index < sg->nsg || bytes == 0);
    cursor->offset = bytes;
}

void dma_map_init(DMAMap *map)
{
    map->qiov = (QEMUIOVector) { .iov = map->inline_iov, .nalloc = -1 };
    map->nsections = 0;
    map->bounced = 0;
    map->indirect = false;
    map->unit = NULL;
    map->iov = map->inline_iov;
    map->owner = map->inline_owner;
    map->nalloc = DMA_MAP_INLINE_ELEMENTS;
}

void dma_map_release(DMAMap *map)
{
    assert(map->qiov.niov == 0);
    if (map->iov != map->inline_iov) {
        g_free(map->iov);
        dma_map_init(map);
    }
}

/* Room for twice as many elements, in one block: iovecs first, then owners. */
static bool dma_map_grow(DMAMap *map)
{
    int n = map->nalloc;
    struct iovec *iov;
    int8_t *owner;

    iov = g_try_malloc_n(2 * n, sizeof(*iov) + sizeof(*owner));
    if (!iov) {
        return false;
    }
    owner = (int8_t *)(iov + 2 * n);
    memcpy(iov, map->iov, n * sizeof(*iov));
    memcpy(owner, map->owner, n * sizeof(*owner));
    if (map->iov != map->inline_iov) {
        g_free(map->iov);
    }
    map->iov = map->qiov.iov = iov;
    map->owner = owner;
    map->nalloc = 2 * n;
    return true;
}

/*
 * The memory section that @addr lies in.  RAM stays referenced; anything else
 * is good for this one address, and until the next call.
 */
static DMAMapSection *dma_map_find_section(DMAMap *map, hwaddr addr)
{
    const MemoryRegionSection *mrs;
    DMAMapSection *s;

    for (s = map->section; s < &map->section[map->nsections]; s++) {
        if (addr >= s->first && addr <= s->last) {
            return s;
        }
    }

    address_space_cache_init(&s->cache, map->as, addr, 1,
                             map->dir == DMA_DIRECTION_FROM_DEVICE);
    mrs = &s->cache.mrs;
    s->first = mrs->offset_within_address_space;
    s->last = s->first + int128_get64(int128_sub(mrs->size, int128_one()));
    if (int128_gethi(mrs->size)) {
        /*
         * Unassigned.  The section does not tell where the hole ends, and RAM
         * behind it is not to be bounced, so take a page at a time.
         */
        s->first = addr;
        s->last = addr | (HOLE_GRANULE - 1);
    }
    s->mmio = !s->cache.ptr && !memory_region_get_iommu(mrs->mr);

    /* Xen's map cache has no pointer that is good for a whole section. */
    if (s->cache.ptr && map->nsections < DMA_MAP_MAX_SECTIONS &&
        !xen_enabled()) {
        s->host = s->cache.ptr - (addr - s->first);
        s->index = map->nsections++;
    } else {
        s->host = NULL;
        address_space_cache_destroy(&s->cache);
    }
    return s;
}

/*
 * How much of @len bytes to bounce.  If there is not enough space for all of
 * it, end the mapping at a multiple of @align: what is behind that has to be
 * mapped again later, and a guest can notice that a register is read twice.
 */
static hwaddr dma_map_bounce_len(const DMAMap *map, hwaddr len, size_t align)
{
    size_t max = map->as->max_bounce_buffer_size;
    size_t used = qatomic_read(&map->as->bounce_buffer_size);
    hwaddr room = max > used ? max - used : 0;
    hwaddr excess;

    if (room >= len) {
        return len;
    }
    excess = (map->qiov.size + room) % align;
    return room > excess ? room - excess : room;
}

static void dma_map_add(DMAMap *map, void *host, size_t len, int owner)
{
    int i = map->qiov.niov++;

    map->iov[i] = (struct iovec) { host, len };
    map->owner[i] = owner;
    map->qiov.size += len;
}

/*
 * Add an element for up to @len bytes at @addr, which lie in @s, with
 * address_space_map().  Returns its length, zero if bounce buffer space is used
 * up.
 */
static hwaddr dma_map_through_as(DMAMap *map, const DMAMapSection *s,
                                 hwaddr addr, hwaddr len, size_t align)
{
    ram_addr_t offset;
    void *host;

    if (s->mmio) {
        len = dma_map_bounce_len(map, len, align);
    }
    if (len == 0) {
        return 0;
    }
    host = dma_memory_map(map->as, addr, &len, map->dir,
                          MEMTXATTRS_UNSPECIFIED);
    if (!host) {
        return 0;
    }

    map->indirect = true;
    /* Behind an IOMMU, only the result tells. */
    if (memory_region_from_host(host, &offset)) {
        dma_map_add(map, host, len, OWNER_ADDRESS_SPACE);
    } else {
        dma_map_add(map, host, len, OWNER_BOUNCE);
        map->bounced += len;
        trace_dma_map_bounce(map, addr, len);
    }
    return len;
}

static void dma_unmap_element(DMAMap *map, int i, dma_addr_t access_len)
{
    struct iovec *v = &map->iov[i];

    switch (map->owner[i]) {
    case OWNER_BOUNCE:
        dma_memory_unmap(map->as, v->iov_base, v->iov_len, map->dir,
                         MIN(access_len, v->iov_len));
        break;
    case OWNER_ADDRESS_SPACE:
        dma_memory_unmap(map->as, v->iov_base, v->iov_len, map->dir,
                         v->iov_len);
        break;
    default:
        if (map->dir == DMA_DIRECTION_FROM_DEVICE) {
            MemoryRegionCache *cache = &map->section[map->owner[i]].cache;
            /* Negative for what lies before the address that was looked up */
            hwaddr offset = (uint8_t *)v->iov_base - cache->ptr;

            address_space_cache_invalidate(cache, offset, v->iov_len);
        }
    }
}

/* Give up the end of a mapping that nothing was transferred to yet. */
static void dma_map_truncate(DMAMap *map, size_t size)
{
    while (map->qiov.size > size) {
        int i = map->qiov.niov - 1;
        size_t excess = map->qiov.size - size;
        size_t len = map->iov[i].iov_len;

        if (map->owner[i] == OWNER_BOUNCE) {
            map->bounced -= MIN(excess, len);
        }
        if (excess < len) {
            map->iov[i].iov_len -= excess;
            map->qiov.size = size;
            break;
        }
        if (map->owner[i] < 0) {
            dma_unmap_element(map, i, 0);
        }
        map->qiov.size -= len;
        map->qiov.niov--;
    }
}

/* Does the last element overlap an earlier one? */
static bool dma_map_overlaps(const DMAMap *map)
{
    const struct iovec *last = &map->iov[map->qiov.niov - 1];

    for (const struct iovec *v = map->iov; v < last; v++) {
        if (ranges_overlap((uintptr_t)v->iov_base, v->iov_len,
                           (uintptr_t)last->iov_base, last->iov_len)) {
            return true;
        }
    }
    return false;
}

/*
 * Map what one run of bytes on the bus consists of, element by element.
 * *@section is where the last run ended, as a hint, and is updated.
 */
static inline int dma_map_run(DMAMap *map, DMAMapSection **section,
                              hwaddr addr, hwaddr len, size_t align,
                              int max_elements, bool in_order)
{
    while (len > 0) {
        DMAMapSection *s = *section;
        hwaddr n, wanted;

        if (unlikely(map->qiov.niov >= MIN(map->nalloc, max_elements))) {
            if (map->qiov.niov == max_elements) {
                return END_OF_ELEMENTS;
            }
            if (!dma_map_grow(map)) {
                return -ENOMEM;
            }
        }

        if (!s || addr < s->first || addr > s->last) {
            *section = s = dma_map_find_section(map, addr);
        }
        n = wanted = MIN(len - 1, s->last - addr) + 1;
        if (s->host) {
            fuzz_dma_read_cb(addr, n, s->cache.mrs.mr);
            dma_map_add(map, s->host + (addr - s->first), n, s->index);
        } else {
            n = dma_map_through_as(map, s, addr, n, align);
            if (n == 0) {
                return END_OF_BOUNCE_SPACE;
            }
            *section = NULL;
        }

        if (unlikely(in_order) && dma_map_overlaps(map)) {
            dma_map_truncate(map, map->qiov.size - n);
            return END_AT_OVERLAP;
        }
        if (s->mmio && n < wanted) {
            return END_OF_BOUNCE_SPACE;
        }
        addr += n;
        len -= n;
    }
    return END_OF_LIST;
}

/* Map the list from @cursor on. */
static int dma_map_list(DMAMap *map, const QEMUSGList *sg,
                        const DMAMapCursor *cursor, size_t align,
                        int max_elements)
{
    const ScatterGatherEntry *entry = &sg->sg[cursor->index];
    const ScatterGatherEntry *end = &sg->sg[sg->nsg];
    const bool in_order = icount_enabled() &&
                          map->dir == DMA_DIRECTION_FROM_DEVICE;
    DMAMapSection *s = NULL;
    dma_addr_t offset = cursor->offset;

    while (entry < end) {
        hwaddr addr = entry->base + offset;
        hwaddr len = entry->len - offset;
        int ret;

        offset = 0;
        /* Entries that follow each other on the bus; none follows its end. */
        while (++entry < end && entry->base == addr + len &&
               addr + len >= addr) {
            len += entry->len;
        }

        ret = dma_map_run(map, &s, addr, len, align, max_elements, in_order);
        if (ret != END_OF_LIST) {
            return ret;
        }
    }
    return END_OF_LIST;
}

/* Copy the first @len bytes between the private buffer and its list. */
static void dma_map_unit_rw(DMAMap *map, dma_addr_t len)
{
    DMAMapCursor pos = map->unit_cursor;
    uint8_t *p = map->unit;

    while (len > 0) {
        const ScatterGatherEntry *entry = &map->unit_sg->sg[pos.index];
        dma_addr_t n = MIN(len, entry->len - pos.offset);

        dma_memory_rw(map->as, entry->base + pos.offset, p, n, map->dir,
                      MEMTXATTRS_UNSPECIFIED);
        dma_map_cursor_advance(&pos, map->unit_sg, n);
        p += n;
        len -= n;
    }
}

/*
 * The last resort: one aligned unit in a private buffer, for a list that will
 * not map however long one waits.
 */
static int dma_map_unit(DMAMap *map, const QEMUSGList *sg,
                        const DMAMapCursor *cursor, size_t len, int end)
{
    static const DmaBounceReason reason[] = {
        [END_OF_BOUNCE_SPACE] = DMA_BOUNCE_REASON_MMIO,
        [END_OF_ELEMENTS] = DMA_BOUNCE_REASON_ELEMENTS,
        [END_AT_OVERLAP] = DMA_BOUNCE_REASON_OVERLAP,
    };

    /* Zeroed, so that what cannot be read does not leak heap to the disk. */
    map->unit = g_try_malloc0(len);
    if (!map->unit) {
        return -ENOMEM;
    }
    map->unit_sg = sg;
    map->unit_cursor = *cursor;
    map->iov[0] = (struct iovec) { map->unit, len };
    map->qiov.niov = 1;
    map->qiov.size = len;
    map->bounced = len;
    if (map->dir == DMA_DIRECTION_TO_DEVICE) {
        dma_map_unit_rw(map, len);
    }
    stat64_add(&map->stats->n.bytes_bounced[reason[end]], len);
    trace_dma_map_unit(map, cursor->done, len);
    return 0;
}

static void dma_map_account(DMAMap *map, dma_addr_t done)
{
    trace_dma_map(map, done, map->qiov.niov, map->qiov.size, map->bounced);
    if (map->bounced < map->qiov.size) {
        stat64_add(&map->stats->n.bytes_direct,
                   map->qiov.size - map->bounced);
    }
    if (map->bounced && !map->unit) {
        stat64_add(&map->stats->n.bytes_bounced[DMA_BOUNCE_REASON_MMIO],
                   map->bounced);
    }
}

static inline void dma_map_begin(DMAMap *map, const QEMUSGList *sg,
                                 DMADirection dir)
{
    assert(map->qiov.niov == 0 && map->nsections == 0);
    map->as = sg->as;
    map->stats = dma_stats_get(sg->dev);
    map->dir = dir;
}

static ssize_t dma_map_some(DMAMap *map, const QEMUSGList *sg,
                            DMAMapCursor *cursor, size_t align,
                            int max_elements, DMADirection dir, bool may_wait)
{
    dma_addr_t remaining = sg->size - cursor->done;
    int end;

    assert(remaining > 0);
    dma_map_begin(map, sg, dir);

    if (icount_enabled()) {
        /* Looking for overlaps is quadratic. */
        max_elements = MIN(max_elements, IOV_MAX);
    }
    end = dma_map_list(map, sg, cursor, align, max_elements);
    if (end < 0) {
        dma_unmap(map, 0);
        return end;
    }
    if (end != END_OF_LIST) {
        dma_map_truncate(map, QEMU_ALIGN_DOWN(map->qiov.size, align));
    }

    if (map->qiov.size == 0) {
        AddressSpace *as = map->as;
        size_t unit = QEMU_ALIGN_UP(BDRV_SECTOR_SIZE, align);
        int ret;

        dma_unmap(map, 0);
        /*
         * Wait for space only if there is none left at all and somebody else
         * holds it: then its end wakes us.  If there is some, but not enough,
         * a map client would be called at once, again and again.
         */
        if (may_wait && end == END_OF_BOUNCE_SPACE &&
            as->max_bounce_buffer_size >= unit &&
            qatomic_read(&as->bounce_buffer_size) >=
            as->max_bounce_buffer_size) {
            return -EAGAIN;
        }
        ret = dma_map_unit(map, sg, cursor, MIN(unit, remaining), end);
        if (ret < 0) {
            return ret;
        }
    }

    dma_map_account(map, cursor->done);
    if (map->qiov.size < remaining) {
        stat64_add(&map->stats->n.partial_mappings, 1);
        trace_dma_map_partial(map, map->qiov.size, remaining);
        dma_map_cursor_advance(cursor, sg, map->qiov.size);
    } else {
        *cursor = (DMAMapCursor) { .index = sg->nsg, .done = sg->size };
    }
    return map->qiov.size;
}

ssize_t dma_map_partial(DMAMap *map, const QEMUSGList *sg,
                        DMAMapCursor *cursor, size_t align, int max_elements,
                        DMADirection dir)
{
    return dma_map_some(map, sg, cursor, align, max_elements, dir, true);
}

ssize_t dma_map_partial_now(DMAMap *map, const QEMUSGList *sg,
                            DMAMapCursor *cursor, size_t align,
                            int max_elements, DMADirection dir)
{
    return dma_map_some(map, sg, cursor, align, max_elements, dir, false);
}

int dma_map_whole(DMAMap *map, const QEMUSGList *sg, int max_elements,
                  DMADirection dir)
{
    const DMAMapCursor start = {};
    int end;

    dma_map_begin(map, sg, dir);
    end = dma_map_list(map, sg, &start, 1, max_elements);
    if (end == END_OF_LIST) {
        dma_map_account(map, 0);
        return 0;
    }

    dma_unmap(map, 0);
    stat64_add(&map->stats->n.whole_map_failures, 1);
    trace_dma_map_whole_fail(map, sg->nsg, sg->size, end);
    if (end < 0) {
        return end;
    }
    return end == END_OF_ELEMENTS ? -E2BIG : -ENOBUFS;
}

void dma_unmap(DMAMap *map, dma_addr_t access_len)
{
    bool elements = map->indirect;
    int i;

    if (map->unit) {
        if (map->dir == DMA_DIRECTION_FROM_DEVICE) {
            dma_map_unit_rw(map, MIN(access_len, map->qiov.size));
        }
        g_free(map->unit);
        map->unit = NULL;
    }

    /* Nobody follows what becomes dirty, most of the time. */
    for (i = 0; i < map->nsections && !elements; i++) {
        MemoryRegion *mr = map->section[i].cache.mrs.mr;

        elements = map->dir == DMA_DIRECTION_FROM_DEVICE &&
                   memory_region_get_dirty_log_mask(mr);
    }
    for (i = 0; elements && i < map->qiov.niov; i++) {
        dma_addr_t n = MIN(access_len, map->iov[i].iov_len);

        dma_unmap_element(map, i, n);
        access_len -= n;
    }
    for (i = 0; i < map->nsections; i++) {
        address_space_cache_destroy(&map->section[i].cache);
    }

    map->qiov.niov = 0;
    map->qiov.size = 0;
    map->nsections = 0;
    map->bounced = 0;
    map->indirect = false;
}
