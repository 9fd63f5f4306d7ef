/*
 * DMA mapper and engine, on a model of an address space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The functions of the memory API that the mapper uses are implemented here,
 * on a few small regions, so that millions of lists can be compared with what
 * they should do, and every reference and bounce buffer can be counted.  The
 * qtests run the same code on QEMU's own memory.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qom/object.h"
#include "system/cpu-timers.h"
#include "system/dma-map.h"
#include "system/dma.h"

/* The model */

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

static Region regions[] = {
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
static AddressSpace model_as;
static uint8_t dirty_log_mask;
static int bounce_buffers;
static QEMUBH *map_client;
bool xen_allowed;

typedef struct Bounce {
    hwaddr addr;
    size_t len;
    uint8_t data[];
} Bounce;

static Region *find_region(hwaddr addr)
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

/* Where a byte is stored, or NULL if nowhere. */
static uint8_t *model_byte(hwaddr addr)
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

static void notify_map_client(void)
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

static void model_reset(size_t pool)
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

static void assert_nothing_mapped(void)
{
    g_assert_cmpint(bounce_buffers, ==, 0);
    g_assert_cmpuint(model_as.bounce_buffer_size, ==, 0);
    for (int i = 0; i < ARRAY_SIZE(regions); i++) {
        g_assert_cmpint(regions[i].refs, ==, 0);
    }
    g_assert_cmpint(unassigned.refs, ==, 0);
}

/* Lists */

typedef struct List {
    QEMUSGList sg;
    ScatterGatherEntry entries[4096];
} List;

static List list;

static void list_reset(void)
{
    list.sg = (QEMUSGList) { .sg = list.entries, .as = &model_as };
}

static void list_add(hwaddr base, hwaddr len)
{
    g_assert_cmpint(list.sg.nsg, <, ARRAY_SIZE(list.entries));
    list.entries[list.sg.nsg++] = (ScatterGatherEntry) { base, len };
    list.sg.size += len;
}

static ssize_t map_some(DMAMap *map, DMAMapCursor *cursor, size_t align,
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

static DMAMap *map_new(void)
{
    DMAMap *map = g_new(DMAMap, 1);

    /* Whatever dma_map_init() leaves alone must not matter. */
    memset(map, 0xa5, sizeof(*map));
    dma_map_init(map);
    return map;
}

static void map_free(DMAMap *map)
{
    dma_map_release(map);
    g_free(map);
}

/* Tests of the mapper */

static void test_cursor(void)
{
    DMAMapCursor c = {};

    list_reset();
    list_add(0, 10);
    list_add(100, 0);
    list_add(200, 20);
    list_add(300, 0);

    dma_map_cursor_advance(&c, &list.sg, 4);
    g_assert(c.index == 0 && c.offset == 4 && c.done == 4);
    dma_map_cursor_advance(&c, &list.sg, 6);
    g_assert(c.index == 2 && c.offset == 0 && c.done == 10);
    dma_map_cursor_advance(&c, &list.sg, 19);
    g_assert(c.index == 2 && c.offset == 19 && c.done == 29);
    dma_map_cursor_advance(&c, &list.sg, 1);
    g_assert(c.index == 4 && c.offset == 0 && c.done == 30);
}

static void test_join(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    list_add(0x100, 0x100);
    list_add(0x200, 0x80);
    list_add(0x280, 0);
    list_add(0x280, 0x180);
    list_add(0x300, 0x100);     /* backwards: not joined */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 0x400);
    g_assert_cmpint(map->qiov.niov, ==, 2);
    g_assert(map->qiov.iov[0].iov_base == regions[0].mem + 0x100);
    g_assert_cmpuint(map->qiov.iov[0].iov_len, ==, 0x300);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_top_of_address_space(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    list_add(HWADDR_MAX - 0xff, 0x100);
    list_add(0, 0x100);                 /* not what comes next on the bus */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 0x200);
    g_assert_cmpint(map->qiov.niov, ==, 2);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_one_lookup_per_section(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    list_reset();
    /* Alternates between two regions, from the top down. */
    for (int i = 15; i >= 0; i--) {
        list_add(0x2000 + i * 0x80, 0x40);
        list_add(i * 0x80, 0x40);
    }
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    32 * 0x40);
    g_assert_cmpint(map->qiov.niov, ==, 32);
    g_assert_cmpint(find_region(0)->lookups, ==, 1);
    g_assert_cmpint(find_region(0)->refs, ==, 1);
    g_assert_cmpint(find_region(0x2000)->lookups, ==, 1);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_more_sections_than_remembered(void)
{
    static const hwaddr ram[] = {
        0, 0x1800, 0x2000, 0x3000, 0x3200, HWADDR_MAX - 0xfff
    };
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    QEMU_BUILD_BUG_ON(ARRAY_SIZE(ram) <= DMA_MAP_MAX_SECTIONS);
    model_reset(0);
    list_reset();
    for (int i = 0; i < 4 * ARRAY_SIZE(ram); i++) {
        list_add(ram[i % ARRAY_SIZE(ram)] + i * 8, 8);
    }
    g_assert_cmpint(map_some(map, &c, 1, DMA_DIRECTION_FROM_DEVICE), ==,
                    list.sg.size);
    for (int i = 0; i < list.sg.nsg; i++) {
        g_assert(map->qiov.iov[i].iov_base == model_byte(list.entries[i].base));
    }
    dma_unmap(map, SIZE_MAX);
    for (int i = 0; i < list.sg.nsg; i++) {
        Region *r = find_region(list.entries[i].base);

        g_assert_cmpint(r->dirty[list.entries[i].base - r->base], ==, 1);
    }
    assert_nothing_mapped();
    map_free(map);
}

static void test_cut_is_unmapped_at_once(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(700);
    list_reset();
    list_add(0, 100);
    list_add(0x1000, 0x800);    /* 700 of them fit into the pool */
    list_add(0x800, 0x400);

    /* 100 + 700, cut to a multiple of 512: 412 bytes of MMIO */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert_cmpuint(model_as.bounce_buffer_size, ==, 412);
    g_assert(c.index == 1 && c.offset == 412 && c.done == 512);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();

    /* then 1536 - 412 bytes of MMIO remain, in pieces of 512 */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert(c.index == 1 && c.offset == 924 && c.done == 1024);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

static void test_wait_or_private_buffer(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    list_reset();
    list_add(0x1000, 512);

    /* Nobody can ever free space: no waiting. */
    model_reset(0);
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    g_assert(memcmp(map->qiov.iov[0].iov_base, regions[1].mem, 512) == 0);
    dma_unmap(map, SIZE_MAX);

    model_reset(511);
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();

    /* Others hold all of it. */
    model_reset(512);
    model_as.bounce_buffer_size = 512;
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==,
                    -EAGAIN);
    g_assert(c.index == 0 && c.offset == 0 && c.done == 0);

    /* Others hold a part: a map client would be called again and again. */
    model_as.bounce_buffer_size = 1;
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==, 512);
    dma_unmap(map, SIZE_MAX);
    model_as.bounce_buffer_size = 0;
    assert_nothing_mapped();
    map_free(map);
}

static void test_failed_read(void)
{
    static const size_t pools[] = { 0, 4096 };
    DMAMap *map = map_new();

    for (int i = 0; i < ARRAY_SIZE(pools); i++) {
        DMAMapCursor c = {};
        g_autofree uint8_t *before = NULL;

        model_reset(pools[i]);
        before = g_memdup2(regions[1].mem, 0x800);
        list_reset();
        list_add(0x100, 256);
        list_add(0x1000, 256);
        g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                        512);
        for (int j = 0; j < map->qiov.niov; j++) {
            memset(map->qiov.iov[j].iov_base, 0xee, map->qiov.iov[j].iov_len);
        }
        dma_unmap(map, 0);
        g_assert(memcmp(before, regions[1].mem, 0x800) == 0);
        /* RAM that was mapped itself may have been written. */
        if (pools[i]) {
            g_assert_cmpint(regions[0].dirty[0x100], ==, 1);
            g_assert_cmpint(regions[0].dirty[0x1ff], ==, 1);
        }
        g_assert_cmpint(regions[0].dirty[0xff], ==, 0);
        g_assert_cmpint(regions[0].dirty[0x200], ==, 0);
        assert_nothing_mapped();
    }
    map_free(map);
}

