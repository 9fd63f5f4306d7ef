/*
 * A model of an address space, and lists on it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "dma-map-model.h"
#include "qemu/main-loop.h"
#include "system/cpu-timers.h"

/* The address space */

Region regions[] = {
    { .kind = RAM, .base = 0x0000, .size = 0x1000 },
    { .kind = MMIO, .base = 0x1000, .size = 0x800 },
    { .kind = RAM, .base = 0x1800, .size = 0x400 },
    { .kind = ROM, .base = 0x1c00, .size = 0x200 },
    /* a hole of 0x200 */
    { .kind = RAM, .base = 0x2000, .size = 0x800 },
    { .kind = IOMMU, .base = 0x2800, .size = 0x800 },
    { .kind = RAM, .base = 0x3000, .size = 0x100 },
    { .kind = MMIO, .base = 0x3100, .size = 0x100 },
    { .kind = RAM, .base = 0x3200, .size = 0x100 },
    { .kind = RAM, .base = HWADDR_MAX - 0xfff, .size = 0x1000 },
};
#define MODEL_END 0x3300

static Region unassigned = { .kind = UNASSIGNED };
AddressSpace model_as;
static uint8_t dirty_log_mask;
static int bounce_buffers;
QEMUBH *map_client;
bool xen_allowed;

typedef struct Bounce {
    hwaddr addr;
    size_t len;
    uint8_t data[];
} Bounce;

Region *find_region(hwaddr addr)
{
    for (int i = 0; i < ARRAY_SIZE(regions); i++) {
        if (addr - regions[i].base < regions[i].size) {
            return &regions[i];
        }
    }
    return &unassigned;
}

static bool is_direct(const Region *r, bool is_write)
{
    return r->kind == RAM || (r->kind == ROM && !is_write);
}

uint8_t *model_byte(hwaddr addr)
{
    Region *r = find_region(addr);

    if (r->kind == UNASSIGNED) {
        return NULL;
    }
    return &r->mem[addr - r->base];
}

static Region *region_of_host(const void *ptr)
{
    for (int i = 0; i < ARRAY_SIZE(regions); i++) {
        const uint8_t *p = ptr;

        if (p >= regions[i].mem && p < regions[i].mem + regions[i].size) {
            return &regions[i];
        }
    }
    return NULL;
}

int64_t address_space_cache_init(MemoryRegionCache *cache, AddressSpace *as,
                                 hwaddr addr, hwaddr len, bool is_write)
{
    Region *r = find_region(addr);

    g_assert(as == &model_as);
    r->lookups++;
    r->refs++;
    cache->mrs = (MemoryRegionSection) {
        .mr = &r->mr,
        .offset_within_address_space = r->base,
        .size = r == &unassigned ? int128_2_64() : int128_make64(r->size),
    };
    cache->xlat = addr - r->base;
    cache->ptr = is_direct(r, is_write) ? r->mem + cache->xlat : NULL;
    cache->is_write = is_write;
    return len;
}

void address_space_cache_destroy(MemoryRegionCache *cache)
{
    Region *r = container_of(cache->mrs.mr, Region, mr);

    g_assert_cmpint(r->refs, >, 0);
    r->refs--;
    cache->mrs.mr = NULL;
}

static void set_dirty(Region *r, hwaddr offset, hwaddr len)
{
    g_assert_cmpuint(offset + len, <=, r->size);
    memset(r->dirty + offset, 1, len);
}

void address_space_cache_invalidate(MemoryRegionCache *cache, hwaddr addr,
                                    hwaddr access_len)
{
    Region *r = container_of(cache->mrs.mr, Region, mr);

    g_assert(cache->is_write);
    set_dirty(r, addr + cache->xlat, access_len);
}

