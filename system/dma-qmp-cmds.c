/*
 * QMP command of the DMA mapper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-dma.h"
#include "system/dma-map.h"

DmaStats *qmp_x_query_dma(Error **errp)
{
    const DMAMapStats *s = &dma_map_stats;
    DmaStats *stats = g_new(DmaStats, 1);

    *stats = (DmaStats) {
        .requests = stat64_get(&s->requests),
        .bytes_direct = stat64_get(&s->bytes_direct),
        .bytes_bounced = stat64_get(&s->bytes_bounced),
        .partial_mappings = stat64_get(&s->partial_mappings),
        .map_client_waits = stat64_get(&s->map_client_waits),
        .whole_map_failures = stat64_get(&s->whole_map_failures),
    };
    return stats;
}