static void test_short_transfer(void)
{
    DMAMap *map = map_new();
    uint8_t old;

    model_reset(4096);
    old = regions[1].mem[100];
    list_reset();
    list_add(0x100, 156);
    list_add(0x1000, 512);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_FROM_DEVICE),
                    ==, 0);
    for (int i = 0; i < map->qiov.niov; i++) {
        memset(map->qiov.iov[i].iov_base, 0xee, map->qiov.iov[i].iov_len);
    }
    dma_unmap(map, 256);
    g_assert_cmphex(regions[1].mem[99], ==, 0xee);
    g_assert_cmphex(regions[1].mem[100], ==, old);
    assert_nothing_mapped();
    map_free(map);
}

static void test_whole(void)
{
    DMAMap *map = map_new();

    model_reset(512);
    list_reset();
    for (int i = 0; i < 200; i++) {
        list_add(i * 16, 8);
    }
    g_assert_cmpint(dma_map_whole(map, &list.sg, 200, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    g_assert_cmpint(map->qiov.niov, ==, 200);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 199, DMA_DIRECTION_TO_DEVICE),
                    ==, -E2BIG);
    assert_nothing_mapped();

    list_add(0x1000, 512);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 999, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    dma_unmap(map, SIZE_MAX);
    list_add(0x1400, 1);
    g_assert_cmpint(dma_map_whole(map, &list.sg, 999, DMA_DIRECTION_TO_DEVICE),
                    ==, -ENOBUFS);
    g_assert_cmpint(map->qiov.niov, ==, 0);
    assert_nothing_mapped();
    map_free(map);
}

