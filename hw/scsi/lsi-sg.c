/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LSI 53C8xx: data phases as scatter lists
 *
 * References to the manual are to the "LSI53C895A PCI to Ultra2 SCSI Controller
 * Technical Manual".
 */

#include "qemu/osdep.h"
#include "hw/scsi/late-sg.h"
#include "lsi-sg.h"
#include "migration/qemu-file-types.h"
#include "qemu/bitops.h"
#include "trace.h"

/* Manual, chapter 5: the kinds of instructions */
#define INSN_TYPE(insn)         ((insn) >> 30)
#define   INSN_BLOCK_MOVE       0
#define   INSN_IO_REGISTER      1
#define   INSN_TRANSFER_CONTROL 2
#define   INSN_MEMORY           3
#define INSN_PHASE(insn)        extract32(insn, 24, 3)
#define INSN_OPCODE(insn)       extract32(insn, 27, 3)

#define MOVE_INDIRECT           BIT(29)
#define MOVE_TABLE_INDIRECT     BIT(28)

#define IO_SELECT               0
#define IO_WAIT_DISCONNECT      1
#define IO_WAIT_RESELECT        2
#define IO_SET                  3
#define IO_CLEAR                4
#define   IO_ATN                BIT(3)
#define   IO_TARGET             BIT(9)
#define IO_FROM_SFBR            5
#define IO_TO_SFBR              6
#define IO_READ_MODIFY_WRITE    7
#define IO_TABLE_INDIRECT       BIT(25)

#define TC_JUMP                 0
#define TC_CALL                 1
#define TC_RETURN               2
#define TC_NOP_MASK             0x002e0000
#define TC_IF_TRUE              BIT(19)
#define TC_COMPARE_CARRY        BIT(21)
#define TC_COMPARE_DATA         BIT(18)
#define TC_COMPARE_PHASE        BIT(17)

#define MEM_LOAD_STORE          BIT(29)
#define MEM_DSA_RELATIVE        BIT(28)
#define MEM_LOAD                BIT(24)

#define PHASE_DATA_OUT          0
#define PHASE_DATA_IN           1
#define PHASE_MESSAGE_IN        7

#define PAGE_BITS               12

/* Nodes of a tree, allocated together */
struct LSISgRanges {
    LSISgRanges *next;
    IntervalTreeNode node[];
};

/* Lists */

static void count_buffered(LSISg *s, LSISgReq *r, DmaBufferedReason reason)
{
    dma_device_stats_buffered(&s->stats, reason, r->bytes);
}

bool lsi_sg_begin(LSISg *s, LSISgReq *r, SCSIRequest *req, PCIDevice *pci,
                  bool mode_ok)
{
    r->bytes = req->cmd.xfer;
    if (!s->enabled) {
        count_buffered(s, r, DMA_BUFFERED_REASON_DISABLED);
    } else if (!scsi_req_can_continue_sg(req)) {
        count_buffered(s, r, DMA_BUFFERED_REASON_UNSUPPORTED);
    } else if (!s->can_disconnect) {
        count_buffered(s, r, DMA_BUFFERED_REASON_NO_DISCONNECT);
    } else if (!mode_ok) {
        count_buffered(s, r, DMA_BUFFERED_REASON_MODE);
    } else {
        r->state = LSI_SG_COLLECT;
        r->out = req->cmd.mode == SCSI_XFER_TO_DEV;
        pci_dma_sglist_init(&r->list, pci, 0);
        QLIST_INSERT_HEAD(&s->busy, r, next);
        return true;
    }
    return false;
}

/* A list now uses these pages: forget that none does. */
static void forget_clear_pages(LSISg *s, dma_addr_t addr, uint32_t count)
{
    uint64_t page = addr >> PAGE_BITS;
    uint64_t last = (addr + count - 1) >> PAGE_BITS;

    if (last - page >= LSI_SG_CLEAR_PAGES) {
        memset(s->clear_page, 0, sizeof(s->clear_page));
        return;
    }
    for (; page <= last; page++) {
        uint64_t *slot = &s->clear_page[page % LSI_SG_CLEAR_PAGES];

        if (*slot == page + 1) {
            *slot = 0;
        }
    }
}

static void add_entry(LSISg *s, LSISgReq *r, dma_addr_t addr, uint32_t count)
{
    QEMUSGList *list = &r->list;
    ScatterGatherEntry *prev = list->nsg ? &list->sg[list->nsg - 1] : NULL;
    dma_addr_t last = addr + count - 1;

    forget_clear_pages(s, addr, count);
    if (!prev) {
        r->first = addr;
        r->last = last;
    } else {
        r->unordered |= addr <= r->last;
        r->first = MIN(r->first, addr);
        r->last = MAX(r->last, last);
    }
    if (prev && prev->base + prev->len == addr && r->indexed < list->nsg) {
        prev->len += count;
        list->size += count;
    } else {
        qemu_sglist_add(list, addr, count);
    }
}