static MemTxResult model_rw(hwaddr addr, uint8_t *buf, hwaddr len,
                            bool is_write)
{
    for (hwaddr i = 0; i < len; i++) {
        Region *r = find_region(addr + i);
        uint8_t *p = model_byte(addr + i);

        if (!is_write) {
            buf[i] = p ? *p : 0;
        } else if (p && r->kind != ROM) {
            *p = buf[i];
            r->dirty[addr + i - r->base] = 1;
        }
    }
    return MEMTX_OK;
}

MemTxResult address_space_rw(AddressSpace *as, hwaddr addr, MemTxAttrs attrs,
                             void *buf, hwaddr len, bool is_write)
{
    return model_rw(addr, buf, len, is_write);
}

MemTxResult address_space_set(AddressSpace *as, hwaddr addr, uint8_t c,
                              hwaddr len, MemTxAttrs attrs)
{
    while (len--) {
        model_rw(addr++, &c, 1, true);
    }
    return MEMTX_OK;
}

void *address_space_map(AddressSpace *as, hwaddr addr, hwaddr *plen,
                        bool is_write, MemTxAttrs attrs)
{
    Region *r = find_region(addr);
    hwaddr room = as->max_bounce_buffer_size - as->bounce_buffer_size;
    Bounce *b;

    g_assert_cmpuint(*plen, >, 0);
    if (r->kind == IOMMU || is_direct(r, is_write)) {
        hwaddr offset = addr - r->base;
        hwaddr end = r->kind == IOMMU ? QEMU_ALIGN_UP(offset + 1, IOMMU_PAGE)
                                      : r->size;

        *plen = MIN(*plen, end - offset);
        r->refs++;
        return r->mem + offset;
    }

    *plen = MIN(*plen, room);
    if (*plen == 0) {
        return NULL;
    }
    b = g_malloc0(sizeof(*b) + *plen);
    b->addr = addr;
    b->len = *plen;
    as->bounce_buffer_size += b->len;
    bounce_buffers++;
    if (!is_write) {
        model_rw(addr, b->data, b->len, false);
    }
    return b->data;
}

#ifdef CONFIG_FUZZ
void fuzz_dma_read_cb(size_t addr, size_t len, MemoryRegion *mr)
{
}
#endif

void notify_map_client(void)
{
    if (map_client) {
        qemu_bh_schedule(map_client);
        map_client = NULL;
    }
}

void address_space_unmap(AddressSpace *as, void *buffer, hwaddr len,
                         bool is_write, hwaddr access_len)
{
    Region *r = region_of_host(buffer);
    Bounce *b;

    if (r) {
        if (is_write) {
            set_dirty(r, (uint8_t *)buffer - r->mem, access_len);
        }
        g_assert_cmpint(r->refs, >, 0);
        r->refs--;
        return;
    }
    b = container_of(buffer, Bounce, data[0]);
    if (is_write) {
        model_rw(b->addr, b->data, access_len, true);
    }
    as->bounce_buffer_size -= b->len;
    bounce_buffers--;
    g_free(b);
    notify_map_client();
}

void address_space_register_map_client(AddressSpace *as, QEMUBH *bh)
{
    g_assert(!map_client);
    map_client = bh;
    if (as->bounce_buffer_size < as->max_bounce_buffer_size) {
        notify_map_client();
    }
}

void address_space_unregister_map_client(AddressSpace *as, QEMUBH *bh)
{
    if (map_client == bh) {
        map_client = NULL;
    }
}

MemoryRegion *memory_region_from_host(void *ptr, ram_addr_t *offset)
{
    Region *r = region_of_host(ptr);

    return r ? &r->mr : NULL;
}

uint8_t memory_region_get_dirty_log_mask(MemoryRegion *mr)
{
    return dirty_log_mask;
}

