/*
 * Vectored AIO: what block/aio-iov.c and block/block-backend.c share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every request of every guest asks whether its vector is legal, and nearly
 * always it is.  So the question is inline, and is put where blk_bs() and
 * blk_aio_preadv() are inline too.
 */

#ifndef BLOCK_AIO_IOV_INT_H
#define BLOCK_AIO_IOV_INT_H

#include "block/aio-iov.h"
#include "block/block_int-common.h"

static inline void bdrv_iov_count_untouched(BdrvIovStats *stats,
                                            const QEMUIOVector *qiov)
{
    stat64_add(&stats->requests_untouched, 1);
    stat64_add(&stats->bytes_direct, qiov->size);
}

/**
 * bdrv_iov_is_legal: whether a vector is short and aligned enough for a node
 *
 * If so, counts it.  If not, it need not be illegal: the request may be one
 * that the block layer pads.
 *
 * @bs: the node, or %NULL, for which any vector is fine
 * @qiov: the vector
 * @stats: of the backend of @bs
 */
static inline bool bdrv_iov_is_legal(const BlockDriverState *bs,
                                     const QEMUIOVector *qiov,
                                     BdrvIovStats *stats)
{
    if (likely(bs)) {
        const BlockLimits *bl = &bs->bl;

        /* A limit of 0 is none. */
        if ((unsigned)qiov->niov - 1 > (unsigned)bl->max_iov - 1 ||
            qiov->niov > IOV_MAX) {
            return false;
        }
        if (bl->min_len_alignment > 1 &&
            !bdrv_iov_is_aligned(qiov->iov, qiov->niov, bl->min_mem_alignment,
                                 bl->min_len_alignment)) {
            return false;
        }
    }
    bdrv_iov_count_untouched(stats, qiov);
    return true;
}

/*
 * bdrv_aio_readv() and bdrv_aio_writev() for vectors that bdrv_iov_is_legal()
 * is not true of.
 */
BlockAIOCB *bdrv_iov_aio_readv(BlockBackend *blk, int64_t offset,
                               QEMUIOVector *qiov, BdrvRequestFlags flags,
                               BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *bdrv_iov_aio_writev(BlockBackend *blk, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags,
                                BlockCompletionFunc *cb, void *opaque);

#endif
