/*
 * Tests of DMA to and from every kind of guest memory
 *
 * A scatter/gather list may name RAM, device registers, ROM and addresses
 * at which nothing answers, in any order and at any length.  Tests describe
 * a list in a line of text, let a controller run it, and then compare all
 * of it: every byte of the memory that the list lies in, between and around
 * its entries too, and every byte of the disk images.
 *
 *     r100+m412          100 bytes of RAM, then 412 bytes of MMIO
 *     256xr2             256 entries of 2 bytes of RAM, none contiguous
 *     r512@0+r512@256    RAM at given offsets: these two overlap
 *
 * Without an offset, entries of a kind follow each other with gaps between.
 *
 *     static void test_read(void)
 *     {
 *         Machine *m = test_begin(&setup);
 *         Request req;
 *
 *         request_init(m, &req, READ, 0, 7 * 512, 512, "r100+m412");
 *         (tell the controller)
 *         expect_transfer(m, &req, req.bytes);
 *         request_free(&req);
 *         test_end(m);
 *     }
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_DMA_TEST_UTIL_H
#define TESTS_QTEST_DMA_TEST_UTIL_H

#include "libqtest.h"
#include "libqos/pci.h"

#define SECTOR                  512
#define DISK_SIZE               (512 * KiB)

/* MMC: READ (10), which is padded to make a packet */
#define MMC_READ_10             0x28
#define MMC_PACKET_SIZE         12
#define CD_SECTOR               2048

#define MAX_DISKS               3

#define LSI_SCRIPTS_RAM_SIZE    (8 * KiB)

/* No request takes a tenth of this, even on a machine that is overloaded */
#define PATIENCE_SECONDS        20

typedef enum Kind {
    TABLE,      /* 't': RAM for the controller's own structures */
    RAM,        /* 'r' */
    MMIO,       /* 'm': SCRIPTS RAM of an LSI 53C895A, which keeps its bytes */
    ROM,        /* 'o': the end of the BIOS, then 4 KiB beyond 4 GiB */
    HOLE,       /* 'h': nothing answers */
    EDGE,       /* 'e': the last 4 KiB of RAM, then 8 KiB of nothing */
    STRIPES,    /* 's': 16 KiB of RAM, 16 KiB of anything else, and so on */
    KINDS
} Kind;

/* A part of the address space that tests may use, and what it shall hold */
typedef struct Region {
    const char *name;
    uint64_t base;
    uint32_t size;
    uint32_t writable;          /* so many bytes from base on ... */
    uint32_t stripe;            /* ... or, if set, every other so many bytes */
    uint8_t *want;
} Region;

/* One entry of a scatter/gather list */
typedef struct Entry {
    Kind kind;
    uint32_t len;
    uint32_t offset;            /* in the region of its kind */
    bool placed;
} Entry;

/* As ATA and SCSI have it: READ writes memory */
typedef enum Direction { READ, WRITE } Direction;

typedef struct Request {
    Direction dir;
    int disk;
    uint32_t start;             /* bytes from the beginning of the disk */
    uint32_t bytes;             /* the list may have room for more */
    GArray *list;               /* of Entry */
    size_t list_bytes;
} Request;

/*
 * A machine to test: pc or q35 with 32 MiB of RAM, an LSI 53C895A for its MMIO,
 * and for each disk n a drive "drive<n>", which is a raw image on blkdebug.
 * With @blockdev, "drive<n>" is the name of a node, and "file<n>" that of the
 * file below it.
 */
typedef struct Setup {
    const char *machine;                /* more of the command line */
    const char *drive[MAX_DISKS];       /* more of -drive, ",key=value" */
    const char *blockdev;               /* of each file, if set, the same */
    int disks;
    int hba_devfn;                      /* the controller */
    int hba_bar;                        /* and its registers */
    bool q35;
    uint32_t disk_size;                 /* if not DISK_SIZE */
    uint32_t ram_size;                  /* of that region, if not 176 KiB */
} Setup;

typedef struct Machine {
    QTestState *qts;
    QPCIBus *pci;
    QPCIDevice *hba;
    QPCIBar hba_bar;
    QPCIDevice *lsi;
    Region region[KINDS];
    uint32_t disk_size;
    int image_fd[MAX_DISKS];
    uint8_t *image[MAX_DISKS];          /* what the images shall hold */
    Setup setup;
} Machine;

/* The name of a direction, for paths */
const char *dir_name(Direction dir);

/* Fail the test, with a message */
void fail(const char *fmt, ...) G_GNUC_PRINTF(1, 2) G_NORETURN;

/*
 * Begin a test on a machine.  Tests in a row that want the same machine share
 * it.  Setups are the same if their strings are.
 */
Machine *test_begin(const Setup *setup);

/* End a test: all memory and all disks are as they shall be */
void test_end(Machine *m);

/* Let the next test begin on a new machine */
void machine_discard(void);

/* Reset the system, and give its devices new addresses */
void machine_reset(Machine *m);

/*
 * Migrate to a new QEMU, and end the old one.  A machine that is stopped stays
 * so.
 */
void machine_migrate(Machine *m);

/*
 * The same in steps.  Until machine_migrate_finish() the machine is the source;
 * it ends with machine_migrate_end().
 */