void model_reset(size_t pool)
{
    for (int i = 0; i < ARRAY_SIZE(regions); i++) {
        Region *r = &regions[i];

        r->mr.is_iommu = r->kind == IOMMU;
        r->lookups = r->refs = 0;
        memset(r->dirty, 0, sizeof(r->dirty));
        for (int j = 0; j < r->size; j++) {
            r->mem[j] = (i * 37 + j * 11 + j / 251) & 0xff;
        }
    }
    unassigned.refs = unassigned.lookups = 0;
    model_as.max_bounce_buffer_size = pool;
    model_as.bounce_buffer_size = 0;
    dirty_log_mask = 1;
    use_icount = ICOUNT_DISABLED;
}

void assert_nothing_mapped(void)
{
    g_assert_cmpint(bounce_buffers, ==, 0);
    g_assert_cmpuint(model_as.bounce_buffer_size, ==, 0);
    for (int i = 0; i < ARRAY_SIZE(regions); i++) {
        g_assert_cmpint(regions[i].refs, ==, 0);
    }
    g_assert_cmpint(unassigned.refs, ==, 0);
}

/* Lists */

List list;

void list_reset(void)
{
    list.sg = (QEMUSGList) { .sg = list.entries, .as = &model_as };
}

void list_add(hwaddr base, hwaddr len)
{
    g_assert_cmpint(list.sg.nsg, <, ARRAY_SIZE(list.entries));
    list.entries[list.sg.nsg++] = (ScatterGatherEntry) { base, len };
    list.sg.size += len;
}

ssize_t map_some(DMAMap *map, DMAMapCursor *cursor, size_t align,
                 DMADirection dir)
{
    ssize_t n = dma_map_partial(map, &list.sg, cursor, align, IOV_MAX, dir);

    if (n > 0) {
        g_assert_cmpuint(n, ==, map->qiov.size);
        g_assert_cmpuint(n, ==, iov_size(map->qiov.iov, map->qiov.niov));
        g_assert(n % align == 0 || cursor->done == list.sg.size);
        g_assert_cmpint(map->qiov.niov, <=, IOV_MAX);
    } else {
        g_assert_cmpint(map->qiov.niov, ==, 0);
    }
    return n;
}

DMAMap *map_new(void)
{
    DMAMap *map = g_new(DMAMap, 1);

    /* Whatever dma_map_init() leaves alone must not matter. */
    memset(map, 0xa5, sizeof(*map));
    dma_map_init(map);
    return map;
}

void map_free(DMAMap *map)
{
    dma_map_release(map);
    g_free(map);
}

/* A list of any entries, which may overlap */
static void list_any(Choices *c)
{
    int n = choose(c, 1, 40);

    list_reset();
    while (n--) {
        int how = choose(c, 0, 8);
        hwaddr len = choose(c, 0, how < 4 ? 40 : 700);
        hwaddr base = choose(c, 0, MODEL_END);

        if (how == 0 && list.sg.nsg) {
            /* follows the one before */
            base = list.entries[list.sg.nsg - 1].base +
                   list.entries[list.sg.nsg - 1].len;
        } else if (how == 1) {
            base = HWADDR_MAX - len;
        }
        list_add(base, len);
    }
    /* A whole number of sectors, most of the time */
    if (choose(c, 0, 4)) {
        list_add(0x800, -list.sg.size & 511);
    }
    if (!list.sg.size) {
        list_add(0, 1);
    }
}

/* Migration must send what was written. */
static void list_assert_dirty(void)
{
    for (int i = 0; i < list.sg.nsg; i++) {
        for (hwaddr j = 0; j < list.entries[i].len; j++) {
            hwaddr addr = list.entries[i].base + j;
            Region *r = find_region(addr);

            if (r->kind == RAM || r->kind == IOMMU) {
                g_assert_cmpint(r->dirty[addr - r->base], ==, 1);
            }
        }
    }
}

