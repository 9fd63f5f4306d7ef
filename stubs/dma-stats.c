/*
 * Programs without device emulation do no DMA
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/dma-stats.h"

void dma_stats_free(DeviceState *dev)
{
    assert(!dev->dma_stats);
}
