/*
 * Vectored AIO: any vector, made legal for the host with the least copying
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The vector of a DMA transfer has elements wherever the guest put them, and as
 * many as it likes.  The host's direct I/O wants elements at multiples of one
 * alignment, with lengths that are multiples of another, and not more than
 * IOV_MAX of them.
 *
 *     bdrv_aio_readv(blk, offset, &qiov, 0, cb, opaque);
 *
 * is blk_aio_preadv() for vectors that break these rules: what is misaligned
 * goes through a bounce buffer, the rest of the same host request stays direct,
 * and a vector that is too long goes as several host requests.
 */

#ifndef BLOCK_AIO_IOV_H
#define BLOCK_AIO_IOV_H

#include "block/aio.h"
#include "block/block-common.h"
#include "qemu/iov.h"
#include "qemu/stats64.h"
#include "qemu/units.h"

/* The most memory that a request bounces at a time, in bytes */
#define BDRV_IOV_MAX_BOUNCE (1 * MiB)

/* The most host requests that one split request has in flight */
#define BDRV_IOV_MAX_IN_FLIGHT 8

/**
 * struct BdrvIovStats: what became of the vectors of one backend
 *
 * @requests_untouched: vectors that were legal, or needed not be
 * @requests_bounced: vectors that became one host request, partially bounced
 * @requests_split: vectors that became several host requests, bounced or not
 * @split_host_requests: the host requests that they became
 * @bytes_direct: bytes of guest memory that host requests were given
 * @bytes_bounced_alignment: bytes that were copied since they were misaligned
 * @bytes_bounced_elements: bytes that were copied since they had more elements
 *                          than a host request may have, up to the first place
 *                          to split
 */
typedef struct BdrvIovStats {
    Stat64 requests_untouched;
    Stat64 requests_bounced;
    Stat64 requests_split;
    Stat64 split_host_requests;
    Stat64 bytes_direct;
    Stat64 bytes_bounced_alignment;
    Stat64 bytes_bounced_elements;
} BdrvIovStats;

/**
 * blk_get_iov_stats: what became of the vectors of a backend
 *
 * @blk: the backend, which owns the counters
 *
 * Any thread may count without a lock.
 */
BdrvIovStats *blk_get_iov_stats(BlockBackend *blk);

/* What backends that are gone have counted; protected by the BQL */
extern BdrvIovStats bdrv_iov_stats_gone;

/**
 * bdrv_iov_stats_add: add counters
 *
 * @to: what to add to
 * @from: what to add
 */
void bdrv_iov_stats_add(BdrvIovStats *to, const BdrvIovStats *from);

/**
 * bdrv_iov_stats_total: counters of all backends, also of those that are gone
 *
 * Call it with the BQL held.
 *
 * @total: filled in
 */
void bdrv_iov_stats_total(BdrvIovStats *total);

/**
 * bdrv_iov_stats_reset: set all counters of all backends to zero
 *
 * Call it with the BQL held.
 */
void bdrv_iov_stats_reset(void);

/**
 * bdrv_aio_readv: read into any vector
 *
 * Takes the place of blk_aio_preadv(), and follows its rules: it may be called
 * in any #AioContext that may submit requests to @blk, with or without the BQL;
 * @cb is called in the same context, never before this function has returned;
 * draining @blk waits for all of the request; the request is canceled with
 * blk_aio_cancel() or blk_aio_cancel_async().
 *
 * A request that is not a multiple of the node's alignment is left to the block
 * layer to pad, as it always was.
 *
 * @blk: the backend
 * @offset: offset on the backend, in bytes
 * @qiov: memory to fill; it and its memory belong to the request until @cb is
 *        called.  Other than for blk_aio_preadv() it may have more than
 *        IOV_MAX elements.
 * @flags: flags of every host request
 * @cb: called with 0, or a negative errno: the error of the failed host request
 *      with the lowest offset, -ENOMEM if there was no memory to bounce in, or
 *      -ECANCELED if the request was canceled before all of it was submitted.
 *      After an error the contents of @qiov are what the host made of them;
 *      nothing is copied from the bounce buffer of a failed host request.
 * @opaque: for @cb
 */
BlockAIOCB *bdrv_aio_readv(BlockBackend *blk, int64_t offset,
                           QEMUIOVector *qiov, BdrvRequestFlags flags,
                           BlockCompletionFunc *cb, void *opaque);

