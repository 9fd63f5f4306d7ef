/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SG_IO on a model of the kernel and of a disk
 *
 * The kernel's side is a disk in memory, with limits that can be set, that
 * fails on demand; guest memory is that of the test itself, and an address is
 * a pointer.
 */

#ifndef TESTS_UNIT_SGIO_MODEL_H
#define TESTS_UNIT_SGIO_MODEL_H

#include "choose.h"
#include "hw/scsi/sgio.h"

#define BLOCK       512
#define BLOCKS      512
#define DISK        (BLOCKS * BLOCK)
#define PAGE        (qemu_real_host_page_size())

/* The kernel */

extern uint8_t disk[DISK];
extern uint64_t max_hw_transfer;
extern int max_hw_iov;
extern int fail_at;                 /* the SG_IO, counted from 0 ... */
extern int fail_ret;                /* ... that fails like this */
extern sg_io_hdr_t fail_hdr;
extern uint32_t fail_len;           /* after so many bytes */
extern uint8_t fail_sense[18];
extern bool refuse_iovec;           /* more than one element */

typedef struct Seen {
    uint8_t cdb[16];
    int cdb_len;
    uint32_t len;
    bool iovec;
} Seen;

/* What it was asked for since run_init() */
extern Seen seen[4096];
extern int nseen;

/* The SG_IO that is in flight, or NULL */
extern sg_io_hdr_t *flying;

/* Let it return. */
void complete(void);

uint64_t cdb_lba(const uint8_t *cdb, int len);
uint32_t cdb_blocks(const uint8_t *cdb, int len);

/* Guest memory */

extern uint64_t unmappable;         /* address of an entry */
extern int mapped;                  /* mappings */

uint64_t bytes_bounced(void);

/* One command */

/* Those that run_init() knows */
#define N_OPS 11
extern const uint8_t ops[N_OPS];

typedef struct Run {
    SCSIDevice dev;
    SCSIRequest req;
    sg_io_hdr_t hdr;
    SGIO io;
    QEMUSGList sg;
    uint8_t *mem;
    int ret;
    int called;
} Run;

/* @op: one of @ops; @r->mem is its data. */
void run_init(Run *r, uint8_t op, uint64_t lba, uint32_t blocks);

/* A list of entries of @len bytes; 0 for a request without a list */
void run_list(Run *r, uint32_t len);

bool run_start(Run *r);

/* From start to end */
void run_all(Run *r);

/* Also sets the kernel back to what it was. */
void run_free(Run *r);

/* Blocks of a run's data are what they should be, up to a number of bytes */
void assert_data(Run *r, size_t len);

/**
 * sgio_any: any command, with any list, on a kernel with any limits
 *
 * Aborts if the data that was moved is not what the command's result says, or
 * if anything else has changed.  Every now and then, tests only
 * sgio_cdb_set_range(), with any CDB.
 *
 * @c: chooses them
 */
void sgio_any(Choices *c);

#endif