static void test_icount_overlap(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};

    model_reset(4096);
    use_icount = ICOUNT_PRECISE;
    list_reset();
    list_add(0x000, 0x200);
    list_add(0x400, 0x200);
    list_add(0x100, 0x200);     /* overlaps the first */
    list_add(0x800, 0x100);
    list_add(0x880, 0x100);     /* overlaps within a sector */

    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x400);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x200);
    dma_unmap(map, SIZE_MAX);
    /* Not even a sector: in order through the private buffer. */
    g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_FROM_DEVICE), ==,
                    0x200);
    g_assert_cmpint(map->qiov.niov, ==, 1);
    dma_unmap(map, SIZE_MAX);
    g_assert_cmpuint(c.done, ==, list.sg.size);

    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_FROM_DEVICE),
                    ==, -ENOBUFS);
    /* What the device reads cannot depend on the order. */
    g_assert_cmpint(dma_map_whole(map, &list.sg, 16, DMA_DIRECTION_TO_DEVICE),
                    ==, 0);
    dma_unmap(map, 0);
    use_icount = ICOUNT_DISABLED;
    assert_nothing_mapped();
    map_free(map);
}

static void test_more_than_iov_max(void)
{
    DMAMap *map = map_new();
    DMAMapCursor c = {};
    Stat64 *bounced =
        &dma_stats_get(NULL)->n.bytes_bounced[DMA_BOUNCE_REASON_ELEMENTS];
    uint64_t before = stat64_get(bounced);
    int parts = 0;

    model_reset(4096);
    list_reset();
    for (int i = 0; i < 4096; i++) {
        list_add((i * 7 % 1000) * 2, 1);
    }
    while (c.done < list.sg.size) {
        g_assert_cmpint(map_some(map, &c, 512, DMA_DIRECTION_TO_DEVICE), ==,
                        1024);
        dma_unmap(map, SIZE_MAX);
        parts++;
    }
    g_assert_cmpint(parts, ==, 4);

    /* IOV_MAX elements do not reach one aligned unit. */
    c = (DMAMapCursor) {};
    g_assert_cmpint(map_some(map, &c, 4096, DMA_DIRECTION_TO_DEVICE), ==, 4096);
    g_assert_cmpint(map->qiov.niov, ==, 1);
    for (int i = 0; i < 4096; i++) {
        g_assert_cmphex(((uint8_t *)map->qiov.iov[0].iov_base)[i], ==,
                        regions[0].mem[(i * 7 % 1000) * 2]);
    }
    g_assert_cmpuint(stat64_get(bounced), ==, before + 4096);
    dma_unmap(map, SIZE_MAX);
    assert_nothing_mapped();
    map_free(map);
}

/*
 * Random lists, done in as many parts as the mapper wants, against a copy byte
 * by byte.  Every now and then others hold a part of the pool, or a part fails.
 */
