/*
 * HMP command "info dma"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/qapi-commands-dma.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"

static void print_bounced(Monitor *mon, uint64_t direct, uint64_t bounced,
                          const DmaBouncedBytesList *reason)
{
    const char *separator = " (";

    monitor_printf(mon, "bytes direct %" PRIu64 ", bounced %" PRIu64,
                   direct, bounced);
    for (; reason; reason = reason->next) {
        monitor_printf(mon, "%s%s %" PRIu64, separator,
                       DmaBounceReason_str(reason->value->reason),
                       reason->value->bytes);
        separator = ", ";
    }
    monitor_printf(mon, "%s\n", bounced ? ")" : "");
}

static void print_commands(Monitor *mon, const DmaCounters *c)
{
    const DmaBufferedCountList *buffered;
    const DmaBarrierCountList *barrier;
    const char *separator = "";

    monitor_printf(mon, "  commands: direct %" PRIu64 "; buffered ", c->direct);
    for (buffered = c->buffered; buffered; buffered = buffered->next) {
        monitor_printf(mon, "%s%s %" PRIu64, separator,
                       DmaBufferedReason_str(buffered->value->reason),
                       buffered->value->requests);
        if (buffered->value->bytes) {
            monitor_printf(mon, " (bytes %" PRIu64 ")", buffered->value->bytes);
        }
        separator = ", ";
    }
    monitor_printf(mon, "%s; barriers ", c->buffered ? "" : "0");

    separator = "";
    for (barrier = c->barriers; barrier; barrier = barrier->next) {
        monitor_printf(mon, "%s%s %" PRIu64, separator,
                       DmaBarrierCause_str(barrier->value->cause),
                       barrier->value->count);
        separator = ", ";
    }
    monitor_printf(mon, "%s\n", c->barriers ? "" : "0");
}

static void print_counters(Monitor *mon, const DmaCounters *c)
{
    monitor_printf(mon, "  lists %" PRIu64 "; ", c->requests);
    print_bounced(mon, c->bytes_direct, c->bytes_bounced, c->bounced);

    if (c->partial_mappings || c->map_client_waits || c->whole_map_failures) {
        monitor_printf(mon, "  partial mappings %" PRIu64
                       "; map client waits %" PRIu64
                       " (ms %.3f, longest %.3f)"
                       "; whole map failures %" PRIu64 "\n",
                       c->partial_mappings, c->map_client_waits,
                       (double)c->map_client_wait_ns / SCALE_MS,
                       (double)c->map_client_wait_max_ns / SCALE_MS,
                       c->whole_map_failures);
    }
    if (c->direct || c->buffered || c->barriers) {
        print_commands(mon, c);
    }
}

static void print_vectors(Monitor *mon, const DmaVectorStats *v)
{
    monitor_printf(mon, "  vectors untouched %" PRIu64 ", bounced %" PRIu64
                   ", split %" PRIu64, v->requests_untouched,
                   v->requests_bounced, v->requests_split);
    if (v->requests_split) {
        monitor_printf(mon, " (into %" PRIu64 ")", v->split_host_requests);
    }
    monitor_printf(mon, "; ");
    print_bounced(mon, v->bytes_direct, v->bytes_bounced, v->bounced);
}

static bool vectors_idle(const DmaVectorStats *v)
{
    return !(v->requests_untouched || v->requests_bounced || v->requests_split);
}

void hmp_info_dma(Monitor *mon, const QDict *qdict)
{
    const DmaDeviceStatsList *device;
    const DmaDriveStatsList *drive;
    DmaStats *stats;

    if (qdict_get_try_bool(qdict, "reset", false)) {
        qmp_x_reset_dma(NULL);
        return;
    }

    stats = qmp_x_query_dma(NULL);
    monitor_printf(mon, "total:\n");
    print_counters(mon, qapi_DmaStats_base(stats));
    print_vectors(mon, stats->vectors);

    for (device = stats->devices; device; device = device->next) {
        monitor_printf(mon, "%s:\n", device->value->qom_path);
        print_counters(mon, qapi_DmaDeviceStats_base(device->value));
    }
    for (drive = stats->drives; drive; drive = drive->next) {
        const DmaDriveStats *d = drive->value;
        const DmaVectorStats *vectors = qapi_DmaDriveStats_base(d);

        if (vectors_idle(vectors)) {
            continue;
        }
        monitor_printf(mon, "drive");
        if (*d->device) {
            monitor_printf(mon, " %s", d->device);
        }
        if (d->node_name) {
            monitor_printf(mon, " node %s", d->node_name);
        }
        if (d->qdev) {
            monitor_printf(mon, " at %s", d->qdev);
        }
        monitor_printf(mon, ":\n");
        print_vectors(mon, vectors);
    }
    qapi_free_DmaStats(stats);
}