/**
 * bdrv_aio_writev: write from any vector
 *
 * Takes the place of blk_aio_pwritev(); see bdrv_aio_readv().  The host
 * requests of one call do not overlap, and are not ordered.  After an error any
 * part of the range may have been written.
 *
 * @blk: the backend
 * @offset: offset on the backend, in bytes
 * @qiov: memory to write; it must stay until @cb is called.  What is bounced is
 *        copied when its host request is submitted.
 * @flags: flags of every host request; not %BDRV_REQ_ZERO_WRITE, which has no
 *         vector
 * @cb: called with 0, or a negative errno
 * @opaque: for @cb
 */
BlockAIOCB *bdrv_aio_writev(BlockBackend *blk, int64_t offset,
                            QEMUIOVector *qiov, BdrvRequestFlags flags,
                            BlockCompletionFunc *cb, void *opaque);

/**
 * bdrv_iov_is_aligned: whether elements are aligned, in memory and in length
 *
 * @iov: the elements
 * @niov: how many
 * @mem_align: alignment of addresses, in bytes, a power of 2
 * @len_align: alignment of lengths, in bytes, a power of 2
 */
static inline bool bdrv_iov_is_aligned(const struct iovec *iov, int niov,
                                       size_t mem_align, size_t len_align)
{
    const struct iovec *end = iov + niov;
    uintptr_t bases = 0;
    size_t lens = 0;

    for (; iov < end; iov++) {
        bases |= (uintptr_t)iov->iov_base;
        lens |= iov->iov_len;
    }
    return !((bases & (mem_align - 1)) | (lens & (len_align - 1)));
}

/**
 * struct BdrvIovLimits: what makes a vector legal
 *
 * @mem_align: alignment of the address of an element; a power of 2
 * @len_align: alignment of the length of an element; a power of 2
 * @split_align: where a request may be split, on the backend; a power of 2, not
 *               less than @len_align
 * @max_iov: the most elements; not zero
 * @max_bounce: the most bytes of bounce buffer, a multiple of @mem_align
 */
typedef struct BdrvIovLimits {
    size_t mem_align;
    size_t len_align;
    size_t split_align;
    int max_iov;
    size_t max_bounce;
} BdrvIovLimits;

/**
 * struct BdrvIovCursor: a place in a vector; all zeroes is its beginning
 *
 * @index: element of the vector
 * @offset: bytes into that element
 */
typedef struct BdrvIovCursor {
    int index;
    size_t offset;
} BdrvIovCursor;

/**
 * struct BdrvIovPlan: which bytes of a host request are direct, which bounced
 *
 * @iov: the elements of the host request; the caller's array.  Those that are
 *       to be bounced have NULL for an address.
 * @niov: how many there are
 * @size: length of the host request in bytes
 * @bounced: how many of @size are to be bounced
 * @bounce_size: bounce buffer that this takes, in bytes, with each bounced
 *               element at a multiple of the memory alignment
 * @too_many: bounced as a whole since it has too many elements
 */
typedef struct BdrvIovPlan {
    struct iovec *iov;
    int niov;
    bool too_many;
    size_t size;
    size_t bounced;
    size_t bounce_size;
} BdrvIovPlan;

/**
 * bdrv_iov_plan: plan the next host request of a vector
 *
 * A pure function of its arguments; any thread may call it.
 *
 * Elements that are adjacent in memory are joined.  The number of bytes that
 * are bounced is the least that is legal, if the rest of the vector fits into
 * one host request.
 *
 * @plan: filled in, but for @plan->iov, which is an array with room for as many
 *        elements as @limits allows, or for twice those that @src has from
 *        @cursor on and one more, whichever is less
 * @limits: what is legal
 * @src: the vector, the rest of which is a multiple of @limits->len_align
 * @cursor: where the host request begins in @src, and its end on return
 * @offset: where it begins on the backend, a multiple of @limits->len_align
 * @remaining: bytes of @src from @cursor on; not zero
 *
 * Returns: @plan->size.  The host request ends at a multiple of
 * @limits->split_align, or at the end of the vector.  Zero means that more
 * than @limits->max_bounce is needed; @limits->split_align always suffices.
 */
size_t bdrv_iov_plan(BdrvIovPlan *plan, const BdrvIovLimits *limits,
                     const QEMUIOVector *src, BdrvIovCursor *cursor,
                     int64_t offset, size_t remaining);

#endif
