/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of the memory API is not for IOThreads
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "exec/memory.h"
#include "qemu/main-loop.h"

bool memory_region_main_loop_only(const MemoryRegion *mr, MemTxAttrs attrs)
{
    AioContext *ctx;

    /* Memory waits for nothing, and interrupts say who sends them. */
    if (!mr->dev || mr->ram || !attrs.unspecified) {
        return false;
    }
    /* Threads of vCPUs, and others that need the BQL, have none. */
    ctx = qemu_get_current_aio_context();
    return ctx && ctx != qemu_get_aio_context();
}
