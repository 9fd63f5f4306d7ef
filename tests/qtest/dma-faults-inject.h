/*
 * What dma-faults-test and the library that it preloads into QEMU share
 *
 * The library (dev/faults/inject.c, which is not part of QEMU) lets calls into
 * libaio, liburing and the allocators fail.  The file that DMA_FAULTS_CONTROL
 * names holds one DmaFaultsControl, which both map.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_DMA_FAULTS_INJECT_H
#define TESTS_QTEST_DMA_FAULTS_INJECT_H

#include <stdint.h>

typedef enum DmaFaultsKind {
    /* io_submit() and io_uring_submit() */
    INJECT_SUBMIT_EAGAIN,
    INJECT_SUBMIT_ENOMEM,
    INJECT_SUBMIT_EINVAL,       /* io_submit() only */
    INJECT_SUBMIT_EINTR,        /* io_uring_submit() only */
    INJECT_SUBMIT_SHORT,        /* fewer than there are */
    /* g_try_malloc() and its like, by name */
    INJECT_TRY_MALLOC,
    INJECT_TRY_MALLOC0,
    INJECT_TRY_MALLOC_N,
    /* posix_memalign() of a size that vectored AIO has bounce buffers of */
    INJECT_BOUNCE,
    INJECT_KINDS
} DmaFaultsKind;

typedef struct DmaFaultsControl {
    uint64_t seed;
    struct {
        uint32_t one_in;        /* so many calls fails; 0 if none does */
        uint32_t left;          /* so many may fail still */
        uint64_t count;         /* of those that have failed */
    } kind[INJECT_KINDS];
} DmaFaultsControl;

#endif