void lsi_sg_add(LSISg *s, LSISgReq *r, dma_addr_t addr, uint32_t count)
{
    uint64_t below_wrap = -addr;

    assert(r->state == LSI_SG_COLLECT);
    if (addr && count > below_wrap) {
        add_entry(s, r, addr, below_wrap);
        addr = 0;
        count -= below_wrap;
    }
    if (count) {
        add_entry(s, r, addr, count);
    }
}

/* Bring the tree up to date. */
static void index_list(LSISgReq *r)
{
    int n = r->list.nsg - r->indexed;
    LSISgRanges *ranges;
    int i;

    if (!n) {
        return;
    }
    ranges = g_malloc(sizeof(*ranges) + n * sizeof(ranges->node[0]));
    ranges->next = r->ranges;
    r->ranges = ranges;
    for (i = 0; i < n; i++) {
        const ScatterGatherEntry *entry = &r->list.sg[r->indexed + i];
        IntervalTreeNode *node = &ranges->node[i];

        node->start = entry->base;
        node->last = entry->base + entry->len - 1;
        r->overlap = r->overlap ||
            interval_tree_iter_first(&r->tree, node->start, node->last);
        interval_tree_insert(node, &r->tree);
    }
    r->indexed = r->list.nsg;
}

bool lsi_sg_overlaps(LSISgReq *r)
{
    if (r->out || !r->unordered) {
        return false;
    }
    index_list(r);
    return r->overlap;
}

void lsi_sg_run(LSISg *s, LSISgReq *r)
{
    assert(r->state == LSI_SG_COLLECT);
    r->state = LSI_SG_RUN;
    s->stats.direct++;
    s->in_flight++;
    s->stats.max_in_flight = MAX(s->stats.max_in_flight, s->in_flight);
    trace_lsi_sg_run(r->list.nsg, r->list.size);
}

void lsi_sg_barrier(LSISg *s, LSISgReq *r, DmaBarrierCause cause)
{
    s->stats.barriers[cause]++;
    trace_lsi_sg_barrier(DmaBarrierCause_str(cause), r->list.nsg,
                         r->list.size);
}

void lsi_sg_start_replay(LSISg *s, LSISgReq *r, DmaBarrierCause cause)
{
    assert(r->state == LSI_SG_COLLECT);
    lsi_sg_barrier(s, r, cause);
    count_buffered(s, r, DMA_BUFFERED_REASON_BARRIER);
    r->state = LSI_SG_REPLAY;
    r->replayed = (DMAMapCursor) { };
}

uint32_t lsi_sg_replay(LSISg *s, LSISgReq *r, uint8_t *buf, uint32_t len)
{
    DMADirection dir = r->out ? DMA_DIRECTION_TO_DEVICE
                              : DMA_DIRECTION_FROM_DEVICE;
    uint32_t used = 0;

    while (used < len && r->state == LSI_SG_REPLAY) {
        const ScatterGatherEntry *entry;
        dma_addr_t addr;
        uint32_t n;

        if (r->replayed.done == r->list.size) {
            lsi_sg_end(s, r);
            break;
        }
        entry = &r->list.sg[r->replayed.index];
        addr = entry->base + r->replayed.offset;
        n = MIN(entry->len - r->replayed.offset, len - used);
        dma_map_cursor_advance(&r->replayed, &r->list, n);
        dma_memory_rw(r->list.as, addr, buf + used, n, dir,
                      MEMTXATTRS_UNSPECIFIED);
        used += n;
    }
    return used;
}

void lsi_sg_end(LSISg *s, LSISgReq *r)
{
    if (r->state == LSI_SG_RUN) {
        s->in_flight--;
    }
    if (r->state != LSI_SG_BUFFERED) {
        r->state = LSI_SG_BUFFERED;
        QLIST_REMOVE(r, next);
    }
}

void lsi_sg_free(LSISgReq *r)
{
    LSISgRanges *ranges;

    assert(r->state == LSI_SG_BUFFERED);
    while ((ranges = r->ranges)) {
        r->ranges = ranges->next;
        g_free(ranges);
    }
    if (r->list.sg) {
        qemu_sglist_destroy(&r->list);
    }
}

/* Migration */

#define SAVED_OFFERED           BIT(0)
#define SAVED_WAITING           BIT(1)