void map_any(Choices *c, DMAMap *map, DMADirection dir, uint8_t *disk)
{
    static const size_t pools[] = { 0, 1, 100, 511, 512, 513, 1000, 4096 };
    static uint8_t *expected[ARRAY_SIZE(regions)];
    const size_t align = 1 << choose(c, 0, 10);
    const bool whole = choose(c, 0, 8) == 0;
    DMAMapCursor cursor = {};
    hwaddr done = 0;

    model_reset(pools[choose(c, 0, ARRAY_SIZE(pools))]);
    /* Overlapping entries have one defined result only with icount. */
    use_icount = dir == DMA_DIRECTION_FROM_DEVICE ? ICOUNT_PRECISE
                                                  : ICOUNT_DISABLED;
    list_any(c);

    /* The result, byte by byte */
    if (dir == DMA_DIRECTION_FROM_DEVICE) {
        for (int i = 0; i < ARRAY_SIZE(regions); i++) {
            expected[i] = g_memdup2(regions[i].mem, sizeof(regions[i].mem));
        }
        for (int i = 0; i < list.sg.nsg; i++) {
            for (hwaddr j = 0; j < list.entries[i].len; j++) {
                hwaddr addr = list.entries[i].base + j;
                Region *r = find_region(addr);

                if (r->kind != UNASSIGNED && r->kind != ROM) {
                    expected[r - regions][addr - r->base] = disk[done];
                }
                done++;
            }
        }
        done = 0;
    }

    while (done < list.sg.size) {
        size_t others = choose(c, 0, 3) ? 0 :
            choose(c, 0, model_as.max_bounce_buffer_size + 1);
        ssize_t n;

        model_as.bounce_buffer_size = others;
        if (whole) {
            n = dma_map_whole(map, &list.sg, 1000, dir);
            if (n < 0) {
                g_assert_cmpint(n, ==, -ENOBUFS);
                model_as.bounce_buffer_size -= others;
                break;
            }
            n = list.sg.size;
            g_assert_cmpuint(n, ==, map->qiov.size);
        } else {
            n = map_some(map, &cursor, align, dir);
        }
        if (n == -EAGAIN) {
            g_assert_cmpuint(others, >=, 512);
            g_assert_cmpuint(others, ==, model_as.max_bounce_buffer_size);
            model_as.bounce_buffer_size -= others;
            continue;
        }
        g_assert_cmpint(n, >, 0);
        if (dir == DMA_DIRECTION_FROM_DEVICE) {
            iov_from_buf(map->qiov.iov, map->qiov.niov, 0, disk + done, n);
        } else {
            iov_to_buf(map->qiov.iov, map->qiov.niov, 0, disk + done, n);
        }
        dma_unmap(map, n);
        done += n;
        if (!whole) {
            g_assert_cmpuint(cursor.done, ==, done);
        }
        model_as.bounce_buffer_size -= others;
        assert_nothing_mapped();
    }
    assert_nothing_mapped();

    if (dir == DMA_DIRECTION_FROM_DEVICE) {
        for (int i = 0; i < ARRAY_SIZE(regions); i++) {
            Region *r = &regions[i];

            if (done == list.sg.size) {
                g_assert(memcmp(expected[i], r->mem, r->size) == 0);
            }
            g_free(expected[i]);
        }
        if (done == list.sg.size) {
            list_assert_dirty();
        }
    } else if (done == list.sg.size) {
        done = 0;
        for (int i = 0; i < list.sg.nsg; i++) {
            for (hwaddr j = 0; j < list.entries[i].len; j++) {
                uint8_t *p = model_byte(list.entries[i].base + j);

                g_assert_cmphex(disk[done++], ==, p ? *p : 0);
            }
        }
    }
}

void fuzz_one(Choices *c)
{
    static uint8_t disk[MAP_ANY_MAX];
    DMADirection dir = choose(c, 0, 2) ? DMA_DIRECTION_FROM_DEVICE
                                       : DMA_DIRECTION_TO_DEVICE;
    DMAMap *map = map_new();

    for (int i = 0; i < sizeof(disk); i++) {
        disk[i] = i * 7 + i / 256;
    }
    map_any(c, map, dir, disk);
    map_free(map);
}