static void random_list(void)
{
    int n = g_test_rand_int_range(1, 40);

    list_reset();
    while (n--) {
        int how = g_test_rand_int_range(0, 8);
        hwaddr len = g_test_rand_int_range(0, how < 4 ? 40 : 700);
        hwaddr base = g_test_rand_int_range(0, MODEL_END);

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
    if (g_test_rand_int_range(0, 4)) {
        list_add(0x800, -list.sg.size & 511);
    }
    if (!list.sg.size) {
        list_add(0, 1);
    }
}

static void random_pass(DMAMap *map, DMADirection dir, uint8_t *disk)
{
    static const size_t pools[] = { 0, 1, 100, 511, 512, 513, 1000, 4096 };
    static uint8_t *expected[ARRAY_SIZE(regions)];
    const size_t align = 1 << g_test_rand_int_range(0, 10);
    const bool whole = g_test_rand_int_range(0, 8) == 0;
    DMAMapCursor c = {};
    hwaddr done = 0;

    model_reset(pools[g_test_rand_int_range(0, ARRAY_SIZE(pools))]);
    /* Overlapping entries have one defined result only with icount. */
    use_icount = dir == DMA_DIRECTION_FROM_DEVICE ? ICOUNT_PRECISE
                                                  : ICOUNT_DISABLED;
    random_list();

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
        size_t others = g_test_rand_int_range(0, 3) ? 0 :
            g_test_rand_int_range(0, model_as.max_bounce_buffer_size + 1);
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
            n = map_some(map, &c, align, dir);
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
            g_assert_cmpuint(c.done, ==, done);
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

static void test_random(const void *opaque)
{
    const DMADirection dir = GPOINTER_TO_INT(opaque);
    g_autofree uint8_t *disk = g_malloc(64 * KiB);
    DMAMap *map = map_new();

    for (int i = 0; i < 64 * KiB; i++) {
        disk[i] = g_test_rand_int();
    }
    for (int i = 0; i < 20000; i++) {
        random_pass(map, dir, disk);
    }
    map_free(map);
}

/* Tests of the engine: what it submits, and how it ends */

typedef struct Host {
    BlockAIOCB *acb;
    BlockCompletionFunc *cb;
    void *opaque;
    QEMUIOVector *qiov;
    int64_t offset;
    int submitted;
} Host;

static Host host;
static int completions;
static int completed_with;

static void host_cancel(BlockAIOCB *acb)
{
}

static const AIOCBInfo host_aiocb_info = {
    .aiocb_size = sizeof(BlockAIOCB),
    .cancel_async = host_cancel,
};

static BlockAIOCB *host_submit(int64_t offset, QEMUIOVector *qiov,
                               BlockCompletionFunc *cb, void *cb_opaque,
                               void *opaque)
{
    g_assert(!host.acb);
    host = (Host) {
        .acb = qemu_aio_get(&host_aiocb_info, NULL, cb, cb_opaque),
        .cb = cb,
        .opaque = cb_opaque,
        .qiov = qiov,
        .offset = offset,
        .submitted = host.submitted + 1,
    };
    return host.acb;
}

static void host_complete(int ret)
{
    BlockAIOCB *acb = host.acb;

    host.acb = NULL;
    host.cb(host.opaque, ret);
    qemu_aio_unref(acb);
}

static void completed(void *opaque, int ret)
{
    completions++;
    completed_with = ret;
}

static BlockAIOCB *start(uint64_t offset, DMADirection dir)
{
    host.submitted = completions = 0;
    return dma_blk_io(&list.sg, offset, 512, host_submit, NULL, completed, NULL,
                      dir);
}

static void poll_until_completed(void)
{
    while (!completions) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void test_engine_parts(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 1024);
    list_add(0, 512);

    start(4096, DMA_DIRECTION_TO_DEVICE);
    g_assert_cmpint(host.offset, ==, 4096);
    g_assert_cmpuint(host.qiov->size, ==, 512);
    host_complete(0);
    g_assert_cmpint(host.offset, ==, 4608);
    g_assert_cmpuint(host.qiov->size, ==, 1024);
    g_assert_cmpint(completions, ==, 0);
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, 0);
    g_assert_cmpint(host.submitted, ==, 2);
    assert_nothing_mapped();
}

static void test_engine_error_in_part(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 2048);

    start(0, DMA_DIRECTION_FROM_DEVICE);
    host_complete(0);
    host_complete(-EIO);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -EIO);
    g_assert_cmpint(host.submitted, ==, 2);
    assert_nothing_mapped();
}