void lsi_sg_save(QEMUFile *f, LSISg *s, LSISgReq *r)
{
    int i;

    qemu_put_byte(f, r->state);
    if (r->state == LSI_SG_BUFFERED) {
        return;
    }
    qemu_put_byte(f, (s->offered == r ? SAVED_OFFERED : 0) |
                     (s->waiting == r ? SAVED_WAITING : 0));
    qemu_put_be64(f, r->replayed.done);
    qemu_put_be32(f, r->list.nsg);
    for (i = 0; i < r->list.nsg; i++) {
        qemu_put_be64(f, r->list.sg[i].base);
        qemu_put_be32(f, r->list.sg[i].len);
    }
}

bool lsi_sg_load(QEMUFile *f, LSISg *s, LSISgReq *r, SCSIRequest *req,
                 PCIDevice *pci)
{
    int state = qemu_get_byte(f);
    int flags, n;
    uint64_t replayed;

    if (state == LSI_SG_BUFFERED) {
        return true;
    }
    flags = qemu_get_byte(f);
    replayed = qemu_get_be64(f);
    n = qemu_get_be32(f);
    if (state < 0 || state > LSI_SG_RUN || n < 0 || n > LSI_SG_MAX_ENTRIES ||
        (state == LSI_SG_COLLECT && req->retry) ||
        (state != LSI_SG_RUN && (flags & SAVED_OFFERED)) ||
        !req->ops->can_continue_sg) {
        return false;
    }

    r->out = req->cmd.mode == SCSI_XFER_TO_DEV;
    pci_dma_sglist_init(&r->list, pci, n);
    while (n-- > 0) {
        dma_addr_t addr = qemu_get_be64(f);
        uint32_t len = qemu_get_be32(f);

        if (!len || addr + len - 1 < addr ||
            len > req->cmd.xfer - r->list.size) {
            return false;
        }
        add_entry(s, r, addr, len);
    }
    if (replayed > r->list.size || (state == LSI_SG_RUN && !r->list.size)) {
        return false;
    }
    if (replayed) {
        dma_map_cursor_advance(&r->replayed, &r->list, replayed);
    }

    r->state = state;
    QLIST_INSERT_HEAD(&s->busy, r, next);
    if (state == LSI_SG_RUN) {
        s->in_flight++;
    }
    if (flags & SAVED_OFFERED) {
        s->offered = r;
    }
    if (flags & SAVED_WAITING) {
        s->waiting = r;
    }
    return true;
}

/* Instructions */

/* Are a transfer control instruction's conditions met? */
static bool condition_met(uint32_t insn, int phase, uint8_t sfbr, bool carry)
{
    bool want = insn & TC_IF_TRUE;
    uint8_t mask = ~(insn >> 8);

    if (!(insn & TC_NOP_MASK)) {
        return false;
    }
    return !((insn & TC_COMPARE_CARRY && carry != want) ||
             (insn & TC_COMPARE_PHASE && (phase == INSN_PHASE(insn)) != want) ||
             (insn & TC_COMPARE_DATA &&
              ((sfbr & mask) == (insn & mask)) != want));
}

static bool is_jump(uint32_t insn)
{
    return INSN_OPCODE(insn) <= TC_RETURN;
}

/*
 * Registers that the CPU cannot read while a script runs (manual, section 4.2:
 * only ISTAT0, ISTAT1, MBOX0 and MBOX1), and that do nothing when they are
 * written: SFBR, DSA, TEMP, SCRATCHA, and SCRATCHB to SCRATCHR.
 */
static bool is_private_register(int reg)
{
    return reg == 0x08 || (reg >= 0x10 && reg <= 0x13) ||
           (reg >= 0x1c && reg <= 0x1f) || (reg >= 0x34 && reg <= 0x37) ||
           (reg >= 0x5c && reg <= 0x9f);
}

bool lsi_sg_insn_shows(const LSISgReq *r, uint32_t insn, int phase,
                       uint8_t sfbr, bool carry, DmaBarrierCause *cause)
{
    int opcode = INSN_OPCODE(insn);
    int reg, n;

    *cause = DMA_BARRIER_CAUSE_INSTRUCTION;
    switch (INSN_TYPE(insn)) {
    case INSN_BLOCK_MOVE:
        if (!insn) {
            return false;
        }
        if (INSN_PHASE(insn) != phase ||
            phase != (r->out ? PHASE_DATA_OUT : PHASE_DATA_IN)) {
            *cause = DMA_BARRIER_CAUSE_PHASE;
            return true;
        }
        *cause = DMA_BARRIER_CAUSE_LIST_LENGTH;
        /* One for the MOVE, one more if it wraps around */
        return r->list.nsg > LSI_SG_MAX_ENTRIES - 2;
    case INSN_IO_REGISTER:
        reg = extract32(insn, 16, 7) | (insn & 0x80);
        switch (opcode) {
        case IO_SET:
        case IO_CLEAR:
            return insn & (IO_ATN | IO_TARGET);
        case IO_TO_SFBR:
            return false;
        case IO_FROM_SFBR:
        case IO_READ_MODIFY_WRITE:
            return !is_private_register(reg);
        default:
            return true;
        }
    case INSN_TRANSFER_CONTROL:
        if (is_jump(insn) || !condition_met(insn, phase, sfbr, carry)) {
            return false;
        }
        *cause = DMA_BARRIER_CAUSE_INTERRUPT;
        return true;
    default:
        reg = extract32(insn, 16, 8);
        n = insn & 7;
        return !(insn & MEM_LOAD_STORE) || !(insn & MEM_LOAD) ||
               !is_private_register(reg) || !n ||
               !is_private_register(reg + n - 1);
    }
}

