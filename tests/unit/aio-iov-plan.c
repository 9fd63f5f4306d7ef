/*
 * The plan of vectored AIO, against an oracle
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "aio-iov-plan.h"

void vector_reset(Vector *v)
{
    v->qiov = (QEMUIOVector) { .iov = v->iov, .nalloc = -1 };
}

void vector_add(Vector *v, uintptr_t base, size_t len)
{
    g_assert_cmpint(v->qiov.niov, <, PLAN_MAX_ELEMENTS);
    v->iov[v->qiov.niov++] = (struct iovec) { (void *)base, len };
    v->qiov.size += len;
}

/* The address of every byte */
static size_t vector_bytes(const Vector *v, uintptr_t *addr)
{
    size_t n = 0;

    g_assert_cmpuint(v->qiov.size, <=, PLAN_MAX_BYTES);
    for (int i = 0; i < v->qiov.niov; i++) {
        for (size_t j = 0; j < v->iov[i].iov_len; j++) {
            addr[n++] = (uintptr_t)v->iov[i].iov_base + j;
        }
    }
    return n;
}

/*
 * The fewest bytes that can be bounced, by trying every way to cut the vector
 * into legal elements: least[n] is for the first n blocks.
 */
static size_t oracle(const uintptr_t *addr, size_t bytes, size_t mem_align,
                     size_t len_align)
{
    size_t least[PLAN_MAX_BYTES + 1];
    size_t blocks = bytes / len_align;

    least[0] = 0;
    for (size_t n = 1; n <= blocks; n++) {
        least[n] = least[n - 1] + len_align;
        /* Or an element from block @first up to here */
        for (size_t first = n; first-- > 0; ) {
            size_t i = first * len_align;

            while (i < n * len_align - 1 && i < (first + 1) * len_align &&
                   addr[i] + 1 == addr[i + 1]) {
                i++;
            }
            if (i < MIN((first + 1) * len_align, n * len_align - 1)) {
                break;
            }
            if (addr[first * len_align] % mem_align == 0) {
                least[n] = MIN(least[n], least[first]);
            }
        }
    }
    return least[blocks];
}

static void print_vector(const Vector *v, const BdrvIovLimits *l)
{
    fprintf(stderr, "mem_align %zu len_align %zu split_align %zu max_iov %d "
            "max_bounce %zu\n", l->mem_align, l->len_align, l->split_align,
            l->max_iov, l->max_bounce);
    for (int i = 0; i < v->qiov.niov; i++) {
        fprintf(stderr, "  %p + %zu\n", v->iov[i].iov_base, v->iov[i].iov_len);
    }
}

#define check_plan(cond)                                                \
    do {                                                                \
        if (!(cond)) {                                                  \
            print_vector(v, limits);                                    \
            g_assert(cond);                                             \
        }                                                               \
    } while (0)

int plan_all(const Vector *v, const BdrvIovLimits *limits, int64_t offset)
{
    static uintptr_t addr[PLAN_MAX_BYTES];
    struct iovec iov[2 * PLAN_MAX_ELEMENTS + 1];
    size_t bytes = vector_bytes(v, addr);
    BdrvIovPlan plan = { .iov = iov };
    BdrvIovCursor cursor = { 0 };
    size_t done = 0;
    int parts = 0;

    while (done < bytes) {
        int room = MIN(2 * (v->qiov.niov - cursor.index) + 1, limits->max_iov);
        size_t size = 0, bounced = 0, bounce_size = 0;

        check_plan(room <= ARRAY_SIZE(iov));
        memset(iov, 0xff, sizeof(iov));
        check_plan(bdrv_iov_plan(&plan, limits, &v->qiov, &cursor,
                                 offset + done, bytes - done) > 0);
        check_plan(plan.niov > 0 && plan.niov <= room);
        for (int i = 0; i < plan.niov; i++) {
            uintptr_t base = (uintptr_t)iov[i].iov_base;
            size_t len = iov[i].iov_len;

            check_plan(len > 0 && len % limits->len_align == 0);
            check_plan(base % limits->mem_align == 0);
            check_plan(len <= bytes - done - size);
            if (!base) {
                bounced += len;
                bounce_size += QEMU_ALIGN_UP(len, limits->mem_align);
            }
            for (size_t j = 0; base && j < len; j++) {
                check_plan(addr[done + size + j] == base + j);
            }
            size += len;
        }
        check_plan(size == plan.size && bounced == plan.bounced);
        check_plan(bounce_size == plan.bounce_size);
        check_plan(bounce_size <= limits->max_bounce);
        done += size;
        check_plan(done == bytes || (offset + done) % limits->split_align == 0);
        parts++;
    }
    check_plan(cursor.index == v->qiov.niov && cursor.offset == 0);
    /* To do with few elements, or a small buffer, can take more bouncing. */
    if (parts == 1 && limits->max_iov > 2 * v->qiov.niov &&
        limits->max_bounce >= 2 * PLAN_MAX_BYTES) {
        check_plan(plan.bounced == oracle(addr, bytes, limits->mem_align,
                                          limits->len_align));
    }
    return parts;
}

static size_t choose_align(Choices *c, int max_shift)
{
    return (size_t)1 << choose(c, 0, max_shift + 1);
}

int plan_any(Choices *c)
{
    BdrvIovLimits limits = {
        .mem_align = choose_align(c, 4),
        .len_align = choose_align(c, 4),
        .max_iov = 1024,
    };
    int n = choose(c, 1, 13);
    uintptr_t next = 0x1000;
    int64_t offset;
    Vector v;
    size_t rest;

    limits.split_align = limits.len_align * choose_align(c, 2);
    limits.max_bounce = MAX(limits.mem_align, limits.split_align) *
                        choose(c, 1, 5);
    if (choose(c, 0, 2)) {
        limits.max_iov = choose(c, 1, 8);
    } else {
        limits.max_bounce *= 4096;
    }
    offset = limits.len_align * choose(c, 0, 100);

    vector_reset(&v);
    for (int i = 0; i < n; i++) {
        size_t len = choose(c, 0, 40);

        if (choose(c, 0, 2)) {
            len = QEMU_ALIGN_UP(len, limits.len_align);
        }
        if (choose(c, 0, 4)) {
            next += 4096 + choose(c, 0, 40);
        }
        if (choose(c, 0, 2)) {
            next = QEMU_ALIGN_UP(next, limits.mem_align);
        }
        vector_add(&v, next, len);
        next += len;
    }
    rest = QEMU_ALIGN_UP(MAX(v.qiov.size, 1), limits.len_align) - v.qiov.size;
    vector_add(&v, next + 4096, rest);

    return plan_all(&v, &limits, offset);
}

void fuzz_one(Choices *c)
{
    plan_any(c);
}