static void test_engine_empty_list(void)
{
    model_reset(512);
    list_reset();
    start(0, DMA_DIRECTION_FROM_DEVICE);
    g_assert_cmpint(completions, ==, 0);
    poll_until_completed();
    g_assert_cmpint(completed_with, ==, 0);
    g_assert_cmpint(host.submitted, ==, 0);
}

static void test_engine_wait(void)
{
    model_reset(512);
    list_reset();
    list_add(0x1000, 512);

    model_as.bounce_buffer_size = 512;
    start(0, DMA_DIRECTION_FROM_DEVICE);
    g_assert_cmpint(host.submitted, ==, 0);
    g_assert(map_client);
    model_as.bounce_buffer_size = 0;
    notify_map_client();
    while (!host.submitted) {
        aio_poll(qemu_get_aio_context(), true);
    }
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, 0);
    assert_nothing_mapped();
}

static void test_engine_cancel_waiting(const void *opaque)
{
    const bool notified = GPOINTER_TO_INT(opaque);
    BlockAIOCB *acb;

    model_reset(512);
    list_reset();
    list_add(0x1000, 512);

    model_as.bounce_buffer_size = 512;
    acb = start(0, DMA_DIRECTION_FROM_DEVICE);
    model_as.bounce_buffer_size = 0;
    if (notified) {
        notify_map_client();
    }
    bdrv_aio_cancel_async(acb);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -ECANCELED);
    g_assert(!map_client);
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* whatever is left must not touch the request */
    }
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(host.submitted, ==, 0);
    assert_nothing_mapped();
}

static void test_engine_cancel_in_flight(void)
{
    BlockAIOCB *acb;

    model_reset(512);
    list_reset();
    list_add(0x1000, 1024);

    /* What is in flight ends, and is the last. */
    acb = start(0, DMA_DIRECTION_TO_DEVICE);
    bdrv_aio_cancel_async(acb);
    g_assert_cmpint(completions, ==, 0);
    host_complete(0);
    g_assert_cmpint(completions, ==, 1);
    g_assert_cmpint(completed_with, ==, -ECANCELED);
    g_assert_cmpint(host.submitted, ==, 1);
    assert_nothing_mapped();

    /* If nothing remains to be done, the request has not been canceled. */
    list_reset();
    list_add(0x1000, 512);
    acb = start(0, DMA_DIRECTION_TO_DEVICE);
    bdrv_aio_cancel_async(acb);
    host_complete(0);
    g_assert_cmpint(completed_with, ==, 0);
    assert_nothing_mapped();
}

/* Tests of the helpers for lists */

#define TYPE_LIST_OWNER "test-dma-list-owner"

static const TypeInfo list_owner_info = {
    .name = TYPE_LIST_OWNER,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(Object),
};

static void test_sglist(void)
{
    QEMUSGList sg;

    for (int n = 0; n < 1000; n = n * 2 + 1) {
        Object *dev = object_new(TYPE_LIST_OWNER);

        qemu_sglist_init(&sg, (DeviceState *)dev, n / 2, &model_as);
        g_assert_cmpint(dev->ref, ==, 2);
        for (int i = 0; i < n; i++) {
            qemu_sglist_add(&sg, i * 8, i);
        }
        g_assert_cmpint(sg.nsg, ==, n);
        g_assert_cmpuint(sg.size, ==, n * (n - 1) / 2);
        for (int i = 0; i < n; i++) {
            g_assert_cmpuint(sg.sg[i].base, ==, i * 8);
            g_assert_cmpuint(sg.sg[i].len, ==, i);
        }
        qemu_sglist_destroy(&sg);
        g_assert_cmpint(dev->ref, ==, 1);
        g_assert(!sg.sg && !sg.nsg && !sg.size);
        /* Again, as device models do after an error */
        sg.dev = NULL;
        qemu_sglist_destroy(&sg);
        object_unref(dev);
    }
}

