/*
 * Storage controllers, as tests drive all of them
 *
 * One request at a time for each of a controller's disks ("lane" n is disk n).
 * What does not end is the test's business, but in hba_wait().
 *
 *     hba->start(m);
 *     request_init(m, &req, READ, 0, ...);
 *     hba->submit(m, 0, &req);
 *     while ((progress = hba_poll(m, hba, 0)) == IN_FLIGHT) {
 *         ...
 *     }
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_DMA_HBA_UTIL_H
#define TESTS_QTEST_DMA_HBA_UTIL_H

#include "dma-test-util.h"

#define HBA_MAX_LANES           2

typedef enum Progress { IN_FLIGHT, ENDED_WELL, ENDED_WITH_ERROR } Progress;

typedef struct HbaType {
    const char *name;
    /* -device, for the controller and for a disk, whose %1$d is its number */
    const char *controller;
    const char *disk;
    const char *qdev;           /* type with the bounce buffers, for -global */
    int devfn;
    int bar;
    int lanes;
    bool cd;                    /* drives that only read, 2048 bytes a time */
    bool unpluggable;           /* disks are, at any time */
    bool even;                  /* addresses and lengths */
    int max_entries;
    uint32_t max_mmio;          /* bytes of MMIO in a list */

    /* Make all lanes ready: after power-on, or a reset */
    void (*start)(Machine *m);
    /* The machine has been migrated */
    void (*migrated)(Machine *m);
    void (*submit)(Machine *m, int lane, const Request *req);
    /* Ask for sense data, of which there is little; NULL if nobody need ask */
    void (*request_sense)(Machine *m, int lane, const Request *req);
    Progress (*poll)(Machine *m, int lane);
    /* Abort all commands; NULL if none is left over when its disk goes */
    void (*abort)(Machine *m);
    /* Free what start() allocated; the machine ends, or has been reset */
    void (*stop)(Machine *m);
} HbaType;

extern const HbaType hba_types[];
#define HBA_TYPES               7

/*
 * A machine with all the disks of a controller: @device has more options of
 * each disk (",key=value"), @drive of its blkdebug node, @file of its image,
 * and @machine is more of the command line; each can be NULL.
 */
Setup hba_setup(const HbaType *hba, const char *device, const char *drive,
                const char *file, const char *machine);

/* Look after a request; time goes on by a millisecond if it is in flight */
Progress hba_poll(Machine *m, const HbaType *hba, int lane);

/* Wait until it is not in flight any more, as long as patience lasts */
Progress hba_wait(Machine *m, const HbaType *hba, int lane);

/*
 * Read until that works: after a reset, a change of the medium or of a disk,
 * drives first tell so.  All lanes are idle.
 */
void hba_clear_attention(Machine *m, const HbaType *hba);

#endif