typedef struct Migration {
    QTestState *from;
    QTestState *to;
    QPCIBus *to_pci;
    char *dir;
    char *path;
} Migration;

void machine_migrate_begin(Machine *m, Migration *g);
void machine_migrate_finish(Machine *m, Migration *g);
void machine_migrate_end(Migration *g);

/* Wait until a migration is "completed", or "failed" */
void wait_for_migration(QTestState *qts, const char *want);

/* The same by a file: from one QEMU, and to one that has -incoming defer */
void migrate_to_file(QTestState *qts, const char *path);
void migrate_from_file(QTestState *qts, const char *path, const char *want);

/* Change the @len bytes of such a file. */
typedef void Forge(char *stream, gsize len, const void *opaque);

void forge_file(const char *path, Forge *forge, const void *opaque);

/* Where in it these are: a field with as many neighbours as make it unique */
char *find_in_stream(char *stream, gsize len, const void *fields, size_t size);

/* Another QEMU refuses the machine's state, forged; the machine goes on. */
void machine_migrate_forged(Machine *m, Forge *forge, const void *opaque);

/* Enable an NVMe controller, with a submission and a completion queue */
void nvme_enable(QPCIDevice *nvme, QPCIBar regs, uint64_t sq, uint64_t cq,
                 int entries);

/* A file with these contents, which goes with its descriptor */
int anonymous_file(const void *contents, size_t len);

/* The contents of a disk's image, to be freed */
uint8_t *image_contents(Machine *m, int disk);

/* Write bytes that repeat nowhere and are the same for the same @seed */
void scramble(uint8_t *buf, size_t len, uint32_t seed);

/* @len bytes from @base on are as they shall be; if not, fail */
void assert_same(const char *where, uint64_t base, const uint8_t *got,
                 const uint8_t *want, size_t len);

/* In pieces: the time that libqtest takes grows with their square. */
void read_in_pieces(QTestState *qts, uint64_t addr, void *buf, size_t size);

/* Is a byte of this region one that DMA can write? */
bool region_is_writable(const Region *r, uint32_t offset);

/* The same as g_test_run(), and no machine is left over */
int test_run(void);

/* A blkdebug command for disk @disk, whose device has the id "disk<n>" */
void blkdebug(Machine *m, int disk, const char *command);

/*
 * Poll within reason:
 *
 *     int64_t deadline = patience_ends();
 *
 *     while (!ready()) {
 *         wait_before_poll(deadline, "ready");
 *     }
 */
int64_t patience_ends(void);
void wait_before_poll(int64_t deadline, const char *what);

/* QEMU answers, but what the test does takes longer than one may. */
void machine_still_answers(Machine *m);

/* Let disk @disk do so much, or if a limit is 0 as much as it can */
void throttle(Machine *m, int disk, int bytes_per_second,
              int requests_per_second);

/* Bytes of anonymous memory that QEMU has touched: its heap, the guest's RAM */
int64_t anonymous_memory(Machine *m);

/* Write guest memory that shall hold this from now on */
void region_write(Machine *m, Kind kind, uint32_t offset, const void *buf,
                  uint32_t len);

/* Give up what a region shall hold: whatever is there now is right */
void region_accept(Machine *m, Kind kind, uint32_t offset, uint32_t len);

/*
 * A request of @bytes bytes from byte @start of disk @disk on, or if @bytes is
 * 0 as many as @list has room for.  The memory of the list gets new contents.
 */
void request_init(Machine *m, Request *req, Direction dir, int disk,
                  uint32_t start, uint32_t bytes, const char *list);
void request_free(Request *req);

/* Bus address of an entry of a request's list */
uint64_t entry_address(Machine *m, const Entry *e);

/* The first @bytes bytes of the request have been transferred: expect so */
void expect_transfer(Machine *m, Request *req, size_t bytes);

/* The same, but what has been read is @data, which is not that of the disk */
void expect_data(Machine *m, Request *req, const uint8_t *data, size_t bytes);

/*
 * The request was given up: nothing, all, or its first bytes have been
 * transferred, but no byte before one that has not.  Expect so and return how
 * many.  Anything else is found by assert_everything().
 */
size_t expect_partial_transfer(Machine *m, Request *req);

/* All memory and all disks are as they shall be */
void assert_everything(Machine *m);

/*
 * Counters, as text: whatever x-query-dma has that is not zero, in the order of
 * its schema, but for times.  What depends on a reason has it in the name.
 *
 *     requests=1 bytes-direct=100 bytes-bounced=412 bounced-mmio=412
 */

/* All counters are zero from here on */
void dma_counters_reset(QTestState *qts);

/*
 * The text of a device's counters, given its QOM path or the end of it; without
 * a name that of the only device that counted anything, and NULL for a device
 * that is not there.  "total" is what all devices did.  Free it with g_free().
 */
char *dma_counters(QTestState *qts, const char *device);

/* The same of a drive; "total" is what all did */
char *dma_drive_counters(QTestState *qts, const char *drive);

/* Counters are as this text says */
void expect_dma_counters(QTestState *qts, const char *device,
                         const char *text);
void expect_dma_drive_counters(QTestState *qts, const char *drive,
                               const char *text);

#endif