static void test_dma_buf(void)
{
    uint8_t buf[300];
    dma_addr_t residual;

    model_reset(0);
    list_reset();
    list_add(0x10, 100);
    list_add(0x800, 0);
    list_add(0x1000, 100);

    dma_buf_write(buf, 150, &residual, &list.sg, MEMTXATTRS_UNSPECIFIED);
    g_assert_cmpuint(residual, ==, 50);
    g_assert(memcmp(buf, regions[0].mem + 0x10, 100) == 0);
    g_assert(memcmp(buf + 100, regions[1].mem, 50) == 0);

    memset(buf, 0x77, sizeof(buf));
    dma_buf_read(buf, 300, &residual, &list.sg, MEMTXATTRS_UNSPECIFIED);
    g_assert_cmpuint(residual, ==, 0);
    g_assert_cmphex(regions[0].mem[0x10 + 99], ==, 0x77);
    g_assert_cmphex(regions[0].mem[0x10 + 100], !=, 0x77);
    g_assert_cmphex(regions[1].mem[99], ==, 0x77);
    g_assert_cmphex(regions[1].mem[100], !=, 0x77);
    dma_buf_read(buf, 0, NULL, &list.sg, MEMTXATTRS_UNSPECIFIED);
}

/* By its definition: the largest aligned power of two that fits */
static uint64_t slow_pow2_mask(uint64_t start, uint64_t end, int bits)
{
    uint64_t mask = 0;

    for (int i = 1; i <= bits; i++) {
        uint64_t m = MAKE_64BIT_MASK(0, i);

        if ((start & m) == 0 && end - start >= m) {
            mask = m;
        }
    }
    return mask;
}

static void test_aligned_pow2_mask(void)
{
    static const uint64_t ends[] = { 0, 1, 2, 3, 0xfff, 0x1000, 0x1001,
                                     UINT32_MAX, 1ull << 32, 3ull << 40,
                                     1ull << 63, UINT64_MAX - 1, UINT64_MAX };

    for (int i = 0; i < ARRAY_SIZE(ends); i++) {
        for (int j = i; j < ARRAY_SIZE(ends); j++) {
            for (int bits = 12; bits <= 64; bits += 4) {
                g_assert_cmphex(dma_aligned_pow2_mask(ends[i], ends[j], bits),
                                ==, slow_pow2_mask(ends[i], ends[j], bits));
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    module_call_init(MODULE_INIT_QOM);
    type_register_static(&list_owner_info);

    g_test_add_func("/dma-map/cursor", test_cursor);
    g_test_add_func("/dma-map/join", test_join);
    g_test_add_func("/dma-map/top-of-address-space", test_top_of_address_space);
    g_test_add_func("/dma-map/one-lookup-per-section",
                    test_one_lookup_per_section);
    g_test_add_func("/dma-map/more-sections-than-remembered",
                    test_more_sections_than_remembered);
    g_test_add_func("/dma-map/cut-is-unmapped-at-once",
                    test_cut_is_unmapped_at_once);
    g_test_add_func("/dma-map/wait-or-private-buffer",
                    test_wait_or_private_buffer);
    g_test_add_func("/dma-map/failed-read", test_failed_read);
    g_test_add_func("/dma-map/short-transfer", test_short_transfer);
    g_test_add_func("/dma-map/whole", test_whole);
    g_test_add_func("/dma-map/icount-overlap", test_icount_overlap);
    g_test_add_func("/dma-map/more-than-iov-max", test_more_than_iov_max);
    g_test_add_data_func("/dma-map/random/from-device",
                         GINT_TO_POINTER(DMA_DIRECTION_FROM_DEVICE),
                         test_random);
    g_test_add_data_func("/dma-map/random/to-device",
                         GINT_TO_POINTER(DMA_DIRECTION_TO_DEVICE), test_random);

    g_test_add_func("/dma-engine/parts", test_engine_parts);
    g_test_add_func("/dma-engine/error-in-part", test_engine_error_in_part);
    g_test_add_func("/dma-engine/empty-list", test_engine_empty_list);
    g_test_add_func("/dma-engine/wait", test_engine_wait);
    g_test_add_data_func("/dma-engine/cancel-waiting", GINT_TO_POINTER(false),
                         test_engine_cancel_waiting);
    g_test_add_data_func("/dma-engine/cancel-notified", GINT_TO_POINTER(true),
                         test_engine_cancel_waiting);
    g_test_add_func("/dma-engine/cancel-in-flight",
                    test_engine_cancel_in_flight);

    g_test_add_func("/dma-helpers/sglist", test_sglist);
    g_test_add_func("/dma-helpers/dma-buf", test_dma_buf);
    g_test_add_func("/dma-helpers/aligned-pow2-mask", test_aligned_pow2_mask);
    return g_test_run();
}