bool lsi_sg_insn_refuses(uint32_t insn, int phase, uint8_t sfbr, bool carry,
                         DmaBarrierCause *cause)
{
    switch (INSN_TYPE(insn)) {
    case INSN_BLOCK_MOVE:
        *cause = DMA_BARRIER_CAUSE_PHASE;
        return insn && INSN_PHASE(insn) != PHASE_MESSAGE_IN;
    case INSN_IO_REGISTER:
        *cause = DMA_BARRIER_CAUSE_INSTRUCTION;
        return INSN_OPCODE(insn) == IO_SET && insn & IO_ATN;
    case INSN_TRANSFER_CONTROL:
        *cause = DMA_BARRIER_CAUSE_INTERRUPT;
        return !is_jump(insn) && condition_met(insn, phase, sfbr, carry);
    default:
        return false;
    }
}

bool lsi_sg_insn_leaves(uint32_t insn, bool connected, bool signaled)
{
    if (INSN_TYPE(insn) != INSN_IO_REGISTER) {
        return false;
    }
    switch (INSN_OPCODE(insn)) {
    case IO_SELECT:
        return !connected;
    case IO_WAIT_DISCONNECT:
        return true;
    case IO_WAIT_RESELECT:
        return !signaled;
    default:
        return false;
    }
}

/* Memory */

static bool range_is_used(const LSISgReq *r, dma_addr_t first, dma_addr_t last)
{
    return r->list.nsg && first <= r->last && last >= r->first;
}

static LSISgReq *find_range(LSISg *s, dma_addr_t first, dma_addr_t last,
                            bool write)
{
    LSISgReq *r;

    QLIST_FOREACH(r, &s->busy, next) {
        if (range_is_used(r, first, last) && (write || !r->out)) {
            index_list(r);
            if (interval_tree_iter_first(&r->tree, first, last)) {
                return r;
            }
        }
    }
    return NULL;
}

LSISgReq *lsi_sg_find(LSISg *s, dma_addr_t addr, uint32_t len, bool write)
{
    uint64_t page = addr >> PAGE_BITS;
    dma_addr_t last = addr + len - 1;
    uint64_t *slot = &s->clear_page[page % LSI_SG_CLEAR_PAGES];

    if (!len) {
        return NULL;
    }
    if (last >> PAGE_BITS == page) {
        /* Scripts and their tables stay in the same few pages. */
        if (*slot == page + 1) {
            return NULL;
        }
        if (!find_range(s, page << PAGE_BITS,
                        (page << PAGE_BITS) + MAKE_64BIT_MASK(0, PAGE_BITS),
                        true)) {
            *slot = page + 1;
            return NULL;
        }
    }
    return find_range(s, addr, last, write);
}

LSISgReq *lsi_sg_find_insn(LSISg *s, uint32_t dsp, uint32_t insn, uint32_t addr,
                           uint32_t dest, uint32_t dsa)
{
    uint32_t relative = dsa + sextract32(addr, 0, 24);
    LSISgReq *r = lsi_sg_find(s, dsp, 12, false);

    if (r) {
        return r;
    }
    switch (INSN_TYPE(insn)) {
    case INSN_BLOCK_MOVE:
        if (insn & MOVE_INDIRECT) {
            return lsi_sg_find(s, addr, 4, false);
        } else if (insn & MOVE_TABLE_INDIRECT) {
            return lsi_sg_find(s, relative, 8, false);
        }
        return NULL;
    case INSN_IO_REGISTER:
        if (INSN_OPCODE(insn) < IO_FROM_SFBR && insn & IO_TABLE_INDIRECT) {
            return lsi_sg_find(s, dsa + sextract32(insn, 0, 24), 4, false);
        }
        return NULL;
    case INSN_MEMORY:
        if (insn & MEM_LOAD_STORE) {
            return lsi_sg_find(s, insn & MEM_DSA_RELATIVE ? relative : addr,
                               insn & 7, !(insn & MEM_LOAD));
        }
        r = lsi_sg_find(s, addr, insn & 0xffffff, false);
        return r ?: lsi_sg_find(s, dest, insn & 0xffffff, true);
    default:
        return NULL;
    }
}
